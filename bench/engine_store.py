"""What a store has to do and to keep: measured at the server, without workers."""

import statistics
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
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
RELOAD_S = 0.3
"""PostgreSQL's sessions have read a changed setting by then."""


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
    """Commands (Redis, those inside scripts apart) or statements (PostgreSQL) a second during `seconds`."""
    settings = get_settings()
    if settings.broker_kind == "redis":
        return _commands(settings.resolved_broker_url, seconds) / seconds
    return _statements(settings.database_url, seconds) / seconds


def _commands(url: str, seconds: int) -> int:
    """What clients send in `seconds`, as MONITOR shows it: a script is one command."""
    count = 0
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if monitor.connection.can_read(left):
                count += monitor.next_command()["client_type"] != "lua"
    return count


def _statements(url: str, seconds: int) -> int:
    """What clients send in `seconds`, as the server's log has it, which `db.embedded_server` puts beside its data."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("show data_directory").fetchone()
        log = Path(row[0] if row else "") / "log"
        connection.execute("alter system set log_statement = 'all'")
        connection.execute("select pg_reload_conf()")
        time.sleep(RELOAD_S)
        begins_at = log.stat().st_size
        time.sleep(seconds)
        said = log.read_bytes()[begins_at:]
        connection.execute("alter system reset log_statement")
        connection.execute("select pg_reload_conf()")
    return said.count(b"LOG:  statement:") + said.count(b"LOG:  execute ")
