"""Campaigns: accepting them, and their way from running to finished; `db.campaign_plan` writes their recipients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field

from core.clock import uuid7
from core.errors import PermanentError
from db import pool

QUEUE = "bulk-messages"
FINAL_STATUSES = frozenset({"completed", "partial_success", "partial_failure", "failed", "cancelled"})


class Audience(BaseModel):
    """Who a campaign is for: all contacts of the organisation, those with a tag, of an import, or named ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["all", "tag", "import", "contacts"] = "all"
    tag: str | None = None
    import_id: UUID | None = None
    ids: tuple[UUID, ...] = ()
    limit: int | None = Field(None, gt=0)


@dataclass(frozen=True, slots=True)
class NewCampaign:
    """What a person asks for.

    Attributes:
        content: The template's content, frozen for this campaign.
        variables: Names of the variables in it.
        defaults: Variable to the value used where a contact has none.
        rate: Own limit in messages a second, below that of the sender; None for the sender's alone.
        unknown_policy: What to do with a send whose answer was lost: `hold` it, or `resend` it and risk a second one.
    """

    organization_id: UUID
    sender_id: UUID
    name: str
    content: Mapping[str, Any]
    variables: Sequence[str]
    defaults: Mapping[str, str]
    audience: Audience
    rate: float | None = None
    max_attempts: int = 3
    max_in_flight: int = 1000
    unknown_policy: Literal["hold", "resend"] = "hold"
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """What a send needs to know of its campaign; none of it changes while it runs, but status, rates and slot epoch.

    `slot_epoch` is part of the limiter's keys: slots that were reserved under an older one are given up.
    """

    id: UUID
    organization_id: UUID
    name: str
    status: str
    content: dict[str, Any]
    defaults: dict[str, str]
    sender: str
    sender_rate: float | None
    rate: float | None
    max_attempts: int
    max_in_flight: int
    unknown_policy: str
    slot_epoch: int

    @property
    def is_paced(self) -> bool:
        """Whether any limit spaces its sends."""
        return self.sender_rate is not None or self.rate is not None


@dataclass(frozen=True, slots=True)
class Counts:
    """Recipients by outcome at one moment; `sent` includes delivered and read ones. All of them sum to `total`."""

    total: int = 0
    pending: int = 0
    in_flight: int = 0
    sent: int = 0
    delivered: int = 0
    read: int = 0
    failed: int = 0
    skipped: int = 0
    cancelled: int = 0
    unknown: int = 0

    @property
    def settled(self) -> int:
        """Recipients of whom nothing more is to be done."""
        return self.sent + self.failed + self.skipped + self.cancelled + self.unknown


@dataclass(frozen=True, slots=True)
class Progress:
    """A campaign as a person follows it.

    Attributes:
        version: Counts its changes; who steers it names the one that they saw.
        status_reason: Why it is paused or cancelled, and what to do.
        rate: Its effective limit in messages a second, None without one.
    """

    id: UUID
    name: str
    status: str
    version: int
    status_reason: str | None
    paused_at: datetime | None
    planned: bool
    rate: float | None
    counts: Counts
    started_at: datetime | None
    finished_at: datetime | None


def accept(campaign: NewCampaign) -> UUID:
    """Store a campaign, ready to be planned, with its job. One short transaction whatever its size.

    Idempotent by `idempotency_key`: a second call with the same key returns the first campaign.
    """
    campaign_id = uuid7()
    with pool.transaction() as connection:
        accepted = connection.execute(
            """
            insert into jobs (id, organization_id, type, queue, data, status, max_attempts, idempotency_key)
            values (%s, %s, 'campaigns.run', %s, %s, 'queued', %s, %s)
            on conflict (organization_id, idempotency_key) do nothing returning id
            """,
            (
                campaign_id,
                campaign.organization_id,
                QUEUE,
                Jsonb({"name": campaign.name}),
                campaign.max_attempts,
                campaign.idempotency_key,
            ),
        ).fetchone()
        if accepted is None:
            return _accepted_before(campaign)
        connection.execute(
            """
            insert into campaigns (id, organization_id, sender_id, name, status, content, variables, defaults, audience,
                                   rate, max_attempts, max_in_flight, unknown_policy, started_at)
            values (%s, %s, %s, %s, 'running', %s, %s, %s, %s, %s, %s, %s, %s, now())
            """,
            (
                campaign_id,
                campaign.organization_id,
                campaign.sender_id,
                campaign.name,
                Jsonb(dict(campaign.content)),
                list(campaign.variables),
                Jsonb(dict(campaign.defaults)),
                Jsonb(campaign.audience.model_dump(mode="json", exclude_none=True)),
                campaign.rate,
                campaign.max_attempts,
                campaign.max_in_flight,
                campaign.unknown_policy,
            ),
        )
        connection.execute("insert into campaign_counts (campaign_id) values (%s)", (campaign_id,))
    return campaign_id


def _accepted_before(campaign: NewCampaign) -> UUID:
    with pool.connection() as connection:
        row = connection.execute(
            "select id from jobs where organization_id = %s and idempotency_key = %s",
            (campaign.organization_id, campaign.idempotency_key),
        ).fetchone()
    assert row is not None  # noqa: S101 - the conflict was with this row, and jobs with a key are not deleted meanwhile
    found: UUID = row[0]
    return found


def get(campaign_id: UUID) -> Campaign:
    """One campaign with its sender. Raises PermanentError `campaign_unknown` when there is none."""
    with pool.connection() as connection, connection.cursor(row_factory=class_row(Campaign)) as cursor:
        campaign = cursor.execute(
            """
            select c.id, c.organization_id, c.name, c.status, c.content, c.defaults, s.provider_id as sender,
                   s.rate::float8 as sender_rate, c.rate::float8 as rate, c.max_attempts, c.max_in_flight,
                   c.unknown_policy,
                   (select max(slot_epoch) from senders where provider_id = s.provider_id) as slot_epoch
            from campaigns c join senders s on s.id = c.sender_id where c.id = %s
            """,
            (campaign_id,),
        ).fetchone()
    if campaign is None:
        raise PermanentError(f"There is no campaign {campaign_id}.", code="campaign_unknown")
    return campaign


def finish(campaign_id: UUID) -> str | None:
    """End a planned campaign of which nothing is open, with the status that its counts give; exactly one call does.

    Returns the status, or None when this call changed nothing: neither running nor being cancelled, not
    planned, something still open.
    """
    with pool.transaction() as connection:
        row = connection.execute(_FINISH, {"id": campaign_id}).fetchone()
        if row is None:
            return None
        connection.execute(
            """
            update jobs set status = %(status)s, completed_at = now(), progress_current = n.total,
                progress_total = n.total,
                result = to_jsonb(n) - 'campaign_id',
                error_details = (
                    select jsonb_agg(e) from (
                        select code, count(*) as count from deliveries
                        where campaign_id = %(id)s and status in ('failed', 'skipped', 'unknown') and code is not null
                        group by code order by count desc
                    ) e)
            from campaign_counts n where n.campaign_id = jobs.id and jobs.id = %(id)s
            """,
            {"id": campaign_id, "status": row[0]},
        )
        connection.execute(
            """
            insert into job_logs (id, job_id, type, organization_id, status, result, error_details, started_at,
                                  completed_at)
            select %s, id, type, organization_id, status, result, error_details, started_at, completed_at
            from jobs where id = %s
            """,
            (uuid7(), campaign_id),
        )
    status: str = row[0]
    return status


# At least half sent makes a partial success; recipients that were skipped or cancelled do not count against it.
_FINISH = """
update campaigns c
set finished_at = now(), version = c.version + 1, status = case
    when c.status = 'cancelling' then 'cancelled'
    when n.sent = n.total - n.skipped - n.cancelled and n.sent > 0 then 'completed'
    when n.sent = 0 then 'failed'
    when n.sent * 2 >= n.total - n.skipped - n.cancelled then 'partial_success'
    else 'partial_failure' end
from campaign_counts n
where c.id = %(id)s and n.campaign_id = c.id and c.status in ('running', 'cancelling')
  and c.planned_at is not null and n.pending = 0
  and not exists (
      select from deliveries d where d.campaign_id = c.id and d.status in ('released', 'sending'))
returning c.status
"""


def progress(campaign_id: UUID) -> Progress:
    """Where a campaign stands, read from counters: it costs the same for ten recipients and for ten million."""
    with pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            """
            select c.id, c.name, c.status, c.version, c.status_reason, c.paused_at,
                   c.planned_at is not null as planned, c.started_at, c.finished_at,
                   least(c.rate, s.rate)::float8 as rate, n.*
            from campaigns c join senders s on s.id = c.sender_id join campaign_counts n on n.campaign_id = c.id
            where c.id = %s
            """,
            (campaign_id,),
        ).fetchone()
    if row is None:
        raise PermanentError(f"There is no campaign {campaign_id}.", code="campaign_unknown")
    names = ("total", "pending", "sent", "delivered", "read", "failed", "skipped", "cancelled", "unknown")
    counts = {name: row.pop(name) for name in names}
    closed = sum(counts[name] for name in ("pending", "sent", "failed", "skipped", "cancelled", "unknown"))
    row.pop("campaign_id")
    return Progress(**row, counts=Counts(**counts, in_flight=counts["total"] - closed))


def failures(campaign_id: UUID) -> list[tuple[str, str, int]]:
    """(status, code, recipients) of all that were not sent, most first."""
    with pool.connection() as connection:
        rows = connection.execute(
            """
            select status, coalesce(code, ''), count(*) from deliveries
            where campaign_id = %s and status in ('failed', 'skipped', 'unknown')
            group by 1, 2 order by 3 desc, 2
            """,
            (campaign_id,),
        ).fetchall()
    return [(status, code, count) for status, code, count in rows]


def start_job(campaign_id: UUID) -> None:
    """Mark the campaign's job running, once."""
    with pool.transaction() as connection:
        connection.execute(
            "update jobs set status = 'running', started_at = now(), attempts = 1 where id = %s and status = 'queued'",
            (campaign_id,),
        )


def running() -> list[UUID]:
    """Campaigns that have work left, also those being cancelled, for the sweep."""
    with pool.connection() as connection:
        rows = connection.execute(
            "select id from campaigns where status in ('running', 'cancelling') order by id"
        ).fetchall()
    return [row[0] for row in rows]
