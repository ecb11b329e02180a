"""Moves messages from one store to another while workers run on both.

A batch goes in five steps: set aside in the source, written down in the database, forgotten by the source (from here on
it belongs to the target), stored in the target, struck off. Each step can be repeated without effect, and
whoever died between two of them leaves either nothing to do or a row by which others go on: the mover when it is run
again, or the workers of either store, every second. A batch whose mover died before the third step comes back in the
source by itself.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from brokers.packed import pack_stored, unpack_stored
from brokers.stores import Store
from core.errors import PermanentError
from core.logging import get_logger
from db import broker_moves

log = get_logger(__name__)

BATCH = 500
"""Messages moved in one go, but that a larger group is not divided."""
LEASE = timedelta(seconds=60)
"""After so long what a dead mover had set aside comes back."""
SETTLE_AFTER = LEASE + timedelta(seconds=15)
"""A batch so old has lost its mover."""


@dataclass(slots=True)
class Moved:
    """How far a move is: messages moved so far by queue, and those that it had to leave in the last pass."""

    queues: Counter[str] = field(default_factory=Counter)
    dead: int = 0
    left: int = 0

    @property
    def total(self) -> int:
        """Messages moved so far."""
        return self.queues.total()


def move(source: Store, target: Store, moved: Moved, progress: Callable[[], None] = lambda: None) -> None:
    """Move all that no worker holds, in passes, until one finds nothing; adds to `moved`, calls `progress` on the way.

    Left are members of groups of which a worker holds one. Queues paused in the source are paused in the target, too.
    Running it again goes on; results, and what limiters know, are not moved.

    Raises:
        TransientError: a store or the database is away; run it again.
        PermanentError: both are the same store, or the target cannot take a message.
    """
    names = source.identity(), target.identity()
    if names[0] == names[1]:
        raise PermanentError("Source and target are the same store.", code="same_store")
    for store in (source, target, source, target):  # both may have been source and target before
        settle(store, older_than=timedelta())
    for depth in source.depths():
        if depth.paused:
            target.pause(depth.queue)
    source.reap(max_lost=3)
    while _pass(source, target, moved, progress):
        pass


def settle(store: Store, *, older_than: timedelta = SETTLE_AFTER) -> None:
    """End what dead movers left behind and `store` can decide; workers call it again and again."""
    if not broker_moves.any_open():
        return
    name = store.identity()
    for batch in broker_moves.of_source(name, older_than):
        if store.forget(str(batch.batch_id)):
            broker_moves.taken(str(batch.batch_id))
        else:
            broker_moves.remove(str(batch.batch_id))
    for batch in broker_moves.for_target(name, older_than):
        store.put_in(str(batch.batch_id), unpack_stored(batch.payload))
        broker_moves.remove(str(batch.batch_id))
        log.info("move.settled", batch_id=str(batch.batch_id))


def _pass(source: Store, target: Store, moved: Moved, progress: Callable[[], None]) -> int:
    """Move what can be moved now; returns how many messages."""
    before, moved.left = moved.total, 0
    for ids in _batches(source):
        count = _move_batch(source, target, ids, moved)
        moved.left += len(ids) - count
        progress()
    return moved.total - before


def _batches(source: Store) -> Iterator[list[str]]:
    """Ids of all idle messages: those without a group in batches, each group whole."""
    groups: dict[str, list[str]] = defaultdict(list)
    single: list[str] = []
    cursor = ""
    while True:
        page, cursor = source.list_idle(cursor, BATCH)
        for message_id, group in page:
            (single if group is None else groups[group]).append(message_id)
        while len(single) >= BATCH or (single and not cursor):
            yield single[:BATCH]
            del single[:BATCH]
        if not cursor:
            break
    yield from (list(dict.fromkeys(members)) for members in groups.values())


def _move_batch(source: Store, target: Store, ids: Sequence[str], moved: Moved) -> int:
    batch_id = str(uuid4())
    stored = source.take_out(batch_id, ids, LEASE)
    if not stored:
        return 0
    broker_moves.add(batch_id, source.identity(), target.identity(), pack_stored(stored), len(stored))
    if not source.forget(batch_id):  # it took longer than the lease
        broker_moves.remove(batch_id)
        return 0
    broker_moves.taken(batch_id)
    target.put_in(batch_id, stored)
    broker_moves.remove(batch_id)
    moved.queues.update(message.queue for message in stored)
    moved.dead += sum(message.died_at is not None for message in stored)
    return len(stored)
