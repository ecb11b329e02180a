"""Messages that work for a row of the jobs table; they have the job's id, so a job is never in the store twice."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from brokers.current import current_broker
from brokers.job import registry
from core.errors import TransientError
from core.logging import get_logger
from db import jobs

if TYPE_CHECKING:
    import dramatiq

log = get_logger(__name__)


def send_tracked(actor: "dramatiq.Actor[..., Any]", job_id: UUID, data: Mapping[str, object]) -> None:
    """Send the message of a job; repeated, it has no effect while the job is on its way, or ended some minutes ago.

    Args:
        actor: The job type's.
        job_id: Id of the job, see `db.jobs.create`.
        data: The payload's fields.
    """
    message = actor.message_with_options(kwargs=dict(data), job_id=str(job_id)).copy(message_id=str(job_id))
    current_broker().enqueue(message)


def resend_lost(*, older_than: timedelta) -> int:
    """Send the messages of open jobs again that the store does not have; returns how many.

    Only jobs of declared types: others are kept going by what made them.
    """
    resent, last = 0, None
    while page := jobs.open_jobs(older_than=older_than, after=last):
        last = page[-1].id
        types = registry()
        known = [job for job in page if job.type in types]
        try:
            held = current_broker().engine.holds([str(job.id) for job in known])
        except TransientError as error:
            log.warning("jobs.broker_not_asked", error=str(error))
            return resent
        for job in known:
            if str(job.id) not in held:
                fields = types[job.type].payload.model_fields
                send_tracked(types[job.type].actor, job.id, {k: v for k, v in job.data.items() if k in fields})
                resent += 1
    return resent
