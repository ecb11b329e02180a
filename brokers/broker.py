"""dramatiq's broker on top of an engine: what both brokers share."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dramatiq.broker import Broker
from dramatiq.errors import QueueJoinTimeout
from dramatiq.middleware import AgeLimit, CurrentMessage, Middleware, MiddlewareError, ShutdownNotifications, TimeLimit
from dramatiq.results import Results
from periodiq import PeriodiqMiddleware

from brokers.consumer import EngineConsumer
from brokers.envelope import envelope_of, identified
from brokers.job import DEFAULT_TIME_LIMIT
from brokers.middleware.group_callbacks import GroupCallbacks
from brokers.middleware.job_tracking import JobTracking
from brokers.middleware.keeper import Keeper
from brokers.middleware.log_context import LogContext
from brokers.middleware.one_consumer import OneConsumer
from brokers.middleware.outcomes import Outcomes
from brokers.middleware.pace import Pace
from brokers.outbox import Outbox
from brokers.results import EngineResults
from brokers.store_clock import StoreClock
from core.clock import to_ms

if TYPE_CHECKING:
    import dramatiq
    from dramatiq.rate_limits import RateLimiterBackend

    from brokers.engine import Engine

JOIN_POLL_S = 0.05
NEVER_SKIP_S = 10**9
"""A tick that comes late still runs: by default periodiq drops it after 30 s, without a word."""


def default_middleware(engine: "Engine") -> list[Middleware]:
    """In their order before a run; after a run they are called from last to first."""
    return [
        LogContext(),  # first, so that whatever else logs is named
        JobTracking(),  # records what Outcomes decided: before it here is after it there
        Outcomes(),  # decides when all that follow have had their say
        Keeper(),  # looks after what crashes and outages leave behind
        OneConsumer(),  # before any thread of the worker starts
        AgeLimit(),  # skips what is too old before anything is spent on it
        PeriodiqMiddleware(skip_delay=NEVER_SKIP_S),
        Pace(),  # waits outside the time limit
        TimeLimit(time_limit=to_ms(DEFAULT_TIME_LIMIT)),
        ShutdownNotifications(),
        CurrentMessage(),
        Results(backend=EngineResults(engine)),
        GroupCallbacks(engine),
    ]


class EngineBroker(Broker):
    """Sends messages into an engine and lets dramatiq's workers run them.

    Args:
        engine: Where messages live.
        lease: A message whose worker was silent for so long is run by another.
        stock: Arguments of the stock broker that a subclass extends.
    """

    def __init__(self, *, engine: "Engine", lease: timedelta, **stock: Any) -> None:  # noqa: ANN401 - passed on
        self.engine = engine
        self.lease = lease
        self.store_clock = StoreClock(engine)
        # Where the store cannot be part of a transaction.
        self.outbox: Outbox | None = None
        if not engine.capabilities.transactional_enqueue:
            self.outbox = getattr(engine, "outbox", None) or Outbox(engine)
        self.worker: dramatiq.Worker | None = None
        self.consumers: set[EngineConsumer] = set()
        self._hooks: dict[str, list[Callable[..., None]]] = {}
        super().__init__(middleware=default_middleware(engine), **stock)

    # Messages in

    def declare_queue(self, queue_name: str) -> None:
        """Make `queue_name` known. Nothing is created in the store; delays need no queue of their own."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = True
        self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: "dramatiq.Message[Any]", *, delay: int | None = None) -> "dramatiq.Message[Any]":
        """Store one message; `delay` is in milliseconds.

        On return the store has it; inside `db.pool.transaction()` it is stored if and only if that commits. With an
        option `deduplication_key`, messages of one actor with the same key are one: while the store holds the first,
        be it waiting, running or dead, another has no effect.
        """
        message = identified(message)
        self._enqueue([message], delay)
        return message

    def enqueue_many(self, messages: Iterable["dramatiq.Message[Any]"], *, delay: int | None = None) -> None:
        """Store all of `messages` in one step, as `enqueue` stores one."""
        self._enqueue([identified(message) for message in messages], delay)

    def _enqueue(self, messages: list["dramatiq.Message[Any]"], delay: int | None) -> None:
        wait = timedelta(milliseconds=delay or 0)
        for message in messages:
            self.emit_before("enqueue", message, delay)
        envelopes = [envelope_of(self, message, delay=wait) for message in messages]
        if self.outbox is None:
            self.engine.enqueue_many(envelopes)
        else:
            self.outbox.enqueue_many(envelopes)
        for message in messages:
            self.emit_after("enqueue", message, delay)

    def create_group(self, group_id: str, size: int) -> None:
        """Announce a group, see `Engine.create_group`; part of a surrounding transaction as `enqueue` is."""
        (self.outbox or self.engine).create_group(group_id, size)

    # Messages out

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> EngineConsumer:
        """A consumer for all queues of this process's worker; outside a worker, for `queue_name` alone."""
        queues = self._served_queues if self.worker else lambda: {queue_name: None}
        consumer = EngineConsumer(self, queues, prefetch, timedelta(milliseconds=timeout))
        self.consumers.add(consumer)
        return consumer

    def _served_queues(self) -> Mapping[str, int | None]:
        whitelist = self.worker and self.worker.consumer_whitelist
        wanted = self.queues.keys() & whitelist if whitelist else self.queues.keys()
        bounds: dict[str, int | None] = dict.fromkeys(wanted)
        for actor in self.actors.values():
            bound = actor.options.get("concurrency")
            if bound is not None and actor.queue_name in bounds:
                bounds[actor.queue_name] = min(bound, bounds[actor.queue_name] or bound)
        return bounds

    @abstractmethod
    def rate_limiter_backend(self) -> "RateLimiterBackend":
        """Where dramatiq's own rate limiters (`dramatiq.rate_limits`) keep their counts: in the engine's server."""

    # Steering

    def flush(self, queue_name: str) -> None:
        """Drop the messages of a queue that do not run."""
        self.engine.purge(queue_name)

    def flush_all(self) -> None:
        """Drop the messages of all declared queues that do not run."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until nothing waits, is delayed or runs in `queue_name`; `timeout` is in milliseconds.

        Raises:
            QueueJoinTimeout: when it took longer.
        """
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while any(depth.waiting + depth.delayed + depth.leased for depth in self.engine.depths([queue_name])):
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(JOIN_POLL_S)

    def close(self) -> None:
        """Close the connections of this process."""
        self.engine.close()

    # Hooks: dramatiq calls every hook of every middleware, even those that do nothing

    def add_middleware(self, middleware: Middleware, **position: Any) -> None:  # noqa: ANN401 - dramatiq's signature
        """As in dramatiq."""
        self._hooks.clear()
        super().add_middleware(middleware, **position)

    def emit_before(self, signal: str, *args: object, **kwargs: object) -> None:
        """Call the hooks for `signal` in order; only `MiddlewareError` gets through, as in dramatiq."""
        for hook in self._hooks_for("before_" + signal):
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in before_%s.", signal, exc_info=True)

    def emit_after(self, signal: str, *args: object, **kwargs: object) -> None:
        """Call the hooks for `signal` from last to first."""
        for hook in reversed(self._hooks_for("after_" + signal)):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                self.logger.critical("Unexpected failure in after_%s.", signal, exc_info=True)

    def _hooks_for(self, name: str) -> list[Callable[..., None]]:
        hooks = self._hooks.get(name)
        if hooks is None:
            doing_nothing = getattr(Middleware, name, None)
            hooks = [getattr(m, name) for m in self.middleware if getattr(type(m), name, None) is not doing_nothing]
            self._hooks[name] = hooks
        return hooks
