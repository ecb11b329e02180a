"""Steering campaigns: what is allowed when, once, by whom, and that nobody is lost by it (X-05, OPT-07, API-05)."""

import random
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from core.clock import now, uuid7
from core.errors import PermanentError
from db import campaign_control, campaign_plan, campaigns, deliveries, pool
from db.campaign_state import lock_for_dispatch
from db.deliveries import Settlement
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, planned, rows

COMMANDS = {
    "pause": lambda campaign_id, **options: campaign_control.pause(campaign_id, "because", **options),
    "resume": campaign_control.resume,
    "cancel": campaign_control.cancel,
    "change_rate": lambda campaign_id, **options: campaign_control.change_rate(campaign_id, 7.5, **options),
    "retry_failed": campaign_control.retry_failed,
}
FINISHED = ("completed", "partial_success", "partial_failure", "failed")
BEFORE = ("draft", "scheduled")
RESULTS = {
    "pause": {"running": "paused", "paused": "paused"},
    "resume": {"paused": "running", "running": "running"},
    "cancel": {
        **dict.fromkeys((*BEFORE, "running", "paused", "cancelling"), "cancelling"),
        "cancelled": "cancelled",
    },
    "change_rate": {status: status for status in (*BEFORE, "running", "paused")},
    "retry_failed": {"running": "running", "paused": "paused", **dict.fromkeys(FINISHED, "running")},
}
STATUSES = (*BEFORE, "running", "paused", "cancelling", "cancelled", *FINISHED)
HELD = {("pause", "paused"), ("resume", "running"), ("cancel", "cancelling"), ("cancel", "cancelled")}
"""Where a command finds its effect there."""


@pytest.fixture
def sender(organization):
    return add_sender(organization, rate=80)


@pytest.fixture
def campaign(organization, sender):
    add_contacts(organization, 20)
    return planned(organization, sender, max_attempts=2)


def put(campaign_id, status):
    ended = now() if status in campaigns.FINAL_STATUSES else None
    rows("update campaigns set status = %s, finished_at = %s where id = %s returning id", status, ended, campaign_id)
    if ended:
        rows("update jobs set status = %s, completed_at = now() where id = %s returning id", status, campaign_id)


def released(campaign_id, count):
    ids = deliveries.pick(campaign_id, count)
    deliveries.release(ids, [now()] * len(ids))
    return ids


def settle(delivery_id, status, **facts):
    claimed = deliveries.claim(delivery_id)
    assert deliveries.settle(Settlement(delivery_id, claimed.attempt, status, **facts))


def fail(campaign_id, *codes):
    for delivery_id, code in zip(released(campaign_id, len(codes)), codes, strict=True):
        settle(delivery_id, "failed", code=code)


def by_status(campaign_id):
    return dict(rows("select status, count(*) from deliveries where campaign_id = %s group by 1", campaign_id))


def assert_counters_are_right(campaign_id):
    """RELIABILITY, invariant 5."""
    counts, recount = campaigns.progress(campaign_id).counts, by_status(campaign_id)
    names = ("pending", "sent", "failed", "cancelled", "unknown")
    assert {name: getattr(counts, name) for name in names} == {name: recount.get(name, 0) for name in names}
    assert counts.in_flight == recount.get("released", 0) + recount.get("sending", 0)
    assert counts.total == sum(recount.values())


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_from_every_status(campaign, command, status):
    fail(campaign, "131000")
    put(campaign, status)
    before = campaigns.progress(campaign)
    expected = RESULTS[command].get(status)
    if expected is None:
        with pytest.raises(PermanentError, match=f"is {status}; it can be") as refused:
            COMMANDS[command](campaign)
        assert refused.value.code == "campaign_not_allowed"
        assert campaigns.progress(campaign) == before
    else:
        steered = COMMANDS[command](campaign)
        after = campaigns.progress(campaign)
        assert (steered.status, steered.version) == (after.status, after.version) == (expected, steered.version)
        assert steered.changed == ((command, status) not in HELD)
        assert after.version == before.version + steered.changed
        assert (after.finished_at is None) == (expected not in campaigns.FINAL_STATUSES)
    assert_counters_are_right(campaign)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stale_version_changes_nothing_and_says_so(campaign, command):
    """X-05: two people who steer at once; OPT-07."""
    fail(campaign, "131000")
    put(campaign, "paused" if command == "resume" else "running")
    seen = campaigns.progress(campaign)
    with pytest.raises(PermanentError, match=f"changed by someone else.*you saw {seen.version - 1}") as refused:
        COMMANDS[command](campaign, version=seen.version - 1)
    assert refused.value.code == "campaign_changed"
    assert f"fanfare campaign show {campaign}" in str(refused.value)
    assert campaigns.progress(campaign) == seen
    assert COMMANDS[command](campaign, version=seen.version).changed


@pytest.mark.parametrize("command", COMMANDS)
def test_of_many_at_once_with_the_same_version_one_takes_effect(campaign, command):
    fail(campaign, "131000")
    put(campaign, "paused" if command == "resume" else "running")
    version = campaigns.progress(campaign).version

    def steer(_):
        try:
            return COMMANDS[command](campaign, version=version).changed
        except PermanentError as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(steer, range(8)))
    assert results.count(True) == 1
    assert set(results) <= {True, False, "campaign_changed"}
    assert campaigns.progress(campaign).version == version + 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_time_changes_nothing(campaign, command):
    """OPT-07."""
    fail(campaign, "131000")
    put(campaign, "paused" if command == "resume" else "running")
    first = COMMANDS[command](campaign)
    before = (campaigns.progress(campaign), by_status(campaign))
    second = COMMANDS[command](campaign)
    assert (first.changed, second.changed) == (True, False)
    assert (campaigns.progress(campaign), by_status(campaign)) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_campaign_that_is_not_there_is_told(organization, command):
    with pytest.raises(PermanentError) as refused:
        COMMANDS[command](uuid7())
    assert refused.value.code == "campaign_unknown"


def test_pause_returns_what_is_released_and_leaves_what_is_sending(campaign):
    ids = released(campaign, 5)
    claimed = deliveries.claim(ids[0])
    assert campaign_control.pause(campaign, "the list is wrong").recipients == 4
    assert by_status(campaign) == {"pending": 19, "sending": 1}
    assert [deliveries.claim(delivery_id) for delivery_id in ids] == [None] * 5
    assert deliveries.settle(Settlement(ids[0], claimed.attempt, "sent", "wamid.1"))
    progress = campaigns.progress(campaign)
    assert (progress.status_reason, progress.counts.sent) == ("the list is wrong", 1)
    assert timedelta() <= now() - progress.paused_at < timedelta(minutes=1)
    assert_counters_are_right(campaign)


def test_a_paused_campaign_does_not_finish_and_goes_on_where_it_was(campaign):
    first = released(campaign, 3)
    campaign_control.pause(campaign, "lunch")
    campaign_control.pause(campaign, "a later reason")
    assert campaigns.progress(campaign).status_reason == "lunch"
    assert campaigns.finish(campaign) is None
    campaign_control.resume(campaign)
    progress = campaigns.progress(campaign)
    assert (progress.status_reason, progress.paused_at) == (None, None)
    assert deliveries.pick(campaign, 3) == first


def test_cancel_ends_once_nothing_is_sending_and_counts_everyone(campaign, monkeypatch):
    monkeypatch.setattr(campaign_control, "CANCEL_CHUNK", 4)
    sent, again, queued = released(campaign, 3)
    attempts = {one: deliveries.claim(one).attempt for one in (sent, again)}
    assert campaign_control.cancel(campaign, "wrong text").recipients == 1
    assert deliveries.claim(queued) is None
    assert campaign_control.wind_down(campaign) is None
    assert by_status(campaign) == {"cancelled": 18, "sending": 2}
    deliveries.settle(Settlement(sent, attempts[sent], "sent", "wamid.1"))
    deliveries.settle(Settlement(again, attempts[again], "pending"))
    assert [campaign_control.wind_down(campaign) for _ in range(2)] == ["cancelled", None]
    progress = campaigns.progress(campaign)
    assert (progress.status, progress.status_reason) == ("cancelled", "wrong text")
    assert (progress.counts.sent, progress.counts.cancelled) == (1, 19)
    assert rows("select status, completed_at is not null from jobs where id = %s", campaign) == [("cancelled", True)]
    assert rows("select status from job_logs where job_id = %s", campaign) == [("cancelled",)]
    assert_counters_are_right(campaign)


def test_cancel_while_planning_plans_nobody_more(organization, sender):
    add_contacts(organization, 10)
    campaign_id = campaigns.accept(new_campaign(organization, sender))
    campaign_plan.plan_next_chunk(campaign_id, size=4)
    campaign_control.cancel(campaign_id)
    assert campaign_plan.plan_next_chunk(campaign_id, size=4) == 0
    assert campaign_control.wind_down(campaign_id) == "cancelled"
    assert by_status(campaign_id) == {"cancelled": 4}


def test_wind_down_does_nothing_to_a_campaign_that_runs(campaign):
    assert campaign_control.wind_down(campaign) is None
    assert by_status(campaign) == {"pending": 20}


def test_another_rate_takes_the_slots_back_from_all_that_run_on_the_number(organization, campaign, sender):
    """X-03: old slots next to new ones would be more than the limit."""
    other = planned(organization, sender)
    elsewhere = planned(organization, add_sender(organization, number="10002"))
    before = campaigns.get(campaign).slot_epoch
    ids = {one: released(one, 5) for one in (campaign, other, elsewhere)}
    assert campaign_control.change_rate(campaign, 10).recipients == 10
    assert by_status(campaign) == by_status(other) == {"pending": 20}
    assert by_status(elsewhere) == {"pending": 15, "released": 5}
    assert campaigns.get(other).slot_epoch == campaigns.get(campaign).slot_epoch == before + 1
    assert campaigns.get(elsewhere).slot_epoch == 0
    assert deliveries.claim(ids[other][0]) is None
    assert (campaigns.progress(campaign).rate, campaigns.progress(other).rate) == (10, 80)
    assert campaign_control.running_on("10001") == sorted([campaign, other])


def test_another_rate_of_the_number_reaches_its_campaigns(campaign, sender):
    released(campaign, 5)
    assert campaign_control.change_sender_rate(sender, 20.5) == "10001"
    assert by_status(campaign) == {"pending": 20}
    assert campaigns.progress(campaign).rate == 20.5
    assert campaign_control.change_sender_rate(sender, 20.5) is None
    assert campaign_control.change_sender_rate(sender, None) == "10001"
    assert not campaigns.get(campaign).is_paced


@pytest.mark.parametrize("rate", [0, -1.0, float("inf"), float("nan")])
def test_a_rate_that_is_none_is_refused(campaign, sender, rate):
    for change in (lambda: campaign_control.change_rate(campaign, rate), lambda: _change_sender(sender, rate)):
        with pytest.raises(PermanentError) as refused:
            change()
        assert refused.value.code == "rate_invalid"


def _change_sender(sender, rate):
    return campaign_control.change_sender_rate(sender, rate)


def test_a_message_of_an_older_slot_claims_nothing(campaign):
    """Else it would hold a thread until the new slot, and begin a send long after a pause."""
    (delivery_id,) = deliveries.pick(campaign, 1)
    old, new = now(), now() + timedelta(seconds=3)
    deliveries.release([delivery_id], [old])
    campaign_control.change_rate(campaign, 5)
    deliveries.release([delivery_id], [new])
    assert deliveries.claim(delivery_id, deliveries.release_id(delivery_id, old)) is None
    claimed = deliveries.claim(delivery_id, deliveries.release_id(delivery_id, new))
    assert (claimed.slot_at, claimed.is_paced) == (new, True)


@pytest.mark.parametrize(
    ("leave", "expected"), [((), {"pending": 20}), (("131026", "131050"), {"pending": 19, "failed": 1})]
)
def test_retry_gives_the_failed_all_their_tries_again(campaign, leave, expected):
    fail(campaign, "131026", "131000", "190")
    steered = campaign_control.retry_failed(campaign, leave=leave)
    assert steered.recipients == expected["pending"] - 17
    assert by_status(campaign) == expected
    assert rows("select distinct tries, code from deliveries where status = 'pending'") == [(0, None)]
    assert not campaign_control.retry_failed(campaign, leave=leave).changed
    assert_counters_are_right(campaign)


def test_a_finished_campaign_runs_again_and_finishes_again(campaign):
    """RUN-07: the end comes once for each run."""
    fail(campaign, "131000")
    for delivery_id in released(campaign, 19):
        settle(delivery_id, "sent", provider_message_id="wamid.1")
    assert campaigns.finish(campaign) == "partial_success"
    assert campaign_control.retry_failed(campaign).status == "running"
    assert campaigns.progress(campaign).finished_at is None
    assert rows("select status, completed_at, attempts from jobs where id = %s", campaign) == [("running", None, 1)]
    assert campaigns.finish(campaign) is None
    (delivery_id,) = released(campaign, 20)
    settle(delivery_id, "sent", provider_message_id="wamid.2")
    assert [campaigns.finish(campaign) for _ in range(2)] == ["completed", None]
    logged = rows("select status from job_logs where job_id = %s order by created_at, id", campaign)
    assert logged == [("partial_success",), ("retried",), ("completed",)]
    assert campaigns.progress(campaign).counts.sent == 20


def test_an_answer_from_before_the_retry_changes_nothing(campaign):
    """RELIABILITY: fencing."""
    (delivery_id,) = released(campaign, 1)
    attempt = deliveries.claim(delivery_id).attempt
    deliveries.settle(Settlement(delivery_id, attempt, "failed", code="131000"))
    campaign_control.retry_failed(campaign)
    deliveries.release([delivery_id], [now()])
    second = deliveries.claim(delivery_id)
    assert not deliveries.settle(Settlement(delivery_id, attempt, "failed", code="131000"))
    assert deliveries.settle(Settlement(delivery_id, second.attempt, "sent", "wamid.1"))


def test_commands_are_told_to_the_log_once_they_are_committed(campaign):
    def pause_and_fail():
        with pool.transaction():
            campaign_control.pause(campaign, "because")
            raise RuntimeError

    with capture_logs() as told:
        with pytest.raises(RuntimeError):
            pause_and_fail()
        assert told == []
        campaign_control.pause(campaign, "because")
        campaign_control.resume(campaign)
        campaign_control.change_rate(campaign, 5)
        for _ in range(2):
            campaign_control.cancel(campaign)
    events = [line["event"] for line in told]
    assert events == ["campaign.paused", "campaign.resumed", "campaign.rate_changed", "campaign.cancelling"]
    assert (told[0]["reason"], told[0]["version"], told[0]["campaign_id"]) == ("because", 2, str(campaign))


def test_sends_while_someone_steers_at_random_stay_exact(campaign):
    """RELIABILITY, invariants 1, 2 and 5: nobody twice, nobody lost, whatever is commanded meanwhile."""
    sends = []

    def work(seed):
        chance = random.Random(seed)
        for _ in range(60):
            with pool.transaction():
                runs = lock_for_dispatch(campaign).status == "running"
                ids = released(campaign, 3) if runs else []
            for delivery_id in ids:
                claimed = deliveries.claim(delivery_id)
                if claimed is None:
                    continue
                is_good = chance.random() < 0.6
                if is_good:
                    sends.append(delivery_id)
                facts = {"provider_message_id": "w"} if is_good else {"code": "131000"}
                deliveries.settle(Settlement(delivery_id, claimed.attempt, "sent" if is_good else "failed", **facts))

    def steer(seed):
        chance = random.Random(seed)
        for _ in range(30):
            command = chance.choice(["pause", "resume", "retry_failed", "change_rate"])
            with suppress(PermanentError):
                COMMANDS[command](campaign)

    with ThreadPoolExecutor(5) as threads:
        for result in [threads.submit(work, n) for n in range(3)] + [threads.submit(steer, n) for n in range(2)]:
            result.result(60)
    assert len(sends) == len(set(sends)) == by_status(campaign).get("sent", 0)
    assert_counters_are_right(campaign)
    assert sum(by_status(campaign).values()) == 20
