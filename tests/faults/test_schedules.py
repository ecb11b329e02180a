"""Cron lines of job types; stock is periodiq as it is."""

import pendulum
import periodiq
import pytest

from brokers.job import cron_of

MONDAY = pendulum.datetime(2026, 11, 23)
SUNDAY = 7


def days_of(spec):
    """The weekdays on which it fires in one week, Monday is 1."""
    moments = [MONDAY.add(days=day) for day in range(7)]
    return [moment.isoweekday() for moment in moments if spec.validate(moment)]


@pytest.mark.parametrize("line", ["0 0 * * 0", "0 0 * * sun", "@weekly"])
def test_sunday_comes(line):
    """TRAPS 21, CRON-01: with stock it never does."""
    assert days_of(periodiq.cron(line)) == []
    assert days_of(cron_of(line)) == [SUNDAY]
    assert cron_of(line).next_valid_date(MONDAY) == MONDAY.add(days=6)


@pytest.mark.parametrize(
    ("line", "days"),
    [
        ("0 0 * * 7", [7]),
        ("0 0 * * 1-5", [1, 2, 3, 4, 5]),
        ("0 0 * * 0-2", [1, 2, 7]),
        ("0 0 * * *", [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_the_other_days_stay_what_they_were(line, days):
    assert days_of(cron_of(line)) == days


def test_a_later_moment_of_the_same_sunday_is_not_passed_over():
    assert cron_of("30 3 * * 0").next_valid_date(MONDAY.add(days=6, hours=2)) == MONDAY.add(days=6, hours=3, minutes=30)
