"""The table `broker_moves`: batches of messages between two stores, see `brokers.move`."""

from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from db.pool import connection, transaction

_ADD: LiteralString = """
    insert into broker_moves (batch_id, source, target, payload, messages) values (%s, %s, %s, %s, %s)
"""
_TAKEN: LiteralString = "update broker_moves set is_taken = true where batch_id = %s"
_REMOVE: LiteralString = "delete from broker_moves where batch_id = %s"
_OF_SOURCE: LiteralString = """
    select batch_id, payload from broker_moves
    where source = %s and not is_taken and created_at < clock_timestamp() - %s
"""
_FOR_TARGET: LiteralString = """
    select batch_id, payload from broker_moves
    where target = %s and is_taken and created_at < clock_timestamp() - %s
"""
_ANY: LiteralString = "select exists (select from broker_moves)"


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages between two stores; `payload` is of `brokers.packed.pack_stored`."""

    batch_id: UUID
    payload: bytes


def add(batch_id: str, source: str, target: str, payload: bytes, messages: int) -> None:
    """Write a batch down before the source forgets it."""
    with transaction() as current:
        current.execute(_ADD, [batch_id, source, target, payload, messages])


def taken(batch_id: str) -> None:
    """Record that the source no longer has the batch: it belongs to the target."""
    with transaction() as current:
        current.execute(_TAKEN, [batch_id])


def remove(batch_id: str) -> None:
    """Forget a batch that is in one store, whole."""
    with transaction() as current:
        current.execute(_REMOVE, [batch_id])


def any_open() -> bool:
    """Whether there is any batch."""
    with connection() as current:
        return current.execute(_ANY).fetchone() == (True,)


def of_source(source: str, older_than: timedelta) -> list[Batch]:
    """Batches of which it is open whether `source` still has them."""
    return _batches(_OF_SOURCE, source, older_than)


def for_target(target: str, older_than: timedelta) -> list[Batch]:
    """Batches that belong to `target`, which may not have them yet."""
    return _batches(_FOR_TARGET, target, older_than)


def _batches(query: LiteralString, store: str, older_than: timedelta) -> list[Batch]:
    with connection() as current, current.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(query, [store, older_than]).fetchall()
