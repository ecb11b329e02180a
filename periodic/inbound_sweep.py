"""Looks, every minute, for webhooks that wait, and forgets old ones (JOB-03).

Sent by the scheduler. Webhooks are stored first and announced to the workers after; where the broker was down in
between, or the web process died, this announces them. Running it more often than needed changes nothing.
"""

from datetime import timedelta

from actors.whatsapp_webhook import process_webhooks
from brokers.job import Payload, Priority, job
from core.errors import RetryPolicy
from core.logging import get_logger
from db import inbound

log = get_logger(__name__)

WAITED = timedelta(seconds=5)
"""An event so old was not announced, or there is more work than workers."""
KEPT = timedelta(days=8)
"""Meta sends a webhook again for up to 7 days; as long as it is kept, its repetition costs nothing."""
UNUSED_KEPT = timedelta(days=90)
"""Events with something in them that could not be used."""


class SweepInbound(Payload):
    """Nothing: it looks at all that waits."""


@job(
    name="inbound.sweep",
    queue="maintenance",
    priority=Priority.HIGH,
    retry=RetryPolicy(attempts=2, backoff=timedelta(seconds=5)),
    time_limit=timedelta(minutes=1),
    concurrency=1,
    schedule="* * * * *",
)
def sweep_inbound(_: SweepInbound) -> None:
    """Announce webhooks that wait, and delete a batch of old ones."""
    if inbound.waiting(older_than=WAITED):
        log.warning("webhooks.waited", at_least_s=WAITED.total_seconds())
        process_webhooks.send()
    if forgotten := inbound.forget(older_than=KEPT, unused_older_than=UNUSED_KEPT):
        log.info("webhooks.forgotten", events=forgotten)
