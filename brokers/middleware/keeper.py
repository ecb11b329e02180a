"""A thread of each worker process that looks, every second, after what crashes and outages left behind.

It tells the store what waits in the outbox and lets two stores work as one settle what is open between them; now and
then it ends what a mover left half done.
"""

import threading
import time
from typing import TYPE_CHECKING

from dramatiq.middleware import Middleware

from brokers.fallback import FallbackEngine
from brokers.move import settle
from brokers.stores import Store
from core.errors import FanfareError
from core.logging import get_logger

if TYPE_CHECKING:
    from dramatiq import Worker

    from brokers.broker import EngineBroker

log = get_logger(__name__)

EVERY_S = 1.0
MOVES_EVERY_S = 5.0
"""What a mover left half done is in no hurry."""


class Keeper(Middleware):
    """Starts the thread with the worker and ends it before the broker closes."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def after_worker_boot(self, broker: "EngineBroker", worker: "Worker") -> None:  # noqa: ARG002 - the hook's signature
        """Start."""
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, args=(broker,), name="fanfare-keeper", daemon=True)
        self._thread.start()

    def after_worker_shutdown(self, broker: "EngineBroker", worker: "Worker") -> None:  # noqa: ARG002 - as above
        """Stop."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self, broker: "EngineBroker") -> None:
        moves_at = 0.0
        while not self._stopped.wait(EVERY_S):
            try:
                is_away = _look_after(broker)
                if not is_away and time.monotonic() >= moves_at:
                    moves_at = time.monotonic() + MOVES_EVERY_S
                    _end_moves(broker)
            except FanfareError as error:
                log.warning("keeper.delayed", error=str(error))
            except Exception:
                # Without this thread nothing would be repaired any more.
                log.exception("keeper.failed")


def _look_after(broker: "EngineBroker") -> bool:
    """Tell what is left; returns whether the first store is away."""
    engine = broker.engine
    if isinstance(engine, FallbackEngine):
        engine.tend()
        if engine.is_away:
            return True
    if broker.outbox is not None:
        broker.outbox.tell_left()
    return False


def _end_moves(broker: "EngineBroker") -> None:
    engine = broker.engine
    for store in engine.stores if isinstance(engine, FallbackEngine) else (engine,):
        if isinstance(store, Store):
            settle(store)
