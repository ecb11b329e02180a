"""A network that misbehaves in every way at once, for a while."""

import random
import time

import dramatiq
import pytest

from tests.conftest import wait_until
from tests.faults.actors import declare

MESSAGES = 150
BAD_FOR_S = 3.0
SILENCE_S = 0.3
SEED = 1


@pytest.mark.parametrize("system", ["postgres", "redis"], indirect=True)
def test_resets_refusals_silence_and_lost_replies_lose_and_double_nothing(system, monkeypatch):
    """TRAPS 25, 28, 29; RELIABILITY, invariants 1 and 8: while leases hold, each message and each next step runs once.

    The worker's connections go through the proxy, the producer's do not.
    """
    monkeypatch.setattr("brokers.leases.STORE_DOWN_PAUSE_S", 0.1)
    monkeypatch.setattr("brokers.consumer.STORE_DOWN_PAUSE_S", 0.1)
    broker = system.broker(proxied=True, answer_timeout_s=SILENCE_S / 2)
    declare(broker, system.effects)
    producer = system.broker()
    work, follow = declare(producer, system.effects)
    for n in range(MESSAGES):
        name = f"message-{n}"
        dramatiq.pipeline([work.message(name, {"sleep": 0.05}), follow.message(name)], broker=producer).run()
    system.start_worker(broker)
    misbehave(system.proxy, random.Random(SEED))
    wait_until(lambda: len(system.effects.count("follow")) == MESSAGES, "all run")
    wait_until(lambda: not system.unfinished(producer), "nothing is left")
    assert set(system.effects.count("run").values()) == {1}
    assert set(system.effects.count("follow").values()) == {1}
    assert system.proxy.passed.lost_replies > 0


def misbehave(proxy, choice: random.Random) -> None:
    deadline = time.monotonic() + BAD_FOR_S
    while time.monotonic() < deadline:
        match choice.randrange(5):
            case 0:
                proxy.reset()
            case 1:
                proxy.refuse()
                time.sleep(SILENCE_S / 2)
                proxy.accept()
            case 2:
                proxy.black_hole()
                time.sleep(SILENCE_S)
                proxy.forward()
            case _:
                proxy.lose_replies(choice.randrange(1, 4))
        time.sleep(0.05)
    proxy.lose_replies(0)
