"""A campaign from its recipients to its end: plan | dispatch a window -> group of sends -> dispatch ... -> finish.

`plan` writes the recipients to the ledger. `dispatch` reserves slots for a few seconds' worth of them, releases them
and runs them as a group; it comes again shortly before the slots are used up, and when a group has completed. It ends
the campaign when nothing is left. The broker never holds more than a campaign's window; where it loses a message, the
sweep (`periodic/ledger_sweep.py`) starts the dispatch again from the ledger.

Who steers a campaign gets both or neither: the change in the ledger (`db/campaign_control.py` has the arguments and
errors; `pause`, which needs no message, is there only) and the message that makes workers act.
"""

import math
from datetime import datetime, timedelta
from uuid import UUID

import dramatiq

from actors.delivery_send import message_id_of, send_delivery
from brokers.current import current_broker
from brokers.engine import Limit, Reservation
from brokers.fan_out import fan_out
from brokers.job import Payload, Priority, job
from core.clock import now, to_ms
from core.errors import RetryPolicy
from core.logging import get_logger
from db import campaign_control, campaign_plan, campaigns, deliveries, pool
from db.campaign_state import Steered, lock_for_dispatch
from db.campaigns import Campaign, NewCampaign
from providers.outcomes import TABLE, ProviderAction

log = get_logger(__name__)

SPACING = 1.02
"""Slots are so much wider than the limit asks, see `actors.delivery_send.MAX_LATE_S`."""
WINDOW = timedelta(seconds=4)
"""Slots are reserved this far ahead. Who pauses a campaign or changes a rate takes them back."""
DISPATCH_AHEAD = timedelta(seconds=1.5)
"""The next window is reserved when so much of the last one is left."""
SEND_AHEAD = timedelta(milliseconds=120)
"""A send reaches a worker so long before its slot."""
MIN_WAIT = timedelta(milliseconds=100)
GROUP_SIZE = 250
"""Without a limit, a window goes out in groups of this size, and each that completes makes room for another."""


PERMANENT = frozenset(
    {"message_too_long", "template_variable_missing", "number_id_invalid"}
    | {
        row.code
        for row in TABLE.values()
        if row.action in {ProviderAction.PERMANENT, ProviderAction.SUPPRESS_RECIPIENT}
    }
)
"""Causes of a failure that another try meets again."""


class RunCampaign(Payload):
    """Names the campaign."""

    campaign_id: UUID


def start(campaign: NewCampaign) -> UUID:
    """Accept a campaign and set it going, both or neither; costs the same for ten recipients and for ten million."""
    with pool.transaction():
        campaign_id = campaigns.accept(campaign)
        data = {"campaign_id": str(campaign_id)}
        plan = plan_campaign.message(**data)
        dispatch = dispatch_campaign.message_with_options(kwargs=data, pipe_ignore=True)
        dramatiq.pipeline([plan, dispatch]).run()
    return campaign_id


def resume(campaign_id: UUID, *, version: int | None = None) -> Steered:
    """Let a paused campaign go on, also its planning."""
    with pool.transaction():
        steered = campaign_control.resume(campaign_id, version=version)
        if steered.changed:
            _go_on(campaign_id)
    return steered


def cancel(campaign_id: UUID, reason: str = "", *, version: int | None = None) -> Steered:
    """Let no further send begin, for good; a worker ends the campaign once nothing is being sent."""
    with pool.transaction():
        steered = campaign_control.cancel(campaign_id, reason, version=version)
        if steered.changed:
            _dispatch([campaign_id])
    return steered


def change_rate(campaign_id: UUID, rate: float | None, *, version: int | None = None) -> Steered:
    """Give a campaign another limit of its own."""
    with pool.transaction():
        steered = campaign_control.change_rate(campaign_id, rate, version=version)
        if steered.changed:
            _dispatch(campaign_control.running_on(campaigns.get(campaign_id).sender))
    return steered


def change_sender_rate(sender_id: UUID, rate: float | None) -> bool:
    """Give a number another limit, obeyed by all campaigns that run on it; returns whether anything changed."""
    with pool.transaction():
        number = campaign_control.change_sender_rate(sender_id, rate)
        if number is not None:
            _dispatch(campaign_control.running_on(number))
    return number is not None


def retry_failed(campaign_id: UUID, *, permanent_too: bool = False, version: int | None = None) -> Steered:
    """Try failed recipients again; `permanent_too` also those whose cause will hardly pass."""
    with pool.transaction():
        leave = () if permanent_too else PERMANENT
        steered = campaign_control.retry_failed(campaign_id, leave=leave, version=version)
        if steered.changed and steered.status == "running":
            _go_on(campaign_id)
    return steered


def _go_on(campaign_id: UUID) -> None:
    if not campaign_plan.is_planned(campaign_id):
        plan_campaign.send(campaign_id=str(campaign_id))
    _dispatch([campaign_id])


def _dispatch(campaign_ids: list[UUID]) -> None:
    for campaign_id in campaign_ids:
        dispatch_campaign.send(campaign_id=str(campaign_id))


@job(
    name="campaigns.plan",
    queue="bulk-messages",
    priority=Priority.HIGH,
    retry=RetryPolicy(attempts=10, backoff=timedelta(seconds=2), max_backoff=timedelta(minutes=1)),
    time_limit=timedelta(hours=2),
    concurrency=5,
)
def plan_campaign(payload: RunCampaign) -> None:
    """Write the campaign's recipients to the ledger, from where a killed run stopped; sends begin meanwhile."""
    campaigns.start_job(payload.campaign_id)
    planned = campaign_plan.plan_next_chunk(payload.campaign_id)
    if planned and not campaign_plan.is_planned(payload.campaign_id):
        dispatch_campaign.send(campaign_id=str(payload.campaign_id))
    while not campaign_plan.is_planned(payload.campaign_id):
        planned += campaign_plan.plan_next_chunk(payload.campaign_id)
    log.info("campaign.planned", campaign_id=str(payload.campaign_id), recipients=planned)


@job(
    name="campaigns.dispatch",
    queue="bulk-messages",
    priority=Priority.HIGH,
    retry=RetryPolicy(attempts=100, backoff=timedelta(seconds=1), max_backoff=timedelta(seconds=30)),
    time_limit=timedelta(minutes=2),
    concurrency=5,
)
def dispatch_campaign(payload: RunCampaign) -> None:
    """Release the next window of a campaign, or end it; running it more often than needed changes nothing."""
    with pool.transaction():
        campaign = lock_for_dispatch(payload.campaign_id)
        if campaign.status == "running":
            in_flight, reserved_s = deliveries.in_flight(campaign.id)
            is_idle = not _release(campaign, _window(campaign, in_flight, reserved_s)) and not in_flight
    if campaign.status == "cancelling":
        _tell_finished(campaign.id, campaign_control.wind_down(campaign.id))
    elif campaign.status == "running" and is_idle:
        _finish_or_wait(campaign.id)


def _window(campaign: Campaign, in_flight: int, reserved_s: float) -> int:
    """How many deliveries to release now; 0 when enough are on their way."""
    room = campaign.max_in_flight - in_flight
    rate = _rate(campaign)
    if rate is None:
        return room if room >= min(GROUP_SIZE, campaign.max_in_flight) else 0
    if reserved_s > DISPATCH_AHEAD.total_seconds():
        return 0
    return min(room, math.ceil(rate * WINDOW.total_seconds()))


def _rate(campaign: Campaign) -> float | None:
    """Messages a second by the tightest limit; None without one."""
    return min((rate for rate in (campaign.sender_rate, campaign.rate) if rate is not None), default=None)


def _release(campaign: Campaign, size: int) -> int:
    if size <= 0:
        return 0
    ids = deliveries.pick(campaign.id, size)
    if not ids:
        return 0
    slots = _reserve(campaign, len(ids))
    moments = [slots.at + timedelta(seconds=offset) for offset in slots.offsets]
    deliveries.release(ids, moments)
    released = list(zip(ids, moments, slots.offsets, strict=True))
    for first in range(0, len(released), GROUP_SIZE):
        _run_group(campaign.id, released[first : first + GROUP_SIZE])
    if campaign.is_paced:
        _dispatch_again(campaign.id, timedelta(seconds=slots.offsets[-1]) - DISPATCH_AHEAD)
    counts = campaigns.progress(campaign.id).counts
    log.info(
        "campaign.progressed",
        campaign_id=str(campaign.id),
        settled=counts.settled,
        total=counts.total,
        released=len(ids),
        until_s=round(slots.offsets[-1], 3),
    )
    return len(ids)


def _reserve(campaign: Campaign, count: int) -> Reservation:
    """A slot for each of `count` sends."""
    limits = []
    if campaign.sender_rate is not None:
        limits.append(Limit(f"sender:{campaign.sender}:{campaign.slot_epoch}", campaign.sender_rate / SPACING))
    if campaign.rate is not None:
        limits.append(Limit(f"campaign:{campaign.id}:{campaign.slot_epoch}", campaign.rate / SPACING))
    if not limits:
        return Reservation(now(), (0.0,) * count)
    return current_broker().engine.reserve(limits, count, lead=SEND_AHEAD)


def _run_group(campaign_id: UUID, members: list[tuple[UUID, datetime, float]]) -> None:
    group = dramatiq.group(
        send_delivery.message_with_options(
            kwargs={"delivery_id": str(delivery_id), "release_id": message_id_of(delivery_id, slot)},
            delay=max(0, to_ms(timedelta(seconds=slot_in_s) - SEND_AHEAD)),
        ).copy(message_id=message_id_of(delivery_id, slot))
        for delivery_id, slot, slot_in_s in members
    )
    group.add_completion_callback(dispatch_campaign.message(campaign_id=str(campaign_id)))
    fan_out(group)


def _finish_or_wait(campaign_id: UUID) -> None:
    due_in_s = deliveries.next_due_in_s(campaign_id)
    if due_in_s is not None:
        _dispatch_again(campaign_id, timedelta(seconds=due_in_s))
        return
    _tell_finished(campaign_id, campaigns.finish(campaign_id))


def _tell_finished(campaign_id: UUID, status: str | None) -> None:
    if status is None:
        return
    ended = campaigns.progress(campaign_id)
    took = ended.finished_at - ended.started_at if ended.finished_at and ended.started_at else timedelta()
    log.info(
        "campaign.finished",
        campaign_id=str(campaign_id),
        status=status,
        duration_s=round(took.total_seconds(), 3),
        sent=ended.counts.sent,
        failed=ended.counts.failed,
        skipped=ended.counts.skipped,
        cancelled=ended.counts.cancelled,
        unknown=ended.counts.unknown,
    )


def _dispatch_again(campaign_id: UUID, delay: timedelta) -> None:
    dispatch_campaign.send_with_options(kwargs={"campaign_id": str(campaign_id)}, delay=to_ms(max(delay, MIN_WAIT)))
