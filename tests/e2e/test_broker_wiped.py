"""X-06, RUN-06: FLUSHALL in mid-work is repaired from the ledger by one sweep, of which there is one every minute."""

import os
import signal
from collections import Counter
from datetime import timedelta
from importlib import import_module

import pytest
import redis

from brokers.current import current_broker
from brokers.tracked import resend_lost, send_tracked
from db import campaigns, imports, pool
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, rows
from tests.e2e.conftest import LEASE_S, PROVIDER_TIMEOUT_S, composed
from tests.e2e.stack import running_stack, until

RECIPIENTS = 300


@pytest.fixture
def redis_stack(tmp_path, database, redis_url, simulator, settings_env):
    variables = {
        "DATABASE_URL": database,
        "BROKER_URL": redis_url,
        "LEASE": str(LEASE_S),
        "PROVIDER_TIMEOUT": str(PROVIDER_TIMEOUT_S),
    }
    settings_env(**variables)
    with composed(), running_stack(tmp_path, simulator, **variables) as running:
        yield running


@pytest.fixture
def import_of(organization, tmp_path):
    """Accepts a file of so many people and enqueues its import."""

    def accept(people):
        file = tmp_path / "people.csv"
        file.write_text("phone,name\n" + "".join(f"+1202555{n:04d},Bo {n}\n" for n in range(100, 100 + people)))
        with pool.transaction():
            import_id = imports.accept(organization, file, file.name)
            send(import_id)
        return import_id

    return accept


def send(import_id):
    actor = import_module("actors.contact_import").import_contacts
    send_tracked(actor, import_id, {"import_id": str(import_id)})


def wipe(url):
    with redis.Redis.from_url(url) as client:
        client.flushall()


@pytest.mark.timeout(180)
def test_a_wiped_redis_costs_no_recipient_and_no_job(redis_stack, simulator, organization, redis_url, import_of):
    sweep = import_module("periodic.ledger_sweep")
    add_contacts(organization, RECIPIENTS)
    sender = add_sender(organization, rate=50)
    campaign_id = import_module("pipelines.campaign").start(new_campaign(organization, sender))
    worker = redis_stack.start_worker()
    until(lambda: campaigns.progress(campaign_id).counts.sent >= 60, 60, "60 sends")
    os.killpg(worker.pid, signal.SIGSTOP)  # the import is to be in the queue when it is wiped
    import_id = import_of(50)
    wipe(redis_url)
    os.killpg(worker.pid, signal.SIGCONT)

    quiet = "select max(settled_at) < now() - interval '2 s' from deliveries where campaign_id = %s"
    until(lambda: rows(quiet, campaign_id) == [(True,)], 40, "the campaign stands still")
    assert campaigns.progress(campaign_id).counts.sent < RECIPIENTS
    assert imports.load(import_id).completed_at is None
    sweep.sweep_ledger.send()  # as the scheduler does
    until(lambda: campaigns.progress(campaign_id).finished_at, 60, f"the end\n{redis_stack.log_text()[-3000:]}")
    until(lambda: imports.load(import_id).completed_at, 30, f"the import\n{redis_stack.log_text()[-3000:]}")

    progress = campaigns.progress(campaign_id)
    assert (progress.counts.sent, progress.counts.unknown) == (RECIPIENTS, 0)
    times = Counter(arrival.recipient for arrival in simulator.arrivals() if arrival.accepted)
    assert len(times) == RECIPIENTS
    assert set(times.values()) == {1}
    assert imports.load(import_id).inserted == 50
    status = "select status from jobs where id = %s"
    until(lambda: rows(status, import_id) == [("completed",)], 10, "the job's end")


def test_a_job_is_never_in_the_store_twice(redis_stack, redis_url, import_of):
    import_id = import_of(1)
    send(import_id)
    assert resend_lost(older_than=timedelta()) == 0
    engine = current_broker().engine
    assert engine.depths([imports.QUEUE])[0].waiting == 1
    wipe(redis_url)
    assert resend_lost(older_than=timedelta(minutes=1)) == 0, "it may be on its way"
    assert resend_lost(older_than=timedelta()) == 1
    assert engine.depths([imports.QUEUE])[0].waiting == 1
