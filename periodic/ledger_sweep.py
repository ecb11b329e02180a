"""Puts right, every minute, what crashes left in the ledger and what a broker lost.

Sent by the scheduler. Changes deliveries that were left released or sending, starts the dispatch of every running
campaign again, and sends jobs again whose messages are gone: on a healthy system it finds nothing and changes nothing,
however often it runs. The broker is asked which messages it still has, so that after a loss of all of them the next
sweep repairs everything: within a minute.
"""

import time
from datetime import datetime, timedelta
from uuid import UUID

from actors.delivery_send import message_id_of
from brokers.current import current_broker
from brokers.job import Payload, Priority, job
from brokers.tracked import resend_lost
from core.errors import RetryPolicy, TransientError
from core.logging import get_logger
from core.settings import get_settings
from db import campaign_plan, campaigns, deliveries
from pipelines.campaign import dispatch_campaign, plan_campaign

log = get_logger(__name__)

SILENCE = timedelta(seconds=30)
"""Past the provider's time-out by so much, a delivery that nobody settled was lost by a crash."""
RESEND_AFTER = timedelta(minutes=2)
LOOK_AGAIN = timedelta(seconds=2)
"""A message that the broker does not have, and has not so much later, is lost and not just on its way."""


class SweepLedger(Payload):
    """Nothing: the sweep looks at all running campaigns."""


@job(
    name="ledger.sweep",
    queue="maintenance",
    priority=Priority.HIGH,
    retry=RetryPolicy(attempts=2, backoff=timedelta(seconds=5)),
    time_limit=timedelta(minutes=5),
    concurrency=1,
    schedule="* * * * *",
)
def sweep_ledger(_: SweepLedger) -> None:
    """Repair every running campaign from the ledger."""
    silent_for = get_settings().provider_timeout + SILENCE
    lost = _lost()
    if any(lost.values()):
        time.sleep(LOOK_AGAIN.total_seconds())
        lost = {campaign_id: again & lost.get(campaign_id, set()) for campaign_id, again in _lost().items()}
    for campaign_id in campaigns.running():
        returned = deliveries.take_back(sorted(lost.get(campaign_id, ())))
        repairs = deliveries.repair(campaign_id, silent_for=silent_for, resend_after=RESEND_AFTER)
        if returned or any((repairs.returned, repairs.held, repairs.resent)):
            log.warning(
                "campaign.repaired",
                campaign_id=str(campaign_id),
                returned=returned + repairs.returned,
                held=repairs.held,
                resent=repairs.resent,
            )
        step = dispatch_campaign if campaign_plan.is_planned(campaign_id) else plan_campaign
        step.send(campaign_id=str(campaign_id))
    if resent := resend_lost(older_than=LOOK_AGAIN):
        log.warning("jobs.resent", count=resent)


def _lost() -> dict[UUID, set[tuple[UUID, datetime]]]:
    """By running campaign, the released deliveries of which the broker has no message."""
    engine = current_broker().engine
    lost = {}
    for campaign_id in campaigns.running():
        ids = {message_id_of(*release): release for release in deliveries.released(campaign_id)}
        try:
            held = engine.holds(list(ids))
        except TransientError as error:
            log.warning("sweep.broker_not_asked", error=str(error))
            return {}
        lost[campaign_id] = {ids[message_id] for message_id in ids.keys() - held}
    return lost
