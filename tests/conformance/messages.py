"""Short words for what the tests send, ask and answer."""

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from brokers.engine import Claim, ClaimRequest, Disposition, Engine, Envelope, Finish, Held
from tests.conftest import wait_until

LEASE = timedelta(seconds=30)
SHORT = timedelta(milliseconds=20)
"""A lease that expires soon; nobody but the test reaps."""
QUEUE = "default"


def ms(count: float) -> timedelta:
    return timedelta(milliseconds=count)


def body_of(message_id: str, queue: str = QUEUE, actor: str = "work", **options: Any) -> bytes:
    fields = {"queue_name": queue, "actor_name": actor, "args": [], "kwargs": {"empty": []}, "options": options}
    return json.dumps(fields | {"message_id": message_id, "message_timestamp": 0}).encode()


def message(queue: str = QUEUE, *, priority: int = 3, actor: str = "work", **fields: Any) -> Envelope:
    """A new message; `fields` are those of `Envelope`."""
    message_id = str(fields.pop("message_id", None) or uuid.uuid4())
    body = fields.pop("body", None) or body_of(message_id, queue, actor)
    return Envelope(message_id, queue, priority, body, **fields)


def messages(count: int, queue: str = QUEUE, **fields: Any) -> list[Envelope]:
    return [message(queue, **fields) for _ in range(count)]


def member(group_id: str, callback: Envelope, **fields: Any) -> Envelope:
    """A message of a group, whose body names the group's callback as dramatiq's do."""
    message_id = str(uuid.uuid4())
    options: dict[str, Any] = {
        "group_completion_uuid": group_id,
        "group_completion_callbacks": [json.loads(callback.body)],
    }
    return message(message_id=message_id, group_id=group_id, body=body_of(message_id, **options), **fields)


def request(room: int = 100, *, lease: timedelta = LEASE, **queues: int | None) -> ClaimRequest:
    """Asks for messages of `queues` (name=bound), or of the queue `default`."""
    return ClaimRequest(str(uuid.uuid4()), queues or {QUEUE: None}, room, lease)


def claim(engine: Engine, room: int = 100, *, lease: timedelta = LEASE, **queues: int | None) -> list[Claim]:
    return engine.claim(request(room, lease=lease, **queues))


def claim_one(engine: Engine, **fields: Any) -> Claim:
    (only,) = claim(engine, **fields)
    return only


def started(engine: Engine, *, lease: timedelta = LEASE, **fields: Any) -> Claim:
    """A new message of the queue `default`, leased."""
    engine.enqueue_many([message(**fields)])
    return claim_one(engine, lease=lease)


def ended(claimed: Claim, disposition: Disposition = Disposition.DONE, **fields: Any) -> Finish:
    return Finish(claimed.message_id, claimed.queue, claimed.token, disposition, **fields)


def finish(engine: Engine, claimed: Claim, disposition: Disposition = Disposition.DONE, **fields: Any) -> bool:
    (applied,) = engine.finish_many([ended(claimed, disposition, **fields)])
    return applied


def held(claims: Iterable[Claim]) -> list[Held]:
    return [Held(claimed.message_id, claimed.queue, claimed.token) for claimed in claims]


def ids(items: Sequence[Envelope | Claim]) -> list[str]:
    return [item.message_id for item in items]


def reap_one(engine: Engine, *, max_lost: int = 3) -> None:
    """Wait until the one lease that was `SHORT` has expired and is taken back."""
    wait_until(lambda: engine.reap(max_lost=max_lost) == 1, "the lease did not expire")


def keep(engine: Engine, *claims: Claim) -> None:
    """Make short leases long."""
    assert not engine.heartbeat(held(claims), LEASE).lost
