"""The durable log: one JSON line per request, written when it arrives and before it is answered."""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

FILE_NAME = "whatsapp.jsonl"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, as the log has it.

    Attributes:
        at_ns: Arrival by the wall clock, nanoseconds since 1970.
        mono_ns: Arrival by the machine's monotonic clock, for windows and rates.
        number: Id of the sending number.
        recipient: As sent.
        callback: `biz_opaque_callback_data`.
        content: The `text` or `template` object as sent; None in a request that was not understood.
        attempt: Which request to this recipient it was, from 1; 0 for one refused by a limit or not understood.
        outcome: `ok`, another outcome of `simulator.plan`, or the error code that was answered.
        accepted: True when WhatsApp would have taken the message, whatever became of the answer.
        wamid: The message's id, empty unless accepted.
    """

    at_ns: int
    mono_ns: int
    number: str
    recipient: str
    callback: str
    content: Any
    attempt: int
    outcome: str
    accepted: bool
    wamid: str


def read(path: Path) -> list[Arrival]:
    """All arrivals in the log at `path`, in order; none if it does not exist. See `stream`."""
    return list(stream(path))


def stream(path: Path) -> Iterator[Arrival]:
    """The arrivals one by one. A last line without its end belongs to a request that was never answered: left out."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield Arrival(**orjson.loads(line))


def worst_window(times: Iterable[int], window: timedelta) -> int:
    """The most of `times` (nanoseconds, in any order) that lie in one window; its end is not part of it."""
    window_ns = window // timedelta(microseconds=1) * 1000
    inside: deque[int] = deque()
    worst = 0
    for time in sorted(times):
        inside.append(time)
        while time - inside[0] >= window_ns:
            inside.popleft()
        worst = max(worst, len(inside))
    return worst


class Ledger:
    """Appends to the log.

    Args:
        folder: Made if it is missing; an existing log is continued.
        fsync: Makes `durable` wait for the disk. Without it a line survives the death of this process, with it the
            death of the machine.
        sync: Brings a file, by its descriptor, to the disk; called in a thread.
    """

    def __init__(self, folder: Path, *, fsync: bool = False, sync: Callable[[int], None] = os.fsync) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._fsync = fsync
        self._sync_file = sync
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        _cut_unfinished_line(self._file)
        self._waiting: asyncio.Future[None] | None = None
        self._syncing: asyncio.Task[None] | None = None

    def append(self, arrival: Arrival) -> None:
        """Writes one line, in one call to the operating system."""
        line = orjson.dumps(arrival, option=orjson.OPT_APPEND_NEWLINE)
        if os.write(self._file, line) != len(line):
            raise OSError(f"the log {self.path} took only part of a line: is the disk full?")

    async def durable(self) -> None:
        """Returns when every line appended before is on the disk; callers that wait meanwhile share the next fsync."""
        if not self._fsync:
            return
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().create_future()
        waiting = self._waiting
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await asyncio.shield(waiting)

    def close(self) -> None:
        """Closes the log, on disk if it was asked for."""
        if self._fsync:
            os.fsync(self._file)
        os.close(self._file)

    async def _sync(self) -> None:
        while (waiting := self._waiting) is not None:
            self._waiting = None
            try:
                await asyncio.to_thread(self._sync_file, self._file)
            except OSError as error:
                waiting.set_exception(error)
            else:
                waiting.set_result(None)
        self._syncing = None


def _cut_unfinished_line(file: int) -> None:
    """Cuts what a dying machine left of a last line, so that the next one begins on a line of its own."""
    size = os.fstat(file).st_size
    end = size
    while end and os.pread(file, 1, end - 1) != b"\n":
        end -= 1
    if end < size:
        os.ftruncate(file, end)
