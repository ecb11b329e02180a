"""The limiter's arithmetic against a naive model, and its store (LIM clauses run in tests/conformance too)."""

import threading
from bisect import bisect_left
from itertools import pairwise

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from brokers.engine import Limit
from brokers.postgres.engine import PostgresEngine
from brokers.postgres.slots import reserve_slots

RATES = st.sampled_from([0.5, 1.0, 3.0, 12.5, 80.0, 1000.0])
LIMITS = st.lists(st.tuples(RATES, st.integers(1, 20)), min_size=1, max_size=3)
CALLS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40)), min_size=1, max_size=12)
ROUNDING = 1e-6


@given(LIMITS, CALLS)
def test_no_window_holds_more_than_rate_and_burst_allow(rates, calls):
    limits = [Limit(f"key{i}", rate, burst) for i, (rate, burst) in enumerate(rates)]
    states = {limit.key: float("-inf") for limit in limits}
    now, moments = 0.0, []
    for pause, count in calls:
        now += pause
        given_now, states = reserve_slots(limits, states, now, count)
        assert len(given_now) == count
        assert given_now[0] >= now
        moments += given_now
    assert moments == sorted(moments)
    for limit in limits:
        for first, begin in enumerate(moments):
            for window in (1 / limit.rate, 1.0, 7.0):
                inside = bisect_left(moments, begin + window - ROUNDING) - first
                assert inside <= limit.rate * window + limit.burst + ROUNDING


@given(LIMITS, CALLS)
def test_slots_are_the_earliest_that_a_naive_model_finds(rates, calls):
    """The model keeps every slot given and asks of each limit: does one more at this moment still fit?"""
    limits = [Limit(f"key{i}", rate, burst) for i, (rate, burst) in enumerate(rates)]
    states = {limit.key: float("-inf") for limit in limits}
    given_before: list[float] = []
    now = 0.0
    for pause, count in calls[:4]:
        now += pause
        moments, states = reserve_slots(limits, states, now, min(count, 15))
        for moment in moments:
            earliest = max([now, *given_before[-1:], *(_earliest(given_before, limit) for limit in limits)])
            assert abs(moment - earliest) < ROUNDING
            given_before.append(moment)


def _earliest(given_before: list[float], limit: Limit) -> float:
    """The first moment at which a bucket of `burst` tokens, filled with `rate`, has a token again."""
    tokens, last = float(limit.burst), float("-inf")
    for moment in given_before:
        tokens = min(limit.burst, tokens + (moment - last) * limit.rate) - 1
        last = moment
    return last + (1 - tokens) / limit.rate if tokens < 1 else last


def test_concurrent_reservations_share_one_timetable(database):
    """NUM-04: eight threads of two engines, two limits in opposite order; no slot is given twice, none is left out."""
    engines = [PostgresEngine(database) for _ in range(2)]
    limits = [Limit("number", 1000.0), Limit("organization", 5000.0, 10)]
    moments: list[float] = []

    def work(turn: int) -> None:
        for _ in range(5):
            reservation = engines[turn % 2].reserve(limits[:: 1 - 2 * (turn % 2)], 10)
            moments.extend(reservation.at.timestamp() + offset for offset in reservation.offsets)

    threads = [threading.Thread(target=work, args=(turn,)) for turn in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    moments.sort()
    gaps = [two - one for one, two in pairwise(moments)]
    assert len(moments) == 400
    assert min(gaps) > 0.001 - 1e-5
    for engine in engines:
        engine.close()


def test_give_back_frees_the_end_unless_another_reserved_after_it(database):
    one, two = PostgresEngine(database), PostgresEngine(database)
    limits = [Limit("slow", 0.001)]
    first = one.reserve(limits, 5)
    one.give_back(limits, 3)
    again = one.reserve(limits, 1)
    assert abs((again.at - first.at).total_seconds() + again.offsets[0] - first.offsets[2]) < 0.001
    two.reserve(limits, 1)
    with psycopg.connect(database, autocommit=True) as connection:
        before = connection.execute("select * from dramatiq.rate_limit").fetchall()
        one.give_back(limits, 1)
        assert connection.execute("select * from dramatiq.rate_limit").fetchall() == before
    one.close()
    two.close()
