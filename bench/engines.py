"""Engines: drain, enqueue, latency, fan-in, memory and idling of both, beside stock dramatiq and dramatiq-pg."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
from dramatiq_pg.schema import generate_init_sql

from bench import servers
from bench.figure import Figure

PROCESSES, THREADS = 2, 8


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Attributes:
        repetitions: Of each drain, of which the median counts.
        single: Messages enqueued one by one, of ours and stock.
        bulk: Messages enqueued in bulk, ours.
        single_pg: Messages of stock dramatiq-pg; with 12 000 it takes more locks than PostgreSQL has.
        fans: Groups of 10 000.
        answers: Messages of which the latency is taken.
        idle_s: Seconds for which an idle worker is watched.
        many: Messages that wait beside a claim.
    """

    repetitions: int
    single: int
    bulk: int
    single_pg: int
    fans: int
    answers: int
    idle_s: int
    many: int
    naps: int = 2_000
    few: int = 1_000
    claims: int = 30

    @property
    def all(self) -> int:
        """Messages of one drain."""
        return self.single + self.bulk


FULL = Size(3, 10_000, 40_000, 5_000, fans=3, answers=500, idle_s=20, many=1_000_000)
QUICK = Size(1, 3_000, 17_000, 1_500, fans=1, answers=100, idle_s=5, many=100_000)


def run(quick: bool) -> Iterator[Figure]:  # noqa: FBT001  # the package's protocol
    """All figures of this bench."""
    size = QUICK if quick else FULL
    for kind, goal in (("redis", 3.5), ("postgres", 17)):
        with _servers(kind) as stock:
            yield from _drains(kind, stock, size, goal)
            yield from _alone(kind, size)


@contextmanager
def _servers(kind: str) -> Iterator[dict[str, str]]:
    """A server in the settings; gives what the stock broker needs in their place."""
    if kind == "redis":
        with servers.valkey() as url, servers.environment(BROKER_URL=url):
            yield {}
        return
    with servers.postgres() as url, servers.environment(DATABASE_URL=url, BROKER_URL=""):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create database stock")
        stock = urlsplit(url)._replace(path="/stock").geturl()
        with psycopg.connect(stock) as connection:
            connection.execute(generate_init_sql())
        yield {"DATABASE_URL": stock}


def _drains(kind: str, stock: dict[str, str], size: Size, goal: float) -> Iterator[Figure]:
    """Ours and stock in turn."""
    ours, single, others = [], [], []
    for number in range(size.repetitions):
        with servers.environment(**stock):
            if kind == "redis":
                others.append(_child("drain", "stock_redis", PROCESSES, THREADS, size.all, 0, 0))
            else:
                others.append(_child("drain", "stock_pg", PROCESSES, THREADS, size.single_pg, 0, 0))
        fans = size.fans if number == 0 else 0
        ours.append(_child("drain", "ours", PROCESSES, THREADS, size.single, size.bulk, fans))
        single.append(_child("drain", "ours", PROCESSES, 1, 0, size.all, 0))
    yield from _drain_figures(kind, ours, single, others, f"median of {size.repetitions}", goal)


def _drain_figures(
    kind: str,
    ours: list[dict[str, Any]],
    one_thread: list[dict[str, Any]],
    others: list[dict[str, Any]],
    median: str,
    goal: float,
) -> Iterator[Figure]:
    drain, alone, stock = (_median(results, "drain_per_s") for results in (ours, one_thread, others))
    how = f"{ours[0]['messages']} no-op messages, {median}"
    of = f"ours {drain:.0f}/s, stock {stock:.0f}/s, {PROCESSES}x{THREADS} threads, {how}"
    of += f"; stock: {others[0]['messages']} messages"
    yield Figure(f"drain_ratio_{kind}", drain / stock, "x", goal, of)
    yield Figure(f"drain_per_s_{kind}", drain, "messages/s", None, f"{PROCESSES}x{THREADS} threads, {how}")
    of = f"{PROCESSES}x1 threads {alone:.0f}/s, {PROCESSES}x{THREADS} threads {drain:.0f}/s, {median}"
    yield Figure(f"drain_1thread_share_{kind}", alone / drain, "share", 0.8, of)
    stock_enqueue = _median(others, "enqueue_per_s")
    of = f"one thread, send() one by one; stock {stock_enqueue:.0f}/s; {median}"
    enqueue_goal = 20_000 if kind == "redis" else 15_000
    yield Figure(f"enqueue_per_s_{kind}", _median(ours, "enqueue_per_s"), "messages/s", enqueue_goal, of)
    of = f"one thread, enqueue_many() of 1000 messages made before; {median}"
    yield Figure(f"bulk_enqueue_per_s_{kind}", _median(ours + one_thread, "bulk_per_s"), "messages/s", 100_000, of)
    of = f"group of 10000 by {PROCESSES}x{THREADS} threads, from making its messages to the sum of its results"
    yield Figure(f"fan_in_10k_s_{kind}", ours[0]["fan_in_s"], "s", 1.0, of, is_most=True)
    rss = max(result["rss_mb"] for result in ours)
    yield Figure(f"worker_rss_mb_{kind}", rss, "MB", 100, f"largest process of these, {THREADS} threads", is_most=True)


def _alone(kind: str, size: Size) -> Iterator[Figure]:
    idle = _child("idle", "ours_with_many_queues", size.answers, size.idle_s)
    of = f"{size.answers} messages one at a time to an idle worker, from send() to the actor's first line"
    yield Figure(f"latency_p50_ms_{kind}", idle["p50_ms"], "ms", 2, of, is_most=True)
    yield Figure(f"latency_p99_ms_{kind}", idle["p99_ms"], "ms", 5, of, is_most=True)
    of = f"one worker process with 25 queues and 8 threads, over {size.idle_s} s"
    yield Figure(f"idle_commands_per_s_{kind}", idle["commands_per_s"], "1/s", 2, of, is_most=True)
    naps = _child("concurrency", "ours", PROCESSES, 100, size.naps)
    of = f"{size.naps} jobs of 50 ms on {PROCESSES}x100 threads: how many ran at once on average"
    yield Figure(f"concurrency_2x100_{kind}", naps["at_once"], "jobs", 170, of)
    store = _child("store", "ours", size.few, size.many, size.claims)
    ratio = store["many_ms"] / store["few_ms"]
    of = f"claim of 100: {store['many_ms']:.2f} ms with {size.many} waiting, {store['few_ms']:.2f} ms with {size.few}"
    yield Figure(f"claim_ms_at_1m_ratio_{kind}", ratio, "x", 1.5, of, is_most=True)
    if kind == "redis":
        of = f"used_memory of {size.few} no-op messages"
        yield Figure("redis_mb_per_1000", store["mb_per_1000"], "MB", 1, of, is_most=True)


def _median(results: list[dict[str, Any]], name: str) -> float:
    return statistics.median(float(result[name]) for result in results)


def _child(what: str, broker: str, *arguments: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.engine_process", what, broker, *map(str, arguments)]
    result: dict[str, Any] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=servers.ROOT).stdout  # noqa: S603
    )
    return result
