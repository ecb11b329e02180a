"""WhatsApp's limits: messages per second of a number in a sliding window, and messages to one recipient.

Source: Meta's Cloud API overview, "Throughput" (80/s per number, more on request) and "Pair rate limits" (one message
per 6 s to a recipient, up to 45 ahead of it).
"""

from collections import deque

_NS = 1_000_000_000
_WINDOWS_S = range(1, 11)

PAIR_INTERVAL_NS = 6 * _NS
PAIR_BURST = 45


def window_of(rate: float) -> tuple[int, int]:
    """The window, in nanoseconds, in which `rate` per second is counted, and how many messages fit in it.

    The shortest whole number of seconds in which a whole number of messages fits: 80/s is 80 in 1 s, 12.5/s is 25 in
    2 s. Rates without one within 10 s are counted over 10 s, or over one message where they are even slower.
    """
    for seconds in _WINDOWS_S:
        if rate * seconds % 1 == 0:
            return seconds * _NS, int(rate * seconds)
    count = max(1, int(rate * _WINDOWS_S[-1]))
    return max(_WINDOWS_S[-1] * _NS, int(_NS / rate)), count


class RateLimit:
    """The sliding window of one number. Refused messages do not count."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._window_ns, self._count = window_of(rate) if rate else (0, 0)
        self._taken: deque[int] = deque()

    def allows(self, at_ns: int) -> bool:
        """Takes one place at `at_ns` by the monotonic clock, if there is one."""
        if not self.rate:
            return True
        while self._taken and at_ns - self._taken[0] >= self._window_ns:
            self._taken.popleft()
        if len(self._taken) >= self._count:
            return False
        self._taken.append(at_ns)
        return True


class PairLimits:
    """The limit of each pair of number and recipient: what is sent ahead must be paid back in waiting."""

    def __init__(self) -> None:
        self._paid_ns: dict[tuple[str, str], int] = {}

    def allows(self, number: str, recipient: str, at_ns: int) -> bool:
        """Takes one message at `at_ns` by the monotonic clock, if the pair may have it."""
        pair = (number, recipient)
        paid_ns = max(self._paid_ns.get(pair, 0), at_ns)
        if paid_ns - at_ns > (PAIR_BURST - 1) * PAIR_INTERVAL_NS:
            return False
        self._paid_ns[pair] = paid_ns + PAIR_INTERVAL_NS
        return True
