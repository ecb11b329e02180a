"""Messages in. What many threads enqueue at the same time shares one statement and one commit."""

import threading
from collections.abc import Iterator, Sequence

from psycopg import errors

from brokers.engine import Envelope
from brokers.postgres.arrays import needs_raw, plain_array
from brokers.postgres.connections import Connection, Connections
from core.errors import PermanentError
from db.group_commit import GroupCommit

CHUNK = 10_000
"""Most messages of one statement; a larger call is one transaction of several."""
SHARED = 100
"""Calls with more messages have a statement of their own."""
REMEMBERED_S = 60.0
"""A message sent again is not stored when it ended within this time; `dramatiq.finished` keeps more."""
GENERATION = 20_000
"""Ids kept to know that a message is sent again: between one and two times as many, about 2 MB."""
SEPARATOR = "\x1e"
"""Between the texts of a column: JSON has no bare control character, and splitting costs less than quoting."""

_COLUMNS = (
    "%s::uuid[], string_to_array(%s, e'\\x1e'), %s::smallint[], string_to_array(%s, e'\\x1e'), %s::float8[],"
    " %s::timestamptz[], string_to_array(%s, e'\\x1e', ''), %s::bytea[], %s"
)
ENQUEUE_ONE = """
    with new as (
        insert into dramatiq.queue (message_id, queue_name, state, message, priority, available_at, group_id)
        values (%s, %s, 'queued', %s::jsonb, least(greatest(%s::int, 1), 4),
            coalesce(%s, statement_timestamp() + make_interval(secs => %s)), %s)
        on conflict (message_id) do nothing
        returning queue_name
    )
    select case when exists (select from dramatiq.waiter where is_waiting)
        then dramatiq.wake(array[queue_name], 1) end
    from new
"""
"""What `dramatiq.enqueue` does, for one message without doubts: half the work for the server."""
ENQUEUE = f"select dramatiq.enqueue({_COLUMNS})::text[]"
WAKE_AT_COMMIT = "select pg_notify('dramatiq.wake', '')"


_BYTE = SEPARATOR.encode()


class Enqueuer:
    """Stores messages for all threads of a process."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._shared = GroupCommit(self._store_all)
        self._sent = _Sent()

    def enqueue(self, envelopes: Sequence[Envelope]) -> int:
        """Store `envelopes` in one transaction; returns how many were new.

        Messages that this process sent before, and that have ended since, are not stored a second time.

        Raises:
            TransientError: as `Connections.run`.
        """
        if len(envelopes) > SHARED:
            return self._store_all([envelopes])[0]
        return self._shared.submit(envelopes)

    def _store_all(self, batches: Sequence[Sequence[Envelope]]) -> list[int]:
        """Store the envelopes of several callers at once; returns how many of each were new."""
        envelopes = [envelope for batch in batches for envelope in batch]
        sent_before = self._sent.add([e.message_id for e in envelopes])
        tries = 0

        def step(connection: Connection) -> set[str] | None:
            nonlocal tries
            tries += 1
            return _store(connection, envelopes, REMEMBERED_S if sent_before or tries > 1 else None)

        try:
            new = self._connections.run(step)
        except errors.DataError:
            if len(batches) == 1:
                raise
            # One cannot be stored: each caller then learns about its own.
            return [self._store_all([batch])[0] for batch in batches]
        return [_how_many(batch, new) for batch in batches]


class _Sent:
    """Ids of the messages that this process enqueued lately: two generations of them."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._young: set[str] = set()
        self._old: set[str] = set()

    def add(self, ids: Sequence[str]) -> bool:
        """Note `ids`; returns whether one of them is known already."""
        with self._mutex:
            known = not (self._young.isdisjoint(ids) and self._old.isdisjoint(ids))
            self._young.update(ids[:GENERATION])
            if len(self._young) >= GENERATION:
                self._old, self._young = self._young, set()
            return known


def check_bodies(envelopes: Sequence[Envelope], longest: int) -> None:
    """Refuse bodies of more than `longest` bytes.

    Raises:
        PermanentError: names the first one.
    """
    for envelope in envelopes:
        if len(envelope.body) > longest:
            message = f"Message {envelope.message_id} has {len(envelope.body)} bytes, the most is {longest}: send ids."
            raise PermanentError(message, code="message_too_long")


def enqueue_within(connection: Connection, envelopes: Sequence[Envelope]) -> int:
    """Store `envelopes` in the transaction that is open on `connection`; workers are woken at its commit."""
    # A statement that fails would end the caller's transaction, so every body is looked at before.
    new = _store_chunks(connection, envelopes, None, exact=True)
    connection.execute(WAKE_AT_COMMIT)
    return _how_many(envelopes, new)


def _store(
    connection: Connection, envelopes: Sequence[Envelope], since_s: float | None, *, exact: bool = False
) -> set[str] | None:
    """Store `envelopes` in a transaction; returns the ids of those that were new, None if all were."""
    try:
        if len(envelopes) == 1 and since_s is None and not exact and not _may_be_raw(envelopes[0].body):
            return _store_one(connection, envelopes[0])
        if len(envelopes) <= CHUNK:
            return _store_chunks(connection, envelopes, since_s, exact=exact)
        with connection.transaction():
            return _store_chunks(connection, envelopes, since_s, exact=exact)
    except (errors.DataError, UnicodeDecodeError):
        if exact:
            raise
        return _store(connection, envelopes, since_s, exact=True)


def _store_one(connection: Connection, envelope: Envelope) -> set[str] | None:
    arguments = (
        envelope.message_id,
        envelope.queue,
        envelope.body.decode(),
        envelope.priority,
        envelope.run_at,
        envelope.delay.total_seconds(),
        envelope.group_id,
    )
    return None if connection.execute(ENQUEUE_ONE, arguments).rowcount else set()


def _may_be_raw(data: bytes) -> bool:
    """Whether `needs_raw` must look at it."""
    return b"\\u0000" in data or b"\\ud" in data


def _store_chunks(
    connection: Connection, envelopes: Sequence[Envelope], since_s: float | None, *, exact: bool
) -> set[str] | None:
    new: set[str] = set()
    all_new = True
    for chunk in _chunks(envelopes):
        row = connection.execute(ENQUEUE, _arguments(chunk, since_s, exact=exact)).fetchone()
        if row is None or row[0] is None:
            new.update(e.message_id for e in chunk)
        else:
            new.update(row[0])
            all_new = False
    return None if all_new else new


def _how_many(envelopes: Sequence[Envelope], new: set[str] | None) -> int:
    """How many of `envelopes` are in `new`, which loses them: only one caller stored a message."""
    if new is None:
        return len(envelopes)
    found = {e.message_id for e in envelopes} & new
    new -= found
    return len(found)


def _chunks(envelopes: Sequence[Envelope]) -> Iterator[Sequence[Envelope]]:
    return (envelopes[start : start + CHUNK] for start in range(0, len(envelopes), CHUNK))


def _arguments(envelopes: Sequence[Envelope], since_s: float | None, *, exact: bool) -> tuple[object, ...]:
    """Columns for `dramatiq.enqueue`; those that most messages lack are null as a whole."""
    bodies = [e.body for e in envelopes]
    joined = _BYTE.join(bodies)
    raws = None
    if exact or _may_be_raw(joined) or joined.count(_BYTE) != len(bodies) - 1:
        raws = [body if needs_raw(body) else None for body in bodies]
        joined = _BYTE.join(b"" if raw else body for body, raw in zip(bodies, raws, strict=True))
    return (
        plain_array([e.message_id for e in envelopes]),
        SEPARATOR.join([e.queue for e in envelopes]),
        plain_array([e.priority for e in envelopes]),
        joined.decode(),
        plain_array([e.delay.total_seconds() for e in envelopes]) if any(e.delay for e in envelopes) else None,
        [e.run_at for e in envelopes] if any(e.run_at for e in envelopes) else None,
        SEPARATOR.join([e.group_id or "" for e in envelopes]) if any(e.group_id for e in envelopes) else None,
        raws,
        since_s,
    )
