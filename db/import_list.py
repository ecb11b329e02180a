"""Looking at imports from outside: the newest ones."""

from typing import LiteralString
from uuid import UUID

from db import imports
from db.imports import Import
from db.pool import connection

_NEWEST: LiteralString = "select id from imports where organization_id = %s order by id desc limit %s"


def newest(organization_id: UUID, *, limit: int = 20) -> list[Import]:
    """The organisation's newest imports, newest first."""
    with connection() as current:
        rows = current.execute(_NEWEST, (organization_id, limit)).fetchall()
    return [imports.load(row[0]) for row in rows]
