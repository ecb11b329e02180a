import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from brokers.engine import Disposition, QueueDepth
from tests.conformance.messages import (
    LEASE,
    SHORT,
    claim,
    claim_one,
    finish,
    held,
    ids,
    message,
    messages,
    ms,
    reap_one,
    started,
)
from tests.conftest import wait_until


@pytest.mark.clause("PAU-1")
def test_a_pause_is_seen_by_every_engine(make_engine):
    one, two = make_engine(), make_engine()
    one.enqueue_many([*messages(3), message("other")])
    one.pause("default")
    one.pause("default")
    assert [claimed.queue for claimed in claim(two, default=None, other=None)] == ["other"]
    assert two.depths(["default"])[0].paused
    two.resume("default")
    two.resume("default")
    assert len(claim(one)) == 3
    assert not one.depths(["default"])[0].paused


@pytest.mark.clause("PAU-1")
def test_a_pause_does_not_touch_what_runs_or_arrives(engine):
    running = started(engine)
    engine.pause("default")
    assert finish(engine, running, Disposition.RETRY)
    assert engine.enqueue_many([message()]) == 1
    assert claim(engine) == []
    assert engine.depths(["default"])[0].waiting == 2


@pytest.mark.clause("PAU-1")
def test_resume_wakes_an_idle_worker(make_engine):
    worker, other = make_engine(), make_engine()
    other.pause("default")
    other.enqueue_many([message()])
    assert claim(worker) == []
    while worker.wait(ms(50)):
        assert claim(worker) == []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.wait, timedelta(seconds=20))
        begun = time.monotonic()
        other.resume("default")
        assert waiting.result(10)
    assert time.monotonic() - begun < 1
    assert claim(worker)


@pytest.mark.clause("CAN-1")
def test_what_waits_is_removed_at_once(engine):
    """OPT-12."""
    waiting, delayed, stays = message(), message(delay=timedelta(hours=1)), message()
    engine.enqueue_many([waiting, delayed, stays])
    unknown = message().message_id
    assert engine.cancel([waiting.message_id, delayed.message_id, unknown]) == 2
    assert engine.cancel([waiting.message_id, delayed.message_id]) == 0
    assert engine.cancel([]) == 0
    assert ids(claim(engine)) == [stays.message_id]
    assert engine.depths()[0].delayed == 0


@pytest.mark.clause("CAN-2")
def test_what_runs_is_asked_to_stop(make_engine):
    worker, other = make_engine(), make_engine()
    other.enqueue_many(messages(2))
    cancelled, stays = claim(worker)
    assert other.cancel([cancelled.message_id]) == 1
    answer = worker.heartbeat(held([cancelled, stays]), LEASE)
    assert answer.cancelled == {cancelled.message_id}
    assert answer.lost == frozenset()
    assert finish(worker, cancelled, Disposition.CANCELLED)
    assert [depth.leased for depth in other.depths()] == [1]


@pytest.mark.clause("CAN-2")
def test_what_was_asked_to_stop_may_be_done_all_the_same(engine):
    claimed = started(engine)
    engine.cancel([claimed.message_id])
    assert finish(engine, claimed, result=b"1")
    assert engine.result(claimed.message_id) == b"1"


@pytest.mark.clause("CAN-3")
@pytest.mark.parametrize("how", ["retry", "reschedule", "release", "lost"])
def test_what_was_asked_to_stop_does_not_wait_again(engine, how):
    claimed = started(engine, lease=SHORT)
    engine.cancel([claimed.message_id])
    if how == "release":
        engine.release_many(held([claimed]))
    elif how == "lost":
        reap_one(engine)
    else:
        assert finish(engine, claimed, Disposition(how))
    assert engine.depths() == []


@pytest.mark.clause("DEP-1")
def test_depths_count_every_state(engine):
    assert engine.depths() == []
    engine.enqueue_many([*messages(4, "b"), *messages(2, "b", delay=timedelta(hours=1)), *messages(1, "a")])
    first, _ = claim(engine, room=2, b=None)
    finish(engine, first, Disposition.DEAD)
    a, b = engine.depths()
    assert (a.queue, a.waiting, a.leased) == ("a", 1, 0)
    assert (b.queue, b.waiting, b.delayed, b.leased, b.dead, b.paused) == ("b", 2, 2, 1, 1, False)
    assert [depth.queue for depth in engine.depths(["b"])] == ["b"]
    assert engine.depths(["nothing"]) == [QueueDepth("nothing")]


@pytest.mark.clause("DEP-1")
def test_a_paused_empty_queue_is_shown(engine):
    engine.pause("empty")
    assert engine.depths() == [QueueDepth("empty", paused=True)]


@pytest.mark.clause("DEP-1")
def test_depths_tell_how_long_the_oldest_waits(engine):
    engine.enqueue_many([message(priority=4)])
    wait_until(lambda: _oldest(engine) >= ms(150), "the age does not grow")
    engine.enqueue_many([message(priority=1), message(delay=timedelta(hours=1))])
    assert _oldest(engine) >= ms(150)
    claim(engine, room=1)
    assert _oldest(engine) >= ms(150)
    claim(engine)
    assert engine.depths()[0].oldest is None


def _oldest(engine):
    return engine.depths(["default"])[0].oldest


@pytest.mark.clause("PUR-1")
def test_purge_spares_what_runs(engine):
    engine.enqueue_many([*messages(5), *messages(2, delay=timedelta(hours=1)), *messages(1, "other")])
    running, dead = claim(engine, room=2)
    finish(engine, dead, Disposition.DEAD)
    assert engine.purge("default") == 6
    default, other = engine.depths()
    assert default == QueueDepth("default", leased=1)
    assert other.waiting == 1
    assert engine.purge("default") == 0
    assert finish(engine, running, Disposition.RETRY)
    assert claim_one(engine).message_id == running.message_id


@pytest.mark.clause("PUR-1")
def test_purge_of_many(engine):
    engine.enqueue_many(messages(2500))
    assert engine.purge("default") == 2500
    assert engine.depths() == []
