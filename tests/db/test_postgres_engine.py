"""What the Postgres engine does beyond the contract's clauses, and how it does it."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any, LiteralString

import psycopg
import pytest

from brokers.engine import Claim, ClaimRequest, Disposition, Envelope, Finish, Held
from brokers.postgres.engine import PostgresEngine
from core.clock import uuid7
from db import pool

LEASE = timedelta(seconds=30)
PAUSE = timedelta(milliseconds=200)


@pytest.fixture
def engine(database: str) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(database)
    yield engine
    engine.close()


def envelope(queue: str = "default", priority: int = 3, **facts: Any) -> Envelope:
    options = facts.pop("options", {})
    message_id = str(uuid7())
    body = {
        "queue_name": queue,
        "actor_name": "greet",
        "args": facts.pop("args", []),
        "kwargs": {},
        "options": options,
        "message_id": message_id,
        "message_timestamp": 0,
    }
    return Envelope(message_id, queue, priority, json.dumps(body).encode(), **facts)


def request(room: int = 10, lease: timedelta = LEASE, **queues: int | None) -> ClaimRequest:
    return ClaimRequest(str(uuid7()), queues or {"default": None}, room, lease)


def done(claim: Claim, disposition: Disposition = Disposition.DONE, **facts: Any) -> Finish:
    return Finish(claim.message_id, claim.queue, claim.token, disposition, **facts)


def ids(messages: list[Claim] | list[Envelope]) -> list[str]:
    return [message.message_id for message in messages]


def rows(url: str, query: LiteralString, *arguments: object) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query, arguments).fetchall()


def test_claims_come_by_priority_then_arrival_over_all_queues(engine: PostgresEngine):
    """OPT-01: with less room than messages, the oldest of the most urgent are taken, whatever their queue."""
    sent = [envelope("a", 3), envelope("b", 3), envelope("a", 1), envelope("b", 2), envelope("a", 3), envelope("b", 1)]
    for one in sent:
        engine.enqueue_many([one])
    order = [2, 5, 3, 0, 1, 4]
    claimed = engine.claim(request(4, a=None, b=None)) + engine.claim(request(4, b=None, a=None))
    assert ids(claimed) == [sent[i].message_id for i in order]
    assert all(one.order < two.order for one, two in pairwise(claimed) if one.priority == two.priority)


def test_a_batch_keeps_its_order(engine: PostgresEngine):
    sent = [envelope() for _ in range(500)]
    assert engine.enqueue_many(sent[::-1]) == 500
    assert ids(engine.claim(request(500))) == ids(sent[::-1])


def test_a_repeated_claim_returns_the_same_messages(engine: PostgresEngine):
    engine.enqueue_many([envelope() for _ in range(5)])
    asked = request(3)
    first = engine.claim(asked)
    assert engine.claim(asked) == first
    assert len(engine.claim(request(10))) == 2


def test_a_finish_is_true_when_repeated_and_false_for_a_lost_lease(engine: PostgresEngine):
    engine.enqueue_many([envelope() for _ in range(4)])
    one, two, three, four = engine.claim(request(4))
    finishes = [
        done(one),
        done(two, Disposition.RETRY, code="x"),
        done(three, Disposition.DEAD, code="x", error="broken"),
        done(four, result=b'{"a": 1}'),
    ]
    assert engine.finish_many(finishes) == [True] * 4
    assert engine.finish_many(finishes[::-1]) == [True] * 4
    again = engine.claim(request(4))
    assert [(c.message_id, c.attempt) for c in again] == [(two.message_id, 2)]
    # Lost to another: neither the old lease nor a made-up one ends it.
    assert engine.finish_many([done(again[0], result=b"1")]) == [True]
    stale = Finish(three.message_id, "default", "made-up", Disposition.DONE)
    assert engine.finish_many([stale]) == [False]
    assert [letter.message_id for letter in engine.dead_letters("default")] == [three.message_id]
    assert json.loads(engine.result(four.message_id) or b"") == {"a": 1}


def test_a_lost_lease_is_fenced_and_poison_dies(engine: PostgresEngine):
    engine.enqueue_many([envelope()])
    instant = timedelta(milliseconds=1)
    for lost in range(3):
        (claim,) = engine.claim(request(1, lease=instant))
        assert (claim.lost, claim.attempt) == (lost, lost + 1)
        time.sleep(0.01)
        assert engine.reap(max_lost=3) == 1
        assert engine.heartbeat([Held(claim.message_id, "default", claim.token)], LEASE).lost == {claim.message_id}
        assert engine.finish_many([done(claim)]) == [False]
    assert [letter.code for letter in engine.dead_letters("default")] == ["crashed"]
    assert engine.requeue([claim.message_id]) == 1
    assert [(c.attempt, c.lost) for c in engine.claim(request(1))] == [(1, 0)]


def test_released_messages_return_to_the_head(engine: PostgresEngine):
    engine.enqueue_many([envelope() for _ in range(4)])
    claimed = engine.claim(request(2))
    engine.release_many([Held(c.message_id, c.queue, c.token) for c in claimed])
    assert [(c.message_id, c.attempt) for c in engine.claim(request(2))] == [(c.message_id, 1) for c in claimed]


def test_concurrency_bounds_leases_over_many_claims_at_once(engine: PostgresEngine, database: str):
    """RUN-08: eight claims at once together lease no more than the bound."""
    engine.enqueue_many([envelope("slow") for _ in range(50)] + [envelope("free") for _ in range(3)])
    taken: list[Claim] = []

    def take() -> None:
        own = PostgresEngine(database)
        taken.extend(own.claim(request(10, slow=7, free=None)))
        own.close()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(c.queue for c in taken) == ["free"] * 3 + ["slow"] * 7
    slow = [c for c in taken if c.queue == "slow"]
    engine.finish_many([done(c) for c in slow[:2]])
    assert len(engine.claim(request(10, slow=7))) == 2


def test_many_claims_at_once_share_out_every_message_once(engine: PostgresEngine, database: str):
    sent = [envelope("ab"[i % 2], 1 + i % 4) for i in range(2000)]
    engine.enqueue_many(sent)
    taken: list[str] = []

    def drain() -> None:
        own = PostgresEngine(database)
        while claims := own.claim(request(64, a=None, b=None)):
            taken.extend(ids(claims))
            assert all(own.finish_many([done(c) for c in claims]))
        own.close()

    threads = [threading.Thread(target=drain) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A claim may come back empty while another one holds the last messages.
    assert sorted(taken) == sorted(ids(sent))
    assert rows(database, "select count(*) from dramatiq.queue") == [(0,)]


@pytest.mark.parametrize("way", ["done", "dead", "cancelled", "cancel", "purge", "crash", "skip_release"])
def test_a_group_counts_every_end_once(engine: PostgresEngine, database: str, way: str):
    """RUN-07: the callback enters the store with the last end, whatever it is, also without a finish."""
    after = envelope("after")
    options = {"group_completion_callbacks": [json.loads(after.body)]}
    group = str(uuid7())
    engine.create_group(group, 3)
    members = [envelope(group_id=group, options=options) for _ in range(3)]
    engine.enqueue_many(members)
    one, two = engine.claim(request(2))
    assert engine.finish_many([done(one), done(two, Disposition.DEAD, group_id=group)]) == [True, True]
    engine.finish_many([done(one), done(two, Disposition.DEAD, group_id=group)])
    assert engine.requeue([two.message_id]) == 1
    again = next(c for c in engine.claim(request(2)) if c.message_id == two.message_id)
    assert engine.finish_many([done(again, Disposition.DEAD, group_id=group)]) == [True]
    engine.discard([two.message_id])
    assert engine.claim(request(1, after=None)) == []
    rest = next(m.message_id for m in members if m.message_id not in {one.message_id, two.message_id})
    query = "select message_id::text, lease_token::text from dramatiq.queue where message_id = %s"
    (leased,) = rows(database, query, rest)
    last = Claim(leased[0], "default", 3, b"", leased[1], 1, 0, 0)
    end(engine, database, last, way, after)
    assert ids(engine.claim(request(5, after=None))) == [after.message_id]
    assert rows(database, "select count(*) from dramatiq.message_group") == [(0,)]


def end(engine: PostgresEngine, database: str, last: Claim, way: str, after: Envelope) -> None:
    match way:
        case "done" | "dead" | "cancelled":
            engine.finish_many([done(last, Disposition(way), group_callbacks=(after,))])
        case "cancel":
            engine.release_many([Held(last.message_id, "default", last.token)])
            assert engine.cancel([last.message_id]) == 1
        case "purge":
            engine.release_many([Held(last.message_id, "default", last.token)])
            assert engine.purge("default") == 1
        case "crash":
            with psycopg.connect(database) as connection:
                connection.execute("update dramatiq.queue set lease_expires_at = now() - interval '1 s'")
            assert engine.reap(max_lost=1) == 1
        case "skip_release":
            assert engine.cancel([last.message_id]) == 1
            engine.release_many([Held(last.message_id, "default", last.token)])


def test_groups_do_not_block_each_other_for_good(engine: PostgresEngine, database: str):
    """Two workers end members of the same groups in opposite order, many times."""
    groups = [str(uuid7()) for _ in range(4)]
    for group in groups:
        engine.create_group(group, 100)
    afters = {group: envelope("after") for group in groups}
    members = [envelope(group_id=groups[i % 4]) for i in range(400)]
    engine.enqueue_many(members)
    group_of = {m.message_id: m.group_id for m in members}

    def work(turn: int) -> None:
        own = PostgresEngine(database)
        while claims := own.claim(request(7)):
            ends = [done(c, group_id=group_of[c.message_id]) for c in claims][:: 1 - 2 * turn]
            assert all(own.finish_many([replace_callbacks(f, afters) for f in ends]))
        own.close()

    threads = [threading.Thread(target=work, args=(turn,)) for turn in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(engine.claim(request(9, after=None)))) == sorted(ids(list(afters.values())))


def replace_callbacks(finish: Finish, afters: dict[str, Envelope]) -> Finish:
    assert finish.group_id is not None
    facts = (finish.message_id, finish.queue, finish.token, finish.disposition)
    return Finish(*facts, group_id=finish.group_id, group_callbacks=(afters[finish.group_id],))


def test_bodies_that_jsonb_cannot_hold_come_back_as_they_were(engine: PostgresEngine):
    """A NUL in a name, half a surrogate pair, or no JSON at all: none of them takes a batch down with it."""
    plain = envelope()
    strange = [b'{"args": ["\\u0000"]}', b'{"args": ["\\ud800"]}', b"no json", b"\xff\xfe"]
    sent = [Envelope(str(uuid7()), "default", 3, body) for body in strange]
    assert engine.enqueue_many([*sent, plain]) == 5
    claimed = engine.claim(request(5))
    assert [c.body for c in claimed[:4]] == strange
    assert json.loads(claimed[4].body) == json.loads(plain.body)
    engine.finish_many([done(claimed[0], result=b'"\\u0000"'), done(claimed[4], follow_ups=(sent[0],))])
    assert engine.result(sent[0].message_id) == b'"\\u0000"'


def test_enqueue_in_a_transaction_takes_effect_with_it(engine: PostgresEngine):
    """X-07."""
    kept, dropped = envelope(), envelope()
    with pool.transaction():
        engine.enqueue_many([kept])
        assert engine.claim(request()) == []
    with pytest.raises(ZeroDivisionError):
        _enqueue_and_fail(engine, dropped)
    assert ids(engine.claim(request())) == [kept.message_id]


def _enqueue_and_fail(engine: PostgresEngine, dropped: Envelope) -> None:
    with pool.transaction():
        engine.enqueue_many([dropped])
        raise ZeroDivisionError


def test_an_enqueue_in_a_transaction_wakes_at_its_commit(engine: PostgresEngine, database: str):
    worker = PostgresEngine(database)
    assert worker.claim(request()) == []
    assert not worker.wait(PAUSE)
    with pool.transaction():
        engine.enqueue_many([envelope()])
        assert not worker.wait(PAUSE)
    assert worker.wait(timedelta(seconds=5))
    worker.close()


@pytest.mark.parametrize("pooling", [False, True])
def test_waiting_ends_with_an_arrival_a_due_time_or_a_wake(engine: PostgresEngine, database: str, *, pooling: bool):
    worker = PostgresEngine(database, transaction_pooling=pooling)
    for cause in (
        lambda: engine.enqueue_many([envelope()]),
        lambda: engine.enqueue_many([envelope(delay=timedelta(seconds=0.5))]),
        worker.wake,
    ):
        assert worker.claim(request()) == []
        assert not worker.wait(PAUSE)
        began = time.monotonic()
        timer = threading.Timer(0.2, cause)
        timer.start()
        while not (claims := worker.claim(request())):
            woken = worker.wait(timedelta(seconds=20))
            if cause == worker.wake and woken:
                break
        assert time.monotonic() - began < 5
        timer.join()
        worker.finish_many([done(c) for c in claims])
    worker.close()


def test_a_freed_place_of_a_bounded_queue_wakes_others(engine: PostgresEngine, database: str):
    engine.enqueue_many([envelope(), envelope()])
    (claim,) = engine.claim(request(5, default=1))
    worker = PostgresEngine(database)
    assert worker.claim(request(5, default=1)) == []
    assert not worker.wait(PAUSE)
    engine.finish_many([done(claim)])
    assert worker.wait(timedelta(seconds=5))
    assert len(worker.claim(request(5, default=1))) == 1
    worker.close()


def test_nothing_is_notified_while_nobody_waits(engine: PostgresEngine, database: str):
    """Trap 15: stock sends every body to every worker."""
    with psycopg.connect(database, autocommit=True) as listener:
        listener.execute('listen "dramatiq.wake"')
        for _ in range(20):
            engine.enqueue_many([envelope()])
        engine.finish_many([done(c) for c in engine.claim(request(20))])
        assert list(listener.notifies(timeout=0.3)) == []


def test_delayed_messages_in_front_are_not_scanned(engine: PostgresEngine, database: str):
    """A claim reads as many rows with 20 000 delayed, more urgent messages as with none."""
    engine.enqueue_many([envelope(priority=1, delay=timedelta(days=1)) for _ in range(20_000)])
    engine.enqueue_many([envelope(priority=4)])
    read = "select idx_tup_read from pg_stat_all_indexes where indexrelname = 'queue_waiting'"
    engine.close()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("select pg_stat_force_next_flush()")
        before = connection.execute(read).fetchall()[0][0]
    assert len(engine.claim(request(5))) == 1
    engine.close()
    deadline = time.monotonic() + 5
    while (after := rows(database, read)[0][0]) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert 0 < after - before < 20


def test_an_older_token_does_not_end_the_next_lease(engine: PostgresEngine):
    """Fault 31: the worker that lost its lease finishes while another one runs the message."""
    engine.enqueue_many([envelope()])
    (first,) = engine.claim(request(1, lease=timedelta(milliseconds=1)))
    time.sleep(0.01)
    assert engine.reap(max_lost=3) == 1
    (second,) = engine.claim(request(1))
    assert engine.finish_many([done(first)]) == [False]
    assert engine.finish_many([done(first, Disposition.DEAD)]) == [False]
    assert engine.finish_many([done(second)]) == [True]
