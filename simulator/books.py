"""What the simulator has seen: counts by number and outcome, rates, duplicates. Rebuilt from the log at the start."""

from collections import Counter, deque
from typing import Any

from simulator.ledger import Arrival
from simulator.plan import Plan

_NS = 1_000_000_000
_LAST = 20


class Window:
    """The most arrivals in any window of so many seconds, kept as they come."""

    def __init__(self, seconds: int) -> None:
        self._window_ns = seconds * _NS
        self._inside: deque[int] = deque()
        self.worst = 0

    def add(self, at_ns: int) -> None:
        """Counts an arrival at `at_ns` by the monotonic clock."""
        self._inside.append(at_ns)
        self._drop(at_ns)
        self.worst = max(self.worst, len(self._inside))

    def now(self, at_ns: int) -> int:
        """How many arrived in the window that ends at `at_ns`."""
        self._drop(at_ns)
        return len(self._inside)

    def _drop(self, at_ns: int) -> None:
        while self._inside and at_ns - self._inside[0] >= self._window_ns:
            self._inside.popleft()


class NumberBooks:
    """What one sending number did."""

    def __init__(self) -> None:
        self.requests = 0
        self.accepted = 0
        self.outcomes: Counter[str] = Counter()
        self.second = Window(1)
        self.two_seconds = Window(2)
        self.minute = Window(60)

    def add(self, arrival: Arrival) -> None:
        """Counts one request."""
        self.requests += 1
        self.accepted += arrival.accepted
        self.outcomes[arrival.outcome] += 1
        for window in (self.second, self.two_seconds, self.minute):
            window.add(arrival.mono_ns)


class Books:
    """All that was seen since the start of the log or the last reset."""

    def __init__(self) -> None:
        self.numbers: dict[str, NumberBooks] = {}
        self.attempts: Counter[str] = Counter()
        self.duplicates = 0
        self.last: deque[Arrival] = deque(maxlen=_LAST)
        self._accepted_recipients: set[str] = set()
        self._accepted_sends: set[str] = set()

    def add(self, arrival: Arrival) -> None:
        """Counts one request."""
        number = self.numbers.get(arrival.number)
        if number is None:
            number = self.numbers[arrival.number] = NumberBooks()
        number.add(arrival)
        self.last.append(arrival)
        if arrival.attempt:
            self.attempts[arrival.recipient] = arrival.attempt
        if arrival.accepted:
            self._accepted_recipients.add(arrival.recipient)
            send = arrival.callback or arrival.recipient
            self.duplicates += send in self._accepted_sends
            self._accepted_sends.add(send)

    def summary(self, plan: Plan, at_ns: int) -> dict[str, Any]:
        """Everything as JSON can say it; rates by the monotonic clock at `at_ns`."""
        outcomes: Counter[str] = Counter()
        for books in self.numbers.values():
            outcomes.update(books.outcomes)
        return {
            "requests": sum(books.requests for books in self.numbers.values()),
            "accepted": sum(books.accepted for books in self.numbers.values()),
            "distinct_recipients": len(self._accepted_recipients),
            "duplicates": self.duplicates,
            "outcomes": dict(outcomes.most_common()),
            "numbers": {
                number: {
                    "requests": books.requests,
                    "accepted": books.accepted,
                    "limit_per_s": plan.rate_of(number),
                    "last_second": books.second.now(at_ns),
                    "last_minute": books.minute.now(at_ns),
                    "worst_1s": books.second.worst,
                    "worst_2s": books.two_seconds.worst,
                    "outcomes": dict(books.outcomes.most_common()),
                }
                for number, books in self.numbers.items()
            },
        }
