"""A worker process of a fault test: `python -m tests.faults.worker '{"kind": …, "url": …, "effects": …}'`.

Options: `lease` in seconds; `threads`; `stock`, options of the stock Redis broker; `clock`, seconds by which this
process's clock is ahead; `die_before`, what it dies before: `run`, when it has claimed something, a method of
the engine, or a signal of the stock broker.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.faults import wrong_clock

CONFIG: dict[str, Any] = json.loads(sys.argv[1])
# Before anything that may keep a reference to a clock is imported.
wrong_clock.set_ahead(CONFIG.get("clock", 0))

from dramatiq import Worker  # noqa: E402 - after the clock
from dramatiq.middleware import Middleware  # noqa: E402

from brokers import leases  # noqa: E402
from brokers.engine import Claim, ClaimRequest  # noqa: E402
from tests.faults.actors import declare  # noqa: E402
from tests.faults.effects import Effects  # noqa: E402
from tests.faults.systems import OURS, make_broker  # noqa: E402

OFTEN = timedelta(milliseconds=200)
"""Leases are renewed and taken back so often, more than by default, so that tests can have short ones."""


class DieBefore(Middleware):
    """Ends the process before the stock broker does what `signal` announces."""

    def __init__(self, signal: str) -> None:
        setattr(self, f"before_{signal}", lambda *_: os._exit(9))


def die_when_claimed(claim: Callable[[ClaimRequest], list[Claim]]) -> Callable[[ClaimRequest], list[Claim]]:
    def claim_and_die(request: ClaimRequest) -> list[Claim]:
        return os._exit(9) if claim(request) else []

    return claim_and_die


def main() -> None:
    leases.HEARTBEAT_EVERY = leases.REAP_EVERY = OFTEN
    lease = timedelta(seconds=CONFIG.get("lease", 3))
    broker: Any = make_broker(CONFIG["kind"], CONFIG["url"], lease=lease, **CONFIG.get("stock", {}))
    step = CONFIG.get("die_before")
    if step == "run":
        broker.engine.claim = die_when_claimed(broker.engine.claim)
    elif step and CONFIG["kind"] in OURS:
        setattr(broker.engine, step, lambda *_args, **_options: os._exit(9))
    elif step:
        broker.add_middleware(DieBefore(step))
    effects = Effects(Path(CONFIG["effects"]))
    declare(broker, effects)
    Worker(broker, worker_timeout=100, worker_threads=CONFIG.get("threads", 2)).start()
    effects.add("started", os.getpid())
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
