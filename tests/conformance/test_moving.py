"""What lets two stores work together (RUN-04, X-06)."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from brokers.engine import Disposition, Envelope
from tests.conformance.messages import (
    SHORT,
    claim,
    claim_one,
    finish,
    held,
    ids,
    member,
    message,
    messages,
    reap_one,
)
from tests.conftest import wait_until

HOUR = timedelta(hours=1)


def batch():
    return str(uuid.uuid4())


def idle(engine, limit=2):
    found, cursor = {}, ""
    while True:
        page, cursor = engine.list_idle(cursor, limit)
        found.update(page)
        if not cursor:
            return found


@pytest.mark.clause("MOV-1")
def test_listing_gives_all_that_no_worker_holds(engine):
    waiting, later, dead, running = message(), message(delay=HOUR), message("dead"), message("run")
    engine.enqueue_many([waiting, later, dead, running])
    finish(engine, claim_one(engine, dead=None), Disposition.DEAD, code="x")
    claim_one(engine, run=None)
    assert set(idle(engine)) == {waiting.message_id, later.message_id, dead.message_id}


@pytest.mark.clause("MOV-2")
def test_what_is_taken_out_has_all_its_facts(engine):
    first, later, dead = message(), message(run_at=datetime(2030, 1, 1, tzinfo=UTC)), message(priority=1)
    engine.enqueue_many([dead])
    finish(engine, claim_one(engine), Disposition.DEAD, code="why", error="because\nof this")
    engine.enqueue_many([first, later])
    engine.release_many(held([claim_one(engine)]))
    claim_one(engine, lease=SHORT)
    reap_one(engine)
    name = batch()
    taken = {s.message_id: s for s in engine.take_out(name, ids([first, later, dead]), HOUR)}
    assert {s.message_id: s for s in engine.take_out(name, [], HOUR)} == taken
    assert (taken[first.message_id].attempts, taken[first.message_id].lost) == (1, 1)
    assert abs(taken[later.message_id].due - later.run_at) < timedelta(milliseconds=1)
    letter = taken[dead.message_id]
    assert (letter.code, letter.error, letter.attempts, letter.priority) == ("why", "because\nof this", 1, 1)
    assert letter.died_at is not None
    assert taken[first.message_id].died_at is None
    assert not claim(engine)
    assert not engine.dead_letters("default")
    assert engine.enqueue_many([first]) == 0
    assert engine.holds([first.message_id, "7c1fb7d4-1111-4111-8111-111111111111"]) == {first.message_id}


@pytest.mark.clause("MOV-3")
def test_what_workers_hold_is_not_taken(engine):
    engine.enqueue_many(messages(2))
    (running,) = claim(engine, room=1)
    taken = engine.take_out(batch(), [*idle(engine), running.message_id], HOUR)
    assert running.message_id not in {s.message_id for s in taken}
    assert len(taken) == 1
    assert finish(engine, running)


@pytest.mark.clause("MOV-3")
def test_a_group_is_taken_whole_or_not_at_all(engine):
    callback = message("callbacks")
    engine.create_group("g", 2)
    members = [member("g", callback), member("g", callback)]
    engine.enqueue_many(members)
    assert idle(engine) == {m.message_id: "g" for m in members}
    assert engine.take_out(batch(), [members[0].message_id], HOUR) == []
    assert len(engine.take_out(batch(), ids(members), HOUR)) == 2


@pytest.mark.clause("MOV-4")
def test_a_mover_that_falls_silent_changes_nothing(engine):
    first, second, later, dead = message(), message(), message(delay=HOUR), message("dead")
    engine.enqueue_many([first, second, later, dead])
    finish(engine, claim_one(engine, dead=None), Disposition.DEAD, code="x")
    before = [(d.waiting, d.delayed, d.dead) for d in engine.depths()]
    name = batch()
    engine.take_out(name, ids([first, later, dead]), SHORT)

    def is_back():
        assert engine.reap(max_lost=3) == 0
        return [(d.waiting, d.delayed, d.dead) for d in engine.depths()] == before

    wait_until(is_back, "what was set aside does not come back")
    assert not engine.forget(name)
    claimed = claim(engine)
    assert ids(claimed) == ids([first, second])
    assert [(c.attempt, c.lost) for c in claimed] == [(1, 0)] * 2


@pytest.mark.clause("MOV-5")
def test_what_is_forgotten_is_gone_and_stays_so(engine):
    callback = message("callbacks")
    engine.create_group("g", 1)
    only = member("g", callback)
    engine.enqueue_many([only])
    name = batch()
    engine.take_out(name, [only.message_id], HOUR)
    assert engine.forget(name)
    assert engine.forget(name)
    assert not engine.take_out(name, [only.message_id], HOUR)
    assert not engine.holds([only.message_id])
    assert not idle(engine)
    assert not engine.forget(batch())


@pytest.mark.clause("MOV-6")
def test_what_is_put_in_is_as_it_was(engine):
    early, late, later, dead = message(), message(), message(delay=HOUR), message("dead")
    callback = message("callbacks")
    engine.create_group("g", 2)
    members = [member("g", callback, delay=HOUR), member("g", callback, delay=HOUR)]
    engine.enqueue_many([dead])
    finish(engine, claim_one(engine, dead=None), Disposition.DEAD, code="c", error="e")
    letter = engine.dead_letters("dead")[0]
    engine.enqueue_many([early, late, later, *members])
    claim_one(engine, room=1, lease=SHORT)
    reap_one(engine)
    out = batch()
    stored = engine.take_out(out, list(idle(engine)), HOUR)
    assert engine.forget(out)
    into = batch()
    assert engine.put_in(into, stored) == 6
    assert engine.put_in(into, stored) == 0
    claimed = claim(engine)
    assert ids(claimed) == ids([early, late])
    assert [(c.attempt, c.lost) for c in claimed] == [(2, 1), (1, 0)]
    assert claimed[0].body == early.body or engine.capabilities.name == "postgres"
    assert engine.depths(["default"])[0].delayed == 3
    assert engine.dead_letters("dead") == [letter]
    assert finish(engine, claimed[0])
    assert engine.put_in(into, stored) == 0, "not even after it has run"
    assert not engine.depths(["callbacks"])[0].waiting
    for one in members:
        assert engine.cancel([one.message_id]) == 1
    assert engine.depths(["callbacks"])[0].waiting == 1


@pytest.mark.clause("MOV-6")
def test_bodies_of_any_bytes_can_be_moved(engine):
    odd = Envelope(str(uuid.uuid4()), "default", 3, b'\xff\x00 not json "\\u0000"')
    engine.enqueue_many([odd])
    out = batch()
    stored = engine.take_out(out, [odd.message_id], HOUR)
    engine.forget(out)
    engine.put_in(batch(), stored)
    assert claim_one(engine).body == odd.body


@pytest.mark.clause("MOV-7")
def test_what_is_revoked_is_gone_uncounted(engine):
    callback = message("callbacks")
    engine.create_group("g", 3)
    waiting, running, dead = member("g", callback), member("g", callback), member("g", callback, priority=1)
    engine.enqueue_many([dead])
    finish(engine, claim_one(engine), Disposition.DEAD, group_id="g")
    engine.enqueue_many([running, waiting])
    claimed = claim_one(engine, room=1)
    engine.revoke(ids([waiting, running, dead]), ["g"])
    assert not engine.holds(ids([waiting, running, dead]))
    assert not finish(engine, claimed)
    assert not claim(engine)
    assert not engine.dead_letters("default")
    assert not engine.depths(["callbacks"])[0].waiting


@pytest.mark.clause("MOV-8")
def test_a_store_has_a_name_and_tells_whether_it_takes_messages(make_engine):
    one, other = make_engine(), make_engine()
    assert one.identity() == other.identity() != ""
    one.probe()
