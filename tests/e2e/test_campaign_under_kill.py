"""A campaign survives the death of a worker: nobody is lost, nobody gets two, the end comes once.

JOB-01, RUN-01, RUN-02, RUN-06, RUN-07, RUN-09, OPT-06, and RELIABILITY's invariants 1 to 4 and 6, on both brokers.
"""

from collections import Counter

import pytest

from db import campaigns
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, rows
from tests.e2e.stack import until

RECIPIENTS = 1000
THREADS = 8


@pytest.mark.timeout(180)
def test_a_killed_worker_costs_no_recipient_and_doubles_none(stack, start_campaign, simulator, organization):
    add_contacts(organization, RECIPIENTS)
    sender = add_sender(organization, rate=200)
    victim, other = stack.start_worker(threads=THREADS), stack.start_worker(threads=THREADS)
    campaign_id = start_campaign(new_campaign(organization, sender))

    until(lambda: campaigns.progress(campaign_id).counts.sent >= 300, 60, "300 sends before the kill")
    stack.kill(victim)
    replacement = stack.start_worker(threads=THREADS)
    until(lambda: campaigns.progress(campaign_id).finished_at, 90, f"the campaign's end\n{stack.log_text()[-3000:]}")

    counts = campaigns.progress(campaign_id).counts
    assert counts.total == RECIPIENTS
    assert counts.sent + counts.unknown == RECIPIENTS
    assert counts.unknown <= THREADS, "only sends in flight at the kill may be uncertain"
    assert rows("select count(*) from job_logs where job_id = %s", campaign_id) == [(1,)]

    accepted = Counter(arrival.recipient for arrival in simulator.arrivals() if arrival.accepted)
    assert [who for who, times in accepted.items() if times > 1] == []
    ledger = dict(rows("select recipient, status from deliveries where campaign_id = %s", campaign_id))
    assert {who for who, status in ledger.items() if status == "sent"} <= accepted.keys() <= ledger.keys()
    assert {ledger[who] for who in accepted} <= {"sent", "unknown"}
    assert stack.stop(other) == 0
    assert stack.stop(replacement) == 0


@pytest.mark.timeout(120)
def test_failures_of_some_recipients_do_not_stop_the_others(stack, start_campaign, simulator, organization):
    """JOB-01: per-recipient errors, retries for transient ones only, partial success."""
    simulator.plan(shares={"131000": 0.15, "131026": 0.2}, seed=7)
    add_contacts(organization, 200)
    sender = add_sender(organization, rate=None)
    stack.start_worker(threads=THREADS)
    campaign_id = start_campaign(new_campaign(organization, sender, max_attempts=5))
    until(lambda: campaigns.progress(campaign_id).finished_at, 60, f"the end\n{stack.log_text()[-3000:]}")

    progress = campaigns.progress(campaign_id)
    tries = Counter(arrival.recipient for arrival in simulator.arrivals())
    refused = {arrival.recipient for arrival in simulator.arrivals() if arrival.outcome == "131026"}
    assert progress.status == "partial_success"
    assert progress.counts.sent + progress.counts.failed == 200
    assert progress.counts.sent == len({a.recipient for a in simulator.arrivals() if a.accepted})
    assert campaigns.failures(campaign_id)[0][:2] == ("failed", "131026")
    assert progress.counts.failed == len(refused)
    last = {arrival.recipient: arrival.outcome for arrival in simulator.arrivals()}
    assert {last[who] for who in refused} == {"131026"}, "a permanent refusal is never sent again"
    assert max(tries.values()) > 1, "a transient failure is tried again"
