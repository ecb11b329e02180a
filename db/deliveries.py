"""The ledger of a campaign: what is released, claimed by a send, and settled.

    pending -> released -> sending -> sent -> delivered -> read
       ^          |           |`----> failed | unknown
       `----------'-----------'            (skipped and cancelled end a recipient without a send)

Every change names the status that it starts from, and a settlement the attempt that it belongs to, so a step that runs
twice, or too late, changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import md5
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from db import pool
from db.group_commit import GroupCommit


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that this send, and no other, may now send.

    Attributes:
        attempt: Fences the settlement.
        tries: Provider calls that count, this one included.
        parameters: Values of the template's variables, frozen at planning.
        slot_at: When it may be sent, by the limiter's clock.
        is_paced: Whether any limit holds now, so that the slot must be waited for.
    """

    id: UUID
    campaign_id: UUID
    attempt: int
    tries: int
    recipient: str
    parameters: dict[str, str]
    slot_at: datetime
    is_paced: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What one attempt came to.

    Attributes:
        status: sent, failed, unknown, or pending to send again later.
        counts: False gives the try back (throttled, slot missed).
        again_in: With pending: not before so long.
    """

    id: UUID
    attempt: int
    status: str
    provider_message_id: str | None = None
    code: str | None = None
    error: str | None = None
    counts: bool = True
    again_in: timedelta = timedelta()


def pick(campaign_id: UUID, limit: int) -> list[UUID]:
    """Lock the next deliveries that are due, at most `limit`, until the surrounding transaction ends."""
    with pool.transaction() as connection:
        rows = connection.execute(
            """
            select id from deliveries
            where campaign_id = %s and status = 'pending' and due_at <= clock_timestamp()
            order by due_at, id limit %s for no key update skip locked
            """,
            (campaign_id, limit),
        ).fetchall()
    return [row[0] for row in rows]


def release(ids: Sequence[UUID], slots: Sequence[datetime]) -> None:
    """Mark picked deliveries released, each with its slot, a moment of the limiter's clock."""
    with pool.transaction() as connection:
        connection.execute(
            """
            update deliveries d set status = 'released', slot_at = v.slot
            from unnest(%s::uuid[], %s::timestamptz[]) as v(id, slot) where d.id = v.id
            """,
            (list(ids), list(slots)),
        )


def in_flight(campaign_id: UUID) -> tuple[int, float]:
    """(released or sending, seconds until the last slot given out); read by index, bounded by the window."""
    with pool.connection() as connection:
        row = connection.execute(
            """
            select count(*), coalesce(extract(epoch from max(slot_at) - clock_timestamp()), 0)::float8 from deliveries
            where campaign_id = %s and status in ('released', 'sending')
            """,
            (campaign_id,),
        ).fetchone()
    return (row[0], row[1]) if row else (0, 0.0)


def next_due_in_s(campaign_id: UUID) -> float | None:
    """Seconds until the next pending delivery is due (0 if one is), None when none is pending."""
    with pool.connection() as connection:
        row = connection.execute(
            """
            select greatest(0, extract(epoch from due_at - clock_timestamp()))::float8 from deliveries
            where campaign_id = %s and status = 'pending' order by due_at limit 1
            """,
            (campaign_id,),
        ).fetchone()
    return None if row is None else row[0]


def release_id(delivery_id: UUID, slot: datetime) -> UUID:
    """Names one release of a delivery: its message has it as id and claims by it; a claim computes the same."""
    microseconds = (slot - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
    return UUID(md5(f"{delivery_id}{microseconds}".encode(), usedforsecurity=False).hexdigest())


def claim(delivery_id: UUID, release: UUID | None = None) -> Claimed | None:
    """Take a released delivery of a running campaign for sending; None when there is nothing to send.

    The attempt is in the ledger before the provider is called. Callers of one process share a statement.

    Args:
        delivery_id: The delivery.
        release: The caller's, see `release_id`. Where its slot was given up meanwhile and the delivery released for a
            later one, there is nothing to send for this caller. None takes any.
    """
    return _claims.submit((delivery_id, release))


def settle(settlement: Settlement) -> bool:
    """Record what an attempt came to. False when it was superseded: a newer attempt or an end exists.

    Late truth is welcome: an attempt already held as `unknown` may still turn out sent or failed. Callers of one
    process share a statement.
    """
    return _settlements.submit(settlement)


def sending_for(delivery_id: UUID) -> timedelta | None:
    """For how long a delivery has been sending, None when it is not."""
    with pool.connection() as connection:
        row = connection.execute(
            "select clock_timestamp() - claimed_at from deliveries where id = %s and status = 'sending'", (delivery_id,)
        ).fetchone()
    return None if row is None else row[0]


def orphan(delivery_id: UUID, *, silent_for: timedelta) -> bool:
    """Hold as `unknown` a delivery whose sender has been silent for so long: whether it was sent cannot be known."""
    with pool.transaction() as connection:
        row = connection.execute(
            """
            update deliveries set status = 'unknown', code = 'worker_lost', settled_at = now()
            where id = %s and status = 'sending' and claimed_at < clock_timestamp() - %s returning id
            """,
            (delivery_id, silent_for),
        ).fetchone()
    return row is not None


def released(campaign_id: UUID) -> list[tuple[UUID, datetime]]:
    """(id, slot_at) of the released deliveries; bounded by the campaign's window."""
    with pool.connection() as connection:
        return connection.execute(
            "select id, slot_at from deliveries where campaign_id = %s and status = 'released'", (campaign_id,)
        ).fetchall()


def take_back(lost: Sequence[tuple[UUID, datetime]]) -> int:
    """Make released deliveries, named with their slots, pending again: nobody will send them. Returns how many."""
    with pool.transaction() as connection:
        return connection.execute(
            """
            update deliveries d set status = 'pending', due_at = clock_timestamp()
            from unnest(%s::uuid[], %s::timestamptz[]) as lost(id, slot)
            where d.id = lost.id and d.slot_at = lost.slot and d.status = 'released'
            """,
            ([delivery_id for delivery_id, _ in lost], [slot for _, slot in lost]),
        ).rowcount


@dataclass(frozen=True, slots=True)
class Repairs:
    """How many deliveries a sweep put right."""

    returned: int
    held: int
    resent: int


def repair(campaign_id: UUID, *, silent_for: timedelta, resend_after: timedelta) -> Repairs:
    """Put right what a crash or an emptied broker left behind; safe at any moment, any number of times.

    Released deliveries whose slot passed `silent_for` ago go back to pending; sends that were silent for so long are
    held as unknown; unknown ones are sent again after `resend_after`, where the campaign's policy says so.
    """
    with pool.transaction() as connection:
        returned = connection.execute(
            """
            update deliveries set status = 'pending', due_at = clock_timestamp()
            where campaign_id = %s and status = 'released' and slot_at < clock_timestamp() - %s
            """,
            (campaign_id, silent_for),
        ).rowcount
        held = connection.execute(
            """
            update deliveries set status = 'unknown', code = 'worker_lost', settled_at = now()
            where campaign_id = %s and status = 'sending' and claimed_at < clock_timestamp() - %s
            """,
            (campaign_id, silent_for),
        ).rowcount
        resent = connection.execute(
            """
            update deliveries d set status = case when d.tries < c.max_attempts then 'pending' else 'failed' end,
                due_at = clock_timestamp(), code = coalesce(d.code, 'unknown')
            from campaigns c
            where d.campaign_id = %s and c.id = d.campaign_id and c.unknown_policy = 'resend' and c.status = 'running'
              and d.status = 'unknown' and d.claimed_at < clock_timestamp() - %s
            """,
            (campaign_id, resend_after),
        ).rowcount
    return Repairs(returned, held, resent)


def _claim_many(wanted: Sequence[tuple[UUID, UUID | None]]) -> list[Claimed | None]:
    ids, releases = [delivery_id for delivery_id, _ in wanted], [release for _, release in wanted]
    with pool.transaction() as connection, connection.cursor(row_factory=class_row(Claimed)) as cursor:
        claimed = cursor.execute(
            """
            with free as (
                select d.id, c.rate is not null or s.rate is not null as is_paced
                from deliveries d join campaigns c on c.id = d.campaign_id join senders s on s.id = c.sender_id
                where d.id = any(%(ids)s) and d.status = 'released' and c.status = 'running'
                  and exists (
                      select from unnest(%(ids)s::uuid[], %(releases)s::uuid[]) as w(id, release)
                      where w.id = d.id and coalesce(w.release = md5(
                          d.id::text || (extract(epoch from d.slot_at) * 1000000)::bigint)::uuid, true))
                order by d.id for no key update of d skip locked
            )
            update deliveries d
            set status = 'sending', attempt = attempt + 1, tries = tries + 1, claimed_at = clock_timestamp()
            from free where d.id = free.id
            returning d.id, d.campaign_id, d.attempt, d.tries, d.recipient, d.parameters, d.slot_at, free.is_paced
            """,
            {"ids": ids, "releases": releases},
        ).fetchall()
    found = {row.id: row for row in claimed}
    return [found.pop(delivery_id, None) for delivery_id in ids]


def _settle_many(settlements: Sequence[Settlement]) -> list[bool]:
    columns: list[list[Any]] = [
        [s.id for s in settlements],
        [s.attempt for s in settlements],
        [s.status for s in settlements],
        [s.provider_message_id for s in settlements],
        [s.code for s in settlements],
        [s.error for s in settlements],
        [0 if s.counts else 1 for s in settlements],
        [s.again_in for s in settlements],
    ]
    with pool.transaction() as connection:
        settled = connection.execute(
            """
            with news as (
                select * from unnest(%s::uuid[], %s::int[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int[],
                                     %s::interval[])
                         as n(id, attempt, status, provider_message_id, code, error, given_back, again_in)
            ), locked as (
                select d.id from deliveries d join news n on n.id = d.id and n.attempt = d.attempt
                where d.status = 'sending' or (d.status = 'unknown' and n.status in ('sent', 'failed'))
                order by d.id for no key update of d
            )
            update deliveries d
            set status = n.status, provider_message_id = n.provider_message_id, code = n.code, error = n.error,
                tries = d.tries - n.given_back, due_at = clock_timestamp() + n.again_in,
                settled_at = case when n.status <> 'pending' then now() end
            from news n join locked using (id) where d.id = n.id returning d.id
            """,
            columns,
        ).fetchall()
    done = {row[0] for row in settled}
    return [settlement.id in done for settlement in settlements]


_claims: GroupCommit[tuple[UUID, UUID | None], Claimed | None] = GroupCommit(_claim_many)
_settlements: GroupCommit[Settlement, bool] = GroupCommit(_settle_many)
