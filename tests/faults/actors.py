"""The actors that fault tests run, in this process or in others; what they did stands in the effects."""

import ctypes
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from tests.faults.effects import Effects

QUEUE = "q"
POLL_S = 0.02


def declare(broker: Any, effects: Effects, queue: str = QUEUE) -> tuple[Any, Any]:
    """The actors `work(name, plan)` and `follow(name)` on `broker`.

    `work` notes `run name pid` and, when it comes so far, `end name run`, where run counts the runs of this name so
    far. Its plan may say, in this order:
        slot: key of a concurrency limiter of two slots that is held meanwhile (stock's own)
        wait_for: path of a file to wait for, on the first run only
        again_waits_for: the same, on the later runs
        sleep: seconds
        hold_gil: seconds without giving up the interpreter's lock, on the first run only
        fail: how many of the first runs raise
        die: the first run ends its process
        tell: the run's number is its result
    """

    def work(name: str, plan: Mapping[str, Any]) -> int | None:
        run = effects.count("run")[name] + 1
        effects.add("run", name, os.getpid())
        if "slot" in plan:
            client = broker.client
            limiter = ConcurrentRateLimiter(RedisBackend(client=client), plan["slot"], limit=2, ttl=plan["ttl_ms"])
            with limiter.acquire():
                _behave(plan, run)
        else:
            _behave(plan, run)
        effects.add("end", name, run)
        return run if plan.get("tell") else None

    def follow(name: str, *results: object) -> None:
        effects.add("follow", name, *results)

    options = {"broker": broker, "queue_name": queue}
    return (
        dramatiq.actor(work, actor_name="work", max_retries=5, min_backoff=50, max_backoff=50, **options),
        dramatiq.actor(follow, actor_name="follow", max_retries=5, min_backoff=50, **options),
    )


def _behave(plan: Mapping[str, Any], run: int) -> None:
    gate = plan.get("wait_for" if run == 1 else "again_waits_for")
    while gate and not Path(gate).exists():
        time.sleep(POLL_S)
    time.sleep(plan.get("sleep", 0))
    if run == 1 and "hold_gil" in plan:
        # Called through PyDLL, sleep keeps the lock, as a long regular expression or a C extension does.
        ctypes.PyDLL(None).usleep(int(plan["hold_gil"] * 1_000_000))
    if run <= plan.get("fail", 0):
        raise RuntimeError("planned")
    if run == 1 and plan.get("die"):
        os._exit(9)
