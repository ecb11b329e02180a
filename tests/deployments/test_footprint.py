"""RUN-05: a worker process holds a small constant of connections and threads, for 25 queues as for one.

The constants stand in docs/scaling.md.
"""

from collections import Counter
from collections.abc import Callable

import psycopg
import pytest
import redis

from brokers.choose import make_broker
from brokers.postgres.connections import SIZE
from core.settings import get_settings
from tests.deployments.workers import RunningWorker, note, running_worker

THREADS = 8
OWN_THREADS = 10
"""Main, consumer, time limits, finishes, leases, keeper, and four of the pool of database connections."""
LISTENER = 1
REDIS_OWN = 5
"""Connections of a worker process to Redis beside those of its threads: claim, wait, finish, leases, keeper."""
ROUNDS = 20
SENDS = 10

ACTIVITY = """
    select application_name, count(*) from pg_stat_activity
    where datname = current_database() and application_name like 'fanfare%%' and pid <> pg_backend_pid() group by 1
"""


@pytest.fixture(params=["postgres", "redis"])
def broker_url(request, database) -> str:
    return "" if request.param == "postgres" else str(request.getfixturevalue("redis_url"))


def busy(worker: RunningWorker, queues: int, look: Callable[[], Counter[str]]) -> Counter[str]:
    """Keep the worker busy with messages that send messages; the most of everything that `look` saw."""
    broker = make_broker(get_settings())
    sent = [note("x", number % queues, sends=SENDS) for number in range(ROUNDS * 25)]
    broker.engine.enqueue_many(sent)
    broker.close()  # its connections are not the worker's
    most: Counter[str] = Counter()
    while len(worker.ran()) < len(sent) * (1 + SENDS):
        most |= look()
    return most


@pytest.mark.parametrize("queues", [1, 25])
def test_connections_and_threads_do_not_grow_with_the_queues(broker_url, database, queues, settings_env, tmp_path):
    variables = {"DATABASE_URL": database, "BROKER_URL": broker_url}
    settings = settings_env(**variables)
    with (
        psycopg.connect(database, autocommit=True) as connection,
        redis.Redis.from_url(broker_url or "redis://") as client,
        running_worker(tmp_path, queues=queues, threads=THREADS, **variables) as worker,
    ):

        def look() -> Counter[str]:
            found = Counter(dict(connection.execute(ACTIVITY).fetchall()))
            if broker_url:
                found["redis"] = len(client.client_list()) - 1  # this one
            found["threads"] = worker.status("Threads")
            return found

        most = busy(worker, queues, look)
    assert most["fanfare-broker"] <= SIZE + LISTENER
    assert most["fanfare"] <= settings.database_pool_size
    assert most["redis"] <= THREADS + REDIS_OWN
    assert most["threads"] <= THREADS + OWN_THREADS
