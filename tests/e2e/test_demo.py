"""`make demo` in little: the Procfile's commands, from an empty folder, on both brokers; nothing is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.conftest import wait_until

FANFARE = Path(sys.executable).with_name("fanfare")


def processes_with(marker: str) -> list[str]:
    """Command lines of the processes that have `marker` in it or in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            variables = (folder / "environ").read_bytes().decode(errors="replace")
            ended = ") Z " in (folder / "stat").read_text()
        except OSError:
            continue
        if not ended and int(folder.name) != os.getpid() and marker in words + variables:
            found.append(words)
    return found


@pytest.fixture(params=["postgres", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("redis_url")) if request.param == "redis" else ""


@pytest.fixture
def folder() -> Iterator[Path]:
    """The demo's data folder. Not of pytest's, which another run closes to other users, the server's among them."""
    with tempfile.TemporaryDirectory(prefix="fanfare-demo-") as name:
        yield Path(name) / "data"
        # What a failed test leaves is ended by the warden and the keeper.
        wait_until(lambda: not processes_with(name), "processes are left behind", 40)


def variables_for(folder: Path, broker_url: str) -> dict[str, str]:
    # Not of the test's environment: its DATA_DIR would be found in the environment of every child.
    return os.environ | {"DATA_DIR": str(folder), "BROKER_URL": broker_url, "ENVIRONMENT": "development"}


def test_demo_shows_that_ledger_and_simulator_agree_and_leaves_nothing(folder, broker_url):
    done = subprocess.run(
        [FANFARE, "demo", "--recipients", "160", "--rate", "60"],
        env=variables_for(folder, broker_url),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for fact in ("8,917      8,917", "160       160", "messages sent twice            0         0"):
        assert fact in done.stdout
    assert "✗" not in done.stdout
    assert not processes_with(str(folder))
    if broker_url:
        with redis.Redis.from_url(broker_url) as client:
            assert client.dbsize() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_demo_that_is_ended_leaves_nothing(folder, number):
    with subprocess.Popen(
        [FANFARE, "demo"],
        env=variables_for(folder, ""),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout
        shown: list[str] = []
        while not shown or not shown[-1].startswith("Campaign 0"):
            shown.append(demo.stdout.readline())
            assert shown[-1], "".join(shown)
        assert len(processes_with(str(folder))) >= 8
        demo.send_signal(number)
        if number != signal.SIGKILL:
            assert demo.wait(60) == 130
            assert not processes_with(str(folder))
    wait_until(lambda: not processes_with(str(folder)), "processes are left behind", 40)


def test_demo_that_fails_shows_the_log_and_leaves_nothing(folder):
    """The web process cannot start with a wrong setting that the demo itself does not meet."""
    done = subprocess.run(
        [FANFARE, "demo"],
        env=variables_for(folder, "") | {"WORKER_THREADS": "many"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "worker ended with 2." in done.stderr
    assert "invalid int value: 'many'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not processes_with(str(folder))
