"""The product's processes, as a platform would start them, with everything that a campaign needs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulator.process import RunningSimulator

ROOT = Path(__file__).parents[2]
END_TIMEOUT_S = 40


def until(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """Poll until `condition` is true and return what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {timeout_s} s: {what}")
        time.sleep(0.05)
    return result


@dataclass
class Stack:
    """Worker processes that share one environment.

    Attributes:
        environment: Variables that all of them get.
        logs: Folder with a file for each process.
    """

    environment: dict[str, str]
    logs: Path
    workers: list[subprocess.Popen] = field(default_factory=list)

    def start_worker(self, *, threads: int = 8) -> subprocess.Popen:
        """`dramatiq actors` with one process of so many threads, in a process group of its own."""
        dramatiq = [str(Path(sys.executable).with_name("dramatiq")), "actors"]
        with (self.logs / f"worker-{len(self.workers)}.log").open("w") as log:
            worker = subprocess.Popen(
                [*dramatiq, "--processes", "1", "--threads", str(threads)],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen) -> None:
        """SIGKILL the worker with its children: no farewell, no clean-up."""
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(END_TIMEOUT_S)

    def stop(self, worker: subprocess.Popen) -> int:
        """SIGTERM, as a deploy does; returns the exit code."""
        worker.terminate()
        return worker.wait(END_TIMEOUT_S)

    def log_text(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.logs.glob("*.log")))

    def end(self) -> None:
        for worker in self.workers:
            try:
                os.killpg(worker.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            worker.wait(END_TIMEOUT_S)


@contextmanager
def running_stack(folder: Path, simulator: RunningSimulator, **variables: str) -> Iterator[Stack]:
    """A stack that sends to `simulator`; all its processes end with the block."""
    environment = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "VIRTUAL_ENV"}},
        "WHATSAPP_BASE_URL": simulator.whatsapp_base_url,
        "WHATSAPP_TOKEN": "test-token",
        "DATA_DIR": str(folder / "data"),
        "ENVIRONMENT": "test",
        **variables,
    }
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    stack = Stack(environment, logs)
    try:
        yield stack
    finally:
        stack.end()
