"""Lets `dramatiq.group(...).add_completion_callback(...)` work on an engine.

dramatiq announces a group by creating a barrier with its size; here that creates the group in the engine, which counts
each member once, when it ends, however it ends. Nothing expires.
"""

from typing import TYPE_CHECKING

from dramatiq import middleware
from dramatiq.rate_limits import RateLimiterBackend

if TYPE_CHECKING:
    from brokers.engine import Engine


class GroupCallbacks(middleware.GroupCallbacks):
    """dramatiq looks for its own class; all that runs when a member ended is in the engine's `finish_many`."""

    def __init__(self, engine: "Engine") -> None:
        super().__init__(_GroupSizes(engine))

    # Nothing, see `Outcomes`; the broker knows this method and does not call it.
    after_process_message = middleware.Middleware.after_process_message


class _GroupSizes(RateLimiterBackend):
    """The one call of dramatiq's barrier that starts a group."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def add(self, key: str, value: int, ttl: int) -> bool:  # noqa: ARG002 - a group lives until its last member ended
        self._engine.create_group(key, value)
        return True
