"""A campaign's status as who changes it must see it: with its row locked, at a version, and told to the log after."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from core.errors import PermanentError
from core.logging import get_logger
from db import campaigns, pool
from db.campaigns import Campaign

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Steered:
    """What a command came to.

    Attributes:
        status: Of the campaign, afterwards.
        version: Of the campaign, afterwards: what the next command is to name.
        changed: False where everything was so already.
        recipients: How many went back to pending, or were cancelled.
    """

    status: str
    version: int
    changed: bool
    recipients: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """What a command must know of a campaign; `number` is the provider's id for the one that it sends from."""

    status: str
    version: int
    rate: float | None
    number: str


def lock(connection: psycopg.Connection, campaign_id: UUID, *, with_number: bool = False) -> State:
    """The campaign's state, its row locked; `with_number` with the rows of all that run on its number, in one order."""
    if with_number:
        row = connection.execute("select sender_id from campaigns where id = %s", (campaign_id,)).fetchone()
        lock_campaigns_of_sender(connection, row[0] if row else None, campaign_id)
    with connection.cursor(row_factory=class_row(State)) as cursor:
        state = cursor.execute(
            """
            select c.status, c.version, c.rate::float8 as rate, s.provider_id as number
            from campaigns c join senders s on s.id = c.sender_id where c.id = %s for no key update of c
            """,
            (campaign_id,),
        ).fetchone()
    if state is None:
        raise PermanentError(f"There is no campaign {campaign_id}.", code="campaign_unknown")
    return state


def lock_campaigns_of_sender(
    connection: psycopg.Connection, sender_id: UUID | None, campaign_id: UUID | None = None
) -> None:
    """Lock one campaign and all that run on the number of a sender, in one order against deadlocks."""
    connection.execute(
        """
        select c.id from campaigns c join senders s on s.id = c.sender_id
        where c.id = %s or (c.status = 'running'
                            and s.provider_id = (select provider_id from senders where id = %s))
        order by c.id for no key update of c
        """,
        (campaign_id, sender_id),
    )


def lock_for_dispatch(campaign_id: UUID) -> Campaign:
    """A campaign, its other dispatchers and those who steer it kept out until the surrounding transaction ends.

    Raises PermanentError `campaign_unknown` when there is none.
    """
    with pool.transaction() as connection:
        connection.execute("select from campaigns where id = %s for no key update", (campaign_id,))
        return campaigns.get(campaign_id)


def check(campaign_id: UUID, state: State, version: int | None, allowed: Collection[str], done: str) -> None:
    """Raise PermanentError `campaign_changed` for a stale version, `campaign_not_allowed` for a wrong status.

    Args:
        campaign_id: The campaign.
        state: It, locked.
        version: The one that the caller saw; None for any.
        allowed: Statuses in which it may be done.
        done: What would be done, as a participle for the message.
    """
    if version is not None and version != state.version:
        raise PermanentError(
            f"Campaign {campaign_id} was changed by someone else since you looked: it is {state.status} now, at version"
            f" {state.version}, you saw {version}. Nothing was done; look again before you decide: fanfare campaign"
            f" show {campaign_id}",
            code="campaign_changed",
        )
    if state.status not in allowed:
        raise PermanentError(
            f"Campaign {campaign_id} is {state.status}; it can be {done} only while it is {_or(sorted(allowed))}.",
            code="campaign_not_allowed",
        )


def unchanged(state: State) -> Steered:
    """The result of a command that found its effect there."""
    return Steered(state.status, state.version, changed=False)


def steered(event: str, campaign_id: UUID, status: str, before: State, recipients: int = 0, **facts: object) -> Steered:
    """The result, told to the log once it is committed."""
    steered = Steered(status, before.version + 1, changed=True, recipients=recipients)
    told = {"campaign_id": str(campaign_id), "was": before.status, "version": steered.version, "recipients": recipients}
    pool.after_commit(lambda: log.info(event, **told, **facts))
    return steered


def _or(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
