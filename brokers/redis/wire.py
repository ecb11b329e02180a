"""How values travel to the Lua scripts and back.

A batch is two arguments: a header of words and a blob of bytes, so that neither side pays for each value.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import orjson

from brokers.engine import Claim, DeadLetter, Disposition, Envelope, Finish
from core.errors import PermanentError

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=10)
ENVELOPE_WORDS = 6
CLAIM_WORDS = 10
NORMAL_PRIORITY = 3
HOW = {
    Disposition.DONE: "D",
    Disposition.RETRY: "R",
    Disposition.RESCHEDULE: "S",
    Disposition.DEAD: "X",
    Disposition.CANCELLED: "C",
}


def ticks(duration: timedelta) -> int:
    """`duration` in the scripts' unit, 10 microseconds, rounded up so that nothing happens early."""
    return -(-duration // TICK)


def moment(tick: float) -> datetime:
    """The moment that a script calls `tick`."""
    return EPOCH + int(tick) * TICK


def when(delay: timedelta, run_at: datetime | None) -> str:
    """The word for a message's time: 0 for now, +ticks or @tick."""
    if run_at is not None:
        return f"@{max(0, ticks(run_at - EPOCH))}"
    return f"+{ticks(delay)}" if delay > timedelta() else "0"


def pack_envelopes(envelopes: Sequence[Envelope], max_body_bytes: int) -> tuple[str, bytes]:
    """Header and blob of a batch to store.

    Raises:
        PermanentError: a body is too long, or a name has a space in it.
    """
    for envelope in envelopes:
        if len(envelope.body) > max_body_bytes:
            raise PermanentError(
                f"Message {envelope.message_id} for queue {envelope.queue} has {len(envelope.body)} bytes, "
                f"at most {max_body_bytes} are allowed: store the data and send its id.",
                code="message_too_large",
            )
    words = " ".join([_words(envelope) for envelope in envelopes])
    if len(words.split()) != ENVELOPE_WORDS * len(envelopes):
        raise PermanentError(
            "A message id, queue or group has white space in it, or is empty.", code="message_malformed"
        )
    return f"{len(envelopes)} {words}", b"".join([envelope.body for envelope in envelopes])


def _words(envelope: Envelope) -> str:
    time = "0" if not envelope.delay and envelope.run_at is None else when(envelope.delay, envelope.run_at)
    group = envelope.group_id or "-"
    return f"{envelope.message_id} {envelope.queue} {envelope.priority} {time} {group} {len(envelope.body)}"


def pack_callbacks(envelopes: Iterable[Envelope], max_body_bytes: int) -> list[str | bytes]:
    """For each group among `envelopes`: its id, and the callbacks that its first member names in its body."""
    packed: list[str | bytes] = []
    seen: set[str] = set()
    for envelope in envelopes:
        if envelope.group_id is None or envelope.group_id in seen:
            continue
        seen.add(envelope.group_id)
        if callbacks := _callbacks(envelope.body):
            header, blob = pack_envelopes(callbacks, max_body_bytes)
            packed += [envelope.group_id, header.encode() + b"\n" + blob]
    return packed


def _callbacks(body: bytes) -> list[Envelope]:
    try:
        messages = orjson.loads(body)["options"].get("group_completion_callbacks") or []
    except (ValueError, KeyError, TypeError, AttributeError):
        return []  # not a message of dramatiq's: its group has no callbacks that we could know
    return [_callback(message) for message in messages]


def _callback(message: dict[str, object]) -> Envelope:
    options = message.get("options")
    wanted = options.get("priority") if isinstance(options, dict) else None
    priority = wanted if isinstance(wanted, int) and wanted else NORMAL_PRIORITY
    return Envelope(str(message["message_id"]), str(message["queue_name"]), priority, orjson.dumps(message))


def pack_finishes(finishes: Sequence[Finish], max_body_bytes: int) -> tuple[str, bytes]:
    """Header and blob of a batch of finishes, see finish.lua."""
    words = [str(len(finishes))]
    blobs: list[bytes] = []
    for f in finishes:
        words.append(f"{f.message_id} {f.token}")
        if f.disposition is Disposition.DONE and f.result is None and f.group_id is None and not f.follow_ups:
            words.append("d")
        else:
            words.append(_pack_rest(f, blobs, max_body_bytes))
    return " ".join(words), b"".join(blobs)


def _pack_rest(f: Finish, blobs: list[bytes], max_body_bytes: int) -> str:
    code, error, result = f.code.encode(), f.error.encode(), f.result
    blobs += [code, error, result or b""]
    ttl_ms = f.result_ttl // timedelta(milliseconds=1)
    lengths = f"{len(code)} {len(error)} {'-' if result is None else len(result)}"
    counts = f"{len(f.follow_ups)} {len(f.group_callbacks)}"
    words = [f"{HOW[f.disposition]} {when(f.delay, f.run_at)} {lengths} {ttl_ms} {f.group_id or '-'} {counts}"]
    for envelopes in (f.follow_ups, f.group_callbacks):
        if envelopes:
            header, blob = pack_envelopes(envelopes, max_body_bytes)
            words.append(header.split(" ", 1)[1])
            blobs.append(blob)
    return " ".join(words)


def unpack_claims(header: bytes, blob: bytes) -> list[Claim]:
    """The claims in claim.lua's reply."""
    words = header.decode().split(" ") if header else []
    claims = []
    at = 0
    for i in range(0, len(words), CLAIM_WORDS):
        message_id, token, attempt, queue, _, priority, order, lost, _, length = words[i : i + CLAIM_WORDS]
        end = at + int(length)
        body = blob[at:end]
        at = end
        claims.append(Claim(message_id, queue, int(priority), body, token, int(attempt), int(lost), float(order)))
    return claims


def unpack_dead_letter(queue: str, row: Sequence[bytes]) -> DeadLetter:
    """One row of dead.lua's reply."""
    message_id, died, attempts, body, why = row
    actor, code, error = (why.decode(errors="replace") + "\n\n").split("\n", 2)
    return DeadLetter(
        message_id=message_id.decode(),
        queue=queue,
        actor=actor,
        body=body,
        code=code,
        error=error.removesuffix("\n\n"),
        attempts=int(attempts),
        died_at=moment(float(died)),
    )
