"""The request takes effect and its reply is lost: nothing may be stranded, and nothing may happen twice."""

from datetime import timedelta

import dramatiq

from tests.conftest import wait_until
from tests.faults.actors import QUEUE, declare
from tests.faults.expect import equal
from tests.faults.settling import settle

LONG = timedelta(minutes=5)
"""So that nothing is put right by a lease that ran out."""


@equal(30, stock_redis="stranded")
def test_the_reply_of_one_claim_is_lost(system, expected):
    """TRAPS 28, 8: stock leaves what it fetched in the set of a worker that lives, so nobody takes it back.

    redis-py repeats the fetch by itself and gets other messages.
    """
    work, _ = declare(broker := system.broker(proxied=True, lease=LONG), system.effects)
    producer = system.broker()
    declare(producer, system.effects)
    for n in range(30):
        producer.enqueue(work.message(f"lost-{n}", {}))
    system.proxy.lose_replies(1, reply=lambda reply: b"lost-" in reply)
    system.start_worker(broker)
    if expected == 30:
        wait_until(lambda: len(system.effects.count("end")) == 30, "all run")
        wait_until(lambda: not system.unfinished(broker), "nothing is left")
        assert set(system.effects.count("run").values()) == {1}
    else:
        wait_until(lambda: system.effects.count("end"), "redis-py fetches again")
        settle(lambda: system.effects.count("end"))
        assert len(system.effects.count("end")) < 30
        assert system.unfinished(broker) == 30 - len(system.effects.count("end"))
    assert system.proxy.passed.lost_replies == 1


@equal(1, stock_redis=2)
def test_the_reply_of_one_enqueue_is_lost(system, expected):
    """TRAPS 29: redis-py sends stock's script again, which puts the message in line again. Ours counts ids."""
    producer = system.broker(proxied=True, lease=LONG)
    work, _ = declare(producer, system.effects)
    producer.enqueue(work.message("warm", {}))  # connections, scripts and statements are there
    system.proxy.lose_replies(1, request=lambda request: b"lost-" in request)
    producer.enqueue(work.message("lost-0", {}))
    assert system.proxy.passed.lost_replies == 1
    consumer = system.broker()
    declare(consumer, system.effects)
    system.start_worker(consumer)
    wait_until(lambda: system.effects.count("run")["lost-0"] >= expected, "it runs")
    settle(lambda: system.effects.count("run"))
    assert system.effects.count("run")["lost-0"] == expected


@equal(2, stock_redis=3)
def test_the_reply_of_one_retry_is_lost(system, expected):
    """TRAPS 29, 9: the retry is stored twice by stock; our finish is applied once however often it is sent."""
    broker = system.broker(proxied=True, lease=LONG)
    work, _ = declare(broker, system.effects)
    system.start_worker(broker)
    broker.enqueue(work.message("warm", {}))
    wait_until(lambda: not system.unfinished(broker), "the first one is done")
    message = work.message("once", {"fail": 1})
    producer = system.broker()
    declare(producer, system.effects)
    if system.is_ours:
        # A claim names the message in its reply only, a finish in its request.
        system.proxy.lose_replies(1, request=lambda request: message.message_id.encode() in request)
    else:
        system.proxy.lose_replies(1, request=lambda request: b"traceback" in request)
    producer.enqueue(message)
    wait_until(lambda: system.effects.count("run")["once"] >= expected, "it runs again")
    settle(lambda: system.effects.count("run"))
    assert system.effects.count("run")["once"] == expected
    assert system.proxy.passed.lost_replies == 1
    wait_until(lambda: not system.unfinished(broker), "nothing is left")


@equal(1, stock_redis=2)
def test_the_reply_of_the_finish_with_a_next_step_is_lost(system, expected):
    """TRAPS 29: the next step of a pipeline and the acknowledgement are one step, and take effect once."""
    broker = system.broker(proxied=True, lease=LONG)
    work, follow = declare(broker, system.effects)
    system.start_worker(broker)
    broker.enqueue(work.message("warm", {}))
    wait_until(lambda: not system.unfinished(broker), "the first one is done")
    first, second = work.message("first", {}), follow.message("second")
    producer = system.broker()
    producer_work, producer_follow = declare(producer, system.effects)
    assert (producer_work.queue_name, producer_follow.queue_name) == (QUEUE, QUEUE)
    wanted = second.message_id.encode()
    # The claim of the first step and the finish that stores the second both name it; only the latter as a request.
    system.proxy.lose_replies(1, request=lambda request: wanted in request)
    dramatiq.pipeline([first, second], broker=producer).run()
    wait_until(lambda: system.effects.count("follow")["second"] >= expected, "the second step runs")
    settle(system.effects.all)
    assert system.effects.count("follow")["second"] == expected
    assert (system.effects.count("run")["first"], system.proxy.passed.lost_replies) == (1, 1)
