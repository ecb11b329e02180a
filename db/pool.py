"""The process's connections to PostgreSQL: one pool, opened at the first use, and transactions that compose.

A forked child opens its own pool: a connection must never be used by two processes.
"""

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import lru_cache
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from core.errors import TransientError
from core.settings import get_settings
from db.connection import CONNECT_TIMEOUT_S, connect, connection_errors, place
from db.embedded import ensure_running
from db.migrate import ensure_migrated

Pool = ConnectionPool[psycopg.Connection]

WAIT = timedelta(seconds=30)
"""Longest wait for a connection of the pool."""

_mutex = threading.Lock()
_pools: dict[int, Pool] = {}
_current: ContextVar[psycopg.Connection | None] = ContextVar("_current", default=None)
_follow_ups: ContextVar[list[Callable[[], object]] | None] = ContextVar("_follow_ups", default=None)


def database_url() -> str:
    """The URL of the database: DATABASE_URL, or the embedded server's, which is started and migrated for it.

    Found once per process; `close` forgets it.

    Raises:
        SettingsError: the embedded server cannot be started.
    """
    return _database_url(os.getpid())


@lru_cache(maxsize=1)
def _database_url(_pid: int) -> str:
    settings = get_settings()
    if settings.database_url:
        return settings.database_url
    url = ensure_running(settings.data_dir)
    ensure_migrated(url, apply=True)
    return url


@contextmanager
def transaction() -> Iterator[psycopg.Connection]:
    """A transaction: committed at the end of the block, rolled back when it raises.

    Used inside another one of the same thread (or task), it *joins* it: the same connection, and nothing is committed
    before the outer block ends. So a function that needs a transaction opens one, and its callers compose such
    functions into one transaction by opening theirs around them. An error that leaves an inner block must therefore
    leave the outer one too; to go on after it, use `connection.transaction()`, which is a savepoint.

    Raises:
        TransientError: the database cannot be reached, or was lost on the way; nothing was committed, unless it was
            lost in the very commit.
        SettingsError: the database lacks migrations.
    """
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    follow_ups: list[Callable[[], object]] = []
    with _borrowed() as connection, connection.transaction():
        token, follow_ups_token = _current.set(connection), _follow_ups.set(follow_ups)
        try:
            yield connection
        finally:
            _current.reset(token)
            _follow_ups.reset(follow_ups_token)
    for follow_up in follow_ups:
        follow_up()


def current() -> psycopg.Connection | None:
    """The connection of the transaction that surrounds the caller in this thread or task, None outside one."""
    return _current.get()


def after_commit(follow_up: Callable[[], object]) -> None:
    """Call `follow_up` once the surrounding transaction has committed, not at all if it does not; outside one, now.

    A crash between the commit and the call loses it: only for what a later step repairs.
    """
    follow_ups = _follow_ups.get()
    if follow_ups is None:
        follow_up()
    else:
        follow_ups.append(follow_up)


@contextmanager
def connection() -> Iterator[psycopg.Connection]:
    """A connection in which each statement stands for itself, for reads; inside `transaction` it is that one's.

    Raises:
        TransientError: as `transaction`.
    """
    outer = _current.get()
    if outer is not None:
        yield outer
        return
    with _borrowed() as borrowed:
        yield borrowed


def close() -> None:
    """Close the process's pool and forget its URL; the next use opens them anew. Idempotent."""
    with _mutex:
        pool = _pools.pop(os.getpid(), None)
        _database_url.cache_clear()
    if pool is not None:
        pool.close()


@contextmanager
def _borrowed() -> Iterator[psycopg.Connection]:
    url, pool = database_url(), _pool()
    with connection_errors(url):
        try:
            borrowed = pool.getconn(timeout=WAIT.total_seconds())
        except PoolTimeout as error:
            connect(url).close()  # says what is wrong, if it is the connection
            message = f"All {pool.max_size} connections to {place(url)} were busy for {WAIT}: raise DATABASE_POOL_SIZE."
            raise TransientError(message, code="database_pool_exhausted") from error
        try:
            yield borrowed
        finally:
            pool.putconn(borrowed)


def _pool() -> Pool:
    pool = _pools.get(os.getpid())
    if pool is None:
        with _mutex:
            pool = _pools.get(os.getpid()) or _open()
            _pools[os.getpid()] = pool
    return pool


def _open() -> Pool:
    settings = get_settings()
    url = database_url()
    if settings.database_url:
        ensure_migrated(url, apply=False)
    options: dict[str, Any] = {"application_name": "fanfare", "connect_timeout": CONNECT_TIMEOUT_S}
    if settings.database_transaction_pooling:
        options["prepare_threshold"] = None  # a transaction pooler gives each transaction another session
    atexit.register(close)
    return ConnectionPool(
        url,
        kwargs={"autocommit": True, **options},
        min_size=1,
        max_size=settings.database_pool_size,
        check=ConnectionPool.check_connection,  # one round trip, so that a server's restart costs no job an attempt
        name="fanfare",
        open=True,
    )
