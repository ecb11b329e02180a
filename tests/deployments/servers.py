"""Servers as Debian packages them, each started by a test for itself and ended with it, also when it is killed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import redis

from tests.conftest import wait_until

POSTGRES15 = Path("/usr/lib/postgresql/15/bin")
PGBOUNCER = Path("/usr/sbin/pgbouncer")
REDIS = Path("/usr/bin/redis-server")
"""Debian's packages, which `.ci/test-tools` installs; the tests fail without them, they do not skip."""

STAND_IN = "nobody"
"""Whom servers run as that refuse to run as root."""
# Ends the server when the pipe closes: by the end of the block, or of this process.
_SHELL = 'signal=$1; shift; "$@" </dev/null & server=$!; read -r _; kill -$signal $server; wait $server'
_PGBOUNCER = """
[databases]
* = host={host} port={port}
[pgbouncer]
pool_mode = transaction
default_pool_size = {size}
; Each transaction gets another session, if there is one: what relies on a session fails at once.
server_round_robin = 1
max_client_conn = 200
auth_type = trust
auth_file = {folder}/users
unix_socket_dir = {folder}
listen_port = 6432
logfile = {folder}/log
"""


class Server:
    """A program that runs until `kill`.

    Args:
        command: The program and its arguments.
        ended_by: Name of the signal that ends it.
        stand_in: As root, run it as `STAND_IN`.
    """

    def __init__(self, *command: str | Path, ended_by: str = "KILL", stand_in: bool = False) -> None:
        self._command = [str(word) for word in command]
        self._ended_by = ended_by
        self._user: dict[str, Any] = {}
        if stand_in and os.geteuid() == 0:
            found = pwd.getpwnam(STAND_IN)
            self._user = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
        self._shell: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; whether it answers is for the caller to see."""
        shell = ["/bin/sh", "-c", _SHELL, "sh", self._ended_by, *self._command]
        self._shell = subprocess.Popen(
            shell, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", **self._user
        )

    def kill(self) -> None:
        """End it and wait for that; nothing to do when it does not run."""
        if self._shell is not None:
            self._shell.communicate()
            self._shell = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs during the block."""
        self.start()
        try:
            yield
        finally:
            self.kill()


class RedisNode(Server):
    """A Redis 7 on a TCP port of its own, with the password `secret`.

    Attributes:
        port: Where it listens.
        url: For redis-py.
    """

    def __init__(self, folder: Path, *config: str | Path, port: int | None = None, scheme: str = "redis") -> None:
        self.port = port or free_ports(1)[0]
        self.url = f"{scheme}://:secret@127.0.0.1:{self.port}/0"
        listen = ["--port", str(self.port), "--bind", "127.0.0.1"] if scheme == "redis" else []
        keep = ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        password = ["--requirepass", "secret", "--masterauth", "secret"]
        super().__init__(REDIS, *listen, *keep, *password, *config)

    def client(self) -> redis.Redis:
        """A client of this node; the caller closes it."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def start(self) -> None:
        """Return when it answers."""
        super().start()
        with self.client() as client:
            wait_until(partial(answers, client), "the Redis server does not start")


def answers(client: redis.Redis) -> bool:
    """Whether the server takes commands."""
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that belongs to whom servers run as. Its path is short: that of a Unix socket has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ff-"))
    give_away(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def give_away(path: Path) -> None:
    """Let servers use `path` that refuse to run as root."""
    if os.geteuid() == 0:
        shutil.chown(path, STAND_IN)


@contextmanager
def postgres15() -> Iterator[str]:
    """The URL of an empty PostgreSQL 15."""
    with server_folder() as folder:
        data = folder / "data"
        create: list[str | Path] = [
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-N",
            "--locale=C.UTF-8",
            "--encoding=utf8",
        ]
        run_checked([POSTGRES15 / "initdb", *create], stand_in=True)
        settings = ["fsync=off", "listen_addresses=", f"unix_socket_directories={folder}", "max_connections=100"]
        options = [word for setting in settings for word in ("-c", setting)]
        # QUIT ends all its processes at once.
        server = Server(POSTGRES15 / "postgres", "-D", data, *options, ended_by="QUIT", stand_in=True)
        url = f"postgresql://postgres@/postgres?host={folder}"
        with server.running():
            wait_until(lambda: connects(url), "PostgreSQL 15 does not start")
            yield url


@contextmanager
def pgbouncer(postgres_url: str, *, size: int = 5) -> Iterator[str]:
    """The URL of a PgBouncer in transaction mode before the server at `postgres_url`, with all its databases."""
    where = parse_qs(urlsplit(postgres_url).query)
    with server_folder() as folder:
        config = _PGBOUNCER.format(host=where["host"][0], port=where.get("port", ["5432"])[0], size=size, folder=folder)
        for name, text in (("ini", config), ("users", '"postgres" ""\n')):
            (folder / name).write_text(text)
            give_away(folder / name)
        url = f"postgresql://postgres@/postgres?host={folder}&port=6432"
        with Server(PGBOUNCER, folder / "ini", ended_by="TERM", stand_in=True).running():
            wait_until(lambda: connects(url), "PgBouncer does not start")
            yield url


def connects(url: str) -> bool:
    """Whether a PostgreSQL takes connections."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def run_checked(command: Sequence[object], *, stand_in: bool = False) -> None:
    """Run a program to its end; fails with what it said."""
    user: dict[str, Any] = {"user": STAND_IN, "extra_groups": []} if stand_in and os.geteuid() == 0 else {}
    done = subprocess.run([str(word) for word in command], cwd="/", capture_output=True, text=True, check=False, **user)
    assert done.returncode == 0, done.stdout + done.stderr
