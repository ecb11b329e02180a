"""Sends that failed in a way that leaves open whether the first store has them.

Such a send is written down and decided soon, once, under a row's lock: where the first store answers, the send is
simply repeated there, which has no effect on what it knows. Where it stays away for `DECIDE_AFTER`, the messages go to
the second store, and copies that may turn up in the first one later are void: `drop_void` keeps workers from running
them, and `void` removes them. A worker that holds a copy already (`confirm`), or is given one in time, decides for it.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from brokers.engine import Claim, Engine, Envelope
from brokers.packed import pack_envelopes, unpack_envelopes
from brokers.stores import Store
from core.logging import get_logger
from db import fallback, pool

log = get_logger(__name__)

DECIDE_AFTER = timedelta(seconds=5)
"""Longer than every worker needs to look for copies that it holds, which each does every second."""
VOID_BATCH = 500


def write_down(envelopes: Sequence[Envelope], groups: Mapping[str, int]) -> None:
    """Keep a send that was not confirmed, with the groups that its messages need in another store."""
    ids = [envelope.message_id for envelope in envelopes]
    fallback.add(ids, groups, pack_envelopes(envelopes, groups))


def repeat_at(first: Engine) -> None:
    """Decide all open sends: the first store answers, so they go there."""
    while _repeat_one(first):
        pass


def _repeat_one(first: Engine) -> bool:
    with pool.transaction():
        send = fallback.lock_doubtful(timedelta())
        if send is None:
            return False
        envelopes, groups = unpack_envelopes(send.payload, age=send.age)
        for group_id, size in groups.items():
            first.create_group(group_id, size)
        first.enqueue_many(envelopes)
        fallback.settle(send.id)
    return True


def give_to(second: Engine) -> None:
    """Decide the sends that have waited long enough: the first store stays away, so they run from the second."""
    while _give_one(second):
        pass


def _give_one(second: Engine) -> bool:
    with pool.transaction():
        send = fallback.lock_doubtful(DECIDE_AFTER)
        if send is None:
            return False
        envelopes, groups = unpack_envelopes(send.payload, age=send.age)
        for group_id, size in groups.items():
            second.create_group(group_id, size)
        second.enqueue_many(envelopes)  # part of this transaction
        fallback.decide_second(send.id)
    log.info("fallback.decided", messages=len(envelopes))
    return True


def confirm(message_ids: Sequence[str]) -> None:
    """This worker was given these by the first store: their sends are decided."""
    if message_ids and (sends := fallback.confirm(message_ids)):
        log.info("fallback.confirmed", sends=sends)


def drop_void(first: Store, claims: list[Claim]) -> list[Claim]:
    """Those of the first store's `claims` that are to run; void copies are removed from it."""
    ids = [claim.message_id for claim in claims]
    confirm(ids)
    void = fallback.elsewhere(ids)
    if void:
        first.revoke(sorted(void), ())
        log.info("fallback.void_dropped", messages=len(void))
    return [claim for claim in claims if claim.message_id not in void]


def void(first: Store, *, again: bool = False) -> None:
    """Remove the void copies that the first store may hold; with `again` also those removed in the last days."""
    with pool.transaction():
        sends = fallback.lock_to_void(again=again)
        for send in sends:
            for start in range(0, len(send.message_ids), VOID_BATCH):
                first.revoke(send.message_ids[start : start + VOID_BATCH], send.groups)
        if sends:
            fallback.voided([send.id for send in sends])
