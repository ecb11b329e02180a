"""Which column of a contacts file means what, by its header."""

import re
import unicodedata
from collections.abc import Mapping, Sequence

# First in the list wins where a file has several: a WhatsApp number is better to write to than an office's.
_ALIASES: dict[str, tuple[str, ...]] = {
    "phone": (
        "whatsapp", "whatsapp_number", "whatsapp_phone", "wa_id", "mobile_number", "mobile", "mobile_phone",
        "mobile_no", "cell", "cell_phone", "cellphone", "phone", "phone_number", "phone_no", "telephone",
        "telephone_number", "tel", "msisdn", "contact_number",
        "phone_1_value", "primary_phone", "celular", "telefono", "telefone",
        "telefon", "telefonnummer", "handy", "mobil", "number",
    ),
    "email": (
        "email", "e_mail", "email_address", "e_mail_address", "mail", "primary_email", "e_mail_1_value", "correo",
        "correo_electronico", "courriel", "emailadresse",
    ),
    "name": ("name", "full_name", "fullname", "contact_name", "display_name", "customer_name", "nombre", "nome", "nom"),
    "first_name": ("first_name", "firstname", "given_name", "forename", "vorname", "prenom"),
    "last_name": ("last_name", "lastname", "surname", "family_name", "nachname", "apellido", "apellidos"),
    "tags": ("tags", "tag", "labels", "label", "groups", "group", "segments", "group_membership"),
}  # fmt: skip
_RANKS = {alias: (field, rank) for field, aliases in _ALIASES.items() for rank, alias in enumerate(aliases)}

_MAX_NAME = 64


def field_name(header: str) -> str:
    """A header as a variable's name: `Order ID` is `order_id`, `E-mail` is `e_mail`, `Téléphone` is `telephone`."""
    plain = unicodedata.normalize("NFKD", header)
    plain = "".join(character for character in plain if not unicodedata.combining(character))
    plain = unicodedata.normalize("NFC", plain)
    return re.sub(r"\W+", "_", plain.casefold()).strip("_")[:_MAX_NAME]


def recognized(headers: Sequence[str]) -> int:
    """How many of `headers` are names of a known field."""
    return sum(field_name(header) in _RANKS for header in headers)


def name_columns(headers: Sequence[str], mapping: Mapping[str, str] | None = None) -> list[str]:
    """A unique name for each column, in the file's order; an empty one says that the column is left out.

    Args:
        headers: The file's first record.
        mapping: Header, as written or as `field_name` gives it, to the name it shall have; goes before all aliases.

    Known columns get `phone`, `email`, `name`, `tags`, `first_name` or `last_name`; of several for one field the
    likeliest gets it and the others keep their own name. A column without header is `column_` and its number.
    """
    mapping = mapping or {}
    own = [field_name(header) or f"column_{number}" for number, header in enumerate(headers, 1)]
    names = [mapping.get(header.strip(), mapping.get(plain)) for header, plain in zip(headers, own, strict=True)]
    taken = {name for name in names if name}
    for field in _ALIASES:
        ranked = sorted(
            (_RANKS[plain][1], index)
            for index, plain in enumerate(own)
            if names[index] is None and plain in _RANKS and _RANKS[plain][0] == field
        )
        if ranked and field not in taken:
            names[ranked[0][1]] = field
            taken.add(field)
    return _unique([plain if name is None else name for name, plain in zip(names, own, strict=True)], names)


def _unique(names: list[str], fixed: Sequence[str | None]) -> list[str]:
    """Append `_2`, `_3` … where a column would get a name that another has."""
    taken = {name for name in fixed if name}
    result = []
    for name, given in zip(names, fixed, strict=True):
        candidate, number = name, 2
        while given is None and candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        result.append(candidate)
    return result
