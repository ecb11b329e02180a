"""Redis Cluster, of three local processes of Debian's redis-server; RUN-02, DEP-04."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis

from brokers.redis.engine import RedisEngine
from core.errors import TransientError
from tests.conformance.messages import claim, ids, messages, ms
from tests.conftest import wait_until
from tests.deployments.redis_life import works
from tests.deployments.servers import RedisNode, free_ports

SLOTS = 16384


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[RedisNode]]:
    """Three nodes with a third of the slots each, in one cluster."""
    ports = free_ports(6)
    with ExitStack() as stack:
        nodes = []
        for port, bus in zip(ports[:3], ports[3:], strict=True):
            folder = tmp_path / str(port)
            folder.mkdir()
            own = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", "1000"]
            own += ["--cluster-require-full-coverage", "no"]
            nodes.append(RedisNode(folder, *own, port=port))
            stack.enter_context(nodes[-1].running())
        for number, node in enumerate(nodes):
            with node.client() as client:
                last = SLOTS * (number + 1) // 3 - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", SLOTS * number // 3, last)
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], ports[3])
        for node in nodes:
            with node.client() as client:
                wait_until(partial(is_whole, client), "the nodes form no cluster")
        yield nodes


def is_whole(client: redis.Redis) -> bool:
    return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))


def slot_and_holder(nodes: list[RedisNode]) -> tuple[int, RedisNode]:
    """The slot of all our keys, and who has it."""
    for node in nodes:
        with node.client() as client:
            slot = int(client.execute_command("CLUSTER", "KEYSLOT", "{fanfare}:meta"))
            lines = str(client.execute_command("CLUSTER", "NODES")).splitlines()
            first, _, last = next(line for line in lines if "myself" in line).split()[-1].partition("-")
            if int(first) <= slot <= int(last):
                return slot, node
    raise AssertionError(f"Nobody has slot {slot}")


def test_every_node_of_a_cluster_leads_to_the_messages(cluster, make_redis_engine):
    for node in cluster:
        engine = make_redis_engine(node.url)
        assert works(engine)
        assert not engine.wait(ms(20))


def test_engines_follow_a_slot_that_moves_to_another_node(cluster, make_redis_engine):
    engines = [make_redis_engine(node.url) for node in cluster]
    sent = messages(5)
    engines[0].enqueue_many(sent)
    slot, source = slot_and_holder(cluster)
    target = next(node for node in cluster if node is not source)
    move_slot(slot, source, target, cluster, while_moving=partial(refuses, engines[1]))
    for engine in engines:
        assert engine.depths()[0].waiting == 5
    assert ids(claim(engines[2])) == ids(sent)


def refuses(engine: RedisEngine) -> None:
    with pytest.raises(TransientError):
        engine.enqueue_many(messages(1))


def move_slot(slot, source: RedisNode, target: RedisNode, nodes: list[RedisNode], while_moving: Callable[[], None]):
    with source.client() as old, target.client() as new:
        old_id, new_id = (client.execute_command("CLUSTER", "MYID") for client in (old, new))
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        keys = old.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
        old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", "secret", "KEYS", *keys)
        while_moving()
        for node in sorted(nodes, key=lambda node: node is not target):
            with node.client() as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", new_id)


def test_a_cluster_that_lost_a_node_is_transient_until_it_is_back(cluster, make_redis_engine):
    _, holder = slot_and_holder(cluster)
    entry = next(node for node in cluster if node is not holder)
    engine = make_redis_engine(entry.url)
    assert works(engine)
    holder.kill()
    assert not works(engine)
    holder.start()
    wait_until(lambda: works(engine), "the engine does not find the node again")
    entry.kill()
    engine.close()
    assert works(engine), "it needs the node of its URL although it knows the others"


def test_engines_leave_a_dead_node_for_the_one_that_took_its_place(cluster, make_redis_engine):
    slot, holder = slot_and_holder(cluster)
    entry, heir = (node for node in cluster if node is not holder)
    engine = make_redis_engine(entry.url)
    assert works(engine)
    holder.kill()
    with heir.client() as client:
        heir_id = client.execute_command("CLUSTER", "MYID")
    for node in (heir, entry):
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", heir_id)
    wait_until(lambda: works(engine), "the engine stays with a node that is gone")
