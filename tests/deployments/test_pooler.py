"""Behind PgBouncer in transaction mode: migrations, sends, workers; RUN-02, DB-04.

Its sessions change with every transaction, so that a lock, a prepared statement or a LISTEN of a session fails here.
"""

import threading
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest

from db import campaigns, pool
from db.migrate import FOLDER, LOCK_KEY, migrate
from tests.conftest import named, wait_until
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, rows
from tests.deployments.conftest import path_of
from tests.e2e.conftest import composed, simulator, start_campaign
from tests.e2e.stack import Stack, running_stack

ALL = sorted(path.stem for path in FOLDER.glob("*.sql"))
RECIPIENTS = 100

__all__ = ["simulator", "start_campaign"]
"""Fixtures of the end-to-end tests that these use."""


@pytest.fixture
def empty_pooled_database(empty_database, pooler) -> str:
    return named(pooler, path_of(empty_database))


@pytest.fixture
def stack(tmp_path, pooled_database, organization, simulator, settings_env) -> Iterator[Stack]:
    variables = {"DATABASE_URL": pooled_database, "DATABASE_TRANSACTION_POOLING": "true", "LEASE": "3"}
    settings_env(**variables)
    with composed(), running_stack(tmp_path, simulator, **variables) as running:
        yield running


def test_migrations_apply_behind_a_pooler_on_many_machines_at_once(empty_pooled_database, empty_database):
    applied = []
    threads = [threading.Thread(target=lambda: applied.extend(migrate(empty_pooled_database))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert applied == ALL
    assert migrate(empty_pooled_database) == []
    with psycopg.connect(empty_database) as connection:
        # A lock of a session would stay with the pooler's, and the next deploy would wait for ever.
        assert connection.execute("select pg_try_advisory_lock(%s)", [LOCK_KEY]).fetchone() == (True,)


def test_transactions_and_many_statements_behind_a_pooler(pooled_database):
    """The same statement often enough that psycopg would prepare it."""
    for n in range(20):
        with pool.transaction() as connection:
            connection.execute("insert into organizations (id, name) values (gen_random_uuid(), %s)", [f"o{n}"])
    with pool.connection() as connection:
        assert connection.execute("select count(*) from organizations").fetchone() == (20,)


def test_a_campaign_behind_a_pooler(stack, start_campaign, simulator, organization, database, pooled_database):
    add_contacts(organization, RECIPIENTS)
    sender = add_sender(organization, rate=None)
    worker = stack.start_worker(threads=4)
    campaign_id = start_campaign(new_campaign(organization, sender))
    wait_until(lambda: bool(campaigns.progress(campaign_id).finished_at), "the campaign does not end", 40)
    assert campaigns.progress(campaign_id).counts.sent == RECIPIENTS
    times = Counter(arrival.recipient for arrival in simulator.arrivals() if arrival.accepted)
    assert len(times) == RECIPIENTS
    assert set(times.values()) == {1}
    assert rows("select count(*) from job_logs where job_id = %s", campaign_id) == [(1,)]
    assert stack.stop(worker) == 0
    assert "Traceback" not in stack.log_text()
    with psycopg.connect(database) as connection:
        listening = "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'"
        assert connection.execute(listening).fetchone() == (0,)
        assert connection.execute("select count(*) from dramatiq.waiter").fetchone() == (0,)
