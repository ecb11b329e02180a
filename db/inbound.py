"""The inbox: webhooks as they came, what they said of deliveries, and what people wrote.

A status only moves a delivery forward. Of one attempt, what is said ranks, and the highest counts, in whatever order
and however often the webhooks come:

    (not told) -> sent -> failed -> delivered -> read

So a delivery that failed at the provider is one whose message was neither delivered nor read. An attempt that the
ledger holds as unknown, to be sent again, cancelled or refused is corrected as well: the provider knows better. What
is said of an older attempt changes nothing.

A campaign that has finished keeps its status, and its job the result that it had then: its end took effect once. Its
counters go on with its deliveries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.clock import uuid7
from db import pool
from domain.whatsapp_webhook import Message, Status

RANKS = {"sent": 1, "failed": 2, "delivered": 3, "read": 4}
"""The order in which what is said of one attempt counts."""

_STORE: LiteralString = """
    insert into inbound_events (id, digest, body)
    select id, digest, body from unnest(%s::uuid[], %s::bytea[], %s::bytea[]) as n(id, digest, body)
    on conflict (digest) do nothing returning id
"""

_TAKE: LiteralString = """
    select id, body from inbound_events where processed_at is null order by id limit %s for update skip locked
"""

_DONE: LiteralString = """
    update inbound_events e set processed_at = clock_timestamp(),
        reasons = coalesce(string_to_array(nullif(n.reasons, ''), ' '), '{}')
    from unnest(%s::uuid[], %s::text[]) as n(id, reasons) where e.id = n.id
"""

# A failed delivery without the provider's id was refused by the answer to the send: nothing was told of it since.
_ADVANCE: LiteralString = """
    with news as (
        select * from unnest(%s::uuid[], %s::int[], %s::text[], %s::int[], %s::text[], %s::text[], %s::text[])
                 as n(id, attempt, status, rank, message_id, code, error)
    ), locked as (
        select d.id, n.attempt from deliveries d join news n on n.id = d.id and n.attempt = d.attempt
        where n.rank > case
            when d.status = 'sent' then 1
            when d.status = 'failed' and d.provider_message_id is not null then 2
            when d.status = 'delivered' then 3
            when d.status = 'read' then 4
            else 0 end
        order by d.id for no key update of d
    )
    update deliveries d
    set status = n.status, provider_message_id = coalesce(d.provider_message_id, n.message_id), code = n.code,
        error = n.error, settled_at = coalesce(d.settled_at, clock_timestamp())
    from news n join locked using (id, attempt) where d.id = n.id returning d.id, d.attempt
"""

_ATTEMPTS: LiteralString = "select id, attempt from deliveries where id = any(%s)"

_KEEP_MESSAGES: LiteralString = """
    insert into inbound_messages (provider_message_id, number, sender, kind, body, sent_at)
    select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::jsonb[], %s::timestamptz[])
    on conflict do nothing returning provider_message_id
"""


_WAITING: LiteralString = """
    select received_at < clock_timestamp() - %s from inbound_events where processed_at is null order by id limit 1
"""

_FORGET: LiteralString = """
    delete from inbound_events where id in (
        select id from inbound_events
        where processed_at < now() - %s and (reasons = '{}' or processed_at < now() - %s)
        order by processed_at limit %s for update skip locked)
"""


@dataclass(frozen=True, slots=True)
class Event:
    """A webhook that nobody has processed yet."""

    id: UUID
    body: bytes


def store(body: bytes) -> bool:
    """Keep a webhook's body; False when the same bytes are there already. See `store_many`."""
    return store_many([body])[0]


def store_many(bodies: Sequence[bytes]) -> list[bool]:
    """Keep the bodies of webhooks in one commit; tells of each whether it is new.

    Raises:
        TransientError: the database cannot be reached; nothing was kept.
    """
    ids = [uuid7() for _ in bodies]
    with pool.transaction() as connection:
        stored = connection.execute(_STORE, (ids, [sha256(body).digest() for body in bodies], list(bodies))).fetchall()
    new = {row[0] for row in stored}
    return [event_id in new for event_id in ids]


def take(limit: int) -> list[Event]:
    """Lock the oldest unprocessed events that nobody else has, until the surrounding transaction ends."""
    with pool.transaction() as connection, connection.cursor(row_factory=class_row(Event)) as cursor:
        return cursor.execute(_TAKE, (limit,)).fetchall()


def done(reasons: Mapping[UUID, Sequence[str]]) -> None:
    """Mark events processed, each with what in it could not be used."""
    with pool.transaction() as connection:
        words = [" ".join(word.replace(" ", "_") for word in found) for found in reasons.values()]
        connection.execute(_DONE, (list(reasons), words))


def advance(news: Sequence[Status]) -> dict[tuple[UUID, int], str]:
    """Move deliveries forward; returns, by (delivery, attempt), why something said of it cannot be used.

    Duplicates and what comes late change nothing, and need no reason.
    """
    highest: dict[tuple[UUID, int], Status] = {}
    for each in news:
        known = highest.setdefault((each.delivery_id, each.attempt), each)
        if RANKS[each.status] > RANKS[known.status]:
            highest[each.delivery_id, each.attempt] = each
    if not highest:
        return {}
    with pool.transaction() as connection:
        moved = connection.execute(_ADVANCE, _columns(list(highest.values()))).fetchall()
        left = highest.keys() - {(delivery_id, attempt) for delivery_id, attempt in moved}
        if not left:
            return {}
        attempts = dict(connection.execute(_ATTEMPTS, ([delivery_id for delivery_id, _ in left],)).fetchall())
    return {key: reason for key in left if (reason := _reason(attempts.get(key[0]), key[1]))}


def keep_messages(messages: Sequence[Message]) -> int:
    """Keep what people wrote, each message once; returns how many are new."""
    if not messages:
        return 0
    columns: list[list[Any]] = [
        [m.message_id for m in messages],
        [m.number for m in messages],
        [m.sender for m in messages],
        [m.kind for m in messages],
        [Jsonb(dict(m.body)) for m in messages],
        [m.sent_at for m in messages],
    ]
    with pool.transaction() as connection:
        return connection.execute(_KEEP_MESSAGES, columns).rowcount


def waiting(*, older_than: timedelta) -> bool:
    """Whether an event has not been processed for so long."""
    with pool.connection() as connection:
        row = connection.execute(_WAITING, (older_than,)).fetchone()
    return bool(row and row[0])


def forget(*, older_than: timedelta, unused_older_than: timedelta, batch: int = 5_000) -> int:
    """Delete processed events that are older, those with reasons by the second age; returns how many."""
    total = 0
    while True:
        with pool.transaction() as connection:
            deleted = connection.execute(_FORGET, (older_than, unused_older_than, batch)).rowcount
        total += deleted
        if deleted < batch:
            return total


def _columns(news: Sequence[Status]) -> list[list[Any]]:
    return [
        [n.delivery_id for n in news],
        [n.attempt for n in news],
        [n.status for n in news],
        [RANKS[n.status] for n in news],
        [n.message_id for n in news],
        [n.code for n in news],
        [n.error for n in news],
    ]


def _reason(current: int | None, attempt: int) -> str | None:
    if current is None:
        return "delivery_unknown"
    return None if current == attempt else "attempt_superseded"
