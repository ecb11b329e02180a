"""Looking at campaigns from outside: the newest ones, and how fast one was."""

from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from db import campaigns
from db.campaigns import Progress
from db.pool import connection

_NEWEST: LiteralString = """
    select id from campaigns where organization_id = %s or %s::uuid is null order by created_at desc, id desc limit %s
"""
_PACE: LiteralString = """
    with first_tries as (
        select min(settled_at) as began, max(settled_at) as ended from deliveries
        where campaign_id = %(id)s and tries = 1 and settled_at is not null
    )
    select coalesce(sum(tries), 0), count(*) + coalesce(sum(tries - 1) filter (where settled_at <= ended), 0),
           max(ended) - max(began)
    from deliveries, first_tries where campaign_id = %(id)s and tries > 0 and settled_at is not null
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a campaign was sent.

    Attributes:
        calls: Calls of the provider for recipients that are settled, repeated ones included.
        calls_in_time: Those of them within `time`.
        time: From the first to the last recipient who needed one call only: what is tried again after that waits for
            its back-off, not for the limit.
    """

    calls: int
    calls_in_time: int
    time: timedelta

    @property
    def rate(self) -> float | None:
        """Calls a second; None where there were too few to say."""
        seconds = self.time.total_seconds()
        return (self.calls_in_time - 1) / seconds if seconds > 0 else None


def newest(organization_id: UUID | None = None, *, limit: int = 20) -> list[Progress]:
    """The newest campaigns, of one organisation or of all, newest first."""
    with connection() as current:
        rows = current.execute(_NEWEST, (organization_id, organization_id, limit)).fetchall()
    return [campaigns.progress(row[0]) for row in rows]


def pace(campaign_id: UUID) -> Pace:
    """How fast the campaign was sent so far; reads all its deliveries, so not for a view that is refreshed."""
    with connection() as current:
        row = current.execute(_PACE, {"id": campaign_id}).fetchone()
    calls, calls_in_time, time = row or (0, 0, None)
    return Pace(int(calls), int(calls_in_time), time or timedelta())
