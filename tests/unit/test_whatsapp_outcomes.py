"""The table of provider codes (JOB-01: failures tracked with their codes; retries for transient errors only)."""

from datetime import timedelta

import pytest

from core.errors import AmbiguousError, PermanentError, ThrottledError, TransientError
from providers.outcomes import TABLE, ProviderAction, by_code, by_status, error_for, known

RAISED = {
    ProviderAction.RETRY: TransientError,
    ProviderAction.THROTTLE: ThrottledError,
    ProviderAction.WAIT_DAY: TransientError,
    ProviderAction.HOLD: AmbiguousError,
    ProviderAction.PERMANENT: PermanentError,
    ProviderAction.PAUSE_NUMBER: PermanentError,
    ProviderAction.PAUSE_TEMPLATE: PermanentError,
    ProviderAction.PAUSE_CAMPAIGN: PermanentError,
    ProviderAction.SUPPRESS_RECIPIENT: PermanentError,
}


@pytest.mark.parametrize("code", TABLE)
def test_every_row_is_raised_as_its_action_says(code):
    row = TABLE[code]
    error = error_for("WhatsApp", row)
    assert type(error) is RAISED[row.action]
    assert error.code == code
    assert row.meaning in str(error)


def test_the_table_has_the_codes_that_decide_a_campaign():
    assert len(TABLE) >= 40
    expected = {
        "190": ProviderAction.PAUSE_CAMPAIGN,
        "130429": ProviderAction.THROTTLE,
        "131056": ProviderAction.THROTTLE,
        "131057": ProviderAction.THROTTLE,
        "4": ProviderAction.THROTTLE,
        "80007": ProviderAction.THROTTLE,
        "131049": ProviderAction.WAIT_DAY,
        "131048": ProviderAction.PAUSE_NUMBER,
        "131031": ProviderAction.PAUSE_NUMBER,
        "132015": ProviderAction.PAUSE_TEMPLATE,
        "131026": ProviderAction.PERMANENT,
        "130472": ProviderAction.PERMANENT,
        "131047": ProviderAction.PERMANENT,
        "131050": ProviderAction.SUPPRESS_RECIPIENT,
        "1": ProviderAction.RETRY,
        "2": ProviderAction.RETRY,
        "131000": ProviderAction.RETRY,
        "131016": ProviderAction.RETRY,
        "http_502": ProviderAction.HOLD,
        "http_503": ProviderAction.RETRY,
    }
    assert {code: TABLE[code].action for code in expected} == expected


def test_every_throttling_row_names_a_wait():
    throttling = [row for row in TABLE.values() if row.action is ProviderAction.THROTTLE]
    assert all(row.wait and row.wait > timedelta() for row in throttling)


def test_the_code_decides_whatever_the_status_is():
    for status in (200, 400, 429, 500):
        assert by_code(131026, status) is TABLE["131026"]


@pytest.mark.parametrize(
    ("code", "status", "action"),
    [
        (999001, 400, ProviderAction.PERMANENT),
        (999001, 429, ProviderAction.THROTTLE),
        (999001, 500, ProviderAction.RETRY),
        (200, 403, ProviderAction.PAUSE_CAMPAIGN),
        (299, 403, ProviderAction.PAUSE_CAMPAIGN),
        (300, 403, ProviderAction.PERMANENT),
    ],
)
def test_unknown_codes_are_judged_by_range_and_status(code, status, action):
    row = by_code(code, status)
    assert (row.code, row.action) == (str(code), action)


@pytest.mark.parametrize(
    ("status", "code", "action"),
    [
        (200, "net_unreadable", ProviderAction.HOLD),
        (307, "http_307", ProviderAction.PAUSE_CAMPAIGN),
        (418, "http_418", ProviderAction.PERMANENT),
        (503, "http_503", ProviderAction.RETRY),
        (520, "http_520", ProviderAction.HOLD),
    ],
)
def test_answers_without_a_code_are_judged_by_status(status, code, action):
    row = by_status(status)
    assert (row.code, row.action) == (code, action)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (None, timedelta(seconds=1)),
        (timedelta(seconds=7), timedelta(seconds=7)),
        (timedelta(days=9), timedelta(hours=1)),
        (timedelta(seconds=-5), timedelta()),
    ],
)
def test_retry_after_is_honoured_within_bounds(asked, got):
    error = error_for("WhatsApp", TABLE["130429"], asked)
    assert isinstance(error, ThrottledError)
    assert error.retry_after == got


def test_a_marketing_cap_waits_a_day_whatever_the_answer_asks():
    error = error_for("WhatsApp", TABLE["131049"], timedelta(seconds=1))
    assert isinstance(error, TransientError)
    assert error.retry_after == timedelta(days=1)


def test_a_code_is_found_again_for_what_else_must_stop():
    row = known("190")
    assert row is not None
    assert row.action is ProviderAction.PAUSE_CAMPAIGN
    assert known("TypeError") is None
