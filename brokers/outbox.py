"""Makes messages part of a transaction where the store is not: written with it, told to the store right after.

A process tells what it wrote as soon as it has committed; what a crash or an outage left behind is told by any worker,
see `brokers.middleware.keeper`. Telling twice changes nothing: the store knows a message by its id, also when it ended
some minutes ago.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import orjson

from brokers.engine import Envelope
from brokers.packed import pack_envelopes, unpack_envelopes, unpack_finishes
from core.errors import FanfareError, PermanentError
from core.logging import get_logger
from db import outbox, pool

if TYPE_CHECKING:
    from brokers.engine import Engine

log = get_logger(__name__)

CHUNK = 500
"""Most messages of one entry."""
LEFT_AFTER = timedelta(seconds=1)
"""An entry so old was left behind: its process would have told it long ago."""
MAX_ENTRIES = 20
"""Entries told in one transaction."""


class Outbox:
    """The outbox of one engine.

    Args:
        engine: Whom new messages are told.
        primary: Whom entries that were left behind are told: the store itself, without a substitute for it. Whether an
            entry was told before is not known, so no other store may take it.
    """

    def __init__(self, engine: "Engine", primary: "Engine | None" = None) -> None:
        self._engine = engine
        self._primary = primary or engine
        self._behind = False

    def enqueue_many(self, envelopes: Sequence[Envelope]) -> None:
        """Store messages if and only if the surrounding transaction commits; outside one, now.

        Raises:
            TransientError: outside a transaction, as the engine. Inside one, only as the database: while the store is
                down, messages wait in the outbox.
            PermanentError: a message is one that no store takes.
        """
        if pool.current() is None:
            self._engine.enqueue_many(envelopes)
            return
        for envelope in envelopes:
            _check(envelope, self._engine.capabilities.max_body_bytes)
        for chunk in _chunks(envelopes):
            entry = outbox.add("enqueue", pack_envelopes(chunk), len(chunk))
            pool.after_commit(partial(self._tell, entry, partial(self._engine.enqueue_many, chunk)))

    def create_group(self, group_id: str, size: int) -> None:
        """Announce a group, as `enqueue_many` stores messages."""
        if pool.current() is None:
            self._engine.create_group(group_id, size)
            return
        entry = outbox.add("enqueue", pack_envelopes((), {group_id: size}), 0)
        pool.after_commit(partial(self._tell, entry, partial(self._engine.create_group, group_id, size)))

    def _tell(self, entry: int, store: Callable[[], object]) -> None:
        """Tell an entry of ours, unless older ones of this process still wait: nothing overtakes them."""
        try:
            if self._behind and outbox.has_before(entry):
                return
            store()
            outbox.remove([entry])
            self._behind = False
        except FanfareError as error:
            # The transaction has committed: its caller must not be told otherwise.
            self._behind = True
            log.warning("outbox.waits", error=str(error))

    def tell_left(self, *, older_than: timedelta = LEFT_AFTER) -> int:
        """Tell what was left behind, in order; returns how many entries, 0 also while another process does it.

        Raises:
            TransientError: the store or the database is down; what was not told stays.
        """
        told = 0
        while entries := self._tell_some(older_than):
            told += entries
        if told:
            log.info("outbox.told", entries=told)
        return told

    def _tell_some(self, older_than: timedelta) -> int:
        with pool.transaction():
            entries = outbox.lock_left(older_than, MAX_ENTRIES)
            if not entries:
                return 0
            for entry in entries:
                self._apply(entry)
            outbox.remove([entry.id for entry in entries])
        return len(entries)

    def _apply(self, entry: outbox.Entry) -> None:
        try:
            apply(self._primary, entry)
        except PermanentError as error:
            # One that no store takes must not keep those behind it; `_check` lets none of ours in.
            log.error("outbox.refused", entry=entry.id, kind=entry.kind, error=str(error))  # noqa: TRY400 - no bug here


def apply(engine: "Engine", entry: outbox.Entry) -> None:
    """Tell `engine` what an entry says."""
    match entry.kind:
        case "enqueue":
            envelopes, groups = unpack_envelopes(entry.payload, age=entry.age)
            for group_id, size in groups.items():
                engine.create_group(group_id, size)
            engine.enqueue_many(envelopes)
        case "finish":
            engine.finish_many(unpack_finishes(entry.payload, age=entry.age))
        case "call":
            name, *arguments = orjson.loads(entry.payload)
            getattr(engine, name)(*arguments)


def _check(envelope: Envelope, max_body_bytes: int) -> None:
    """Refuse before the commit what the store would refuse after it."""
    if len(envelope.body) > max_body_bytes:
        message = f"Message {envelope.message_id} for queue {envelope.queue} has {len(envelope.body)} bytes, at most "
        message += f"{max_body_bytes} are allowed: store the data and send its id."
        raise PermanentError(message, code="message_too_large")
    if any(not word or len(word.split()) != 1 for word in (envelope.message_id, envelope.queue)):
        raise PermanentError("A message id or queue has white space in it, or is empty.", code="message_malformed")


def _chunks(envelopes: Sequence[Envelope]) -> list[Sequence[Envelope]]:
    return [envelopes[start : start + CHUNK] for start in range(0, len(envelopes), CHUNK)]
