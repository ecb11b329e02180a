"""Redis Cluster, Sentinel, TLS and replicas, of Debian's redis-server; RUN-02, DEP-04."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis
from dramatiq.rate_limits import ConcurrentRateLimiter

from brokers.choose import make_broker
from brokers.redis.engine import RedisEngine
from core.errors import SettingsError, TransientError
from tests.conformance.messages import claim, ended, ids, messages, ms
from tests.conftest import wait_until
from tests.deployments.servers import RedisNode, Server, free_ports, run_checked
from tests.deployments.workers import note, running_worker

SLOTS = 16384
SERVICE = "messages"
_SENTINEL = """
port {port}
bind 127.0.0.1
dir {folder}
requirepass own-secret
sentinel monitor {service} 127.0.0.1 {master} 1
sentinel auth-pass {service} secret
sentinel down-after-milliseconds {service} 500
sentinel failover-timeout {service} 3000
"""


@pytest.fixture
def make_engine() -> Iterator[Callable[[str], RedisEngine]]:
    engines: list[RedisEngine] = []

    def make(url: str) -> RedisEngine:
        engines.append(RedisEngine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def works(engine: RedisEngine) -> bool:
    """Whether a message goes through its whole life now."""
    sent = messages(2)
    try:
        engine.enqueue_many(sent)
        claims = claim(engine)
        return ids(claims) == ids(sent) and all(engine.finish_many([ended(claimed) for claimed in claims]))
    except TransientError:
        return False


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


def test_every_node_of_a_cluster_leads_to_the_messages(cluster, make_engine):
    for node in cluster:
        engine = make_engine(node.url)
        assert works(engine)
        assert not engine.wait(ms(20))


def test_engines_follow_a_slot_that_moves_to_another_node(cluster, make_engine):
    engines = [make_engine(node.url) for node in cluster]
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


def test_a_cluster_that_lost_a_node_is_transient_until_it_is_back(cluster, make_engine):
    _, holder = slot_and_holder(cluster)
    entry = next(node for node in cluster if node is not holder)
    engine = make_engine(entry.url)
    assert works(engine)
    holder.kill()
    assert not works(engine)
    holder.start()
    wait_until(lambda: works(engine), "the engine does not find the node again")
    entry.kill()
    engine.close()
    assert works(engine), "it needs the node of its URL although it knows the others"


def test_engines_leave_a_dead_node_for_the_one_that_took_its_place(cluster, make_engine):
    slot, holder = slot_and_holder(cluster)
    entry, heir = (node for node in cluster if node is not holder)
    engine = make_engine(entry.url)
    assert works(engine)
    holder.kill()
    with heir.client() as client:
        heir_id = client.execute_command("CLUSTER", "MYID")
    for node in (heir, entry):
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", heir_id)
    wait_until(lambda: works(engine), "the engine stays with a node that is gone")


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[tuple[str, RedisNode]]:
    """The URL of a sentinel that watches a master and its replica; and the master."""
    ports = free_ports(3)
    for port in ports:
        (tmp_path / str(port)).mkdir()
    master = RedisNode(tmp_path / str(ports[0]), "--repl-diskless-sync-delay", "0", port=ports[0])
    replica = RedisNode(tmp_path / str(ports[1]), "--replicaof", "127.0.0.1", str(ports[0]), port=ports[1])
    config = tmp_path / str(ports[2]) / "sentinel.conf"
    text = _SENTINEL.format(port=ports[2], folder=config.parent, service=SERVICE, master=master.port)
    config.write_text(text)
    watcher = Server("/usr/bin/redis-sentinel", config)
    with master.running(), replica.running():
        with replica.client() as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "the replica does not follow")
        with watcher.running(), redis.Redis(port=ports[2], password="own-secret", decode_responses=True) as client:
            wait_until(partial(knows_replica, client), "the sentinel does not see the replica")
            # The first host is one that answers nobody.
            yield (
                f"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:{ports[2]}/{SERVICE}/0?sentinel_password=own-secret",
                master,
            )


def knows_replica(client: redis.Redis) -> bool:
    try:
        return "'slaves': 1" in str(client.execute_command("INFO", "sentinel"))
    except redis.RedisError:
        return False


def test_sentinel_leads_producers_and_workers_to_the_new_master(sentinel, settings_env, tmp_path, make_engine):
    url, master = sentinel
    settings_env(BROKER_URL=url, BROKER_FALLBACK="false")
    producer = make_engine(url)
    with running_worker(tmp_path, BROKER_URL=url, BROKER_FALLBACK="false") as worker:
        producer.enqueue_many([note("before")])
        wait_until(lambda: worker.ran() == ["before"], "the worker does not run")
        with master.client() as client:
            assert client.execute_command("WAIT", 1, 2000) == 1
        master.kill()
        with pytest.raises(TransientError):
            producer.enqueue_many([note("lost")])
        after = note("after")
        wait_until(partial(is_stored, producer, after), "the producer does not find the new master")
        wait_until(lambda: "after" in worker.ran(), "the worker does not find the new master")
        assert set(worker.ran()) <= {"before", "lost", "after"}


def is_stored(engine: RedisEngine, envelope) -> bool:
    try:
        engine.enqueue_many([envelope])
    except TransientError:
        return False
    return True


def test_dramatiqs_rate_limiters_ask_sentinel_too(sentinel, settings_env):
    settings = settings_env(BROKER_URL=sentinel[0], BROKER_FALLBACK="false")
    broker = make_broker(settings)
    limiter = ConcurrentRateLimiter(broker.rate_limiter_backend(), "key", limit=1)
    with limiter.acquire(raise_on_failure=False) as first, limiter.acquire(raise_on_failure=False) as second:
        assert (first, second) == (True, False)
    broker.close()


@pytest.mark.parametrize(
    "url", ["redis+sentinel://host:1", "redis+sentinel:///service", "redis+sentinel://h:x/service"]
)
def test_a_sentinel_url_without_host_or_service_is_told(url):
    with pytest.raises(SettingsError, match=r"redis\+sentinel://.*service"):
        RedisEngine(url)


def test_sentinels_that_do_not_answer_are_transient_and_hide_the_password(make_engine):
    engine = make_engine("redis+sentinel://:hunter2-secret@127.0.0.1:1,127.0.0.1:2/messages")
    with pytest.raises(TransientError, match=r"messages of the sentinels 127\.0\.0\.1:1,127\.0\.0\.1:2") as caught:
        engine.ping()
    assert "hunter2" not in str(caught.value)


@pytest.fixture
def authority(tmp_path: Path) -> dict[str, Path]:
    """A private authority's certificate, and a server's of 127.0.0.1 with its key."""
    files = {name: tmp_path / name for name in ("ca.pem", "ca.key", "server.pem", "server.key")}
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    new = ["openssl", "req", "-x509", "-days", "1", "-nodes", *curve]
    run_checked([*new, "-subj", "/CN=Test authority", "-keyout", files["ca.key"], "-out", files["ca.pem"]])
    signed = ["-CA", files["ca.pem"], "-CAkey", files["ca.key"], "-addext", "subjectAltName=IP:127.0.0.1"]
    own = ["-subj", "/CN=server", "-keyout", files["server.key"], "-out", files["server.pem"]]
    run_checked([*new, *own, *signed, "-addext", "basicConstraints=critical,CA:FALSE"])
    return files


def test_tls_with_a_private_authority(authority, tmp_path, make_engine):
    (port,) = free_ports(1)
    tls = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"]
    tls += ["--tls-ca-cert-file", authority["ca.pem"], "--tls-cert-file", authority["server.pem"]]
    tls += ["--tls-key-file", authority["server.key"]]
    node = RedisNode(tmp_path, *tls, port=port, scheme="rediss")
    plain = node.url
    node.url += f"?ssl_ca_certs={authority['ca.pem']}"
    with node.running():
        engine = make_engine(node.url)
        assert works(engine)
        assert not engine.wait(ms(20))
        began = time.monotonic()
        engine.wake()
        assert engine.wait(ms(5000))
        assert time.monotonic() - began < 2
        with pytest.raises(TransientError, match="certificate verify failed"):
            make_engine(plain).ping()


def test_sentinels_and_their_master_over_tls(authority, tmp_path, make_engine):
    port, watcher_port = free_ports(2)
    config = tmp_path / "sentinel.conf"
    tls = f"""
        tls-ca-cert-file {authority["ca.pem"]}
        tls-cert-file {authority["server.pem"]}
        tls-key-file {authority["server.key"]}
        tls-auth-clients no
        tls-replication yes
    """
    text = _SENTINEL.format(port=f"0\ntls-port {watcher_port}", folder=tmp_path, service=SERVICE, master=port)
    config.write_text(text.replace("sentinel monitor", f"{tls}\nsentinel monitor"))
    words = [word for line in tls.split("\n") if line.strip() for word in ("--" + line.strip()).split(" ", 1)]
    own = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1"]
    master = RedisNode(tmp_path, *own, *words, port=port, scheme="rediss")
    options = f"ssl_ca_certs={authority['ca.pem']}"
    master.url += f"?{options}"
    with master.running(), Server("/usr/bin/redis-sentinel", config).running():
        url = f"rediss+sentinel://:secret@127.0.0.1:{watcher_port}/{SERVICE}?{options}&sentinel_password=own-secret"
        engine = make_engine(url)
        wait_until(lambda: works(engine), "the sentinel does not lead to the master")


def test_a_read_only_replica_is_transient(tmp_path, make_engine):
    """TRAPS 25: a failover in progress, as hosted services do it behind one name."""
    node = RedisNode(tmp_path)
    with node.running(), node.client() as client:
        engine = make_engine(node.url)
        assert works(engine)
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(TransientError) as caught:
            engine.enqueue_many(messages(1))
        assert caught.value.code == "redis_readonly"
        client.replicaof("NO", "ONE")
        assert works(engine)
