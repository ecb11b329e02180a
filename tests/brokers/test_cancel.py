"""OPT-12: cancelling, as the writer of a job sees it, on both brokers."""

import time
from typing import Any

import dramatiq
from dramatiq.middleware import CurrentMessage

from brokers.job import Payload, Priority, job
from core.errors import Cancelled, RetryPolicy
from tests.e2e.stack import until


class Nothing(Payload):
    pass


def test_a_running_job_learns_within_a_second_that_it_was_cancelled(broker, start_worker):
    begun, stopped = [], []

    @job(name="t.long", queue="q", priority=Priority.NORMAL, retry=RetryPolicy(attempts=3))
    def long(payload: Nothing) -> None:
        begun.append(time.monotonic())
        message: Any = CurrentMessage.get_current_message()
        while not message.stop_requested:
            time.sleep(0.005)
        stopped.append(time.monotonic())
        raise Cancelled("Asked to stop.")

    start_worker()
    message = long.send()
    until(lambda: begun and time.monotonic() - begun[0] > 1, 10, "it runs for a while")
    asked = time.monotonic()
    assert broker.engine.cancel([message.message_id]) == 1
    until(lambda: stopped, 10, "it stops")
    assert stopped[0] - asked < 1.5, "a heartbeat a second, and what a busy machine adds"
    until(lambda: not broker.engine.holds([message.message_id]), 10, "its end")
    assert (len(begun), broker.engine.dead_letters("q")) == (1, [])


def test_a_waiting_job_that_is_cancelled_never_runs(broker, start_worker):
    ran = []

    @dramatiq.actor(queue_name="q")
    def note(n):
        ran.append(n)

    first, second = note.send_with_options(args=(1,), delay=50), note.send(2)
    assert broker.engine.cancel([first.message_id]) == 1
    start_worker()
    until(lambda: ran, 10, "the other runs")
    broker.join("q", timeout=5000)
    assert ran == [2]
    assert not broker.engine.holds([first.message_id, second.message_id])
