"""A copy of the project in which a page's examples are tried, with a worker of its own on each broker."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from simulator.process import RunningSimulator, running_simulator
from tests.e2e.stack import END_TIMEOUT_S
from tests.meta.tree import PACKAGES, ROOT, files


@dataclass
class Checkout:
    """A copy of the project's packages in `folder`, and the variables with which its processes run."""

    folder: Path
    variables: dict[str, str]
    worker: subprocess.Popen[bytes] | None = None

    def write(self, path: str, code: str) -> None:
        (self.folder / path).write_text(code, encoding="utf-8")

    def run(self, *words: str) -> str:
        """What a Python process started with `words` prints; fails the test when it fails."""
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.log()
        return done.stdout

    def start_worker(self) -> subprocess.Popen[bytes]:
        """`dramatiq actors` in the copy."""
        program = [str(Path(sys.executable).with_name("dramatiq")), "actors", "--processes", "1", "--threads", "4"]
        with (self.folder / "worker.log").open("wb") as log:
            self.worker = subprocess.Popen(
                program, cwd=self.folder, env=self.variables, stdout=log, stderr=log, start_new_session=True
            )
        return self.worker

    def log(self) -> str:
        file = self.folder / "worker.log"
        return file.read_text() if file.exists() else ""

    def end(self) -> None:
        if self.worker:
            try:
                os.killpg(self.worker.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            self.worker.wait(END_TIMEOUT_S)


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(data=tmp_path / "simulator", rate=100.0) as running:
        yield running


@pytest.fixture(params=["postgres", "redis"])
def checkout(request, tmp_path: Path, database: str, settings_env, simulator: RunningSimulator) -> Iterator[Checkout]:
    broker_url = "" if request.param == "postgres" else request.getfixturevalue("redis_url")
    folder = tmp_path / "checkout"
    for path in files():
        if path.parts[0] in {*PACKAGES, "docs"}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
    settings_env(DATABASE_URL=database, BROKER_URL=broker_url)
    copy = Checkout(
        folder,
        {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
        | {
            "DATABASE_URL": database,
            "BROKER_URL": broker_url,
            "DATA_DIR": str(tmp_path / "data"),
            "ENVIRONMENT": "test",
            "WHATSAPP_BASE_URL": simulator.whatsapp_base_url,
            "WHATSAPP_TOKEN": "test-token",
        },
    )
    yield copy
    copy.end()
