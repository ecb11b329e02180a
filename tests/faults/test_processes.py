"""Worker processes that are killed, frozen, or have a wrong clock."""

import os
import signal
import time
from datetime import timedelta
from typing import Any

import dramatiq
import pytest
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.rate_limits.backends.redis import RedisBackend

from tests.conftest import wait_until
from tests.faults.actors import QUEUE, declare
from tests.faults.expect import equal
from tests.faults.systems import FAST_RECOVERY

LEASE_S = 1.2
RECOVERING = {"lease": LEASE_S, "stock": FAST_RECOVERY}
"""A fresh worker takes over what a lost one held, within seconds on every system."""


@equal((0, DELAYED := 40), stock_redis=(DELAYED, 0))
def test_delayed_messages_are_not_held_by_a_process(system, expected):
    """TRAPS 6: stock's worker takes thousands of them into its memory."""
    broker = system.broker()
    work, _ = declare(broker, system.effects)
    system.start_worker(broker)
    for n in range(DELAYED):
        broker.enqueue(work.message(f"later-{n}", {}), delay=600_000)
    broker.enqueue(work.message("now", {}))
    wait_until(lambda: system.effects.count("end")["now"] == 1, "another message runs")
    if system.is_ours:
        (depth,) = broker.engine.depths([QUEUE])
        assert (depth.leased, depth.delayed) == expected
    else:
        held = f"dramatiq:__acks__.{broker.broker_id}.q.DQ"
        wait_until(lambda: broker.client.scard(held) == expected[0], "the worker fetches all")
        assert broker.client.llen("dramatiq:q.DQ") == expected[1]


@equal(1, stock_redis=2)
def test_a_kill_while_a_delayed_message_is_promoted_does_not_double_it(system, expected, processes):
    """TRAPS 6: stock enqueues it and then acknowledges it; ours has nothing to promote, it is claimed when due."""
    broker = system.broker()
    work, _ = declare(broker, system.effects)
    broker.enqueue(work.message("later", {}), delay=300)
    # Stock dies between the two steps, ours between the one step and the run.
    victim = processes.start(die_before="run" if system.is_ours else "ack", **RECOVERING)
    assert victim.wait(20) == 9
    processes.start(**RECOVERING)
    wait_until(lambda: system.effects.count("end")["later"] >= expected, "it runs")
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert system.effects.count("end")["later"] == expected


@equal(1, stock_redis=2)
def test_a_member_that_is_delivered_again_counts_once_in_its_group(system, expected, processes):
    """TRAPS 2, 32: stock decrements the barrier before the acknowledgement, so a redelivered member counts twice and
    the callback comes early, and again. `expected`: callbacks.
    """
    broker = system.broker()
    work, follow = declare(broker, system.effects)
    members = dramatiq.group([work.message("member", {"tell": 1}) for _ in range(3)], broker=broker)
    members.add_completion_callback(follow.message("all"))
    members.run()
    victim = processes.start(die_before="finish_many" if system.is_ours else "ack", threads=1, **RECOVERING)
    assert victim.wait(20) == 9
    begun = len(system.effects.of("end"))
    assert begun >= 1, "a member ran and was not acknowledged"
    processes.start(threads=1, **RECOVERING)
    wait_until(lambda: len(system.effects.of("follow")) >= expected, "the callback runs", 30)
    wait_until(lambda: not system.unfinished(broker), "nothing is left", 30)
    events = [line[0] for line in system.effects.all() if line[0] in {"end", "follow"}]
    assert events.count("follow") == expected
    if system.is_ours:
        # 3 members and those that ran twice, all before the callback.
        assert events.index("follow") == len(events) - 1
        assert 3 < events.count("end") <= 3 + begun
    else:
        assert events.index("follow") < len(events) - 1, "the first one comes early"


@equal(1, stock_redis=2)
def test_a_process_whose_clock_is_ahead_takes_no_running_work(system, expected, processes):
    """TRAPS 31: 61 s ahead, stock takes everybody for dead. Ours never compares a client's clock."""
    broker = system.broker()
    work, _ = declare(broker, system.effects)
    # Stock looks for lost workers in every thousandth command; here in each.
    stock = {"stock": {"maintenance_chance": 1_000_000}}
    processes.start(**stock)
    go = system.folder / "go"
    broker.enqueue(work.message("running", {"wait_for": str(go)}))
    wait_until(lambda: system.effects.count("run")["running"] == 1, "it runs")
    processes.start(clock=61, **stock)
    wait_until(lambda: len(system.effects.of("started")) == 2, "the other process works")
    broker.enqueue(work.message("other", {}))
    wait_until(lambda: system.effects.count("end")["other"] == 1, "and serves the queue")
    if expected == 2:
        wait_until(lambda: system.effects.count("run")["running"] == 2, "it takes what runs elsewhere")
    else:
        time.sleep(0.5)  # it looks for lost work at once, when idle
    go.touch()
    wait_until(lambda: system.effects.count("end")["running"] >= expected, "it ends")
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert system.effects.count("end")["running"] == expected


@equal("back", stock_redis="lost")
def test_the_slot_of_a_killed_holder_comes_back(system, expected, processes):
    """TRAPS 33: each message that takes the other slot renews stock's counter, so the lost one never expires."""
    if not system.is_ours:
        lost_slot_of_stock(system, processes)
        return
    broker = system.broker()

    @dramatiq.actor(broker=broker, actor_name="bound", queue_name="bound", concurrency=1)
    def bound(name):
        system.effects.add("end", name)

    broker.enqueue(bound.message("held"))
    # The killed holder: it claimed and was not heard of again.
    from tests.conformance.messages import claim  # noqa: PLC0415 - only where an engine is at hand

    assert len(claim(broker.engine, lease=timedelta(seconds=1), bound=1)) == 1
    broker.enqueue(bound.message("next"))
    assert claim(broker.engine, bound=1) == [], "the slot is taken"
    system.start_worker(broker)
    wait_until(lambda: system.effects.count("end") == {"held": 1, "next": 1}, "both run, the slot is back")
    assert expected == "back"


def lost_slot_of_stock(system, processes):
    ttl_ms = 1500
    broker = system.broker()
    work, _ = declare(broker, system.effects)
    slot = {"slot": "two", "ttl_ms": ttl_ms}
    victim = processes.start()
    broker.enqueue(work.message("held", slot | {"die": True}))
    assert victim.wait(20) == 9
    limiter = ConcurrentRateLimiter(RedisBackend(client=broker.client), "two", limit=2, ttl=ttl_ms)
    deadline = time.monotonic() + 2 * ttl_ms / 1000
    while time.monotonic() < deadline:
        with limiter.acquire(raise_on_failure=False) as first, limiter.acquire(raise_on_failure=False) as second:
            assert (first, second) == (True, False), "one of two slots is gone"
        time.sleep(0.05)


@equal(["2"], stock_redis=["1", "2"])
@pytest.mark.parametrize("fault", ["holds_the_interpreter", "is_frozen"])
def test_the_late_end_of_a_worker_that_was_given_up_has_no_effect(system, expected, processes, fault):
    """RELIABILITY, invariant 7: an actor that keeps the interpreter's lock, or a process that is stopped, cannot renew
    its lease. Another worker runs the message; what the first one decides afterwards is refused.
    """
    broker = system.broker()
    work, follow = declare(broker, system.effects)
    for _ in range(2):
        processes.start(threads=1, **RECOVERING)
    wait_until(lambda: len(system.effects.of("started")) == 2, "two workers")
    go, again = system.folder / "go", system.folder / "again"
    fault_of: dict[str, dict[str, Any]] = {
        "holds_the_interpreter": {"hold_gil": 2.5 * LEASE_S},
        "is_frozen": {"wait_for": str(go)},
    }
    plan = fault_of[fault] | {"tell": 1, "again_waits_for": str(again)}
    dramatiq.pipeline([work.message("long", plan), follow.message("after")], broker=broker).run()
    wait_until(lambda: system.effects.count("run")["long"] == 1, "it runs")
    ((_, first),) = system.effects.of("run")
    if fault == "is_frozen":
        os.kill(int(first), signal.SIGSTOP)
    try:
        wait_until(lambda: system.effects.count("run")["long"] == 2, "the other worker runs it")
    finally:
        go.touch()
        os.kill(int(first), signal.SIGCONT)
    wait_until(lambda: ("long", "1") in system.effects.of("end"), "the first one ends while the second runs")
    if system.is_ours:
        wait_until(lambda: "lease.lost" in processes.log_text(), "the late end is refused")
    again.touch()
    wait_until(lambda: len(system.effects.of("follow")) >= len(expected), "what follows runs")
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert sorted(result for _, result in system.effects.of("follow")) == expected
