"""How an idle process learns that there is work: one listening connection, and a note in the database that it waits.

Whoever stores messages notifies only while somebody waits, so a busy system notifies nobody. Behind a transaction
pooler nothing can be listened to; there the process looks again in growing intervals.
"""

import os
import select
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta

import psycopg
from psycopg import sql

from brokers.postgres.arrays import plain_array
from brokers.postgres.connections import Connection, Connections
from core.errors import TransientError

BEGIN_WAIT = "select is_ready, next_due_s from dramatiq.begin_wait(%s, %s::text[], %s::int[])"
RUNNABLE = "select is_ready, next_due_s from dramatiq.runnable(%s::text[], %s::int[])"
CHANNEL = "dramatiq.wake"
"""Notified by transactions that also stored messages; each process has one of its own below it."""

RENEW_S = 60.0
"""A note that somebody waits is written again after so long; `dramatiq.reap` removes those of ten minutes."""
LOOK_AGAIN_S = (0.003, 0.03, 0.15)
"""After the note was written: who was just storing messages may not have seen it. Longer than commits take."""
POLL_FROM_S = 0.02
POLL_TO_S = 0.5
"""Behind a transaction pooler: two looks a second when idle for long."""
POLL_GROWTH = 1.5


class Wakeup:
    """`Engine.wait` and `Engine.wake` of one process."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._worker_id = uuid.uuid4()
        self._queues: dict[str, int | None] | None = None
        self._changed = threading.Condition()
        self._changes = 0
        self._seen = threading.local()
        self._listening = False
        self._listener: Connection | None = None
        self._listened: frozenset[str] = frozenset()
        self._noted_until = 0.0
        self._looks: list[float] = []
        self._next_due = float("inf")
        self._pipe = os.pipe()

    def claiming(self, queues: Mapping[str, int | None]) -> uuid.UUID | None:
        """A claim begins: what happened before is covered by it. Returns who noted that it waits, if it did."""
        self._seen.changes = self._changes
        if self._queues != queues:
            self._queues = dict(queues)
            self._noted_until = 0.0
        return self._worker_id if self._noted_until else None

    def claimed(self) -> None:
        """A claim returned messages: the note is gone."""
        self._noted_until = 0.0

    def wait(self, timeout: timedelta) -> bool:
        """As `Engine.wait`. A change since this thread's last claim began counts as one now.

        Raises:
            TransientError: the database cannot be reached.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        seen = getattr(self._seen, "changes", self._changes)
        if self._changes == seen:
            if self._connections.transaction_pooling:
                self._poll(deadline, seen)
            else:
                self._listen(deadline, seen)
        woken = self._changes != seen
        self._seen.changes = self._changes
        return woken

    def wake(self) -> None:
        """As `Engine.wake`."""
        self._change()
        os.write(self._pipe[1], b"x")

    def close(self) -> None:
        """End all waits and close the listening connection."""
        self.wake()
        with self._changed:
            if self._listener is not None and not self._listening:
                self._listener.close()
                self._listener = None
            self._noted_until = 0.0

    def _change(self) -> None:
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def _poll(self, deadline: float, seen: int) -> None:
        interval = POLL_FROM_S
        while self._changes == seen:
            is_ready, _ = self._connections.run(lambda connection: self._look(connection, RUNNABLE, ()))
            left = deadline - time.monotonic()
            if is_ready:
                self._change()
            if is_ready or left <= 0:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._changes != seen, min(interval, left))
            interval = min(interval * POLL_GROWTH, POLL_TO_S)

    def _listen(self, deadline: float, seen: int) -> None:
        """One thread of the process listens, the others wait for what it hears."""
        while self._changes == seen and (left := deadline - time.monotonic()) > 0:
            with self._changed:
                if self._listening:
                    self._changed.wait_for(lambda: self._changes != seen or not self._listening, left)
                    continue
                self._listening = True
            try:
                self._listen_once(deadline)
            except psycopg.Error as error:
                self._forget_listener()
                raise TransientError(f"The connection that listens for messages was lost: {error}") from error
            finally:
                with self._changed:
                    self._listening = False
                    self._changed.notify_all()

    def _listen_once(self, deadline: float) -> None:
        connection = self._ready_listener()
        now = time.monotonic()
        if now > self._noted_until:
            self._looks = [now + after for after in LOOK_AGAIN_S]
            self._noted_until = now + RENEW_S
            if self._is_ready(connection, BEGIN_WAIT, (self._worker_id,)):
                return
        elif self._looks and now >= self._looks[0]:
            self._looks.pop(0)
            if self._is_ready(connection, RUNNABLE, ()):
                return
        until = min(deadline, self._next_due, *self._looks[:1])
        readable, _, _ = select.select([connection.fileno(), self._pipe[0]], [], [], max(0.0, until - time.monotonic()))
        if self._pipe[0] in readable:
            os.read(self._pipe[0], 4096)
        if connection.fileno() in readable:
            for _ in connection.notifies(timeout=0):
                self._noted_until = 0.0
            self._change()
        elif time.monotonic() >= self._next_due:
            self._noted_until = 0.0
            self._change()

    def _is_ready(self, connection: Connection, statement: str, first: tuple[object, ...]) -> bool:
        is_ready, due_s = self._look(connection, statement, first)
        self._next_due = float("inf") if due_s is None else time.monotonic() + due_s
        if is_ready:
            self._change()
        return is_ready

    def _look(self, connection: Connection, statement: str, first: tuple[object, ...]) -> tuple[bool, float | None]:
        queues = self._queues
        names = None if queues is None else list(queues)
        bounds = None if queues is None else plain_array("null" if b is None else b for b in queues.values())
        row = connection.execute(statement, (*first, names, bounds)).fetchone()
        return (row[0], row[1]) if row else (False, None)

    def _ready_listener(self) -> Connection:
        connection = self._listener
        if connection is None or connection.closed:
            self._noted_until = 0.0
            connection = self._listener = self._connections.open()
            self._listen_to(connection, [CHANNEL, f"{CHANNEL}.{self._worker_id}"])
            self._listened = frozenset()
        # What stock producers of dramatiq-pg notify.
        wanted = frozenset(
            f"dramatiq.{queue}{suffix}.enqueue" for queue in self._queues or () for suffix in ("", ".DQ")
        )
        self._listen_to(connection, sorted(wanted - self._listened))
        self._listened |= wanted
        return connection

    @staticmethod
    def _listen_to(connection: Connection, channels: Sequence[str]) -> None:
        for channel in channels:
            connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))

    def _forget_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None
        self._noted_until = 0.0
