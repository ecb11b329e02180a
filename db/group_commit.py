"""Lets many threads share one statement: each hands in its item, one of them runs the statement for all who wait.

A commit costs the same for one row as for a hundred, so sends that end at the same moment are claimed and settled
together. There is no thread of its own and no fixed wait: whoever comes while a statement runs, is in the next one.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MAX_BATCH = 500


class GroupCommit(Generic[ItemT, ResultT]):
    """Collects the items of concurrent callers into batches.

    Args:
        run: Does the work for a batch in one transaction and returns a result for each item, in order. What it raises
            is raised to every caller of the batch.
    """

    def __init__(self, run: Callable[[Sequence[ItemT]], Sequence[ResultT]]) -> None:
        self._run = run
        self._queue: list[_Waiting[ItemT, ResultT]] = []
        self._has_leader = False
        self._mutex = threading.Lock()

    def submit(self, item: ItemT) -> ResultT:
        """Block until the batch with `item` is done, and return the item's result."""
        mine: _Waiting[ItemT, ResultT] = _Waiting(item)
        with self._mutex:
            self._queue.append(mine)
            follows, self._has_leader = self._has_leader, True
        if follows:
            mine.woken.acquire()
        if not mine.is_done:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return cast("ResultT", mine.result)

    def _lead(self) -> None:
        """Run the batch at the head of the queue, the leader's item first in it; then pass the lead on."""
        with self._mutex:
            batch, self._queue = self._queue[:MAX_BATCH], self._queue[MAX_BATCH:]
        try:
            results = self._run([waiting.item for waiting in batch])
            for waiting, result in zip(batch, results, strict=True):
                waiting.result = result
        except BaseException as error:  # noqa: BLE001 - every caller of the batch raises it
            for waiting in batch:
                waiting.error = error
        finally:
            with self._mutex:
                self._has_leader = bool(self._queue)
                successors = self._queue[:1]
            for waiting in batch:
                waiting.is_done = True
                waiting.woken.release()
            for successor in successors:
                successor.woken.release()


class _Waiting(Generic[ItemT, ResultT]):
    """One caller's item and, later, its result or the error of its batch."""

    __slots__ = ("error", "is_done", "item", "result", "woken")

    def __init__(self, item: ItemT) -> None:
        self.item = item
        self.is_done = False
        self.result: ResultT | None = None
        self.error: BaseException | None = None
        # Held until another thread has done the work or passes the lead on; a semaphore would cost several of it.
        self.woken = threading.Lock()
        self.woken.acquire()
