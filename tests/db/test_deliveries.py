"""The ledger's steps: each happens once, whoever repeats it, and late answers change nothing (X-01, RUN-06)."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from core.clock import now
from db import campaigns, deliveries, pool
from db.deliveries import Settlement
from db.group_commit import GroupCommit
from tests.db.campaign_data import add_contacts, add_sender, planned, rows

NOW = timedelta()


@pytest.fixture
def campaign(organization):
    add_contacts(organization, 20)
    return planned(organization, add_sender(organization), unknown_policy="resend", max_attempts=2)


def released(campaign_id, count=1, slot=0.0):
    ids = deliveries.pick(campaign_id, count)
    deliveries.release(ids, [now() + timedelta(seconds=slot)] * len(ids))
    return ids


def status(delivery_id):
    return rows("select status from deliveries where id = %s", delivery_id)[0][0]


def test_only_one_of_many_claims_gets_a_delivery(campaign):
    ids = released(campaign, 10)
    with ThreadPoolExecutor(16) as threads:
        claimed = [c for c in threads.map(deliveries.claim, ids * 5) if c]
    assert sorted(c.id for c in claimed) == sorted(ids)
    assert {c.attempt for c in claimed} == {1}


def test_a_claim_tells_what_to_send_and_when(campaign):
    (delivery_id,) = released(campaign, 1, slot=3.0)
    claimed = deliveries.claim(delivery_id)
    assert claimed.recipient.startswith("+1555")
    assert claimed.parameters["name"].startswith("Ada")
    assert timedelta(seconds=2) < claimed.slot_at - now() <= timedelta(seconds=3)


def test_nothing_is_claimed_while_the_campaign_does_not_run(campaign):
    (delivery_id,) = released(campaign)
    rows("update campaigns set status = 'paused' where id = %s returning id", campaign)
    assert deliveries.claim(delivery_id) is None
    assert status(delivery_id) == "released"


def test_an_answer_of_an_older_attempt_changes_nothing(campaign):
    """RELIABILITY: fencing."""
    (delivery_id,) = released(campaign)
    first = deliveries.claim(delivery_id)
    assert deliveries.settle(Settlement(delivery_id, first.attempt, "pending"))
    deliveries.release(deliveries.pick(campaign, 20), [now()] * 20)
    second = deliveries.claim(delivery_id)
    assert second.attempt == first.attempt + 1
    assert not deliveries.settle(Settlement(delivery_id, first.attempt, "failed", code="1"))
    assert status(delivery_id) == "sending"


def test_a_settled_delivery_is_never_settled_again(campaign):
    (delivery_id,) = released(campaign)
    claimed = deliveries.claim(delivery_id)
    assert deliveries.settle(Settlement(delivery_id, claimed.attempt, "sent", "wamid.1"))
    assert not deliveries.settle(Settlement(delivery_id, claimed.attempt, "failed", code="1"))
    assert status(delivery_id) == "sent"


def test_a_held_attempt_may_still_turn_out_sent(campaign):
    (delivery_id,) = released(campaign)
    claimed = deliveries.claim(delivery_id)
    assert deliveries.orphan(delivery_id, silent_for=NOW)
    assert status(delivery_id) == "unknown"
    assert deliveries.settle(Settlement(delivery_id, claimed.attempt, "sent", "wamid.1"))
    assert status(delivery_id) == "sent"


def test_a_sender_that_is_not_silent_long_enough_is_left_alone(campaign):
    (delivery_id,) = released(campaign)
    deliveries.claim(delivery_id)
    assert not deliveries.orphan(delivery_id, silent_for=timedelta(minutes=1))
    assert deliveries.sending_for(delivery_id) < timedelta(minutes=1)
    assert status(delivery_id) == "sending"


def test_a_send_that_goes_back_waits_and_may_keep_its_try(campaign):
    free, paid = released(campaign, 2)
    for delivery_id, counts in ((free, False), (paid, True)):
        attempt = deliveries.claim(delivery_id).attempt
        again_in = timedelta(minutes=5)
        deliveries.settle(Settlement(delivery_id, attempt, "pending", counts=counts, again_in=again_in))
    assert rows("select tries from deliveries where id = %s", free) == [(0,)]
    assert rows("select tries from deliveries where id = %s", paid) == [(1,)]
    assert not {free, paid} & set(deliveries.pick(campaign, 20))
    released(campaign, 20)
    assert 0 < deliveries.next_due_in_s(campaign) <= 300


def test_repair_returns_holds_and_sends_again_what_a_crash_left(campaign):
    lost, silent, exhausted = released(campaign, 3, slot=-60.0)
    for delivery_id in (silent, exhausted):
        deliveries.claim(delivery_id)
    rows("update deliveries set tries = 2 where id = %s returning id", exhausted)
    repairs = deliveries.repair(campaign, silent_for=NOW, resend_after=timedelta(hours=1))
    assert (repairs.returned, repairs.held, repairs.resent) == (1, 2, 0)
    assert [status(d) for d in (lost, silent, exhausted)] == ["pending", "unknown", "unknown"]
    again = deliveries.repair(campaign, silent_for=NOW, resend_after=NOW)
    assert (again.returned, again.held, again.resent) == (0, 0, 2)
    assert [status(d) for d in (silent, exhausted)] == ["pending", "failed"]


def test_repair_holds_unknown_ones_where_the_policy_says_so(campaign):
    rows("update campaigns set unknown_policy = 'hold' where id = %s returning id", campaign)
    (delivery_id,) = released(campaign)
    deliveries.claim(delivery_id)
    deliveries.repair(campaign, silent_for=NOW, resend_after=NOW)
    deliveries.repair(campaign, silent_for=NOW, resend_after=NOW)
    assert status(delivery_id) == "unknown"


def test_in_flight_and_the_last_slot_are_known(campaign):
    assert deliveries.in_flight(campaign) == (0, 0.0)
    released(campaign, 4, slot=2.0)
    count, reserved_s = deliveries.in_flight(campaign)
    assert count == 4
    assert 1.0 < reserved_s <= 2.0


def test_counters_equal_a_recount_after_concurrent_steps(campaign):
    """RELIABILITY, invariant 5."""
    ids = released(campaign, 20)

    def send(delivery_id):
        claimed = deliveries.claim(delivery_id)
        outcome = random.choice(["sent", "failed", "unknown", "pending"])
        facts = {"provider_message_id": "w"} if outcome == "sent" else {"code": "1"}
        deliveries.settle(Settlement(delivery_id, claimed.attempt, outcome, **facts))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(send, ids))
    counts = campaigns.progress(campaign).counts
    recount = dict(rows("select status, count(*) from deliveries group by 1"))
    named = ("pending", "sent", "failed", "unknown")
    assert {name: getattr(counts, name) for name in named} == {name: recount.get(name, 0) for name in named}


def test_group_commit_gives_everyone_their_own_result_and_shares_runs():
    batches = []
    gate = threading.Event()

    def run(items):
        gate.wait(5)
        batches.append(len(items))
        return [item * 2 for item in items]

    commit = GroupCommit(run)
    with ThreadPoolExecutor(32) as threads:
        results = [threads.submit(commit.submit, i) for i in range(32)]
        gate.set()
        assert [r.result(10) for r in results] == [i * 2 for i in range(32)]
    assert sum(batches) == 32
    assert len(batches) < 32


def test_group_commit_raises_an_error_to_its_batch_and_goes_on():
    def run(items):
        if "bad" in items:
            raise ValueError("bad batch")
        return items

    commit = GroupCommit(run)
    with pytest.raises(ValueError, match="bad batch"):
        commit.submit("bad")
    assert commit.submit("good") == "good"


def test_a_release_that_rolls_back_leaves_everyone_pending(campaign):
    def release_and_fail():
        with pool.transaction():
            deliveries.release(deliveries.pick(campaign, 3), [now()] * 3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        release_and_fail()
    assert deliveries.in_flight(campaign) == (0, 0.0)
    assert len(deliveries.pick(campaign, 50)) == 20
