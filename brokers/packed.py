"""Messages and finishes as JSON, to be kept in a table until a store can be told; bodies in base 64."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from brokers.engine import Disposition, Envelope, Finish
from brokers.stores import Stored


def pack_envelopes(envelopes: Sequence[Envelope], groups: Mapping[str, int] | None = None) -> bytes:
    """Messages to enqueue, with the sizes of the groups to create before."""
    return orjson.dumps({"groups": groups or {}, "envelopes": [_envelope(e) for e in envelopes]})


def unpack_envelopes(payload: bytes, *, age: timedelta) -> tuple[list[Envelope], dict[str, int]]:
    """The messages and groups of `pack_envelopes`; delays are shorter by `age`, the time since then."""
    document = orjson.loads(payload)
    envelopes = [_envelope_of(fields) for fields in document["envelopes"]]
    return [_aged(envelope, age) for envelope in envelopes], document["groups"]


def pack_finishes(finishes: Sequence[Finish]) -> bytes:
    """Ends of attempts."""
    documents = []
    for finish in finishes:
        document = asdict(finish) | {"result": _text(finish.result)}
        for name in ("delay", "result_ttl"):
            document[name] = document[name].total_seconds()
        for name in ("follow_ups", "group_callbacks"):
            document[name] = [_envelope(envelope) for envelope in getattr(finish, name)]
        documents.append(document)
    return orjson.dumps(documents)


def unpack_finishes(payload: bytes, *, age: timedelta) -> list[Finish]:
    """The finishes of `pack_finishes`; delays are shorter by `age`."""
    return [_finish_of(fields, age) for fields in orjson.loads(payload)]


def pack_stored(stored: Sequence[Stored]) -> bytes:
    """Messages on the move."""
    return orjson.dumps([asdict(message) | {"body": _text(message.body)} for message in stored])


def unpack_stored(payload: bytes) -> list[Stored]:
    """The messages of `pack_stored`."""
    return [
        Stored(
            **fields
            | {
                "body": _bytes(fields["body"]),
                "due": datetime.fromisoformat(fields["due"]),
                "died_at": _moment(fields["died_at"]),
            }
        )
        for fields in orjson.loads(payload)
    ]


def _envelope(envelope: Envelope) -> dict[str, Any]:
    return asdict(envelope) | {"body": _text(envelope.body), "delay": envelope.delay.total_seconds()}


def _envelope_of(fields: dict[str, Any]) -> Envelope:
    values = {"body": _bytes(fields["body"]), "delay": timedelta(seconds=fields["delay"])}
    return Envelope(**fields | values | {"run_at": _moment(fields["run_at"])})


def _finish_of(fields: dict[str, Any], age: timedelta) -> Finish:
    values = {
        "disposition": Disposition(fields["disposition"]),
        "delay": max(timedelta(), timedelta(seconds=fields["delay"]) - age),
        "run_at": _moment(fields["run_at"]),
        "result": None if fields["result"] is None else _bytes(fields["result"]),
        "result_ttl": timedelta(seconds=fields["result_ttl"]),
        "follow_ups": tuple(_aged(_envelope_of(f), age) for f in fields["follow_ups"]),
        "group_callbacks": tuple(_envelope_of(f) for f in fields["group_callbacks"]),
    }
    return Finish(**fields | values)


def _aged(envelope: Envelope, age: timedelta) -> Envelope:
    return replace(envelope, delay=max(timedelta(), envelope.delay - age)) if envelope.delay else envelope


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
