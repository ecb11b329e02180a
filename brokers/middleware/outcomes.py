"""Decides what follows a run and leaves it on the message, for the engine to apply in one step.

Takes the place of dramatiq's Retries, Pipelines, Callbacks and the working half of GroupCallbacks. Those enqueue what
follows and acknowledge afterwards, so that a crash in between doubles it, and a failed enqueue loses it.
"""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq.errors import ActorNotFound, RateLimitExceeded, Retry
from dramatiq.middleware import Middleware

from brokers.engine import Disposition, Envelope, Finish
from brokers.envelope import envelope_of, group_of
from core.errors import Action, FanfareError, NotYet, Outcome, PermanentError, RetryPolicy, ThrottledError, classify
from core.logging import get_logger

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.message import LeasedMessage

log = get_logger(__name__)

STOCK_POLICY = RetryPolicy(attempts=21, bug_attempts=21, backoff=timedelta(seconds=15), max_backoff=timedelta(days=7))
"""dramatiq's defaults for actors declared without ours: 20 retries, 15 s doubling up to a week."""

NO_RESULT: tuple[None, timedelta] = (None, timedelta())
_ENDS = frozenset({Disposition.DONE, Disposition.DEAD, Disposition.CANCELLED})
_DISPOSITIONS = {
    Action.RETRY: Disposition.RETRY,
    Action.RESCHEDULE: Disposition.RESCHEDULE,
    Action.DEAD: Disposition.DEAD,
    Action.CANCEL: Disposition.CANCELLED,
}


class Outcomes(Middleware):
    """Sets `message.finish` after every run, skip or failure."""

    @property
    def actor_options(self) -> set[str]:
        """Options that actors may state: ours, and those of the stock middleware that this one replaces."""
        ours = {"retry_policy", "concurrency", "rate"}
        retries = {"max_retries", "min_backoff", "max_backoff", "retry_when", "throws", "on_retry_exhausted"}
        return ours | retries | {"on_success", "on_failure", "pipe_ignore", "pipe_target"}

    def after_process_message(
        self,
        broker: "EngineBroker",
        message: "LeasedMessage",
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """Decide, and mark the message failed when it will not run again."""
        message.finish = decide(broker, message, result, exception)
        if message.finish.disposition is Disposition.DEAD:
            message.fail()

    def after_skip_message(self, broker: "EngineBroker", message: "LeasedMessage") -> None:
        """A skipped message is done; one that was failed while skipping is dead. Either way its group goes on."""
        error = PermanentError("Skipped by a middleware.", code="skipped") if message.failed else None
        message.finish = decide(broker, message, None, error)


def decide(broker: "EngineBroker", message: "LeasedMessage", result: object, exception: BaseException | None) -> Finish:
    """All that follows a run of `message` which returned `result` or raised `exception`."""
    options = _Options(broker, message)
    if exception is None:
        follow_ups = (*_next_step(broker, message, result), *_on_success(broker, message, options, result))
        return _finish(broker, message, Disposition.DONE, follow_ups=follow_ups)
    outcome = _outcome(exception, message.claim.attempt, options)
    disposition = _DISPOSITIONS[outcome.action]
    _log_failure(message, exception, outcome)
    ended = disposition in {Disposition.DEAD, Disposition.CANCELLED}
    return _finish(
        broker,
        message,
        disposition,
        delay=outcome.delay,
        run_at=outcome.until,
        code=outcome.code,
        error=describe(exception),
        follow_ups=tuple(_on_failure(broker, message, options, exception, outcome)) if ended else (),
    )


def _finish(broker: "EngineBroker", message: "LeasedMessage", disposition: Disposition, **facts: Any) -> Finish:  # noqa: ANN401 - passed on to Finish, which names them
    result, ttl = message.result or NO_RESULT
    callbacks: tuple[Envelope, ...] = ()
    raw = message.options.get("group_completion_callbacks")
    if raw and disposition in _ENDS:
        callbacks = tuple(envelope_of(broker, dramatiq.Message(**callback)) for callback in raw)
    return Finish(
        message_id=message.claim.message_id,
        queue=message.claim.queue,
        token=message.claim.token,
        disposition=disposition,
        result=result if disposition is Disposition.DONE else None,
        result_ttl=ttl,
        group_id=group_of(message.options),
        group_callbacks=callbacks,
        **facts,
    )


class _Options:
    """Looks an option up on the message, then on its actor."""

    def __init__(self, broker: "EngineBroker", message: "LeasedMessage") -> None:
        self._message = message.options
        try:
            self._actor = broker.get_actor(message.actor_name).options
        except ActorNotFound:
            self._actor = {}

    def get(self, name: str) -> Any:  # noqa: ANN401 - options are of any type
        value = self._message.get(name)
        return self._actor.get(name) if value is None else value


def _outcome(exception: BaseException, attempt: int, options: _Options) -> Outcome:
    throws = options.get("throws")
    if throws and isinstance(exception, throws) and not isinstance(exception, FanfareError):
        return Outcome(Action.DEAD, type(exception).__name__)
    if isinstance(exception, ActorNotFound):
        return Outcome(Action.DEAD, "unknown_actor")
    if isinstance(exception, RateLimitExceeded):
        return classify(ThrottledError(str(exception), code="rate_limited"), attempt, STOCK_POLICY)
    retry_when = options.get("retry_when")
    if retry_when is not None and not retry_when(attempt - 1, exception):
        return Outcome(Action.DEAD, type(exception).__name__)
    policy = _policy(options, unlimited=retry_when is not None)
    outcome = classify(exception, attempt, policy)
    if isinstance(exception, Retry) and exception.delay is not None and outcome.action is Action.RETRY:
        return Outcome(Action.RETRY, "retry", delay=timedelta(milliseconds=exception.delay))
    return outcome


def _policy(options: _Options, *, unlimited: bool) -> RetryPolicy:
    ours = options.get("retry_policy")
    if isinstance(ours, RetryPolicy):
        return ours
    retries = options.get("max_retries")
    attempts = STOCK_POLICY.attempts if retries is None else retries + 1
    attempts = 1_000_000 if unlimited else attempts
    return RetryPolicy(
        attempts=attempts,
        bug_attempts=attempts,
        backoff=_milliseconds(options.get("min_backoff"), STOCK_POLICY.backoff),
        max_backoff=_milliseconds(options.get("max_backoff"), STOCK_POLICY.max_backoff),
    )


def _milliseconds(value: int | None, default: timedelta) -> timedelta:
    return default if value is None else timedelta(milliseconds=value)


def _next_step(broker: "EngineBroker", message: "LeasedMessage", result: object) -> tuple[Envelope, ...]:
    target = message.options.get("pipe_target")
    if target is None:
        return ()
    step: dramatiq.Message[Any] = dramatiq.Message(**target)
    if not step.options.get("pipe_ignore"):
        step = step.copy(args=(*step.args, result))
    return (envelope_of(broker, step),)


def _on_success(
    broker: "EngineBroker", message: "LeasedMessage", options: _Options, result: object
) -> tuple[Envelope, ...]:
    name = options.get("on_success")
    return (_callback(broker, name, message.asdict(), result),) if name else ()


def _on_failure(
    broker: "EngineBroker", message: "LeasedMessage", options: _Options, exception: BaseException, outcome: Outcome
) -> list[Envelope]:
    facts = {"type": type(exception).__name__, "message": describe(exception)}
    followers = [_callback(broker, name, message.asdict(), facts) for name in (options.get("on_failure"),) if name]
    exhausted = options.get("on_retry_exhausted")
    if exhausted and outcome.action is Action.DEAD:
        counts = {"retries": message.claim.attempt - 1, "max_retries": options.get("max_retries")}
        followers.append(_callback(broker, exhausted, message.asdict(), counts))
    return followers


def _callback(broker: "EngineBroker", actor_name: str, *args: object) -> Envelope:
    return envelope_of(broker, broker.get_actor(actor_name).message(*args))


def describe(exception: BaseException) -> str:
    """An error in words that may be stored: ours say what to do and carry no personal data; of others, the type."""
    return str(exception) if isinstance(exception, FanfareError) else type(exception).__name__


def _log_failure(message: "LeasedMessage", exception: BaseException, outcome: Outcome) -> None:
    if isinstance(exception, NotYet | ThrottledError):
        log.debug("message.rescheduled", code=outcome.code)
        return
    again_in = None if outcome.action is not Action.RETRY else outcome.delay.total_seconds()
    log.warning(
        "message.failed",
        actor=message.actor_name,
        code=outcome.code,
        action=str(outcome.action),
        attempt=message.claim.attempt,
        retry_in_s=again_in,
        exc_info=exception if outcome.is_bug else None,
    )
