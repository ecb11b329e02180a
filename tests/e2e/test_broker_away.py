"""RUN-04: Redis is killed while a campaign runs, and comes back: the campaign goes on through Postgres meanwhile."""

import time
from collections import Counter
from importlib import import_module

import pytest

from brokers.current import current_broker
from brokers.fallback import state
from db import campaigns
from tests.conformance import servers
from tests.db.campaign_data import add_contacts, add_sender, new_campaign
from tests.e2e.conftest import LEASE_S, PROVIDER_TIMEOUT_S, composed
from tests.e2e.stack import running_stack, until

RECIPIENTS = 1000


@pytest.fixture
def server():
    with servers.running("valkey") as running:
        yield running


@pytest.fixture
def redis_stack(tmp_path, database, server, simulator, settings_env):
    variables = {
        "DATABASE_URL": database,
        "BROKER_URL": server.url,
        "LEASE": str(LEASE_S),
        "PROVIDER_TIMEOUT": str(PROVIDER_TIMEOUT_S),
    }
    settings_env(**variables)
    with composed(), running_stack(tmp_path, simulator, **variables) as running:
        yield running


def is_away():
    found = state(current_broker().engine)
    return found is not None and found.is_away


@pytest.mark.timeout(240)
def test_a_campaign_goes_on_while_redis_is_away(redis_stack, server, simulator, organization):
    pipeline = import_module("pipelines.campaign")
    sweep = import_module("periodic.ledger_sweep")
    add_contacts(organization, RECIPIENTS)
    sender = add_sender(organization, rate=50)
    for _ in range(2):
        redis_stack.start_worker()
    campaign_id = pipeline.start(new_campaign(organization, sender))
    until(lambda: campaigns.progress(campaign_id).counts.sent >= 100, 60, "100 sends")

    server.kill()
    sweep.sweep_ledger.send()  # as the scheduler does; a producer that meets the outage
    assert is_away()
    sent = campaigns.progress(campaign_id).counts.sent
    until(lambda: campaigns.progress(campaign_id).counts.sent >= sent + 100, 60, "100 sends without Redis")
    assert campaigns.progress(campaign_id).finished_at is None
    server.start()
    until(lambda: not is_away(), 20, "Redis is used again")

    def ended():
        if time.monotonic() > next_sweep[0]:
            next_sweep[0] += 15
            sweep.sweep_ledger.send()
        return campaigns.progress(campaign_id).finished_at

    next_sweep = [time.monotonic() + 15]
    until(ended, 120, "the campaign's end")
    counts = campaigns.progress(campaign_id).counts
    assert (counts.sent, counts.unknown) == (RECIPIENTS, 0), redis_stack.log_text()[-5000:]
    times = Counter(arrival.recipient for arrival in simulator.arrivals() if arrival.accepted)
    assert len(times) == RECIPIENTS
    assert set(times.values()) == {1}
    assert redis_stack.log_text().count("fallback.left") == 2
