"""Puts the ids of what runs into every log line of its thread."""

from typing import TYPE_CHECKING

import structlog
from dramatiq.middleware import Middleware

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.message import LeasedMessage


class LogContext(Middleware):
    """Binds `message_id`, `actor` and, where there is one, `job_id`; without it a line could not be traced."""

    def before_process_message(self, broker: "EngineBroker", message: "LeasedMessage") -> None:  # noqa: ARG002 - the hook's signature
        """Bind."""
        facts = {"message_id": message.message_id, "actor": message.actor_name}
        if (job_id := message.options.get("job_id")) is not None:
            facts["job_id"] = job_id
        structlog.contextvars.bind_contextvars(**facts)

    def after_process_message(self, *_: object, **__: object) -> None:
        """Forget."""
        structlog.contextvars.clear_contextvars()

    after_skip_message = after_process_message
