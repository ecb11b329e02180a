"""The command line as its users meet it: real processes, their exit codes and what they print."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from cli.main import COMMANDS, load
from tests.conftest import SETTINGS_VARIABLES

FANFARE = Path(sys.executable).with_name("fanfare")
DATA = Path(__file__).parents[1] / "data"
SAMPLE = DATA / "contacts_10k.csv"
EXPECTED = json.loads((DATA / "contacts_10k.expected.json").read_text())
UNREACHABLE = "postgresql://nobody:hunter2@127.0.0.1:1/nothing"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fanfare(tmp_path) -> Run:
    """Runs `fanfare` with the test's settings, in an empty folder."""

    def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [str(FANFARE), *map(str, words)]
        environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"} | variables
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute(f"select count(*) from {table}").fetchone()  # noqa: S608 - names in this file
    assert found
    return int(found[0])


def test_help_lists_every_command_and_what_it_does(fanfare):
    done = fanfare("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"│ {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_of_a_command_what_the_command_says_of_itself(name):
    assert (load(name).help or "").partition("\n\n")[0].replace("\n", " ") == COMMANDS[name]


def test_help_answers_without_importing_what_the_commands_need():
    heavy = {"psycopg", "pydantic", "dramatiq", "fastapi", "redis", "phonenumbers"}
    code = f"import sys, cli.main; cli.main.commands(); print(sorted({heavy!r} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ("campain",),
        ("contacts", "import", "nowhere.csv"),
        ("campaign", "send", "--name", "A", "--sender", "1"),
        ("campaign", "send", "--name", "A", "--sender", "1", "--text", "a", "--template", "b"),
        ("campaign", "send", "--name", "A", "--sender", "1", "--text", "a", "--default", "name"),
        ("campaign", "send", "--name", "A", "--sender", "1", "--text", "a", "--rate", "1", "--no-limit"),
        ("campaign", "watch", "no-id"),
    ],
)
def test_wrong_usage_ends_with_2(fanfare, words):
    done = fanfare(*words)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr


def test_wrong_setting_is_one_message_without_its_value(fanfare):
    done = fanfare("health", BROKER_URL="amqp://user:hunter2@there")
    assert done.returncode == 1
    assert "BROKER_URL: " in done.stderr
    assert "hunter2" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_file_without_a_key_column_is_refused_and_nothing_is_stored(fanfare, database, tmp_path):
    (tmp_path / "a.csv").write_text("colour,size\nred,1\n")
    done = fanfare("contacts", "import", "a.csv", "--here")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    assert [rows(database, table) for table in ("organizations", "imports", "jobs", "import_chunks")] == [0, 0, 0, 0]


def test_import_here_gives_exact_counts_and_an_error_report(fanfare, database, tmp_path):
    """JOB-04, and valid rows become contacts."""
    report = tmp_path / "left out.csv"
    done = fanfare("contacts", "import", SAMPLE, "--here", "--json", "--errors", report)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["rows"], result["inserted"]) == (EXPECTED["rows"], EXPECTED["valid"])
    assert result["duplicate"] == EXPECTED["duplicate"]
    reasons = ("invalid_phone", "invalid_email", "missing_contact")
    assert result["errors_by_reason"] == {reason: EXPECTED[reason] for reason in reasons}
    assert rows(database, "contacts") == EXPECTED["valid"]
    with report.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == EXPECTED["rows"] - EXPECTED["valid"]
    assert set(lines[0]) == {"line", "column", "value", "reason"}
    listed = json.loads(fanfare("contacts", "list", "--json").stdout)
    assert [(one["id"], one["job"]) for one in listed] == [(result["id"], "partial_success")]


def test_import_here_shows_counts_by_outcome_to_people(fanfare, database, tmp_path):
    (tmp_path / "a.csv").write_text("phone,name\n+14155552671,Ann\n+14155552671,Bo\n123,Cy\n,Di\n")
    done = fanfare("contacts", "import", "a.csv", "--here")
    assert done.returncode == 0, done.stderr
    shown = [line.split()[:2] for line in done.stdout.splitlines() if line.strip()]
    for line in (["1", "new"], ["1", "duplicate"], ["1", "invalid_phone"], ["1", "missing_contact"], ["4", "rows"]):
        assert line in shown
    assert ".csv" in done.stdout.splitlines()[-1]


def test_import_of_an_organization_belongs_to_it(fanfare, database, tmp_path):
    (tmp_path / "a.csv").write_text("phone\n+14155552671\n")
    for _ in range(2):
        assert fanfare("contacts", "import", "a.csv", "--here", "--organization", "Acme").returncode == 0
    assert rows(database, "organizations") == 1
    assert len(json.loads(fanfare("contacts", "list", "--organization", "Acme", "--json").stdout)) == 2
    assert json.loads(fanfare("contacts", "list", "--json").stdout) == []
    unknown = fanfare("contacts", "list", "--organization", "Acne")
    assert unknown.returncode == 1
    assert "'Acne'" in unknown.stderr


def test_unknown_template_variable_is_told_and_nothing_is_stored(fanfare, database, tmp_path):
    (tmp_path / "a.csv").write_text("phone,city\n+14155552671,Rome\n")
    assert fanfare("contacts", "import", "a.csv", "--here").returncode == 0
    tables = ("senders", "campaigns", "jobs", "deliveries", "dramatiq.queue")
    before = [rows(database, table) for table in tables]
    words = ("campaign", "send", "--name", "A", "--sender", "1", "--text", "Hi {{name}} of {{city}}: {{colour}} {{")
    done = fanfare(*words)
    assert done.returncode == 1
    assert "colour" in done.stderr
    assert "{{ at character" in done.stderr
    assert "city" not in done.stderr
    assert "--default" in done.stderr
    assert [rows(database, table) for table in tables] == before


def test_campaign_is_accepted_with_its_sender_and_its_limit(fanfare, database, tmp_path):
    (tmp_path / "a.csv").write_text("phone,name\n+14155552671,Ann\n")
    assert fanfare("contacts", "import", "a.csv", "--here").returncode == 0
    words = ("campaign", "send", "--name", "[b]A", "--sender", "1", "--text", "Hi {{name}} {{x}}", "--default", "x=y")
    first = fanfare(*words, "--json", "--rate", "12.5")
    assert first.returncode == 0, first.stderr
    campaign_id = json.loads(first.stdout)["id"]
    again = fanfare(*words)  # keeps the sender's rate
    assert again.returncode == 0
    assert "fanfare campaign watch" in again.stdout
    shown = json.loads(fanfare("campaign", "show", campaign_id, "--json").stdout)
    assert (shown["name"], shown["status"], shown["limit"]) == ("[b]A", "running", 12.5)
    assert "[b]A" in fanfare("campaign", "list").stdout
    assert rows(database, "senders") == 1
    waiting = {one["queue"]: one["waiting"] for one in json.loads(fanfare("queues", "--json").stdout)}
    assert waiting["bulk-messages"] == 2


def test_campaign_that_does_not_exist_is_told(fanfare, database):
    done = fanfare("campaign", "show", "00000000-0000-7000-8000-000000000001")
    assert done.returncode == 1
    assert "There is no campaign" in done.stderr


def test_watching_can_be_ended_and_says_how_to_go_on(fanfare, database, tmp_path):
    (tmp_path / "a.csv").write_text("phone\n+14155552671\n")
    assert fanfare("contacts", "import", "a.csv", "--here").returncode == 0
    words = ("campaign", "send", "--name", "A", "--sender", "1", "--text", "Hi", "--watch")
    with subprocess.Popen(
        [FANFARE, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout
        first = watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate(timeout=30)
    assert first.startswith("Campaign ")
    assert f"fanfare campaign watch {first.split()[1]}" in rest
    assert watching.returncode == 130
    assert "Traceback" not in errors


def test_health_is_good_with_a_database(fanfare, database):
    done = fanfare("health", "--json")
    assert done.returncode == 0, done.stdout
    checks = {one["name"]: one for one in json.loads(done.stdout)}
    assert list(checks) == ["database", "migrations", "broker", "queues"]
    assert all(one["ok"] for one in checks.values())


def test_health_says_what_is_down_and_what_to_do(fanfare):
    """MON-02."""
    done = fanfare("health", DATABASE_URL=UNREACHABLE)
    assert done.returncode == 1
    assert "database" in done.stdout
    assert "DATABASE_URL" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_health_with_a_broker_that_is_down(fanfare, database):
    done = fanfare("health", "--json", BROKER_URL="redis://127.0.0.1:1/0", BROKER_FALLBACK="false")
    assert done.returncode == 1
    checks = {one["name"]: one for one in json.loads(done.stdout)}
    assert checks["database"]["ok"]
    assert not checks["broker"]["ok"]


def test_health_tells_that_messages_go_another_way(fanfare, database):
    done = fanfare("health", "--json", BROKER_URL="redis://127.0.0.1:1/0")
    assert done.returncode == 0
    checks = {one["name"]: one for one in json.loads(done.stdout)}
    assert not checks["broker"]["ok"]
    way = "down; messages go through the database: 0 there, 0 in doubt, 0 kept for the broker"
    assert checks["broker"]["found"] == way


def test_health_with_an_empty_database_says_how_to_migrate(fanfare, empty_database):
    done = fanfare("health", DATABASE_URL=empty_database)
    assert done.returncode == 1
    assert "fanfare migrate" in done.stdout


def test_migrate_twice(fanfare, empty_database):
    """DB-01."""
    first = fanfare("migrate", DATABASE_URL=empty_database)
    assert first.returncode == 0, first.stderr
    assert "applied 0001_ledger" in first.stdout
    second = fanfare("migrate", DATABASE_URL=empty_database)
    assert second.returncode == 0
    assert "applied" not in second.stdout
    assert rows(empty_database, "campaigns") == 0


def test_queue_is_paused_and_goes_on(fanfare, database):
    assert fanfare("queues").stdout == "All queues are empty.\n"
    assert fanfare("queues", "pause", "bulk-messages").returncode == 0
    paused = {one["queue"]: one["paused"] for one in json.loads(fanfare("queues", "--json").stdout)}
    assert paused["bulk-messages"]
    assert "fanfare queues resume bulk-messages" in fanfare("health").stdout
    assert fanfare("queues", "resume", "bulk-messages").returncode == 0
    assert not any(one["paused"] for one in json.loads(fanfare("queues", "--json").stdout))


def test_test_settings_reach_no_child():
    assert not [name for name in SETTINGS_VARIABLES if name in os.environ and name not in {"ENVIRONMENT", "DATA_DIR"}]
