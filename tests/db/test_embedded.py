import multiprocessing
import os
import pwd
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from core.errors import SettingsError
from db import embedded, embedded_server
from tests.conftest import wait_until

ROOT = Path(embedded.__file__).parents[1]

USER = """
import sys
from pathlib import Path
from db import embedded
print(embedded.ensure_running(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data_dir():
    """A folder whose server is stopped at the end, whatever the test did.

    Not below pytest's own, which another run of pytest closes to the server's user when tests run as root.
    """
    with tempfile.TemporaryDirectory(prefix="fanfare-test-") as parent:
        folder = Path(parent) / "made-by-the-server"
        yield folder
        embedded.stop(folder)


@pytest.fixture
def start_user(data_dir):
    """Starts processes that use the server of `data_dir` until their standard input closes."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", USER, str(data_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def server_pid(data_dir):
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not (state.exists() and ") Z " in state.read_text())  # a zombie has ended


def end(process):
    _, err = process.communicate(timeout=20)
    return process.returncode, err


def test_processes_that_ask_at_once_share_one_server_until_the_last_ends(data_dir, start_user):
    """RUN-03: the web, the workers and the scheduler are started at the same moment, by hand."""
    users = [start_user() for _ in range(4)]
    urls = {user.stdout.readline().strip() for user in users}
    assert urls == {embedded_server.url(data_dir)}
    pid = server_pid(data_dir)
    for user in users[:-1]:
        assert end(user) == (0, "")
        assert lives(pid)
    with psycopg.connect(*urls) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert end(users[-1]) == (0, "")
    wait_until(lambda: not lives(pid), "the server outlives its users")


def test_server_ends_when_its_users_are_killed(data_dir, start_user):
    """RUN-03: SIGKILL leaves nothing behind, and the next start works."""
    users = [start_user() for _ in range(2)]
    for user in users:
        user.stdout.readline()
    pid = server_pid(data_dir)
    for user in users:
        user.send_signal(signal.SIGKILL)
    wait_until(lambda: not lives(pid), "the server outlives its killed users")
    assert start_user().stdout.readline().strip() == embedded_server.url(data_dir)


def test_forked_child_keeps_the_server_and_its_end_does_not_stop_it(data_dir):
    """RUN-03: dramatiq's workers are forks; one that ends leaves the server to the others."""
    url = embedded.ensure_running(data_dir)
    pid = server_pid(data_dir)
    for _ in range(2):
        child = multiprocessing.get_context("fork").Process(target=embedded.ensure_running, args=(data_dir,))
        child.start()
        child.join(timeout=20)
        assert child.exitcode == 0
    with psycopg.connect(url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert lives(pid)


DRAMATIQ_APP = """
import os
from pathlib import Path
import dramatiq
from dramatiq.brokers.stub import StubBroker
from db import pool
dramatiq.set_broker(StubBroker())
with pool.connection() as connection:
    connection.execute("select 1")
Path(f"ready.{os.getpid()}").touch()
"""


def test_dramatiq_command_shares_the_server_and_stops_it_at_its_end(tmp_path, data_dir):
    """RUN-03: the command line forks its workers, which end without Python's exit handlers."""
    (tmp_path / "app.py").write_text(DRAMATIQ_APP)
    command = [sys.executable, "-m", "dramatiq", "app", "--processes", "2", "--threads", "1", "--path", str(tmp_path)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATA_DIR": str(data_dir)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: len(list(tmp_path.glob("ready.*"))) == 2, "the workers do not start")
        pid = server_pid(data_dir)
        process.terminate()
        assert process.wait(timeout=20) == 0
    wait_until(lambda: not lives(pid), "the server outlives dramatiq")


def test_stop_ends_the_server_of_living_users_and_its_keeper(data_dir, start_user):
    user = start_user()
    user.stdout.readline()
    pid, keeper = server_pid(data_dir), data_dir / "postgres.keeper"
    wait_until(keeper.read_text, "the keeper does not start")
    keeper_pid = int(keeper.read_text())
    embedded.stop(data_dir)
    assert not lives(pid)
    wait_until(lambda: not lives(keeper_pid), "the keeper outlives its server")
    embedded.stop(data_dir)  # nothing runs: nothing to do


def test_server_killed_under_its_users_is_started_again(data_dir):
    """Its data are whole: PostgreSQL repairs itself."""
    url = embedded.ensure_running(data_dir)
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 1 as n")
    pid = server_pid(data_dir)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not embedded_server.answers(data_dir), "the server survives SIGKILL")
    assert embedded.ensure_running(data_dir) == url
    with psycopg.connect(url) as connection:
        assert connection.execute("select n from kept").fetchone() == (1,)


def test_server_has_our_settings_and_no_network(data_dir):
    with psycopg.connect(embedded.ensure_running(data_dir)) as connection:
        rows = connection.execute("select name, current_setting(name) from pg_settings").fetchall()
        assert connection.execute("show fsync").fetchone() == ("on",)
    # Names have capitals, which pg_settings keeps and our file does not need.
    shown = {name.lower(): value for name, value in rows}
    assert shown | embedded_server.SERVER_SETTINGS == shown


def test_data_dir_half_made_is_made_again(data_dir):
    """A process killed while it makes the data folder leaves `postgres.new`, never a broken `postgres`."""
    (data_dir / "postgres.new").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with psycopg.connect(embedded.ensure_running(data_dir)) as connection:
        assert connection.info.server_version >= 180000


def test_long_path_works(data_dir):
    """A Unix socket's path has about 100 bytes at most."""
    folder = data_dir / ("deep" * 20) / ("deeper" * 10)
    try:
        psycopg.connect(embedded.ensure_running(folder)).close()
    finally:
        embedded.stop(folder)


def test_data_dir_not_writable_is_told(tmp_path):
    """DEP-04: the error names the variable and what to do. As root, tried as another user."""
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(0o755)
    if os.geteuid() != 0:
        with pytest.raises(SettingsError, match=r"DATA_DIR.*DATABASE_URL"):
            embedded.ensure_running(folder)
        return
    child = multiprocessing.get_context("fork").Process(target=_refused_as_nobody, args=(folder,))
    child.start()
    child.join(timeout=20)
    assert child.exitcode == 0


def _refused_as_nobody(folder):
    os.setgroups([])
    os.setgid(pwd.getpwnam("nobody").pw_gid)
    os.setuid(pwd.getpwnam("nobody").pw_uid)
    with pytest.raises(SettingsError, match=r"DATA_DIR: the user nobody .*DATABASE_URL"):
        embedded.ensure_running(folder)


def test_server_that_cannot_start_is_told_with_its_log(data_dir):
    embedded.ensure_running(data_dir)
    embedded.stop(data_dir)
    with (data_dir / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(SettingsError, match="no_such_setting"):
        embedded.ensure_running(data_dir)
