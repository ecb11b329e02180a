"""One measurement of one broker, in a process of its own: `python -m bench.engine_process WHAT BROKER ARGUMENTS…`.

BROKER names a function of `bench.engine_actors`; the servers are those of the environment. Prints one JSON object.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import dramatiq

from bench import engine_actors, servers
from bench.engine_answers import Answers
from bench.engine_store import claims, megabytes_per_1000, per_second
from brokers.fan_out import fan_out, results_of
from cli.processes import Processes, shell_words

END_WITHIN = timedelta(seconds=300)
BULK = 1_000
MEMBERS = 10_000
FIRST = 20
"""Messages before the latency is taken: the first ones meet a worker that starts and servers that plan."""
SETTLE_S = 2.0
"""After this an idle worker does only what it always does."""


def main() -> None:
    """Measure and print."""
    what, broker, *arguments = sys.argv[1:]
    measure: dict[str, Callable[..., dict[str, Any]]] = {
        "drain": drain,
        "idle": idle,
        "concurrency": concurrency,
        "store": store,
    }
    with tempfile.TemporaryDirectory(prefix="fanfare-bench-") as folder, servers.environment(DATA_DIR=folder):
        (Path(folder) / engine_actors.REPORTS).mkdir()
        getattr(engine_actors, broker)()
        result = measure[what](Path(folder), broker, *map(int, arguments))
    sys.stdout.write(json.dumps(result))


def drain(folder: Path, broker: str, processes: int, threads: int, single: int, bulk: int, fans: int) -> dict[str, Any]:
    """Enqueue one by one and in bulk, then start workers, who run all of it; then groups by the same workers."""
    result = {"enqueue_per_s": _enqueue(single), "bulk_per_s": _enqueue_many(bulk), "fan_in_s": None}
    with workers(folder, broker, processes, threads) as wait_for:
        facts = wait_for(single + bulk)
        if fans:
            with Answers(folder) as answers:
                result["fan_in_s"] = statistics.median(_fan_in(folder, answers) for _ in range(fans))
    return result | {
        "messages": single + bulk,
        "drain_per_s": (single + bulk) / _seconds(facts),
        "rss_mb": max(f["rss_mb"] for f in facts),
    }


def idle(folder: Path, broker: str, messages: int, seconds: int) -> dict[str, Any]:
    """What an idle worker asks of its server, and how soon it begins a message."""

    def latency_ms() -> float:
        return answers.latency_ms(lambda: _send("answer", str(folder)))

    with workers(folder, broker, 1, 8), Answers(folder) as answers:
        latency_ms()
        time.sleep(SETTLE_S)
        commands = per_second(seconds)
        latencies = [latency_ms() for _ in range(FIRST + messages)][FIRST:]
    percentiles = statistics.quantiles(latencies, n=100, method="inclusive")
    return {"p50_ms": percentiles[49], "p99_ms": percentiles[98], "commands_per_s": commands}


def concurrency(folder: Path, broker: str, processes: int, threads: int, jobs: int) -> dict[str, Any]:
    """How many naps there were at once, on average from the first to the last."""
    _enqueue_many(jobs, "nap")
    with workers(folder, broker, processes, threads) as wait_for:
        facts = wait_for(2 * jobs)
    return {"at_once": jobs * engine_actors.NAP_S / _seconds(facts)}


def store(_: Path, __: str, few: int, many: int, claimed: int) -> dict[str, Any]:
    """Memory of the store per 1000 messages, and the time of a claim beside few and beside many messages."""
    megabytes = megabytes_per_1000(lambda: _enqueue_many(few))
    beside_few = claims(claimed)
    _enqueue_many(many - few)
    return {"mb_per_1000": megabytes, "few_ms": beside_few, "many_ms": claims(claimed)}


@contextmanager
def workers(folder: Path, broker: str, processes: int, threads: int) -> Iterator[Callable[[int], list[dict[str, Any]]]]:
    """Runs dramatiq's command line; gives a function that waits for so many notes and returns what processes report."""
    command = shell_words("dramatiq", f"bench.engine_actors:{broker}", "--processes", processes, "--threads", threads)
    with Processes(servers.ROOT, folder / "logs", {"DATA_DIR": str(folder), "LOG_LEVEL": "WARNING"}) as running:
        running.start("worker", command)

        def wait_for(notes: int) -> list[dict[str, Any]]:
            running.wait_until(lambda: _noted(folder) >= notes, f"{notes} notes were not there", within=END_WITHIN)
            return _reports(folder)

        yield wait_for


def _reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in (folder / engine_actors.REPORTS).glob("*.json")]


def _noted(folder: Path) -> int:
    return sum(report["count"] for report in _reports(folder))


def _seconds(facts: list[dict[str, Any]]) -> float:
    return float(max(fact["last"] for fact in facts) - min(fact["first"] for fact in facts))


def _send(actor: str, *arguments: object) -> None:
    dramatiq.get_broker().get_actor(actor).send(*arguments)


def _enqueue(count: int) -> float | None:
    """Messages a second that one thread sends one by one."""
    if not count:
        return None
    began = time.monotonic()
    for _ in range(count):
        _send("nothing")
    return count / (time.monotonic() - began)


def _enqueue_many(count: int, actor: str = "nothing") -> float | None:
    """Messages a second that one thread stores by calls of `BULK`; they are made before."""
    if not count:
        return None
    broker: Any = dramatiq.get_broker()
    messages = [broker.get_actor(actor).message() for _ in range(count)]
    began = time.monotonic()
    for start in range(0, count, BULK):
        broker.enqueue_many(messages[start : start + BULK])
    return count / (time.monotonic() - began)


def _fan_in(folder: Path, answers: Answers) -> float:
    """Seconds from the first member made to the sum of the results of all, after the group's callback ran."""
    broker: Any = dramatiq.get_broker()
    number = broker.get_actor("number")
    began = time.monotonic()
    group = dramatiq.group([number.message(value) for value in range(MEMBERS)])
    group.add_completion_callback(broker.get_actor("gather").message(str(folder)))
    fan_out(group)
    answers.next()
    total = sum(results_of(group))
    seconds = time.monotonic() - began
    if total != sum(range(MEMBERS)):
        raise AssertionError(f"the results of the group sum up to {total}")
    return seconds


if __name__ == "__main__":
    main()
