"""Error reports to Sentry, where SENTRY_DSN is set; otherwise nothing is sent and nothing is patched.

What is logged as an error is reported. What jobs raise on purpose is not: it is in the job's log and in the dead
letters. A report passes the same scrubber as the logs and holds neither local variables nor requests.
"""

import logging
from typing import cast

import sentry_sdk
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.types import Event, Hint

from core.errors import AmbiguousError, Cancelled, NotYet, PermanentError, TransientError
from core.logging import scrub, without_arguments
from core.settings import Settings

EXPECTED_ERRORS = (TransientError, PermanentError, NotYet, Cancelled, AmbiguousError)
"""Not reported; `ThrottledError` is a `TransientError`."""

_SHAPE = {"event_id", "timestamp", "level", "platform", "release", "environment", "sdk", "contexts", "modules"}
"""Parts of a report that Sentry's software writes itself, about software."""


def configure(settings: Settings) -> None:
    """Begin to report this process's errors, where a DSN is set. Idempotent: the last call counts."""
    dsn = settings.sentry_dsn.get_secret_value()
    if not dsn:
        return
    sentry_sdk.init(
        dsn=dsn,
        release=settings.release or None,
        environment=settings.environment,
        include_local_variables=False,
        max_request_body_size="never",
        auto_enabling_integrations=False,  # the one for dramatiq would attach messages with their arguments
        auto_session_tracking=False,
        integrations=[LoggingIntegration(level=logging.INFO, event_level=logging.ERROR)],
        before_send=_before_send,
    )


def _before_send(event: Event, hint: Hint) -> Event | None:
    error = (hint.get("exc_info") or (None, None, None))[1]
    if isinstance(error, EXPECTED_ERRORS):
        return None
    parts = dict(event)
    if record := hint.get("log_record"):
        parts |= _log_entry(record)
    return cast("Event", {name: part if name in _SHAPE else scrub(part) for name, part in parts.items()})


def _log_entry(record: logging.LogRecord) -> dict[str, object]:
    """A log line as Sentry shows it: our own records carry a mapping, those of libraries a text with arguments."""
    if isinstance(record.msg, dict):
        facts = {name: value for name, value in record.msg.items() if name not in {"event", "exc_info"}}
        return {"logentry": {"message": record.msg.get("event", "")}, "extra": facts}
    without_arguments(record)
    return {"logentry": {"message": record.getMessage()}, "extra": {}}
