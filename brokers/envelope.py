"""From dramatiq's messages to the engine's envelopes."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from dramatiq.errors import ActorNotFound

from brokers.engine import Envelope
from brokers.job import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    import dramatiq

    from brokers.broker import EngineBroker


def envelope_of(
    broker: "EngineBroker", message: "dramatiq.Message[Any]", *, delay: timedelta = timedelta()
) -> Envelope:
    """What the store needs to know of `message`.

    Its time is set by an option `run_at` (aware datetime or ISO text), by `delay`, or by an option `delay` in
    milliseconds, the first that is there.
    """
    return Envelope(
        message_id=message.message_id,
        queue=message.queue_name,
        priority=_priority(broker, message),
        body=message.encode(),
        delay=delay or timedelta(milliseconds=message.options.get("delay") or 0),
        run_at=_run_at(message.options),
        group_id=group_of(message.options),
    )


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


def _run_at(options: dict[str, Any]) -> datetime | None:
    if (moment := options.get("run_at")) is not None:
        return moment if isinstance(moment, datetime) else datetime.fromisoformat(moment)
    if (eta_ms := options.get("eta")) is not None:
        return datetime.fromtimestamp(eta_ms / 1000, UTC)
    return None
