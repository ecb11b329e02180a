"""A running product: database, broker, simulator, worker processes."""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import dramatiq
import pytest

from db.campaigns import NewCampaign
from simulator.process import RunningSimulator, running_simulator
from tests.e2e.stack import Stack, running_stack

LEASE_S = 3
PROVIDER_TIMEOUT_S = 3


@pytest.fixture(params=["postgres", "redis"])
def broker_url(request, database) -> str:
    """Both brokers, by the one variable that chooses them (RUN-02); Postgres is also what an empty one gives."""
    return "" if request.param == "postgres" else request.getfixturevalue("redis_url")


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[RunningSimulator]:
    with running_simulator(data=tmp_path / "simulator", rate=1000.0, latency_ms=30.0) as running:
        yield running


@pytest.fixture
def stack(tmp_path: Path, database, broker_url, simulator, settings_env) -> Iterator[Stack]:
    """Workers can be started on it; this process can send, as a web app does."""
    variables = {
        "DATABASE_URL": database,
        "BROKER_URL": broker_url,
        "LEASE": str(LEASE_S),
        "PROVIDER_TIMEOUT": str(PROVIDER_TIMEOUT_S),
    }
    settings_env(**variables)
    with composed(), running_stack(tmp_path, simulator, **variables) as running:
        yield running


@pytest.fixture
def start_campaign(stack: Stack) -> Callable[[NewCampaign], UUID]:
    """`pipelines.campaign.start`, of the process as it is composed for this test."""
    start: Callable[[NewCampaign], UUID] = importlib.import_module("pipelines.campaign").start
    return start


@contextmanager
def composed() -> Iterator[None]:
    """Compose this process anew: the broker of an earlier test leads to that test's servers."""
    for name in [n for n in sys.modules if n.split(".")[0] in {"actors", "pipelines", "periodic"}]:
        del sys.modules[name]
    importlib.import_module("actors")
    yield
    dramatiq.get_broker().close()
