"""Sends one campaign message to one recipient (JOB-01).

Enqueued by the campaign pipeline, a group for each window. Changes one row of `deliveries`. Its idempotency key is the
delivery: only a released one can be claimed, so a message that is delivered twice sends once. What follows a failure is
written to the ledger, not left to the message's retries: a delivery that is to be sent again goes back to pending and
gets a new slot from the limiter with a later window.
"""

import time
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

from brokers.current import current_broker
from brokers.job import Payload, Priority, job
from core.clock import now
from core.errors import Action, AmbiguousError, NotYet, PermanentError, RetryPolicy, TransientError, classify
from core.logging import get_logger
from core.settings import get_settings
from db import campaign_control, campaigns, deliveries
from db.deliveries import Claimed, Settlement
from domain.template import Template
from providers.outcomes import ProviderAction, known
from providers.whatsapp import TemplateMessage, TextMessage, whatsapp

log = get_logger(__name__)

MAX_LATE_S = 0.008
"""A send that is later than this gives its slot up. Slots are spaced 2 % wider than the limit, which leaves 20 ms of
every second, for this and for the way to the provider: later sends, next to punctual ones, would make some second too
full."""
SETTLE_RETRY_S = 0.5
SILENCE = timedelta(seconds=10)
"""Past the provider's time-out by so much, a sender that has not settled is gone."""
BACKOFF = timedelta(seconds=2)
CAMPAIGN_CACHE = 64
TO_DO = {
    ProviderAction.PAUSE_CAMPAIGN: "Give the workers a WHATSAPP_TOKEN that is valid for this number, and restart them.",
    ProviderAction.PAUSE_NUMBER: "Put the number or its account right in WhatsApp Manager.",
    ProviderAction.PAUSE_TEMPLATE: "Put the template right in WhatsApp Manager.",
}
"""What a person can do after a refusal that everyone else would meet, too."""


class SendDelivery(Payload):
    """Names the delivery and its release: one that was released again meanwhile is sent by another message."""

    delivery_id: UUID
    release_id: UUID


def message_id_of(delivery_id: UUID, slot: datetime) -> str:
    """Id of the message that sends a delivery at `slot`: whoever reads the ledger can ask the broker for it.

    Args:
        delivery_id: The delivery.
        slot: Its `slot_at`; each release has another one.
    """
    return str(deliveries.release_id(delivery_id, slot))


@job(
    name="deliveries.send",
    queue="delivery-sends",
    priority=Priority.NORMAL,
    retry=RetryPolicy(attempts=5, backoff=timedelta(seconds=1), bug_attempts=3),
    time_limit=timedelta(minutes=2),
)
def send_delivery(payload: SendDelivery) -> None:
    """Send one delivery at its slot and settle it."""
    claimed = deliveries.claim(payload.delivery_id, payload.release_id)
    if claimed is None:
        _resolve_orphan(payload.delivery_id)
        return
    settlement = _send(claimed)
    _settle(settlement)
    if settlement.status == "pending":
        _pause_where_all_would_fail(claimed.campaign_id, settlement)


def _send(claimed: Claimed) -> Settlement:
    campaign = _campaign(claimed.campaign_id)
    try:
        message = _render(campaign, claimed.parameters)
        client = whatsapp()  # made at the first send, which takes longer than a slot may wait
        if claimed.is_paced and not _wait_until(claimed.slot_at):
            return Settlement(claimed.id, claimed.attempt, "pending", code="slot_missed", counts=False)
        message_id = client.send(
            number_id=campaign.sender,
            recipient=claimed.recipient,
            message=message,
            callback_data=f"{claimed.id}:{claimed.attempt}",
        )
    except Exception as error:  # noqa: BLE001 - every failure has a decided outcome, bugs too
        return _failed(claimed, error, campaign.max_attempts)
    return Settlement(claimed.id, claimed.attempt, "sent", provider_message_id=message_id)


@lru_cache(maxsize=CAMPAIGN_CACHE)
def _campaign(campaign_id: UUID) -> campaigns.Campaign:
    # What a send reads of its campaign was frozen when it was accepted; limits are applied by the dispatcher.
    return campaigns.get(campaign_id)


@lru_cache(maxsize=CAMPAIGN_CACHE)
def _template(campaign_id: UUID) -> Template:
    campaign = _campaign(campaign_id)
    return Template.parse(campaign.content, campaign.defaults)


def _render(campaign: campaigns.Campaign, parameters: dict[str, str]) -> TextMessage | TemplateMessage:
    template = _template(campaign.id)
    texts = template.render(parameters)
    if template.content.kind == "text":
        return TextMessage(texts[0])
    return TemplateMessage(template.content.name, template.content.language, texts)


def _wait_until(slot: datetime) -> bool:
    """Sleep until the slot; False when it was missed."""
    slot_in_s = current_broker().store_clock.seconds_until(slot)
    slept_from = time.monotonic()
    time.sleep(max(0.0, slot_in_s))
    return time.monotonic() - slept_from - slot_in_s <= MAX_LATE_S


def _failed(claimed: Claimed, error: Exception, max_attempts: int) -> Settlement:
    outcome = classify(error, claimed.tries, RetryPolicy(attempts=max_attempts, backoff=BACKOFF, bug_attempts=1))
    if outcome.is_bug:
        log.error("delivery.failed", delivery_id=str(claimed.id), code=outcome.code, exc_info=error)
    code, text = outcome.code, None if outcome.is_bug else str(error)
    if outcome.action in {Action.RETRY, Action.RESCHEDULE}:
        counts = outcome.action is Action.RETRY
        return Settlement(
            claimed.id, claimed.attempt, "pending", code=code, error=text, counts=counts, again_in=outcome.delay
        )
    if _pause_action(outcome.code):
        return Settlement(claimed.id, claimed.attempt, "pending", code=code, error=text, counts=False)
    # A bug may have struck after the provider took the message.
    held = isinstance(error, AmbiguousError) or outcome.is_bug
    return Settlement(claimed.id, claimed.attempt, "unknown" if held else "failed", code=code, error=text)


def _pause_action(code: str | None) -> ProviderAction | None:
    """The code's action, where it means that the other recipients would fare no better."""
    row = known(code) if code else None
    return row.action if row and row.action in TO_DO else None


def _pause_where_all_would_fail(campaign_id: UUID, settlement: Settlement) -> None:
    """Stop the campaign until a person has acted; nobody is lost, as whoever met the refusal is pending again."""
    action = _pause_action(settlement.code)
    if action is None:
        return
    reason = f"{settlement.error} {TO_DO[action]} Then: fanfare campaign resume {campaign_id}"
    try:
        campaign_control.pause(campaign_id, reason)
    except PermanentError as error:
        # Being cancelled, or over: it sends nothing more, which is what matters here.
        log.info("campaign.not_paused", campaign_id=str(campaign_id), code=error.code)


def _settle(settlement: Settlement) -> None:
    """Record the outcome, however long the database takes to come back: it is known nowhere else."""
    while True:
        try:
            if not deliveries.settle(settlement):
                log.warning("settlement.superseded", delivery_id=str(settlement.id), status=settlement.status)
        except TransientError as error:
            log.warning("settlement.delayed", delivery_id=str(settlement.id), error=str(error))
            time.sleep(SETTLE_RETRY_S)
        else:
            return


def _resolve_orphan(delivery_id: UUID) -> None:
    """The message came again while its delivery is being sent: by a live sender, or by one that was killed."""
    silent_for = get_settings().provider_timeout + SILENCE
    sending_for = deliveries.sending_for(delivery_id)
    if sending_for is None:
        return
    if sending_for < silent_for:
        raise NotYet("Another worker may still be sending it.", until=now() + silent_for - sending_for)
    deliveries.orphan(delivery_id, silent_for=silent_for)
