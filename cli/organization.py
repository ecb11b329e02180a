"""Whose data a command works on."""

from typing import Annotated
from uuid import UUID

import typer

from db import organizations

Organization = Annotated[
    str | None,
    typer.Option("--organization", metavar="NAME", help="Whose data it is; without it, the one called Default."),
]


def find(name: str | None) -> UUID:
    """The organisation called `name`, or the default one, which need not be stored yet.

    Raises:
        PermanentError: there is none of that name.
    """
    return organizations.DEFAULT_ID if name is None else organizations.named(name)
