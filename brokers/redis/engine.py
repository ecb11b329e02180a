"""The engine that keeps messages in Redis or Valkey. Every step is one Lua script, see base.lua for the keys."""

import itertools
import os
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

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
from brokers.redis import wire
from brokers.redis.address import ANSWER_TIMEOUT_S
from brokers.redis.link import Link
from brokers.redis.store import RedisStore
from brokers.redis.waiter import Waiters

MAX_BATCH = 1000
"""Most messages that one script handles at a time where the contract does not ask for all at once."""
MAX_CLAIM_BYTES = 8_000_000
RESERVATION_KEPT = timedelta(minutes=10)
T = TypeVar("T")


class RedisEngine(RedisStore):
    """Messages in Redis 7 or later, or Valkey.

    Args:
        url: As `address.connection_pool` reads it; a node of a cluster leads to the right one.
        namespace: All keys begin with it; systems with different ones share a server without meeting.
        answer_timeout_s: Longest wait for a reply.

    Raises:
        SettingsError: from the first call: the server is too old, evicts messages, or refuses the password.
    """

    def __init__(self, url: str, *, namespace: str = "fanfare", answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self.capabilities = Capabilities(name="redis", transactional_enqueue=False)
        self._link = Link(url, namespace, answer_timeout_s)
        self._tag = self._link.tag
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._waiters = Waiters(self._link)
        self._served: dict[str, None] = {}
        self._next_due = float("inf")
        self._reservations: dict[tuple[str, ...], str] = {}

    def _own(self) -> None:
        """After a fork, what was the parent's is left alone; redis-py's pool does the same."""
        if os.getpid() != self._pid:
            self._reset()

    # Messages in

    def enqueue_many(self, envelopes: Sequence[Envelope]) -> int:
        """As the contract says; one script, so a thousand at a time keep others from waiting."""
        if not envelopes:
            return 0
        limit = self.capabilities.max_body_bytes
        callbacks = wire.pack_callbacks(envelopes, limit)
        return int(self._link.script("enqueue", *wire.pack_envelopes(envelopes, limit), *callbacks))

    def create_group(self, group_id: str, size: int) -> None:
        """As the contract says; announced again, it changes nothing."""
        self._link.command("HSETNX", f"{self._tag}:groups", group_id, size)

    # Messages out

    def claim(self, request: ClaimRequest) -> list[Claim]:
        """As the contract says; returns at most about 8 MB of bodies at once."""
        self._own()
        if request.room < 1 or not request.queues:
            return []
        self._served = dict.fromkeys(request.queues)
        bounds = [("-" if bound is None else bound) for bound in request.queues.values()]
        pairs = itertools.chain.from_iterable(zip(request.queues, bounds, strict=True))
        lease = wire.ticks(request.lease)
        reply = self._link.script("claim", request.request_id, request.room, lease, MAX_CLAIM_BYTES, *pairs)
        header, bodies, next_due = reply
        due_in = next_due * wire.TICK.total_seconds() if next_due >= 0 else float("inf")
        self._next_due = time.monotonic() + due_in
        return wire.unpack_claims(header, bodies)

    def finish_many(self, finishes: Sequence[Finish]) -> list[bool]:
        """As the contract says; more than a thousand in several steps, each whole."""
        applied: list[bool] = []
        for batch in _batches(finishes):
            header, blob = wire.pack_finishes(batch, self.capabilities.max_body_bytes)
            applied += [answer == ord("1") for answer in self._link.script("finish", header, blob)]
        return applied

    def release_many(self, held: Sequence[Held]) -> None:
        """As the contract says."""
        for batch in _batches(held):
            self._link.script("release", *_fences(batch))

    def heartbeat(self, held: Sequence[Held], lease: timedelta) -> Heartbeat:
        """As the contract says."""
        lost: set[str] = set()
        cancelled: set[str] = set()
        for batch in _batches(held):
            gone, asked = self._link.script("heartbeat", wire.ticks(lease), *_fences(batch))
            lost.update(message_id.decode() for message_id in gone)
            cancelled.update(message_id.decode() for message_id in asked)
        return Heartbeat(frozenset(lost), frozenset(cancelled))

    def reap(self, *, max_lost: int) -> int:
        """As the contract says; results expire by themselves."""
        self._put_back()
        expired = 0
        more = 1
        while more:
            count, more = self._link.script("reap", max_lost, MAX_BATCH)
            expired += count
        return expired

    def wait(self, timeout: timedelta) -> bool:
        """As the contract says, for the queues of the last claim."""
        self._own()
        due_in = max(0.0, self._next_due - time.monotonic())
        due_first = due_in < timeout.total_seconds()
        keys = [f"{self._tag}:wake:{queue}" for queue in self._served or {"default": None}]
        woken = self._waiters.wait(keys, timedelta(seconds=due_in) if due_first else timeout)
        return woken or due_first

    def wake(self) -> None:
        """As the contract says; returns at once, also when the server is away."""
        self._own()
        self._waiters.wake()

    # Steering

    def depths(self, queues: Sequence[str] = ()) -> list[QueueDepth]:
        """As the contract says."""
        depths = [
            QueueDepth(
                queue=queue.decode(),
                waiting=waiting,
                delayed=delayed,
                leased=leased,
                dead=dead,
                paused=bool(paused),
                oldest=oldest * wire.TICK if oldest >= 0 else None,
            )
            for queue, waiting, delayed, leased, dead, paused, oldest in self._link.script("depths", *queues)
        ]
        holding = [d for d in depths if queues or d.waiting or d.delayed or d.leased or d.dead or d.paused]
        return sorted(holding, key=lambda depth: depth.queue)

    def pause(self, queue: str) -> None:
        """As the contract says."""
        self._link.script("steer", "pause", queue)

    def resume(self, queue: str) -> None:
        """As the contract says."""
        self._link.script("steer", "resume", queue)

    def cancel(self, message_ids: Sequence[str]) -> int:
        """As the contract says. One that was asked to stop does not wait again, however its attempt ends."""
        return sum(self._link.script("cancel", *batch) for batch in _batches(message_ids))

    def purge(self, queue: str) -> int:
        """As the contract says; many messages in several steps."""
        purged = 0
        while removed := int(self._link.script("purge", queue, MAX_BATCH)):
            purged += removed
        return purged

    # Dead letters

    def dead_letters(self, queue: str, *, limit: int = 100, before: datetime | None = None) -> list[DeadLetter]:
        """As the contract says."""
        oldest = "+inf" if before is None else wire.ticks(before - wire.EPOCH)
        return [wire.unpack_dead_letter(queue, row) for row in self._link.script("dead", queue, limit, oldest)]

    def dead_letter_groups(self, queue: str | None = None) -> list[DeadLetterGroup]:
        """As the contract says; many dead letters are counted in several steps."""
        queues = [queue] if queue is not None else [depth.queue for depth in self.depths() if depth.dead]
        groups: dict[tuple[str, str, str], DeadLetterGroup] = {}
        for name in queues:
            rank, seen = 0, MAX_BATCH
            while seen == MAX_BATCH:
                seen, causes = self._link.script("causes", name, rank, MAX_BATCH)
                rank += seen
                for cause in causes:
                    group = _cause(name, cause)
                    key = (group.queue, group.actor, group.code)
                    groups[key] = _sum(groups.get(key, group), group) if key in groups else group
        return sorted(groups.values(), key=lambda group: -group.count)

    def requeue(self, message_ids: Sequence[str]) -> int:
        """As the contract says."""
        return sum(self._link.script("revive", "requeue", *batch) for batch in _batches(message_ids))

    def discard(self, message_ids: Sequence[str]) -> int:
        """As the contract says."""
        return sum(self._link.script("revive", "discard", *batch) for batch in _batches(message_ids))

    # Results, limits, health

    def result(self, message_id: str) -> bytes | None:
        """As the contract says."""
        kept: bytes | None = self._link.command("GET", f"{self._tag}:result:{message_id}")
        return kept

    def results(self, message_ids: Sequence[str]) -> dict[str, bytes]:
        """As the contract says."""
        kept: dict[str, bytes] = {}
        for batch in _batches(message_ids):
            found = self._link.command("MGET", *[f"{self._tag}:result:{message_id}" for message_id in batch])
            kept.update({message_id: data for message_id, data in zip(batch, found, strict=True) if data is not None})
        return kept

    def reserve(self, limits: Sequence[Limit], count: int, *, lead: timedelta = timedelta()) -> Reservation:
        """As the contract says."""
        self._own()
        call = uuid.uuid4().hex
        start, offsets = self._link.script("slots", *_limit_words("reserve", call, limits, count, lead))
        self._reservations[_names(limits)] = call
        at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(start)) - lead
        return Reservation(at, tuple(lead.total_seconds() + float(offset) / 1e6 for offset in offsets.split()))

    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        """As the contract says, for the last reservation that this process made of these limits."""
        self._own()
        call = self._reservations.get(_names(limits))
        if call is not None and count > 0:
            self._link.script("slots", *_limit_words("give_back", call, limits, count))

    def clock(self) -> datetime:
        """As the contract says."""
        seconds, microseconds = self._link.command("TIME")
        return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(microseconds))

    def ping(self) -> timedelta:
        """As the contract says."""
        begun = time.perf_counter()
        self._link.command("PING")
        return timedelta(seconds=time.perf_counter() - begun)

    def close(self) -> None:
        """As the contract says."""
        self._waiters.close()
        self._link.close()


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[i : i + MAX_BATCH] for i in range(0, len(items), MAX_BATCH)]


def _fences(held: Sequence[Held]) -> list[str]:
    return [word for h in held for word in (h.message_id, h.token)]


def _names(limits: Sequence[Limit]) -> tuple[str, ...]:
    return tuple(limit.key for limit in limits)


def _limit_words(
    what: str, call: str, limits: Sequence[Limit], count: int, lead: timedelta = timedelta()
) -> list[str | float]:
    us = timedelta(microseconds=1)
    words: list[str | float] = [what, call, count, RESERVATION_KEPT // us, lead // us]
    for limit in limits:
        words += [limit.key, repr(float(limit.rate)), limit.burst]
    return words


def _cause(queue: str, row: Sequence[bytes]) -> DeadLetterGroup:
    actor, code, count, first, last = row
    times = wire.moment(float(first)), wire.moment(float(last))
    return DeadLetterGroup(queue, actor.decode(), code.decode(), int(count), *times)


def _sum(one: DeadLetterGroup, other: DeadLetterGroup) -> DeadLetterGroup:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return DeadLetterGroup(one.queue, one.actor, one.code, one.count + other.count, first, last)
