"""A worker process of a fault test: `python -m tests.faults.worker '{"kind": …, "url": …, "effects": …}'`.

Options: `lease` in seconds; `threads`; `stock`, options of the stock Redis broker; `clock`, seconds by which this
process's clock is ahead; `die_before`, the engine's method or the stock signal before which it dies.
"""

import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

config = json.loads(sys.argv[1])

AHEAD_S = config.get("clock", 0)
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


class _Datetime(_datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_Datetime":
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> "_Datetime":
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


if AHEAD_S:
    # Before anything else is imported, so that everyone who reads a clock reads this one.
    time.time = lambda: _time() + AHEAD_S
    time.time_ns = lambda: _time_ns() + AHEAD_S * 1_000_000_000
    datetime.datetime = _Datetime  # type: ignore[misc]

from dramatiq import Worker  # noqa: E402 - after the clock
from dramatiq.middleware import Middleware  # noqa: E402

from tests.faults.actors import declare  # noqa: E402
from tests.faults.effects import Effects  # noqa: E402
from tests.faults.systems import OURS, make_broker  # noqa: E402


class DieBefore(Middleware):
    """Ends the process before the stock broker does what `signal` announces."""

    def __init__(self, signal: str) -> None:
        setattr(self, f"before_{signal}", lambda *_: os._exit(9))


def die_before(engine: Any, method: str) -> None:
    setattr(engine, method, lambda *_args, **_options: os._exit(9))


def main() -> None:
    lease = datetime.timedelta(seconds=config.get("lease", 3))
    broker = make_broker(config["kind"], config["url"], lease=lease, **config.get("stock", {}))
    if "die_before" in config:
        if config["kind"] in OURS:
            die_before(broker.engine, config["die_before"])  # type: ignore[attr-defined]
        else:
            broker.add_middleware(DieBefore(config["die_before"]))
    effects = Effects(Path(config["effects"]))
    declare(broker, effects)
    Worker(broker, worker_timeout=100, worker_threads=config.get("threads", 2)).start()
    effects.add("started", os.getpid())
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
