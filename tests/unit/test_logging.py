import json
import logging as stdlib_logging
import re
import subprocess
import sys
from datetime import timedelta

import dramatiq
import pytest
import structlog
from dramatiq.brokers.stub import StubBroker
from dramatiq.worker import Worker

from core import logging
from core.clock import now, uuid7

TOKEN = "EAAGm0PX4ZCpsBAKZC"


@pytest.fixture(autouse=True)
def _restored_logging():
    root = stdlib_logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def lines(settings_env, capsys):
    """Configured for JSON at DEBUG; call it for the lines logged since."""
    logging.configure(settings_env(ENVIRONMENT="production", LOG_LEVEL="DEBUG", WHATSAPP_TOKEN=TOKEN))
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_log_line_has_event_level_time_and_facts(lines):
    """MON-02."""
    job = uuid7()
    log = logging.get_logger("actors.import_contacts")
    log.info("import.completed", job_id=job, rows=10_000, took=timedelta(seconds=1.5), at=now())
    (line,) = lines()
    assert line["event"] == "import.completed"
    assert line["level"] == "info"
    assert line["logger"] == "actors.import_contacts"
    assert line["job_id"] == str(job)
    assert line["rows"] == 10_000
    assert line["took"] == 1.5
    assert line["timestamp"].endswith("Z")


def test_bind_adds_facts_to_the_lines_of_its_block_and_of_libraries(lines):
    """MON-02: job and message ids stand on every line."""
    log = logging.get_logger("x")
    with logging.bind(job_id="j1", message_id="m1"):
        log.info("job.started")
        with logging.bind(message_id="m2"):
            stdlib_logging.getLogger("psycopg.pool").warning("slow %s", "pool")
    log.info("job.ended")
    first, second, third = lines()
    assert (first["job_id"], first["message_id"]) == ("j1", "m1")
    assert (second["job_id"], second["message_id"], second["event"]) == ("j1", "m2", "slow pool")
    assert "job_id" not in third


def test_configure_twice_writes_each_line_once(lines, settings_env):
    logging.configure(settings_env(ENVIRONMENT="production"))
    logging.get_logger("x").info("job.started")
    assert len(lines()) == 1


def test_configure_replaces_what_basic_config_made(settings_env, capsys):
    """dramatiq and periodiq call `basicConfig` before they load us."""
    stdlib_logging.basicConfig(force=True)
    logging.configure(settings_env(ENVIRONMENT="production"))
    stdlib_logging.getLogger("periodiq").info("tick")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "tick"


def test_configure_in_development_writes_for_people(settings_env, capsys):
    logging.configure(settings_env(ENVIRONMENT="development"))
    logging.get_logger("x").info("import.completed", rows=3, phone="+14155550123")
    line = capsys.readouterr().err
    assert "import.completed" in line
    assert "rows=3" in line
    assert "4155550123" not in line


def test_level_below_the_settings_one_is_not_logged(settings_env, capsys):
    logging.configure(settings_env(ENVIRONMENT="production", LOG_LEVEL="WARNING"))
    logging.get_logger("x").info("job.started")
    stdlib_logging.getLogger("dramatiq").info("ready")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text",
    [
        "call +14155550123 now",
        "+1 (415) 555-0123",
        "+49 30 901820",
        "to=14155550123",
        "(415) 555-0123",
        "415-555-0123",
        "mail ada.lovelace+x@mail.example.co.uk.",
        "root@localhost",
        f"header {TOKEN}!",
        "Authorization: Bearer abc.def-ghi_123456",
        "https://graph/v23.0/me?access_token=abcdef123&x=1",
        "{'api_key': 'abcdef123'}",
        "postgresql://user:abcdef123@db.internal/x",
        "redis://:abcdef123@cache:6379/0",
    ],
)
def test_scrub_masks(lines, text):
    """MON-02, SECURITY "leaks": a phone, a mail address, a token or a password is in no line."""
    logging.get_logger("x").warning("request.failed", detail=text, nested={"list": [text]})
    stdlib_logging.getLogger("library").warning("said %s", text)
    try:
        int(text)
    except ValueError:
        logging.get_logger("x").exception("job.failed")
    canaries = rf"555[ -]?0123|901820|lovelace|root@|{TOKEN}|abc\.def|abcdef123"
    assert re.search(canaries, json.dumps(lines())) is None


@pytest.mark.parametrize(
    "value",
    [
        "01a20059-31ce-793e-ac3c-d7e421c5ef8b",
        "0199a1b2-1234-7234-8234-123456789012",
        "2026-11-21T22:29:55.123456+00:00",
        "10000 rows in 1.25 s",
        "basic settings of 8 threads",
        "v23.0",
        "tokens: 5",
    ],
)
def test_scrub_keeps_ids_times_and_counts(value):
    assert logging.scrub(value) == value
    assert logging.scrub({"x": [value], "n": 1_790_000_000_000}) == {"x": [value], "n": 1_790_000_000_000}


@pytest.mark.parametrize("key", ["phone", "email", "recipient", "whatsapp_token", "Authorization", "apiKey"])
def test_scrub_masks_by_the_name_of_the_field(key):
    assert logging.scrub({key: "whatever"}) == {key: "[masked]"}


def test_dramatiq_lines_name_the_message_without_its_arguments(lines):
    """SECURITY "leaks": dramatiq prints a message with all arguments at DEBUG and ERROR."""
    broker = StubBroker(middleware=[])

    @dramatiq.actor(broker=broker)
    def greet(name):
        raise RuntimeError

    message = greet.send("Ada Canary")
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    broker.join("default")
    worker.join()
    worker.stop()
    written = lines()
    failed = [line for line in written if "Failed to process" in line["event"]]
    assert [line["event"] for line in failed] == [
        f"Failed to process message greet[{message.message_id}] with unhandled exception."
    ]
    assert [line for line in written if "Canary" in str(line)] == []


def test_configure_does_not_load_a_broker():
    code = "import sys, core.logging, core.telemetry; print([m for m in sys.modules if m.split('.')[0] == 'brokers'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
