from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import (
    THROTTLED_WAIT,
    Action,
    AmbiguousError,
    Cancelled,
    NotYet,
    Outcome,
    PermanentError,
    RetryPolicy,
    ThrottledError,
    TransientError,
    classify,
)

POLICY = RetryPolicy(attempts=3, backoff=timedelta(seconds=2), factor=3, max_backoff=timedelta(seconds=10), jitter=0)
UNTIL = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("error", "attempt", "outcome"),
    [
        (TransientError("x"), 1, Outcome(Action.RETRY, "transient", delay=timedelta(seconds=2))),
        (TransientError("x"), 2, Outcome(Action.RETRY, "transient", delay=timedelta(seconds=6))),
        (TransientError("x"), 3, Outcome(Action.DEAD, "transient")),
        (
            TransientError("x", retry_after=timedelta(minutes=1), code="503"),
            1,
            Outcome(Action.RETRY, "503", delay=timedelta(minutes=1)),
        ),
        (PermanentError("x", code="131026"), 1, Outcome(Action.DEAD, "131026")),
        (AmbiguousError("x", code="lost"), 1, Outcome(Action.DEAD, "lost")),
        (ThrottledError("x", code="130429"), 99, Outcome(Action.RESCHEDULE, "130429", delay=THROTTLED_WAIT)),
        (
            ThrottledError("x", retry_after=timedelta(seconds=7)),
            1,
            Outcome(Action.RESCHEDULE, "transient", delay=timedelta(seconds=7)),
        ),
        (NotYet("x", until=UNTIL), 99, Outcome(Action.RESCHEDULE, "not_yet", until=UNTIL)),
        (Cancelled("x"), 1, Outcome(Action.CANCEL, "error")),
        (ValueError("x"), 1, Outcome(Action.RETRY, "ValueError", delay=timedelta(seconds=2), is_bug=True)),
        (ValueError("x"), 2, Outcome(Action.DEAD, "ValueError", is_bug=True)),
        (KeyboardInterrupt(), 2, Outcome(Action.DEAD, "KeyboardInterrupt", is_bug=True)),
    ],
)
def test_classify_decides(error, attempt, outcome):
    """OPT-06: transient is retried, permanent is not, waiting costs no attempt, a bug gets few tries."""
    assert classify(error, attempt, POLICY) == outcome


def test_classify_with_one_attempt_retries_nothing():
    """OPT-06: the limit counts the first try."""
    once = RetryPolicy(attempts=1)
    assert classify(TransientError("x"), 1, once).action is Action.DEAD
    assert classify(ValueError("x"), 1, once).action is Action.DEAD


def test_delay_grows_to_its_maximum():
    delays = [POLICY.delay_before(attempt).total_seconds() for attempt in (2, 3, 4, 5)]
    assert delays == [2, 6, 10, 10]


@given(
    attempt=st.integers(2, 60),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
    rand=st.floats(0, 1, exclude_max=True),
)
def test_delay_lies_between_the_wait_and_the_wait_with_all_jitter(attempt, factor, jitter, rand):
    policy = RetryPolicy(factor=factor, jitter=jitter)
    delay = policy.delay_before(attempt, rand=lambda: rand)
    wait = RetryPolicy(factor=factor, jitter=0).delay_before(attempt)
    assert policy.backoff <= wait <= policy.max_backoff
    assert wait <= delay <= wait * (1 + jitter) + timedelta(microseconds=1)
