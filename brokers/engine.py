"""The contract of an engine: what a message store must do, whole and at once, for Fanfare to keep its promises.

An engine moves messages between states; it knows nothing of actors. Every call is one atomic step in the store and can
be repeated without effect when its reply was lost. All times are the store's. `docs/broker-contract.md` lists the
clauses, `tests/conformance/` runs each of them on every engine.

    waiting -> leased -> done
       ^         |----> waiting (retry, reschedule, released, lease expired)
       |         `----> dead --requeue--> waiting
       `- delayed until its time
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

# Envelope, Claim and Finish are values, never changed: not declared frozen, because that doubles the cost of making one
# and each message takes all three.


@dataclass(slots=True)
class Envelope:
    """A message on its way into the store.

    Attributes:
        message_id: Its UUID as text; a message that the store already holds is not stored again.
        queue: Name of the queue.
        priority: Lower runs first: 1 critical, 2 high, 3 normal, 4 low.
        body: The message as encoded by dramatiq, JSON.
        delay: Runs this long after it reached the store.
        run_at: Runs at this moment; takes precedence over `delay`.
        group_id: The group that it belongs to, see `Engine.create_group`.
    """

    message_id: str
    queue: str
    priority: int
    body: bytes
    delay: timedelta = timedelta()
    run_at: datetime | None = None
    group_id: str | None = None


@dataclass(slots=True)
class Claim:
    """A message leased to this worker.

    Attributes:
        token: Fences the attempt: whoever holds an older one can no longer change the message.
        attempt: Number of this attempt, 1 is the first. Released and rescheduled attempts were not counted.
        lost: How many leases of this message expired before.
        order: Position among messages of equal priority; lower came first.
    """

    message_id: str
    queue: str
    priority: int
    body: bytes
    token: str
    attempt: int
    lost: int
    order: float


class Disposition(StrEnum):
    """What becomes of a leased message."""

    DONE = "done"
    RETRY = "retry"
    RESCHEDULE = "reschedule"
    DEAD = "dead"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Finish:
    """All that follows one attempt, applied in one step or not at all.

    Attributes:
        disposition: RETRY and RESCHEDULE make the message wait again; the others end it. RESCHEDULE gives the attempt
            back.
        delay: With RETRY and RESCHEDULE: waits so long.
        run_at: With RESCHEDULE: waits until then; takes precedence over `delay`.
        code: Why the attempt failed, for grouping; empty with DONE.
        error: The same for people.
        result: Encoded result to keep for `result_ttl`; None keeps nothing.
        follow_ups: Messages that enter the store in this step: pipeline steps and callbacks.
        group_id: The group that this message leaves when it ends.
        group_callbacks: Enter the store when it was the group's last one.
    """

    message_id: str
    queue: str
    token: str
    disposition: Disposition
    delay: timedelta = timedelta()
    run_at: datetime | None = None
    code: str = ""
    error: str = ""
    result: bytes | None = None
    result_ttl: timedelta = timedelta(minutes=10)
    follow_ups: tuple[Envelope, ...] = ()
    group_id: str | None = None
    group_callbacks: tuple[Envelope, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Asks for messages.

    Attributes:
        request_id: Repeating the request with the same id returns the same messages.
        queues: Queue name to its concurrency (most leases in the whole system at once), None for no bound.
        room: Most messages to return over all queues.
        lease: How long they stay ours without a heartbeat.
    """

    request_id: str
    queues: Mapping[str, int | None]
    room: int
    lease: timedelta


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that its worker wants to keep."""

    message_id: str
    queue: str
    token: str


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Answer to a heartbeat: ids of messages whose lease is no longer ours, and of those asked to stop."""

    lost: frozenset[str] = frozenset()
    cancelled: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """One queue at one moment; `oldest` is how long its oldest runnable message has waited, None if there is none."""

    queue: str
    waiting: int = 0
    delayed: int = 0
    leased: int = 0
    dead: int = 0
    paused: bool = False
    oldest: timedelta | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that will not run again by itself."""

    message_id: str
    queue: str
    actor: str
    body: bytes
    code: str
    error: str
    attempts: int
    died_at: datetime


@dataclass(frozen=True, slots=True)
class DeadLetterGroup:
    """Dead letters of one queue with one actor and one cause."""

    queue: str
    actor: str
    code: str
    count: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `rate` a second, evenly spaced, after at most `burst` at once; shared by everyone who uses `key`."""

    key: str
    rate: float
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Reservation:
    """Slots that a limiter gave: seconds from the moment of the store's clock `at`, ascending, one for each asked."""

    at: datetime
    offsets: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do beyond the contract.

    Attributes:
        transactional_enqueue: A message enqueued inside `db.pool.transaction()` is part of that transaction.
        max_body_bytes: Longest message body.
    """

    name: str
    transactional_enqueue: bool
    max_body_bytes: int = field(default=1_000_000)


class Engine(ABC):
    """One message store. Safe to use from many threads and after a fork.

    Every method raises `core.errors.TransientError` when the store cannot be reached or refuses for now.
    """

    capabilities: Capabilities

    # Messages in

    @abstractmethod
    def enqueue_many(self, envelopes: Sequence[Envelope]) -> int:
        """Store all of `envelopes` or none. Returns how many were new."""

    @abstractmethod
    def create_group(self, group_id: str, size: int) -> None:
        """Announce a group of `size` messages, before they are enqueued. A group lives until its last message ended."""

    # Messages out

    @abstractmethod
    def claim(self, request: ClaimRequest) -> list[Claim]:
        """Lease runnable messages of the queues that are not paused, by priority, then by time of arrival."""

    @abstractmethod
    def finish_many(self, finishes: Sequence[Finish]) -> list[bool]:
        """Apply each finish whose token is still valid. Returns, in order, whether it was applied (now or before)."""

    @abstractmethod
    def release_many(self, held: Sequence[Held]) -> None:
        """Hand leased messages back to the head of their queues; the attempts are not counted."""

    @abstractmethod
    def heartbeat(self, held: Sequence[Held], lease: timedelta) -> Heartbeat:
        """Renew leases and learn which were lost and which messages are asked to stop."""

    @abstractmethod
    def reap(self, *, max_lost: int) -> int:
        """Return messages whose lease expired to their queues; after `max_lost` such losses, to the dead letters.

        The code of the latter is `crashed`. Returns how many leases had expired. Also removes expired results.
        """

    @abstractmethod
    def wait(self, timeout: timedelta) -> bool:
        """Block until messages may have arrived or become due, or `timeout` has passed. True when woken early."""

    @abstractmethod
    def wake(self) -> None:
        """End this process's `wait`."""

    # Steering

    @abstractmethod
    def depths(self, queues: Sequence[str] = ()) -> list[QueueDepth]:
        """State of the named queues, or of all that hold anything, sorted by name."""

    @abstractmethod
    def holds(self, message_ids: Sequence[str]) -> set[str]:
        """Those of `message_ids` that have not ended: they wait, run, are dead letters or on the move."""

    @abstractmethod
    def pause(self, queue: str) -> None:
        """Let no message of `queue` be claimed until `resume`."""

    @abstractmethod
    def resume(self, queue: str) -> None:
        """Undo `pause`."""

    @abstractmethod
    def cancel(self, message_ids: Sequence[str]) -> int:
        """Remove those that wait (their groups count them); ask those that run to stop. Returns how many were found."""

    @abstractmethod
    def purge(self, queue: str) -> int:
        """Remove the waiting, delayed and dead messages of `queue`. Returns how many."""

    # Dead letters

    @abstractmethod
    def dead_letters(self, queue: str, *, limit: int = 100, before: datetime | None = None) -> list[DeadLetter]:
        """The newest dead letters of `queue`, newest first, older than `before`."""

    @abstractmethod
    def dead_letter_groups(self, queue: str | None = None) -> list[DeadLetterGroup]:
        """Dead letters counted by queue, actor and cause, largest first."""

    @abstractmethod
    def requeue(self, message_ids: Sequence[str]) -> int:
        """Make dead letters wait again with their attempts at zero. Returns how many were dead; idempotent."""

    @abstractmethod
    def discard(self, message_ids: Sequence[str]) -> int:
        """Remove dead letters for good. Returns how many there were."""

    # Results, limits, health

    @abstractmethod
    def result(self, message_id: str) -> bytes | None:
        """The encoded result kept for a message, None while there is none."""

    def results(self, message_ids: Sequence[str]) -> dict[str, bytes]:
        """The encoded results kept for some messages, by id; without those that have none."""
        found = ((message_id, self.result(message_id)) for message_id in message_ids)
        return {message_id: data for message_id, data in found if data is not None}

    @abstractmethod
    def reserve(self, limits: Sequence[Limit], count: int, *, lead: timedelta = timedelta()) -> Reservation:
        """Reserve `count` slots that all of `limits` allow, none before `lead` from now.

        Never refuses: later callers get later slots.
        """

    @abstractmethod
    def give_back(self, limits: Sequence[Limit], count: int) -> None:
        """Return the last `count` unused slots of a reservation, if no one has reserved after it."""

    @abstractmethod
    def clock(self) -> datetime:
        """The store's time, by which it counts leases, delays and slots."""

    @abstractmethod
    def ping(self) -> timedelta:
        """Round-trip time to the store."""

    @abstractmethod
    def close(self) -> None:
        """Close this process's connections; the engine opens new ones when it is used again."""
