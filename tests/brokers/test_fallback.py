"""RUN-04: while Redis is away messages go through Postgres, once, in order of priority; it returns by itself."""

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise

import pytest
import redis

from brokers.choose import make_engine
from brokers.engine import Disposition, Limit
from brokers.fallback import FallbackEngine, FallbackState, doubts, state
from brokers.fallback.engine import REAP_GRACE_S
from core.errors import TransientError
from db import fallback, outbox
from tests.conformance import servers
from tests.conformance.messages import claim, ended, finish, held, ids, member, message, messages, ms
from tests.e2e.stack import until


@pytest.fixture
def server() -> Iterator[servers.RedisServer]:
    with servers.running("valkey") as running:
        assert isinstance(running, servers.RedisServer)
        yield running


@pytest.fixture
def make(server, database, settings_env) -> Iterator[Callable[[], FallbackEngine]]:
    """Makes engines as separate processes would have them."""
    settings = settings_env(DATABASE_URL=database, BROKER_URL=server.url)
    engines: list[FallbackEngine] = []

    def one() -> FallbackEngine:
        engine = make_engine(settings)
        assert isinstance(engine, FallbackEngine)
        engines.append(engine)
        return engines[-1]

    yield one
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make):
    return make()


def seen(engine) -> FallbackState:
    found = state(engine)
    assert found is not None
    return found


def back(engine):
    until(lambda: not engine.is_away, 15, "Redis is used again")


def all_claimed(engine, count, **fields):
    """Claims until there are `count`."""
    found = []

    def more():
        found.extend(claim(engine, **fields))
        return len(found) >= count

    until(more, 15, f"{count} messages, there are {len(found)}")
    return found


def test_on_a_healthy_day_all_goes_through_redis(engine):
    sent = messages(3)
    engine.enqueue_many(sent)
    claimed = claim(engine)
    assert ids(claimed) == ids(sent)
    assert all(engine.finish_many([ended(c) for c in claimed]))
    assert engine.second.depths() == []
    assert seen(engine).is_away is False


def test_producers_do_not_fail_and_wait_but_once(engine, server):
    engine.enqueue_many([message()])
    server.kill()
    began = time.monotonic()
    engine.enqueue_many([message()])
    first = time.monotonic() - began
    began = time.monotonic()
    for _ in range(20):
        engine.enqueue_many([message()])
    assert first < 3
    assert time.monotonic() - began < 1
    assert engine.is_away
    now = seen(engine)
    assert (now.is_away, now.in_second, now.undecided) == (True, 20, 1)
    assert now.error


def test_sends_of_an_outage_run_once_and_those_of_before_too(engine, server):
    before = messages(3)
    engine.enqueue_many(before)
    server.kill()
    sent = messages(5)
    for one in sent:
        engine.enqueue_many([one])
    during = all_claimed(engine, 4)
    assert set(ids(during)) <= set(ids(sent[1:])), "the first send is not decided yet"
    assert all(engine.finish_many([ended(c) for c in during]))
    server.start()
    back(engine)
    after = all_claimed(engine, 4)
    assert sorted(ids(after)) == sorted([*ids(before), sent[0].message_id])
    assert all(engine.finish_many([ended(c) for c in after]))
    assert claim(engine) == []
    assert engine.depths() == []


def test_an_undecided_send_runs_in_the_second_store_after_a_while(engine, server):
    server.kill()
    sent = message()
    engine.enqueue_many([sent])
    assert claim(engine) == []

    def run():
        engine.tend()
        return claim(engine)

    (claimed,) = until(run, doubts.DECIDE_AFTER.total_seconds() + 5, "the message")
    assert finish(engine, claimed)
    server.start()
    back(engine)
    assert claim(engine) == []


def test_a_copy_in_redis_of_what_ran_elsewhere_does_not_run(engine, server, make):
    """The reply was lost: Redis has the message, its sender does not know, Postgres ran it."""
    sent = message()
    engine.first.enqueue_many([sent])
    doubts.write_down([sent], {})
    server.kill()
    engine.enqueue_many([message("other")])  # the outage is noticed

    def run():
        engine.tend()
        return claim(engine)

    (claimed,) = until(run, doubts.DECIDE_AFTER.total_seconds() + 5, "the message")
    assert finish(engine, claimed)
    server.start()
    late = make()  # one that has not seen the outage, and claims at once
    assert claim(late) == []
    back(engine)
    assert claim(engine) == []
    assert [d for d in engine.depths() if d.queue == "default"] == []


def test_a_send_that_a_hanging_redis_carries_out_later_runs_once(engine, server):
    """SIGSTOP: the command waits in the server's socket while the message runs from Postgres."""
    with redis.Redis.from_url(server.url) as client:
        pid = client.info("server")["process_id"]
    engine.enqueue_many([message("other")])
    os.kill(pid, signal.SIGSTOP)
    sent = message()
    began = time.monotonic()
    try:
        engine.enqueue_many([sent])
        assert time.monotonic() - began < 3

        def run():
            engine.tend()
            return claim(engine)

        (claimed,) = until(run, doubts.DECIDE_AFTER.total_seconds() + 5, "the message")
        assert finish(engine, claimed)
    finally:
        os.kill(pid, signal.SIGCONT)
    back(engine)
    assert claim(engine) == []
    assert not engine.holds([sent.message_id])


def test_a_copy_that_a_worker_holds_decides_for_redis(engine, server):
    sent = message()
    engine.first.enqueue_many([sent])
    (running,) = claim(engine)
    doubts.write_down([sent], {})
    server.kill()
    assert engine.finish_many([ended(running)]) == [True]
    until(lambda: not (engine.tend() or engine.second.counts()[1]), 5, "the decision")
    time.sleep(doubts.DECIDE_AFTER.total_seconds())  # would be given to the second store by now
    engine.tend()
    assert claim(engine) == []
    server.start()
    back(engine)
    assert claim(engine) == []
    assert engine.depths() == []


def test_an_undecided_send_that_redis_has_runs_there(engine):
    sent = messages(2)
    engine.first.enqueue_many(sent[:1])
    doubts.write_down(sent[:1], {})
    doubts.write_down(sent[1:], {})
    engine.tend()
    assert ids(claim(engine)) == ids(sent)
    engine.tend()
    assert engine.second.counts() == (0, 0)


def test_what_ran_when_redis_went_away_is_finished_when_it_is_back(engine, server):
    engine.create_group("g", 2)
    callback = message("after")
    engine.enqueue_many([member("g", callback), member("g", callback)])
    claimed = claim(engine)
    server.kill()
    next_step = message("next")
    done = [ended(claimed[0], follow_ups=(next_step,), group_id="g"), ended(claimed[1], group_id="g")]
    assert engine.finish_many(done) == [True, True]
    assert engine.heartbeat(held(claimed), ms(1)).lost == frozenset()
    assert outbox.waiting() == 2
    server.start()
    back(engine)
    assert outbox.waiting() == 0
    assert {d.queue: d.waiting for d in engine.depths()} == {"after": 1, "next": 1}


def test_leases_are_not_taken_back_right_after_the_return(engine, server):
    engine.enqueue_many([message()])
    claim(engine, lease=ms(10))
    server.kill()
    with pytest.raises(TransientError):
        engine.first.ping()
    engine.enqueue_many([message("x")])
    server.start()
    back(engine)
    assert engine.reap(max_lost=3) == 0
    engine.circuit.changed_at -= REAP_GRACE_S
    assert engine.reap(max_lost=3) == 1


def test_priorities_and_delays_hold_over_both(engine, server):
    low, critical = message(priority=4), message(priority=1)
    engine.enqueue_many([low])
    server.kill()
    engine.enqueue_many([message("other")])
    normal, later = message(priority=2), message(delay=timedelta(seconds=2))
    engine.enqueue_many([normal])
    engine.enqueue_many([later])
    began = time.monotonic()
    server.start()
    back(engine)
    engine.enqueue_many([critical])
    assert ids(claim(engine, room=2)) == ids([critical, normal])
    rest = all_claimed(engine, 2)
    assert ids(rest) == ids([low, later])
    assert time.monotonic() - began > 1.5


def test_bounds_hold_over_both(engine, server):
    engine.enqueue_many(messages(3))
    server.kill()
    engine.enqueue_many([message("x")])
    engine.enqueue_many(messages(3))
    server.start()
    back(engine)
    claimed = claim(engine, default=2)
    assert len(claimed) == 2
    assert claim(engine, default=2) == []
    engine.finish_many([ended(claimed[0])])
    assert len(claim(engine, default=2)) == 1


def test_a_group_that_begins_in_an_outage_completes(engine, server):
    callback = message("after")
    engine.create_group("g", 3)
    server.kill()
    engine.enqueue_many([message("x")])
    engine.enqueue_many([member("g", callback) for _ in range(3)])
    claimed = all_claimed(engine, 3)
    server.start()
    back(engine)
    assert all(engine.finish_many([ended(c, group_id="g") for c in claimed]))
    assert engine.depths(["after"])[0].waiting == 1


def test_late_members_of_a_group_in_redis_wait_for_it(engine, server):
    callback = message("after")
    engine.create_group("g", 2)
    engine.enqueue_many([member("g", callback)])
    server.kill()
    engine.enqueue_many([member("g", callback)])
    assert outbox.waiting() == 1
    server.start()
    back(engine)
    assert all(engine.finish_many([ended(c, group_id="g") for c in all_claimed(engine, 2)]))
    assert engine.depths(["after"])[0].waiting == 1


def test_members_follow_a_group_announced_in_an_outage(engine, server):
    server.kill()
    engine.enqueue_many([message("x")])
    engine.create_group("g", 2)
    server.start()
    back(engine)
    engine.enqueue_many([member("g", message("after")), member("g", message("after")), message()])
    assert all(engine.finish_many([ended(c, group_id="g") for c in all_claimed(engine, 3)]))
    assert engine.depths(["after"])[0].waiting == 1


def test_steering_reaches_both(engine, server):
    engine.enqueue_many(messages(2))
    (dead,) = claim(engine, room=1)
    finish(engine, dead, Disposition.DEAD, code="first")
    server.kill()
    engine.enqueue_many([message("x")])
    sent = messages(2)
    engine.enqueue_many(sent)
    engine.pause("paused")
    (other,) = claim(engine, room=1)
    finish(engine, other, Disposition.DEAD, code="second")
    assert engine.cancel([sent[1].message_id]) == 1
    server.start()
    back(engine)
    assert engine.first.depths(["paused"])[0].paused
    assert {group.code for group in engine.dead_letter_groups()} == {"first", "second"}
    assert engine.dead_letters("default")[0].code == "second"
    assert engine.requeue([dead.message_id, other.message_id]) == 2
    assert [(d.waiting, d.dead) for d in engine.depths(["default"])] == [(3, 0)]
    assert engine.purge("default") == 3


def test_results_are_found_in_both(engine, server):
    server.kill()
    engine.enqueue_many([message("x")])
    engine.enqueue_many([message()])
    (claimed,) = claim(engine)
    finish(engine, claimed, result=b"1")
    assert engine.result(claimed.message_id) == b"1"
    server.start()
    back(engine)
    assert engine.result(claimed.message_id) == b"1"


def test_limits_hold_across_a_change_of_store(engine, server):
    limit = Limit("key", 10)
    given = engine.reserve([limit], 30)
    slots = [given.at + timedelta(seconds=offset) for offset in given.offsets]
    server.kill()
    for _ in range(2):
        given = engine.reserve([limit], 5)
        slots += [given.at + timedelta(seconds=offset) for offset in given.offsets]
    server.start()
    back(engine)
    given = engine.reserve([limit], 5)
    slots += [given.at + timedelta(seconds=offset) for offset in given.offsets]
    gaps = [(after - before).total_seconds() for before, after in pairwise(slots)]
    assert min(gaps) > 0.099


def test_an_idle_worker_hears_of_messages_in_either_store(engine, server):
    claim(engine)
    woken = []

    def listen():
        woken.append(engine.wait(timedelta(seconds=20)))

    for in_outage in (False, True):
        if in_outage:
            server.kill()
            engine.enqueue_many([message("x")])
            claim(engine)
        thread = threading.Thread(target=listen)
        thread.start()
        time.sleep(0.2)
        began = time.monotonic()
        engine.enqueue_many([message()])
        thread.join(5)
        assert not thread.is_alive()
        assert time.monotonic() - began < 2
        claim(engine)
    assert woken == [True, True]


class Traffic:
    """Producers and workers in full swing, as threads with engines of their own."""

    def __init__(self, make):
        self.sent: list[str] = []
        self.done: Counter[str] = Counter()
        self.slowest_send = 0.0
        self.errors: list[Exception] = []
        self._make = make
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run, daemon=True) for run in 2 * [self._produce] + 2 * [self._work]]
        for thread in self._threads:
            thread.start()

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(40)

    def flows(self):
        count = len(self.sent)
        until(lambda: len(self.sent) > count + 100, 20, "traffic")

    def _produce(self):
        producer = self._make()
        while not self._stop.is_set():
            batch = [message(priority=1 + n % 4) for n in range(3)]
            began = time.monotonic()
            try:
                producer.enqueue_many(batch)
            except TransientError as error:
                self.errors.append(error)
            self.slowest_send = max(self.slowest_send, time.monotonic() - began)
            self.sent += ids(batch)
            self._stop.wait(0.01)

    def _work(self):
        worker, tended = self._make(), 0.0
        while not (self._stop.is_set() and len(self.done) >= len(self.sent)):
            if time.monotonic() - tended > 0.5:
                tended = time.monotonic()
                worker.tend()
                worker.reap(max_lost=3)
            claimed = claim(worker, room=20)
            self.done.update(ids(claimed))
            worker.finish_many([ended(c) for c in claimed])
            if not claimed:
                worker.wait(ms(100))


@pytest.mark.timeout(120)
def test_a_server_killed_in_mid_traffic_loses_and_doubles_nothing(make, server):
    """Redis keeps its data, is killed twice and comes back, after a moment and after a while."""
    traffic = Traffic(make)
    for away_s in (1.0, 8.0):
        traffic.flows()
        server.kill()
        time.sleep(away_s)  # the outage lasts
        server.start()
        time.sleep(2)
    traffic.end()
    assert traffic.errors == []
    assert traffic.slowest_send < 4
    assert set(traffic.done) == set(traffic.sent)
    assert [message_id for message_id, times in traffic.done.items() if times > 1] == []
    assert make().depths() == []


def test_the_journal_forgets_what_is_confirmed(engine):
    fallback.add([str(uuid.uuid4())], [], b"")
    send = fallback.lock_doubtful(timedelta())
    assert send is not None
    fallback.decide_second(send.id)
    assert fallback.elsewhere(send.message_ids) == set(send.message_ids)
    doubts.void(engine.first)
    assert fallback.lock_to_void(again=False) == []
    assert len(fallback.lock_to_void(again=True)) == 1
