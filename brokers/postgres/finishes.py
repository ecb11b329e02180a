"""The ends of attempts: a batch is one round trip and one commit."""

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

from brokers.engine import Disposition, Finish
from brokers.postgres.arrays import documents, json_and_raw, plain_array, token_number
from brokers.postgres.connections import Connection

FINISH = (
    "select refused_ids::text[], refused_tokens"
    " from dramatiq.finish(%s::uuid[], %s::bigint[], %s::text[], %s::jsonb, %s::jsonb, %s::jsonb)"
)


def finish_many(connection: Connection, finishes: Sequence[Finish]) -> list[bool]:
    """As `Engine.finish_many`."""
    if not finishes:
        return []
    plain = [f for f in finishes if f.disposition is Disposition.DONE and f.result is None]
    rich = [_document(f) for f in finishes if f.disposition is not Disposition.DONE or f.result is not None]
    follow = {f.message_id: documents(f.follow_ups) for f in finishes if f.follow_ups}
    # All members of a group carry the same callbacks: they are sent once.
    callbacks = {f.group_id: f.group_callbacks for f in finishes if f.group_id and f.group_callbacks}
    row = connection.execute(
        FINISH,
        (
            plain_array(f.message_id for f in plain),
            plain_array(token_number(f.token) for f in plain),
            [f.group_id for f in plain] if any(f.group_id for f in plain) else None,
            Jsonb(rich) if rich else None,
            Jsonb(follow) if follow else None,
            Jsonb({group: documents(envelopes) for group, envelopes in callbacks.items()}) if callbacks else None,
        ),
    ).fetchone()
    if row is None or row[0] is None:
        return [True] * len(finishes)
    refused = set(zip(*row, strict=True))
    return [(f.message_id, token_number(f.token)) not in refused for f in finishes]


def _document(finish: Finish) -> dict[str, Any]:
    document: dict[str, Any] = {
        "i": finish.message_id,
        "t": token_number(finish.token),
        "d": str(finish.disposition),
        "delay": finish.delay.total_seconds(),
        "run_at": finish.run_at and finish.run_at.isoformat(),
        "code": finish.code.replace("\0", ""),
        "error": finish.error.replace("\0", ""),
        "g": finish.group_id,
    }
    if finish.result is not None:
        result, raw = json_and_raw(finish.result)
        document |= {"result": result, "raw": raw, "ttl": finish.result_ttl.total_seconds()}
    return document
