"""The stock package dramatiq-pg on our tables: its producer, its results, its command line."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dramatiq
import dramatiq_pg
import psycopg
import pytest
from dramatiq.middleware import default_middleware

from brokers.broker import EngineBroker
from brokers.engine import Claim, ClaimRequest, Disposition, Envelope, Finish
from brokers.postgres.broker import PostgresBroker
from brokers.postgres.engine import PostgresEngine
from core.clock import uuid7

LEASE = timedelta(seconds=30)
SOON = timedelta(seconds=5)


@pytest.fixture
def engine(database: str) -> Iterator[PostgresEngine]:
    engine = PostgresEngine(database)
    yield engine
    engine.close()


@pytest.fixture
def stock(database: str) -> Iterator[dramatiq_pg.PostgresBroker]:
    broker = dramatiq_pg.PostgresBroker(url=database, middleware=[m() for m in default_middleware if m])
    yield broker
    broker.pool.closeall()


def message(**options: object) -> "dramatiq.Message[object]":
    return dramatiq.Message("mail", "greet", ("Zoë",), {"at": 1.5}, dict(options))


def claim(engine: PostgresEngine) -> list[Claim]:
    return engine.claim(ClaimRequest(str(uuid7()), {"mail": None}, 10, LEASE))


def fields(decoded: "dramatiq.Message[object]") -> dict[str, object]:
    return dict(json.loads(decoded.encode()))


def test_a_stock_producers_message_is_claimed_with_its_body(stock, engine):
    sent = message(note="x")
    stock.enqueue(sent)
    engine.enqueue_many([Envelope(str(uuid7()), "mail", 2, b"{}"), Envelope(str(uuid7()), "mail", 4, b"{}")])
    claims = claim(engine)
    assert [c.priority for c in claims] == [2, 3, 4]
    assert fields(dramatiq.Message.decode(claims[1].body)) == fields(sent)
    assert claims[1].message_id == sent.message_id


def test_a_stock_producers_delayed_message_comes_at_its_time(stock, engine):
    """Trap 6: it waits in the store, as any other message of its queue."""
    sent = message()
    began = time.time()
    stock.enqueue(sent, delay=700)
    assert claim(engine) == []
    assert [(d.queue, d.delayed) for d in engine.depths()] == [("mail", 1)]
    while not (claims := claim(engine)):
        assert engine.wait(SOON)
    assert 0.65 < time.time() - began < 3
    assert fields(dramatiq.Message.decode(claims[0].body)) == fields(sent)


def test_a_stock_producer_wakes_an_idle_worker(stock, engine):
    assert claim(engine) == []
    assert not engine.wait(timedelta(milliseconds=300))
    timer = threading.Timer(0.2, stock.enqueue, [message()])
    timer.start()
    assert engine.wait(SOON)
    timer.join()
    assert len(claim(engine)) == 1


def test_a_stock_producers_message_runs_in_our_worker(stock, engine, database):
    ours = PostgresBroker(engine=engine, lease=LEASE, url=database)
    assert isinstance(ours, dramatiq_pg.PostgresBroker)
    assert isinstance(ours, EngineBroker)
    ran = threading.Event()
    seen = []

    @dramatiq.actor(broker=ours, queue_name="mail")
    def greet(name: str, at: float) -> None:
        seen.append((name, at))
        ran.set()

    worker = dramatiq.Worker(ours, worker_threads=1)
    worker.start()
    try:
        stock.enqueue(message())
        assert ran.wait(10)
    finally:
        worker.stop()
    assert seen == [("Zoë", 1.5)]


@pytest.mark.parametrize("size", [10, 20_000])
def test_a_stock_backend_reads_our_result(stock, engine, size):
    """Trap 18: a result of 8000 bytes and more never gets into stock's own store."""
    sent = message()
    stock.enqueue(sent)
    (claimed,) = claim(engine)
    result = json.dumps({"text": "x" * size}).encode()
    finish = Finish(claimed.message_id, claimed.queue, claimed.token, Disposition.DONE, result=result)
    assert engine.finish_many([finish]) == [True]
    assert sent.get_result(backend=stock.backend) == {"text": "x" * size}
    assert json.loads(engine.result(sent.message_id) or b"") == {"text": "x" * size}


def test_a_result_ends_with_its_time_to_live(engine, database):
    sent = Envelope(str(uuid7()), "mail", 3, b"{}")
    engine.enqueue_many([sent])
    (claimed,) = claim(engine)
    short = timedelta(milliseconds=1)
    finish = Finish(claimed.message_id, "mail", claimed.token, Disposition.DONE, result=b"1", result_ttl=short)
    engine.finish_many([finish])
    time.sleep(0.01)
    assert engine.result(sent.message_id) is None
    engine.reap(max_lost=3)
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from dramatiq.queue").fetchone() == (0,)


def command(database: str, *arguments: str) -> str:
    program = Path(sys.executable).with_name("dramatiq-pg")
    return subprocess.run([program, "-d", database, *arguments], check=True, capture_output=True, text=True).stdout


def test_stock_command_line_counts_and_purges(engine, database):
    engine.enqueue_many([Envelope(str(uuid7()), "mail", 3, b"{}") for _ in range(10)])
    dead, kept, *_ = engine.claim(ClaimRequest("one", {"mail": None}, 4, LEASE))
    finishes = [
        Finish(dead.message_id, "mail", dead.token, Disposition.DEAD, code="x"),
        Finish(kept.message_id, "mail", kept.token, Disposition.DONE, result=b"1"),
    ]
    assert engine.finish_many(finishes) == [True, True]
    counts = dict(line.split(": ") for line in command(database, "stats").splitlines())
    assert counts == {"queued": "6", "consumed": "2", "done": "1", "rejected": "1"}
    command(database, "purge", "--maxage", "1 day")
    assert len(engine.dead_letters("mail")) == 1
    command(database, "purge", "--maxage", "0 s")
    assert engine.dead_letters("mail") == []
    assert engine.result(kept.message_id) is None
    depth = engine.depths()[0]
    assert (depth.waiting, depth.leased) == (6, 2)
