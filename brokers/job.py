"""The decorator that makes a function a job type, and the registry of all of them.

A job type states every option beside its function, so that API, documentation, dashboard and tests can be made from it:

    class GreetContact(Payload):
        contact_id: UUID

    @job(name="contacts.greet", queue="greetings", priority=Priority.LOW, retry=RetryPolicy(attempts=5),
         time_limit=timedelta(seconds=30))
    def greet_contact(payload: GreetContact) -> None: ...

    greet_contact.send(contact_id=contact.id)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from functools import wraps
from inspect import cleandoc, signature
from types import MappingProxyType
from typing import Any, get_type_hints

import dramatiq
from periodiq import CronSpec, cron
from pydantic import BaseModel, ConfigDict, ValidationError

from core.clock import to_ms
from core.errors import FanfareError, PermanentError, RetryPolicy

DEFAULT_TIME_LIMIT = timedelta(minutes=5)
RESULT_TTL = timedelta(days=7)


class Priority(IntEnum):
    """Lower runs first, over all queues that a worker serves."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4


class Payload(BaseModel):
    """What a message of a job type carries: ids and small facts, never personal data."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class JobType:
    """One kind of background work.

    Attributes:
        concurrency: Most of its queue's messages that run at once in the whole system; None for no bound.
        rate: Most starts a second in the whole system, evenly spaced; None for no bound.
        schedule: Cron line by which the scheduler sends it; None when only others send it.
    """

    name: str
    queue: str
    priority: Priority
    retry: RetryPolicy
    time_limit: timedelta
    concurrency: int | None
    rate: float | None
    schedule: str | None
    payload: type[Payload]
    description: str
    actor: "dramatiq.Actor[..., Any]"


_registry: dict[str, JobType] = {}


def registry() -> Mapping[str, JobType]:
    """All job types declared so far, by name."""
    return MappingProxyType(_registry)


def job(
    *,
    name: str,
    queue: str,
    priority: Priority,
    retry: RetryPolicy,
    time_limit: timedelta = DEFAULT_TIME_LIMIT,
    concurrency: int | None = None,
    rate: float | None = None,
    schedule: str | None = None,
) -> Callable[[Callable[..., Any]], "dramatiq.Actor[..., Any]"]:
    """Declare the decorated function as the job type `name`, on the process's broker.

    The function takes one argument annotated with its `Payload`, and the previous step's result as a second one where
    it is a later step of a pipeline. What it returns is the job's result, kept for `RESULT_TTL`. What it raises is
    classified by `core.errors.classify` under `retry`.
    """

    def declare(function: Callable[..., Any]) -> "dramatiq.Actor[..., Any]":
        payload = _payload_of(function)

        @wraps(function)
        def run(*previous: object, **data: object) -> object:
            return function(_validate(name, payload, data), *previous)

        actor = dramatiq.actor(
            run,
            actor_name=name,
            queue_name=queue,
            priority=int(priority),
            retry_policy=retry,
            throws=FanfareError,  # what is raised on purpose is not logged as an unhandled exception
            time_limit=to_ms(time_limit),
            concurrency=concurrency,
            rate=rate,
            store_results=_returns_something(function),
            result_ttl=to_ms(RESULT_TTL),
            **({"periodic": cron_of(schedule)} if schedule else {}),
        )
        _registry[name] = JobType(
            name=name,
            queue=queue,
            priority=priority,
            retry=retry,
            time_limit=time_limit,
            concurrency=concurrency,
            rate=rate,
            schedule=schedule,
            payload=payload,
            description=cleandoc(function.__doc__ or ""),
            actor=actor,
        )
        return actor

    return declare


def cron_of(line: str) -> CronSpec:
    """Periodiq's reading of a cron line, in which Sunday, 0 and 7 alike, really comes.

    periodiq compares the days of a line with 1 to 7, so that `0`, `sun` and `@weekly` never fire.
    """
    spec = cron(line)
    if {0, 7} & set(spec.dow):
        spec.setup(spec.minute, spec.hour, spec.dom, spec.month, sorted({0, 7, *spec.dow}))
    return spec


def _payload_of(function: Callable[..., Any]) -> type[Payload]:
    hints = get_type_hints(function)
    first = next(iter(signature(function).parameters), "")
    payload = hints.get(first)
    if not (isinstance(payload, type) and issubclass(payload, Payload)):
        message = f"The first argument of {function.__qualname__} must be annotated with a subclass of Payload."
        raise TypeError(message)
    return payload


def _returns_something(function: Callable[..., Any]) -> bool:
    return get_type_hints(function).get("return") is not type(None)


def _validate(name: str, payload: type[Payload], data: dict[str, object]) -> Payload:
    try:
        return payload.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        text = f"The data of a {name} message is not valid: {problems}"
        raise PermanentError(text, code="payload_invalid") from error
