"""An engine over two stores keeps the contract of one: the conformance suite's tests, run on it."""

import pytest

from brokers.choose import make_engine as choose_engine
from tests.conformance.test_claims import *  # noqa: F403 - their tests, with the fixtures below
from tests.conformance.test_dead_letters import *  # noqa: F403
from tests.conformance.test_finishing import *  # noqa: F403
from tests.conformance.test_groups import *  # noqa: F403
from tests.conformance.test_leases import *  # noqa: F403
from tests.conformance.test_messages_in import *  # noqa: F403
from tests.conformance.test_steering import *  # noqa: F403
from tests.conformance.test_waiting import *  # noqa: F403


@pytest.fixture
def kind():
    return "fallback"


@pytest.fixture
def make_engine(database, redis_url, settings_env):
    """Makes engines as separate processes would have them."""
    settings = settings_env(DATABASE_URL=database, BROKER_URL=redis_url)
    engines = []

    def make():
        engines.append(choose_engine(settings))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(make_engine):
    return make_engine()
