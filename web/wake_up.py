"""Tells workers, from a thread of its own, that there is work: seldom enough, and never in the way of an answer."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from core.errors import FanfareError
from core.logging import get_logger

log = get_logger(__name__)

PAUSE = timedelta(milliseconds=50)
"""One message for all that was stored meanwhile."""
AGAIN = timedelta(seconds=5)
"""After the broker could not be told; meanwhile the sweep may tell it, too."""


class WakeUp:
    """Call it after each commit: `tell` runs some time after each call, once for all calls before it began.

    A key that drops repeated messages would not do: the message that it keeps may have looked before the commit.

    Args:
        tell: Sends the message; may raise FanfareError.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._wanted = threading.Event()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None

    def __call__(self) -> None:
        """Wants workers to be told; returns at once."""
        self._wanted.set()
        with self._mutex:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wake-up", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._wanted.wait():
            self._wanted.clear()
            try:
                self._tell()
                time.sleep(PAUSE.total_seconds())
            except FanfareError as error:
                log.warning("wake_up.failed", error=str(error), again_in_s=AGAIN.total_seconds())
                time.sleep(AGAIN.total_seconds())
                self._wanted.set()
