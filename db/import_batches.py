"""Saving a batch of an import's rows, exactly once."""

from collections.abc import Sequence
from typing import LiteralString, NamedTuple
from uuid import UUID

import orjson
from psycopg.types.json import Json

from core.clock import now
from core.errors import Cancelled, NotYet
from db import contacts, imports, jobs
from db.pool import transaction
from domain.contact import Contact, Rejected
from domain.contact_file import Problem

# The lock makes two workers that run the same import by mistake take turns; `records_done` then stops one of them.
_LOCK: LiteralString = """
    select i.organization_id, i.records_done, i.completed_at is not null, i.source_lines, i.errors_by_reason, j.status
    from imports i join jobs j using (id)
    where i.id = %s for no key update of i
"""

_ADVANCE: LiteralString = """
    update imports set records_done = %s, rows_total = %s, inserted = inserted + %s, updated = updated + %s,
        duplicate = duplicate + %s, invalid = invalid + %s, errors_by_reason = %s
    where id = %s
"""

_INSERT_ERRORS: LiteralString = """
    insert into import_errors (import_id, line, column_name, value, reason)
    select %s, line, column_name, value, reason
    from json_to_recordset(%s) as r(line bigint, column_name text, value text, reason text)
"""


class Before(NamedTuple):
    """What `_LOCK` reads."""

    organization_id: UUID
    records_done: int
    is_completed: bool
    source_lines: int
    errors_by_reason: dict[str, int]
    job_status: str


def save(import_id: UUID, done: int, batch: Sequence[Contact | Rejected], *, update_existing: bool) -> tuple[int, int]:
    """Save the records `done`, `done` + 1 … of the file: contacts, errors, counts and progress, in one transaction.

    Either all of it happens or nothing does, and it happens once: a batch that does not begin where the last one ended
    is refused. So a run may be killed at any point and started again.

    Returns:
        Records done now, and about how many there are.

    Raises:
        NotYet: another worker has gone on with this import in the meantime.
        Cancelled: the job has been cancelled.
    """
    found = [row for row in batch if isinstance(row, Contact)]
    rejected = [row for row in batch if isinstance(row, Rejected)]
    with transaction() as current:
        before = Before(*(current.execute(_LOCK, [import_id]).fetchone() or ()))
        _refuse_unless_next(import_id, done, before)
        saved = contacts.save(before.organization_id, import_id, found, update_existing=update_existing)
        errors = rejected + [_duplicate(row) for row in found if row.line in saved.duplicates]
        if errors:
            current.execute(_INSERT_ERRORS, [import_id, Json(list(map(_as_json, errors)), dumps=orjson.dumps)])
        reasons = Json(_counted(before.errors_by_reason, rejected))
        after = done + len(batch)
        counts = [saved.inserted, saved.updated, len(saved.duplicates), len(rejected)]
        current.execute(_ADVANCE, [after, after, *counts, reasons, import_id])
        total = max(after, before.source_lines)
        jobs.report_progress(import_id, after, total)
    return after, total


def _refuse_unless_next(import_id: UUID, done: int, before: Before) -> None:
    if before.records_done != done or before.is_completed:
        message = f"Import {import_id} is at record {before.records_done}, not {done}: another worker runs it."
        raise NotYet(message, until=now() + imports.TAKEN_OVER_WAIT, code="import_taken_over")
    if before.job_status == "cancelled":
        raise Cancelled(f"Import {import_id} was cancelled at record {done}.", code="cancelled")


def _duplicate(contact: Contact) -> Rejected:
    column, value = ("phone", contact.phone) if contact.phone else ("email", contact.email)
    return Rejected(contact.line, Problem(column, value or "", "duplicate"))


def _counted(counts: dict[str, int], rejected: Sequence[Rejected]) -> dict[str, int]:
    counts = dict(counts)
    for _, problem in rejected:
        counts[problem.reason] = counts.get(problem.reason, 0) + 1
    return counts


def _as_json(rejected: Rejected) -> dict[str, object]:
    line, (column, value, reason) = rejected
    return {"line": line, "column_name": column, "value": value, "reason": reason}
