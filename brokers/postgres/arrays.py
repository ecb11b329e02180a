"""Arguments for PostgreSQL in the form that costs least: arrays as one text, messages as JSON documents."""

import base64
import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from brokers.engine import Envelope

NO_TOKEN = -1
"""Stands for a token that no claim of ours ever had."""


def plain_array(values: Iterable[object]) -> str:
    """An array literal of values that need no quotes: numbers and UUIDs."""
    return "{" + ",".join(map(str, values)) + "}"


def uuid_array(texts: Iterable[str]) -> str:
    """An array literal of those `texts` that are UUIDs; nothing else names a message."""
    return plain_array(found for text in texts if (found := _uuid(text)) is not None)


def tokens_array(tokens: Iterable[str]) -> str:
    """An array literal of tokens."""
    return plain_array(map(token_number, tokens))


def token_number(token: str) -> int:
    """A token as the database knows it."""
    return int(token) if token.isdecimal() else NO_TOKEN


def needs_raw(body: bytes) -> bool:
    """Whether jsonb cannot hold `body`: it is no JSON, or has a character that PostgreSQL's text lacks."""
    try:
        text = json.loads(body)
    except ValueError:
        return True
    return _has_foreign(text)


def document(envelope: Envelope) -> dict[str, Any]:
    """A message as `dramatiq.store` takes it."""
    body, raw = json_and_raw(envelope.body)
    return {
        "i": envelope.message_id,
        "q": envelope.queue,
        "p": envelope.priority,
        "m": body,
        "r": raw,
        "delay": envelope.delay.total_seconds(),
        "run_at": envelope.run_at and envelope.run_at.isoformat(),
        "g": envelope.group_id,
    }


def documents(envelopes: Sequence[Envelope]) -> list[dict[str, Any]]:
    """The same for several."""
    return [document(envelope) for envelope in envelopes]


def json_and_raw(data: bytes) -> tuple[str | None, str | None]:
    """`data` as JSON text, or, where jsonb cannot hold it, in base 64."""
    if needs_raw(data):
        return None, base64.b64encode(data).decode()
    return data.decode(), None


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _has_foreign(value: object) -> bool:
    match value:
        case str():
            return "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)
        case list():
            return any(map(_has_foreign, value))
        case dict():
            return any(_has_foreign(key) or _has_foreign(item) for key, item in value.items())
        case _:
            return False
