"""Connections to a Redis server, and what to do when it does not answer."""

import os
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from redis.connection import ConnectionInterface
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from brokers.redis import scripts
from brokers.redis.address import ANSWER_TIMEOUT_S, connection_pool, place
from brokers.redis.checks import check_server
from core.errors import PermanentError, SettingsError, TransientError

PAUSES_S = (0.0, 0.05, 0.2)
"""Waits before a command is sent again. Every command of ours can be: it takes effect once."""
REFUSALS = ("BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF", "UNKILLABLE")
"""First words of answers that mean: not now."""

REASONS: list[tuple[type[Exception] | tuple[type[Exception], ...], str, str]] = [
    (AuthenticationError, "redis_auth", "refuses the user or password: set them in BROKER_URL."),
    (OutOfMemoryError, "redis_oom", "is out of memory: raise its maxmemory or drain queues."),
    (redis.TimeoutError, "redis_timeout", "did not answer in time."),
    (ReadOnlyError, "redis_readonly", "is a read-only replica: it is failing over."),
    ((ClusterDownError, TryAgainError), "redis_refuses", "refuses for now: {}"),
    ((redis.ConnectionError, OSError, AskError), "redis_unreachable", "cannot be reached: {}"),
]
"""The first that fits an error says what it means."""

T = TypeVar("T")


class Link:
    """A pool of connections, each used by one thread at a time, new ones after a fork.

    Args:
        url: As `address.connection_pool` reads it.
        namespace: Hash tag of all keys.
        answer_timeout_s: Longest wait for a reply.
    """

    def __init__(self, url: str, namespace: str, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.tag = "{" + namespace + "}"
        self.address = place(url)
        self.server: dict[str, Any] | None = None
        self._pid = os.getpid()
        self._idle: deque[ConnectionInterface] = deque()
        self._factory = connection_pool(url, answer_timeout_s=answer_timeout_s)
        first = self._factory.connection_kwargs
        self._nodes: tuple[tuple[Any, Any], ...] = ((first.get("host"), first.get("port")),)

    def command(self, *words: str | bytes | float) -> Any:  # noqa: ANN401 - whatever Redis replies
        """Send one command and return its reply.

        Raises:
            TransientError: the server cannot be reached, or refuses for now.
            PermanentError: the server does not understand or allow the command.
        """
        return self.attempt(lambda connection: self.exchange(connection, *words))

    def script(self, name: str, *args: str | bytes | float) -> Any:  # noqa: ANN401 - whatever the script returns
        """Run the script in `name`.lua; errors as `command`."""
        script = scripts.load(name)

        def run(connection: ConnectionInterface) -> Any:  # noqa: ANN401 - as above
            try:
                return self.exchange(connection, "EVALSHA", script.sha, 1, self.tag, *args)
            except NoScriptError:  # a new or restarted server
                return self.exchange(connection, "EVAL", script.source, 1, self.tag, *args)

        return self.attempt(run)

    @staticmethod
    def exchange(connection: ConnectionInterface, *words: str | bytes | float) -> Any:  # noqa: ANN401 - as above
        """Send one command over `connection` and return its reply; redis-py's own errors."""
        connection.send_packed_command([_packed(words)])
        return connection.read_response()

    def attempt(self, work: Callable[[ConnectionInterface], T]) -> T:
        """Do `work` with a connection, again when the connection broke, and translate errors."""
        for pause in PAUSES_S:
            if pause:
                time.sleep(pause * (1 + random.random()))  # noqa: S311 - spreads clients, not secrets
            try:
                return self._once(work)
            except (AuthenticationError, BusyLoadingError) as error:
                raise self.translate(error) from error
            except redis.TimeoutError as error:
                # It may hang: trying on would make the caller wait for a multiple of the timeout.
                raise self.translate(error) from error
            except (redis.ConnectionError, OSError) as error:
                self._turn_to(*self._nodes[1:], self._nodes[0])
                failure: Exception = error
            except MovedError as error:
                self._follow(error)
                failure = error
            except redis.RedisError as error:
                if isinstance(error, ReadOnlyError):
                    self.close()  # a former master; its name may lead elsewhere now
                raise self.translate(error) from error
        raise self.translate(failure) from failure

    def _once(self, work: Callable[[ConnectionInterface], T]) -> T:
        connection = self._borrow()
        try:
            if self.server is None:
                self.server = check_server(lambda *words: self.exchange(connection, *words), self.address)
            answer = work(connection)
        except ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.disconnect()  # its reply may still come, and must not answer another's command
            raise
        self._idle.append(connection)
        return answer

    def _borrow(self) -> ConnectionInterface:
        """A connection that no one uses. A broken one shows when it is used: no need to ask the kernel, as pools do."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._idle.clear()  # the parent's
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._factory.make_connection()
            connection.connect()  # by itself, at the first command, it would not ask Sentinel
            return connection

    def _follow(self, moved: MovedError) -> None:
        """Turn to the cluster's node that has our slot: all our keys are in one."""
        node = (moved.host, moved.port)
        self._turn_to(node, *(other for other in self._nodes if other != node))

    def _turn_to(self, *nodes: tuple[Any, Any]) -> None:
        """Use the first of `nodes`; the others are turned to when it breaks off, as any can say who has our slot."""
        self.close()
        self._nodes = nodes
        if len(nodes) > 1:
            host, port = nodes[0]
            self._factory.connection_kwargs.update(host=host, port=port)
            self.address = f"{host}:{port}"

    def connect(self) -> ConnectionInterface:
        """A connection outside the pool, for a thread that blocks on it; its owner closes it."""
        connection = self._factory.make_connection()
        try:
            connection.connect()
        except (redis.RedisError, OSError) as error:
            raise self.translate(error) from error
        return connection

    def close(self) -> None:
        """Close the connections that are idle; the next command opens new ones."""
        while self._idle:
            try:
                self._idle.pop().disconnect()
            except IndexError:  # another thread took the last one
                return

    def translate(self, error: Exception) -> Exception:
        """The error of ours for one of redis-py's; it names the server, never the password."""
        where = f"Redis at {self.address}"
        for kinds, code, text in REASONS:
            if isinstance(error, kinds):
                kind = SettingsError if code == "redis_auth" else TransientError
                return kind(f"{where} {text.format(error)}", code=code)
        if str(error).startswith(REFUSALS):
            return TransientError(f"{where} refuses for now: {error}", code="redis_refuses")
        return PermanentError(f"{where} rejects a command: {error}", code="redis_error")


def _packed(words: tuple[str | bytes | float, ...]) -> bytes:
    """A command as it goes over the wire; redis-py's own way looks at each word several times."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
