"""E-mail addresses follow RFC 5322 (JOB-04), and the quick check decides as email-validator does."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.email_address import normalize, normalize_by_library


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ann@example.com", "ann@example.com"),
        ("Ann.Lee+x@EXAMPLE.Com", "Ann.Lee+x@example.com"),
        ("o'neil@example.co.uk", "o'neil@example.co.uk"),
        ("ann@münchen.example", "ann@münchen.example"),
        ("用户@例え.jp", "用户@例え.jp"),
    ],
)
def test_good_addresses_are_taken(text, expected):
    assert normalize(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "a@", "@example.com", "no-at-sign.example.com", "a@b@c.example.com", "spa ce@example.com", "a@b",
        "dots..twice@example.com", ".a@example.com", "a.@example.com", "name@-bad-.example.com", "a@exa_mple.com",
        "a@example.c0m1", "a@example..com", "a@example.com\n", "a@localhost", "a@x.local", "a\r\nBcc: b@example.com",
        "a" * 65 + "@example.com", "a@" + "b" * 64 + ".com", "{{email}}",
    ],
)  # fmt: skip
def test_bad_addresses_give_none(text):
    assert normalize(text) is None


LABEL = st.text("ab9Z-_.+'é ", min_size=1, max_size=6)
TLD = st.sampled_from(["com", "COM", "local", "test", "onion", "c0m", "x", "museum", "xn--p1ai", "arpa", "invalid"])


@given(st.builds("{}@{}.{}".format, LABEL, LABEL, TLD))
@settings(max_examples=3000, deadline=None)
@example("a@xn--bcher-kva.com")
@example("a@ab--c.com")
@example("a@" + "b" * 63 + ".com")
@example("a@" + "b" * 64 + ".com")
@example("a" * 64 + "@b.com")
@example("a" * 65 + "@b.com")
@example("a@" + ".".join(["b" * 60] * 4) + ".com")
def test_quick_check_equals_the_library(text):
    assert normalize(text) == normalize_by_library(text)
