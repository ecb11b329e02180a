"""What is deleted when it has become old."""

from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

from db import pool

BATCH = 5_000
"""Rows deleted in one transaction, so that none of them is long."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """Rows that a clean-up removed."""

    job_logs: int
    import_files: int


def clean(*, job_logs: timedelta, import_files: timedelta, batch: int = BATCH) -> Deleted:
    """Delete job logs that are older, and the files of imports that ended longer ago; safe to repeat or interrupt."""
    return Deleted(
        _delete(
            """
            delete from job_logs where id in (
                select id from job_logs where created_at < now() - %s order by created_at limit %s)
            """,
            job_logs,
            batch,
        ),
        _delete(
            """
            delete from import_chunks where (import_id, number) in (
                select c.import_id, c.number from import_chunks c join jobs j on j.id = c.import_id
                where j.completed_at < now() - %s limit %s)
            """,
            import_files,
            batch,
        ),
    )


def _delete(statement: LiteralString, age: timedelta, batch: int) -> int:
    total = 0
    while True:
        with pool.transaction() as connection:
            deleted = connection.execute(statement, (age, batch)).rowcount
        total += deleted
        if deleted < batch:
            return total
