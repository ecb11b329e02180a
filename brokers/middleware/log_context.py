"""Puts the ids of what runs into every log line of its thread."""

from typing import TYPE_CHECKING

from dramatiq.middleware import Middleware

from core import logging

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.message import LeasedMessage


class LogContext(Middleware):
    """Binds `message_id`, `actor` and, where there is one, `job_id`; without it a line could not be traced."""

    def before_process_message(self, broker: "EngineBroker", message: "LeasedMessage") -> None:  # noqa: ARG002 - the hook's signature
        """Bind."""
        logging.follow(message.log_facts)

    def after_process_message(self, *_: object, **__: object) -> None:
        """Forget."""
        logging.follow(None)

    after_skip_message = after_process_message
