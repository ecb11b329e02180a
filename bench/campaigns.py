"""Campaigns: how much of a limit is used and whether it is kept, sends per second without one, on both brokers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from bench import servers
from bench.campaign_process import LATENCY_MS, LIMITS, PROCESSES, THREADS
from bench.figure import Figure
from simulator.process import running_simulator

SECONDS, SECONDS_QUICK = 80, 8
SENDS, SENDS_QUICK = 40_000, 8_000


def run(quick: bool) -> Iterator[Figure]:  # noqa: FBT001  # the package's protocol
    """All figures of this bench."""
    seconds, sends = (SECONDS_QUICK, SENDS_QUICK) if quick else (SECONDS, SENDS)
    ceiling = _bare_loop(sends)
    yield Figure("bare_loop_per_s", ceiling, "sends/s", None, f"same client and one UPDATE per send, {_setting(sends)}")
    for kind in ("redis", "postgres"):
        result = _child("bench.campaign_process", kind, str(seconds), str(sends))
        for name, limit in result["limits"].items():
            of = f"{limit['sends']} sends by {PROCESSES} processes, by arrival at the simulator"
            yield Figure(f"limit_use_{name}_{kind}", limit["use"], "share", 0.99, of)
            yield Figure(f"limit_over_{name}_{kind}", limit["over"], "share", 1.0, of, is_most=True)
            at_most = limit["sends"] / LIMITS[name] + 2
            yield Figure(f"batch_s_{name}_{kind}", limit["seconds"], "s", at_most, f"{of}; NUM-04", is_most=True)
        free = result["unlimited"]
        rate = free["sends"] / free["seconds"]
        yield Figure(f"sends_per_s_{kind}", rate, "sends/s", 4_000, _setting(sends))
        cpu_us = 1e6 * free["cpu_s"] / free["sends"]
        yield Figure(f"send_cpu_us_{kind}", cpu_us, "us", 250, "CPU of the workers", is_most=True)
        yield Figure(f"sends_ceiling_ratio_{kind}", rate / ceiling, "x", 0.8, f"bare loop {ceiling:.0f}/s, same run")


def _setting(sends: int) -> str:
    return f"{sends} sends, {PROCESSES} x {THREADS} threads, provider {LATENCY_MS:.0f} ms, all on one machine"


def _bare_loop(sends: int) -> float:
    with (
        running_simulator(rate=0, pair_limit=False, latency_ms=LATENCY_MS) as simulator,
        servers.postgres() as url,
        servers.environment(
            DATABASE_URL=url,
            WHATSAPP_BASE_URL=simulator.whatsapp_base_url,
            WHATSAPP_TOKEN="bench-token",  # noqa: S106  # the simulator takes any
            DATABASE_POOL_SIZE=str(THREADS),
        ),
    ):
        return float(_child("bench.bare_loop", str(PROCESSES), str(THREADS), str(sends))["per_s"])


def _child(module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *arguments]
    result: dict[str, Any] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=servers.ROOT).stdout  # noqa: S603
    )
    return result
