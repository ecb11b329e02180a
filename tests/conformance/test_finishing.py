from datetime import timedelta

import pytest

from brokers.engine import Disposition, Finish
from core.clock import now
from tests.conformance.messages import (
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
    started,
)
from tests.conftest import wait_until

ENDS = [Disposition.DONE, Disposition.CANCELLED]
AGAINS = [Disposition.RETRY, Disposition.RESCHEDULE]


@pytest.mark.clause("FIN-1")
@pytest.mark.parametrize("disposition", ENDS)
def test_an_end_removes_the_message(engine, disposition):
    assert finish(engine, started(engine), disposition)
    assert engine.depths() == []
    assert claim(engine) == []


@pytest.mark.clause("FIN-1")
def test_dead_keeps_the_cause(engine):
    claimed = started(engine, actor="send")
    assert finish(engine, claimed, Disposition.DEAD, code="130429", error="Too many.\nTry later: ä")
    (letter,) = engine.dead_letters("default")
    assert (letter.message_id, letter.queue, letter.actor) == (claimed.message_id, "default", "send")
    assert (letter.code, letter.error, letter.attempts) == ("130429", "Too many.\nTry later: ä", 1)
    assert letter.body == claimed.body
    assert abs(letter.died_at - now()) < timedelta(seconds=5)
    assert claim(engine) == []


@pytest.mark.clause("FIN-2")
@pytest.mark.parametrize("disposition", AGAINS)
def test_again_at_once(engine, disposition):
    """TRAPS 38."""
    claimed = started(engine)
    assert finish(engine, claimed, disposition)
    again = claim_one(engine)
    assert (again.message_id, again.body) == (claimed.message_id, claimed.body)
    assert again.token != claimed.token


@pytest.mark.clause("FIN-2")
@pytest.mark.parametrize("disposition", AGAINS)
def test_again_after_a_delay(engine, disposition):
    finish(engine, started(engine), disposition, delay=ms(200))
    finished_at = now()
    assert claim(engine) == []
    wait_until(lambda: bool(claim(engine)), "the message did not come back")
    assert now() - finished_at >= ms(190)


@pytest.mark.clause("FIN-2")
def test_rescheduled_to_a_moment(engine):
    finish(engine, started(engine), Disposition.RESCHEDULE, run_at=now() + timedelta(days=30), delay=ms(1))
    (depth,) = engine.depths()
    assert (depth.delayed, depth.waiting, depth.leased) == (1, 0, 0)


@pytest.mark.clause("FIN-3", "LSE-4")
def test_an_older_token_changes_nothing(engine):
    old = started(engine, lease=SHORT)
    reap_one(engine, max_lost=9)
    assert not finish(engine, old)
    assert engine.depths()[0].waiting == 1
    new = claim_one(engine)
    for disposition in Disposition:
        assert not finish(engine, old, disposition, code="late", result=b"late")
    assert engine.result(old.message_id) is None
    assert engine.depths()[0].leased == 1
    assert finish(engine, new)


@pytest.mark.clause("FIN-3")
def test_what_was_never_leased_is_refused(engine):
    token = started(engine).token
    sent = message()
    engine.enqueue_many([sent])
    assert engine.finish_many([Finish(sent.message_id, "default", token, Disposition.DONE)]) == [False]
    assert engine.depths()[0].waiting == 1


@pytest.mark.clause("FIN-4")
@pytest.mark.parametrize("disposition", list(Disposition))
def test_a_repeated_finish_is_true_and_does_nothing(engine, disposition):
    claimed = started(engine)
    answer = ended(claimed, disposition, follow_ups=(message("next"),), code="x", result=b"1", delay=ms(1))
    assert engine.finish_many([answer]) == [True]
    before = engine.depths()
    engine.enqueue_many([message("other")])
    other = claim_one(engine, other=None)
    assert engine.finish_many([ended(other), answer, answer]) == [True, True, True]
    wait_until(lambda: disposition not in AGAINS or engine.depths(["default"])[0].waiting == 1, "it did not come back")
    assert [depth.dead + depth.waiting + depth.delayed for depth in before] == [
        depth.dead + depth.waiting + depth.delayed for depth in engine.depths()
    ]


@pytest.mark.clause("FIN-4", "FIN-3")
def test_a_repeated_retry_does_not_touch_the_next_attempt(engine):
    first = started(engine)
    assert finish(engine, first, Disposition.RETRY)
    second = claim_one(engine)
    assert finish(engine, first, Disposition.RETRY)
    assert engine.depths()[0].leased == 1
    assert finish(engine, second)
    assert finish(engine, first, Disposition.RETRY)
    assert engine.depths() == []


@pytest.mark.clause("FIN-4")
def test_the_same_finish_twice_in_a_batch(engine):
    claimed = started(engine)
    answer = ended(claimed, follow_ups=(message("next"),))
    assert engine.finish_many([answer, answer]) == [True, True]
    assert engine.depths(["next"])[0].waiting == 1


@pytest.mark.clause("FIN-5")
@pytest.mark.parametrize("disposition", list(Disposition))
def test_follow_ups_enter_with_the_finish(engine, disposition):
    follow_ups = (
        message("next", priority=2, delay=timedelta(hours=1)),
        message("next", body=b"\xff\x00"),
        message("b"),
    )
    assert finish(engine, started(engine), disposition, follow_ups=follow_ups, error="é", result=b"\x00")
    (b, following) = engine.depths(["next", "b"])
    assert (following.waiting, following.delayed, b.waiting) == (1, 1, 1)
    assert claim_one(engine, next=None).body == b"\xff\x00"


@pytest.mark.clause("FIN-5")
def test_no_follow_ups_of_an_older_token(engine):
    old = started(engine, lease=SHORT)
    reap_one(engine, max_lost=9)
    assert not finish(engine, old, follow_ups=(message("next"),))
    assert engine.depths(["next"])[0].waiting == 0


@pytest.mark.clause("FIN-6")
def test_answers_stand_in_order(engine):
    engine.enqueue_many(messages(6))
    claims = claim(engine)
    engine.release_many(held(claims[2:3]))
    answers = engine.finish_many(
        [ended(claimed, list(Disposition)[n % 5], code="x") for n, claimed in enumerate(claims)]
    )
    assert answers == [True, True, False, True, True, True]
    assert engine.finish_many([]) == []


@pytest.mark.clause("FIN-6")
def test_a_large_batch(engine):
    engine.enqueue_many(messages(2500))
    claims = [claimed for _ in range(3) for claimed in claim(engine, room=1000)]
    assert engine.finish_many([ended(claimed) for claimed in claims]) == [True] * 2500
    assert engine.depths() == []


@pytest.mark.clause("RES-1")
@pytest.mark.parametrize("size", [0, 3, 9000], ids=["empty", "small", "over 8000 bytes"])
def test_results_are_kept(engine, size):
    """TRAPS 18 and 36: the stock Postgres result of 8000 bytes breaks NOTIFY."""
    claimed = started(engine)
    assert engine.result(claimed.message_id) is None
    finish(engine, claimed, result=b"\xff" * size)
    assert engine.result(claimed.message_id) == b"\xff" * size


@pytest.mark.clause("RES-1")
def test_results_expire(engine):
    claimed = started(engine)
    finish(engine, claimed, result=b"1", result_ttl=ms(150))
    assert engine.result(claimed.message_id) == b"1"
    wait_until(lambda: engine.result(claimed.message_id) is None, "the result did not expire")
    engine.reap(max_lost=3)
    assert engine.result(claimed.message_id) is None


@pytest.mark.clause("REL-1")
def test_released_messages_stand_where_they_stood(engine):
    batch = messages(5)
    engine.enqueue_many(batch)
    claims = claim(engine, room=3)
    engine.enqueue_many(later := messages(1))
    engine.release_many(held(claims))
    assert ids(claim(engine)) == ids([*batch, *later])


@pytest.mark.clause("REL-2", "LSE-4")
def test_a_lost_lease_cannot_be_released(engine):
    old = started(engine, lease=SHORT)
    reap_one(engine, max_lost=9)
    new = claim_one(engine)
    engine.release_many(held([old]))
    engine.release_many([])
    assert engine.depths()[0].leased == 1
    assert finish(engine, new)
    engine.release_many(held([new]))
    assert engine.depths() == []
