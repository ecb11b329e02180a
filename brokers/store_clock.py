"""The store's clock, read on this machine without asking the store each time."""

import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brokers.engine import Engine

SAMPLES = 5
SYNC_EVERY_S = 10.0
"""Quartz clocks drift by some 50 us a second against each other: half a millisecond in this time."""


class StoreClock:
    """Tells how long it is until a moment of the store's clock, to a fraction of a round trip.

    A limit is kept by spacing the sends of many processes to the millisecond. Neither the machines' own clocks, which
    differ, nor the time at which a reply happens to arrive, are good enough for that.

    Args:
        engine: Whose clock.
    """

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._mutex = threading.Lock()
        self._epoch: datetime | None = None
        self._epoch_at = 0.0
        self._synced_at = 0.0

    def seconds_until(self, moment: datetime) -> float:
        """Seconds from now until the store's clock shows `moment`; negative when it has passed.

        Raises:
            TransientError: the store cannot be asked, and never could.
        """
        epoch = self._epoch
        if epoch is None or time.monotonic() - self._synced_at > SYNC_EVERY_S:
            epoch = self._sync()
        return (moment - epoch).total_seconds() + self._epoch_at - time.monotonic()

    def _sync(self) -> datetime:
        with self._mutex:
            if self._epoch is None or time.monotonic() - self._synced_at > SYNC_EVERY_S:
                # The quickest of some round trips tells the most: the store read its clock in the middle of it.
                _, self._epoch_at, self._epoch = min(self._sample() for _ in range(SAMPLES))
                self._synced_at = time.monotonic()
            return self._epoch

    def _sample(self) -> tuple[float, float, datetime]:
        asked = time.monotonic()
        moment = self._engine.clock()
        answered = time.monotonic()
        return answered - asked, (asked + answered) / 2, moment
