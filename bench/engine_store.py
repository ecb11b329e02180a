"""What a store has to do and to keep: measured at the server, without workers."""

import statistics
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import dramatiq
import psycopg
import redis

from bench.engine_actors import QUEUE
from brokers.engine import ClaimRequest, Held
from core.settings import get_settings

if TYPE_CHECKING:
    from brokers.broker import EngineBroker

ROOM = 100
LEASE = timedelta(seconds=60)
XACTS = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
STATS_DELAY_S = 1.2
"""PostgreSQL's sessions report what they did at most once a second."""


def claims(count: int) -> float:
    """Milliseconds of a claim of `ROOM` messages, median of `count`; each is handed back."""
    engine = cast("EngineBroker", dramatiq.get_broker()).engine
    times = []
    for _ in range(count):
        request = ClaimRequest(str(uuid.uuid4()), {QUEUE: None}, ROOM, LEASE)
        began = time.perf_counter()
        claimed = engine.claim(request)
        times.append(1e3 * (time.perf_counter() - began))
        if len(claimed) != ROOM:
            raise AssertionError(f"{len(claimed)} messages were claimed instead of {ROOM}")
        engine.release_many([Held(c.message_id, c.queue, c.token) for c in claimed])
    return statistics.median(times)


def megabytes_per_1000(store: Callable[[], float | None]) -> float | None:
    """Megabytes of memory that 1000 messages take in Redis, of those that `store` stores; None for PostgreSQL."""
    if get_settings().broker_kind != "redis":
        store()
        return None
    with redis.Redis.from_url(get_settings().resolved_broker_url) as client:
        before = client.info("memory")["used_memory"]
        store()
        added = float(client.info("memory")["used_memory"] - before)
        engine = cast("EngineBroker", dramatiq.get_broker()).engine
        return added / 1e6 / (engine.depths([QUEUE])[0].waiting / 1000)


def per_second(seconds: int) -> float:
    """Commands (Redis, those inside scripts apart) or transactions (PostgreSQL) a second during `seconds`."""
    settings = get_settings()
    if settings.broker_kind == "redis":
        return _commands(settings.resolved_broker_url, seconds) / seconds
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        before = _transactions(connection)
        time.sleep(seconds)
        return (_transactions(connection) - before - 1) / seconds


def _commands(url: str, seconds: int) -> int:
    """What clients send in `seconds`, as MONITOR shows it: a script is one command."""
    count = 0
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if monitor.connection.can_read(left):
                count += monitor.next_command()["client_type"] != "lua"
    return count


def _transactions(connection: "psycopg.Connection[tuple[int]]") -> int:
    time.sleep(STATS_DELAY_S)
    row = connection.execute(XACTS).fetchone()
    return row[0] if row else 0
