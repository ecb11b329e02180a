"""OPT-03, OPT-04: when a job is tried again, in numbers."""

from datetime import timedelta

from core.errors import RetryPolicy


def waits(policy):
    return [policy.delay_before(attempt).total_seconds() for attempt in range(2, policy.attempts + 1)]


def test_by_default_the_waits_double_from_two_seconds():
    assert waits(RetryPolicy(attempts=5, jitter=0)) == [2, 4, 8, 16]


def test_a_factor_of_one_makes_them_fixed():
    assert waits(RetryPolicy(attempts=4, backoff=timedelta(seconds=5), factor=1, jitter=0)) == [5, 5, 5]


def test_jitter_adds_a_quarter_at_most_and_takes_nothing_away():
    policy = RetryPolicy(attempts=4)
    exact = waits(RetryPolicy(attempts=4, jitter=0))
    for _ in range(100):
        assert all(wait <= found <= 1.25 * wait for wait, found in zip(exact, waits(policy), strict=True))
    assert len({tuple(waits(policy)) for _ in range(10)}) > 1
