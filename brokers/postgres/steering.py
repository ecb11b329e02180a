"""Watching and steering: depths, pauses, cancelling, dead letters, results."""

from collections.abc import Sequence
from datetime import datetime

from brokers.engine import DeadLetter, DeadLetterGroup, QueueDepth
from brokers.postgres.arrays import uuid_array
from brokers.postgres.connections import Connection

CREATE_GROUP = "insert into dramatiq.message_group values (%s, %s) on conflict do nothing"
DEPTHS = "select * from dramatiq.depths(%s::text[])"
PAUSE = "insert into dramatiq.paused_queue values (%s) on conflict do nothing"
RESUME = "delete from dramatiq.paused_queue where queue_name = %s"
WAKE = "select dramatiq.wake(array[%s::text], 1)"
CANCEL = "select dramatiq.cancel(%s::uuid[])"
PURGE = "select dramatiq.purge(%s)"
REQUEUE = "select dramatiq.requeue(%s::uuid[])"
DISCARD = "delete from dramatiq.queue where message_id = any(%s::uuid[]) and state = 'rejected'"
DEAD_LETTERS = """
    select message_id::text, queue_name, coalesce(message ->> 'actor_name', ''),
        coalesce(raw_message, convert_to(message::text, 'UTF8')), coalesce(code, ''), coalesce(error, ''),
        attempt, mtime
    from dramatiq.queue
    where state = 'rejected' and queue_name = %s and mtime < coalesce(%s, 'infinity'::timestamptz)
    order by mtime desc limit %s
"""
DEAD_LETTER_GROUPS = """
    select queue_name, coalesce(message ->> 'actor_name', ''), coalesce(code, ''), count(*), min(mtime), max(mtime)
    from dramatiq.queue
    where state = 'rejected' and (%s::text is null or queue_name = %s)
    group by 1, 2, 3 order by 4 desc, 1, 2, 3
"""
RESULTS = """
    select message_id::text, coalesce(raw_result, convert_to(result::text, 'UTF8')) from dramatiq.queue
    where message_id = any(%s::uuid[]) and (result is not null or raw_result is not null)
        and (result_ttl is null or result_ttl > now())
"""


def create_group(connection: Connection, group_id: str, size: int) -> None:
    """As `Engine.create_group`."""
    connection.execute(CREATE_GROUP, (group_id, size))


def depths(connection: Connection, queues: Sequence[str]) -> list[QueueDepth]:
    """As `Engine.depths`. Counts by index: about 0.1 s for a million messages."""
    return [QueueDepth(*row) for row in connection.execute(DEPTHS, (list(queues) or None,))]


def pause(connection: Connection, queue: str) -> None:
    """As `Engine.pause`."""
    connection.execute(PAUSE, (queue,))


def resume(connection: Connection, queue: str) -> None:
    """As `Engine.resume`."""
    connection.execute(RESUME, (queue,))
    connection.execute(WAKE, (queue,))


def cancel(connection: Connection, message_ids: Sequence[str]) -> int:
    """As `Engine.cancel`. One that was asked to stop and fails or is lost does not run again."""
    return _number(connection, CANCEL, uuid_array(message_ids))


def purge(connection: Connection, queue: str) -> int:
    """As `Engine.purge`."""
    return _number(connection, PURGE, queue)


def dead_letters(connection: Connection, queue: str, limit: int, before: datetime | None) -> list[DeadLetter]:
    """As `Engine.dead_letters`."""
    return [DeadLetter(*row) for row in connection.execute(DEAD_LETTERS, (queue, before, limit))]


def dead_letter_groups(connection: Connection, queue: str | None) -> list[DeadLetterGroup]:
    """As `Engine.dead_letter_groups`."""
    return [DeadLetterGroup(*row) for row in connection.execute(DEAD_LETTER_GROUPS, (queue, queue))]


def requeue(connection: Connection, message_ids: Sequence[str]) -> int:
    """As `Engine.requeue`."""
    return _number(connection, REQUEUE, uuid_array(message_ids))


def discard(connection: Connection, message_ids: Sequence[str]) -> int:
    """As `Engine.discard`."""
    return connection.execute(DISCARD, (uuid_array(message_ids),)).rowcount


def results(connection: Connection, message_ids: Sequence[str]) -> dict[str, bytes]:
    """As `Engine.results`."""
    rows = connection.execute(RESULTS, (uuid_array(message_ids),)).fetchall()
    return {message_id: bytes(data) for message_id, data in rows}


def result(connection: Connection, message_id: str) -> bytes | None:
    """As `Engine.result`."""
    return next(iter(results(connection, [message_id]).values()), None)


def _number(connection: Connection, statement: str, argument: str) -> int:
    row = connection.execute(statement, (argument,)).fetchone()
    return int(row[0]) if row else 0
