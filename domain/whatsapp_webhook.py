"""WhatsApp's webhooks: is one genuine, and what does it say. Nothing here raises, whatever the bytes are.

Sources: Meta's pages "Webhooks, getting started" (challenge, signature) and "Webhooks, components" (the payload).
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

MAX_BODY_BYTES = 3 * 1024 * 1024
"""Meta: a payload has up to 3 MB."""
STATUSES = frozenset({"sent", "delivered", "read", "failed"})

_CALLBACK = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):([1-9]\d{0,8})", re.ASCII)
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")  # an escaped NUL; a backslash before it may itself be escaped
_MAX_ID = 512
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Status:
    """What became of one attempt to send.

    Attributes:
        delivery_id, attempt: From our own `biz_opaque_callback_data`.
        status: One of `STATUSES`.
        code: With failed: the provider's error code.
    """

    delivery_id: UUID
    attempt: int
    status: str
    message_id: str
    code: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What a person wrote; `sender` is their phone number with its plus, `body` the message as it came."""

    message_id: str
    number: str
    sender: str
    kind: str
    body: dict[str, Any]
    sent_at: datetime


@dataclass(slots=True)
class Contents:
    """All that one webhook says; `reasons` names what in it cannot be used, and why."""

    statuses: list[Status] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)


def is_genuine(body: bytes, signature: str | None, secrets: Sequence[str]) -> bool:
    """Whether `signature`, the header X-Hub-Signature-256, is that of `body` by one of the secrets.

    All secrets are tried, each in constant time. An empty secret is none.
    """
    given = (signature or "").encode()
    equal = [hmac.compare_digest(given, signature_of(body, secret).encode()) for secret in secrets if secret]
    return any(equal)


def signature_of(body: bytes, secret: str) -> str:
    """The value of X-Hub-Signature-256."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def parse(body: bytes) -> Contents:
    """Read a webhook's bytes."""
    contents = Contents()
    try:
        data = orjson.loads(_NUL.sub(rb"\1\\ufffd", body))  # PostgreSQL takes no NUL in a text
    except orjson.JSONDecodeError:
        contents.reasons.add("not_json")
        return contents
    changes = [change for entry in _objects(data, "entry") for change in _objects(entry, "changes")]
    if not changes:
        contents.reasons.add("nothing_in_it")
    for change in changes:
        name, value = change.get("field"), change.get("value")
        if name == "messages" and isinstance(value, dict):
            _read(value, contents)
        else:
            contents.reasons.add(f"field_unknown:{_text(name, 40)}")
    return contents


def _read(value: dict[str, Any], contents: Contents) -> None:
    metadata = value.get("metadata")
    number = _text(metadata.get("phone_number_id"), _MAX_ID) if isinstance(metadata, dict) else ""
    found = False
    for status in _objects(value, "statuses"):
        found = True
        _add(contents.statuses, contents.reasons, _status(status))
    for message in _objects(value, "messages"):
        found = True
        _add(contents.messages, contents.reasons, _message(message, number))
    if "errors" in value or not found:
        contents.reasons.add("value_without_events" if not found else "errors")


def _add(found: list[Any], reasons: set[str], item: object) -> None:
    if isinstance(item, str):
        reasons.add(item)
    else:
        found.append(item)


def _status(data: dict[str, Any]) -> Status | str:
    """The status, or the reason why it is none."""
    kind, message_id = _text(data.get("status"), 40), _text(data.get("id"), _MAX_ID)
    if kind not in STATUSES:
        return f"status_unknown:{kind}"
    callback = _CALLBACK.fullmatch(_text(data.get("biz_opaque_callback_data"), _MAX_ID))
    if callback is None or not message_id:
        return "status_not_ours"
    delivery_id, attempt = UUID(callback[1]), int(callback[2])
    if kind != "failed":
        return Status(delivery_id, attempt, kind, message_id)
    error = next(_objects(data, "errors"), {})
    details = error.get("error_data")
    text = (details.get("details") if isinstance(details, dict) else None) or error.get("message") or error.get("title")
    return Status(
        delivery_id,
        attempt,
        kind,
        message_id,
        _text(error.get("code"), 40) or "unknown",
        _text(text, _MAX_TEXT) or None,
    )


def _message(data: dict[str, Any], number: str) -> Message | str:
    message_id, sender = _text(data.get("id"), _MAX_ID), _text(data.get("from"), 40).removeprefix("+")
    sent_at = _moment(_text(data.get("timestamp"), 20))
    if not (message_id and sender and number and sent_at):
        return "message_malformed"
    return Message(message_id, number, f"+{sender}", _text(data.get("type"), 40) or "unknown", data, sent_at)


def _objects(data: object, name: str) -> Iterator[dict[str, Any]]:
    """The objects in the list `name` of `data`; what is of another shape is passed over."""
    found = data.get(name) if isinstance(data, dict) else None
    return (item for item in found if isinstance(item, dict)) if isinstance(found, list) else iter(())


def _text(value: object, most: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)[:most]


def _moment(seconds: str) -> datetime | None:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OverflowError, OSError):
        return None
