import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from brokers.engine import Limit
from tests.conftest import wait_until


def moments(reservation):
    """The slots in seconds of the store's clock."""
    start = reservation.at.timestamp()
    return [start + offset for offset in reservation.offsets]


def gaps(offsets):
    return [later - earlier for earlier, later in itertools.pairwise(offsets)]


@pytest.mark.clause("LIM-1")
@pytest.mark.parametrize("rate", [12.5, 80.0, 1000.0, 0.5])
def test_slots_are_evenly_spaced(engine, rate):
    """JOB-01: 12.5 messages a second; fractions work."""
    reservation = engine.reserve([Limit("number", rate)], 20)
    assert reservation.offsets[0] == pytest.approx(0, abs=1e-4)
    assert gaps(reservation.offsets) == pytest.approx([1 / rate] * 19, abs=1e-4)
    following = engine.reserve([Limit("number", rate)], 1)
    assert moments(following)[0] - moments(reservation)[-1] == pytest.approx(1 / rate, abs=1e-3)


@pytest.mark.clause("LIM-1")
def test_a_burst_goes_first(engine):
    reservation = engine.reserve([Limit("key", 10, burst=4)], 7)
    assert reservation.offsets == pytest.approx([0, 0, 0, 0, 0.1, 0.2, 0.3], abs=1e-3)


@pytest.mark.clause("LIM-1")
def test_the_moment_is_the_stores(engine):
    assert abs(engine.reserve([Limit("key", 10)], 1).at.timestamp() - time.time()) < 5
    assert engine.reserve([Limit("key", 10)], 1).at.utcoffset() == timedelta()


@pytest.mark.clause("LIM-1")
def test_an_unused_limit_gathers_no_more_than_its_burst(engine):
    limit = Limit("key", 50, burst=2)
    engine.reserve([limit], 3)
    wait_until(lambda: engine.reserve([Limit("other", 50)], 1).offsets == (0.0,), "time does not pass")
    time.sleep(0.2)  # the limit is unused for ten intervals
    assert engine.reserve([limit], 4).offsets == pytest.approx([0, 0, 0.02, 0.04], abs=2e-3)


@pytest.mark.clause("LIM-2")
def test_each_slot_suits_all_limits(engine):
    """X-03: number, pair, tier and campaign limits at once."""
    fast, slow = Limit("fast", 100, burst=5), Limit("slow", 10)
    engine.reserve([slow], 3)
    both = engine.reserve([fast, slow], 3)
    assert both.offsets == pytest.approx([0.3, 0.4, 0.5], abs=0.05)
    assert engine.reserve([slow], 1).offsets[0] == pytest.approx(0.6, abs=0.1)
    # The fast one moved on to the last of these slots.
    assert engine.reserve([Limit("fast", 100)], 1).offsets[0] == pytest.approx(0.51, abs=0.1)


@pytest.mark.clause("LIM-2")
def test_keys_do_not_meet(engine):
    engine.reserve([Limit("one", 1)], 50)
    assert engine.reserve([Limit("two", 1)], 1).offsets == pytest.approx([0], abs=1e-3)


@pytest.mark.clause("LIM-1")
def test_a_changed_rate_is_obeyed_at_once(engine):
    engine.reserve([Limit("key", 10)], 2)
    assert gaps(engine.reserve([Limit("key", 100)], 5).offsets) == pytest.approx([0.01] * 4, abs=1e-3)


@pytest.mark.clause("LIM-3")
@pytest.mark.parametrize(("rate", "burst"), [(200.0, 1), (300.0, 10)])
def test_no_window_exceeds_the_limit_however_many_reserve(make_engine, rate, burst):
    """FIGURES: every limiter measured lets 1.3 to 2 times the limit pass in some sliding second."""
    engines = [make_engine() for _ in range(4)]
    limits = [Limit("number", rate, burst), Limit("organisation", rate * 2, burst)]

    def reserve(number):
        return moments(engines[number % 4].reserve(limits, 1 + number % 7))

    with ThreadPoolExecutor(8) as pool:
        slots = sorted(slot for part in pool.map(reserve, range(150)) for slot in part)
    for window in (0.1, 0.5, 1.0):
        first = 0
        for last, slot in enumerate(slots):
            while slots[first] < slot - window:
                first += 1
            assert last - first + 1 <= rate * window + burst + 1e-6
    assert len(slots) / (slots[-1] - slots[0]) >= rate * 0.99


@pytest.mark.clause("LIM-4")
def test_unused_slots_are_given_back(engine):
    limits = [Limit("a", 10), Limit("b", 20, burst=3)]
    reservation = engine.reserve(limits, 10)
    engine.give_back(limits, 4)
    again = engine.reserve(limits, 4)
    assert moments(again) == pytest.approx(moments(reservation)[6:], abs=2e-3)
    engine.give_back(limits, 4)
    engine.give_back(limits, 99)
    assert moments(engine.reserve(limits, 1))[0] == pytest.approx(moments(reservation)[6], abs=2e-3)


@pytest.mark.clause("LIM-4")
def test_nothing_is_given_back_after_another_reserved(make_engine):
    one, two = make_engine(), make_engine()
    limit = Limit("key", 10)
    first = one.reserve([limit], 5)
    second = two.reserve([limit], 1)
    one.give_back([limit], 3)
    assert moments(one.reserve([limit], 1))[0] > moments(second)[0] > moments(first)[-1]


@pytest.mark.clause("LIM-4")
def test_nothing_reserved_nothing_given_back(engine):
    engine.give_back([Limit("key", 10)], 5)
    assert engine.reserve([Limit("key", 10)], 2).offsets == pytest.approx([0, 0.1], abs=1e-3)
