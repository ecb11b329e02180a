"""Puts the clocks of this process ahead, as those of a machine whose time is not kept. Imports nothing of ours."""

import datetime as dt
import time

_time, _time_ns = time.time, time.time_ns


class _Datetime(dt.datetime):
    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Datetime":
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> "_Datetime":
        return cls.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)


def set_ahead(seconds: float) -> None:
    """Let `time` and `datetime` tell a time that is so far ahead; what was imported from them before is not changed."""
    if not seconds:
        return
    time.time = lambda: _time() + seconds
    time.time_ns = lambda: _time_ns() + int(seconds * 1_000_000_000)
    dt.datetime = _Datetime  # type: ignore[misc]  # what others import from now on
