"""Keeps the row of the jobs table that a message works for."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from dramatiq.middleware import Middleware

from brokers.engine import Disposition
from core.errors import TransientError
from core.logging import get_logger
from db import jobs

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.message import LeasedMessage

log = get_logger(__name__)

DATABASE_DOWN_WAIT = timedelta(seconds=5)
PARTIAL: dict[str, jobs.FinalStatus] = {
    "partial_success": "partial_success",
    "partial_failure": "partial_failure",
}


class JobTracking(Middleware):
    """Starts, retries and ends the job that a message names by its option `job_id`; users see the job, not the message.

    A result that is a mapping may say `status` (`partial_success`, `partial_failure`) and `error_details`.
    """

    def before_process_message(self, broker: "EngineBroker", message: "LeasedMessage") -> None:  # noqa: ARG002 - the hook's signature
        """Record that a try begins."""
        if (job_id := _job_of(message)) is not None and jobs.start(job_id):
            message.began_at = time.monotonic()
            log.info("job.started", attempt=message.claim.attempt)

    def after_process_message(
        self,
        broker: "EngineBroker",  # noqa: ARG002 - the hook's signature
        message: "LeasedMessage",
        *,
        result: object = None,
        exception: BaseException | None = None,  # noqa: ARG002 - Outcomes has judged it
    ) -> None:
        """Record what the try came to. Where that fails the message runs again: the job must not stay open."""
        job_id = _job_of(message)
        if job_id is None or message.finish is None:
            return
        try:
            _record(job_id, message, result)
        except TransientError as error:
            log.warning("job.record_delayed", error=str(error))
            message.failed = False
            message.finish = replace(
                message.finish, disposition=Disposition.RESCHEDULE, delay=DATABASE_DOWN_WAIT, follow_ups=()
            )


def _job_of(message: "LeasedMessage") -> UUID | None:
    job_id = message.options.get("job_id")
    return None if job_id is None else UUID(job_id)


def _duration_s(message: "LeasedMessage") -> float:
    return round(time.monotonic() - message.began_at, 3)


def _record(job_id: UUID, message: "LeasedMessage", result: object) -> None:
    finish = message.finish
    assert finish is not None  # noqa: S101 - checked by the only caller
    failure = {"code": finish.code, "message": finish.error}
    match finish.disposition:
        case Disposition.DONE:
            facts = dict(result) if isinstance(result, Mapping) else {}
            status = PARTIAL.get(str(facts.get("status")), "completed")
            jobs.finish(job_id, status, facts or None, facts.get("error_details"))
            log.info("job.completed", status=status, duration_s=_duration_s(message))
        case Disposition.DEAD:
            jobs.finish(job_id, "failed", error_details=failure)
            log.error("job.failed", duration_s=_duration_s(message), **failure)
        case Disposition.CANCELLED:
            jobs.finish(job_id, "cancelled", error_details=failure)
            log.info("job.cancelled")
        case Disposition.RETRY:
            jobs.retry(job_id, failure)
        case Disposition.RESCHEDULE:
            log.debug("job.rescheduled")
