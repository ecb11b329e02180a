import gzip
import json
import logging as stdlib_logging
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import sentry_sdk
import structlog

from core import logging, telemetry
from core.clock import now
from core.errors import AmbiguousError, Cancelled, NotYet, PermanentError, ThrottledError, TransientError

EXPECTED = [
    TransientError("x"),
    ThrottledError("x", retry_after=timedelta(seconds=1)),
    PermanentError("x"),
    NotYet("x", until=now()),
    Cancelled("x"),
    AmbiguousError("x"),
]


class Receiver(ThreadingHTTPServer):
    """Takes Sentry's envelopes over HTTP."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[str] = []

    def events(self):
        """The reports received so far, after what waits has been sent."""
        sentry_sdk.flush(timeout=10)
        lines = [json.loads(line) for body in self.bodies for line in body.splitlines() if line.startswith("{")]
        return [line for line in lines if "event_id" in line and "level" in line]


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.bodies.append((gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode())
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Nothing to standard error."""


@pytest.fixture
def receiver(settings_env):
    """Configured for production with a DSN that leads to a local receiver."""
    root = stdlib_logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        dsn = f"http://publickey@127.0.0.1:{server.server_port}/1"
        settings = settings_env(ENVIRONMENT="production", SENTRY_DSN=dsn, RELEASE="abc123")
        logging.configure(settings)
        telemetry.configure(settings)
        yield server
        sentry_sdk.get_client().close(timeout=5)
        sentry_sdk.init(dsn="")
        server.shutdown()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def log_failure(error):
    phone = "+14155550123"  # a local variable, which must not travel
    logging.get_logger("actors.send").error("job.failed", exc_info=error, phone=phone, job_id="j1")


def test_bug_is_reported_with_its_facts_and_without_personal_data(receiver):
    """MON-02, SECURITY "leaks"."""
    logging.get_logger("actors.send").info("import.started", detail="breadcrumb of grace@example.com")
    log_failure(ValueError("no row for ada@example.com, +14155550123, token=abcdef123"))
    (event,) = receiver.events()
    assert event["logentry"]["message"] == "job.failed"
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert "no row for [email], [phone], token=[secret]" in event["exception"]["values"][-1]["value"]
    assert event["extra"]["job_id"] == "j1"
    assert event["release"] == "abc123"
    assert event["environment"] == "production"
    sent = "".join(receiver.bodies)
    for canary in ("5550123", "ada@", "grace@", "abcdef123"):
        assert canary not in sent


@pytest.mark.parametrize("error", EXPECTED, ids=lambda error: type(error).__name__)
def test_expected_error_is_not_reported(receiver, error):
    """OPT-06: what a job raises on purpose is no news."""
    log_failure(error)
    sentry_sdk.capture_exception(error)
    assert receiver.events() == []


def test_library_line_names_the_message_without_its_arguments(receiver):
    class Message:
        actor_name, message_id = "send_message", "m1"

        def __str__(self):
            return "send_message('Canary')"

    stdlib_logging.getLogger("dramatiq.worker").error("Failed to process message %s", Message())
    (event,) = receiver.events()
    assert event["logentry"]["message"] == "Failed to process message send_message[m1]"
    assert "Canary" not in "".join(receiver.bodies)


def test_without_a_dsn_nothing_is_started(settings_env):
    telemetry.configure(settings_env())
    assert not sentry_sdk.get_client().dsn
