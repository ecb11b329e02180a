"""Spaces the starts of a job type that states a `rate`, over all workers."""

import time
from typing import TYPE_CHECKING

from dramatiq.middleware import Middleware

from brokers.engine import Limit

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.message import LeasedMessage


class Pace(Middleware):
    """Waits for a slot of the limiter before the actor runs; without it `rate` would have no effect.

    A slot once reserved is used, so the wait happens in the worker's thread; the lease is renewed meanwhile. The job
    type's `concurrency` bounds how many threads can wait.
    """

    def before_process_message(self, broker: "EngineBroker", message: "LeasedMessage") -> None:
        """Sleep until this message's slot."""
        rate = broker.get_actor(message.actor_name).options.get("rate")
        if rate is None:
            return
        asked = time.monotonic()
        slot = broker.engine.reserve([Limit(f"job:{message.actor_name}", rate)], 1).offsets[0]
        time.sleep(max(0.0, asked + slot - time.monotonic()))
