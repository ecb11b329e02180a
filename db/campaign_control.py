"""Steering a campaign: pause, resume, cancel, change of rate, another try for the failed.

    running <-> paused       running | paused -> cancelling -> cancelled       finished -> running (another try)

Each command is one short transaction that holds the campaign's row, as the dispatcher does: what is released before it
goes back, and nothing is released after it. Claims look at the status, so workers on all machines obey at once: only a
send that was claimed before the commit still begins, within `pipelines.campaign.SEND_AHEAD`. A command that finds its
effect there changes nothing. Two people who steer at once give the version that they saw: the second is told.

Sending the dispatcher's message is the caller's part, see `pipelines.campaign`.
"""

from collections.abc import Collection
from uuid import UUID

import psycopg

from core.clock import uuid7
from core.errors import PermanentError
from core.logging import get_logger
from db import campaigns, pool
from db.campaign_state import Steered, check, lock, lock_campaigns_of_sender, steered, unchanged

log = get_logger(__name__)

CANCEL_CHUNK = 5_000
"""Recipients cancelled in one transaction."""

_UNFINISHED = frozenset({"draft", "scheduled", "running", "paused"})
_RETRYABLE = frozenset({"running", "paused", "completed", "partial_success", "partial_failure", "failed"})


def pause(campaign_id: UUID, reason: str, *, version: int | None = None) -> Steered:
    """Let no further send of a running campaign begin; those on the wire end by themselves. Idempotent.

    Args:
        campaign_id: The campaign.
        reason: Why, and what to do; shown to people. Of two pauses the first one's stays.
        version: The campaign's as the caller saw it; None to overrule whoever changed it meanwhile.

    Raises:
        PermanentError: `campaign_unknown`, `campaign_changed`, or `campaign_not_allowed` where it does not run.
    """
    with pool.transaction() as connection:
        state = lock(connection, campaign_id)
        if state.status == "paused":
            return unchanged(state)
        check(campaign_id, state, version, {"running"}, "paused")
        connection.execute(
            """
            update campaigns set status = 'paused', status_reason = %s, paused_at = now(), version = version + 1
            where id = %s
            """,
            (reason, campaign_id),
        )
        return steered(
            "campaign.paused", campaign_id, "paused", state, _take_back(connection, [campaign_id]), reason=reason
        )


def resume(campaign_id: UUID, *, version: int | None = None) -> Steered:
    """Let a paused campaign go on. Idempotent. Arguments and errors as `pause`."""
    with pool.transaction() as connection:
        state = lock(connection, campaign_id)
        if state.status == "running":
            return unchanged(state)
        check(campaign_id, state, version, {"paused"}, "resumed")
        connection.execute(
            """
            update campaigns set status = 'running', status_reason = null, paused_at = null, version = version + 1
            where id = %s
            """,
            (campaign_id,),
        )
        return steered("campaign.resumed", campaign_id, "running", state)


def cancel(campaign_id: UUID, reason: str = "", *, version: int | None = None) -> Steered:
    """Let no further send begin, for good; `wind_down` ends it. Idempotent. Arguments and errors as `pause`.

    Recipients who are not planned yet get no row in the ledger any more.
    """
    with pool.transaction() as connection:
        state = lock(connection, campaign_id)
        if state.status in {"cancelling", "cancelled"}:
            return unchanged(state)
        check(campaign_id, state, version, _UNFINISHED, "cancelled")
        connection.execute(
            """
            update campaigns set status = 'cancelling', status_reason = nullif(%s, ''), paused_at = null,
                planned_at = coalesce(planned_at, now()), version = version + 1
            where id = %s
            """,
            (reason, campaign_id),
        )
        cancelled = connection.execute(
            """
            update deliveries set status = 'cancelled', settled_at = now()
            where campaign_id = %s and status = 'released'
            """,
            (campaign_id,),
        ).rowcount
        return steered("campaign.cancelling", campaign_id, "cancelling", state, cancelled, reason=reason)


def wind_down(campaign_id: UUID) -> str | None:
    """Cancel what is pending of a campaign that is being cancelled, and end it once nothing is being sent.

    Resumable and safe to repeat; returns the status `cancelled` from the one call that ended it, otherwise None.
    """
    while _cancel_pending(campaign_id) == CANCEL_CHUNK:
        pass
    return campaigns.finish(campaign_id)


def change_rate(campaign_id: UUID, rate: float | None, *, version: int | None = None) -> Steered:
    """Give a campaign another limit of its own, messages a second; None for its sender's alone. Idempotent.

    Slots that were reserved ahead are given up, by all campaigns on the number: they would be the old limit's.
    Other arguments and errors as `pause`; also `rate_invalid`.
    """
    _check_rate(rate)
    with pool.transaction() as connection:
        state = lock(connection, campaign_id, with_number=True)
        if state.status in _UNFINISHED and state.rate == rate:
            return unchanged(state)
        check(campaign_id, state, version, _UNFINISHED, "given another rate")
        connection.execute("update campaigns set rate = %s, version = version + 1 where id = %s", (rate, campaign_id))
        returned = _give_slots_up(connection, state.number)
        return steered("campaign.rate_changed", campaign_id, state.status, state, returned, rate=rate)


def change_sender_rate(sender_id: UUID, rate: float | None) -> str | None:
    """Give a number another limit, messages a second, None for none; obeyed by its running campaigns as `change_rate`.

    Returns the provider's id of the number, or None where nothing changed. Raises PermanentError `rate_invalid`.
    """
    _check_rate(rate)
    with pool.transaction() as connection:
        lock_campaigns_of_sender(connection, sender_id)
        row = connection.execute(
            "update senders set rate = %s where id = %s and rate is distinct from %s::numeric returning provider_id",
            (rate, sender_id, rate),
        ).fetchone()
        if row is None:
            return None
        number: str = row[0]
        _give_slots_up(connection, number)
        pool.after_commit(lambda: log.info("sender.rate_changed", sender_id=str(sender_id), rate=rate))
    return number


def retry_failed(campaign_id: UUID, *, leave: Collection[str] = (), version: int | None = None) -> Steered:
    """Make failed recipients pending again, with all their tries; a finished campaign runs until it finishes again.

    Idempotent: where nobody is left to be tried again, nothing changes.

    Args:
        campaign_id: The campaign.
        leave: Codes of causes that will not pass; whoever failed by one of them stays failed.
        version: As in `pause`.

    Raises:
        PermanentError: as `pause`; a cancelled campaign stays cancelled.
    """
    with pool.transaction() as connection:
        state = lock(connection, campaign_id)
        check(campaign_id, state, version, _RETRYABLE, "tried again")
        returned = connection.execute(
            """
            update deliveries set status = 'pending', tries = 0, code = null, error = null, settled_at = null,
                due_at = clock_timestamp()
            where campaign_id = %s and status = 'failed' and code <> all(%s)
            """,
            (campaign_id, list(leave)),
        ).rowcount
        if not returned:
            return unchanged(state)
        status = "paused" if state.status == "paused" else "running"
        connection.execute(
            "update campaigns set status = %s, finished_at = null, version = version + 1 where id = %s",
            (status, campaign_id),
        )
        if state.status in campaigns.FINAL_STATUSES:
            _reopen_job(connection, campaign_id)
        return steered("campaign.retried", campaign_id, status, state, returned)


def _check_rate(rate: float | None) -> None:
    if rate is not None and not 0 < rate < float("inf"):
        raise PermanentError(f"A rate is a number of messages a second above 0, not {rate}.", code="rate_invalid")


def _take_back(connection: psycopg.Connection, campaign_ids: list[UUID]) -> int:
    """Make released deliveries pending again, at their old place in the line; their messages find nothing to claim."""
    return connection.execute(
        "update deliveries set status = 'pending' where campaign_id = any(%s) and status = 'released'", (campaign_ids,)
    ).rowcount


def _give_slots_up(connection: psycopg.Connection, number: str) -> int:
    connection.execute("update senders set slot_epoch = slot_epoch + 1 where provider_id = %s", (number,))
    return _take_back(connection, running_on(number))


def running_on(number: str) -> list[UUID]:
    """The running campaigns that send from a number, named by the provider's id for it."""
    with pool.connection() as connection:
        rows = connection.execute(
            """
            select c.id from campaigns c join senders s on s.id = c.sender_id
            where s.provider_id = %s and c.status = 'running' order by c.id
            """,
            (number,),
        ).fetchall()
    return [row[0] for row in rows]


def _cancel_pending(campaign_id: UUID) -> int:
    with pool.transaction() as connection:
        return connection.execute(
            """
            update deliveries set status = 'cancelled', settled_at = now() where id in (
                select d.id from deliveries d join campaigns c on c.id = d.campaign_id
                where d.campaign_id = %s and d.status = 'pending' and c.status = 'cancelling'
                order by d.due_at, d.id limit %s for no key update of d)
            """,
            (campaign_id, CANCEL_CHUNK),
        ).rowcount


def _reopen_job(connection: psycopg.Connection, campaign_id: UUID) -> None:
    connection.execute(
        """
        update jobs set status = 'running', completed_at = null, result = null, error_details = null,
            attempts = attempts + 1
        where id = %s
        """,
        (campaign_id,),
    )
    connection.execute(
        """
        insert into job_logs (id, job_id, type, organization_id, status, started_at)
        select %s, id, type, organization_id, 'retried', now() from jobs where id = %s
        """,
        (uuid7(), campaign_id),
    )
