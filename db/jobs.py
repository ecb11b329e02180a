"""The tables `jobs` and `job_logs`: what users asked for, how far it is, and what became of it.

A job is over once, by whatever comes first; what comes later changes nothing. Each start, retry and end leaves a row in
`job_logs`. All functions join the caller's transaction, see `db.pool.transaction`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString
from uuid import UUID

import orjson
from psycopg.rows import class_row
from psycopg.types.json import Json

from core.clock import uuid7
from db.pool import connection, transaction

FinalStatus = Literal["completed", "partial_success", "partial_failure", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`. `progress_total` is None until it is known; times are UTC."""

    id: UUID
    organization_id: UUID
    user_id: UUID | None
    type: str
    queue: str
    data: dict[str, Any]
    status: str
    progress_current: int
    progress_total: int | None
    attempts: int
    max_attempts: int
    result: dict[str, Any] | None
    error_details: dict[str, Any] | None
    idempotency_key: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def percent(self) -> float:
        """Progress from 0 to 100; 0 while the total is unknown, less than 100 until the job is over."""
        if self.status == "completed":
            return 100.0
        if not self.progress_total:
            return 0.0
        return min(100.0 * self.progress_current / self.progress_total, 100.0 if self.completed_at else 99.9)


_CREATE: LiteralString = """
    insert into jobs (id, organization_id, user_id, type, queue, data, max_attempts, idempotency_key)
    values (%s, %s, %s, %s, %s, %s, %s, %s)
    on conflict (organization_id, idempotency_key) do nothing
"""

_SAME_KEY: LiteralString = "select id from jobs where organization_id = %s and idempotency_key = %s"

_START: LiteralString = """
    update jobs set status = 'running', attempts = attempts + 1, started_at = coalesce(started_at, now())
    where id = %s and completed_at is null
"""

_PROGRESS: LiteralString = """
    update jobs set progress_current = %s, progress_total = coalesce(%s, progress_total)
    where id = %s and completed_at is null
"""

_RETRY: LiteralString = "update jobs set status = 'queued' where id = %s and completed_at is null"

_FINISH: LiteralString = """
    update jobs set status = %s, result = %s, error_details = %s, completed_at = now()
    where id = %s and completed_at is null
"""

_LOG: LiteralString = """
    insert into job_logs (id, job_id, type, organization_id, user_id, status, result, error_details, started_at,
                          completed_at)
    select %s, id, type, organization_id, user_id, %s, %s, %s, started_at, completed_at from jobs where id = %s
"""

# A campaign's progress is in its counters, which every settlement keeps; the later columns of a name count.
_GET: LiteralString = """
    select j.*, coalesce(n.total - n.pending - flying.count, j.progress_current) as progress_current,
           coalesce(n.total, j.progress_total) as progress_total
    from jobs j
    left join campaign_counts n on n.campaign_id = j.id
    left join lateral (
        select count(*) from deliveries d where d.campaign_id = n.campaign_id and d.status in ('released', 'sending')
    ) flying on true
    where j.organization_id = %s and j.id = %s
"""

_OPEN: LiteralString = """
    select * from jobs
    where completed_at is null and created_at < now() - %s::interval and (%s::uuid is null or id > %s)
    order by id limit %s
"""


def create(
    organization_id: UUID,
    job_type: str,
    queue: str,
    data: Mapping[str, object],
    *,
    job_id: UUID | None = None,
    user_id: UUID | None = None,
    idempotency_key: str | None = None,
    max_attempts: int = 1,
) -> UUID:
    """Record a queued job and return its id.

    Idempotent by `idempotency_key`: a second job of the organisation with the same key is not made, the first one's id
    is returned. Waits for another transaction that is just making it.

    Args:
        organization_id: Whose job it is.
        job_type: Name of the actor, such as `contacts.import`.
        queue: Name of its queue.
        data: Its payload, JSON.
        job_id: The id to give it; a new one by default.
        user_id: Who asked for it.
        idempotency_key: Any text of the caller's.
        max_attempts: Total tries, for display.
    """
    job_id = job_id or uuid7()
    row = [job_id, organization_id, user_id, job_type, queue, _json(data), max_attempts, idempotency_key]
    with transaction() as current:
        if current.execute(_CREATE, row).rowcount:
            return job_id
        first = current.execute(_SAME_KEY, [organization_id, idempotency_key]).fetchone()
    if first is None:
        message = f"The job with the key {idempotency_key} went away while another was made with it."
        raise LookupError(message)
    return UUID(str(first[0]))


def start(job_id: UUID) -> bool:
    """Record that a try begins: status `running`, one more attempt. False where the job is over or unknown."""
    with transaction() as current:
        return bool(current.execute(_START, [job_id]).rowcount) and _log(job_id, "started")


def report_progress(job_id: UUID, current: int, total: int | None = None) -> None:
    """Record that `current` items are done, of `total` where that is known. Nothing happens once the job is over."""
    with transaction() as open_transaction:
        open_transaction.execute(_PROGRESS, [current, total, job_id])


def retry(job_id: UUID, error_details: Mapping[str, object]) -> bool:
    """Record that a try failed and another one will follow. False where the job is over or unknown."""
    with transaction() as current:
        return bool(current.execute(_RETRY, [job_id]).rowcount) and _log(job_id, "retried", error=error_details)


def finish(
    job_id: UUID,
    status: FinalStatus,
    result: Mapping[str, object] | None = None,
    error_details: Mapping[str, object] | None = None,
) -> bool:
    """Record the job's end. False, and nothing changes, where it is over already or unknown."""
    with transaction() as current:
        changed = current.execute(_FINISH, [status, _json(result), _json(error_details), job_id]).rowcount
        return bool(changed) and _log(job_id, status, result=result, error=error_details)


def get(organization_id: UUID, job_id: UUID) -> Job | None:
    """A job of the organisation; None where it has no such job."""
    with connection() as current, current.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(_GET, [organization_id, job_id]).fetchone()


def open_jobs(*, older_than: timedelta, after: UUID | None = None, limit: int = 500) -> list[Job]:
    """Jobs that are not over, created at least so long ago, by id from `after` on."""
    with connection() as current, current.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(_OPEN, [older_than, after, after, limit]).fetchall()


def _log(
    job_id: UUID,
    status: str,
    *,
    result: Mapping[str, object] | None = None,
    error: Mapping[str, object] | None = None,
) -> bool:
    with transaction() as current:
        row = [uuid7(), status, _json(result), _json(error), job_id]
        return bool(current.execute(_LOG, row).rowcount)


def _json(value: Mapping[str, object] | None) -> Json | None:
    return None if value is None else Json(value, dumps=orjson.dumps)
