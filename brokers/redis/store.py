"""The Redis engine's part in working together with another store."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

import orjson

from brokers.engine import Envelope
from brokers.redis import wire
from brokers.redis.link import Link
from brokers.stores import Store, Stored

REMEMBERED_MS = 7 * 24 * 3600 * 1000
IDLE_STATES = (b"w", b"x")


class RedisStore(Store):
    """Everything of `Store`; the rest of the engine is in `RedisEngine`."""

    _link: Link
    _tag: str

    def probe(self) -> None:
        """As the contract says; the script that stores messages, with none."""
        self._link.script("enqueue", "0", b"")

    def holds(self, message_ids: Sequence[str]) -> set[str]:
        """As the contract says."""
        if not message_ids:
            return set()
        found = self._link.command("HMGET", f"{self._tag}:meta", *message_ids)
        return {message_id for message_id, meta in zip(message_ids, found, strict=True) if meta is not None}

    def revoke(self, message_ids: Sequence[str], groups: Sequence[str]) -> None:
        """As the contract says; for some minutes they cannot be enqueued either."""
        self._link.script("revoke", len(message_ids), *message_ids, *groups)

    def identity(self) -> str:
        """As the contract says; a wiped store is another one."""
        key = f"{self._tag}:identity"
        self._link.command("SETNX", key, str(uuid4()))
        return "redis " + str(self._link.command("GET", key).decode())

    def list_idle(self, cursor: str, limit: int) -> tuple[list[tuple[str, str | None]], str]:
        """As the contract says."""
        following, found = self._link.command("HSCAN", f"{self._tag}:meta", cursor or "0", "COUNT", limit)
        idle = []
        for message_id, meta in zip(found[::2], found[1::2], strict=True):
            words = meta.split(b" ")
            if words[0] in IDLE_STATES:
                idle.append((message_id.decode(), _group(words[4].decode())))
        return idle, "" if following == b"0" else following.decode()

    def take_out(self, batch_id: str, message_ids: Sequence[str], lease: timedelta) -> list[Stored]:
        """As the contract says."""
        return [_stored(row) for row in self._link.script("take", batch_id, wire.ticks(lease), *message_ids)]

    def forget(self, batch_id: str) -> bool:
        """As the contract says."""
        return bool(self._link.script("forget", batch_id, REMEMBERED_MS))

    def put_in(self, batch_id: str, stored: Sequence[Stored]) -> int:
        """As the contract says."""
        envelopes = [Envelope(s.message_id, s.queue, s.priority, s.body, group_id=s.group_id) for s in stored]
        wire.pack_envelopes(envelopes, self.capabilities.max_body_bytes)  # refuses what does not fit
        words, blobs = [str(len(stored))], []
        for message in stored:
            why = _why(message)
            words.append(_words(message, len(why)))
            blobs += [why, message.body]
        grouped = [e for e, s in zip(envelopes, stored, strict=True) if not s.group_left]
        return int(
            self._link.script("put", batch_id, REMEMBERED_MS, " ".join(words), b"".join(blobs), *self._groups(grouped))
        )

    def _groups(self, envelopes: Sequence[Envelope]) -> list[str | bytes | int]:
        packed = wire.pack_callbacks(envelopes, self.capabilities.max_body_bytes)
        callbacks = dict(zip(packed[::2], packed[1::2], strict=True))
        members = Counter(e.group_id for e in envelopes if e.group_id is not None)
        return [word for group, count in members.items() for word in (group, count, callbacks.get(group, ""))]

    def _put_back(self) -> int:
        """Bring back what movers that fell silent had set aside; returns how many messages."""
        return int(self._link.script("putback"))


def _group(word: str) -> str | None:
    """The group that a message's meta names: "-" is none, "*" one that has counted it."""
    return None if word in {"-", "*"} else word


def _stored(row: Sequence[bytes]) -> Stored:
    message_id, queue, priority, order, attempts, lost, group, died, why, body = row
    _, code, error = (why.decode(errors="replace") + "\n\n").split("\n", 2)
    return Stored(
        message_id=message_id.decode(),
        queue=queue.decode(),
        priority=int(priority),
        body=body,
        due=wire.moment(float(order)),
        died_at=wire.moment(float(died)) if died else None,
        attempts=int(attempts),
        lost=int(lost),
        code=code,
        error=error.removesuffix("\n\n"),
        group_id=_group(group.decode()),
        group_left=group == b"*",
    )


def _words(message: Stored, why_length: int) -> str:
    group = "*" if message.group_left else message.group_id or "-"
    died = "-" if message.died_at is None else wire.ticks(message.died_at - wire.EPOCH)
    order = max(0, wire.ticks(message.due - wire.EPOCH))
    return (
        f"{message.message_id} {message.queue} {message.priority} {order} {message.attempts} {message.lost} {group} "
        f"{died} {why_length} {len(message.body)}"
    )


def _why(message: Stored) -> bytes:
    if message.died_at is None:
        return b""
    actor = _actor(message.body).replace("\n", " ")
    return "\n".join([actor, message.code.replace("\n", " "), message.error]).encode()


def _actor(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["actor_name"])
    except (ValueError, KeyError, TypeError):
        return ""
