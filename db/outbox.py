"""The table `outbox`: what the broker's store has to be told, written in the transaction that it belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, LiteralString

from psycopg.rows import class_row

from db.pool import connection, transaction

Kind = Literal["enqueue", "finish", "call"]

LOCK_KEY = 0x6F757462
"""Key of the advisory lock of whoever tells what was left behind; "outb" in ASCII."""

_ADD: LiteralString = "insert into outbox (kind, payload, messages) values (%s, %s, %s) returning id"
_REMOVE: LiteralString = "delete from outbox where id = any(%s)"
_LOCK: LiteralString = "select pg_try_advisory_xact_lock(%s)"
_LEFT: LiteralString = """
    select id, kind, payload, clock_timestamp() - created_at as age from outbox
    where created_at < clock_timestamp() - %s order by id limit %s for update skip locked
"""
_BEFORE: LiteralString = "select exists (select from outbox where id < %s)"
_WAITING: LiteralString = "select coalesce(sum(messages), 0)::bigint from outbox"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row; `age` is the time since it was written."""

    id: int
    kind: Kind
    payload: bytes
    age: timedelta


def add(kind: Kind, payload: bytes, messages: int) -> int:
    """Write an entry in the surrounding transaction; returns its id."""
    with transaction() as current:
        row = current.execute(_ADD, [kind, payload, messages]).fetchone()
    assert row is not None  # noqa: S101 - an insert without a condition
    return int(row[0])


def remove(ids: Sequence[int]) -> None:
    """Remove entries that the store was told."""
    with connection() as current:
        current.execute(_REMOVE, [list(ids)])


def lock_left(older_than: timedelta, limit: int) -> list[Entry]:
    """The oldest entries, locked until the surrounding transaction ends.

    None while another process has them: so they are told in order.
    """
    with transaction() as current, current.cursor(row_factory=class_row(Entry)) as cursor:
        if current.execute(_LOCK, [LOCK_KEY]).fetchone() != (True,):
            return []
        return cursor.execute(_LEFT, [older_than, limit]).fetchall()


def has_before(entry_id: int) -> bool:
    """Whether older entries wait."""
    with connection() as current:
        return current.execute(_BEFORE, [entry_id]).fetchone() == (True,)


def waiting() -> int:
    """How many messages wait in the table."""
    with connection() as current:
        row = current.execute(_WAITING).fetchone()
    return int(row[0]) if row else 0
