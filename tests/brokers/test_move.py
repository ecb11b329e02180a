"""X-06: `fanfare broker move` takes everything along, whenever it dies, while workers run on both brokers."""

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
import redis
from typer.testing import CliRunner

from brokers.choose import make_store
from brokers.engine import Disposition
from brokers.move import Moved, move, settle
from cli.broker import app
from core.errors import PermanentError
from db import broker_moves
from tests.conformance.messages import claim, claim_one, ended, finish, ids, member, message, messages, ms
from tests.conftest import wait_until

ROOT = Path(__file__).parents[2]
HOUR = timedelta(hours=1)

STEPS = ("take_out", "add", "forget", "taken", "put_in", "remove")
MOVER = """
import os, sys
from brokers import move
from brokers.choose import make_store
from db import broker_moves
source, target = make_store(sys.argv[1]), make_store(sys.argv[2])
step, moment = sys.argv[3], sys.argv[4]
place = {{"take_out": source, "forget": source, "put_in": target}}.get(step, broker_moves)
do = getattr(place, step)
def dying(*given):
    if moment == "before":
        os._exit(9)
    do(*given)
    os._exit(9)
setattr(place, step, dying)
move.BATCH = 4
move.move(source, target, move.Moved())
""".replace("{{", "{").replace("}}", "}")


@pytest.fixture(params=["to postgres", "to redis"])
def urls(request, database, redis_url, settings_env):
    settings_env(DATABASE_URL=database, BROKER_URL=redis_url)
    return (redis_url, database) if request.param == "to postgres" else (database, redis_url)


@pytest.fixture
def stores(urls):
    both = tuple(make_store(url) for url in urls)
    yield both
    for store in both:
        store.close()


class Contents:
    """Messages of every kind in `store`."""

    def __init__(self, store):
        self.callback = message("after")
        store.create_group("g", 3)
        members = [member("g", self.callback, delay=ms(1)) for _ in range(3)]
        self.delayed = message(delay=HOUR)
        self.dead = message("dead")
        self.waiting = messages(9)
        store.enqueue_many([self.dead])
        finish(store, claim_one(store, dead=None), Disposition.DEAD, code="why", error="because")
        for one in self.waiting:  # one by one: what came within 10 microseconds may change places in Redis
            store.enqueue_many([one])
        store.enqueue_many([self.delayed, *members])
        store.pause("paused")
        self.all = {m.message_id for m in [*self.waiting, self.delayed, self.dead, *members]}

    def check(self, store, other):
        """All is in `store` once, and works there."""
        assert {d.queue: (d.waiting, d.delayed, d.dead) for d in other.depths() if not d.paused} == {}
        depths = {d.queue: d for d in store.depths()}
        assert depths["paused"].paused
        assert (depths["default"].waiting, depths["default"].delayed, depths["dead"].dead) == (12, 1, 1)
        (letter,) = store.dead_letters("dead")
        assert (letter.message_id, letter.code, letter.error, letter.attempts) == (
            self.dead.message_id,
            "why",
            "because",
            1,
        )
        claimed = claim(store)
        assert [c.message_id for c in claimed if c.message_id in set(ids(self.waiting))] == ids(self.waiting)
        assert all(store.finish_many([ended(c) for c in claimed]))
        assert store.depths(["after"])[0].waiting == 1
        assert store.requeue([self.dead.message_id]) == 1


def test_everything_is_moved_as_it_was(stores):
    source, target = stores
    contents, moved = Contents(source), Moved()
    move(source, target, moved)
    assert (moved.total, moved.dead, moved.left) == (14, 1, 0)
    contents.check(target, source)
    assert not broker_moves.any_open()


def test_what_a_worker_holds_stays_with_it_and_so_does_its_group(stores):
    source, target = stores
    callback = message("after")
    source.create_group("g", 2)
    source.enqueue_many([member("g", callback), member("g", callback)])
    running = claim_one(source, room=1)
    moved = Moved()
    move(source, target, moved)
    assert (moved.total, moved.left) == (0, 1)
    source.finish_many([ended(running, Disposition.RETRY)])
    move(source, target, moved)
    assert (moved.total, moved.left) == (2, 0)
    assert all(target.finish_many([ended(c) for c in claim(target)]))
    assert target.depths(["after"])[0].waiting == 1
    assert source.depths() == []


def crash(urls, step, moment):
    environment = {"DATABASE_URL": urls[0] if "postgres" in urls[0] else urls[1], "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(
        [sys.executable, "-c", MOVER, *urls, step, moment],
        cwd=ROOT, env=environment | {"ENVIRONMENT": "test"}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 9, ran.stderr


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_a_mover_that_died_is_run_again(stores, urls, step, moment):
    source, target = stores
    contents = Contents(source)
    crash(urls, step, moment)
    run_out(urls[0])
    move(source, target, Moved())
    contents.check(target, source)
    assert not broker_moves.any_open()


def run_out(url):
    """Let the lease of what a mover set aside run out, where there is any: as if a minute had passed."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            for batch in client.zrange("{fanfare}:moving", 0, -1):
                client.zadd("{fanfare}:moving", {batch: 0})
    else:
        with psycopg.connect(url) as connection:
            connection.execute("update dramatiq.moving set expires_at = '-infinity'")


@pytest.mark.parametrize(("step", "moment"), [(step, moment) for step in STEPS for moment in ("before", "after")])
def test_a_mover_that_died_is_not_run_again(stores, urls, step, moment):
    """Workers of both brokers end what it began: each message is in one of them, and runs once."""
    source, target = stores
    contents = Contents(source)
    crash(urls, step, moment)
    run_out(urls[0])
    for store in (source, target, source, target):
        store.reap(max_lost=3)
        settle(store, older_than=timedelta())
    assert not broker_moves.any_open()
    held = source.holds(sorted(contents.all)), target.holds(sorted(contents.all))
    assert held[0] | held[1] == contents.all
    assert held[0] & held[1] == set()
    ran = Counter(c.message_id for store in stores for c in claim(store))
    assert ran == Counter(contents.all - {contents.delayed.message_id, contents.dead.message_id})


def test_moves_while_workers_run_on_both_and_producers_send(stores):
    source, target = stores
    sent = messages(300)
    ran: Counter[str] = Counter()
    source.enqueue_many(sent)
    stop = threading.Event()

    def work(store):
        while not stop.is_set():
            claimed = claim(store, room=3)
            ran.update(ids(claimed))
            time.sleep(0.005)
            store.finish_many([ended(c) for c in claimed])

    def produce():
        for _ in range(30):
            more = messages(5)
            sent.extend(more)
            source.enqueue_many(more[:2])
            target.enqueue_many(more[2:])
            stop.wait(0.01)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores] + [threading.Thread(target=produce)]
    for thread in threads:
        thread.start()
    moved = Moved()
    move(source, target, moved)
    threads[2].join()
    move(source, target, moved)
    wait_until(lambda: not [d for store in stores for d in store.depths()], "the queues are not empty")
    stop.set()
    for thread in threads:
        thread.join()
    assert moved.total > 50
    assert ran == Counter(ids(sent))


def test_the_command_tells_what_it_did(stores, urls):
    contents = Contents(stores[0])
    ran = CliRunner().invoke(app, ["move", "--from", urls[0], "--to", urls[1]])
    assert ran.exit_code == 0, ran.output
    assert "14 messages, 1 of them dead letters" in ran.output
    contents.check(stores[1], stores[0])


def test_the_command_ends_when_members_of_a_group_run_on(stores, urls):
    source = stores[0]
    source.create_group("g", 2)
    source.enqueue_many([member("g", message("after")), member("g", message("after"))])
    claim_one(source, room=1)
    ran = CliRunner().invoke(app, ["move", "--from", urls[0], "--to", urls[1], "--wait", "0"])
    assert ran.exit_code == 1
    assert "1 messages stay" in ran.output


def test_a_store_is_not_moved_into_itself(stores):
    with pytest.raises(PermanentError, match="same store"):
        move(stores[0], stores[0], Moved())
