"""Keeps limits across a change of store.

Each store counts for itself. When the other one takes over, slots that the former gave out may lie ahead, some given to
other processes. So after a change the first slots begin when these have passed.
"""

import time
from collections.abc import Sequence
from datetime import timedelta

from brokers.engine import Limit, Reservation

WINDOW_S = 8.0
"""Reservations reach less far ahead (see `pipelines.campaign.WINDOW`), with two seconds for processes to notice."""
MAX_KEYS = 10_000


class Pacing:
    """What this process knows of slots given out: the moment after the last one, by key and store."""

    def __init__(self) -> None:
        self._ends: dict[str, tuple[bool, float]] = {}

    def gave(self, limits: Sequence[Limit], reservation: Reservation, *, in_second: bool) -> None:
        """A store gave slots."""
        now = time.monotonic()
        if len(self._ends) > MAX_KEYS:
            self._ends = {key: end for key, end in self._ends.items() if end[1] > now}
        if reservation.offsets:
            for limit in limits:
                self._ends[limit.key] = (in_second, now + reservation.offsets[-1] + 1 / limit.rate)

    def lead(self, limits: Sequence[Limit], lead: timedelta, changed_s_ago: float, *, in_second: bool) -> timedelta:
        """How far ahead the first slot of a reservation has to be, at least `lead`."""
        now = time.monotonic()
        others = [end for limit in limits if (end := self._ends.get(limit.key)) and end[0] is not in_second]
        wait_s = max([WINDOW_S - changed_s_ago, *(until - now for _, until in others)])
        return max(lead, timedelta(seconds=wait_s)) if wait_s > 0 else lead
