from datetime import timedelta

import pytest

from brokers.engine import Disposition, Held
from tests.conformance.messages import LEASE, claim, claim_one, finish, held, ids, lose, message, messages, ms, started
from tests.conftest import wait_until


def reap_one(engine, max_lost=3):
    wait_until(lambda: engine.reap(max_lost=max_lost) == 1, "the lease did not expire")


@pytest.mark.clause("LSE-1")
def test_an_expired_lease_is_taken_back_to_its_place(engine):
    batch = messages(3)
    engine.enqueue_many(batch)
    claim(engine, room=1, lease=ms(100))
    assert engine.reap(max_lost=3) == 0
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
        claimed = claim_one(engine)
        assert (claimed.lost, claimed.attempt) == (losses, losses + 1)
        lose(engine, claimed)
        reap_one(engine)
    assert claim(engine) == []
    (letter,) = engine.dead_letters("default")
    assert (letter.message_id, letter.code, letter.actor, letter.attempts) == (sent.message_id, "crashed", "bomb", 3)
    assert letter.error


@pytest.mark.clause("LSE-3")
def test_heartbeats_keep_a_lease(engine):
    claimed = started(engine)
    for _ in range(3):
        assert engine.heartbeat(held([claimed]), ms(80)).lost == frozenset()
        assert engine.heartbeat(held([claimed]), LEASE).lost == frozenset()
    assert engine.reap(max_lost=3) == 0
    assert finish(engine, claimed)


@pytest.mark.clause("LSE-3", "LSE-4")
def test_heartbeats_tell_what_is_no_longer_ours(engine):
    engine.enqueue_many(messages(4))
    ours, reaped, released, done = claim(engine)
    lose(engine, reaped)
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
    old = started(engine)
    lose(engine, old)
    reap_one(engine)
    new = claim_one(engine, lease=ms(100))
    assert engine.heartbeat(held([old]), timedelta(hours=1)).lost == {old.message_id}
    reap_one(engine)
    assert not finish(engine, new)


@pytest.mark.clause("LSE-1", "LSE-2")
def test_a_finished_message_is_not_reaped(engine):
    for disposition in (Disposition.DONE, Disposition.DEAD, Disposition.RETRY):
        claimed = started(engine)
        lose(engine, claimed)
        assert finish(engine, claimed, disposition)
        assert engine.reap(max_lost=3) == 0
        engine.purge("default")
