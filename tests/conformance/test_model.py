"""Each engine beside a model of a few lines: whatever is done in whatever order, both agree."""

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from brokers.engine import Claim, Disposition, Engine, Held
from tests.conformance.messages import LEASE, SHORT, claim, ended, message, request
from tests.conftest import wait_until

HOUR = timedelta(hours=1)
QUEUES = ("a", "b")
MAX_LOST = 2
FINAL = {Disposition.DONE: "gone", Disposition.CANCELLED: "gone", Disposition.DEAD: "dead"}

queues = st.sampled_from(QUEUES)
newcomers = st.tuples(queues, st.integers(1, 4), st.sampled_from([False, False, False, True]))
picks = st.integers(min_value=0, max_value=99)
"""Chooses one of the messages that there are."""


@dataclass
class Known:
    """What the model knows of a message."""

    queue: str
    priority: int
    place: int
    state: str = "waiting"
    attempts: int = 0
    lost: int = 0
    stopping: bool = False
    claimed: Claim | None = None


class Machine(RuleBasedStateMachine):
    """Rules act on the engine and on the model; the invariant compares them."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, Known] = {}
        self.paused: set[str] = set()
        self.places = 0
        self.applied: list[tuple[Claim, Disposition]] = []
        # Each run of the machine has queues of its own on the same store.
        self.names = {queue: f"{queue}-{uuid.uuid4().hex}" for queue in QUEUES}

    def place(self) -> int:
        self.places += 1
        return self.places

    def some(self, pick: int, *states: str) -> tuple[str, Known] | None:
        found = [item for item in self.known.items() if item[1].state in states]
        return found[pick % len(found)] if found else None

    def claim_of(self, one: Known) -> Claim:
        assert one.claimed is not None
        return one.claimed

    def wait_again(self, one: Known, state: str = "waiting") -> None:
        one.state = "forgotten" if one.stopping else state

    @initialize(wanted=st.lists(newcomers, min_size=4, max_size=8))
    def begin(self, wanted: list[tuple[str, int, bool]]) -> None:
        self.send(wanted)

    @rule(wanted=st.lists(newcomers, min_size=1, max_size=3))
    def enqueue(self, wanted: list[tuple[str, int, bool]]) -> None:
        self.send(wanted)

    def send(self, wanted: list[tuple[str, int, bool]]) -> None:
        sent = [
            message(self.names[queue], priority=priority, delay=HOUR if delayed else timedelta())
            for queue, priority, delayed in wanted
        ]
        assert self.engine.enqueue_many(sent) == len(sent)
        for one, (queue, priority, delayed) in zip(sent, wanted, strict=True):
            self.known[one.message_id] = Known(queue, priority, self.place(), "delayed" if delayed else "waiting")

    @precondition(lambda self: self.known)
    @rule(pick=picks, queue=queues)
    def enqueue_again(self, pick: int, queue: str) -> None:
        message_id = list(self.known)[pick % len(self.known)]
        if self.known[message_id].state != "forgotten":
            assert self.engine.enqueue_many([message(self.names[queue], message_id=message_id)]) == 0

    @rule(room=st.integers(1, 6), bound=st.sampled_from([None, 1, 2]))
    def claim(self, room: int, bound: int | None) -> None:
        bounds: dict[str, Any] = {self.names["a"]: bound, self.names["b"]: None}
        asked = request(room, **bounds)
        claims = self.engine.claim(asked)
        assert self.engine.claim(asked) == claims
        free = {"a": room if bound is None else bound - self.count("a", "leased"), "b": room}
        expected: list[str] = []
        for message_id, one in sorted(self.known.items(), key=lambda item: (item[1].priority, item[1].place)):
            runnable = one.state == "waiting" and one.queue not in self.paused
            if runnable and free[one.queue] > 0 and len(expected) < room:
                free[one.queue] -= 1
                expected.append(message_id)
        assert [claimed.message_id for claimed in claims] == expected
        for claimed in claims:
            one = self.known[claimed.message_id]
            one.state, one.attempts, one.claimed = "leased", one.attempts + 1, claimed
            assert (claimed.attempt, claimed.lost, claimed.priority) == (one.attempts, one.lost, one.priority)

    @rule(pick=picks, disposition=st.sampled_from(Disposition), delayed=st.booleans())
    def finish(self, pick: int, disposition: Disposition, delayed: bool) -> None:  # noqa: FBT001 - as above
        if not (found := self.some(pick, "leased")):
            return
        _, one = found
        claimed = self.claim_of(one)
        again = disposition not in FINAL
        delay = HOUR if delayed and again else timedelta()
        assert self.engine.finish_many([ended(claimed, disposition, delay=delay, code="x")]) == [True]
        self.applied.append((claimed, disposition))
        if again:
            self.wait_again(one, "delayed" if delay else "waiting")
            one.attempts -= disposition is Disposition.RESCHEDULE
            one.place = self.place()
        else:
            one.state = FINAL[disposition]
        one.claimed = None

    @precondition(lambda self: self.applied)
    @rule(pick=picks)
    def finish_again(self, pick: int) -> None:
        claimed, disposition = self.applied[pick % len(self.applied)]
        assert self.engine.finish_many([ended(claimed, disposition, code="again")]) == [True]

    @rule(pick=picks)
    def release(self, pick: int) -> None:
        if not (found := self.some(pick, "leased")):
            return
        message_id, one = found
        self.engine.release_many([Held(message_id, self.names[one.queue], self.claim_of(one).token)])
        one.attempts -= 1
        self.wait_again(one)

    @rule()
    def lose(self) -> None:
        """One more message is claimed, its worker dies, and the lease is taken back."""
        claims = claim(self.engine, 1, lease=SHORT, **{self.names["a"]: None, self.names["b"]: None})
        if not claims:
            return
        one = self.known[claims[0].message_id]
        one.attempts += 1
        one.lost += 1
        wait_until(lambda: self.engine.reap(max_lost=MAX_LOST) == 1, "the lease did not expire")
        assert self.engine.finish_many([ended(claims[0])]) == [False]
        if one.lost >= MAX_LOST:
            one.state = "dead"

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        if not (found := self.some(pick, "waiting", "delayed", "leased", "dead")):
            return
        message_id, one = found
        assert self.engine.cancel([message_id]) == (one.state != "dead")
        if one.state == "leased":
            one.stopping = True
            held = Held(message_id, self.names[one.queue], self.claim_of(one).token)
            assert self.engine.heartbeat([held], LEASE).cancelled == {message_id}
        elif one.state != "dead":
            one.state = "forgotten"

    @rule(pick=picks)
    def requeue(self, pick: int) -> None:
        if not (found := self.some(pick, "dead", "waiting")):
            return
        message_id, one = found
        assert self.engine.requeue([message_id]) == (one.state == "dead")
        if one.state == "dead":
            self.known[message_id] = Known(one.queue, one.priority, self.place())

    @rule(queue=queues, paused=st.sampled_from([False, False, True]))
    def pause(self, queue: str, paused: bool) -> None:  # noqa: FBT001 - as above
        if paused:
            self.engine.pause(self.names[queue])
            self.paused.add(queue)
        else:
            self.engine.resume(self.names[queue])
            self.paused.discard(queue)

    def count(self, queue: str, state: str) -> int:
        return sum(one.queue == queue and one.state == state for one in self.known.values())

    @invariant()
    def the_depths_agree(self) -> None:
        depths = self.engine.depths([self.names[queue] for queue in QUEUES])
        for queue, depth in zip(QUEUES, depths, strict=True):
            counts = (depth.waiting, depth.delayed, depth.leased, depth.dead)
            assert counts == tuple(self.count(queue, state) for state in ("waiting", "delayed", "leased", "dead"))
            assert depth.paused == (queue in self.paused)

    def teardown(self) -> None:
        """Leave no leases behind for another run's reaper."""
        leased = [one for one in self.known.values() if one.state == "leased"]
        self.engine.finish_many([ended(self.claim_of(one)) for one in leased])


@pytest.mark.clause("CLM-1", "CLM-3", "CLM-4", "CLM-6", "FIN-3", "FIN-4", "REL-1", "LSE-2", "DLQ-3", "CAN-3", "PAU-1")
def test_the_engine_agrees_with_the_model(engine):
    machine = type("MachineOfEngine", (Machine,), {"engine": engine})
    few = settings(max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine, settings=few)
