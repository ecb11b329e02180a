"""The contract of docs/broker-contract.md behind PgBouncer in transaction mode and on PostgreSQL 15.

Runs the conformance suite's own tests, with engines on these deployments: all that need nothing but engines.
"""

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import psycopg
import pytest
from psycopg import sql

from brokers.engine import Engine
from brokers.postgres.engine import PostgresEngine
from tests.conformance import (
    test_claims,
    test_dead_letters,
    test_finishing,
    test_groups,
    test_leases,
    test_limits,
    test_messages_in,
    test_steering,
    test_waiting,
)

MODULES = (
    test_claims,
    test_finishing,
    test_leases,
    test_messages_in,
    test_groups,
    test_steering,
    test_dead_letters,
    test_limits,
    test_waiting,
)
FIXTURES = {"engine", "make_engine"}
POLLING_BREAKS = {"test_one_arrival_wakes_one_of_many"}
"""WAI-4: whoever looks for messages finds them. Nothing is lost by it; docs/scaling.md says so."""


def clause_tests(*modules: ModuleType) -> Iterator[Callable[..., None]]:
    """The modules' tests that need engines alone and have no parameters."""
    for module in modules:
        for name, test in inspect.getmembers(module, inspect.isfunction):
            marks = {mark.name for mark in getattr(test, "pytestmark", [])}
            wants = set(inspect.signature(test).parameters)
            if name.startswith("test_") and "parametrize" not in marks and wants <= FIXTURES:
                yield test


def cases() -> Iterator[Any]:
    """Each deployment with each test that holds there."""
    for test in clause_tests(*MODULES):
        for deployment in ("pgbouncer", "postgres15"):
            if deployment != "pgbouncer" or test.__name__ not in POLLING_BREAKS:
                yield pytest.param(deployment, test, id=f"{deployment}-{test.__module__}-{test.__name__}")


@pytest.fixture
def make_engine(deployment: str, request: pytest.FixtureRequest) -> Iterator[Callable[[], Engine]]:
    """Makes engines on the emptied database of the deployment, as separate processes would."""
    pooled = deployment == "pgbouncer"
    url: str = request.getfixturevalue("shared_pooled_database" if pooled else "shared_postgres15_database")
    engines: list[Engine] = []

    def make() -> Engine:
        engines.append(PostgresEngine(url, transaction_pooling=pooled))
        return engines[-1]

    empty(url)
    yield make
    for engine in engines:
        engine.close()


def empty(url: str) -> None:
    """Remove everything from the tables of messages, which costs a tenth of a new database."""
    with psycopg.connect(url, prepare_threshold=None) as connection:
        names = connection.execute(
            "select tablename from pg_tables where schemaname = 'dramatiq' and tablename <> 'identity'"
        ).fetchall()
        for (name,) in names:
            connection.execute(sql.SQL("delete from dramatiq.{}").format(sql.Identifier(name)))


@pytest.mark.parametrize(("deployment", "clause_test"), list(cases()))
def test_contract(deployment: str, clause_test: Callable[..., None], make_engine: Callable[[], Engine]) -> None:
    wants = inspect.signature(clause_test).parameters
    clause_test(**{name: make_engine if name == "make_engine" else make_engine() for name in wants})
