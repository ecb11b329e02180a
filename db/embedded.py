"""The embedded PostgreSQL: a real server in the project's data folder, shared by the processes that use it.

Who uses the server is told by locks on files (`flock`), because the kernel gives them back however a process ends,
by SIGKILL too, and because forked children, such as dramatiq's workers, share the lock of their parent:

- `postgres.users`: each process that uses the server holds it shared, from `ensure_running` to its end.
- `postgres.keeper`: held by `db/keeper.py`, which waits for the last user to end and then stops the server.
- `postgres.start`: held for the moment in which a process looks for the server and starts it, or stops it.

For Linux and macOS.
"""

import fcntl
import getpass
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import SettingsError
from db import embedded_server

_mutex = threading.Lock()
_held: dict[Path, int] = {}


def ensure_running(data_dir: Path) -> str:
    """Start the server of `data_dir`, or find it running; returns its URL.

    Any number of processes may ask at the same moment and all get the same server. It runs until the last of them has
    ended. The first call in a folder takes about a second, a later one some milliseconds. Idempotent.

    Raises:
        SettingsError: the folder cannot be written, or the server does not start (the message has the end of its log).
    """
    folder = data_dir.expanduser().resolve()
    with _mutex, _permission_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in _held:
            # Waits while a keeper stops the server, which is then started anew.
            _held[folder] = _lock(folder / "postgres.users", fcntl.LOCK_SH)
        with _locked(folder / "postgres.start"):
            if not embedded_server.answers(folder):
                embedded_server.start(folder)
            _ensure_keeper(folder)
    return embedded_server.url(folder)


def stop(data_dir: Path) -> None:
    """Stop the server of `data_dir`, whoever uses it, and its keeper: nothing of it runs afterwards. Idempotent."""
    folder = data_dir.expanduser().resolve()
    if not folder.exists():
        return
    with _mutex, _permission_told(folder):
        with _locked(folder / "postgres.start"):
            _end_keeper(folder)
            embedded_server.stop(folder)
        if folder in _held:
            os.close(_held.pop(folder))


def _ensure_keeper(folder: Path) -> None:
    try:
        lock = _lock(folder / "postgres.keeper", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    os.ftruncate(lock, 0)  # the id of an earlier keeper, which another process may have by now
    keeper = Path(__file__).with_name("keeper.py")
    command = [sys.executable, "-I", str(keeper), str(embedded_server.program("pg_ctl")), str(folder), str(lock)]
    try:
        # The shell ends at once, so that the keeper is nobody's child and no parent has to wait for it. It inherits the
        # lock, which is therefore never free while a keeper runs or is about to.
        subprocess.run(  # noqa: S603 - our own file, by its path
            ["/bin/sh", "-c", '"$@" &', "sh", *command],
            check=True,
            pass_fds=[lock],
            cwd="/",
            start_new_session=True,  # the terminal's Ctrl-C is for the users only
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
            _kill_keeper(path)
            time.sleep(0.01)
        else:
            return
    raise SettingsError(f"The keeper of the embedded PostgreSQL does not end: end the process whose id is in {path}.")


def _kill_keeper(path: Path) -> None:
    pid = path.read_text()
    if pid:  # empty until the keeper's first line
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            return  # it ended by itself in this moment


@contextmanager
def _permission_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        message = (
            f"DATA_DIR: the user {getpass.getuser()} may not write {error.filename or folder}. "
            "Make it writable, name another folder, or set DATABASE_URL to use another PostgreSQL."
        )
        raise SettingsError(message, code="data_dir_not_writable") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = _lock(path, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, operation: int) -> int:
    """Lock `path`, made where it is missing; closing the returned descriptor, or the process's end, unlocks it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
