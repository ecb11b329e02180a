import os
import uuid
from datetime import timedelta

import pytest

from brokers.engine import Disposition, Envelope, Limit
from core.errors import TransientError
from tests.conformance import servers
from tests.conformance.conftest import engine_of
from tests.conformance.messages import LEASE, claim, claim_one, ended, finish, held, ids, message, messages, ms, request
from tests.conftest import wait_until

NOWHERE = {"postgres": "postgresql://me:secret@127.0.0.1:1/db", "redis": "redis://:secret@127.0.0.1:1/0"}


@pytest.mark.clause("STO-1")
def test_an_unreachable_store_is_transient(kind):
    engine = engine_of(kind, NOWHERE.get(kind, NOWHERE["redis"]))
    for call in (
        lambda: engine.enqueue_many([message()]),
        lambda: engine.claim(request()),
        engine.depths,
        engine.ping,
        lambda: engine.wait(ms(10)),
    ):
        with pytest.raises(TransientError, match=r"127\.0\.0\.1") as caught:
            call()
        assert "secret" not in str(caught.value)
    engine.wake()
    engine.close()


@pytest.mark.clause("STO-1", "STO-2")
def test_a_restart_of_the_store(kind):
    """TRAPS 25 and 26: the messages outlive it, and so do the engines."""
    with servers.running(kind) as server:
        engine = engine_of(kind, server.url)
        waiting, delayed, dead, running = message(), message(delay=timedelta(hours=1)), message("b"), message("c")
        engine.enqueue_many([waiting, delayed, dead, running])
        finish(engine, claim_one(engine, b=None), Disposition.DEAD, code="x")
        claimed = claim_one(engine, c=None)
        engine.reserve([Limit("key", 1)], 3)
        engine.pause("paused")
        server.kill()
        with pytest.raises(TransientError) as caught:
            engine.enqueue_many([message()])
        assert "secret" not in str(caught.value)
        with pytest.raises(TransientError):
            engine.finish_many([ended(claimed)])
        with pytest.raises(TransientError):
            engine.wait(timedelta(seconds=5))
        server.start()
        wait_until(lambda: _works(engine), "the engine did not recover")
        assert finish(engine, claimed)
        assert ids(claim(engine)) == [waiting.message_id]
        assert [letter.message_id for letter in engine.dead_letters("b")] == [dead.message_id]
        assert engine.depths(["default"])[0].delayed == 1
        assert engine.depths(["paused"])[0].paused
        assert not engine.wait(ms(50))
        engine.close()


def _works(engine) -> bool:
    try:
        engine.ping()
    except TransientError:
        return False
    return True


@pytest.mark.clause("STO-3")
def test_ping_and_close(engine):
    assert timedelta() < engine.ping() < timedelta(seconds=5)
    engine.enqueue_many([message()])
    engine.close()
    engine.close()
    claimed = claim_one(engine)
    assert not engine.heartbeat(held([claimed]), LEASE).lost
    engine.close()
    engine.wake()
    assert engine.wait(ms(500))


@pytest.mark.clause("STO-3")
def test_capabilities_are_told(engine):
    assert engine.capabilities.name
    assert engine.capabilities.max_body_bytes >= 1_000_000


@pytest.mark.clause("STO-4")
def test_parent_and_child_use_the_engine_after_a_fork(engine):
    engine.enqueue_many(messages(4))
    claim(engine, room=1)
    assert engine.wait(ms(1)) in {True, False}
    child = os.fork()
    if child == 0:
        # Pytest must not see what happens here: the status tells.
        try:
            status = 0 if len(claim(engine, room=1)) == 1 and engine.enqueue_many(messages(1)) == 1 else 1
            engine.wake()
            engine.wait(ms(1))
        except BaseException:  # noqa: BLE001 - whatever it was, the child must end here
            status = 2
        os._exit(status)
    own = claim(engine, room=1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len(own) == 1
    assert (engine.depths()[0].leased, engine.depths()[0].waiting) == (3, 2)


@pytest.mark.clause("ENQ-1")
def test_names_with_white_space_do_not_break_a_batch(engine):
    """They are refused or stored; nothing in between."""
    odd = Envelope(str(uuid.uuid4()), "a b", 3, b"{}")
    try:
        stored = engine.enqueue_many([message(), odd])
    except Exception:  # noqa: BLE001 - any refusal will do
        stored = 0
    assert sum(depth.waiting for depth in engine.depths()) == stored
