"""The engine on PostgreSQL: each step of the contract is one round trip to a function of `db/migrations/0002_*`."""

import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from psycopg.conninfo import conninfo_to_dict

from brokers.engine import (
    Capabilities,
    Claim,
    ClaimRequest,
    DeadLetter,
    DeadLetterGroup,
    Envelope,
    Finish,
    Heartbeat,
    Held,
    Limit,
    QueueDepth,
    Reservation,
)
from brokers.postgres import claims, steering
from brokers.postgres.connections import Connection, Connections
from brokers.postgres.enqueue import Enqueuer, check_bodies, enqueue_within
from brokers.postgres.finishes import finish_many
from brokers.postgres.slots import Slots
from brokers.postgres.store import PostgresStore
from brokers.postgres.wakeup import Wakeup
from db import pool

T = TypeVar("T")


class PostgresEngine(PostgresStore):
    """Messages in the table `dramatiq.queue`, which dramatiq-pg's producers, results and command line can use too.

    Opens at most `connections.SIZE` connections per process and one that listens; none is kept for a queue.

    Args:
        url: The database, migrated.
        transaction_pooling: The URL leads to a pooler that gives each transaction another session: nothing is
            prepared and nothing listened to, new messages are found by looking.
    """

    capabilities = Capabilities(name="postgres", transactional_enqueue=True)

    def __init__(self, url: str, *, transaction_pooling: bool = False) -> None:
        self._url = url
        self._connections = Connections(url, transaction_pooling=transaction_pooling)
        self._slots = Slots()
        self._processes: dict[int, _Process] = {}

    # Messages in

    def enqueue_many(self, envelopes: Sequence[Envelope]) -> int:
        """As in `Engine`; inside `db.pool.transaction` of the same database, part of that transaction.

        Raises:
            PermanentError: a body is longer than `capabilities.max_body_bytes`; nothing is stored.
        """
        if not envelopes:
            return 0
        check_bodies(envelopes, self.capabilities.max_body_bytes)
        outer = pool.current()
        if outer is not None and _same_database(outer, self._url):
            return enqueue_within(outer, envelopes)
        return self._process.enqueuer.enqueue(envelopes)

    def create_group(self, group_id: str, size: int) -> None:
        """As in `Engine`."""
        self._run(steering.create_group, group_id, size)

    # Messages out

    def claim(self, request: ClaimRequest) -> list[Claim]:
        """As in `Engine`."""
        process = self._process
        claimed = self._run(claims.claim, request, process.wakeup.claiming(request.queues))
        if claimed:
            process.wakeup.claimed()
        return claimed

    def finish_many(self, finishes: Sequence[Finish]) -> list[bool]:
        """As in `Engine`; a finish is known as applied for ten minutes."""
        return self._run(finish_many, finishes)

    def release_many(self, held: Sequence[Held]) -> None:
        """As in `Engine`."""
        self._run(claims.release_many, held)

    def heartbeat(self, held: Sequence[Held], lease: timedelta) -> Heartbeat:
        """As in `Engine`; a lease with more than nine tenths to go is left as it is."""
        return self._run(claims.heartbeat, held, lease)

    def reap(self, *, max_lost: int) -> int:
        """As in `Engine`."""
        self._put_back()
        return self._run(claims.reap, max_lost)

    def wait(self, timeout: timedelta) -> bool:
        """As in `Engine`; messages of the queues that were claimed last."""
        return self._process.wakeup.wait(timeout)

    def wake(self) -> None:
        """As in `Engine`."""
        self._process.wakeup.wake()

    # Steering

    def depths(self, queues: Sequence[str] = ()) -> list[QueueDepth]:
        """As in `Engine`. Counts by index: about 0.1 s for a million messages."""
        return self._run(steering.depths, queues)

    def pause(self, queue: str) -> None:
        """As in `Engine`."""
        self._run(steering.pause, queue)

    def resume(self, queue: str) -> None:
        """As in `Engine`."""
        self._run(steering.resume, queue)

    def cancel(self, message_ids: Sequence[str]) -> int:
        """As in `Engine`. One that was asked to stop and then fails or is lost does not run again."""
        return self._run(steering.cancel, message_ids)

    def purge(self, queue: str) -> int:
        """As in `Engine`."""
        return self._run(steering.purge, queue)

    # Dead letters

    def dead_letters(self, queue: str, *, limit: int = 100, before: datetime | None = None) -> list[DeadLetter]:
        """As in `Engine`."""
        return self._run(steering.dead_letters, queue, limit, before)

    def dead_letter_groups(self, queue: str | None = None) -> list[DeadLetterGroup]:
        """As in `Engine`."""
        return self._run(steering.dead_letter_groups, queue)

    def requeue(self, message_ids: Sequence[str]) -> int:
        """As in `Engine`."""
        return self._run(steering.requeue, message_ids)

    def discard(self, message_ids: Sequence[str]) -> int:
        """As in `Engine`."""
        return self._run(steering.discard, message_ids)

    # Results, limits, health

    def result(self, message_id: str) -> bytes | None:
        """As in `Engine`; JSON comes back in PostgreSQL's spacing and order of keys."""
        return self._run(steering.result, message_id)

    def results(self, message_ids: Sequence[str]) -> dict[str, bytes]:
        """As in `Engine`; JSON as with `result`."""
        return self._run(steering.results, message_ids)

    def reserve(self, limits: Sequence[Limit], count: int, *, lead: timedelta = timedelta()) -> Reservation:
        """As in `Engine`."""
        return self._run(self._slots.reserve, limits, count, lead.total_seconds())

    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        """As in `Engine`."""
        self._run(self._slots.give_back, limits, count)

    def clock(self) -> datetime:
        """As in `Engine`."""
        return self._run(_clock)

    def ping(self) -> timedelta:
        """As in `Engine`."""
        return self._run(_ping)

    def close(self) -> None:
        """As in `Engine`."""
        self._process.wakeup.close()
        self._connections.close()

    @property
    def _process(self) -> "_Process":
        process = self._processes.get(os.getpid())
        return process or self._processes.setdefault(os.getpid(), _Process(self._connections))

    def _run(self, step: Callable[..., T], *arguments: object) -> T:
        return self._connections.run(lambda connection: step(connection, *arguments))


class _Process:
    """What a forked child must not share with its parent: locks, and who listens."""

    def __init__(self, connections: Connections) -> None:
        self.enqueuer = Enqueuer(connections)
        self.wakeup = Wakeup(connections)


def _clock(connection: Connection) -> datetime:
    row = connection.execute("select clock_timestamp()").fetchone()
    return datetime.now(UTC) if row is None else row[0].astimezone(UTC)


def _ping(connection: Connection) -> timedelta:
    began = time.perf_counter()
    connection.execute("select")
    return timedelta(seconds=time.perf_counter() - began)


def _same_database(connection: Connection, url: str) -> bool:
    """Whether messages of `url` live where `connection` leads; both are compared as libpq reads them."""
    if connection.info.dsn == url:
        return True
    names = ("host", "hostaddr", "port", "dbname")
    ours, theirs = conninfo_to_dict(url), conninfo_to_dict(connection.info.dsn)
    return [ours.get(name) for name in names] == [theirs.get(name) for name in names]
