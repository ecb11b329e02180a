"""The simulator's limits, faults and window arithmetic: they judge the rest, so they are judged here (X-03)."""

from collections import Counter, deque
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.books import Window
from simulator.faults import Faults
from simulator.ledger import worst_window
from simulator.limits import PAIR_BURST, PairLimits, RateLimit, window_of
from simulator.plan import Plan

S = 1_000_000_000
TIMES = st.lists(st.integers(0, 5 * S), max_size=60)
WINDOWS = st.integers(1, 3_000_000).map(lambda us: timedelta(microseconds=us))


@given(TIMES, WINDOWS)
def test_worst_window_equals_the_naive_count(times, window):
    window_ns = window // timedelta(microseconds=1) * 1000
    naive = max((sum(start <= time < start + window_ns for time in times) for start in times), default=0)
    assert worst_window(times, window) == naive


@given(TIMES)
def test_the_running_window_equals_worst_window(times):
    window = Window(1)
    for time in sorted(times):
        window.add(time)
    assert window.worst == worst_window(times, timedelta(seconds=1))


def test_the_end_of_a_window_is_not_part_of_it():
    assert worst_window([0, S], timedelta(seconds=1)) == 1
    assert worst_window([0, S - 1], timedelta(seconds=1)) == 2


@given(st.lists(st.integers(0, 300_000_000), max_size=300), st.sampled_from([0.5, 1, 2.5, 12.5, 20]))
def test_no_window_ever_lets_more_than_the_rate_through(gaps, rate):
    limit, now, passed = RateLimit(rate), 0, []
    for gap in gaps:
        now += gap
        if limit.allows(now):
            passed.append(now)
    window_ns, count = window_of(rate)
    assert worst_window(passed, timedelta(microseconds=window_ns // 1000)) <= count


@pytest.mark.parametrize(
    ("rate", "seconds", "count"), [(80, 1, 80), (12.5, 2, 25), (0.1, 10, 1), (0.05, 20, 1), (1000, 1, 1000)]
)
def test_fractional_rates_are_counted_over_whole_messages(rate, seconds, count):
    assert window_of(rate) == (seconds * S, count)


def test_refused_messages_do_not_keep_the_limit_closed():
    limit = RateLimit(2)
    assert [limit.allows(at) for at in (0, 1, 2, S // 2, S - 1)] == [True, True, False, False, False]
    assert limit.allows(S)


def test_a_pair_may_send_45_ahead_and_then_one_in_6_s():
    pairs, sent = PairLimits(), deque()
    for second in range(40):
        while pairs.allows("1", "+1555", second * S):
            sent.append(second)
    counts = Counter(sent)
    assert counts[0] == PAIR_BURST
    assert [second for second in counts if second] == [6, 12, 18, 24, 30, 36]
    assert all(counts[second] == 1 for second in counts if second)
    assert pairs.allows("1", "+1556", 0)
    assert pairs.allows("2", "+1555", 0)


def test_the_same_seed_has_the_same_faults_and_another_has_others():
    shares = {"131026": 0.1, "reset": 0.1}
    recipients = [f"+1555{number:07}" for number in range(500)]

    def outcomes(seed):
        faults = Faults(Plan(seed=seed, shares=shares))
        return [faults.outcome(recipient, 1) for recipient in recipients]

    assert outcomes(1) == outcomes(1)
    assert outcomes(1) != outcomes(2)


def test_faults_come_in_their_shares_and_differ_by_attempt():
    faults = Faults(Plan(seed=3, shares={"131026": 0.2, "131000": 0.1}))
    counts = Counter(faults.outcome(f"+1555{number:07}", 1) for number in range(10_000))
    assert 1800 < counts["131026"] < 2200
    assert 850 < counts["131000"] < 1150
    assert counts["ok"] == 10_000 - counts["131026"] - counts["131000"]
    assert len({faults.outcome("+15550000001", attempt) for attempt in range(1, 60)}) == 3


@pytest.mark.parametrize(
    "wrong",
    [{"shares": {"ok": 0.6, "reset": 0.6}}, {"shares": {"explode": 0.1}}, {"shares": {"http:99": 0.1}}, {"rats": 1}],
)
def test_a_wrong_plan_is_refused(wrong):
    with pytest.raises(ValidationError):
        Plan.model_validate(wrong)
