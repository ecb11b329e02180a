"""Sentinel, TLS and replicas, of Debian's redis-server; RUN-02, DEP-04."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import redis
from dramatiq.rate_limits import ConcurrentRateLimiter

from brokers.choose import make_broker
from brokers.redis.engine import RedisEngine
from core.errors import SettingsError, TransientError
from tests.conformance.messages import messages, ms
from tests.conftest import wait_until
from tests.deployments.redis_life import works
from tests.deployments.servers import RedisNode, Server, free_ports, run_checked
from tests.deployments.workers import note, running_worker

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


def test_sentinel_leads_producers_and_workers_to_the_new_master(sentinel, settings_env, tmp_path, make_redis_engine):
    url, master = sentinel
    settings_env(BROKER_URL=url, BROKER_FALLBACK="false")
    producer = make_redis_engine(url)
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


def test_sentinels_that_do_not_answer_are_transient_and_hide_the_password(make_redis_engine):
    engine = make_redis_engine("redis+sentinel://:hunter2-secret@127.0.0.1:1,127.0.0.1:2/messages")
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


def test_tls_with_a_private_authority(authority, tmp_path, make_redis_engine):
    (port,) = free_ports(1)
    tls = ["--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--tls-auth-clients", "no"]
    tls += ["--tls-ca-cert-file", authority["ca.pem"], "--tls-cert-file", authority["server.pem"]]
    tls += ["--tls-key-file", authority["server.key"]]
    node = RedisNode(tmp_path, *tls, port=port, scheme="rediss")
    plain = node.url
    node.url += f"?ssl_ca_certs={authority['ca.pem']}"
    with node.running():
        engine = make_redis_engine(node.url)
        assert works(engine)
        assert not engine.wait(ms(20))
        began = time.monotonic()
        engine.wake()
        assert engine.wait(ms(5000))
        assert time.monotonic() - began < 2
        with pytest.raises(TransientError, match="certificate verify failed"):
            make_redis_engine(plain).ping()


def test_sentinels_and_their_master_over_tls(authority, tmp_path, make_redis_engine):
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
        engine = make_redis_engine(url)
        wait_until(lambda: works(engine), "the sentinel does not lead to the master")


def test_a_read_only_replica_is_transient(tmp_path, make_redis_engine):
    """TRAPS 25: a failover in progress, as hosted services do it behind one name."""
    node = RedisNode(tmp_path)
    with node.running(), node.client() as client:
        engine = make_redis_engine(node.url)
        assert works(engine)
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(TransientError) as caught:
            engine.enqueue_many(messages(1))
        assert caught.value.code == "redis_readonly"
        client.replicaof("NO", "ONE")
        assert works(engine)
