"""The tables `imports`, `import_chunks` and `import_errors`: an uploaded contacts file and how far it is imported."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Json

from core.clock import now, uuid7
from core.errors import NotYet, PermanentError
from core.settings import get_settings
from db import jobs
from db.pool import connection, transaction
from domain.contact import ImportOptions
from domain.contact_file import ContactFile
from domain.spreadsheet import safe_cell

JOB_TYPE = "contacts.import"
QUEUE = "contact-import"

TAKEN_OVER_WAIT = timedelta(seconds=30)
"""When a worker that finds another one on its import looks again whether that one completes it."""

_CHUNK_BYTES = 512 * 1024
_REPORT_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Import:
    """A row of `imports`, with its job's status.

    Attributes:
        records_done: Records of the file that are accounted for: inserted + updated + duplicate + invalid.
        rows_total: All of them, once the import is complete; until then as `records_done`.
        invalid: Rejected rows; `errors_by_reason` adds up to it.
        completed_at: None while there is more to do.
    """

    id: UUID
    organization_id: UUID
    file_name: str
    source_chunks: int
    source_lines: int
    options: dict[str, Any]
    records_done: int
    rows_total: int
    inserted: int
    updated: int
    duplicate: int
    invalid: int
    errors_by_reason: dict[str, int]
    created_at: datetime
    completed_at: datetime | None
    job_status: str

    @property
    def summary(self) -> dict[str, object]:
        """The job's result: counts that add up to `rows`, and how it ended.

        `status`: `completed`; with rejected rows (or duplicates that must not be skipped) `partial_success` where at
        least half of the rows are contacts now or were before, otherwise `partial_failure`.
        """
        failed = self.invalid + (0 if self.options["skip_duplicates"] else self.duplicate)
        status = "partial_success" if failed * 2 <= self.rows_total else "partial_failure"
        return {
            "status": status if failed else "completed",
            "rows": self.rows_total,
            "inserted": self.inserted,
            "updated": self.updated,
            "duplicate": self.duplicate,
            "invalid": self.invalid,
            "errors_by_reason": self.errors_by_reason,
        }


_INSERT: LiteralString = """
    insert into imports (id, organization_id, file_name, source_chunks, source_lines, options)
    values (%s, %s, %s, 0, 0, %s)
"""
_INSERT_CHUNK: LiteralString = "insert into import_chunks (import_id, number, bytes) values (%s, %s, %b)"
_SET_SOURCE: LiteralString = "update imports set source_chunks = %s, source_lines = %s where id = %s"
_CHUNK: LiteralString = "select bytes from import_chunks where import_id = %s and number = %s"
_GET: LiteralString = "select i.*, j.status as job_status from imports i join jobs j using (id) where i.id = %s"
_GET_OF: LiteralString = _GET + " and i.organization_id = %s"

_COMPLETE: LiteralString = "update imports set completed_at = now() where id = %s and completed_at is null"
_DELETE_CHUNKS: LiteralString = "delete from import_chunks where import_id = %s"
_ERRORS: LiteralString = """
    select line, column_name, value, reason from import_errors
    where import_id = %s and (line, column_name) > (%s, %s::text) order by line, column_name limit %s
"""


def accept(
    organization_id: UUID,
    source: Path | BinaryIO,
    file_name: str,
    options: ImportOptions | None = None,
    *,
    user_id: UUID | None = None,
    idempotency_key: str | None = None,
) -> UUID:
    """Store a contacts file and a queued job for it; returns the id of both. Whoever calls enqueues the job.

    The bytes go into the database, where every worker finds them; they are deleted when the import is complete. All or
    nothing: in one transaction, the caller's where there is one. Idempotent by `idempotency_key`.

    Args:
        organization_id: Whose contacts they are.
        source: The file, or a stream of its bytes.
        file_name: What the user calls it.
        options: See there. Without a default region of their own they get DEFAULT_REGION's.
        user_id: Who uploaded it.
        idempotency_key: Any text of the caller's.

    Raises:
        PermanentError: the file is no CSV, has no column for phone or e-mail, or is larger than IMPORT_MAX_BYTES.
    """
    if isinstance(source, Path):
        with source.open("rb") as stream:
            return accept(organization_id, stream, file_name, options, user_id=user_id, idempotency_key=idempotency_key)
    options = options or ImportOptions()
    if not options.default_region:
        options = options.model_copy(update={"default_region": get_settings().default_region})
    kept = options.model_dump(mode="json")
    import_id = uuid7()
    with transaction() as current:
        data = {"import_id": str(import_id), "file_name": file_name, "options": kept}
        job_id = jobs.create(
            organization_id, JOB_TYPE, QUEUE, data,
            job_id=import_id, user_id=user_id, idempotency_key=idempotency_key,
        )  # fmt: skip
        if job_id != import_id:
            return job_id
        current.execute(_INSERT, [import_id, organization_id, file_name, Json(kept)])
        lines = _store(current, import_id, source, options)
        jobs.report_progress(import_id, 0, lines)
    return import_id


def load(import_id: UUID) -> Import:
    """The import; PermanentError where there is none."""
    with connection() as current, current.cursor(row_factory=class_row(Import)) as cursor:
        found = cursor.execute(_GET, [import_id]).fetchone()
    if found is None:
        raise PermanentError(f"There is no import {import_id}.", code="import_unknown")
    return found


def find(organization_id: UUID, import_id: UUID) -> Import | None:
    """The import of that organisation, or None."""
    with connection() as current, current.cursor(row_factory=class_row(Import)) as cursor:
        return cursor.execute(_GET_OF, [import_id, organization_id]).fetchone()


def open_source(stored: Import) -> BinaryIO:
    """The file's bytes, read from the database block by block.

    Reading raises NotYet where the blocks have gone, because another worker has completed the import.
    """
    return io.BufferedReader(_Source(stored), _CHUNK_BYTES)


def complete(import_id: UUID) -> Import:
    """Record that all rows are done and delete the stored file. Idempotent."""
    with transaction() as current:
        current.execute(_DELETE_CHUNKS, [import_id])
        current.execute(_COMPLETE, [import_id])
        done = load(import_id)
        jobs.report_progress(import_id, done.rows_total, done.rows_total)
    return done


def error_report(organization_id: UUID, import_id: UUID) -> Iterator[bytes]:
    """The rows that did not become contacts, as CSV in UTF-8: line, column, value, reason; in the file's order.

    Made block by block, with no cell that a spreadsheet program would run. The first block, with the byte order mark
    that Excel needs, comes also where there are no such rows or no such import.
    """
    yield _csv([("line", "column", "value", "reason")], mark=True)
    if find(organization_id, import_id) is None:
        return
    last: tuple[int, str] = (0, "")
    while True:
        with connection() as current:
            page = current.execute(_ERRORS, [import_id, *last, _REPORT_PAGE]).fetchall()
        if not page:
            return
        yield _csv([(line, column, safe_cell(value), reason) for line, column, value, reason in page])
        last = page[-1][:2]


class _Source(io.RawIOBase):
    """The stored file as a stream; each block is a statement of its own, so that no transaction stays open."""

    def __init__(self, stored: Import) -> None:
        super().__init__()
        self._import = stored
        self._number = 0
        self._block = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]  # the base says Buffer: 3.12 only
        if not self._block and self._number < self._import.source_chunks:
            self._block = memoryview(self._next())
        taken = self._block[: len(buffer)]
        self._block = self._block[len(taken) :]
        buffer[: len(taken)] = taken
        return len(taken)

    def _next(self) -> bytes:
        with connection() as current:
            row = current.execute(_CHUNK, [self._import.id, self._number], binary=True).fetchone()
        if row is None:
            message = (
                f"Block {self._number} of the file of import {self._import.id} is gone: another worker completed it."
            )
            raise NotYet(message, until=now() + TAKEN_OVER_WAIT, code="import_taken_over")
        self._number += 1
        return bytes(row[0])


def _store(current: Connection, import_id: UUID, source: BinaryIO, options: ImportOptions) -> int:
    """Write the file's blocks; returns the number of line breaks after the header, about the number of records."""
    limit = get_settings().import_max_bytes
    number = lines = size = 0
    while block := source.read(_CHUNK_BYTES):
        if number == 0:
            ContactFile(io.BytesIO(block), options.mapping)  # a file that cannot be imported is refused at once
        size += len(block)
        if size > limit:
            raise PermanentError(
                f"The file is larger than {limit} bytes (IMPORT_MAX_BYTES). Split it.", code="import_too_large"
            )
        lines += block.count(b"\n")
        current.execute(_INSERT_CHUNK, [import_id, number, block])
        number += 1
    if number == 0:
        raise PermanentError("The file is empty.", code="import_empty")
    lines = max(0, lines - 1)
    current.execute(_SET_SOURCE, [number, lines, import_id])
    return lines


def _csv(rows: list[tuple[object, ...]], *, mark: bool = False) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8-sig" if mark else "utf-8")
