"""What a worker process holds: its leased messages, kept alive, handed back, and finished in batches."""

import threading
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from core.errors import TransientError
from core.logging import get_logger

if TYPE_CHECKING:
    from brokers.engine import Engine
    from brokers.message import LeasedMessage

log = get_logger(__name__)

HEARTBEAT_EVERY = timedelta(seconds=1)
"""Also how soon a running message learns that it was cancelled."""
REAP_EVERY = timedelta(seconds=5)
MAX_LOST = 3
"""A message that took three workers down with it is poison."""
MAX_BATCH = 1000
MAX_UNAPPLIED = 4000
"""No more is claimed while so many are held, most of them finished and waiting for a store that is slow."""
BATCH_PAUSE_S = 0.002
"""Under load, finishes gather this long; an idle worker's first finish does not wait."""
STORE_DOWN_PAUSE_S = 1.0


class Leases:
    """The leased messages of one process, with a thread that finishes them and one that keeps them.

    Args:
        engine: Where they came from.
        lease: How long a message stays ours without a heartbeat.
    """

    def __init__(self, engine: "Engine", lease: timedelta) -> None:
        self._engine = engine
        self._lease = lease
        # A heartbeat may come late on a busy machine: there are several to a lease, also to a short one.
        self._beat_every_s = min(HEARTBEAT_EVERY, lease / 4).total_seconds()
        self._held: dict[LeasedMessage, float] = {}
        self._finished: SimpleQueue[LeasedMessage | None] = SimpleQueue()
        self._flushing = 0
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._rate = _Rate()
        self._threads = [
            threading.Thread(target=self._finish_loop, name="fanfare-finish", daemon=True),
            threading.Thread(target=self._keep_loop, name="fanfare-keep", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def unfinished(self) -> int:
        """Messages that wait or run here."""
        return len(self._held) - self._finished.qsize() - self._flushing

    @property
    def rate(self) -> float:
        """Messages finished a second, lately."""
        return self._rate.per_s

    def add(self, messages: Iterable["LeasedMessage"]) -> None:
        """Begin to keep `messages`."""
        since = time.monotonic()
        with self._changed:
            self._held.update(dict.fromkeys(messages, since))

    def finish(self, message: "LeasedMessage") -> None:
        """Apply `message.finish` soon; the message stays held until that is done. Returns at once."""
        self._finished.put(message)

    def release(self, messages: Iterable["LeasedMessage"]) -> None:
        """Hand messages that did not begin back to the head of their queues; if that fails, their leases run out."""
        released = list(messages)
        if not released:
            return
        with self._changed:
            for message in released:
                self._held.pop(message, None)
            self._changed.notify_all()
        try:
            self._engine.release_many([message.held for message in released])
        except TransientError as error:
            log.warning("messages.release_failed", count=len(released), error=str(error))

    def wait_for_room(self, limit: int, timeout_s: float) -> None:
        """Block until fewer than `limit` messages wait or run here, or `timeout_s` has passed.

        While the store takes finishes slowly, also until not too many of them wait for it.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.has_room(limit) or self._stopped.is_set(), timeout_s)

    def has_room(self, limit: int) -> bool:
        """Whether fewer than `limit` messages wait or run here, and not too many for the store to finish."""
        return self.unfinished < limit and len(self._held) < MAX_UNAPPLIED

    def close(self, timeout_s: float = 10.0) -> None:
        """Finish what is decided, then stop the threads. What cannot be finished in time, runs again elsewhere."""
        finishing, keeping = self._threads
        self._finished.put(None)
        finishing.join(timeout_s)
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        finishing.join(timeout_s)
        keeping.join(timeout_s)

    # The thread that finishes

    def _finish_loop(self) -> None:
        last_flush = 0.0
        while (message := self._finished.get()) is not None:
            pause = last_flush + BATCH_PAUSE_S - time.monotonic()
            if pause > 0 and self._finished.qsize() < MAX_BATCH:
                time.sleep(pause)
            self._flush([message, *self._more()])
            last_flush = time.monotonic()

    def _more(self) -> Iterator["LeasedMessage"]:
        """What else is finished by now; leaves the word that there will be no more where it is."""
        for _ in range(min(self._finished.qsize(), MAX_BATCH - 1)):
            try:
                message = self._finished.get_nowait()
            except Empty:
                return
            if message is None:
                self._finished.put(None)
                return
            yield message

    def _flush(self, batch: list["LeasedMessage"]) -> None:
        with self._changed:
            self._flushing = len(batch)
            self._changed.notify_all()  # while the store works, the next ones can be claimed
        applied = self._apply(batch)
        for message, was_applied in zip(batch, applied, strict=True):
            if not was_applied:
                log.warning("lease.lost", message_id=message.message_id, actor=message.actor_name)
        with self._changed:
            for message in batch:
                self._held.pop(message, None)
            self._flushing = 0
            self._rate.add(len(batch))
            self._changed.notify_all()

    def _apply(self, batch: list["LeasedMessage"]) -> list[bool]:
        finishes = [message.finish for message in batch if message.finish is not None]
        while True:
            try:
                return self._engine.finish_many(finishes)
            except TransientError as error:
                log.warning("messages.finish_delayed", count=len(batch), error=str(error))
                if self._stopped.wait(STORE_DOWN_PAUSE_S):
                    return [False] * len(batch)
            except Exception:
                # One finish that the store cannot take must not keep its neighbours; its own lease runs out.
                if len(batch) > 1:
                    return [applied for message in batch for applied in self._apply([message])]
                log.exception("message.finish_failed", message_id=batch[0].message_id)
                return [False]

    # The thread that keeps

    def _keep_loop(self) -> None:
        next_reap = time.monotonic()
        while not self._stopped.wait(self._beat_every_s):
            try:
                self._beat()
                if time.monotonic() >= next_reap:
                    next_reap = time.monotonic() + REAP_EVERY.total_seconds()
                    self._reap()
            except TransientError as error:
                log.warning("heartbeat.failed", held=len(self._held), error=str(error))
            except Exception:
                # Without this thread every lease of the process would run out.
                log.exception("heartbeat.failed", held=len(self._held))

    def _beat(self) -> None:
        """Renew what has been held for a while; messages that come and go between two heartbeats never need it."""
        begun_before = time.monotonic() - self._beat_every_s
        with self._changed:
            old = [message for message, since in self._held.items() if since < begun_before]
        if not old:
            return
        answer = self._engine.heartbeat([message.held for message in old], self._lease)
        for message in old:
            if message.claim.message_id in answer.lost or message.claim.message_id in answer.cancelled:
                message.stop_requested = True

    def _reap(self) -> None:
        expired = self._engine.reap(max_lost=MAX_LOST)
        if expired:
            log.warning("leases.expired", count=expired)
            self._engine.wake()


class _Rate:
    """Finishes a second, averaged over about the last half second."""

    WINDOW_S = 0.5
    LEAST_S = 0.02

    def __init__(self) -> None:
        self.per_s = 0.0
        self._since = time.monotonic()
        self._count = 0

    def add(self, count: int) -> None:
        self._count += count
        elapsed = time.monotonic() - self._since
        if elapsed >= self.LEAST_S:
            now = self._count / elapsed
            # Up at once, so that a worker that begins is soon at full speed; down by and by.
            share = 1.0 if now > self.per_s else min(1.0, elapsed / self.WINDOW_S)
            self.per_s += share * (now - self.per_s)
            self._since = time.monotonic()
            self._count = 0
