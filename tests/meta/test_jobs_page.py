"""RUN-08: what docs/jobs.md says of a job type's options is what they do."""

from datetime import timedelta

import pytest

from core.errors import RetryPolicy
from docs.jobs_page import backoff_text, duration_text


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(milliseconds=500), "0.5 s"),
        (timedelta(seconds=90), "90 s"),
        (timedelta(minutes=5), "5 min"),
        (timedelta(days=1), "24 h"),
        (timedelta(hours=36), "36 h"),
        (timedelta(days=7), "7 days"),
    ],
)
def test_duration_is_told_in_its_largest_whole_unit(duration, words):
    assert duration_text(duration) == words


def test_backoff_tells_the_waits_between_tries():
    assert backoff_text(RetryPolicy(attempts=1)) == ""
    assert backoff_text(RetryPolicy(attempts=4)) == "2 s, 4 s, 8 s"
    assert backoff_text(RetryPolicy(attempts=2, backoff=timedelta(seconds=5), factor=1)) == "5 s"
    assert backoff_text(RetryPolicy(attempts=9)) == "2 s, 4 s, 8 s, 16 s …"
