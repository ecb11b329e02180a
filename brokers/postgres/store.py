"""The Postgres engine's part in working together with another store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from psycopg.rows import class_row

from brokers.postgres.arrays import needs_raw, plain_array, uuid_array
from brokers.postgres.connections import Connection, Connections
from brokers.stores import Store, Stored
from core.errors import TransientError

T = TypeVar("T")

WRITABLE = "select pg_is_in_recovery()"
HOLDS = (
    "select message_id::text from dramatiq.queue where message_id = any(%s::uuid[]) and state is distinct from 'done'"
)
REVOKE = "select dramatiq.revoke(%s::uuid[], %s::text[])"
IDENTITY = "select id::text || ' ' || current_database() from dramatiq.identity"
LIST_IDLE = """
    select message_id::text, case when not group_left then group_id end from dramatiq.queue
    where (%s = '' or message_id > nullif(%s, '')::uuid) and state in ('queued', 'rejected')
    order by message_id limit %s
"""
TAKE_OUT = "select dramatiq.take_out(%s, %s::uuid[], %s)"
TAKEN = """
    select q.message_id::text, queue_name as queue, priority,
        coalesce(raw_message, convert_to(message::text, 'UTF8')) as body, available_at as due,
        case when was = 'rejected' then mtime end as died_at, attempt as attempts, lost, coalesce(code, '') as code,
        coalesce(error, '') as error, group_id, group_left
    from dramatiq.queue as q join dramatiq.moving as m on m.message_id = q.message_id
    where batch_id = %s order by available_at
"""
FORGET = "select dramatiq.forget(%s)"
PUT_BACK = "select dramatiq.put_back()"
PUT_IN = (
    "select dramatiq.put_in(%s, %s::uuid[], %s::text[], %s::int[], %s::text[], %s::bytea[], %s::timestamptz[],"
    " %s::timestamptz[], %s::int[], %s::int[], %s::text[], %s::text[], %s::text[], %s::boolean[])"
)
GLANCE = """
    select is_ready, exists (select from dramatiq.queue where state = 'consumed'),
        exists (select from dramatiq.queue), exists (select from fallback_sends where state <> 'voided')
    from dramatiq.runnable(%s::text[], %s::int[])
"""
COUNTS = """
    select (select count(*) from dramatiq.queue where state in ('queued', 'consumed')),
        (select coalesce(sum(cardinality(message_ids)), 0) from fallback_sends where state = 'doubtful')
"""


@dataclass(frozen=True, slots=True)
class Glance:
    """What a store that is the second one holds at a moment.

    Attributes:
        is_ready: Something can be claimed of the queues asked.
        is_leased: Workers hold some of its messages.
        is_used: It holds anything, if only a result.
        is_journal_open: There are sends of which copies may turn up in the first store.
    """

    is_ready: bool
    is_leased: bool
    is_used: bool
    is_journal_open: bool


NOTHING = Glance(is_ready=False, is_leased=False, is_used=False, is_journal_open=False)


class PostgresStore(Store):
    """Everything of `Store`; the rest of the engine is in `PostgresEngine`."""

    _connections: Connections

    def probe(self) -> None:
        """As the contract says."""
        if self._step(lambda connection: connection.execute(WRITABLE).fetchone()) == (True,):
            raise TransientError("PostgreSQL is a read-only replica: it is failing over.", code="broker_unavailable")

    def holds(self, message_ids: Sequence[str]) -> set[str]:
        """As the contract says."""
        found = self._step(lambda connection: connection.execute(HOLDS, (uuid_array(message_ids),)).fetchall())
        return {row[0] for row in found}

    def revoke(self, message_ids: Sequence[str], groups: Sequence[str]) -> None:
        """As the contract says."""
        self._step(lambda connection: connection.execute(REVOKE, (uuid_array(message_ids), list(groups))))

    def identity(self) -> str:
        """As the contract says."""
        return "postgres " + str(self._value(IDENTITY))

    def list_idle(self, cursor: str, limit: int) -> tuple[list[tuple[str, str | None]], str]:
        """As the contract says."""
        rows = self._step(lambda connection: connection.execute(LIST_IDLE, (cursor, cursor, limit)).fetchall())
        return [(row[0], row[1]) for row in rows], rows[-1][0] if len(rows) == limit else ""

    def take_out(self, batch_id: str, message_ids: Sequence[str], lease: timedelta) -> list[Stored]:
        """As the contract says."""

        def step(connection: Connection) -> list[Stored]:
            connection.execute(TAKE_OUT, (batch_id, uuid_array(message_ids), lease))
            return connection.cursor(row_factory=class_row(Stored)).execute(TAKEN, (batch_id,)).fetchall()

        return self._step(step)

    def forget(self, batch_id: str) -> bool:
        """As the contract says."""
        return bool(self._value(FORGET, batch_id))

    def put_in(self, batch_id: str, stored: Sequence[Stored]) -> int:
        """As the contract says."""
        raws = [needs_raw(message.body) for message in stored]
        columns = (
            batch_id,
            plain_array(message.message_id for message in stored),
            [message.queue for message in stored],
            plain_array(message.priority for message in stored),
            [None if raw else message.body.decode() for message, raw in zip(stored, raws, strict=True)],
            [message.body if raw else None for message, raw in zip(stored, raws, strict=True)],
            [message.due for message in stored],
            [message.died_at for message in stored],
            plain_array(message.attempts for message in stored),
            plain_array(message.lost for message in stored),
            [message.code.replace("\0", "") or None for message in stored],
            [message.error.replace("\0", "") or None for message in stored],
            [message.group_id for message in stored],
            [message.group_left for message in stored],
        )
        return int(self._value(PUT_IN, *columns))

    def glance(self, queues: Mapping[str, int | None]) -> Glance:
        """What is here for those who claim `queues`; one round trip, by index."""
        bounds = plain_array("null" if bound is None else bound for bound in queues.values())
        row = self._step(lambda connection: connection.execute(GLANCE, (list(queues), bounds)).fetchone())
        return Glance(*row) if row else NOTHING

    def counts(self) -> tuple[int, int]:
        """Messages that have not ended, and those of sends that the first store did not confirm."""
        row = self._step(lambda connection: connection.execute(COUNTS).fetchone())
        return (row[0], int(row[1])) if row else (0, 0)

    def _put_back(self) -> int:
        """Bring back what movers that fell silent had set aside; returns how many messages."""
        return int(self._value(PUT_BACK))

    def _value(self, statement: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the column has
        row = self._step(lambda connection: connection.execute(statement, arguments).fetchone())
        return row[0] if row else None

    def _step(self, step: Callable[[Connection], T]) -> T:
        return self._connections.run(step)
