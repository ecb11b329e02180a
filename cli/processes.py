"""Starts the processes of the Procfile, by its own commands, and leaves none behind."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Self

from core.errors import FanfareError

STOP_WAIT = timedelta(seconds=30)
"""A worker that is asked to stop finishes or hands back what it runs within 25 s."""
POLL_S = 0.05
TAIL_LINES = 25

# Reads a process group a line. When its input closes while it lives, the starter was killed: it ends all of them.
_WARDEN = """
trap '' TERM INT HUP
while read -r group; do groups="$groups $group"; done
for group in $groups; do kill -TERM "-$group" 2>/dev/null; done
sleep 10
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
"""
# A command of the Procfile is a line of shell; it finds the programs of this environment first.
_RUN = 'PATH="$1:$PATH"; export PATH; eval "exec $2"'


class ProcessFailed(FanfareError):
    """A process ended, or did not become ready; the message has the end of its log."""


def read_procfile(path: Path) -> dict[str, str]:
    """The commands of a Procfile by name, in its order."""
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {name.strip(): command.strip() for name, _, command in lines if command and not name.startswith("#")}


class Processes:
    """Processes that end with the block, each with what it started itself, also when this process is killed.

    Args:
        folder: Where they run.
        logs: Folder of their output, a file each.
        variables: Set in their environment, on top of this process's; visible to every user of the machine.
    """

    def __init__(self, folder: Path, logs: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._logs = logs
        self._variables = [f"{name}={value}" for name, value in variables.items()]
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        """Start the warden."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._warden = subprocess.Popen(  # noqa: S603 - the constant above
            ["/bin/sh", "-c", _WARDEN], stdin=subprocess.PIPE, start_new_session=True, cwd="/"
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes."""
        self.stop()
        self._warden.kill()
        self._warden.communicate()

    def start(self, name: str, command: str) -> int:
        """Start `command` as `name`, with its output in the log of that name; returns its process id."""
        with self._log(name).open("ab") as log:
            self._running[name] = self._open(command, log.fileno())
        return self._running[name].pid

    def run(self, name: str, command: str, *, show: bool = False) -> str:
        """Run `command` to its end; returns what it printed, or shows that while it runs.

        Raises:
            ProcessFailed: it ended with an error, or one of the started processes ended meanwhile.
        """
        with self._log(name).open("w+b") as log:
            process = self._open(command, None if show else log.fileno())
            self._running[name] = process
            self.wait_until(lambda: process.poll() is not None, "", apart_from=name)
            del self._running[name]
            log.seek(0)
            printed = log.read().decode(errors="replace")
        if process.returncode:
            raise ProcessFailed(f"`{command}` ended with {process.returncode}.\n{printed}".strip())
        return printed

    def wait_until(
        self, condition: Callable[[], bool], failure: str, *, within: timedelta | None = None, apart_from: str = ""
    ) -> None:
        """Wait for `condition`.

        Raises:
            ProcessFailed: `failure`, when it took too long; or one of the started processes has ended.
        """
        began = time.monotonic()
        while not condition():
            for name, process in self._running.items():
                if name != apart_from and process.poll() is not None:
                    raise ProcessFailed(f"{name} ended with {process.returncode}.\n{self.tail(name)}")
            if within is not None and time.monotonic() - began > within.total_seconds():
                raise ProcessFailed(f"{failure} within {within.total_seconds():g} s.\n{self.tails()}")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Ask all to end (SIGTERM), wait for it, then end what is left of them (SIGKILL). Idempotent."""
        for process in self._running.values():
            _signal(process, signal.SIGTERM, group=False)
        deadline = time.monotonic() + STOP_WAIT.total_seconds()
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL, group=True)
            process.wait()
        self._running.clear()

    def tail(self, name: str) -> str:
        """The last lines of a process's log, under its name."""
        lines = self._log(name).read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join((f"--- the end of {self._log(name)}", *lines))

    def tails(self) -> str:
        """The last lines of the logs of all processes that run."""
        return "\n".join(map(self.tail, self._running))

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _open(self, command: str, output: int | None) -> subprocess.Popen[bytes]:
        programs = str(Path(sys.executable).parent)
        process = subprocess.Popen(  # noqa: S603 - commands of the Procfile and our own
            ["/usr/bin/env", *self._variables, "/bin/sh", "-c", _RUN, "sh", programs, command],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,  # its own group, and the terminal's Ctrl-C is for the one who started it
        )
        if self._warden.stdin:
            self._warden.stdin.write(b"%d\n" % process.pid)
            self._warden.stdin.flush()
        return process


def shell_words(*words: object) -> str:
    """`words` as a line of shell."""
    return shlex.join(map(str, words))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals, *, group: bool) -> None:
    """Signal a process, or its whole group, whose leader may be gone."""
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, number)
        elif process.poll() is None:
            process.send_signal(number)
