"""One store and its engines for each test, on every kind of store."""

from collections.abc import Callable, Iterator

import pytest
import redis

from brokers.engine import Engine
from brokers.redis.engine import RedisEngine
from tests.conformance import servers

KINDS = ("postgres", "valkey", "redis7")

MakeEngine = Callable[[], Engine]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(*ids): the clauses of docs/broker-contract.md that the test shows")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which store the test runs on."""
    return str(request.param)


@pytest.fixture(scope="session")
def redis7_server() -> Iterator[str]:
    with servers.running("redis7") as server:
        yield server.url


@pytest.fixture
def store_url(kind: str, request: pytest.FixtureRequest) -> str:
    """An empty store."""
    if kind == "postgres":
        return str(request.getfixturevalue("database"))
    if kind == "valkey":
        return str(request.getfixturevalue("redis_url"))
    url = str(request.getfixturevalue("redis7_server"))
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def make_engine(kind: str, store_url: str) -> Iterator[MakeEngine]:
    """Makes engines on the test's store, as separate processes would."""
    engines: list[Engine] = []

    def make() -> Engine:
        engines.append(engine_of(kind, store_url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    """An engine on an empty store."""
    return make_engine()


def engine_of(kind: str, url: str) -> Engine:
    if kind == "postgres":
        from brokers.postgres.engine import PostgresEngine  # noqa: PLC0415

        return PostgresEngine(url)
    return RedisEngine(url)
