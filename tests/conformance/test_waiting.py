import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from brokers.engine import Disposition
from tests.conformance.messages import SHORT, claim, claim_one, finish, held, message, messages, ms, reap_one
from tests.conftest import wait_until

LONG = timedelta(seconds=20)


def idle(engine, **queues):
    """As a worker: nothing left to claim, so wait."""
    assert claim(engine, **queues) == []


def quiet(engine):
    """Wait until nothing is left over that would end a wait."""
    idle(engine)
    wait_until(lambda: not engine.wait(ms(50)), "wait returns without a reason")


@pytest.mark.clause("WAI-1")
def test_an_arrival_ends_the_wait(make_engine):
    worker, sender = make_engine(), make_engine()
    quiet(worker)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.wait, LONG)
        begun = time.monotonic()
        sender.enqueue_many([message()])
        assert waiting.result(10)
    assert time.monotonic() - begun < 2
    assert claim(worker)


@pytest.mark.clause("WAI-1")
def test_an_arrival_between_claim_and_wait_is_not_missed(make_engine):
    worker, sender = make_engine(), make_engine()
    quiet(worker)
    idle(worker)
    sender.enqueue_many([message()])
    begun = time.monotonic()
    assert worker.wait(LONG)
    assert time.monotonic() - begun < 2


@pytest.mark.clause("WAI-1")
def test_without_a_reason_the_wait_ends_with_its_time(engine):
    quiet(engine)
    begun = time.monotonic()
    assert not engine.wait(ms(300))
    assert 0.25 < time.monotonic() - begun < 2


@pytest.mark.clause("WAI-1")
@pytest.mark.parametrize("how", ["retry", "release", "reap", "requeue", "follow-up"])
def test_what_waits_again_ends_the_wait_of_another(make_engine, how):
    worker, other = make_engine(), make_engine()
    other.enqueue_many([message()])
    claimed = claim_one(other, lease=SHORT)
    if how == "requeue":
        finish(other, claimed, Disposition.DEAD)
    quiet(worker)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.wait, LONG)
        if how == "retry":
            finish(other, claimed, Disposition.RETRY)
        elif how == "release":
            other.release_many(held([claimed]))
        elif how == "reap":
            reap_one(other)
        elif how == "requeue":
            other.requeue([claimed.message_id])
        else:
            finish(other, claimed, follow_ups=(message(),))
        assert waiting.result(10)
    assert claim(worker)


@pytest.mark.clause("WAI-2", "DLY-1")
def test_a_delayed_message_ends_the_wait_when_it_is_due(engine):
    engine.enqueue_many([message(delay=ms(300))])
    idle(engine)
    begun = time.monotonic()
    wait_until(lambda: engine.wait(LONG) and bool(claim(engine)), "the message did not come")
    assert 0.2 < time.monotonic() - begun < 1.5


@pytest.mark.clause("WAI-2")
def test_a_delayed_message_that_arrives_during_the_wait(make_engine):
    worker, sender = make_engine(), make_engine()
    quiet(worker)

    def work() -> float:
        begun = time.monotonic()
        while not claim(worker):
            worker.wait(LONG)
        return time.monotonic() - begun

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        sender.enqueue_many([message(delay=ms(300))])
        assert 0.2 < working.result(15) < 2


@pytest.mark.clause("WAI-3")
def test_wake_ends_the_wait_from_another_thread(engine):
    quiet(engine)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            begun = time.monotonic()
            waiting = pool.submit(engine.wait, LONG)
            engine.wake()
            assert waiting.result(10)
            assert time.monotonic() - begun < 2
    quiet(engine)


@pytest.mark.clause("WAI-3")
def test_wake_before_the_wait_is_not_missed(engine):
    quiet(engine)
    engine.wake()
    begun = time.monotonic()
    assert engine.wait(LONG)
    assert time.monotonic() - begun < 2


@pytest.mark.clause("WAI-4")
def test_one_arrival_wakes_one_of_many(make_engine):
    workers, sender = [make_engine() for _ in range(4)], make_engine()
    for worker in workers:
        quiet(worker)
    ready = threading.Barrier(5)

    def wait(worker):
        ready.wait()
        return worker.wait(timedelta(seconds=1.5))

    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(wait, worker) for worker in workers]
        ready.wait()
        time.sleep(0.3)  # until all four wait: a store does not tell
        sender.enqueue_many([message()])
        woken = [waiting.result(10) for waiting in waits]
    assert sum(woken) == 1


@pytest.mark.clause("WAI-1", "WAI-4")
def test_more_than_one_worker_can_take_wakes_the_next(make_engine):
    one, two, sender = make_engine(), make_engine(), make_engine()
    quiet(one)
    quiet(two)

    def work(worker):
        worker.wait(LONG)
        return claim(worker, room=5)

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(work, worker) for worker in (one, two)]
        sender.enqueue_many(messages(10))
        assert [len(worked.result(10)) for worked in working] == [5, 5]


@pytest.mark.clause("WAI-1", "CLM-3")
def test_a_free_place_under_a_bound_ends_the_wait_of_another(make_engine):
    """OPT: concurrency of a job type over processes."""
    one, two = make_engine(), make_engine()
    one.enqueue_many(messages(2, "bound"))
    (running,) = claim(one, bound=1)
    idle(two, bound=1)
    while two.wait(ms(50)):
        idle(two, bound=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(two.wait, LONG)
        finish(one, running)
        assert waiting.result(10)
    assert len(claim(two, bound=1)) == 1
