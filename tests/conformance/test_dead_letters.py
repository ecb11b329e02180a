import pytest

from brokers.engine import Disposition
from tests.conformance.messages import SHORT, claim, claim_one, finish, ids, message, ms, reap_one


def kill(engine, *, queue="default", actor="work", code="x"):
    """A new dead letter; its id."""
    engine.enqueue_many([message(queue, actor=actor)])
    claimed = claim_one(engine, **{queue: None})
    assert finish(engine, claimed, Disposition.DEAD, code=code, error=f"because of {code}")
    return claimed.message_id


@pytest.mark.clause("DLQ-1")
def test_newest_first_page_by_page(engine):
    """OPT-08."""
    dead = [kill(engine, code=str(number)) for number in range(7)]
    kill(engine, queue="other")
    letters = engine.dead_letters("default")
    assert [letter.message_id for letter in letters] == dead[::-1]
    assert [letter.code for letter in letters] == [str(number) for number in range(6, -1, -1)]
    times = [letter.died_at for letter in letters]
    assert times == sorted(times, reverse=True)
    first = engine.dead_letters("default", limit=3)
    second = engine.dead_letters("default", limit=3, before=first[-1].died_at)
    assert [letter.message_id for letter in first + second] == dead[:0:-1]
    assert engine.dead_letters("nothing") == []


@pytest.mark.clause("DLQ-1")
def test_they_count_attempts(engine):
    engine.enqueue_many([message()])
    finish(engine, claim_one(engine), Disposition.RETRY)
    finish(engine, claim_one(engine), Disposition.DEAD)
    assert engine.dead_letters("default")[0].attempts == 2


@pytest.mark.clause("DLQ-2")
def test_counted_by_queue_actor_and_cause(engine):
    for actor, code in [("send", "a"), ("send", "a"), ("send", "b"), ("sync", "a"), ("send", "a")]:
        kill(engine, actor=actor, code=code)
    kill(engine, queue="other", actor="send", code="a")
    groups = engine.dead_letter_groups()
    counted = {(group.queue, group.actor, group.code): group.count for group in groups}
    assert counted == {
        ("default", "send", "a"): 3,
        ("default", "send", "b"): 1,
        ("default", "sync", "a"): 1,
        ("other", "send", "a"): 1,
    }
    letters = engine.dead_letters("default")
    assert (groups[0].count, groups[0].first, groups[0].last) == (3, letters[-1].died_at, letters[0].died_at)
    assert [group.count for group in engine.dead_letter_groups("other")] == [1]
    assert engine.dead_letter_groups("nothing") == []


@pytest.mark.clause("DLQ-3")
def test_requeued_they_begin_anew(engine):
    engine.enqueue_many([message()])
    lost = claim_one(engine, lease=SHORT)
    reap_one(engine)
    claimed = claim_one(engine)
    finish(engine, claimed, Disposition.DEAD)
    assert engine.requeue([claimed.message_id, message().message_id]) == 1
    assert engine.requeue([claimed.message_id]) == 0
    assert engine.dead_letters("default") == []
    again = claim_one(engine)
    assert (again.message_id, again.body, again.attempt, again.lost) == (claimed.message_id, claimed.body, 1, 0)
    assert not finish(engine, lost)
    assert engine.requeue([claimed.message_id]) == 0
    assert finish(engine, again)


@pytest.mark.clause("DLQ-3")
def test_requeued_many(engine):
    dead = [kill(engine) for _ in range(5)]
    assert engine.requeue(dead) == 5
    assert sorted(ids(claim(engine))) == sorted(dead)


@pytest.mark.clause("DLQ-4")
def test_discarded_they_are_gone(engine):
    gone, stays = kill(engine), kill(engine)
    engine.enqueue_many([waiting := message()])
    assert engine.discard([gone, waiting.message_id]) == 1
    assert engine.discard([gone]) == 0
    assert engine.requeue([gone]) == 0
    assert [letter.message_id for letter in engine.dead_letters("default")] == [stays]
    assert engine.depths()[0].waiting == 1


@pytest.mark.clause("DLQ-1", "CAN-1")
def test_a_dead_letter_cannot_be_cancelled(engine):
    dead = kill(engine)
    assert engine.cancel([dead]) == 0
    assert len(engine.dead_letters("default")) == 1


@pytest.mark.clause("DLQ-1")
def test_maintenance_does_not_touch_them(engine):
    """TRAPS 7: nothing expires silently."""
    kill(engine)
    engine.wait(ms(20))
    engine.reap(max_lost=1)
    assert len(engine.dead_letters("default")) == 1
