"""Worker processes that a test kills, stops, or gives a wrong clock."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.effects import Effects

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 20


class Processes:
    """Worker processes on one system; they share the effects."""

    def __init__(self, kind: str, url: str, folder: Path) -> None:
        self._config = {"kind": kind, "url": url, "effects": str(folder / "effects")}
        self.effects = Effects(folder / "effects")
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """Start a worker; `options` are those of `tests.faults.worker`."""
        config = json.dumps(self._config | options)
        command = [sys.executable, "-m", "tests.faults.worker", config]
        with (self._folder / f"worker-{len(self._running)}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        self._running.append(process)
        return process

    def log_text(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("worker-*.log")))

    def end(self) -> None:
        for process in self._running:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait(END_TIMEOUT_S)
