"""Accepting, planning and finishing campaigns (JOB-01, JOB-05, RUN-06, DB-01, OPT-10)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from core.clock import now
from core.errors import PermanentError
from db import campaign_plan, campaigns, deliveries, jobs
from db.campaigns import Audience
from db.deliveries import Settlement
from tests.db.campaign_data import add_contacts, add_sender, new_campaign, planned, rows


@pytest.fixture
def sender(organization):
    return add_sender(organization)


def test_planning_writes_one_delivery_for_each_contact_and_freezes_its_parameters(organization, sender):
    add_contacts(organization, 12, custom={"order_id": "A-1"})
    campaign_id = planned(organization, sender, variables=["name", "order_id"])
    found = rows("select parameters from deliveries where campaign_id = %s order by recipient", campaign_id)
    assert [row[0] for row in found] == [{"name": f"Ada {i}", "order_id": "A-1"} for i in range(12)]
    assert campaigns.progress(campaign_id).counts == campaigns.Counts(total=12, pending=12)


def test_recipients_who_lack_a_value_or_a_phone_are_skipped_with_the_reason(organization, sender):
    add_contacts(organization, 2)
    add_contacts(organization, 1, name="")
    add_contacts(organization, 1, phone=None, email="a@example.com")
    campaign_id = planned(organization, sender)
    assert campaigns.failures(campaign_id) == [("skipped", "missing_variable:name", 1), ("skipped", "no_phone", 1)]
    assert campaigns.progress(campaign_id).counts.pending == 2


def test_a_default_stands_in_for_a_missing_value(organization, sender):
    add_contacts(organization, 1, name="")
    campaign_id = planned(organization, sender, defaults={"name": "friend"})
    assert rows("select parameters, status from deliveries") == [({"name": "friend"}, "pending")]
    assert campaigns.failures(campaign_id) == []


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (lambda ids: Audience(), 7),
        (lambda ids: Audience(kind="tag", tag="vip"), 3),
        (lambda ids: Audience(kind="contacts", ids=tuple(ids[:2])), 2),
        (lambda ids: Audience(limit=5), 5),
        (lambda ids: Audience(kind="tag", tag="nobody"), 0),
    ],
)
def test_an_audience_selects_its_contacts(organization, sender, audience, expected):
    ids = add_contacts(organization, 4) + add_contacts(organization, 3, tags=["vip"])
    campaign_id = planned(organization, sender, audience=audience(ids))
    assert campaigns.progress(campaign_id).counts.total == expected


def test_an_import_as_audience_reaches_the_contacts_it_brought(organization, sender):
    ids = add_contacts(organization, 3)
    with campaigns.pool.transaction() as connection:
        connection.execute("update contacts set import_id = %s where id = %s", [ids[1], ids[0]])
    campaign_id = planned(organization, sender, audience=Audience(kind="import", import_id=ids[1]))
    assert rows("select contact_id from deliveries where campaign_id = %s", campaign_id) == [(ids[0],)]


def test_planning_goes_on_where_it_stopped_and_doubles_nothing(organization, sender):
    add_contacts(organization, 25)
    campaign_id = campaigns.accept(new_campaign(organization, sender))
    sizes = []
    while not campaign_plan.is_planned(campaign_id):
        sizes.append(campaign_plan.plan_next_chunk(campaign_id, size=10))
    assert sizes == [10, 10, 5]
    assert campaign_plan.plan_next_chunk(campaign_id) == 0
    assert rows("select count(*), count(distinct contact_id) from deliveries") == [(25, 25)]


def test_two_planners_at_once_plan_each_recipient_once(organization, sender):
    add_contacts(organization, 60)
    campaign_id = campaigns.accept(new_campaign(organization, sender))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: campaign_plan.plan_next_chunk(campaign_id, size=10), range(8)))
    assert rows("select count(*), count(distinct contact_id) from deliveries") == [(60, 60)]
    assert campaign_plan.is_planned(campaign_id)


def test_contacts_of_another_organisation_are_never_planned(organization, sender, database):
    other = rows("insert into organizations (id, name) values (gen_random_uuid(), 'Other') returning id")[0][0]
    add_contacts(other, 3)
    add_contacts(organization, 1)
    campaign_id = planned(organization, sender)
    assert campaigns.progress(campaign_id).counts.total == 1


def test_the_same_idempotency_key_accepts_one_campaign(organization, sender):
    """OPT-07."""
    new = new_campaign(organization, sender, idempotency_key="spring-1")
    with ThreadPoolExecutor(4) as threads:
        accepted = set(threads.map(lambda _: campaigns.accept(new), range(8)))
    assert len(accepted) == 1
    assert rows("select count(*) from campaigns") == [(1,)]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["sent"] * 4, "completed"),
        (["sent", "sent", "failed", "failed"], "partial_success"),
        (["sent", "failed", "failed", "unknown"], "partial_failure"),
        (["failed"] * 4, "failed"),
        (["unknown"] * 4, "failed"),
    ],
)
def test_the_final_status_follows_from_the_counts(organization, sender, outcomes, status):
    add_contacts(organization, 4)
    campaign_id = planned(organization, sender)
    _send_all(campaign_id, outcomes)
    assert campaigns.finish(campaign_id) == status
    job = rows(
        "select status, progress_current, progress_total, result ->> 'sent' from jobs where id = %s", campaign_id
    )
    assert job == [(status, 4, 4, str(outcomes.count("sent")))]
    assert rows("select status from job_logs where job_id = %s", campaign_id) == [(status,)]


def test_skipped_recipients_do_not_make_a_campaign_partial(organization, sender):
    add_contacts(organization, 1)
    add_contacts(organization, 1, name="")
    campaign_id = planned(organization, sender)
    _send_all(campaign_id, ["sent"])
    assert campaigns.finish(campaign_id) == "completed"


def test_finish_takes_effect_once_and_not_before_the_last_recipient(organization, sender):
    """X-01: a row decides, whoever comes first."""
    add_contacts(organization, 3)
    campaign_id = campaigns.accept(new_campaign(organization, sender))
    assert campaigns.finish(campaign_id) is None
    while not campaign_plan.is_planned(campaign_id):
        campaign_plan.plan_next_chunk(campaign_id)
    _send_all(campaign_id, ["sent", "sent"])
    assert campaigns.finish(campaign_id) is None
    _send_all(campaign_id, ["sent"])
    with ThreadPoolExecutor(6) as threads:
        ended = list(threads.map(lambda _: campaigns.finish(campaign_id), range(12)))
    assert sorted(ended, key=str) == [None] * 11 + ["completed"]
    assert rows("select count(*) from job_logs where job_id = %s", campaign_id) == [(1,)]


def test_an_unknown_campaign_is_a_clear_error(database):
    nobody = campaigns.UUID(int=7)
    for read in (campaigns.get, campaigns.progress):
        with pytest.raises(PermanentError, match="no campaign 00000000") as caught:
            read(nobody)
        assert caught.value.code == "campaign_unknown"


def _send_all(campaign_id, outcomes):
    ids = deliveries.pick(campaign_id, len(outcomes))
    deliveries.release(ids, [now()] * len(ids))
    for delivery_id, outcome in zip(ids, outcomes, strict=True):
        claimed = deliveries.claim(delivery_id)
        message_id = "wamid.1" if outcome == "sent" else None
        code = None if outcome == "sent" else "131026"
        assert deliveries.settle(Settlement(delivery_id, claimed.attempt, outcome, message_id, code))


def test_the_job_of_a_campaign_shows_its_progress_while_it_runs(organization, sender):
    """OPT-10: every settlement counts at once."""
    add_contacts(organization, 4)
    campaign_id = planned(organization, sender)
    for done in range(5):
        job = jobs.get(organization, campaign_id)
        assert (job.progress_current, job.progress_total) == (done, 4)
        if done < 4:
            _send_all(campaign_id, ["sent"])
