"""An engine over two: the first carries all while it is there, the second what comes while it is away.

Leases of the second have tokens that begin with "s", so that whatever follows goes to the store it concerns. `circuit`
knows whether the first is there, `doubts` decides about sends that it did not confirm, `claiming` merges the
claims of both while both have messages, `groups` keeps the members of a group in one store, `pacing` keeps limits
across a change.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TypeVar

import orjson

from brokers.engine import (
    Capabilities,
    Claim,
    ClaimRequest,
    DeadLetter,
    DeadLetterGroup,
    Engine,
    Envelope,
    Finish,
    Heartbeat,
    Held,
    Limit,
    QueueDepth,
    Reservation,
)
from brokers.fallback import claiming, doubts, merge
from brokers.fallback.circuit import Circuit
from brokers.fallback.groups import Groups
from brokers.fallback.pacing import Pacing
from brokers.fallback.recent import Recent
from brokers.outbox import Outbox
from brokers.packed import pack_envelopes, pack_finishes
from brokers.postgres.store import NOTHING, Glance, PostgresStore
from brokers.stores import Store
from core.errors import TransientError
from core.logging import get_logger
from db import outbox

log = get_logger(__name__)

GLANCE_EVERY_S = 1.0
REAP_GRACE_S = 10.0
"""After its return the first store's leases are left alone: their workers renew or finish them first."""

T = TypeVar("T")


class _Process:
    """What one process knows."""

    def __init__(self, engine: "FallbackEngine") -> None:
        self.circuit = Circuit(engine.first.probe, engine.come_back)
        self.groups = Groups()
        self.recent = Recent()
        self.pacing = Pacing()
        self.glance = NOTHING
        self.glance_at = float("-inf")
        self.queues: dict[str, int | None] = {}
        self.stranded: ClaimRequest | None = None
        self.reserved_in_second: dict[tuple[str, ...], bool] = {}
        self.is_tended = False


class FallbackEngine(Engine):
    """The contract of `Engine` over two stores.

    Args:
        first: The chosen store.
        second: Makes the one that stands in; called when it is first needed.
    """

    def __init__(self, first: Store, second: Callable[[], PostgresStore]) -> None:
        self.first = first
        self._make_second = second
        self._second: PostgresStore | None = None
        self._making = threading.Lock()
        self._processes: dict[int, _Process] = {}
        self.outbox = Outbox(self, primary=first)
        self.capabilities: Capabilities = replace(first.capabilities, name=f"{first.capabilities.name}+fallback")

    @property
    def second(self) -> PostgresStore:
        """The store that stands in."""
        if self._second is None:
            with self._making:
                self._second = self._second or self._make_second()
        return self._second

    @property
    def stores(self) -> tuple[Store, Store]:
        """Both."""
        return self.first, self.second

    @property
    def is_away(self) -> bool:
        """Whether this process found the first store away."""
        return self._own.circuit.is_open

    @property
    def circuit(self) -> Circuit:
        """What this process knows of the first store."""
        return self._own.circuit

    @property
    def _own(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        return process if process is not None else self._processes.setdefault(pid, _Process(self))

    # Looking after both

    def tend(self) -> None:
        """Settle what is open between the stores; workers call it every second. Harmless at any moment.

        Raises:
            TransientError: one of them is away; what is open stays.
        """
        own = self._own
        own.is_tended = True
        self._look(own)
        if not own.glance.is_journal_open:
            return
        if own.circuit.is_open:
            doubts.confirm(own.recent.ids())
            doubts.give_to(self.second)
        else:
            doubts.repeat_at(self.first)
            doubts.void(self.first)

    def come_back(self) -> None:
        """The first store answers again: tell it what happened meanwhile, before anything is claimed from it."""
        doubts.void(self.first, again=True)
        doubts.repeat_at(self.first)
        self.outbox.tell_left(older_than=timedelta())

    def _look(self, own: _Process) -> Glance:
        own.glance_at = time.monotonic()
        own.glance = self.second.glance(own.queues)
        return own.glance

    def _glance(self, own: _Process) -> Glance:
        """What the second store holds, at most about a second old."""
        age_s = time.monotonic() - own.glance_at
        if age_s == float("inf") or (age_s >= GLANCE_EVERY_S and not own.is_tended):
            try:
                return self._look(own)
            except TransientError as error:
                log.warning("fallback.second_away", error=str(error))
        return own.glance

    def _trip(self, error: TransientError) -> None:
        self._own.circuit.trip(error)
        self.first.wake()

    def _try_first(self, call: Callable[[], T]) -> tuple[bool, T | None]:
        """(True, result) of a call to the first store, (False, None) when it is away."""
        if self._own.circuit.is_open:
            return False, None
        try:
            return True, call()
        except TransientError as error:
            self._trip(error)
            return False, None

    # Messages in

    def enqueue_many(self, envelopes: Sequence[Envelope]) -> int:
        """As in `Engine`. While the first store is away, the second takes them."""
        if not envelopes:
            return 0
        own = self._own
        if own.groups.any_in_second and (moved := own.groups.in_second(envelopes)):
            stored = self.second.enqueue_many(moved)
            return stored + self.enqueue_many([e for e in envelopes if e not in moved])
        if not own.circuit.is_open:
            try:
                return self.first.enqueue_many(envelopes)
            except TransientError as error:
                self._trip(error)
                return self._divert(envelopes, is_doubtful=True)
        return self._divert(envelopes, is_doubtful=False)

    def _divert(self, envelopes: Sequence[Envelope], *, is_doubtful: bool) -> int:
        groups = self._own.groups
        sizes = groups.sizes(envelopes)
        free = [e for e in envelopes if not e.group_id or e.group_id in sizes]
        bound = [e for e in envelopes if e.group_id and e.group_id not in sizes]
        if bound:  # counted in the first store, with members there: they wait for it
            outbox.add("enqueue", pack_envelopes(bound), len(bound))
        if is_doubtful and free:
            doubts.write_down(free, sizes)
        elif free:
            for group_id, size in sizes.items():
                self.second.create_group(group_id, size)
                groups.announced(group_id, size, in_second=True)
            self.second.enqueue_many(free)
        return len(envelopes)

    def create_group(self, group_id: str, size: int) -> None:
        """As in `Engine`."""
        done, _ = self._try_first(lambda: self.first.create_group(group_id, size))
        if not done:
            self.second.create_group(group_id, size)
        self._own.groups.announced(group_id, size, in_second=not done)

    # Messages out

    def claim(self, request: ClaimRequest) -> list[Claim]:
        """As in `Engine`, over both stores while both have messages; so do bounds, but for the change itself."""
        own = self._own
        if own.queues != request.queues:
            own.queues = dict(request.queues)
            own.glance_at = float("-inf")
        if own.circuit.is_open:
            return claiming.marked(self.second.claim(request))
        glance = self._glance(own)
        if not glance.is_ready:
            return self._claim_first(claiming.left(request, self.second) if glance.is_leased else request)
        claims = claiming.both(self._claim_first, self.first, self.second, request)
        own.glance = replace(own.glance, is_ready=any(map(claiming.is_second, claims)), is_leased=True)
        return claims

    def _claim_first(self, request: ClaimRequest) -> list[Claim]:
        own = self._own
        # What a lost reply leased to us is asked for again when the store is back.
        stranded, own.stranded = own.stranded, None
        asked = stranded or request
        try:
            claims = self.first.claim(asked)
        except TransientError as error:
            own.stranded = asked
            self._trip(error)
            return []
        if claims:
            own.recent.add(claims)
            if own.glance.is_journal_open:
                claims = doubts.drop_void(self.first, claims)
        return claims

    def finish_many(self, finishes: Sequence[Finish]) -> list[bool]:
        """As in `Engine`. While the first store is away, ends of its messages are kept until it is back.

        They are answered with True; the store decides when it is told.
        """
        if not any(claiming.is_second(f) for f in finishes):
            return self._finish_first(finishes)
        answers = iter(self._finish_first([f for f in finishes if not claiming.is_second(f)]))
        seconds = iter(self.second.finish_many([claiming.unmarked(f) for f in finishes if claiming.is_second(f)]))
        return [next(seconds if claiming.is_second(f) else answers) for f in finishes]

    def _finish_first(self, finishes: Sequence[Finish]) -> list[bool]:
        if not finishes:
            return []
        _, answers = self._try_first(lambda: self.first.finish_many(finishes))
        if answers is not None:
            return answers
        outbox.add("finish", pack_finishes(finishes), len(finishes))
        return [True] * len(finishes)

    def release_many(self, held: Sequence[Held]) -> None:
        """As in `Engine`. Leases of a store that is away run out."""
        first, second = claiming.split(held)
        if second:
            self.second.release_many(second)
        if first and not self._try_first(lambda: self.first.release_many(first))[0]:
            log.warning("fallback.not_released", messages=len(first))

    def heartbeat(self, held: Sequence[Held], lease: timedelta) -> Heartbeat:
        """As in `Engine`. Leases of a store that is away count as kept: nobody else can be given them meanwhile."""
        first, second = claiming.split(held)
        answers = [self.second.heartbeat(second, lease)] if second else []
        if first:
            _, answer = self._try_first(lambda: self.first.heartbeat(first, lease))
            answers += [answer] if answer else []
        lost = frozenset(message_id for answer in answers for message_id in answer.lost)
        return Heartbeat(lost, frozenset(message_id for answer in answers for message_id in answer.cancelled))

    def reap(self, *, max_lost: int) -> int:
        """As in `Engine`. The first store's leases are left alone for a while after its return."""
        own = self._own
        expired = 0
        if self._glance(own).is_used or own.circuit.is_open:
            expired = self.second.reap(max_lost=max_lost)
        if own.circuit.changed_s_ago > REAP_GRACE_S:
            expired += self._try_first(lambda: self.first.reap(max_lost=max_lost))[1] or 0
        return expired

    def wait(self, timeout: timedelta) -> bool:
        """As in `Engine`; looks at the second store every second."""
        own = self._own
        deadline = time.monotonic() + timeout.total_seconds()
        while (left_s := deadline - time.monotonic()) > 0:
            part = timedelta(seconds=min(left_s, GLANCE_EVERY_S))
            if own.circuit.is_open:
                woken = self.second.wait(part)
            else:
                _, answer = self._try_first(lambda part=part: self.first.wait(part))  # type: ignore[misc] # mypy infers no lambda with a default
                woken = answer is not False
            if woken or self._glance(own).is_ready:
                return True
        return False

    def wake(self) -> None:
        """As in `Engine`."""
        self.first.wake()
        if self._second is not None:
            self._second.wake()

    # Steering

    def depths(self, queues: Sequence[str] = ()) -> list[QueueDepth]:
        """As in `Engine`, both stores together; while the first is away, what the second knows."""
        return merge.depths([store.depths(queues) for store in self._to_read()])

    def pause(self, queue: str) -> None:
        """As in `Engine`."""
        self.second.pause(queue)
        self._steer_first("pause", queue)

    def resume(self, queue: str) -> None:
        """As in `Engine`."""
        self.second.resume(queue)
        self._steer_first("resume", queue)

    def cancel(self, message_ids: Sequence[str]) -> int:
        """As in `Engine`. Like all that follow: a store that is away is told when it is back, and not counted."""
        return self._steer_both("cancel", list(message_ids))

    def purge(self, queue: str) -> int:
        """As in `Engine`."""
        return self._steer_both("purge", queue)

    def requeue(self, message_ids: Sequence[str]) -> int:
        """As in `Engine`."""
        return self._steer_both("requeue", list(message_ids))

    def discard(self, message_ids: Sequence[str]) -> int:
        """As in `Engine`."""
        return self._steer_both("discard", list(message_ids))

    def _steer_both(self, name: str, argument: object) -> int:
        found = int(getattr(self.second, name)(argument)) if self._second_is_used() else 0
        return found + (self._steer_first(name, argument) or 0)

    def _steer_first(self, name: str, argument: object) -> int | None:
        done, found = self._try_first(lambda: getattr(self.first, name)(argument))
        if not done:
            outbox.add("call", orjson.dumps([name, argument]), 0)
        return found

    # Dead letters, results

    def dead_letters(self, queue: str, *, limit: int = 100, before: datetime | None = None) -> list[DeadLetter]:
        """As in `Engine`."""
        letters = [x for store in self._to_read() for x in store.dead_letters(queue, limit=limit, before=before)]
        return sorted(letters, key=lambda letter: letter.died_at, reverse=True)[:limit]

    def dead_letter_groups(self, queue: str | None = None) -> list[DeadLetterGroup]:
        """As in `Engine`."""
        return merge.dead_letter_groups([store.dead_letter_groups(queue) for store in self._to_read()])

    def result(self, message_id: str) -> bytes | None:
        """As in `Engine`."""
        _, found = self._try_first(lambda: self.first.result(message_id))
        if found is None and self._second_is_used():
            found = self.second.result(message_id)
        return found

    def holds(self, message_ids: Sequence[str]) -> set[str]:
        """As in `Engine`, in either of them.

        Raises:
            TransientError: the first is away: what it holds is not known.
        """
        return self.first.holds(message_ids) | self.second.holds(message_ids)

    def _second_is_used(self) -> bool:
        own = self._own
        return own.circuit.is_open or self._glance(own).is_used

    def _to_read(self) -> list[Store]:
        """The stores that are there and may hold something."""
        there, _ = self._try_first(self.first.ping)
        stores: list[Store] = [self.first] if there else []
        return [*stores, self.second] if self._second_is_used() else stores

    # Limits, health

    def reserve(self, limits: Sequence[Limit], count: int, *, lead: timedelta = timedelta()) -> Reservation:
        """As in `Engine`. When the store changes, the first slots wait until those of the other one have passed."""
        own = self._own

        def ask(store: Engine, *, in_second: bool) -> Reservation:
            ahead = own.pacing.lead(limits, lead, own.circuit.changed_s_ago, in_second=in_second)
            reservation = store.reserve(limits, count, lead=ahead)
            own.pacing.gave(limits, reservation, in_second=in_second)
            return reservation

        _, reservation = self._try_first(lambda: ask(self.first, in_second=False))
        own.reserved_in_second[_names(limits)] = reservation is None
        return reservation or ask(self.second, in_second=True)

    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        """As in `Engine`."""
        if self._own.reserved_in_second.get(_names(limits)):
            self.second.give_back(limits, count)
        else:
            self._try_first(lambda: self.first.give_back(limits, count))

    def clock(self) -> datetime:
        """As in `Engine`: of the store that takes messages now."""
        _, moment = self._try_first(self.first.clock)
        return moment if moment is not None else self.second.clock()

    def ping(self) -> timedelta:
        """As in `Engine`: of the store that takes messages now."""
        _, took = self._try_first(self.first.ping)
        return took if took is not None else self.second.ping()

    def close(self) -> None:
        """As in `Engine`."""
        self.first.close()
        if self._second is not None:
            self._second.close()


def _names(limits: Sequence[Limit]) -> tuple[str, ...]:
    return tuple(limit.key for limit in limits)
