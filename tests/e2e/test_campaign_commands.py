"""`fanfare campaign pause|resume|rate|retry-failed|cancel`, as a person calls them (X-05, API-05)."""

import json
import subprocess
import sys

import pytest

from tests.db.campaign_data import add_contacts, add_sender, planned
from tests.e2e.stack import ROOT


def fanfare(stack, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", "campaign", *words]
    return subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.timeout(120)
@pytest.mark.parametrize("broker_url", ["postgres"], indirect=True)
def test_a_person_steers_a_campaign(stack, organization):
    add_contacts(organization, 3)
    campaign_id = str(planned(organization, add_sender(organization, rate=80)))

    def shown():
        return json.loads(fanfare(stack, "show", campaign_id, "--json").stdout)

    assert "is paused" in fanfare(stack, "pause", campaign_id, "--reason", "a typo").stdout
    assert (shown()["status"], shown()["status_reason"], shown()["version"]) == ("paused", "a typo", 2)
    assert "ago: a typo" in fanfare(stack, "show", campaign_id).stdout
    stale = fanfare(stack, "resume", campaign_id, "--version", "1")
    assert (stale.returncode, "changed by someone else" in stale.stderr) == (1, True)
    assert "7.5/s" in fanfare(stack, "rate", campaign_id, "7.5", "--version", "2").stdout
    assert shown()["limit"] == 7.5
    assert "goes on" in fanfare(stack, "resume", campaign_id).stdout
    assert "Nothing to do" in fanfare(stack, "retry-failed", campaign_id).stdout
    assert "cancelling" in fanfare(stack, "cancel", campaign_id).stdout
    refused = fanfare(stack, "pause", campaign_id)
    assert (refused.returncode, "is cancelling; it can be paused only while" in refused.stderr) == (1, True)
