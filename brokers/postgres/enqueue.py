"""Messages in. What many threads enqueue at the same time shares one statement and one commit."""

import time
from collections.abc import Iterator, Sequence

from psycopg import errors

from brokers.engine import Envelope
from brokers.postgres.arrays import needs_raw, plain_array
from brokers.postgres.connections import Connection, Connections
from core.errors import TransientError

CHUNK = 10_000
"""Most messages of one statement; a larger call is one transaction of several."""
DOUBT_S = 600.0
"""So long an enqueue whose reply was lost is remembered; as long as `dramatiq.finished` is kept."""
MAX_DOUBTS = 100_000

SEPARATOR = "\x1e"
"""Between the texts of a column: JSON has no bare control character, and splitting costs less than quoting."""

_COLUMNS = (
    "%s::uuid[], string_to_array(%s, e'\\x1e'), %s::smallint[], string_to_array(%s, e'\\x1e'), %s::float8[],"
    " %s::timestamptz[], string_to_array(%s, e'\\x1e', ''), %s::bytea[], %s"
)
ENQUEUE = f"select dramatiq.enqueue({_COLUMNS})"
WAKE_AT_COMMIT = "select pg_notify('dramatiq.wake', '')"


_BYTE = SEPARATOR.encode()


class Enqueuer:
    """Stores messages for all threads of a process."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._doubts: dict[str, float] = {}

    def enqueue(self, envelopes: Sequence[Envelope]) -> int:
        """Store `envelopes` in one transaction; returns how many were new.

        Raises:
            TransientError: as `Connections.run`. When the same messages are enqueued again after it, those that had
                been stored all the same, and have even run since, are not stored a second time.
        """
        doubtful_s = self._doubt(envelopes)
        tries = 0

        def step(connection: Connection) -> int:
            nonlocal tries
            tries += 1
            return _store(connection, envelopes, doubtful_s if tries == 1 else DOUBT_S)

        try:
            stored = self._connections.run(step)
        except TransientError:
            self._remember(envelopes)
            raise
        return stored

    def _doubt(self, envelopes: Sequence[Envelope]) -> float | None:
        if not self._doubts:
            return None
        now = time.monotonic()
        since = [at for e in envelopes if (at := self._doubts.pop(e.message_id, None)) is not None]
        return now - min(since) + DOUBT_S / 10 if since else None

    def _remember(self, envelopes: Sequence[Envelope]) -> None:
        now = time.monotonic()
        if len(self._doubts) > MAX_DOUBTS:
            self._doubts = {key: at for key, at in list(self._doubts.items()) if at > now - DOUBT_S}
        self._doubts.update((e.message_id, now) for e in envelopes)


def enqueue_within(connection: Connection, envelopes: Sequence[Envelope]) -> int:
    """Store `envelopes` in the transaction that is open on `connection`; workers are woken at its commit."""
    # A statement that fails would end the caller's transaction, so every body is looked at before.
    stored = sum(_count(connection, ENQUEUE, chunk, None, exact=True) for chunk in _chunks(envelopes))
    connection.execute(WAKE_AT_COMMIT)
    return stored


def _store(
    connection: Connection, envelopes: Sequence[Envelope], doubtful_s: float | None, *, exact: bool = False
) -> int:
    try:
        if len(envelopes) <= CHUNK:
            return _count(connection, ENQUEUE, envelopes, doubtful_s, exact=exact)
        with connection.transaction():
            stored = sum(_count(connection, ENQUEUE, chunk, doubtful_s, exact=exact) for chunk in _chunks(envelopes))
    except (errors.DataError, UnicodeDecodeError):
        if exact:
            raise
        return _store(connection, envelopes, doubtful_s, exact=True)
    return stored


def _count(
    connection: Connection, statement: str, envelopes: Sequence[Envelope], doubtful_s: float | None, *, exact: bool
) -> int:
    row = connection.execute(statement, _arguments(envelopes, doubtful_s, exact=exact)).fetchone()
    return int(row[0]) if row else 0


def _chunks(envelopes: Sequence[Envelope]) -> Iterator[Sequence[Envelope]]:
    return (envelopes[start : start + CHUNK] for start in range(0, len(envelopes), CHUNK))


def _arguments(envelopes: Sequence[Envelope], doubtful_s: float | None, *, exact: bool) -> tuple[object, ...]:
    """Columns for `dramatiq.enqueue`; those that most messages lack are null as a whole."""
    bodies = [e.body for e in envelopes]
    joined = _BYTE.join(bodies)
    raws = None
    if exact or b"\\u0000" in joined or b"\\ud" in joined or joined.count(_BYTE) != len(bodies) - 1:
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
        doubtful_s,
    )
