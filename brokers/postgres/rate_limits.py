"""dramatiq's own rate limiters and barriers on PostgreSQL, which dramatiq-pg lacks. Every call is one atomic step."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256

from dramatiq.rate_limits import RateLimiterBackend
from psycopg import sql

from brokers.postgres.connections import Connection, Connections
from db.connection import connection_errors

ADD = """
    insert into dramatiq.counter as c values (%(key)s, %(amount)s, now() + %(ttl)s * interval '1 ms')
    on conflict (key) do update set value = excluded.value, expires_at = excluded.expires_at where c.expires_at <= now()
"""
CHANGE = """
    insert into dramatiq.counter as c
    select %(key)s, %(amount)s, now() + %(ttl)s * interval '1 ms'
    where %(amount)s between %(least)s and %(most)s or exists (select from dramatiq.counter where key = %(key)s)
    on conflict (key) do update
    set value = excluded.value + case when c.expires_at > now() then c.value else 0 end,
        expires_at = excluded.expires_at
    where excluded.value + case when c.expires_at > now() then c.value else 0 end between %(least)s and %(most)s
"""
LOCK = "select pg_advisory_xact_lock(hashtextextended('dramatiq.counter ' || %s, 0))"
SUM = "select coalesce(sum(value), 0)::bigint from dramatiq.counter where key = any(%s::text[]) and expires_at > now()"
IS_SET = "select exists (select from dramatiq.counter where key = %s and expires_at > now())"
NOTIFY = "select pg_notify(%s, '')"

LARGEST = 2**62
LISTEN_S = 60.0
"""A waiting thread looks again after so long, whatever it heard."""
POLL_S = 0.2
"""How often a waiting thread looks behind a transaction pooler, where nothing can be listened to."""


class PostgresRateLimiterBackend(RateLimiterBackend):
    """For `ConcurrentRateLimiter`, `BucketRateLimiter`, `WindowRateLimiter` and `Barrier`.

    Keys end by the database's clock.

    Args:
        url: The database, migrated.
        transaction_pooling: As for `PostgresEngine`.
    """

    def __init__(self, url: str, *, transaction_pooling: bool = False) -> None:
        self._connections = Connections(url, transaction_pooling=transaction_pooling)

    def add(self, key: str, value: int, ttl: int) -> bool:
        """Set `key` unless it exists; it lives for `ttl` milliseconds. Returns whether it was set."""
        return self._changed(ADD, key, value, ttl)

    def incr(self, key: str, amount: int, maximum: int, ttl: int) -> bool:
        """Add `amount` to `key` unless it would pass `maximum`. Returns whether it did."""
        return self._changed(CHANGE, key, amount, ttl, least=-LARGEST, most=maximum)

    def decr(self, key: str, amount: int, minimum: int, ttl: int) -> bool:
        """Subtract `amount` from `key` unless it would fall below `minimum`. Returns whether it did."""
        return self._changed(CHANGE, key, -amount, ttl, least=minimum, most=LARGEST)

    def incr_and_sum(
        self, key: str, keys: Callable[[], Sequence[str]] | Sequence[str], amount: int, maximum: int, ttl: int
    ) -> bool:
        """Add `amount` to `key` unless the sum of `keys` would pass `maximum`. Returns whether it did."""

        def step(connection: Connection) -> bool:
            with connection.transaction():
                # All keys of one limiter begin with its name: its callers stand in line.
                connection.execute(LOCK, (key.rpartition("@")[0],))
                names = list(keys() if callable(keys) else keys)
                row = connection.execute(SUM, (names,)).fetchone()
                if row is None or row[0] + amount > maximum:
                    return False
                return _change(connection, CHANGE, key, amount, ttl, least=-LARGEST, most=maximum)

        return self._connections.run(step)

    def wait(self, key: str, timeout: int | None) -> bool:
        """Block until `wait_notify` was called for `key`; False after `timeout` milliseconds without it.

        Raises:
            TransientError: the database cannot be reached or was lost.
        """
        deadline = time.monotonic() + (threading.TIMEOUT_MAX if timeout is None else timeout / 1000)
        with connection_errors(self._connections.url), closing(self._connections.open()) as connection:
            listens = not self._connections.transaction_pooling
            if listens:
                connection.execute(sql.SQL("listen {}").format(sql.Identifier(_channel(key))))
            # Looks after it began to listen, so that nothing falls in between.
            while not _is_set(connection, key):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if listens:
                    list(connection.notifies(timeout=min(left, LISTEN_S), stop_after=1))
                else:
                    time.sleep(min(left, POLL_S))
            return True

    def wait_notify(self, key: str, ttl: int) -> None:
        """End all waits for `key`, and those that begin within `ttl` milliseconds."""
        self._changed(ADD, key, 1, ttl)
        self._connections.run(lambda connection: connection.execute(NOTIFY, (_channel(key),)))

    def close(self) -> None:
        """Close this process's connections; the backend opens new ones when it is used again."""
        self._connections.close()

    def _changed(self, statement: str, key: str, amount: int, ttl: int, *, least: int = 0, most: int = 0) -> bool:
        return self._connections.run(lambda c: _change(c, statement, key, amount, ttl, least=least, most=most))


def _change(connection: Connection, statement: str, key: str, amount: int, ttl: int, *, least: int, most: int) -> bool:
    arguments = {"key": key, "amount": amount, "ttl": ttl, "least": least, "most": most}
    return connection.execute(statement, arguments).rowcount == 1


def _is_set(connection: Connection, key: str) -> bool:
    row = connection.execute(IS_SET, (key,)).fetchone()
    return bool(row and row[0])


def _channel(key: str) -> str:
    # A channel's name has at most 63 bytes.
    return "dramatiq.counter." + sha256(key.encode()).hexdigest()[:32]
