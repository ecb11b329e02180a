"""Whether the first store is there: learnt from calls that fail, and while it is away by asking every second."""

import threading
import time
from collections.abc import Callable

from core.errors import FanfareError, TransientError
from core.logging import get_logger

log = get_logger(__name__)

PROBE_EVERY_S = 1.0


class Circuit:
    """Open while the store is away; calls are spared then. One per process.

    Args:
        probe: Raises TransientError while the store is away.
        come_back: Called when it has returned, before calls go to it; raises TransientError when it is away again.
    """

    def __init__(self, probe: Callable[[], None], come_back: Callable[[], None]) -> None:
        self._probe = probe
        self._come_back = come_back
        self._lock = threading.Lock()
        self.is_open = False
        self.error = ""
        self.changed_at = float("-inf")
        """When it opened or closed, by `time.monotonic`."""

    @property
    def changed_s_ago(self) -> float:
        """Seconds since it opened or closed; infinite when it never did."""
        return time.monotonic() - self.changed_at

    def trip(self, error: TransientError) -> None:
        """A call failed: spare the store further ones until it answers."""
        with self._lock:
            if self.is_open:
                return
            self.is_open, self.error, self.changed_at = True, str(error), time.monotonic()
            threading.Thread(target=self._watch, name="fanfare-fallback", daemon=True).start()
        log.warning("fallback.entered", error=self.error)

    def _watch(self) -> None:
        while True:
            time.sleep(PROBE_EVERY_S)
            try:
                self._probe()
                self._come_back()
            except FanfareError as error:
                self.error = str(error)
                continue
            except Exception:
                log.exception("fallback.return_failed")
                continue
            away_s = self.changed_s_ago
            with self._lock:
                self.is_open, self.error, self.changed_at = False, "", time.monotonic()
            log.warning("fallback.left", away_s=round(away_s, 1))
            return
