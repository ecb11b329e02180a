"""The engine's connections: a few per process, opened when needed, replaced when they broke."""

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg import errors

from core.errors import TransientError
from db.connection import CONNECT_TIMEOUT_S, connection_errors, place

Connection = psycopg.Connection[Any]
T = TypeVar("T")

SIZE = 4
"""Most connections of one process at work; a worker has its claim, its finishes and its heartbeat at once."""
REPEATS = 5
"""How often a step is repeated that PostgreSQL ended for the sake of another one."""

_ENDED_FOR_ANOTHER = (errors.DeadlockDetected, errors.SerializationFailure, errors.UniqueViolation)
_NOT_NOW = (errors.ReadOnlySqlTransaction, errors.UndefinedTable, errors.UndefinedFunction, psycopg.InterfaceError)
_KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""A server that vanished without a word is noticed within ten seconds."""


class Connections:
    """Runs steps on connections of this process; after a fork the child has its own.

    Args:
        url: The database.
        transaction_pooling: A pooler gives each transaction another session: nothing is prepared in it.
    """

    def __init__(self, url: str, *, transaction_pooling: bool = False) -> None:
        self.url = url
        self.transaction_pooling = transaction_pooling
        self._by_process: dict[int, _Idle] = {}

    def run(self, step: Callable[[Connection], T]) -> T:
        """The result of `step`, called with a connection in which each statement commits by itself.

        A connection that proves to be broken is replaced once, so that a server's restart is not noticed; steps can be
        repeated without effect.

        Raises:
            TransientError: the server cannot be reached or refuses for now.
        """
        idle = self._idle()
        with idle.places, connection_errors(self.url):
            try:
                return self._attempt(idle, step)
            except _NOT_NOW as error:
                message = f"PostgreSQL at {place(self.url)} cannot serve messages now: {str(error).strip()}"
                raise TransientError(message, code="broker_unavailable") from error

    def open(self) -> Connection:
        """A new connection, which the caller closes.

        Raises:
            TransientError: the server cannot be reached.
        """
        with connection_errors(self.url):
            return psycopg.connect(
                self.url,
                autocommit=True,
                prepare_threshold=None if self.transaction_pooling else 0,
                application_name="fanfare-broker",
                connect_timeout=CONNECT_TIMEOUT_S,
                **_KEEPALIVE,
            )

    def close(self) -> None:
        """Close the idle connections of this process; later steps open new ones."""
        self._idle().clear()

    def _idle(self) -> "_Idle":
        pid = os.getpid()
        idle = self._by_process.get(pid)
        # A connection that came over from the parent is the parent's: it is left alone, not closed.
        return idle if idle is not None else self._by_process.setdefault(pid, _Idle())

    def _attempt(self, idle: "_Idle", step: Callable[[Connection], T]) -> T:
        connection = idle.take()
        is_new = connection is None
        for repeat in range(REPEATS):
            connection = connection or self.open()
            try:
                result = step(connection)
            except _ENDED_FOR_ANOTHER:
                if repeat == REPEATS - 1:
                    raise
            except (psycopg.OperationalError, psycopg.InterfaceError):
                was_closed = connection.closed
                connection.close()
                if is_new or not was_closed:
                    raise
                idle.clear()
                connection, is_new = None, True
            except BaseException:
                idle.put(connection)
                raise
            else:
                idle.put(connection)
                return result
        raise AssertionError  # the last repeat returns or raises


class _Idle:
    """The connections of one process that nobody uses."""

    def __init__(self) -> None:
        self.places = threading.BoundedSemaphore(SIZE)
        self._connections: list[Connection] = []

    def take(self) -> Connection | None:
        try:
            return self._connections.pop()
        except IndexError:
            return None

    def put(self, connection: Connection) -> None:
        if not connection.closed:
            self._connections.append(connection)

    def clear(self) -> None:
        while (connection := self.take()) is not None:
            connection.close()
