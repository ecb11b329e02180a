"""NUM-04: a batch is never slower than count / limit + 2 s, from its acceptance to its end, on both brokers."""

import pytest

from db import campaigns
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, rows
from tests.e2e.stack import until

RATE = 12.5


@pytest.mark.parametrize("count", [10, 100])
def test_a_batch_takes_no_longer_than_its_limit_needs(stack, start_campaign, organization, count):
    add_contacts(organization, count)
    sender = add_sender(organization, rate=RATE)
    worker = stack.start_worker()
    warm_up = start_campaign(new_campaign(organization, add_sender(organization, rate=None, number="10002")))
    until(lambda: campaigns.progress(warm_up).finished_at, 30, f"the worker is up\n{stack.log_text()[-3000:]}")

    campaign_id = start_campaign(new_campaign(organization, sender))
    until(lambda: campaigns.progress(campaign_id).finished_at, 30, f"the end\n{stack.log_text()[-3000:]}")
    ((took,),) = rows("select extract(epoch from finished_at - created_at) from campaigns where id = %s", campaign_id)
    assert campaigns.progress(campaign_id).counts.sent == count
    assert float(took) <= count / RATE + 2
    assert stack.stop(worker) == 0
