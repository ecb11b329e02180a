"""From dramatiq's messages to the engine's envelopes."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.errors import ActorNotFound

from brokers.engine import Envelope
from brokers.job import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brokers.broker import EngineBroker


NO_DELAY = timedelta()


_KEYS = uuid.UUID("5f1c2f5e-6d0e-4b1c-9f0a-7a1d3f0b9c11")
"""Namespace of the ids made from deduplication keys."""


def envelope_of(broker: "EngineBroker", message: "dramatiq.Message[Any]", *, delay: timedelta = NO_DELAY) -> Envelope:
    """What the store needs to know of `message`.

    Its time is set by an option `run_at` (aware datetime or ISO text), by `delay`, or by an option `delay` in
    milliseconds, the first that is there.
    """
    return Envelope(
        message_id=message.message_id,
        queue=message.queue_name,
        priority=_priority(broker, message),
        body=dramatiq.get_encoder().encode(vars(message)),  # `Message.encode` goes over the fields one by one
        delay=delay or _delay(message.options),
        run_at=_run_at(message.options),
        group_id=group_of(message.options),
    )


def identified(message: "dramatiq.Message[Any]") -> "dramatiq.Message[Any]":
    """`message` with the id that its option `deduplication_key` gives it: the store holds an id once."""
    key = message.options.get("deduplication_key")
    if key is None:
        return message
    return message.copy(message_id=str(uuid.uuid5(_KEYS, f"{message.actor_name} {key}")))


def group_of(options: "Mapping[str, Any]") -> str | None:
    """The dramatiq group with completion callbacks that a message with `options` belongs to."""
    group_id: str | None = options.get("group_completion_uuid")
    return group_id


def _priority(broker: "EngineBroker", message: "dramatiq.Message[Any]") -> int:
    wanted = message.options.get("priority")
    if wanted is None:
        try:
            wanted = broker.get_actor(message.actor_name).priority
        except ActorNotFound:
            # A producer need not have imported the actor.
            wanted = 0
    # 0 is what dramatiq gives an actor that states none.
    return int(wanted) or Priority.NORMAL


def _delay(options: dict[str, Any]) -> timedelta:
    delay_ms = options.get("delay")
    return timedelta(milliseconds=delay_ms) if delay_ms else NO_DELAY


def _run_at(options: dict[str, Any]) -> datetime | None:
    if (moment := options.get("run_at")) is not None:
        return moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
    if (eta_ms := options.get("eta")) is not None:
        return datetime.fromtimestamp(eta_ms / 1000, UTC)
    return None
