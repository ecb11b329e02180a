"""Takes in what WhatsApp's webhooks say: statuses of what was sent, and what people wrote (JOB-03).

Enqueued by the web process after it has stored webhooks, and by the sweep. Changes `deliveries`, `inbound_messages` and
`inbound_events`. It needs no idempotency key: an event that was processed is not taken again, and what an event says
has one effect, however often and in whatever order it is said (see `db.inbound`). A message of this type only says that
there may be work, so one of them too many, or too few, does no harm.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from brokers.job import Payload, Priority, job
from core.errors import FanfareError, RetryPolicy
from core.logging import get_logger
from db import inbound, pool
from db.inbound import Event
from domain.whatsapp_webhook import Contents, parse

log = get_logger(__name__)

BATCH = 200
"""Events of one transaction; each may carry many statuses."""


class ProcessWebhooks(Payload):
    """Nothing: it takes whatever waits."""


@job(
    name="whatsapp.process_webhooks",
    queue="whatsapp-webhook",
    priority=Priority.HIGH,
    retry=RetryPolicy(attempts=5, backoff=timedelta(seconds=1)),
    time_limit=timedelta(minutes=5),
    concurrency=5,
)
def process_webhooks(_: ProcessWebhooks) -> None:
    """Process stored webhooks in batches, oldest first, until none waits that another worker has not taken."""
    total = 0
    while taken := process_batch(BATCH):
        total += taken
    if total:
        log.info("webhooks.processed", events=total)


def process_batch(limit: int) -> int:
    """Process up to `limit` events in one transaction; returns how many were taken.

    A batch that fails for no known reason is tried event by event, so that one of them cannot keep the others.
    """
    try:
        with pool.transaction():
            return _apply(inbound.take(limit))
    except FanfareError:
        raise
    except Exception:
        log.exception("webhooks.batch_failed")
    for taken in range(limit):
        if not _process_next():
            return taken
    return limit


def _process_next() -> bool:
    """Process one event; one that cannot be is set aside, with its error as reason, and kept. False when none waits."""
    events: list[Event] = []
    try:
        with pool.transaction():
            events = inbound.take(1)
            _apply(events)
    except FanfareError:
        raise
    except Exception as error:
        log.exception("webhook.set_aside", event_id=str(events[0].id))
        inbound.done({event.id: [f"error:{type(error).__name__}"] for event in events})
    return bool(events)


def _apply(events: Sequence[Event]) -> int:
    if not events:
        return 0
    contents = {event.id: parse(event.body) for event in events}
    unused = inbound.advance([status for each in contents.values() for status in each.statuses])
    inbound.keep_messages([message for each in contents.values() for message in each.messages])
    inbound.done({event_id: _reasons(each, unused) for event_id, each in contents.items()})
    return len(events)


def _reasons(contents: Contents, unused: Mapping[tuple[UUID, int], str]) -> list[str]:
    of_statuses = {unused.get((status.delivery_id, status.attempt)) for status in contents.statuses}
    return sorted(contents.reasons | {reason for reason in of_statuses if reason})
