"""The store goes away, comes back, or is full, while work is under way."""

import shutil
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

import dramatiq
import pytest
import redis

from brokers import leases
from tests.conformance.servers import RedisServer, program, running
from tests.conftest import wait_until
from tests.faults.actors import QUEUE, declare
from tests.faults.expect import equal, expect
from tests.faults.systems import FAST_RECOVERY, make_broker


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(leases, "STORE_DOWN_PAUSE_S", 0.2)
    monkeypatch.setattr("brokers.consumer.STORE_DOWN_PAUSE_S", 0.2)
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.2)
    monkeypatch.setattr("dramatiq.worker.POST_PROCESS_MESSAGE_RETRY_DELAY_SECS", 0.2)


@equal(2, stock_redis=1)
def test_an_actor_that_fails_while_the_store_is_away_is_retried(system, expected, caplog):
    """TRAPS 9, 25: stock's retry cannot be stored, the error is swallowed, and the message is acknowledged later."""
    broker = system.broker(proxied=True)
    started, failing = threading.Event(), threading.Event()
    runs = []

    def fail_once():
        runs.append(1)
        started.set()
        assert failing.wait(10)
        if len(runs) == 1:
            raise RuntimeError("planned")

    actor = dramatiq.actor(fail_once, broker=broker, queue_name=QUEUE, max_retries=3, min_backoff=50)
    worker = system.start_worker(broker)
    broker.enqueue(actor.message())
    assert started.wait(10)
    system.proxy.refuse()
    failing.set()
    if system.is_ours:
        wait_until(lambda: worker.work_queue.unfinished_tasks == 0, "the run ends")
        time.sleep(1.0)  # several tries to store what follows
    else:
        # redis-py tries for some seconds of its own.
        wait_until(lambda: "Unexpected failure in after_process_message" in caplog.text, "stock gives the retry up")
    system.proxy.accept()
    direct = system.broker()
    wait_until(lambda: not system.unfinished(direct), "nothing is left")
    assert len(runs) == expected


DELAYED = 50
DELAY_MS = 3000


STOCK_RUNS = 0 if dramatiq.__version__.startswith("1.") else DELAYED
"""dramatiq 2 hands them back."""


@expect(postgres=DELAYED, redis=DELAYED, stock_redis=STOCK_RUNS)
@pytest.mark.timeout(60)
def test_delayed_messages_survive_a_restart_of_the_store(system, expected, make_system):
    """TRAPS 6, 26: stock's worker holds them in memory and drops them with its connection; the store counts them as
    fetched by a worker that lives. Ours wait in the store, whose log has them.
    """
    with running("postgres" if system.kind == "postgres" else "valkey") as server:
        here = make_system(system.kind, server.url)
        broker = here.broker()
        work, _ = declare(broker, here.effects)
        here.start_worker(broker)
        for n in range(DELAYED):
            broker.enqueue(work.message(f"delayed-{n}", {}), delay=DELAY_MS)
        if not here.is_ours:
            wait_until(lambda: not broker.client.llen("dramatiq:q.DQ"), "the worker holds them")
        server.kill()
        server.start()
        assert here.effects.all() == [], "the store was back before they were due"
        if expected:
            wait_until(lambda: len(here.effects.count("end")) == DELAYED, "all run")
            wait_until(lambda: not here.unfinished(broker), "nothing is left")
            assert set(here.effects.count("run").values()) == {1}
        else:
            time.sleep(DELAY_MS / 1000 + 0.5)
            assert here.effects.all() == []
            assert here.unfinished(broker) == DELAYED
        here.close()


@expect(redis=1, stock_redis=2)
def test_work_that_ends_while_redis_is_out_of_memory_is_done_once(system, expected, make_system):
    """TRAPS 27: stock's acknowledgement is refused and not tried again: the message runs once more after a deploy."""
    folder = Path(tempfile.mkdtemp(prefix="ff-"))
    server = RedisServer(program("valkey"), folder)
    try:
        server.start()
        here = make_system(system.kind, server.url)
        with redis.Redis.from_url(server.url) as admin:
            broker = here.broker(**FAST_RECOVERY)
            work, _ = declare(broker, here.effects)
            go = here.folder / "go"
            worker = here.start_worker(broker)
            broker.enqueue(work.message("once", {"wait_for": str(go)}))
            wait_until(lambda: here.effects.count("run")["once"] == 1, "it runs")
            admin.config_set("maxmemory", 1)
            with pytest.raises(redis.OutOfMemoryError):
                admin.set("other", "x" * 1000)
            go.touch()
            wait_until(lambda: here.effects.count("end")["once"] == 1, "it ends")
            if here.is_ours:
                wait_until(lambda: admin.hlen("{fanfare}:meta") == 0, "finishing needs no memory")
            admin.config_set("maxmemory", 0)
            time.sleep(0.5)
            worker.stop(timeout=5000)
            # The deploy: another worker on the same server.
            successor = make_broker(here.kind, server.url, lease=timedelta(seconds=1), **FAST_RECOVERY)
            declare(successor, here.effects)
            here.start_worker(successor)
            wait_until(lambda: not here.unfinished(successor), "nothing is left")
            assert here.effects.count("end")["once"] == expected
            here.close()
            successor.close()
    finally:
        server.kill()
        shutil.rmtree(folder)
