"""Ordinary traffic that the stock brokers lose: failed members, bad neighbours, bursts, large results, many queues."""

import json
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta

import dramatiq
import psycopg
import pytest
import redis
from dramatiq.errors import ConnectionError as StockConnectionError
from dramatiq.errors import RateLimitExceeded, Retry
from dramatiq.results import ResultMissing
from dramatiq_pg.results import PostgresBackend
from dramatiq_pg.schema import generate_init_sql
from periodiq import cron

from brokers.engine import Envelope
from core.clock import uuid7
from tests.conformance import messages
from tests.conformance.servers import running
from tests.conftest import wait_until
from tests.faults.actors import QUEUE, declare
from tests.faults.expect import equal, expect
from tests.faults.settling import settle


@equal(1, stock_redis=0)
def test_a_group_with_a_dead_member_completes(system, expected):
    """TRAPS 1, 32: stock counts only members that succeeded."""
    broker = system.broker()
    work, follow = declare(broker, system.effects)
    plans = [{}, {"fail": 99}, {}]
    members = [work.message_with_options(args=(f"member-{n}", plan), max_retries=0) for n, plan in enumerate(plans)]
    group = dramatiq.group(members, broker=broker)
    group.add_completion_callback(follow.message("all"))
    group.run()
    system.start_worker(broker)
    wait_until(lambda: sum(system.effects.count("run").values()) == 3, "all members run")
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert len(system.effects.of("follow")) == expected


@equal(16, stock_redis="stranded")
def test_an_undecodable_message_does_not_strand_its_batch(system, expected):
    """TRAPS 30: stock's consumer is made anew and forgets what it had fetched beside it."""
    broker = system.broker()
    work, _ = declare(broker, system.effects)
    for n in range(17):
        if n == 5:
            put_garbage(system, broker)
        else:
            broker.enqueue(work.message(f"good-{n}", {}))
    system.start_worker(broker, worker_threads=16)
    if expected == 16:
        wait_until(lambda: len(system.effects.count("end")) == 16, "the neighbours run")
        wait_until(lambda: not system.unfinished(broker), "nothing is left")
        (letter,) = broker.engine.dead_letters(QUEUE)
        assert letter.code == "undecodable"
    else:
        # All were fetched, none is left for another worker, and those behind the bad one never run.
        wait_until(lambda: len(system.effects.count("end")) == 5, "those before it run")
        time.sleep(1.5)  # longer than the pause before stock's consumer is made anew
        assert broker.client.llen("dramatiq:q") == 0
        assert len(system.effects.count("end")) == 5
        assert system.unfinished(broker) == 12


def put_garbage(system, broker):
    if system.is_ours:
        broker.engine.enqueue_many([Envelope(str(uuid7()), QUEUE, 3, b"not a message")])
        return
    with redis.Redis.from_url(system.url) as client:
        client.hset("dramatiq:q.msgs", "garbage", b"not a message")
        client.rpush("dramatiq:q", "garbage")


@equal(0, stock_redis=20)
def test_waiting_for_a_limit_costs_no_attempts(system, expected, monkeypatch):
    """TRAPS 5, 34: stock's three retries are used up by refusals. `expected`: dead of 20."""
    monkeypatch.setattr("core.errors.THROTTLED_WAIT", timedelta(milliseconds=50))
    broker = system.broker()
    limit_is_free = threading.Event()

    def limited(n):
        if not limit_is_free.is_set():
            system.effects.add("refused", n)
            raise RateLimitExceeded("slow down")
        system.effects.add("end", n)

    actor = dramatiq.actor(limited, broker=broker, queue_name=QUEUE, max_retries=3, min_backoff=10, max_backoff=20)
    for n in range(20):
        broker.enqueue(actor.message(n))
    system.start_worker(broker)
    if expected:
        wait_until(lambda: not system.unfinished(broker), "all are dead")
    else:
        wait_until(lambda: min(refusals_of(system, 20)) > 4, "all were refused more often than they have attempts")
    limit_is_free.set()
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert len(system.effects.count("end")) == 20 - expected


def refusals_of(system, messages) -> list[int]:
    refused = system.effects.count("refused")
    return [refused[str(n)] for n in range(messages)]


BURST = 12_000
FEW_LOCKS = 10
"""Locks per transaction; PostgreSQL's default of 64 gives room for about 6400 in all, these for some hundreds."""
STOCK_BURST = 6000


@expect(postgres="served", stock_pg="out of shared memory")
@pytest.mark.timeout(90)
def test_a_burst_does_not_exhaust_the_locks_of_the_database(system, expected, make_system):
    """TRAPS 16, 35: stock holds a session lock for each message in flight or delayed; then no session gets any."""
    with running("postgres") as server:
        with psycopg.connect(server.url, autocommit=True) as admin:
            admin.execute(f"alter system set max_locks_per_transaction = {FEW_LOCKS}")
            admin.execute("alter system set max_connections = 20")
        server.kill()
        server.start()
        here = make_system(system.kind, server.url)
        broker = here.broker()
        if expected == "served":
            broker.engine.enqueue_many(messages.messages(BURST, "burst"))
            claims = messages.claim(broker.engine, BURST, burst=None)
            assert len(claims) == BURST
            assert bystander(server.url) == "served"
            assert all(broker.engine.finish_many([messages.ended(claim) for claim in claims]))
        else:
            fill_stock(server.url)
            consumer = broker.consume("burst.DQ", prefetch=65535, timeout=1000)
            with pytest.raises(StockConnectionError, match=expected):
                hold_all(consumer)
            assert expected in bystander(server.url)
        here.close()


def hold_all(consumer) -> None:
    for held, message in enumerate(consumer):
        assert message is not None, f"{held} were held without harm"


def bystander(url: str) -> str:
    """What happens to another session of the database that wants some locks."""
    try:
        with psycopg.connect(url) as connection:
            connection.execute("select pg_advisory_xact_lock(n) from generate_series(1, 50) as n")
    except psycopg.OperationalError as error:
        return str(error)
    return "served"


def fill_stock(url: str) -> None:
    """Delayed messages, as stock's enqueue stores them, on a table that both kinds have."""
    eta = int(time.time() * 1000) + 3_600_000
    with psycopg.connect(url) as connection:
        connection.execute("drop schema dramatiq cascade")
        connection.execute(generate_init_sql())
        with connection.cursor().copy(
            "copy dramatiq.queue (message_id, queue_name, state, message) from stdin"
        ) as copy:
            for _ in range(STOCK_BURST):
                message_id = str(uuid.uuid4())
                body = {"queue_name": "burst.DQ", "actor_name": "a", "args": [], "kwargs": {}, "options": {"eta": eta}}
                text = json.dumps(body | {"message_id": message_id, "message_timestamp": 0})
                copy.write_row((message_id, "burst.DQ", "queued", text))


@equal("kept", stock_pg="lost")
def test_a_result_of_nine_kilobytes_is_kept(system, expected, monkeypatch):
    """TRAPS 18, 36: stock sends it by NOTIFY, which takes less than 8000 bytes; it tries ten times, then it is lost."""
    waited: list[float] = []
    monkeypatch.setattr(PostgresBackend._store.retry, "sleep", waited.append)  # noqa: SLF001 - not to wait for a minute
    broker = system.broker()

    def large():
        system.effects.add("run", "large")
        return "x" * 9000

    actor = dramatiq.actor(large, broker=broker, queue_name=QUEUE, store_results=True)
    message = actor.message()
    broker.enqueue(message)
    system.start_worker(broker)
    wait_until(lambda: system.effects.of("run") and not system.unfinished(broker), "it runs and is finished")
    backend = broker.get_results_backend()
    if expected == "kept":
        assert message.get_result(backend=backend) == "x" * 9000
    else:
        with pytest.raises(ResultMissing):
            message.get_result(backend=backend)
        assert len(waited) == 9, "nine waits that grow up to 30 s, with the worker's thread"


@equal(0, stock_pg="some")
def test_many_queues_need_no_more_connections(system, expected):
    """TRAPS 37: stock takes two connections for each queue and its delays, and acknowledges with what is left of 16.

    `expected`: messages that ran and were not acknowledged.
    """
    broker = system.broker()
    queues = [f"q{n}" for n in range(4)]

    def declare_on(queue):
        return dramatiq.actor(lambda n: system.effects.add("run", n), broker=broker, actor_name=queue, queue_name=queue)

    actors = [declare_on(queue) for queue in queues]
    for n in range(40):
        for actor in actors:
            broker.enqueue(actor.message(f"{actor.queue_name}-{n}"))
    system.start_worker(broker, worker_threads=8)

    def left():
        return sum(system.unfinished(broker, queue) for queue in queues)

    if expected == 0:
        wait_until(lambda: len(system.effects.count("run")) == 160, "all run")
        wait_until(lambda: left() == 0, "nothing is left")
    else:
        wait_until(lambda: len(system.effects.count("run")) > 16, "some run")
        settle(lambda: (system.effects.count("run"), left()))
        assert len(system.effects.count("run")) + left() > 160


@equal([2] * 5, stock_pg="fewer")
def test_a_retry_without_delay_runs_again_at_once(system, expected):
    """TRAPS 38: an idle worker of stock is told of the message while it still holds it, and skips it."""
    broker = system.broker(proxied=True)
    system.proxy.latency_s = 0.003  # a store in the next building; on the same machine stock is sometimes lucky

    def again(n):
        system.effects.add("run", n)
        if system.effects.count("run")[str(n)] == 1:
            raise Retry(delay=0)

    actor = dramatiq.actor(again, broker=broker, queue_name=QUEUE, max_retries=3)
    system.start_worker(broker)
    runs = []
    for n in range(5):
        broker.enqueue(actor.message(n))
        runs.append(runs_of(system.effects, str(n), all_runs=system.is_ours))
    assert runs == expected if system.is_ours else min(runs) == 1


def runs_of(effects, name, *, all_runs) -> int:
    wait_until(lambda: effects.count("run")[name] >= 1, "it runs")
    if all_runs:
        wait_until(lambda: effects.count("run")[name] == 2, "it runs again", 2)
    else:
        settle(lambda: effects.count("run")[name], 0.4)
    return int(effects.count("run")[name])


@equal(1, stock_redis=0, stock_pg=0)
def test_a_tick_that_comes_late_still_runs(system, expected):
    """TRAPS 22: after 30 s in a backlog, periodiq's default drops the tick without a word."""
    broker = system.broker()

    def report():
        system.effects.add("run", "report")

    actor = dramatiq.actor(report, broker=broker, queue_name=QUEUE, periodic=cron("0 3 * * *"))
    due = datetime.now(UTC) - timedelta(seconds=31)
    broker.enqueue(actor.message_with_options(scheduled_at=due.isoformat()))
    system.start_worker(broker)
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert len(system.effects.of("run")) == expected
