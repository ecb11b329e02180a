from datetime import timedelta

import pytest

from brokers.engine import Disposition, Held
from tests.conformance.messages import (
    LEASE,
    SHORT,
    claim,
    claim_one,
    finish,
    held,
    ids,
    keep,
    message,
    messages,
    ms,
    reap_one,
    started,
)
from tests.conftest import wait_until


@pytest.mark.clause("LSE-1")
def test_an_expired_lease_is_taken_back_to_its_place(engine):
    batch = messages(3)
    engine.enqueue_many(batch)
    claim(engine, room=1, lease=SHORT)
    reap_one(engine)
    assert ids(claim(engine)) == ids(batch)
    assert engine.reap(max_lost=3) == 0


@pytest.mark.clause("LSE-1")
def test_any_worker_takes_many_leases_back(make_engine):
    dead, alive = make_engine(), make_engine()
    dead.enqueue_many([*messages(1200), *messages(5, "other")])
    claim(dead, room=2000, lease=ms(50), default=None, other=None)
    found = 0

    def all_back():
        nonlocal found
        found += alive.reap(max_lost=3)
        return found == 1205

    wait_until(all_back, "leases were not taken back")
    assert sum(depth.waiting for depth in alive.depths()) == 1205


@pytest.mark.clause("LSE-2")
def test_poison_dies(engine):
    sent = message(actor="bomb")
    engine.enqueue_many([sent])
    for losses in range(3):
        claimed = claim_one(engine, lease=SHORT)
        assert (claimed.lost, claimed.attempt) == (losses, losses + 1)
        reap_one(engine)
    assert claim(engine) == []
    (letter,) = engine.dead_letters("default")
    assert (letter.message_id, letter.code, letter.actor, letter.attempts) == (sent.message_id, "crashed", "bomb", 3)
    assert letter.error


@pytest.mark.clause("LSE-3")
def test_heartbeats_keep_a_lease(engine):
    claimed = started(engine, lease=SHORT)
    for _ in range(3):
        assert engine.heartbeat(held([claimed]), LEASE).lost == frozenset()
    assert engine.reap(max_lost=3) == 0
    assert finish(engine, claimed)


@pytest.mark.clause("LSE-3", "LSE-4")
def test_heartbeats_tell_what_is_no_longer_ours(engine):
    engine.enqueue_many(messages(4))
    ours, reaped, released, done = claim(engine, lease=SHORT)
    keep(engine, ours, released, done)
    reap_one(engine)
    engine.release_many(held([released]))
    finish(engine, done)
    stranger = Held("0198c0de-0000-7000-8000-000000000000", "default", ours.token)
    answer = engine.heartbeat([*held([ours, reaped, released, done]), stranger], LEASE)
    assert answer.lost == {*ids([reaped, released, done]), stranger.message_id}
    assert answer.cancelled == frozenset()
    assert engine.heartbeat([], LEASE).lost == frozenset()


@pytest.mark.clause("LSE-4")
def test_an_old_token_does_not_renew_the_next_lease(engine):
    old = started(engine, lease=SHORT)
    reap_one(engine)
    new = claim_one(engine, lease=SHORT)
    assert engine.heartbeat(held([old]), timedelta(hours=1)).lost == {old.message_id}
    reap_one(engine)
    assert not finish(engine, new)


@pytest.mark.clause("LSE-1")
def test_an_expired_finish_counts_and_a_finished_message_is_not_reaped(engine):
    for disposition in (Disposition.DONE, Disposition.DEAD, Disposition.RETRY):
        claimed = started(engine, lease=SHORT)
        wait_until(lambda: not engine.wait(SHORT), "wait returns without a reason")
        assert finish(engine, claimed, disposition)
        assert engine.reap(max_lost=3) == 0
        engine.purge("default")
