"""Starts the simulator as a process of its own, for tests, benchmarks and the demo."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from simulator.ledger import Arrival, read
from simulator.plan import Plan

_ADMIN_TIMEOUT_S = 30
_END_TIMEOUT_S = 10


class RunningSimulator:
    """A running simulator.

    Attributes:
        url: Such as `http://127.0.0.1:40123`.
        whatsapp_base_url: What WHATSAPP_BASE_URL must be to send to it.
        log: Path of its log.
        process: The process.
    """

    def __init__(self, process: subprocess.Popen[str], known: dict[str, str]) -> None:
        self.process = process
        self.url = known["url"]
        self.whatsapp_base_url = known["whatsapp_base_url"]
        self.log = Path(known["log"])

    def arrivals(self) -> list[Arrival]:
        """Every request so far, from the log; works after the process's death, too."""
        return read(self.log)

    def summary(self) -> dict[str, Any]:
        """Its counts, as /admin/summary.json has them."""
        return self._ask("GET", "/admin/summary.json")

    def plan(self, **changes: object) -> dict[str, Any]:
        """Changes fields of its plan (see `simulator.plan.Plan`) and returns the whole plan."""
        return self._ask("POST", "/admin/plan", changes)

    def reset(self) -> None:
        """Makes it forget its counts and limits; the log stays."""
        self._ask("POST", "/admin/reset", {})

    def terminate(self) -> int:
        """Asks it to stop (SIGTERM) and returns its exit code."""
        self.process.terminate()
        return self.process.wait(_END_TIMEOUT_S)

    def kill(self) -> None:
        """Kills it (SIGKILL)."""
        self.process.kill()
        self.process.wait(_END_TIMEOUT_S)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_ADMIN_TIMEOUT_S)
        try:
            connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            content: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise ValueError(f"The simulator refused {method} {path}: {content['error']['message']}")
        return content


@contextmanager
def running_simulator(
    *, data: Path | None = None, port: int = 0, fsync: bool = False, **plan: object
) -> Iterator[RunningSimulator]:
    """Starts a simulator, waits until it serves, and ends it at the end of the block.

    It also ends by itself when this process dies, however that happens.

    Args:
        data: Folder of its log; None: a new one that is deleted at the end.
        port: 0 takes a free one.
        fsync: Whether it answers only when its log is on the disk.
        plan: Fields of `simulator.plan.Plan`, such as `rate=12.5` or `shares={"131026": 0.01}`.
    """
    with TemporaryDirectory(prefix="simulator-") as temporary:
        plan_file = Path(temporary) / "plan.json"
        plan_file.write_text(Plan.model_validate(plan).model_dump_json())
        command = [sys.executable, "-m", "simulator", "--until-stdin-closes", f"--port={port}", f"--plan={plan_file}"]
        command += [f"--data={data or temporary}", *(["--fsync"] if fsync else [])]
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        with process:
            try:
                yield RunningSimulator(process, _known(process))
            finally:
                process.terminate()
                try:
                    process.wait(_END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()


def _known(process: subprocess.Popen[str]) -> dict[str, str]:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError(f"The simulator did not start: exit code {process.wait(_END_TIMEOUT_S)}; see its output.")
    known: dict[str, str] = json.loads(line)
    return known
