"""Phone numbers in E.164 normal form: `+`, country calling code, national number, no separators.

Rules (JOB-04): 10 to 15 digits, country code optional where a default region is given, and a number that the country's
numbering plan knows. Plans are Google's libphonenumber metadata, from the package phonenumberslite.

The library needs about 40 microseconds a number because it supports every spelling. A number that is already
international needs none of that, so its check is made here from the same metadata, one compiled pattern per region;
everything that is not plain goes to the library. `tests/unit/test_phone.py` holds the two equal.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneMetadata, PhoneNumberDesc

MIN_DIGITS = 10
MAX_DIGITS = 15

# Spaces of every width, dots, dashes, brackets, slashes, and the invisible direction marks that come along when a
# number is copied from a chat.
_IGNORED = "\t\n\r ./()-\xa0\xad\u2212\ufeff\u3000" + "".join(
    map(chr, [*range(0x2000, 0x2016), *range(0x2028, 0x2030), *range(0x205F, 0x206A)])
)
_SEPARATORS = str.maketrans({**dict.fromkeys(_IGNORED), "\uff0b": "+"})

_TYPES = ("mobile", "fixed_line", "voip", "toll_free", "personal_number", "premium_rate", "shared_cost", "uan", "pager")
_LONGEST_COUNTRY_CODE = 3


def normalize(text: str, region: str = "", *, check_plan: bool = True) -> str | None:
    """The E.164 form of `text`, or None where it is no phone number.

    Args:
        text: As people write it: separators anywhere; `+`, `00` or nothing before the country code; digits of any
            script; a leading apostrophe and a trailing `.0`, which spreadsheets add, are dropped.
        region: Two-letter country. A number without `+` or `00` is read as national there first, and only then as
            international without a plus.
        check_plan: False accepts every number of 10 to 15 digits, known to its country's numbering plan or not.
    """
    digits, is_international = _digits(text)
    if not digits:
        return None
    found = None
    if region and not is_international:
        found = _national(digits, region, check_plan=True)
    found = found or _international(digits)
    if found is None and not check_plan:
        found = (_national(digits, region, check_plan=False) if region and not is_international else None) or (
            f"+{digits}" if digits[0] != "0" else None
        )
    return found if found and MIN_DIGITS < len(found) <= MAX_DIGITS + 1 else None


def _digits(text: str) -> tuple[str, bool]:
    """The bare digits and whether they begin with a country code for certain; no digits where there is other text."""
    if text.endswith(".0") and text[:-2].lstrip("+").isdigit():
        text = text[:-2]
    bare = text.translate(_SEPARATORS).removeprefix("'")
    has_plus = bare.startswith("+")
    if has_plus:
        bare = bare[1:]
    if not bare.isascii() and bare.isdecimal():
        bare = "".join(str(unicodedata.decimal(digit)) for digit in bare)
    if not (bare.isascii() and bare.isdecimal()):
        return "", has_plus
    if not has_plus and bare.startswith("00"):
        return bare[2:], True
    return bare, has_plus


def _international(digits: str) -> str | None:
    """E.164 of digits that begin with a country code, or None."""
    for length in range(1, _LONGEST_COUNTRY_CODE + 1):
        plan = _plan(digits[:length])
        if plan is not None:
            break
    else:
        return None
    national = digits[length:]
    if plan.trunk_prefix is not None and plan.trunk_prefix.match(national):
        return _by_library(f"+{digits}", None, check_plan=True)
    return f"+{digits}" if plan.knows(national) else None


def _national(digits: str, region: str, *, check_plan: bool) -> str | None:
    return _by_library(digits, region, check_plan=check_plan)


def _by_library(text: str, region: str | None, *, check_plan: bool) -> str | None:
    try:
        number = phonenumbers.parse(text, region and region.upper())
    except phonenumbers.NumberParseException:
        return None
    is_good = phonenumbers.is_valid_number if check_plan else phonenumbers.is_possible_number
    if not is_good(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


class _Region(NamedTuple):
    leading_digits: re.Pattern[str] | None
    valid: re.Pattern[str]


class _Plan(NamedTuple):
    """What the metadata says about one country calling code.

    Attributes:
        trunk_prefix: What may stand before a national number and has to be taken off, such as `0` in Germany.
        regions: The countries that share the code, in the library's order: the first that fits decides.
    """

    trunk_prefix: re.Pattern[str] | None
    regions: tuple[_Region, ...]

    def knows(self, national: str) -> bool:
        for region in self.regions:
            if region.leading_digits is None:
                if region.valid.match(national):
                    return True
            elif region.leading_digits.match(national):
                return region.valid.match(national) is not None
        return False


@cache
def _plan(country_code: str) -> _Plan | None:
    """The compiled plan of a calling code, or None where no country has it. At most 1 110 keys: three digits."""
    if country_code.startswith("0") or not country_code:
        return None
    regions = COUNTRY_CODE_TO_REGION_CODE.get(int(country_code))
    if not regions:
        return None
    found = (PhoneMetadata.metadata_for_region_or_calling_code(int(country_code), region) for region in regions)
    metadata = [each for each in found if each is not None]
    prefix = metadata[0].national_prefix_for_parsing
    return _Plan(
        trunk_prefix=re.compile(prefix) if prefix else None,
        regions=tuple(_region(each, is_alone=len(metadata) == 1) for each in metadata),
    )


def _region(metadata: PhoneMetadata, *, is_alone: bool) -> _Region:
    """A number is valid when it fits the general description and that of any one type."""
    types = "|".join(_pattern(desc) for desc in _descriptions(metadata))
    leading = None if is_alone else metadata.leading_digits
    return _Region(
        leading_digits=re.compile(leading) if leading else None,
        valid=re.compile(rf"(?={_pattern(metadata.general_desc)})(?:{types})"),
    )


def _descriptions(metadata: PhoneMetadata) -> Iterator[PhoneNumberDesc]:
    for name in (*_TYPES, "voicemail"):
        desc = getattr(metadata, name)
        if desc is not None and desc.national_number_pattern:
            yield desc


def _pattern(desc: PhoneNumberDesc | None) -> str:
    """The whole of a number: its possible lengths, where they are told, and its digits."""
    if desc is None or not desc.national_number_pattern:
        return "(?!)"  # never matches
    lengths = "|".join(rf"[0-9]{{{length}}}\Z" for length in desc.possible_length)
    return (f"(?={lengths})" if lengths else "") + rf"(?:{desc.national_number_pattern})\Z"
