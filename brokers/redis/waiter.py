"""Blocks an idle worker until there may be work, at the price of one command."""

import select
import socket
import threading
import time
from collections.abc import Iterable
from datetime import timedelta

import redis
from redis.connection import ConnectionInterface

from brokers.redis.address import ANSWER_TIMEOUT_S
from brokers.redis.link import Link

EVERY_QUEUE_MAX = timedelta(hours=1)


class Waiter:
    """One idle thread's place in the line for wake-ups.

    It blocks in BLPOP on the wake lists of its queues: the server hands each wake-up to one blocked client. A second
    socket, between the threads of this process, ends the wait from inside.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connection: ConnectionInterface | None = None
        self._client_id = 0
        self._inside, self._outside = socket.socketpair()
        self._inside.settimeout(0)
        self._outside.settimeout(0)

    def wake(self) -> None:
        """End `wait`, now or when it begins. Returns at once."""
        try:
            self._outside.send(b".")
        except BlockingIOError:
            return  # full of wake-ups already

    def wait(self, keys: Iterable[str], timeout: timedelta) -> bool:
        """Block until one of `keys` has a wake-up, `wake` was called or `timeout` has passed; False for the last.

        Raises:
            TransientError: the connection broke.
        """
        if self._drain():
            return True
        try:
            return self._block(list(keys), min(timeout, EVERY_QUEUE_MAX).total_seconds())
        except (redis.RedisError, OSError) as error:
            self.close_connection()
            raise self._link.translate(error) from error
        except BaseException:
            self.close_connection()
            raise

    def _block(self, keys: list[str], timeout_s: float) -> bool:
        connection = self._connected()
        # 0 would mean for ever.
        connection.send_command("BLPOP", *keys, max(0.001, round(timeout_s, 3)))
        deadline = time.monotonic() + timeout_s + ANSWER_TIMEOUT_S
        if self._readable(connection, deadline):
            return connection.read_response() is not None
        # Woken from inside: leave the line, or a wake-up would come to a worker that is busy.
        self._link.command("CLIENT", "UNBLOCK", self._client_id)
        connection.read_response()
        self._drain()
        return True

    def _readable(self, connection: ConnectionInterface, deadline: float) -> bool:
        """True when the reply is there, False when woken from inside."""
        if connection.can_read(0):  # TLS may have decrypted it already
            return True
        # Private, but redis-py has no other way to wait for two sockets at once.
        server: socket.socket = connection._sock  # type: ignore[attr-defined]  # noqa: SLF001
        ready, _, _ = select.select([server, self._inside], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise redis.TimeoutError("no reply to a blocking command")
        return server in ready

    def _connected(self) -> ConnectionInterface:
        if self._connection is None:
            self._connection = self._link.connect()
            self._client_id = int(Link.exchange(self._connection, "CLIENT", "ID"))
        return self._connection

    def _drain(self) -> bool:
        try:
            return bool(self._inside.recv(4096))
        except BlockingIOError:
            return False

    def close_connection(self) -> None:
        """Leave the line; the next `wait` connects anew."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None

    def close(self) -> None:
        """Release everything; not to be used again."""
        self.close_connection()
        self._inside.close()
        self._outside.close()


class Waiters:
    """The waiters of one process, one for each thread that waits at the same time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._idle: list[Waiter] = []
        self._busy: set[Waiter] = set()

    def wait(self, keys: Iterable[str], timeout: timedelta) -> bool:
        """As `Waiter.wait`."""
        with self._lock:
            waiter = self._idle.pop() if self._idle else Waiter(self._link)
            self._busy.add(waiter)
        try:
            return waiter.wait(keys, timeout)
        finally:
            with self._lock:
                self._busy.discard(waiter)
                self._idle.append(waiter)

    def wake(self) -> None:
        """End every wait of this process, or the next one when none is on."""
        with self._lock:
            if not self._busy and not self._idle:
                self._idle.append(Waiter(self._link))
            for waiter in self._busy or self._idle[-1:]:
                waiter.wake()

    def close(self) -> None:
        """Close the connections of those that do not wait."""
        with self._lock:
            for waiter in self._idle:
                waiter.close()
            self._idle.clear()
