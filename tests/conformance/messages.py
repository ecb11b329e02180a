"""Short words for what the tests send, ask and answer."""

import json
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from brokers.engine import Claim, ClaimRequest, Disposition, Engine, Envelope, Finish, Held

LEASE = timedelta(seconds=30)
QUEUE = "default"


def ms(count: float) -> timedelta:
    return timedelta(milliseconds=count)


def body_of(message_id: str, queue: str = QUEUE, actor: str = "work", **options: Any) -> bytes:
    fields = {"queue_name": queue, "actor_name": actor, "args": [], "kwargs": {"empty": []}, "options": options}
    return json.dumps(fields | {"message_id": message_id, "message_timestamp": 0}).encode()


def message(queue: str = QUEUE, *, priority: int = 3, actor: str = "work", **fields: Any) -> Envelope:
    """A new message; `fields` are those of `Envelope`."""
    message_id = fields.pop("message_id", None) or str(uuid.uuid4())
    body = fields.pop("body", None) or body_of(message_id, queue, actor)
    return Envelope(message_id, queue, priority, body, **fields)


def messages(count: int, queue: str = QUEUE, **fields: Any) -> list[Envelope]:
    return [message(queue, **fields) for _ in range(count)]


def member(group_id: str, callback: Envelope, **fields: Any) -> Envelope:
    """A message of a group, whose body names the group's callback as dramatiq's do."""
    message_id = str(uuid.uuid4())
    options = {"group_completion_uuid": group_id, "group_completion_callbacks": [json.loads(callback.body)]}
    return message(message_id=message_id, group_id=group_id, body=body_of(message_id, **options), **fields)


def request(room: int = 100, *, lease: timedelta = LEASE, **queues: int | None) -> ClaimRequest:
    """Asks for messages of `queues` (name=bound), or of the queue `default`."""
    return ClaimRequest(str(uuid.uuid4()), queues or {QUEUE: None}, room, lease)


def claim(engine: Engine, room: int = 100, *, lease: timedelta = LEASE, **queues: int | None) -> list[Claim]:
    return engine.claim(request(room, lease=lease, **queues))


def claim_one(engine: Engine, **fields: Any) -> Claim:
    (only,) = claim(engine, **fields)
    return only


def started(engine: Engine, **fields: Any) -> Claim:
    """A new message of the queue `default`, leased."""
    engine.enqueue_many([message(**fields)])
    return claim_one(engine)


def ended(claimed: Claim, disposition: Disposition = Disposition.DONE, **fields: Any) -> Finish:
    return Finish(claimed.message_id, claimed.queue, claimed.token, disposition, **fields)


def finish(engine: Engine, claimed: Claim, disposition: Disposition = Disposition.DONE, **fields: Any) -> bool:
    (applied,) = engine.finish_many([ended(claimed, disposition, **fields)])
    return applied


def held(claims: Iterable[Claim]) -> list[Held]:
    return [Held(claimed.message_id, claimed.queue, claimed.token) for claimed in claims]


def ids(items: Sequence[Envelope | Claim]) -> list[str]:
    return [item.message_id for item in items]


def lose(engine: Engine, claimed: Claim) -> None:
    """Let the lease of `claimed` run out at once; only `reap` is missing."""
    engine.heartbeat(held([claimed]), timedelta())
