"""Messages out: leases, their renewal and their return."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from brokers.engine import Claim, ClaimRequest, Heartbeat, Held
from brokers.postgres.arrays import plain_array, tokens_array
from brokers.postgres.connections import Connection

CLAIM = (
    "select message_id::text, queue_name, priority, body, token, attempt, lost,"
    " extract(epoch from available_at)::float8 from dramatiq.claim(%s, %s::text[], %s::int[], %s, %s, %s)"
    " order by priority, available_at"
)
RELEASE = "select dramatiq.release(%s::uuid[], %s::bigint[])"
HEARTBEAT = "select lost::text[], cancelled::text[] from dramatiq.heartbeat(%s::uuid[], %s::bigint[], %s)"
REAP = "select dramatiq.reap(%s)"


def claim(connection: Connection, request: ClaimRequest, worker_id: UUID | None) -> list[Claim]:
    """As `Engine.claim`; `worker_id` is this process if it noted that it waits."""
    if request.room <= 0 or not request.queues:
        return []
    bounds = ["null" if bound is None else bound for bound in request.queues.values()]
    queues = list(request.queues)
    arguments = (request.request_id, queues, plain_array(bounds), request.room, request.lease, worker_id)
    rows = connection.cursor(binary=True).execute(CLAIM, arguments).fetchall()
    return [
        Claim(message_id, queue, priority, body, str(token), attempt, lost, order)
        for message_id, queue, priority, body, token, attempt, lost, order in rows
    ]


def release_many(connection: Connection, held: Sequence[Held]) -> None:
    """As `Engine.release_many`."""
    if held:
        connection.execute(RELEASE, _held(held))


def heartbeat(connection: Connection, held: Sequence[Held], lease: timedelta) -> Heartbeat:
    """As `Engine.heartbeat`; a lease with more than nine tenths to go is left as it is."""
    if not held:
        return Heartbeat()
    row = connection.execute(HEARTBEAT, (*_held(held), lease)).fetchone()
    lost, cancelled = row or (None, None)
    return Heartbeat(frozenset(lost or ()), frozenset(cancelled or ()))


def reap(connection: Connection, max_lost: int) -> int:
    """As `Engine.reap`."""
    row = connection.execute(REAP, (max_lost,)).fetchone()
    return int(row[0]) if row else 0


def _held(held: Sequence[Held]) -> tuple[str, str]:
    return plain_array(h.message_id for h in held), tokens_array(h.token for h in held)
