"""The table `fallback_sends`: messages that the first of two stores did not confirm, see `brokers.fallback.doubts`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from psycopg.rows import class_row

from core.clock import uuid7
from db.pool import connection, transaction

KEPT = timedelta(days=7)
"""A store that was brought back from an old copy may show messages again; after so long nobody looks for them."""

_ADD: LiteralString = "insert into fallback_sends (id, message_ids, groups, payload) values (%s, %s, %s, %s)"
_DOUBTFUL: LiteralString = """
    select id, message_ids, groups, payload, clock_timestamp() - sent_at as age from fallback_sends
    where state = 'doubtful' and sent_at < clock_timestamp() - %s
    order by sent_at limit 1 for update skip locked
"""
_SECOND: LiteralString = "update fallback_sends set state = 'second' where id = %s"
_SETTLED: LiteralString = "delete from fallback_sends where id = %s"
_CONFIRM: LiteralString = "delete from fallback_sends where state = 'doubtful' and message_ids && %s::text[]"
_ELSEWHERE: LiteralString = """
    select unnest(message_ids) from fallback_sends where state <> 'doubtful' and message_ids && %s::text[]
"""
_TO_VOID: LiteralString = """
    select id, message_ids, groups, payload, clock_timestamp() - sent_at as age from fallback_sends
    where state = 'second' or (%s and state = 'voided') for update skip locked
"""
_VOIDED: LiteralString = "update fallback_sends set state = 'voided' where id = any(%s)"
_EXPIRE: LiteralString = "delete from fallback_sends where state = 'voided' and sent_at < now() - %s::interval"


@dataclass(frozen=True, slots=True)
class Send:
    """A row: one call to enqueue, whose messages are in the first store together or not at all."""

    id: UUID
    message_ids: list[str]
    groups: list[str]
    payload: bytes
    age: timedelta


def add(message_ids: Sequence[str], groups: Iterable[str], payload: bytes) -> None:
    """Write down a send that was not confirmed."""
    with transaction() as current:
        current.execute(_ADD, [uuid7(), list(message_ids), list(groups), payload])


def lock_doubtful(older_than: timedelta) -> Send | None:
    """The oldest send that is not decided, locked until the surrounding transaction ends; None if there is none."""
    with transaction() as current, current.cursor(row_factory=class_row(Send)) as cursor:
        return cursor.execute(_DOUBTFUL, [older_than]).fetchone()


def decide_second(send_id: UUID) -> None:
    """Record that the messages run from the second store."""
    with transaction() as current:
        current.execute(_SECOND, [send_id])


def settle(send_id: UUID) -> None:
    """Forget a send that the first store has."""
    with transaction() as current:
        current.execute(_SETTLED, [send_id])


def confirm(message_ids: Sequence[str]) -> int:
    """Forget undecided sends of which one message was seen in the first store; returns how many sends."""
    with transaction() as current:
        return current.execute(_CONFIRM, [list(message_ids)]).rowcount


def elsewhere(message_ids: Sequence[str]) -> set[str]:
    """Those that run from the second store."""
    with connection() as current:
        return {row[0] for row in current.execute(_ELSEWHERE, [list(message_ids)])} & set(message_ids)


def lock_to_void(*, again: bool) -> list[Send]:
    """Sends whose copies the first store must not run, locked until the surrounding transaction ends.

    Args:
        again: Also those of the last days of which it has confirmed that.
    """
    with transaction() as current, current.cursor(row_factory=class_row(Send)) as cursor:
        return cursor.execute(_TO_VOID, [again]).fetchall()


def voided(send_ids: Sequence[UUID]) -> None:
    """Record that the first store has no copies, and forget what is old."""
    with transaction() as current:
        current.execute(_VOIDED, [list(send_ids)])
        current.execute(_EXPIRE, [KEPT])
