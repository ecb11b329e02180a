"""Campaigns on one broker, in a process of its own: `python -m bench.campaign_process KIND SECONDS SENDS`.

Starts the simulator and worker processes, runs a campaign at each limit and one without, and prints what the
simulator's log and the processor's clock say, as one JSON object. KIND is postgres or redis.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from bench import servers
from cli.processes import Processes
from core.clock import uuid7
from db import campaigns, pool
from db.campaigns import Audience, NewCampaign
from simulator.ledger import Arrival, worst_window
from simulator.process import RunningSimulator, running_simulator

LATENCY_MS = 50.0
PROCESSES, THREADS = 2, 100
LIMITS = {"12_5": 12.5, "80": 80.0}
WINDOWS = {"12_5": timedelta(seconds=2), "80": timedelta(seconds=1)}
"""In one second 12.5 cannot be counted."""
END_WITHIN_S = 300


def main() -> None:
    """Measure and print."""
    kind, seconds, sends = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with product(kind) as (simulator, workers):
        result = {"limits": limited(simulator, seconds), "unlimited": unlimited(simulator, workers, sends)}
    sys.stdout.write(json.dumps(result))


@contextmanager
def product(kind: str) -> Iterator[tuple[RunningSimulator, "Workers"]]:
    """The database, the broker, the simulator and the workers."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fanfare-bench-")))
        simulator = stack.enter_context(running_simulator(rate=0, pair_limit=False, latency_ms=LATENCY_MS))
        variables = {
            "DATABASE_URL": stack.enter_context(servers.postgres()),
            "BROKER_URL": stack.enter_context(servers.valkey()) if kind == "redis" else "",
            "WHATSAPP_BASE_URL": simulator.whatsapp_base_url,
            "WHATSAPP_TOKEN": "bench-token",
            "DATA_DIR": str(folder),
            "LOG_LEVEL": "WARNING",
        }
        stack.enter_context(servers.environment(**variables))
        processes = stack.enter_context(Processes(servers.ROOT, folder / "logs", variables))
        yield simulator, Workers(processes)


class Workers:
    """The worker processes, which can be asked for their CPU time."""

    def __init__(self, processes: Processes) -> None:
        command = f"dramatiq actors --processes {PROCESSES} --threads {THREADS}"
        self.pid = processes.start("worker", command)

    def cpu_s(self) -> float:
        """CPU seconds that they used so far."""
        return servers.cpu_s([self.pid])


def limited(simulator: RunningSimulator, seconds: int) -> dict[str, dict[str, float]]:
    """A campaign at each limit, side by side on numbers of their own."""
    _warm_up()
    running = {name: _start(name, rate, recipients=math.ceil(rate * seconds)) for name, rate in LIMITS.items()}
    for campaign_id in running.values():
        _wait(campaign_id)
    used = {name: _use(simulator.arrivals(), name, rate) for name, rate in LIMITS.items()}
    return {name: use | {"seconds": _took_s(running[name])} for name, use in used.items()}


def _took_s(campaign_id: UUID) -> float:
    progress = campaigns.progress(campaign_id)
    if progress.started_at is None or progress.finished_at is None:
        raise AssertionError(f"{progress} is not finished")
    return (progress.finished_at - progress.started_at).total_seconds()


def _use(arrivals: list[Arrival], number: str, rate: float) -> dict[str, float]:
    times = sorted(arrival.mono_ns for arrival in arrivals if arrival.number == number)
    window = WINDOWS[number]
    return {
        "sends": len(times),
        "use": (len(times) - 1) / ((times[-1] - times[0]) / 1e9) / rate,
        "over": worst_window(times, window) / (rate * window.total_seconds()),
    }


def unlimited(simulator: RunningSimulator, workers: Workers, sends: int) -> dict[str, float]:
    """A campaign without a limit."""
    before = workers.cpu_s()
    began = time.monotonic()
    campaign_id = _start("free", None, recipients=sends)
    _wait(campaign_id)
    seconds = time.monotonic() - began
    counts = campaigns.progress(campaign_id).counts
    accepted = sum(arrival.number == "free" and arrival.accepted for arrival in simulator.arrivals())
    if not counts.sent == accepted == sends:
        raise AssertionError(f"{counts.sent} recorded and {accepted} accepted of {sends} sends")
    return {"sends": sends, "seconds": seconds, "cpu_s": workers.cpu_s() - before}


def _warm_up() -> None:
    """A short campaign, so that every process has started and has its connections."""
    _wait(_start("warm", None, recipients=PROCESSES * THREADS * 3))


def _start(number: str, rate: float | None, recipients: int) -> UUID:
    from pipelines import campaign  # noqa: PLC0415  # composes the process, for the environment that is set by now

    organization_id, sender_id = uuid7(), uuid7()
    with pool.transaction() as connection:
        connection.execute("insert into organizations (id, name) values (%s, 'bench')", [organization_id])
        connection.execute(
            "insert into senders (id, organization_id, provider_id, rate) values (%s, %s, %s, %s)",
            [sender_id, organization_id, number, rate],
        )
        connection.execute(
            """
            insert into contacts (id, organization_id, phone, name)
            select gen_random_uuid(), %s, '+1202' || lpad(n::text, 7, '0'), 'Ada ' || n from generate_series(1, %s) as n
            """,
            [organization_id, recipients],
        )
    return campaign.start(
        NewCampaign(
            organization_id=organization_id,
            sender_id=sender_id,
            name=number,
            content={"kind": "text", "body": "Hello {{name}}"},
            variables=["name"],
            defaults={},
            audience=Audience(),
            max_in_flight=2000,
        )
    )


def _wait(campaign_id: UUID) -> None:
    deadline = time.monotonic() + END_WITHIN_S
    while campaigns.progress(campaign_id).finished_at is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{campaigns.progress(campaign_id)} after {END_WITHIN_S} s")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
