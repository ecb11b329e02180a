from datetime import timedelta

import pytest

from brokers.engine import Disposition
from core.clock import now
from core.errors import PermanentError
from tests.conformance.messages import claim, claim_one, finish, ids, message, messages, ms, started
from tests.conftest import wait_until


@pytest.mark.clause("ENQ-1", "ENQ-2")
def test_enqueue_counts_what_is_new(engine):
    batch = messages(5)
    assert engine.enqueue_many(batch[:3]) == 3
    assert engine.enqueue_many(batch) == 2
    assert engine.enqueue_many([]) == 0
    assert sorted(ids(claim(engine))) == sorted(ids(batch))


@pytest.mark.clause("ENQ-2")
def test_the_same_id_twice_in_a_batch_is_one_message(engine):
    one = message()
    assert engine.enqueue_many([one, one]) == 1
    assert ids(claim(engine)) == [one.message_id]


@pytest.mark.clause("ENQ-2")
@pytest.mark.parametrize("state", ["delayed", "leased", "retried", "dead"])
def test_a_message_that_is_held_is_left_alone(engine, state):
    original = message(delay=timedelta(hours=1) if state == "delayed" else timedelta())
    engine.enqueue_many([original])
    if state != "delayed":
        claimed = claim_one(engine)
        if state == "dead":
            finish(engine, claimed, Disposition.DEAD)
        if state == "retried":
            finish(engine, claimed, Disposition.RETRY, delay=timedelta(hours=1))
    before = engine.depths()
    assert engine.enqueue_many([message(message_id=original.message_id, priority=1)]) == 0
    assert claim(engine) == []
    assert engine.depths() == before


@pytest.mark.clause("ENQ-3")
@pytest.mark.parametrize("disposition", [Disposition.DONE, Disposition.CANCELLED])
def test_a_message_that_just_ended_is_not_stored_again(engine, disposition):
    """TRAPS 29: the reply of an enqueue is lost, the message runs, the client sends it again."""
    sent = message()
    engine.enqueue_many([sent])
    finish(engine, claim_one(engine), disposition)
    assert engine.enqueue_many([sent]) == 0
    assert claim(engine) == []


@pytest.mark.clause("ENQ-4")
@pytest.mark.parametrize(
    "body", [b"{", b"\x00\xff \n\r\xfe", b"null", b'{"options": 3}', '{"ä": "€"}'.encode()], ids=repr
)
def test_bodies_come_back_as_they_were(engine, body):
    sent = message(body=body)
    engine.enqueue_many([sent, message()])
    received = {claimed.message_id: claimed for claimed in claim(engine)}
    assert received[sent.message_id].body == body


@pytest.mark.clause("ENQ-4", "DLQ-1")
def test_an_undecodable_body_dies_alone(engine):
    """TRAPS 30: it must not strand the messages beside it."""
    sent = message(body=b"\xff{")
    engine.enqueue_many([*messages(3), sent, *messages(3)])
    claims = claim(engine)
    for claimed in claims:
        broken = claimed.message_id == sent.message_id
        assert finish(engine, claimed, Disposition.DEAD if broken else Disposition.DONE, code="undecodable")
    (letter,) = engine.dead_letters("default")
    assert (letter.message_id, letter.body, letter.actor, letter.code) == (sent.message_id, b"\xff{", "", "undecodable")


@pytest.mark.clause("ENQ-1", "ENQ-5")
def test_a_body_that_is_too_long_refuses_the_batch(engine):
    longest = engine.capabilities.max_body_bytes
    with pytest.raises(PermanentError, match=str(longest)):
        engine.enqueue_many([message(), message(body=b"x" * (longest + 1)), message()])
    assert engine.depths() == []
    assert engine.enqueue_many([message(body=b"x" * longest)]) == 1
    assert len(claim_one(engine).body) == longest


@pytest.mark.clause("DLY-1")
def test_a_delay_passes_before_the_message_is_claimed(engine):
    engine.enqueue_many([message(delay=ms(300))])
    sent_at = now()
    assert claim(engine) == []
    assert engine.depths()[0].delayed == 1
    wait_until(lambda: bool(claim(engine)), "the delayed message did not come")
    assert ms(290) <= now() - sent_at < ms(1000)


@pytest.mark.clause("DLY-2")
def test_run_at_takes_precedence_over_delay(engine):
    soon = message(run_at=now() + ms(200), delay=timedelta(hours=1))
    past = message(run_at=now() - timedelta(days=1), delay=timedelta(hours=1))
    engine.enqueue_many([soon, past])
    assert ids(claim(engine)) == [past.message_id]
    wait_until(lambda: bool(claim(engine)), "the message did not come at its time")


@pytest.mark.clause("DLY-2")
def test_run_at_may_be_weeks_ahead(engine):
    """TRAPS 7: the stock Redis broker refuses more than 7 days."""
    engine.enqueue_many([message(run_at=now() + timedelta(weeks=8)), message(delay=timedelta(days=300))])
    assert claim(engine) == []
    (depth,) = engine.depths()
    assert (depth.waiting, depth.delayed, depth.oldest) == (0, 2, None)


@pytest.mark.clause("DLY-3")
def test_delayed_messages_are_not_held_by_their_sender(make_engine):
    """TRAPS 6 and 26."""
    sender, worker = make_engine(), make_engine()
    batch = [message(delay=ms(50)) for _ in range(20)]
    sender.enqueue_many(batch)
    sender.close()
    received: list[str] = []

    def all_came() -> bool:
        received.extend(ids(claim(worker, room=7)))
        return len(received) == len(batch)

    wait_until(all_came, "delayed messages are missing")
    assert received == ids(batch)


@pytest.mark.clause("ENQ-1", "CLM-1")
def test_a_large_batch_is_stored_whole_and_in_order(engine):
    batch = messages(3000)
    assert engine.enqueue_many(batch) == 3000
    received = [claimed for _ in range(3) for claimed in claim(engine, room=1000)]
    assert ids(received) == ids(batch)


@pytest.mark.clause("CLM-6")
def test_a_new_message_is_in_its_first_attempt(engine):
    claimed = started(engine, priority=2)
    assert (claimed.attempt, claimed.lost, claimed.priority, claimed.queue) == (1, 0, 2, "default")
