"""X-07: `actor.send` inside `db.pool.transaction` takes effect if and only if it commits, on both brokers."""

import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dramatiq
import pytest

from brokers.choose import make_broker
from brokers.encoder import OrjsonEncoder
from brokers.engine import ClaimRequest
from brokers.fan_out import fan_out
from brokers.outbox import Outbox
from core.errors import PermanentError, TransientError
from db import outbox, pool
from tests.conformance import servers
from tests.conformance.messages import claim, ended, ids, message, messages
from tests.conftest import wait_until
from tests.e2e.stack import until

ROOT = Path(__file__).parents[2]

CRASH = """
import os, sys
from brokers.choose import make_engine
from brokers.outbox import Outbox
from db import outbox as table, pool
from tests.conformance.messages import messages
engine = make_engine()
book = Outbox(engine, engine.first)
ids = messages(3)
for message in ids:
    print(message.message_id)
sys.stdout.flush()
{die}
with pool.transaction():
    book.enqueue_many(ids)
"""
DIE_BEFORE_TELLING = "type(engine).enqueue_many = lambda *_: os._exit(9)"
DIE_BEFORE_REMOVING = "table.remove = lambda *_: os._exit(9)"


class Boom(Exception):
    pass


@pytest.fixture
def sent(broker):
    @dramatiq.actor(queue_name="q")
    def work(n):
        """Runs nowhere: the tests look at the store."""

    return work


def waiting(broker, queue="q"):
    return broker.engine.depths([queue])[0].waiting


def test_a_send_takes_effect_at_the_commit(broker, sent):
    with pool.transaction():
        sent.send(1)
        assert waiting(broker) == 0
    assert waiting(broker) == 1
    assert outbox.waiting() == 0


def test_a_send_of_a_transaction_that_fails_never_was(broker, sent):
    def fail():
        with pool.transaction():
            sent.send(1)
            raise Boom

    with pytest.raises(Boom):
        fail()
    if broker.outbox:
        broker.outbox.tell_left(older_than=timedelta())
    assert waiting(broker) == 0


def test_time_and_priority_are_kept(broker, sent):
    with pool.transaction():
        sent.send_with_options(args=(1,), delay=60_000)
        sent.send_with_options(args=(2,), run_at=datetime(2030, 1, 1, tzinfo=UTC).isoformat())
        sent.send_with_options(args=(3,), priority=4)
        sent.send_with_options(args=(4,), priority=1)
    depth = broker.engine.depths(["q"])[0]
    assert (depth.waiting, depth.delayed) == (2, 2)
    assert [c.priority for c in claim(broker.engine, q=None)] == [1, 4]


def test_a_group_is_announced_with_its_members(broker, sent):
    @dramatiq.actor(queue_name="after")
    def after():
        """Counted in the store."""

    group = dramatiq.group([sent.message(n) for n in range(3)])
    group.add_completion_callback(after.message())
    with pool.transaction():
        fan_out(group)
    members = claim(broker.engine, q=None)
    group_id = dramatiq.Message.decode(members[0].body).options["group_completion_uuid"]
    broker.engine.finish_many([ended(m, group_id=group_id) for m in members])
    assert waiting(broker, "after") == 1


@pytest.fixture
def redis_broker(database, redis_url, settings_env):
    """A broker on Redis, as processes of the tests' environment make it."""
    settings = settings_env(DATABASE_URL=database, BROKER_URL=redis_url)
    broker = make_broker(settings)
    dramatiq.set_encoder(OrjsonEncoder())
    yield broker
    broker.close()


@pytest.fixture
def store(redis_broker):
    """Its engine."""
    return redis_broker.engine


def crashed(database, redis_url, die):
    """Ids that a process sent in a transaction and died after its commit."""
    environment = {"DATABASE_URL": database, "BROKER_URL": redis_url, "PATH": "/usr/bin:/bin", "ENVIRONMENT": "test"}
    command = [sys.executable, "-c", CRASH.format(die=die)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 9, ran.stderr
    return ran.stdout.split()


def test_what_a_crash_left_after_the_commit_is_told_by_another_process(store, database, redis_url):
    sent_ids = crashed(database, redis_url, DIE_BEFORE_TELLING)
    assert store.depths() == []
    assert outbox.waiting() == 3
    wait_until(lambda: store.outbox.tell_left() == 1, "the entry is not told")
    assert ids(claim(store)) == sent_ids
    assert outbox.waiting() == 0


@pytest.mark.parametrize("has_run", [False, True])
def test_what_was_told_but_not_removed_has_no_second_effect(store, database, redis_url, has_run):
    sent_ids = crashed(database, redis_url, DIE_BEFORE_REMOVING)
    claimed = []
    if has_run:
        claimed = claim(store)
        assert all(store.finish_many([ended(c) for c in claimed]))
    wait_until(lambda: store.outbox.tell_left() == 1, "the entry is not told again")
    assert ids([*claimed, *claim(store)]) == sent_ids
    assert outbox.waiting() == 0


def test_a_worker_tells_what_was_left(redis_broker, store, database, redis_url):
    crashed(database, redis_url, DIE_BEFORE_TELLING)
    worker = dramatiq.Worker(redis_broker, worker_threads=1, worker_timeout=100)  # of no queue
    worker.start()
    until(lambda: store.depths() and store.depths()[0].waiting == 3, 10, "the messages in the store")
    worker.stop()


def test_delays_count_from_the_send_however_long_the_store_is_away(store):
    with pool.transaction():
        outbox_of(store).enqueue_many([message(delay=timedelta(milliseconds=1500))])
        began = time.monotonic()
    assert store.depths()[0].delayed == 1
    until(lambda: claim(store), 5, "the delay's end")
    assert 1.3 < time.monotonic() - began < 2.5


def outbox_of(engine):
    return Outbox(engine, engine.first)


def test_messages_wait_in_order_while_the_store_is_down(database, settings_env):
    with servers.running("valkey") as server:
        settings = settings_env(DATABASE_URL=database, BROKER_URL=server.url, BROKER_FALLBACK="false")
        engine = make_broker(settings).engine
        book, sent = Outbox(engine), messages(6)
        server.kill()
        for one in sent[:4]:
            with pool.transaction():
                book.enqueue_many([one])
        assert outbox.waiting() == 4
        with pytest.raises(TransientError):
            book.tell_left(older_than=timedelta())
        server.start()
        for one in sent[4:]:
            with pool.transaction():
                book.enqueue_many([one])
        assert engine.depths() == [], "nothing overtakes those that wait"
        assert book.tell_left(older_than=timedelta()) == 6
        assert ids(engine.claim(ClaimRequest(str(uuid.uuid4()), {"default": None}, 10, timedelta(seconds=9)))) == ids(
            sent
        )
        with pool.transaction():
            book.enqueue_many([message("next")])
        assert engine.depths(["next"])[0].waiting == 1
        engine.close()


def test_what_no_store_takes_is_refused_before_the_commit(store):
    with pytest.raises(PermanentError), pool.transaction():
        store.outbox.enqueue_many([message(body=b"x" * 2_000_000)])
    with pytest.raises(PermanentError), pool.transaction():
        store.outbox.enqueue_many([message("a b")])
    assert outbox.waiting() == 0
