"""X-06: a campaign is moved to the other broker while it runs, in either direction; nothing is lost or doubled."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from db import campaigns
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, rows
from tests.e2e.stack import ROOT, until

RECIPIENTS = 400
RATE = 40
FANFARE = Path(sys.executable).with_name("fanfare")


def move(stack, source, target):
    command = [FANFARE, "broker", "move", "--from", source, "--to", target]
    moved = subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert moved.returncode == 0, moved.stdout + moved.stderr
    return moved.stdout


@pytest.mark.timeout(180)
def test_a_running_campaign_is_moved(stack, start_campaign, simulator, organization, broker_url, database, redis_url):
    add_contacts(organization, RECIPIENTS)
    sender = add_sender(organization, rate=RATE)
    old = stack.start_worker()
    campaign_id = start_campaign(new_campaign(organization, sender))
    until(lambda: campaigns.progress(campaign_id).counts.sent >= 60, 60, f"60 sends\n{stack.log_text()[-3000:]}")

    source, target = (redis_url, database) if broker_url else (database, redis_url)
    stack.environment["BROKER_URL"] = "" if broker_url else redis_url
    new = stack.start_worker()
    move(stack, source, target)
    assert stack.stop(old) == 0
    move(stack, source, target)
    until(lambda: campaigns.progress(campaign_id).finished_at, 60, f"the end\n{stack.log_text()[-3000:]}")

    counts = campaigns.progress(campaign_id).counts
    assert (counts.total, counts.sent) == (RECIPIENTS, RECIPIENTS)
    assert rows("select count(*) from job_logs where job_id = %s", campaign_id) == [(1,)]
    accepted = Counter(arrival.recipient for arrival in simulator.arrivals() if arrival.accepted)
    assert (len(accepted), max(accepted.values())) == (RECIPIENTS, 1)
    assert stack.stop(new) == 0
    assert "campaign.finished" in (stack.logs / "worker-1.log").read_text(), "the new worker brought it to its end"
