"""The error classes of every job, and the one function that decides what a failed attempt leads to.

Actors say what happened by raising; `classify` turns that into an `Outcome`. Partial success is not an error: it is a
returned value with its failed items in it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

THROTTLED_WAIT = timedelta(seconds=1)
"""The wait after a `ThrottledError` that names none."""


class FanfareError(Exception):
    """Base of all errors that Fanfare raises on purpose.

    Args:
        message: What went wrong, where, and what to do about it; shown to people.
        code: A stable word for programs and for grouping, such as `130429` or `template_variable_missing`.
    """

    def __init__(self, message: str, *, code: str = "error") -> None:
        super().__init__(message)
        self.code = code


class SettingsError(FanfareError):
    """A setting is missing or wrong; the process must not start."""


class TransientError(FanfareError):
    """Something that may work later. Retried by the job's policy, not before `retry_after` has passed."""

    def __init__(self, message: str, *, code: str = "transient", retry_after: timedelta | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ThrottledError(TransientError):
    """An outside service said "too fast". Runs again after `retry_after` and costs no attempt."""


class AmbiguousError(FanfareError):
    """An outside call whose answer was lost: it may have taken effect, so it must not be repeated blindly."""


class PermanentError(FanfareError):
    """Something that will never work: to the dead letters at once, with its code."""


class NotYet(FanfareError):
    """The job should run again at `until`; costs no attempt."""

    def __init__(self, message: str, *, until: datetime, code: str = "not_yet") -> None:
        super().__init__(message, code=code)
        self.until = until


class Cancelled(FanfareError):
    """The job was cancelled while it waited or ran; recorded, neither retried nor dead."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a job type is retried.

    Attributes:
        attempts: Total tries, the first included.
        backoff: Wait before the second try.
        factor: Each further wait is this many times the one before; 1 makes the wait fixed.
        max_backoff: No wait is longer than this, jitter excluded.
        jitter: Up to this share of the wait is added at random, so that many failures do not return at once.
        bug_attempts: Total tries after an error that no class here describes (a bug).
    """

    attempts: int = 3
    backoff: timedelta = timedelta(seconds=2)
    factor: float = 2.0
    max_backoff: timedelta = timedelta(hours=1)
    jitter: float = 0.25
    bug_attempts: int = 2

    def delay_before(self, attempt: int, *, rand: Callable[[], float] = random.random) -> timedelta:
        """The wait before try number `attempt` (2 is the first retry): backoff x factor^(attempt-2), plus jitter."""
        wait = min(self.backoff.total_seconds() * self.factor ** max(0, attempt - 2), self.max_backoff.total_seconds())
        return timedelta(seconds=wait * (1 + self.jitter * rand()))


class Action(StrEnum):
    """What follows a failed attempt."""

    RETRY = "retry"
    RESCHEDULE = "reschedule"
    DEAD = "dead"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The decision about one failed attempt.

    Attributes:
        action: What to do with the message.
        delay: Wait before it runs again, with RETRY, and with RESCHEDULE where `until` is None.
        until: The moment at which it runs again; only with RESCHEDULE.
        code: The cause, for grouping.
        is_bug: True when the error is not one of ours, so that it is worth a person's attention at once.
    """

    action: Action
    code: str
    delay: timedelta = timedelta()
    until: datetime | None = None
    is_bug: bool = False


def classify(error: BaseException, attempt: int, policy: RetryPolicy) -> Outcome:
    """Decide what follows when try number `attempt` (1 is the first) raised `error`. Pure but for the jitter."""
    match error:
        case NotYet():
            return Outcome(Action.RESCHEDULE, error.code, until=error.until)
        case Cancelled():
            return Outcome(Action.CANCEL, error.code)
        case PermanentError() | AmbiguousError():
            return Outcome(Action.DEAD, error.code)
        case ThrottledError():
            return Outcome(Action.RESCHEDULE, error.code, delay=error.retry_after or THROTTLED_WAIT)
        case TransientError():
            return _again(error.code, attempt, policy.attempts, policy, at_least=error.retry_after or timedelta())
        case _:
            limit = min(policy.attempts, policy.bug_attempts)
            return _again(type(error).__name__, attempt, limit, policy, is_bug=True)


def _again(
    code: str, attempt: int, limit: int, policy: RetryPolicy, *, at_least: timedelta = timedelta(), is_bug: bool = False
) -> Outcome:
    if attempt >= limit:
        return Outcome(Action.DEAD, code, is_bug=is_bug)
    return Outcome(Action.RETRY, code, delay=max(at_least, policy.delay_before(attempt + 1)), is_bug=is_bug)
