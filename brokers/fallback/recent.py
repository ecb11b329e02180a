"""What this process was given lately."""

import time
from collections import deque
from collections.abc import Sequence

from brokers.engine import Claim

KEPT_S = 10.0
"""Longer than a send takes to fail."""
MAX_IDS = 50_000


class Recent:
    """Ids of messages claimed in the last `KEPT_S` before the newest claim; bounded."""

    def __init__(self) -> None:
        self._batches: deque[tuple[float, list[str]]] = deque()
        self._count = 0

    def add(self, claims: Sequence[Claim]) -> None:
        """Remember a claim's messages."""
        now = time.monotonic()
        self._batches.append((now, [claim.message_id for claim in claims]))
        self._count += len(claims)
        while self._batches[0][0] < now - KEPT_S or (self._count > MAX_IDS and len(self._batches) > 1):
            self._count -= len(self._batches.popleft()[1])

    def ids(self) -> list[str]:
        """All of them."""
        return [message_id for _, batch in list(self._batches) for message_id in batch]
