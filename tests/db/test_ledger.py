"""DB-01: the constraints of the ledger make wrong states impossible."""

import random

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from core.clock import uuid7

STATUSES = ["pending", "released", "sending", "sent", "delivered", "read", "failed", "skipped", "cancelled", "unknown"]


@pytest.fixture
def db(database):
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def insert(db, table, **values):
    values = {"id": uuid7()} | values
    columns = sql.SQL(", ").join(map(sql.Identifier, values))
    marks = sql.SQL(", ").join([sql.Placeholder()] * len(values))
    statement = sql.SQL("insert into {} ({}) values ({})").format(sql.Identifier(table), columns, marks)
    db.execute(statement, list(values.values()))
    return values["id"]


@pytest.fixture
def campaign(db, organization):
    return make_campaign(db, organization)


def make_campaign(db, organization):
    job = insert(db, "jobs", organization_id=organization, type="campaign", queue="campaigns")
    sender = insert(db, "senders", organization_id=organization, provider_id=str(job))
    return insert(
        db,
        "campaigns",
        id=job,
        organization_id=organization,
        sender_id=sender,
        name="Spring",
        content=Jsonb({"kind": "text", "body": "Hi"}),
        audience=Jsonb({"kind": "all"}),
    )


def deliver(db, organization, campaign, **values):
    values = {"contact_id": uuid7()} | values
    return insert(db, "deliveries", organization_id=organization, campaign_id=campaign, **values)


def test_delivery_is_unique_per_campaign_and_contact(db, organization, campaign):
    contact = uuid7()
    deliver(db, organization, campaign, contact_id=contact)
    with pytest.raises(psycopg.errors.UniqueViolation):
        deliver(db, organization, campaign, contact_id=contact)
    deliver(db, organization, make_campaign(db, organization), contact_id=contact)


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("organizations", {"name": ""}),
        ("users", {"email": "nobody", "role": "agent"}),
        ("users", {"email": "a@b.c", "role": "king"}),
        ("jobs", {"type": "t", "queue": "q", "status": "lost"}),
        ("jobs", {"type": "t", "queue": "q", "status": "completed"}),  # without completed_at
        ("jobs", {"type": "t", "queue": "q", "status": "running", "completed_at": "now"}),
        ("jobs", {"type": "t", "queue": "q", "progress_current": -1}),
        ("job_logs", {"job_id": uuid7(), "type": "t", "status": "lost"}),
        ("contacts", {"name": "neither phone nor mail"}),
        ("contacts", {"phone": "4155550123"}),
        ("contacts", {"phone": "+0155550123"}),
        ("contacts", {"phone": "+4155550123456789"}),
        ("contacts", {"email": "a@b.c", "custom": Jsonb([])}),
        ("senders", {"provider_id": "1", "rate": 0}),
        ("templates", {"name": "t", "content": Jsonb("text")}),
    ],
)
def test_wrong_row_is_refused(db, organization, table, values):
    owner = {} if table == "organizations" else {"organization_id": organization}
    with pytest.raises(psycopg.errors.CheckViolation):
        insert(db, table, **owner, **values)


@pytest.mark.parametrize(
    "values",
    [
        {"status": "lost"},
        {"status": "failed"},  # without a code
        {"status": "skipped"},
        {"status": "sent"},  # without the provider's id
        {"status": "delivered"},
        {"status": "read"},
    ],
)
def test_wrong_delivery_is_refused(db, organization, campaign, values):
    with pytest.raises(psycopg.errors.CheckViolation):
        deliver(db, organization, campaign, **values)


def test_campaign_is_finished_exactly_when_its_status_says_so(db, campaign):
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute("update campaigns set status = 'completed' where id = %s", [campaign])
    db.execute("update campaigns set status = 'completed', finished_at = now() where id = %s", [campaign])
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute("update campaigns set status = 'running' where id = %s", [campaign])


def test_contact_is_its_phone_or_else_its_mail_address(db, organization):
    insert(db, "contacts", organization_id=organization, phone="+14155550123", email="a@b.c")
    insert(db, "contacts", organization_id=organization, phone="+14155550124", email="a@b.c")
    insert(db, "contacts", organization_id=organization, email="a@b.c")
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(db, "contacts", organization_id=organization, email="A@B.C")
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(db, "contacts", organization_id=organization, phone="+14155550123")


def test_job_has_one_row_per_idempotency_key(db, organization):
    insert(db, "jobs", organization_id=organization, type="t", queue="q", idempotency_key="k")
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(db, "jobs", organization_id=organization, type="t", queue="q", idempotency_key="k")


def test_job_log_holds_what_a_run_was(db, organization):
    job = insert(db, "jobs", organization_id=organization, type="t", queue="q")
    facts = {"status": "failed", "error_details": Jsonb({"code": "x"}), "started_at": "now", "completed_at": "now"}
    insert(db, "job_logs", job_id=job, organization_id=organization, type="t", **facts)
    row = db.execute("select job_id, status, error_details, created_at is not null from job_logs").fetchone()
    assert row == (job, "failed", {"code": "x"}, True)


def recount(db):
    """The counters by counting the rows, as the trigger must have kept them."""
    rows = db.execute("select campaign_id, status, count(*) from deliveries group by 1, 2").fetchall()
    counts: dict[object, dict[str, int]] = {}
    for campaign, status, n in rows:
        of = counts.setdefault(campaign, dict.fromkeys([*STATUSES, "total"], 0))
        of["total"] += n
        of[status] += n
    for of in counts.values():
        of["delivered"] += of["read"]
        of["sent"] += of["delivered"]
        del of["released"], of["sending"]
    return counts


def kept(db):
    names = ["total", *[status for status in STATUSES if status not in {"released", "sending"}]]
    rows = db.execute("select campaign_id, to_jsonb(c) from campaign_counts c").fetchall()
    return {campaign: {name: values[name] for name in names} for campaign, values in rows}


def test_counters_equal_a_recount_after_random_changes(db, organization, campaign):
    rng = random.Random(7)
    campaigns = [campaign, make_campaign(db, organization)]
    ids: list[object] = []
    for _ in range(60):
        if rng.random() < 0.4 or not ids:
            status, code = rng.choice([("pending", None), ("skipped", "no_phone")])
            size = rng.randint(1, 30)
            rows = [(uuid7(), rng.choice(campaigns), organization, uuid7(), status, code) for _ in range(size)]
            query = "insert into deliveries (id, campaign_id, organization_id, contact_id, status, code) "
            db.cursor().executemany(query + "values (%s, %s, %s, %s, %s, %s)", rows)
            ids += [row[0] for row in rows]
        else:
            chosen = rng.sample(ids, rng.randint(1, len(ids)))
            query = "update deliveries set status = %s, code = 'x', provider_message_id = 'y' where id = any(%s)"
            db.execute(query, [rng.choice(STATUSES), chosen])
        assert kept(db) == recount(db)


def test_counters_follow_a_rollback(db, organization, campaign):
    deliver(db, organization, campaign)
    before = kept(db)
    with db.transaction(force_rollback=True):
        deliver(db, organization, campaign)
    assert kept(db) == before == recount(db)
