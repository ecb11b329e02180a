"""One system for each test, of the kinds that `expect` names, behind a proxy where the test wants one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dramatiq_pg
import pytest
from dramatiq import Worker
from dramatiq.broker import Broker
from dramatiq.brokers import redis as stock_redis

from brokers.broker import EngineBroker
from tests.faults.actors import QUEUE
from tests.faults.effects import Effects
from tests.faults.processes import Processes
from tests.faults.proxy import Proxy, address_of
from tests.faults.systems import LEASE, OURS, make_broker, make_stock_schema, unfinished

STOP_TIMEOUT_MS = 2000
"""A stock worker that a fault has blocked is left behind; its threads are daemons."""


@dataclass
class System:
    """One kind of broker on one server.

    Attributes:
        kind: See `make_broker`.
        url: The server, without the proxy.
        folder: For files of the test.
        proxy: Stands before the server, for brokers made with `proxied`.
    """

    kind: str
    url: str
    folder: Path
    proxy: Proxy
    _brokers: list[Broker] = field(default_factory=list)
    _workers: list[Worker] = field(default_factory=list)

    @cached_property
    def effects(self) -> Effects:
        """What actors did, in whatever process."""
        return Effects(self.folder / "effects")

    @property
    def is_ours(self) -> bool:
        return self.kind in OURS

    def broker(self, *, proxied: bool = False, lease: timedelta = LEASE, **options: Any) -> Broker:
        """A new broker, as another process would have it; `options` are those of `make_broker`."""
        url = self.proxy.url(self.url) if proxied else self.url
        broker = make_broker(self.kind, url, lease=lease, **options)
        self._brokers.append(broker)
        return broker

    def start_worker(self, broker: Broker, **options: Any) -> Worker:
        """A worker of dramatiq in this process; stopped at the end."""
        # dramatiq-pg counts in whole seconds: with less than dramatiq's default of one it polls without a pause.
        timeout_ms = 1000 if self.kind == "stock-pg" else 100
        worker = Worker(broker, **{"worker_timeout": timeout_ms, "worker_threads": 4} | options)
        worker.start()
        self._workers.append(worker)
        return worker

    def unfinished(self, broker: Broker, queue: str = QUEUE) -> int:
        """Messages of `queue` that wait, are delayed or run."""
        return unfinished(broker, self.url, queue)

    def close(self) -> None:
        self.proxy.accept()
        self.proxy.forward()
        for worker in self._workers:
            worker.stop(timeout=STOP_TIMEOUT_MS)
        for broker in self._brokers:
            if isinstance(broker, EngineBroker):
                broker.close()
            elif isinstance(broker, stock_redis.RedisBroker):
                broker.client.close()
            elif isinstance(broker, dramatiq_pg.PostgresBroker):
                broker.pool.closeall()
        self._workers.clear()
        self._brokers.clear()
        self.proxy.close()


@pytest.fixture
def make_system(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., System]]:
    """Makes a system of a kind, on the server at `url` or on an empty one."""
    systems: list[System] = []

    def make(kind: str, url: str = "") -> System:
        url = url or _server_for(kind, request)
        systems.append(System(kind, url, tmp_path, Proxy(address_of(url))))
        return systems[-1]

    yield make
    for system in systems:
        system.close()


@pytest.fixture
def system(request: pytest.FixtureRequest, make_system: Callable[..., System]) -> System:
    """A system of the parameter's kind on an empty server."""
    return make_system(request.param)


@pytest.fixture
def processes(system: System) -> Iterator[Processes]:
    """Worker processes on `system`; killed at the end."""
    running = Processes(system.kind, system.url, system.folder)
    yield running
    running.end()


def _server_for(kind: str, request: pytest.FixtureRequest) -> str:
    if kind == "postgres":
        return str(request.getfixturevalue("database"))
    if kind == "stock-pg":
        url = str(request.getfixturevalue("empty_database"))
        make_stock_schema(url)
        return url
    return str(request.getfixturevalue("redis_url"))
