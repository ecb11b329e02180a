import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from brokers.engine import Disposition
from tests.conformance.messages import (
    SHORT,
    claim,
    claim_one,
    ended,
    finish,
    held,
    ids,
    keep,
    member,
    message,
    ms,
    reap_one,
)


class Group:
    """A group in the store, with the callback that its members name."""

    def __init__(self, engine, size, **fields):
        self.engine = engine
        self.id = str(uuid.uuid4())
        self.callback = message("after")
        self.members = [member(self.id, self.callback, **fields) for _ in range(size)]
        engine.create_group(self.id, size)
        engine.enqueue_many(self.members)

    def end(self, claimed, disposition=Disposition.DONE, **fields):
        return finish(self.engine, claimed, disposition, group_id=self.id, group_callbacks=(self.callback,), **fields)

    @property
    def callbacks(self):
        """How many callbacks wait."""
        return self.engine.depths(["after"])[0].waiting


@pytest.mark.clause("GRP-1")
def test_the_callback_follows_the_last_member_however_they_end(engine):
    """TRAPS 1 and 32: stock groups with a dead child never finish."""
    group = Group(engine, 3)
    claims = claim(engine)
    for claimed, disposition in zip(claims, [Disposition.DONE, Disposition.DEAD, Disposition.CANCELLED], strict=True):
        assert group.callbacks == 0
        assert group.end(claimed, disposition)
    assert group.callbacks == 1
    callback = claim_one(engine, after=None)
    assert callback.message_id == group.callback.message_id
    assert json.loads(callback.body) == json.loads(group.callback.body)


@pytest.mark.clause("GRP-1")
def test_a_whole_group_in_one_batch(engine):
    group = Group(engine, 20)
    answers = [ended(c, group_id=group.id, group_callbacks=(group.callback,)) for c in claim(engine)]
    assert engine.finish_many(answers) == [True] * 20
    assert group.callbacks == 1
    assert engine.finish_many(answers) == [True] * 20
    assert group.callbacks == 1


@pytest.mark.clause("GRP-1", "GRP-2")
def test_many_workers_end_members_at_once(make_engine):
    engines = [make_engine() for _ in range(4)]
    group = Group(engines[0], 80)
    claims = claim(engines[0])

    def end(number):
        answer = ended(claims[number % 80], group_id=group.id, group_callbacks=(group.callback,))
        return engines[number % 4].finish_many([answer])

    with ThreadPoolExecutor(4) as pool:
        # Each member is finished twice, as when replies are lost.
        assert all(answer == [True] for answer in pool.map(end, range(160)))
    assert group.callbacks == 1


@pytest.mark.clause("GRP-2")
def test_retries_and_losses_do_not_count(engine):
    """TRAPS 2: a member that is redelivered decrements the stock barrier twice."""
    group = Group(engine, 2)
    first, second = claim(engine)
    group.end(first, Disposition.RETRY)
    first = claim_one(engine)
    group.end(first, Disposition.RESCHEDULE)
    first = claim_one(engine, lease=SHORT)
    reap_one(engine, max_lost=9)
    assert not group.end(first)
    engine.release_many(held([claim_one(engine)]))
    assert group.end(claim_one(engine))
    assert group.callbacks == 0
    assert group.end(second)
    assert group.callbacks == 1


@pytest.mark.clause("GRP-2", "DLQ-3")
def test_a_requeued_member_does_not_count_again(engine):
    group = Group(engine, 2)
    first, second = claim(engine)
    group.end(first, Disposition.DEAD)
    engine.requeue([first.message_id])
    assert group.end(claim_one(engine))
    assert group.callbacks == 0
    assert group.end(second)
    assert group.callbacks == 1


@pytest.mark.clause("GRP-3")
@pytest.mark.parametrize("how", ["cancelled", "purged", "poison"])
def test_the_last_member_ends_without_a_worker(engine, how):
    group = Group(engine, 3)
    first, second, third = claim(engine, lease=SHORT)
    group.end(first)
    group.end(second, Disposition.DEAD)
    if how == "poison":
        reap_one(engine, max_lost=1)
    else:
        engine.release_many(held([third]))
        assert (engine.cancel([third.message_id]) if how == "cancelled" else engine.purge("default")) >= 1
    callback = claim_one(engine, after=None)
    # The same bytes may be written in another form; empty lists stay lists.
    assert callback.message_id == group.callback.message_id
    assert b'"empty":[]' in callback.body.replace(b" ", b"")


@pytest.mark.clause("GRP-3")
@pytest.mark.parametrize("how", ["cancelled", "purged", "poison"])
def test_an_earlier_member_ends_without_a_worker(engine, how):
    group = Group(engine, 2)
    first, second = claim(engine, lease=SHORT)
    keep(engine, second)
    if how == "poison":
        reap_one(engine, max_lost=1)
    else:
        engine.release_many(held([first]))
        assert (engine.cancel([first.message_id]) if how == "cancelled" else engine.purge("default")) == 1
    assert group.callbacks == 0
    assert group.end(second)
    assert group.callbacks == 1


@pytest.mark.clause("GRP-3")
def test_a_whole_group_is_cancelled_while_it_waits(engine):
    group = Group(engine, 10, delay=ms(60_000))
    assert engine.cancel(ids(group.members)) == 10
    assert group.callbacks == 1


@pytest.mark.clause("GRP-3", "CAN-3")
def test_a_member_that_was_asked_to_stop_counts_when_it_would_wait_again(engine):
    group = Group(engine, 1)
    claimed = claim_one(engine)
    engine.cancel([claimed.message_id])
    assert finish(engine, claimed, Disposition.RETRY, group_id=group.id)
    assert group.callbacks == 1


@pytest.mark.clause("GRP-4")
def test_announced_again_a_group_is_unchanged(engine):
    group = Group(engine, 2)
    first, second = claim(engine)
    group.end(first)
    engine.create_group(group.id, 2)
    group.end(second)
    assert group.callbacks == 1


@pytest.mark.clause("GRP-2")
def test_groups_do_not_meet(engine):
    one, two = Group(engine, 1), Group(engine, 2)
    by_id = {claimed.message_id: claimed for claimed in claim(engine)}
    two.end(by_id[two.members[0].message_id])
    assert engine.depths(["after"])[0].waiting == 0
    one.end(by_id[one.members[0].message_id])
    assert ids(claim(engine, after=None)) == [one.callback.message_id]
