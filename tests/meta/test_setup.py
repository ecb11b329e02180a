"""`make` explains itself, and `make setup` survives the machines it meets."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.meta.tree import ROOT, make_targets, text


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def bare_path(tmp_path):
    """A PATH with the system's tools and a shim of Python that is there and does not run, as pyenv leaves them."""
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        shim = tmp_path / name
        shim.write_text("#!/bin/sh\necho 'command not found in this version' >&2\nexit 127\n", encoding="utf-8")
        shim.chmod(0o755)
    for tool in ("bash", "dirname", "env"):
        found = next(Path(folder) / tool for folder in ("/bin", "/usr/bin") if (Path(folder) / tool).exists())
        (tmp_path / tool).symlink_to(found)
    return tmp_path


def test_make_lists_every_target():
    shown = run("make")
    assert shown.returncode == 0
    assert set(re.findall(r"^  make ([a-z0-9-]+)", shown.stdout, re.MULTILINE)) == make_targets()


def test_setup_without_a_python_says_what_to_install(bare_path):
    result = run(str(ROOT / ".ci/make-venv"), str(bare_path / "venv"), PATH=str(bare_path))
    assert result.returncode == 1
    assert "needs Python 3.11 or later" in result.stderr
    assert "apt-get install python3 python3-venv" in result.stderr
    assert not (bare_path / "venv").exists()


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt", "requirements-dramatiq2.txt"])
def test_requirements_are_pinned_with_hashes(file):
    assert not re.search(r"-[cr] /", text(file)), "a path of the machine that compiled it"
    pins = re.split(r"\n(?=[a-z])", re.sub(r"^\s*#.*\n", "", text(file), flags=re.MULTILINE))
    assert len(pins) > 20
    for pin in pins:
        assert re.match(r"[a-z0-9.-]+==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin


def test_second_environment_differs_in_dramatiq_alone():
    def versions(*names):
        return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", "\n".join(map(text, names)), re.MULTILINE))

    first = versions("requirements.txt", "requirements-dev.txt")
    second = versions("requirements-dramatiq2.txt")
    differing = {name for name in second if first.get(name) != second[name]}
    assert {"dramatiq"} <= differing <= {"dramatiq", "redis"}
    assert first["dramatiq"].startswith("1.18")
    assert second["dramatiq"].startswith("2.2")
