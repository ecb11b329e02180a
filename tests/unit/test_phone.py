"""Phone numbers become E.164 (JOB-04), and the quick check decides as the library does."""

import csv
from pathlib import Path

import phonenumbers
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.phone import normalize

SAMPLE = Path(__file__).parents[1] / "data" / "contacts_10k.csv"
CODES = sorted(phonenumbers.COUNTRY_CODE_TO_REGION_CODE)


def by_library(digits: str) -> str | None:
    """The rule, spelled out: 10 to 15 digits that the library calls valid."""
    try:
        number = phonenumbers.parse(f"+{digits}")
    except phonenumbers.NumberParseException:
        return None
    form = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return form if phonenumbers.is_valid_number(number) and 11 <= len(form) <= 16 else None


@pytest.mark.parametrize(
    "text",
    [
        "+49 151 23456789", "+49-151-234.567.89", "+49 (151) 23456789", "+49\xa0151\xa023456789", "0049 151 23456789",
        "49 151 23456789", " +4915123456789 ", "'+4915123456789", "+49 (0) 151 23456789", "+49/151/23456789",
        "\u202a+49 151 23456789\u202c", "\uff0b4915123456789", "+49\u2011151\u201123456789", "4915123456789.0",
        "+٤٩١٥١٢٣٤٥٦٧٨٩",
    ],
)  # fmt: skip
def test_every_spelling_gives_one_normal_form(text):
    assert normalize(text) == "+4915123456789"


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "0", "00", "12345", "n/a", "call me", "+", "++", "+1 415", "+44 7700", "+99999999999999999999",
        "+1-800-FLOWERS-ARE-NICE", "+0123456789", "+15555555555", "4.91512E+12", "+1 415 555 2671 x5", "²²²²²²²²²²²",
        "+49 151 2345678901234", "{{phone}}", "+354 123", "=1+1",
    ],
)  # fmt: skip
def test_what_is_no_number_gives_none(text):
    assert normalize(text) is None


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("0151 23456789", "DE", "+4915123456789"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("415 555 2671", "US", "+14155552671"),
        ("1 415 555 2671", "US", "+14155552671"),
        ("06 12 23 74 09", "FR", "+33612237409"),
        ("06 12 23 74 09", "fr", "+33612237409"),
        ("+49 151 23456789", "US", "+4915123456789"),  # a plus goes before the region
        ("49 151 23456789", "US", "+4915123456789"),  # no number there, so international without a plus
        ("0049 151 23456789", "US", "+4915123456789"),
        ("0151 23456789", "", None),
    ],
)
def test_default_region_reads_national_numbers_first(text, region, expected):
    assert normalize(text, region) == expected


def test_numbering_plan_can_be_left_unchecked_but_not_the_length():
    assert normalize("+1 555 555 5555", check_plan=False) == "+15555555555"
    assert normalize("555 555 5555", "US", check_plan=False) == "+15555555555"
    assert normalize("+1 555", check_plan=False) is None
    assert normalize("call me", check_plan=False) is None


@pytest.mark.parametrize("code", CODES)
def test_quick_check_equals_the_library_for_the_examples_of_every_country_and_their_neighbours(code):
    for region in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]:
        for digits in _examples(code, region):
            spoilt = digits[:-1] + str((int(digits[-1]) + 5) % 10)
            for each in (
                digits,
                spoilt,
                digits[:-1],
                f"{digits}1",
                digits[:4] + digits[5:],
                f"{code}0{digits[len(str(code)) :]}",
            ):
                assert normalize(f"+{each}") == by_library(each), each


@given(st.sampled_from(CODES), st.text("0123456789", min_size=1, max_size=14))
@settings(max_examples=2000, deadline=None)
@example(1, "8002345678")
@example(39, "0236618300")
@example(55, "01511961234567")
@example(54, "91123456789")
def test_quick_check_equals_the_library_for_random_digits(code, rest):
    assert normalize(f"+{code}{rest}") == by_library(f"{code}{rest}")


def test_quick_check_equals_the_library_on_the_sample():
    with SAMPLE.open(encoding="utf-8-sig", newline="") as stream:
        texts = [row["phone"] for row in csv.DictReader(stream)]
    for text in texts:
        digits = "".join(filter(str.isdigit, text))
        assert normalize(text) == by_library(digits), text


@given(st.text(max_size=30), st.sampled_from(["", "US", "DE", "IT", "BR"]), st.booleans())
@settings(deadline=None)
def test_any_text_gives_a_normal_form_or_none_and_a_normal_form_stays(text, region, check_plan):
    form = normalize(text, region, check_plan=check_plan)
    if form is not None:
        assert form[0] == "+"
        assert form[1:].isascii()
        assert form[1:].isdecimal()
        assert 10 <= len(form) - 1 <= 15
        assert normalize(form, check_plan=check_plan) == form


def _examples(code: int, region: str) -> list[str]:
    found = [phonenumbers.example_number_for_non_geo_entity(code)] if region == "001" else [
        phonenumbers.example_number_for_type(region, kind) for kind in range(11)
    ]  # fmt: skip
    e164 = phonenumbers.PhoneNumberFormat.E164
    return [phonenumbers.format_number(number, e164)[1:] for number in found if number is not None]
