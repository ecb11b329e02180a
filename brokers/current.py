"""The process's broker, as the composition root set it."""

from typing import TYPE_CHECKING, cast

import dramatiq

if TYPE_CHECKING:
    from brokers.broker import EngineBroker


def current_broker() -> "EngineBroker":
    """Dramatiq's global broker, with the type that it has here."""
    return cast("EngineBroker", dramatiq.get_broker())
