"""Which outcome a request has: decided by the plan's seed, the recipient and the attempt, so that runs repeat."""

from collections.abc import Iterator
from hashlib import blake2b
from itertools import accumulate

from simulator.plan import Plan

_SPAN = 2.0**32


class Faults:
    """Decides outcomes by one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seed = str(plan.seed).encode()
        self._bounds = list(zip(accumulate(plan.shares.values()), plan.shares, strict=True))

    def outcome(self, recipient: str, attempt: int) -> str:
        """The outcome of request number `attempt` (from 1) to `recipient`."""
        if recipient in self._plan.recipients:
            return self._plan.recipients[recipient]
        if not self._bounds:
            return "ok"
        point = next(self._points(recipient, attempt))
        return next((outcome for bound, outcome in self._bounds if point < bound), "ok")

    def delay_s(self, recipient: str, attempt: int, outcome: str) -> float:
        """Seconds before the answer."""
        wait_ms = self._plan.slow_ms if outcome == "slow" else self._plan.latency_ms
        if self._plan.jitter_ms:
            _, jitter = self._points(recipient, attempt)
            wait_ms += self._plan.jitter_ms * jitter
        return wait_ms / 1000

    def _points(self, recipient: str, attempt: int) -> Iterator[float]:
        """Two numbers from 0 to 1 that depend on nothing but the seed, the recipient and the attempt."""
        digest = blake2b(b"%s\0%s\0%d" % (self._seed, recipient.encode(), attempt), digest_size=8).digest()
        return iter((int.from_bytes(digest[:4], "big") / _SPAN, int.from_bytes(digest[4:], "big") / _SPAN))
