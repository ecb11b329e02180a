"""Between the thread that claims and the threads that run: messages in the store's order."""

import threading
from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import count
from queue import SimpleQueue
from typing import NamedTuple

from brokers.message import LeasedMessage


class Item(NamedTuple):
    """What dramatiq's worker threads take: version 1 unpacks a pair, version 2 asks for its `message`."""

    priority: int
    message: LeasedMessage


class WorkQueue:
    """Takes the place of the `queue.PriorityQueue` of dramatiq's worker, with the methods that the worker calls.

    That one costs a condition variable for each message and compares messages in Python; here idle threads wait in C
    for a ticket, and numbers are compared.
    """

    def __init__(self) -> None:
        self.unfinished_tasks = 0
        self._heap: list[tuple[int, float, int, LeasedMessage]] = []
        self._numbers = count()
        self._tickets: SimpleQueue[None] = SimpleQueue()
        self._mutex = threading.Lock()
        self._all_done = threading.Condition(self._mutex)

    def put_many(self, messages: Iterable[LeasedMessage]) -> None:
        """Line up `messages`: by priority, then as they came into the store."""
        with self._mutex:
            for message in messages:
                claim = message.claim
                heappush(self._heap, (claim.priority, claim.order, next(self._numbers), message))
                self.unfinished_tasks += 1
                self._tickets.put(None)

    def get(self, *, block: bool = True, timeout: float | None = None) -> Item:
        """The first message. Raises queue.Empty when there is none, with `block` for `timeout` seconds."""
        self._tickets.get(block, timeout)
        with self._mutex:
            priority, _, _, message = heappop(self._heap)
        return Item(priority, message)

    def get_nowait(self) -> Item:
        """The first message. Raises queue.Empty when there is none."""
        return self.get(block=False)

    def task_done(self) -> None:
        """Say that a message that was taken has been dealt with."""
        with self._mutex:
            self.unfinished_tasks -= 1
            if not self.unfinished_tasks:
                self._all_done.notify_all()

    def join(self) -> None:
        """Wait until all messages have been dealt with."""
        with self._all_done:
            self._all_done.wait_for(lambda: not self.unfinished_tasks)
