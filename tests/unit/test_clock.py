from datetime import UTC, datetime, timedelta

from core.clock import now, to_ms, uuid7


def test_now_is_aware_and_in_utc():
    assert now().utcoffset() == timedelta()


def test_to_ms_rounds_down():
    assert to_ms(timedelta(seconds=1, microseconds=1999)) == 1001


def test_uuid7_has_the_version_the_variant_and_the_time():
    before = datetime.now(UTC)
    value = uuid7()
    after = datetime.now(UTC)
    assert value.version == 7
    assert value.variant == "specified in RFC 4122"
    unix_ms = value.int >> 80
    assert int(before.timestamp() * 1000) <= unix_ms <= int(after.timestamp() * 1000)


def test_uuid7_are_distinct_and_later_ones_sort_later():
    ids = [uuid7() for _ in range(20_000)]
    assert len(set(ids)) == len(ids)
    times = [value.int >> 80 for value in ids]
    assert times == sorted(times)
    assert times[0] < times[-1]
