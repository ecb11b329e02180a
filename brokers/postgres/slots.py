"""Rate limits that reserve: GCRA over several keys at once.

A key holds the time of its next slot. A slot may be taken up to `burst - 1` spacings late without being lost, so that
an idle key gives `burst` at once, and then one per spacing: no window of `w` seconds ever holds more than
`rate * w + burst`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from brokers.engine import Limit, Reservation
from brokers.postgres.connections import Connection

EPOCH_S = 1_767_225_600.0
"""2026-01-01, from which slots are counted: a double is exact to some nanoseconds there."""

STATES = """
    select key, next_slot, extract(epoch from clock_timestamp())::float8 from dramatiq.rate_limit
    where key = any(%s::text[]) order by key for update
"""
ADD_KEYS = """
    insert into dramatiq.rate_limit select key, '-infinity' from unnest(%s::text[]) as key order by key
    on conflict do nothing
"""
SET_STATES = """
    update dramatiq.rate_limit as r set next_slot = new.next_slot
    from unnest(%s::text[], %s::float8[]) as new (key, next_slot) where r.key = new.key
"""

States = dict[str, float]
"""Of each key, the time of its next slot in seconds since `EPOCH_S`."""


@dataclass(frozen=True, slots=True)
class _Reserved:
    """What a reservation found and left, so that its end can be given back."""

    now: float
    count: int
    before: States
    after: States


class Slots:
    """Reserves for one process, and remembers the last reservation of each set of keys for `give_back`."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], _Reserved] = {}

    def reserve(self, connection: Connection, limits: Sequence[Limit], count: int, lead_s: float) -> Reservation:
        """As `Engine.reserve`. Takes two round trips and a commit, whatever `count` is."""
        keys = _keys(limits)
        with connection.transaction():
            now, before = _lock(connection, keys)
            moments, after = reserve_slots(limits, before, now + lead_s, count)
            _set(connection, after)
        self._last[keys] = _Reserved(now + lead_s, count, before, after)
        at = datetime.fromtimestamp(EPOCH_S + now, UTC)
        return Reservation(at, tuple(moment - now for moment in moments))

    def give_back(self, connection: Connection, limits: Sequence[Limit], count: int) -> None:
        """As `Engine.give_back`: of the last reservation that this process made with the keys of `limits`."""
        keys = _keys(limits)
        last = self._last.get(keys)
        if last is None or count <= 0:
            return
        used = max(0, last.count - count)
        _, shorter = reserve_slots(limits, last.before, last.now, used)
        with connection.transaction():
            _, states = _lock(connection, keys)
            if states == last.after:
                _set(connection, shorter)
                self._last[keys] = _Reserved(last.now, used, last.before, shorter)


def reserve_slots(limits: Sequence[Limit], states: States, now: float, count: int) -> tuple[list[float], States]:
    """The next `count` moments from `now` on that all `limits` allow, ascending, and the keys' states after them."""
    spacings = [1 / limit.rate for limit in limits]
    slacks = [spacing * (limit.burst - 1) for spacing, limit in zip(spacings, limits, strict=True)]
    nexts = [states[limit.key] for limit in limits]
    moments = []
    for _ in range(count):
        moment = max(now, *nexts)
        moments.append(moment)
        nexts = [
            max(following, moment - slack) + spacing
            for following, slack, spacing in zip(nexts, slacks, spacings, strict=True)
        ]
    return moments, {limit.key: following for limit, following in zip(limits, nexts, strict=True)}


def _keys(limits: Sequence[Limit]) -> tuple[str, ...]:
    return tuple(sorted({limit.key for limit in limits}))


def _lock(connection: Connection, keys: Sequence[str]) -> tuple[float, States]:
    """The database's time and the keys' states, locked in one order until the transaction ends."""
    rows = connection.execute(STATES, (list(keys),)).fetchall()
    if len(rows) < len(keys):
        connection.execute(ADD_KEYS, (list(keys),))
        rows = connection.execute(STATES, (list(keys),)).fetchall()
    # Every row's clock is read when its lock is held; the last one is the latest.
    return max(row[2] for row in rows) - EPOCH_S, {key: next_slot for key, next_slot, _ in rows}


def _set(connection: Connection, states: States) -> None:
    connection.execute(SET_STATES, (list(states), list(states.values())))
