"""Deployments that the engines promise to work on, each of servers that the tests start themselves."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from brokers.redis.engine import RedisEngine
from core.clock import uuid7
from db import migrate, pool
from tests.conftest import TEMPLATE, Environment, named
from tests.deployments import servers


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "clause(*ids): the clauses of docs/broker-contract.md that the test shows")


@pytest.fixture(scope="session")
def pooler(postgres_url: str) -> Iterator[str]:
    """A PgBouncer in transaction mode before the run's embedded PostgreSQL."""
    with servers.pgbouncer(postgres_url) as url:
        yield url


@pytest.fixture
def pooled_database(database: str, pooler: str, settings_env: Environment) -> str:
    """The URL of a new, migrated, empty database behind the pooler, to which the settings point."""
    url = named(pooler, path_of(database))
    settings_env(DATABASE_URL=url, DATABASE_TRANSACTION_POOLING="true")
    return url


@pytest.fixture(scope="session")
def postgres15_server() -> Iterator[str]:
    """A PostgreSQL 15 with the migrated template database."""
    with servers.postgres15() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(TEMPLATE)))
        migrate.migrate(named(url, TEMPLATE))
        yield url


@pytest.fixture(scope="session")
def shared_pooled_database(postgres_url: str, pooler: str) -> Iterator[str]:
    """The URL of a migrated database behind the pooler, for many tests that empty it."""
    yield from (named(pooler, path_of(url)) for url in _new_database(postgres_url))


@pytest.fixture(scope="session")
def shared_postgres15_database(postgres15_server: str) -> Iterator[str]:
    """The URL of a migrated database of PostgreSQL 15, for many tests that empty it."""
    yield from _new_database(postgres15_server)


@pytest.fixture
def postgres15_database(postgres15_server: str, settings_env: Environment) -> Iterator[str]:
    """The URL of a new, migrated, empty database of a PostgreSQL 15, to which DATABASE_URL points."""
    for url in _new_database(postgres15_server):
        settings_env(DATABASE_URL=url)
        yield url
        pool.close()


@pytest.fixture
def make_redis_engine() -> Iterator[Callable[[str], RedisEngine]]:
    """Makes engines on the server at a URL; closed at the end."""
    engines: list[RedisEngine] = []

    def make(url: str) -> RedisEngine:
        engines.append(RedisEngine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def path_of(url: str) -> str:
    """The name of the database."""
    return urlsplit(url).path.strip("/")


def _new_database(server: str) -> Iterator[str]:
    name = f"test_{uuid7().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        create = sql.SQL("create database {} template {}")
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(TEMPLATE)))
        yield named(server, name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
