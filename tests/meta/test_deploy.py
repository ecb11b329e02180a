"""DEP-01..03: the deploy files parse, and all of them run the commands of the Procfile."""

import json
import re
import tomllib

import pytest
import yaml

from cli.main import load
from tests.meta.tree import procfile, text


def without_shell(command: str | list[str]) -> str:
    """The command behind `sh -c 'exec …'`, which platforms without a shell need for `${NAME:-default}`."""
    words = command if isinstance(command, str) else f"{command[0]} {command[1]} '{command[2]}'"
    wrapped = re.fullmatch(r"sh -c 'exec (.*)'", words)
    return wrapped[1] if wrapped else words


@pytest.fixture(scope="module")
def fly():
    return tomllib.loads(text("fly.toml"))


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load(text("compose.yaml"))["services"]


def test_procfile_names_the_four_processes():
    assert list(procfile()) == ["release", "web", "worker", "scheduler"]
    assert procfile()["worker"].startswith("dramatiq actors ")
    assert procfile()["scheduler"] == "periodiq actors"


def test_the_command_line_has_the_commands_that_are_started(services):
    """They run where only the requirements are installed, as platforms do: without the command `fanfare`."""
    started = [*procfile().values(), services["simulator"]["command"]]
    commands = {command.split()[3] for command in started if command.startswith("python -m cli ")}
    assert commands == {"migrate", "web", "simulator"}
    for name in commands:
        assert load(name).callback, name


def test_fly_runs_what_the_procfile_runs(fly):
    commands = {name: without_shell(command) for name, command in fly["processes"].items()}
    assert {"release": fly["deploy"]["release_command"], **commands} == procfile()


def test_fly_expands_variables_by_a_shell(fly):
    for command in fly["processes"].values():
        assert "$" not in command or command.startswith("sh -c '")


def test_fly_gives_every_process_a_machine_and_time_to_stop(fly):
    assert {process for vm in fly["vm"] for process in vm["processes"]} == set(fly["processes"])
    assert fly["kill_signal"] == "SIGTERM"
    assert fly["kill_timeout"] >= 30, "a worker needs 25 s to hand its messages back (RUN-09)"


def test_fly_checks_the_health_of_web(fly):
    http = fly["http_service"]
    assert http["processes"] == ["web"]
    assert {check["path"] for check in http["checks"]} == {"/health/live", "/health/ready"}
    assert str(http["internal_port"]) == fly["env"]["PORT"]


def test_compose_runs_what_the_procfile_runs(services):
    # compose replaces $NAME by itself, so a dollar for the container's shell is written twice
    commands = {name: without_shell(services[name]["command"]).replace("$$", "$") for name in procfile()}
    assert commands == procfile()


def test_compose_workers_can_be_scaled(services):
    worker = services["worker"]
    assert worker["deploy"]["replicas"] > 1
    assert not {"container_name", "ports"} & set(worker), "two containers cannot share a name or a port"


def test_compose_starts_processes_after_the_migration(services):
    for name in ("web", "worker", "scheduler"):
        assert services[name]["depends_on"]["release"]["condition"] == "service_completed_successfully"
    assert set(services["release"]["depends_on"]) == {"postgres", "valkey"}


def test_compose_keeps_the_simulator_out_of_production(services):
    assert services["simulator"]["profiles"] == ["simulator"]


def test_image_installs_by_hash_and_runs_as_a_user():
    lines = [line.strip() for line in text("Dockerfile").splitlines()]
    installs = [line for line in lines if "pip install" in line and "-e ." not in line and not line.startswith("#")]
    assert installs
    assert all("--require-hashes" in line for line in installs)
    assert lines.index("USER fanfare") > max(lines.index(line) for line in installs)
    assert " ".join(json.loads(lines[-1].removeprefix("CMD "))) == procfile()["web"]
