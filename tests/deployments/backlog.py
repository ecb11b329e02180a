"""What a backlog costs: `python -m tests.deployments.backlog 1000000` stores so many messages in each engine and prints
the figures of docs/scaling.md, on servers of its own.

A claim must cost the same however many messages wait, a worker must hold no more of them, and an urgent one must be
first.
"""

import sys
import time
import uuid
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import redis

from brokers.engine import ClaimRequest, Engine, Held
from brokers.postgres.engine import PostgresEngine
from brokers.redis.engine import RedisEngine
from core.errors import FanfareError
from tests.conformance.servers import running
from tests.deployments.workers import note

BATCH = 5000
ROOM = 100
LEASE = timedelta(seconds=60)
SMALL = 1000
ANALYZE = "vacuum analyze dramatiq.queue"


def store(engine: Engine, count: int) -> None:
    """Put so many messages into the queue q0, with the priorities 2 to 4 in turn."""
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        engine.enqueue_many([note(str(number), priority=2 + number % 3) for number in numbers])


def claim_ms(engine: Engine, claims: int = 40) -> float:
    """Milliseconds of a claim of `ROOM` messages, the fastest of `claims`: others use the machine, too."""
    times = []
    for _ in range(claims):
        request = ClaimRequest(str(uuid.uuid4()), {"q0": None}, ROOM, LEASE)
        began = time.perf_counter()
        claimed = engine.claim(request)
        times.append(1e3 * (time.perf_counter() - began))
        if len(claimed) != ROOM or {one.priority for one in claimed} != {2}:
            raise FanfareError("a claim did not return the messages of the highest priority")
        engine.release_many([Held(one.message_id, one.queue, one.token) for one in claimed])
    return min(times)


def urgent_is_first(engine: Engine) -> bool:
    """Whether a message of the highest priority is claimed before the backlog; it is ended."""
    urgent = note("urgent", priority=1)
    engine.enqueue_many([urgent])
    (claimed,) = engine.claim(ClaimRequest(str(uuid.uuid4()), {"q0": None}, 1, LEASE))
    engine.release_many([Held(claimed.message_id, claimed.queue, claimed.token)])
    engine.cancel([urgent.message_id])
    return claimed.message_id == urgent.message_id


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one engine: claims with a small and a large backlog in ms, and the store's bytes for each message."""

    small_ms: float
    large_ms: float
    bytes_each: float
    stored_per_s: float


def cost(kind: str, url: str, count: int) -> Cost:
    """Measure the engine of `kind` on the empty store at `url`; leaves the backlog there."""
    engine = engine_of(kind, url)
    try:
        store(engine, SMALL)
        settle(kind, url)
        small_ms, before = claim_ms(engine), size(kind, url)
        began = time.perf_counter()
        store(engine, count - SMALL)
        took = time.perf_counter() - began
        settle(kind, url)
        large_ms, after = claim_ms(engine), size(kind, url)
        if not urgent_is_first(engine):
            raise FanfareError("an urgent message was not first")
    finally:
        engine.close()
    return Cost(small_ms, large_ms, (after - before) / (count - SMALL), (count - SMALL) / took)


def engine_of(kind: str, url: str) -> Engine:
    """A new engine on the store."""
    return PostgresEngine(url) if kind == "postgres" else RedisEngine(url)


def settle(kind: str, url: str) -> None:
    """What autovacuum does within its nap time, so that it does not fall into a measurement."""
    if kind == "postgres":
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(ANALYZE)


def size(kind: str, url: str) -> int:
    """Bytes that the store holds: PostgreSQL's on disk, Redis's in memory."""
    if kind != "postgres":
        with redis.Redis.from_url(url) as client:
            return int(client.info("memory")["used_memory"])
    with psycopg.connect(url) as connection:
        row = connection.execute("select pg_total_relation_size('dramatiq.queue')").fetchone()
    return int(row[0]) if row else 0


def main(count: int) -> None:
    """Print the figures of each engine."""
    for kind in ("postgres", "redis7"):
        with running(kind) as server:
            found = cost(kind, server.url, count)
        print(  # noqa: T201 - its output
            f"{kind}: claim of {ROOM} {found.small_ms:.1f} ms with {SMALL:,} waiting, {found.large_ms:.1f} ms with "
            f"{count:,}; {found.bytes_each:,.0f} bytes a message; {found.stored_per_s:,.0f} stored a second"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
