"""Which status webhooks an accepted message gets, and when: by the plan's seed, so that runs repeat."""

import random
import time
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from simulator.ledger import Arrival
from simulator.plan import LastStatus, Plan

STEPS: dict[LastStatus, tuple[str, ...]] = {
    "none": (),
    "sent": ("sent",),
    "delivered": ("sent", "delivered"),
    "read": ("sent", "delivered", "read"),
    "failed": ("sent", "failed"),
}


def statuses_of(arrival: Arrival, plan: Plan, answer_in_s: float) -> Iterator[tuple[float, dict[str, Any]]]:
    """The statuses of an accepted message, each with the seconds until it is sent.

    Args:
        arrival: The accepted request.
        plan: What is wanted.
        answer_in_s: Time until the request is answered, if it is.
    """
    chance = random.Random(f"{plan.seed} {arrival.recipient} {arrival.attempt}")  # noqa: S311 - repeats, keeps no secret
    steps = list(STEPS[_last(chance.random(), plan)])
    if plan.shuffle:
        chance.shuffle(steps)
    between_s = plan.status_delay_ms / 1000
    begin_s = 0.0 if chance.random() < plan.early_share else answer_in_s + between_s
    for number, step in enumerate(steps):
        at_s = begin_s + number * between_s
        status = _status(arrival, step, plan)
        yield at_s, status
        if chance.random() < plan.duplicate_share:
            yield at_s + between_s, status


def payload(number: str, statuses: list[dict[str, Any]]) -> dict[str, Any]:
    """A webhook's body, in the shape of Meta's."""
    metadata = {"display_phone_number": number, "phone_number_id": number}
    value = {"messaging_product": "whatsapp", "metadata": metadata, "statuses": statuses}
    entry = {"id": "simulator", "changes": [{"value": value, "field": "messages"}]}
    return {"object": "whatsapp_business_account", "entry": [entry]}


def _last(point: float, plan: Plan) -> LastStatus:
    bounds = zip(accumulate(plan.statuses.values()), plan.statuses, strict=True)
    return next((status for bound, status in bounds if point < bound), "delivered")


def _status(arrival: Arrival, step: str, plan: Plan) -> dict[str, Any]:
    status: dict[str, Any] = {
        "id": arrival.wamid,
        "status": step,
        "timestamp": str(int(time.time())),
        "recipient_id": arrival.recipient.removeprefix("+"),
    }
    if arrival.callback:
        status["biz_opaque_callback_data"] = arrival.callback
    if step == "failed":
        details = {"details": "Made up by the simulator."}
        error = {"code": plan.status_error, "title": "Simulated error", "message": "Simulated error"}
        status["errors"] = [{**error, "error_data": details}]
    return status
