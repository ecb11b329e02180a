"""Hears from workers the moment a run begins."""

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.engine_actors import ANSWERS, MOMENT

WITHIN_S = 60.0
IDLE_S = (0.004, 0.016)
"""Pauses between messages, at random so that no rhythm of the worker is hit; a consumer waits again after less."""


class Answers:
    """The socket to which the actors `answer` and `gather` tell when they began."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ANSWERS
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(WITHIN_S)
        self._random = random.Random(0)  # noqa: S311  # spreads moments

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._socket.bind(str(self._path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no more."""
        self._socket.close()
        self._path.unlink()

    def next(self) -> float:
        """The moment of the next run's begin."""
        moment: float = MOMENT.unpack(self._socket.recv(MOMENT.size))[0]
        return moment

    def latency_ms(self, send: Callable[[], None]) -> float:
        """Milliseconds from the call of `send`, which sends one message, to the begin of its run."""
        time.sleep(self._random.uniform(*IDLE_S))
        sent = time.monotonic()
        send()
        return 1e3 * (self.next() - sent)
