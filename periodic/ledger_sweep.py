"""Puts right, every minute, what crashes left in the ledger and what a broker lost.

Sent by the scheduler. Changes deliveries that were left released or sending, and starts the dispatch of every running
campaign again: on a healthy system it finds nothing and changes nothing, however often it runs.
"""

from datetime import timedelta

from brokers.job import Payload, Priority, job
from core.errors import RetryPolicy
from core.logging import get_logger
from core.settings import get_settings
from db import campaigns, deliveries
from pipelines.campaign import dispatch_campaign, plan_campaign

log = get_logger(__name__)

SILENCE = timedelta(seconds=30)
"""Past the provider's time-out by so much, a delivery that nobody settled was lost by a crash."""
RESEND_AFTER = timedelta(minutes=2)


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
    for campaign_id in campaigns.running():
        repairs = deliveries.repair(campaign_id, silent_for=silent_for, resend_after=RESEND_AFTER)
        if any((repairs.returned, repairs.held, repairs.resent)):
            log.warning(
                "campaign.repaired",
                campaign_id=str(campaign_id),
                returned=repairs.returned,
                held=repairs.held,
                resent=repairs.resent,
            )
        step = dispatch_campaign if campaigns.is_planned(campaign_id) else plan_campaign
        step.send(campaign_id=str(campaign_id))
