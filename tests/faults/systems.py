"""The four systems under test: our two engines, and the stock brokers that they replace, each on a real server."""

from datetime import timedelta
from typing import Any

import dramatiq_pg
import psycopg
import redis
from dramatiq.broker import Broker
from dramatiq.brokers import redis as stock_redis
from dramatiq.middleware import AgeLimit, Callbacks, CurrentMessage, GroupCallbacks, Middleware, Pipelines, Retries
from dramatiq.rate_limits.backends import RedisBackend
from dramatiq_pg.schema import generate_init_sql
from periodiq import PeriodiqMiddleware
from redis.connection import parse_url

from brokers.broker import EngineBroker
from brokers.postgres.broker import PostgresBroker
from brokers.postgres.engine import PostgresEngine
from brokers.redis.broker import RedisBroker
from brokers.redis.engine import RedisEngine

OURS = ("postgres", "redis")
LEASE = timedelta(seconds=3)

STOCK_UNFINISHED = "select count(*) from dramatiq.queue where state in ('queued', 'consumed') and queue_name = any(%s)"
FAST_RECOVERY = {"maintenance_chance": 1_000_000, "heartbeat_timeout": 1000}
"""Options of the stock Redis broker that recover a lost worker's messages in a second, not in minutes (TRAPS 8)."""


def make_broker(
    kind: str, url: str, *, lease: timedelta = LEASE, answer_timeout_s: float = 5.0, **stock_options: Any
) -> Broker:
    """A broker of `kind` on the server at `url`; `stock_options` are for the stock Redis broker alone.

    `answer_timeout_s` is for our Redis engine.
    """
    if kind == "postgres":
        return PostgresBroker(engine=PostgresEngine(url), lease=lease, url=url)
    if kind == "redis":
        return RedisBroker(engine=RedisEngine(url, answer_timeout_s=answer_timeout_s), lease=lease, url=url)
    if kind == "stock-pg":
        broker = dramatiq_pg.PostgresBroker(url=url, middleware=stock_middleware())
        assert isinstance(broker, Broker)
        return broker
    # By host and port, as redis-py's own defaults apply then; among them, to repeat a command by itself.
    where = parse_url(url)
    where["unix_socket_path"] = where.pop("path", None)
    where.pop("connection_class", None)
    options = {"maintenance_chance": 0} | stock_options
    broker = stock_redis.RedisBroker(middleware=stock_middleware(), **where, **options)
    broker.add_middleware(GroupCallbacks(RedisBackend(client=broker.client)))
    return broker


def stock_middleware() -> list[Middleware]:
    """As dramatiq's documentation combines them, with periodiq's."""
    return [AgeLimit(), Callbacks(), Pipelines(), Retries(), PeriodiqMiddleware(), CurrentMessage()]


def make_stock_schema(url: str) -> None:
    """Create the table of dramatiq-pg in an empty database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(generate_init_sql())


def unfinished(broker: Broker, url: str, queue: str) -> int:
    """Messages of `queue` in the store at `url` that wait, are delayed or run."""
    if isinstance(broker, EngineBroker):
        depths = broker.engine.depths([queue])
        return sum(depth.waiting + depth.delayed + depth.leased for depth in depths)
    names = [queue, f"{queue}.DQ"]
    if isinstance(broker, stock_redis.RedisBroker):
        with redis.Redis.from_url(url) as client:
            return sum(int(client.hlen(f"dramatiq:{name}.msgs")) for name in names)
    with psycopg.connect(url) as connection:
        row = connection.execute(STOCK_UNFINISHED, [names]).fetchone()
    return int(row[0]) if row else 0
