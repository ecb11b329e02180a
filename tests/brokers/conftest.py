"""A broker of each kind with a real worker of dramatiq in this process."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import dramatiq
import pytest
from dramatiq import Worker

from brokers.broker import EngineBroker
from brokers.choose import make_broker
from brokers.encoder import OrjsonEncoder

StartWorker = Callable[..., Worker]


@pytest.fixture(params=["postgres", "redis"])
def broker(request, database, settings_env) -> Iterator[EngineBroker]:
    url = "" if request.param == "postgres" else request.getfixturevalue("redis_url")
    settings = settings_env(DATABASE_URL=database, BROKER_URL=url)
    broker = make_broker(settings)
    broker.lease = timedelta(seconds=2)
    dramatiq.set_encoder(OrjsonEncoder())
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


@pytest.fixture
def start_worker(broker) -> Iterator[StartWorker]:
    """Starts a worker on the broker; stopped at the end of the test."""
    workers: list[Worker] = []
    broker.emit_after("process_boot")  # as dramatiq's command line does; starts the thread that watches time limits

    def start(**options: object) -> Worker:
        worker = Worker(broker, worker_timeout=200, **{"worker_threads": 4} | options)
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()
