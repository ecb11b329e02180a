"""Starts worker processes, sends to them, and looks at what they hold."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from brokers.engine import Envelope
from tests.conftest import wait_until

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A process of `tests.deployments.worker`.

    Attributes:
        pid: Its process id.
        notes: File with a line for each message that ran.
        log: File with its output.
    """

    pid: int
    notes: Path
    log: Path

    def ran(self) -> list[str]:
        """Names of the messages that ran so far."""
        return [line for line in self.notes.read_text().splitlines() if line != "ready"]

    def status(self, field: str) -> int:
        """A number of /proc: VmHWM is the most memory so far in kB, Threads their count."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


@contextmanager
def running_worker(folder: Path, *, queues: int = 1, threads: int = 4, **variables: str) -> Iterator[RunningWorker]:
    """A worker of the broker that `variables` name; killed at the end."""
    name = uuid.uuid4().hex
    notes, log = folder / f"{name}.notes", folder / f"{name}.log"
    notes.touch()
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    command = [sys.executable, "-m", "tests.deployments.worker", str(queues), str(threads), str(notes)]
    environment = kept | {"ENVIRONMENT": "test", "DATA_DIR": str(folder / "data")} | variables
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: "ready" in notes.read_text(), f"the worker does not start: {log}")
        yield RunningWorker(process.pid, notes, log)
    finally:
        process.kill()
        process.wait(20)


def note(name: str, number: int = 0, *, sends: int = 0, priority: int = 3) -> Envelope:
    """A message for the queue q`number` that makes the worker note `name`, and then send as many of the same."""
    message_id, queue = str(uuid.uuid4()), f"q{number}"
    about = {"queue_name": queue, "actor_name": f"note{number}", "message_id": message_id, "message_timestamp": 0}
    body = json.dumps(about | {"args": [name, number, sends], "kwargs": {}, "options": {}}).encode()
    return Envelope(message_id, queue, priority, body)
