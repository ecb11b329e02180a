import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from brokers.engine import Disposition
from tests.conformance.messages import (
    LEASE,
    SHORT,
    claim,
    claim_one,
    ended,
    finish,
    held,
    ids,
    message,
    messages,
    ms,
    reap_one,
    request,
    started,
)
from tests.conftest import wait_until


@pytest.mark.clause("CLM-1")
def test_priority_then_arrival(engine):
    """OPT-01."""
    batch = [message(priority=priority) for priority in (3, 1, 4, 2, 3, 1, 4, 2)]
    for one in batch:
        engine.enqueue_many([one])
    expected = [batch[i].message_id for i in (1, 5, 3, 7, 0, 4, 2, 6)]
    assert ids(claim(engine, room=3)) + ids(claim(engine)) == expected


@pytest.mark.clause("CLM-1")
def test_priority_over_queues(engine):
    a, b, c = (message(queue, priority=priority) for queue, priority in (("a", 3), ("b", 1), ("c", 2)))
    d = message("a", priority=2)
    engine.enqueue_many([a, b, c, d])
    assert ids(claim(engine, a=None, b=None, c=None)) == ids([b, c, d, a])


@pytest.mark.clause("CLM-1")
def test_claims_can_be_put_in_order_by_their_position(engine):
    """TRAPS: dramatiq 1.18 gives prefetched messages of equal priority out in no order."""
    engine.enqueue_many(messages(50))
    positions = [claimed.order for claimed in claim(engine)]
    assert positions == sorted(positions)
    assert len(set(positions)) == 50


@pytest.mark.clause("CLM-1")
def test_a_delayed_message_arrives_when_it_is_due(engine):
    delayed, early, late = message(delay=ms(60)), message(), message()
    engine.enqueue_many([early])
    engine.enqueue_many([delayed])
    wait_until(lambda: engine.depths()[0].waiting == 2, "the delayed message is not due")
    engine.enqueue_many([late])
    assert ids(claim(engine)) == ids([early, delayed, late])


@pytest.mark.clause("CLM-2")
def test_room_and_queues_bound_a_claim(engine):
    engine.enqueue_many([*messages(5, "a"), *messages(5, "b"), *messages(5, "c")])
    claims = claim(engine, room=7, a=None, b=None)
    assert len(claims) == 7
    assert {claimed.queue for claimed in claims} == {"a", "b"}
    assert len(claim(engine, a=None, b=None)) == 3
    assert claim(engine, a=None, b=None) == []
    assert claim(engine, nobody=None) == []
    assert claim(engine, room=0, c=None) == []


@pytest.mark.clause("CLM-3")
def test_a_bound_holds_over_all_workers(make_engine):
    one, two = make_engine(), make_engine()
    one.enqueue_many([*messages(5, "bound"), *messages(3, "free")])
    first = claim(one, bound=2, free=None)
    assert Counter(c.queue for c in first) == {"bound": 2, "free": 3}
    assert claim(two, bound=2, free=None) == []
    running = next(c for c in first if c.queue == "bound")
    finish(one, running)
    assert len(claim(two, bound=2)) == 1
    assert claim(one, bound=2) == []


@pytest.mark.clause("CLM-3", "LSE-1")
def test_the_place_of_a_killed_worker_comes_back(engine):
    """TRAPS 33."""
    engine.enqueue_many(messages(2, "bound"))
    assert len(claim(engine, lease=SHORT, bound=1)) == 1
    assert claim(engine, bound=1) == []
    reap_one(engine)
    assert len(claim(engine, bound=1)) == 1


@pytest.mark.clause("CLM-3")
def test_a_bound_holds_when_many_claim_at_once(make_engine):
    engines = [make_engine() for _ in range(4)]
    engines[0].enqueue_many(messages(40, "bound"))
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda i: claim(engines[i % 4], bound=5), range(16)))
    assert sum(map(len, batches)) == 5


@pytest.mark.clause("CLM-4")
def test_a_repeated_request_returns_the_same_messages(engine):
    """TRAPS 28: the reply of a fetch is lost."""
    engine.enqueue_many([*messages(3, "a"), *messages(3, "b")])
    asked = request(room=4, a=None, b=None)
    first = engine.claim(asked)
    assert engine.claim(asked) == first
    assert engine.depths(["a", "b"])[0].leased + engine.depths(["a", "b"])[1].leased == 4
    finish(engine, first[0])
    assert engine.claim(asked) == first[1:]
    assert len(claim(engine, a=None, b=None)) == 2


@pytest.mark.clause("CLM-4", "FIN-3")
def test_a_repeated_request_does_not_return_what_was_lost(engine):
    engine.enqueue_many(messages(1))
    asked = request(lease=SHORT)
    (first,) = engine.claim(asked)
    reap_one(engine)
    again = claim_one(engine)
    assert again.token != first.token
    assert engine.claim(asked) == []


@pytest.mark.clause("CLM-5")
def test_no_message_is_claimed_twice_and_none_is_left(make_engine):
    engines = [make_engine() for _ in range(3)]
    batch = [*messages(300, "a"), *messages(300, "b")]
    engines[0].enqueue_many(batch)
    begin = threading.Barrier(6)

    def work(number: int) -> list[str]:
        engine = engines[number % 3]
        begin.wait()
        received: list[str] = []
        while claims := claim(engine, room=1 + number * 5, a=None, b=None):
            assert all(engine.finish_many([ended(claimed) for claimed in claims]))
            received += ids(claims)
        return received

    with ThreadPoolExecutor(6) as pool:
        received = [message_id for part in pool.map(work, range(6)) for message_id in part]
    # A claim may come back empty while others hold locks on what is left.
    received += ids(claim(engines[0], room=1000, a=None, b=None))
    assert sorted(received) == sorted(ids(batch))


@pytest.mark.clause("CLM-6")
@pytest.mark.parametrize(("how", "attempt"), [("retry", 2), ("reschedule", 1), ("release", 1), ("lost", 2)])
def test_what_counts_as_an_attempt(engine, how, attempt):
    """TRAPS 5 and 34: being asked to wait is no failure."""
    claimed = started(engine, lease=SHORT)
    if how == "release":
        engine.release_many(held([claimed]))
    elif how == "lost":
        reap_one(engine)
    else:
        finish(engine, claimed, Disposition(how))
    assert claim_one(engine).attempt == attempt


@pytest.mark.clause("CLM-7")
def test_losses_are_counted_and_outlive_a_retry(engine):
    started(engine, lease=SHORT)
    reap_one(engine)
    again = claim_one(engine)
    assert again.lost == 1
    finish(engine, again, Disposition.RETRY)
    assert claim_one(engine).lost == 1


@pytest.mark.clause("CLM-2")
def test_many_queues_are_claimed_at_once(engine):
    queues = {f"queue-{number}": None for number in range(25)}
    engine.enqueue_many([message(queue, priority=priority) for queue in queues for priority in (3, 1)])
    claims = engine.claim(request(room=30, lease=LEASE, **queues))
    assert [claimed.priority for claimed in claims] == [1] * 25 + [3] * 5
