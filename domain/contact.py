"""What makes a row of a file a contact, and what becomes of the row otherwise."""

import re
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from domain import email_address, phone
from domain.contact_file import Problem, Row

_TAG_SEPARATORS = re.compile(r"[|,;]")
_SHOWN = 200


class ImportOptions(BaseModel):
    """How a contacts file is imported. In the API the names are camelCase: `updateExisting`."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    update_existing: bool = Field(default=False, description="Update contacts that are there already.")
    skip_duplicates: bool = Field(default=True, description="False: a duplicate row counts as a failure of the job.")
    validate_phone: bool = Field(default=True, description="False: any 10 to 15 digits are taken as a phone number.")
    default_region: str = Field(default="", pattern="^([A-Za-z]{2})?$", description="Country of national numbers.")
    mapping: dict[str, str] = Field(default_factory=dict, description="Header to column name; goes before aliases.")


class Contact(NamedTuple):
    """A valid row.

    Attributes:
        line: Line of the file on which it begins.
        phone: E.164, or None: then there is an `email`, and that is the contact's key.
        email: Normal form, or None.
        name: May be empty.
        tags: Without repetition, in the file's order.
        custom: Every further column that is not empty.
    """

    line: int
    phone: str | None
    email: str | None
    name: str
    tags: list[str]
    custom: dict[str, str]


class Rejected(NamedTuple):
    """A row that is no contact, and why."""

    line: int
    problem: Problem


def read(row: Row, options: ImportOptions) -> Contact | Rejected:
    """Turn a row into a contact, or say what is wrong with it: only the first thing that is.

    Reasons, in the order of the checks: those of `Row.problem`, `missing_contact`, `invalid_phone`, `invalid_email`.
    """
    line, cells, problem = row
    if problem is not None:
        return Rejected(line, problem)
    raw_phone, raw_email = cells.pop("phone", ""), cells.pop("email", "")
    if not raw_phone and not raw_email:
        return Rejected(line, Problem("phone", "", "missing_contact"))
    number = None
    if raw_phone:
        number = phone.normalize(raw_phone, options.default_region, check_plan=options.validate_phone)
        if number is None:
            return Rejected(line, Problem("phone", raw_phone[:_SHOWN], "invalid_phone"))
    email = None
    if raw_email:
        email = email_address.normalize(raw_email)
        if email is None:
            return Rejected(line, Problem("email", raw_email[:_SHOWN], "invalid_email"))
    name = cells.pop("name", "") or f"{cells.get('first_name', '')} {cells.get('last_name', '')}".strip()
    tags = cells.pop("tags", "")
    return Contact(
        line,
        number,
        email,
        name,
        split_tags(tags) if tags else [],
        {column: value for column, value in cells.items() if value},
    )


def split_tags(text: str) -> list[str]:
    """The tags of one cell, separated by `|`, `,` or `;`, each once."""
    return list(dict.fromkeys(filter(None, map(str.strip, _TAG_SEPARATORS.split(text)))))
