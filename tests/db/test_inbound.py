"""What webhooks say has one final state, whatever the order and repetition: X-10, RELIABILITY's invariants 7 and 12."""

import json
from datetime import timedelta
from importlib import import_module
from itertools import permutations
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from core.clock import now
from db import campaigns, deliveries, inbound, pool
from db.deliveries import Settlement
from domain.whatsapp_webhook import Message, Status, parse
from tests.db.campaign_data import add_contacts, add_sender, planned, rows
from tests.e2e.conftest import composed

ORDER = ["sent", "failed", "delivered", "read"]
SETTLED = ["sending", "unknown", "pending", "released", "failed", "cancelled", "sent"]


@pytest.fixture
def process_batch(database):
    """`actors.whatsapp_webhook.process_batch`, of this process as it is composed for this test."""
    with composed():
        yield import_module("actors.whatsapp_webhook").process_batch


@pytest.fixture
def campaign(organization):
    add_contacts(organization, 40)
    return planned(organization, add_sender(organization))


def attempted(campaign_id, status="sending"):
    """A delivery with one attempt, which came to `status`."""
    (delivery_id,) = deliveries.pick(campaign_id, 1)
    deliveries.release([delivery_id], [now()])
    claimed = deliveries.claim(delivery_id)
    came_to = {"released": "pending", "cancelled": "pending"}.get(status, status)
    if came_to != "sending":
        code = "131026" if came_to == "failed" else None
        message_id = "wamid.known" if came_to == "sent" else None
        settlement = Settlement(delivery_id, claimed.attempt, came_to, message_id, code=code)
        assert deliveries.settle(settlement)
    if status in {"released", "cancelled"}:
        rows("update deliveries set status = %s where id = %s returning id", status, delivery_id)
    return delivery_id


def told(delivery_id, status, attempt=1):
    code = "131026" if status == "failed" else None
    return Status(delivery_id, attempt, status, "wamid.told", code=code)


def state(delivery_id):
    return rows("select status, provider_message_id, code, attempt from deliveries where id = %s", delivery_id)[0]


def webhook(*values, field="messages"):
    return json.dumps({"entry": [{"id": "1", "changes": [{"field": field, "value": v} for v in values]}]}).encode()


def of(delivery_id, status, attempt=1, **more):
    return {"id": "wamid.x", "status": status, "biz_opaque_callback_data": f"{delivery_id}:{attempt}", **more}


def recount(campaign_id):
    counted = dict(rows("select status, count(*) from deliveries where campaign_id = %s group by 1", campaign_id))
    arrived = counted.get("delivered", 0) + counted.get("read", 0)
    return {
        "pending": counted.get("pending", 0),
        "sent": counted.get("sent", 0) + arrived,
        "delivered": arrived,
        "read": counted.get("read", 0),
        "failed": counted.get("failed", 0),
        "cancelled": counted.get("cancelled", 0),
        "unknown": counted.get("unknown", 0),
    }


def counters(campaign_id):
    counts = campaigns.progress(campaign_id).counts
    return {name: getattr(counts, name) for name in recount(campaign_id)}


@pytest.mark.parametrize("start", SETTLED)
def test_the_highest_of_what_is_told_counts(campaign, start):
    """A message that was sent is sent, also where the ledger meant to send it again, had cancelled or refused it."""
    for end in ORDER:
        delivery_id = attempted(campaign, start)
        inbound.advance([told(delivery_id, end)])
        status, message_id, code, attempt = state(delivery_id)
        assert (status, attempt) == (end, 1)
        assert message_id == ("wamid.known" if start == "sent" else "wamid.told")
        assert code == ("131026" if end == "failed" else None)
    assert counters(campaign) == recount(campaign)


def test_every_order_of_all_four_ends_as_read(campaign):
    ids = []
    for order in permutations(ORDER):
        ids.append(attempted(campaign, "unknown"))
        for status in order:
            inbound.advance([told(ids[-1], status)])
    assert {state(delivery_id)[0] for delivery_id in ids} == {"read"}
    assert counters(campaign) == recount(campaign)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_repetition_and_batches_do_not_matter(campaign, process_batch, data):
    """The same webhooks, each one to five times and shuffled, in batches of any size."""
    rows("update deliveries set status = 'pending', attempt = 0 returning id")
    rows("delete from inbound_events returning id")  # an example that hypothesis gave up leaves its own
    ids = [attempted(campaign, data.draw(st.sampled_from(SETTLED))) for _ in range(3)]
    kinds = [data.draw(st.sets(st.sampled_from(ORDER), min_size=1)) for _ in ids]
    events = [(i, kind) for i, found in zip(ids, kinds, strict=True) for kind in found]
    repeated = [event for event in events for _ in range(data.draw(st.integers(1, 5)))]
    rest = data.draw(st.permutations(repeated))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        now_told, rest = rest[:size], rest[size:]
        errors = {"errors": [{"code": 131026}]}
        statuses = [of(i, kind, **(errors if kind == "failed" else {})) for i, kind in now_told]
        inbound.store(webhook({"statuses": statuses, "n": str(uuid4())}))
        if data.draw(st.booleans()):
            process_batch(data.draw(st.integers(1, 3)))
    while process_batch(2):
        pass
    highest = [max(found, key=ORDER.index) for found in kinds]
    assert [state(delivery_id)[0] for delivery_id in ids] == highest
    assert counters(campaign) == recount(campaign)


def test_an_older_attempt_changes_nothing(campaign):
    delivery_id = attempted(campaign, "pending")
    deliveries.release([delivery_id], [now()])
    assert deliveries.claim(delivery_id).attempt == 2
    reasons = inbound.advance([told(delivery_id, "read", attempt=1), told(uuid4(), "read")])
    assert sorted(reasons.values()) == ["attempt_superseded", "delivery_unknown"]
    assert state(delivery_id)[0] == "sending"
    assert inbound.advance([told(delivery_id, "read", attempt=1), told(delivery_id, "sent", attempt=2)])
    assert state(delivery_id)[0] == "sent"


def test_what_was_never_attempted_is_not_touched(campaign):
    (pending,) = rows("select id from deliveries where campaign_id = %s limit 1", campaign)[0]
    assert inbound.advance([told(pending, "read")])
    assert state(pending) == ("pending", None, None, 0)


def test_a_webhook_that_is_earlier_than_the_answer_wins(campaign):
    for answer in (Settlement, "lost"):
        delivery_id = attempted(campaign)
        inbound.advance([told(delivery_id, "delivered")])
        late = "sent" if answer is Settlement else "unknown"
        assert not deliveries.settle(Settlement(delivery_id, 1, late, "wamid.told", code="net_timeout"))
        assert state(delivery_id)[:2] == ("delivered", "wamid.told")


def test_a_finished_campaign_keeps_its_status_and_its_counters_go_on(organization):
    add_contacts(organization, 2)
    campaign_id = planned(organization, add_sender(organization))
    first, second = attempted(campaign_id, "unknown"), attempted(campaign_id, "sent")
    assert campaigns.finish(campaign_id) == "partial_success"
    inbound.advance([told(first, "delivered"), told(second, "failed")])
    progress = campaigns.progress(campaign_id)
    assert progress.status == "partial_success"
    assert (progress.counts.sent, progress.counts.delivered, progress.counts.failed) == (1, 1, 1)
    assert progress.counts.unknown == 0
    assert campaigns.finish(campaign_id) is None


def test_everything_in_a_webhook_is_used_or_kept_with_a_reason(campaign, process_batch):
    delivery_id = attempted(campaign)
    text = {"id": "wamid.in", "from": "15551234", "timestamp": "1700000000", "type": "text", "text": {"body": "a\0b"}}
    value = {
        "metadata": {"phone_number_id": "10001"},
        "statuses": [of(delivery_id, "read"), of(delivery_id, "deleted"), {"id": "w", "status": "sent"}],
        "messages": [text, text, {"id": "x"}],
        "errors": [{"code": 1}],
    }
    assert inbound.store(webhook(value))
    assert inbound.store(webhook({"phone": 1}, field="account_update"))
    for odd in (b"\xff", b"[]", b'{"entry": {"changes": 1}}', webhook("x"), b"[" * 100_000, webhook({"statuses": [7]})):
        assert inbound.store(odd)
    assert process_batch(100) == 8
    assert not inbound.store(webhook(value)), "the same bytes, again"
    assert process_batch(100) == 0
    assert state(delivery_id)[0] == "read"
    kept = rows("select number, sender, kind, body -> 'text' ->> 'body' from inbound_messages")
    assert kept == [("10001", "+15551234", "text", "a\ufffdb")]
    reasons = [found for (found,) in rows("select reasons from inbound_events order by received_at")]
    assert {"status_unknown:deleted", "status_not_ours", "message_malformed", "errors"} == set(reasons[0])
    assert reasons[1] == ["field_unknown:account_update"]
    assert all(reasons)


def test_one_event_that_cannot_be_processed_does_not_keep_the_others(campaign, process_batch):
    """A poison: the database refuses what it says."""
    good, bad = attempted(campaign), attempted(campaign)
    guard = "alter table deliveries add constraint poison check (status <> 'read' or id <> {})"
    with pool.connection() as connection:
        connection.execute(sql.SQL(guard).format(sql.Literal(bad)))
    for delivery_id in (bad, good):
        inbound.store(webhook({"statuses": [of(delivery_id, "read")]}))
    assert process_batch(100) == 2
    assert process_batch(100) == 0
    assert (state(good)[0], state(bad)[0]) == ("read", "sending")
    assert rows("select reasons from inbound_events order by received_at") == [(["error:CheckViolation"],), ([],)]


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["entry", "changes", "field", "value", "statuses", "messages", "metadata", "id", "errors"]
                ),
                inner,
            )
        ),
        max_leaves=20,
    ).map(lambda found: json.dumps(found).encode())
)
def test_no_bytes_break_the_reading(body):
    contents = parse(body)
    assert contents.statuses or contents.messages or contents.reasons


def test_old_events_are_forgotten_those_with_reasons_later(database):
    for body in (b"plain", b"with reason", b"open"):
        inbound.store(body)
    taken = {event.body: event.id for event in inbound.take(3)}
    plain, reason = taken[b"plain"], taken[b"with reason"]
    inbound.done({plain: [], reason: ["not json"]})
    assert inbound.waiting(older_than=timedelta())
    assert not inbound.waiting(older_than=timedelta(minutes=1))
    assert inbound.forget(older_than=timedelta(hours=1), unused_older_than=timedelta()) == 0
    assert inbound.forget(older_than=timedelta(), unused_older_than=timedelta(hours=1)) == 1
    assert inbound.forget(older_than=timedelta(), unused_older_than=timedelta()) == 1
    assert rows("select body from inbound_events") == [(b"open",)]


def test_messages_are_kept_once(database):
    message = Message("wamid.1", "10001", "+15551234", "text", {"text": {"body": "STOP"}}, now())
    assert inbound.keep_messages([message, message]) == 1
    assert inbound.keep_messages([message]) == 0
