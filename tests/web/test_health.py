"""The web process over a real socket: health for platforms (MON-02, DEP-03), a page for people."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.conftest import wait_until
from web.app import make_app

FANFARE = Path(sys.executable).with_name("fanfare")
UNREACHABLE = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"

Get = Callable[[str], tuple[int, http.client.HTTPMessage, str]]


@contextmanager
def web(folder: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Get]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def get(path: str) -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def answers() -> bool:
        assert process.poll() is None, (folder / "web.log").read_text()
        with suppress(OSError):
            return get("/health/live")[0] == 200
        return False

    with (folder / "web.log").open("wb") as log:
        process = subprocess.Popen(
            [FANFARE, "web"], cwd=folder, env=os.environ | {"PORT": str(port)} | variables, stdout=log, stderr=log
        )
    try:
        wait_until(answers, "web does not answer", 30)
        yield process, get
    finally:
        process.terminate()
        process.wait(20)


def test_app_connects_to_nothing_before_it_is_asked(settings_env):
    settings_env(DATABASE_URL=UNREACHABLE)
    assert make_app().routes


def test_ready_with_a_database_and_a_broker(database, tmp_path):
    with web(tmp_path) as (process, get):
        status, headers, body = get("/health/ready")
        assert (status, json.loads(body)) == (200, {"status": "ok"})
        assert headers["Cache-Control"] == "no-store"
        assert get("/nothing")[0] == 404
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_database_that_is_down_is_named_and_the_process_lives(tmp_path):
    with web(tmp_path, DATABASE_URL=UNREACHABLE) as (_, get):
        status, headers, body = get("/health/ready")
        assert status == 503
        assert headers["Content-Type"] == "application/problem+json"
        problem = json.loads(body)
        assert problem["status"] == 503
        assert set(problem["down"]) == {"database", "broker"}
        assert "fanfare health" in problem["detail"]
        assert "127.0.0.1" not in body, "what is inside is nobody's business"
        assert get("/health/live")[0] == 200
        status, _, page = get("/")
        assert status == 503
        assert "Something is down" in page
    assert "hunter2" not in (tmp_path / "web.log").read_text()


def test_broker_that_is_down_is_named(database, tmp_path):
    with web(tmp_path, BROKER_URL="redis://127.0.0.1:1/0", BROKER_FALLBACK="false") as (_, get):
        status, _, body = get("/health/ready")
        assert status == 503
        assert set(json.loads(body)["down"]) == {"broker"}


def test_database_without_migrations_is_told(empty_database, tmp_path):
    with web(tmp_path, DATABASE_URL=empty_database, BROKER_URL="") as (_, get):
        status, _, body = get("/health/ready")
        assert status == 503
        assert "fanfare migrate" in json.loads(body)["down"]["database"]


@pytest.fixture
def campaign(database, tmp_path) -> str:
    """A campaign whose name tries to be markup, for a contact; its message waits in the queue."""
    name = "<script>alert(1)</script> & more"
    (tmp_path / "a.csv").write_text("phone,name\n+14155552671,Ann Example\n")
    send = ["campaign", "send", "--name", name, "--sender", "987654", "--text", "Hi {{name}}"]
    for words in (["contacts", "import", "a.csv", "--here"], send):
        subprocess.run([FANFARE, *words], cwd=tmp_path, check=True, capture_output=True)
    return name


def test_page_shows_queues_and_campaigns_and_nobody_s_data(campaign, database, tmp_path):
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from contacts where phone = '+14155552671'").fetchone() == (1,)
    with web(tmp_path) as (_, get):
        status, headers, page = get("/")
        assert status == 200
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
        assert "<script" not in page
        assert "bulk-messages" in page
        assert "Broker: postgres" in page
        for private in ("14155552671", "Ann", "987654", "Hi "):
            assert private not in page
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        style, style_headers, text = get("/style.css")
        assert (style, style_headers["Content-Type"].split(";")[0]) == (200, "text/css")
        assert "light dark" in text
