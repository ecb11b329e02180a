"""Time and time-ordered ids.

Durations are `timedelta` and moments are aware `datetime`s in UTC everywhere in Fanfare; an int appears only at a
library's edge, with `_ms` or `_s` in its name.
"""

import os
import time
import uuid
from datetime import UTC, datetime, timedelta


def now() -> datetime:
    """The current moment by this machine's clock, aware, in UTC. Limits and leases use the store's clock instead."""
    return datetime.now(UTC)


def to_ms(duration: timedelta) -> int:
    """`duration` in whole milliseconds, rounded down, for libraries that count in them."""
    return duration // timedelta(milliseconds=1)


def uuid7() -> uuid.UUID:
    """A new UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Ids made later by one machine sort later, to the millisecond, so that rows land at the end of their index.
    """
    unix_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (unix_ms & 0xFFFF_FFFF_FFFF) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
