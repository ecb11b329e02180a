"""Status webhooks tell what became of every send: JOB-03, API-12, X-01, X-10, RELIABILITY's 1 to 3 and 12."""

from collections import Counter
from importlib import import_module

import pytest

from db import campaigns, inbound
from simulator.plan import Plan
from simulator.statuses import statuses_of
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, rows
from tests.db.test_inbound import ORDER, counters, of, recount, webhook
from tests.e2e.stack import until
from tests.web.test_health import web
from tests.web.test_whatsapp_webhook import port_of

RECIPIENTS = 100
SECRET = "made up"
NOWHERE = "http://127.0.0.1:1/webhooks/whatsapp"
LOST = {"silent": 0.06, "reset": 0.06}
STATUSES = {"read": 0.3, "failed": 0.1, "sent": 0.1}
DISORDER = {"duplicate_share": 0.5, "shuffle": True, "status_delay_ms": 20, "status_batch": 3}


@pytest.fixture
def webhook_url(stack, tmp_path):
    """The address of a running web process."""
    folder = tmp_path / "web"
    folder.mkdir()
    variables = {name: stack.environment[name] for name in ("DATABASE_URL", "BROKER_URL", "DATA_DIR")}
    with web(folder, WHATSAPP_APP_SECRET=SECRET, **variables):
        yield f"http://127.0.0.1:{port_of(folder)}/webhooks/whatsapp"


def all_taken_in(simulator):
    """Whether every webhook was answered with 200 and processed."""
    open_events = rows("select count(*) from inbound_events where processed_at is null")
    return simulator.summary()["webhooks"]["waiting"] == 0 and open_events == [(0,)]


def highest_told(simulator):
    """Recipient to the highest status that the simulator told, of those that it told."""
    plan = Plan.model_validate(simulator.plan())
    accepted = [arrival for arrival in simulator.arrivals() if arrival.accepted]
    told = {a.recipient: [status["status"] for _, status in statuses_of(a, plan, 0)] for a in accepted}
    return {recipient: max(found, key=ORDER.index) for recipient, found in told.items() if found}


def check(campaign_id, simulator):
    accepted = Counter(arrival.recipient for arrival in simulator.arrivals() if arrival.accepted)
    assert len(accepted) == RECIPIENTS
    assert set(accepted.values()) == {1}, "nobody gets two"
    ledger = dict(rows("select recipient, status from deliveries where campaign_id = %s", campaign_id))
    assert ledger == highest_told(simulator)
    assert counters(campaign_id) == recount(campaign_id)
    assert campaigns.progress(campaign_id).counts.unknown == 0


@pytest.mark.timeout(180)
def test_sends_whose_answer_was_lost_are_resolved_by_webhooks(
    stack, start_campaign, simulator, organization, webhook_url
):
    """Policy hold: they are unknown at the campaign's end, and webhooks that come late tell that they were sent."""
    simulator.plan(
        shares=LOST, statuses=STATUSES, seed=5, app_secret=SECRET, webhook_url=NOWHERE, pair_limit=False, **DISORDER
    )
    add_contacts(organization, RECIPIENTS)
    stack.start_worker(threads=16)
    campaign_id = start_campaign(new_campaign(organization, add_sender(organization, rate=None)))
    until(lambda: campaigns.progress(campaign_id).finished_at, 60, f"the end\n{stack.log_text()[-3000:]}")
    before = campaigns.progress(campaign_id)
    assert 2 <= before.counts.unknown < RECIPIENTS / 2
    assert before.status == "partial_success"

    simulator.plan(webhook_url=webhook_url)
    until(lambda: all_taken_in(simulator), 60, f"all webhooks\n{stack.log_text()[-3000:]}")
    check(campaign_id, simulator)
    assert campaigns.progress(campaign_id).status == before.status, "its end took effect once"
    assert rows("select count(*) from job_logs where job_id = %s", campaign_id) == [(1,)]


@pytest.mark.timeout(180)
def test_statuses_that_are_earlier_than_the_answer(stack, start_campaign, simulator, organization, webhook_url):
    simulator.plan(
        shares=LOST, statuses=STATUSES, early_share=0.7, app_secret=SECRET, webhook_url=webhook_url, **DISORDER
    )
    add_contacts(organization, RECIPIENTS)
    stack.start_worker(threads=16)
    campaign_id = start_campaign(new_campaign(organization, add_sender(organization, rate=None)))
    until(lambda: campaigns.progress(campaign_id).finished_at, 60, f"the end\n{stack.log_text()[-3000:]}")
    until(lambda: all_taken_in(simulator), 60, f"all webhooks\n{stack.log_text()[-3000:]}")
    check(campaign_id, simulator)


@pytest.mark.timeout(120)
def test_the_sweep_finds_webhooks_that_nobody_announced(stack, organization):
    """X-10: the broker was down when they came, or the web process died after it had stored them."""
    inbound.store(webhook({"statuses": [of(organization, "sent")]}))
    sweep = import_module("periodic.inbound_sweep").sweep_inbound
    stack.start_worker()
    looked = "select count(*) from inbound_events where processed_at is not null"
    rows("update inbound_events set received_at = received_at - interval '1 minute' returning id")
    sweep.send()
    until(lambda: rows(looked) == [(1,)], 30, f"the event\n{stack.log_text()[-3000:]}")
    assert rows("select reasons from inbound_events") == [(["delivery_unknown"],)]
