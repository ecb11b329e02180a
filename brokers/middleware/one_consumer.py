"""Serves all queues of a worker process by one consumer.

dramatiq starts a thread with a connection of its own for each queue. With one consumer the threads and connections of
a process stay the same however many queues there are, and one claim chooses by priority over all of them.
"""

from queue import Empty
from typing import TYPE_CHECKING, Any

from dramatiq.middleware import Middleware

from brokers.work_queue import WorkQueue

if TYPE_CHECKING:
    from dramatiq import Worker

    from brokers.broker import EngineBroker


class OneConsumer(Middleware):
    """Makes the worker believe that its first consumer serves every queue, and stops fetching on shutdown."""

    def before_worker_boot(self, broker: "EngineBroker", worker: "Worker") -> None:
        """Take the place of the worker's table of consumers, and of its queue, before it starts the first thread."""
        broker.worker = worker
        worker.consumers = _Shared()
        worker.work_queue = WorkQueue()  # type: ignore[assignment]  # it has what dramatiq calls

    def before_worker_shutdown(self, broker: "EngineBroker", worker: "Worker") -> None:
        """Fetch no more, and hand back at once what was fetched and has not begun."""
        for consumer in list(broker.consumers):
            consumer.stop_fetching()
        waiting = []
        while True:
            try:
                item = worker.work_queue.get_nowait()
            except Empty:
                break
            waiting.append(item.message)
            worker.work_queue.task_done()
        for consumer in list(broker.consumers):
            consumer.requeue(waiting)


class _Shared(dict[str, Any]):
    """A dict of one value, which every key finds."""

    def __contains__(self, queue_name: object) -> bool:
        return len(self) > 0

    def __missing__(self, queue_name: str) -> Any:  # noqa: ANN401 - dramatiq's consumer thread
        return next(iter(self.values()))
