"""When a system does nothing more by itself: the only way to see that something does not happen."""

import time
from collections.abc import Callable

TIMEOUT_S = 15


def settle(state: Callable[[], object], seconds: float = 0.7) -> None:
    """Wait until `state()` has not changed for so long."""
    seen, since = state(), time.monotonic()
    deadline = since + TIMEOUT_S
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, "it does not come to rest"
        time.sleep(0.05)
        if (now := state()) != seen:
            seen, since = now, time.monotonic()
