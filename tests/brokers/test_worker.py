"""dramatiq's features as users know them, run by dramatiq's own worker on our engines.

RUN-01, RUN-02, RUN-07, RUN-08, RUN-09, OPT-01 to OPT-06, OPT-08, OPT-11, OPT-13, OPT-14.
"""

import threading
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

import dramatiq
import pytest
from dramatiq.errors import Retry
from dramatiq.rate_limits import ConcurrentRateLimiter
from dramatiq.results.errors import ResultTimeout

from brokers.engine import Envelope
from brokers.fan_out import fan_out
from brokers.job import Payload, Priority, job
from core.clock import uuid7
from core.errors import Cancelled, NotYet, PermanentError, RetryPolicy, ThrottledError, TransientError
from tests.e2e.stack import until

QUICK = RetryPolicy(attempts=3, backoff=timedelta(milliseconds=50), jitter=0, bug_attempts=2)


class Note(Payload):
    """A number to note down."""

    n: int = 0


@pytest.fixture
def seen():
    return []


def dead(broker, queue="q"):
    return until(lambda: broker.engine.dead_letters(queue), 10, "a dead letter")


def test_a_sent_message_runs_and_its_result_can_be_waited_for(broker, start_worker):
    @dramatiq.actor(store_results=True)
    def add(a, b):
        return a + b

    start_worker()
    assert add.send(1, 2).get_result(block=True) == 3


def test_a_missing_result_times_out(broker):
    @dramatiq.actor(store_results=True)
    def never():
        return 1

    with pytest.raises(ResultTimeout):
        never.send().get_result(block=True, timeout=50)


def test_a_job_type_gets_its_validated_payload(broker, start_worker, seen):
    class Named(Payload):
        contact_id: UUID

    @job(name="t.named", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def named(payload: Named) -> None:
        seen.append(payload)

    start_worker()
    contact_id = uuid7()
    named.send(contact_id=contact_id)
    broker.join("q", timeout=5000)
    assert seen == [Named(contact_id=contact_id)]


def test_a_message_with_wrong_data_is_dead_at_once_and_says_why(broker, start_worker):
    @job(name="t.strict", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def strict(payload: Note) -> None:
        raise AssertionError("must not run")

    start_worker()
    strict.send(n="many", other=1)
    (letter,) = dead(broker)
    assert (letter.code, letter.attempts, letter.actor) == ("payload_invalid", 1, "t.strict")
    assert "n: " in letter.error
    assert "other: " in letter.error


@pytest.mark.parametrize(
    ("error", "runs", "code"),
    [
        (lambda: TransientError("later", code="busy"), 3, "busy"),
        (lambda: PermanentError("never", code="gone"), 1, "gone"),
        (lambda: KeyError("bug"), 2, "KeyError"),
    ],
)
def test_failures_are_tried_as_their_class_says_and_kept_as_dead_letters(broker, start_worker, seen, error, runs, code):
    """OPT-03, OPT-06, OPT-08; TRAPS 9: nothing is acknowledged before what follows it is stored."""

    @job(name="t.fail", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def fail(payload: Note) -> None:
        seen.append(payload.n)
        raise error()

    start_worker()
    fail.send(n=1)
    (letter,) = dead(broker)
    assert (len(seen), letter.attempts, letter.code) == (runs, runs, code)
    assert broker.engine.requeue([letter.message_id]) == 1
    until(lambda: len(seen) == 2 * runs, 10, "the requeued message runs again as often")


@pytest.mark.parametrize(
    "error",
    [
        lambda: NotYet("wait", until=datetime.now(UTC) + timedelta(milliseconds=50)),
        lambda: ThrottledError("slow down", retry_after=timedelta(milliseconds=50)),
    ],
)
def test_waiting_costs_no_attempt(broker, start_worker, seen, error):
    """TRAPS 5, 34: stock counts a refused slot as an attempt."""

    @job(name="t.wait", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def wait(payload: Note) -> None:
        seen.append(1)
        if len(seen) < 6:
            raise error()

    start_worker()
    wait.send()
    until(lambda: len(seen) == 6, 10, "six runs with three attempts")
    broker.join("q", timeout=5000)
    assert broker.engine.dead_letters("q") == []


def test_a_cancelled_job_is_neither_retried_nor_dead(broker, start_worker, seen):
    @job(name="t.stop", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def stop(payload: Note) -> None:
        seen.append(1)
        raise Cancelled("no longer wanted")

    start_worker()
    stop.send()
    until(lambda: seen, 5, "it runs")
    broker.join("q", timeout=5000)
    assert (seen, broker.engine.dead_letters("q")) == ([1], [])


def test_plain_actors_keep_dramatiqs_options(broker, start_worker, seen):
    @dramatiq.actor(queue_name="q", max_retries=2, min_backoff=10, max_backoff=20)
    def fail(kind):
        seen.append(kind)
        raise ValueError(kind)

    @dramatiq.actor(queue_name="q", throws=(KeyError,))
    def throws():
        seen.append("throws")
        raise KeyError

    @dramatiq.actor(queue_name="q", retry_when=lambda retries, _error: retries < 1, min_backoff=10)
    def sometimes():
        seen.append("when")
        raise ValueError

    @dramatiq.actor(queue_name="q", max_retries=1)
    def again():
        seen.append("again")
        raise Retry(delay=10)

    start_worker()
    for message in (fail.message("retries"), throws.message(), sometimes.message(), again.message()):
        broker.enqueue(message)
    until(lambda: len(broker.engine.dead_letters("q")) == 4, 10, "all dead")
    assert sorted(seen) == ["again"] * 2 + ["retries"] * 3 + ["throws"] + ["when"] * 2


def test_pipelines_pass_results_on(broker, start_worker):
    @dramatiq.actor(store_results=True)
    def double(n):
        return 2 * n

    @dramatiq.actor(store_results=True)
    def fixed():
        return "own"

    start_worker()
    pipe = dramatiq.pipeline([double.message(3), double.message(), double.message()]).run()
    assert pipe.get_result(block=True) == 24
    ignoring = dramatiq.pipeline([double.message(3), fixed.message_with_options(pipe_ignore=True)]).run()
    assert ignoring.get_result(block=True) == "own"


def test_callbacks_follow_success_and_failure(broker, start_worker, seen):
    @dramatiq.actor
    def succeeded(message, result):
        seen.append(("success", message["actor_name"], result))

    @dramatiq.actor
    def failed(message, error):
        seen.append(("failure", message["actor_name"], error["type"]))

    @dramatiq.actor(queue_name="q", on_success="succeeded", on_failure="failed", max_retries=0, store_results=True)
    def work(n):
        return 1 // n

    start_worker()
    work.send(1)
    work.send(0)
    until(lambda: len(seen) == 2, 5, "both callbacks")
    assert sorted(seen) == [("failure", "work", "ZeroDivisionError"), ("success", "work", 1)]


@pytest.mark.parametrize("run", [lambda group: group.run(), fan_out])
def test_a_group_completes_once_though_children_fail(broker, start_worker, seen, run):
    """TRAPS 1, 32: with stock a dead child means that the callback never comes."""

    @dramatiq.actor
    def completed(name):
        seen.append((name, done.copy()))

    done = []

    @dramatiq.actor(queue_name="q", max_retries=1, min_backoff=10)
    def child(n):
        done.append(n)
        if n == 3:
            raise ValueError(n)

    group = dramatiq.group([child.message(n) for n in range(10)])
    group.add_completion_callback(completed.message("all"))
    start_worker()
    run(group)
    until(lambda: seen, 10, "the callback")
    broker.join("q", timeout=5000)
    broker.join("default", timeout=5000)
    assert [name for name, _ in seen] == ["all"]
    assert sorted(seen[0][1]) == [0, 1, 2, 3, 3, *range(4, 10)]


def test_priorities_decide_over_queues_and_age(broker, start_worker, seen):
    """OPT-01."""

    def actor_for(priority):
        @job(name=f"t.{priority.name}", queue=f"q{int(priority)}", priority=priority, retry=QUICK)
        def note(payload: Note) -> None:
            seen.append(priority.name)

        return note

    actors = [actor_for(priority) for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL)]
    for actor in actors:
        for _ in range(3):
            actor.send()
    start_worker(worker_threads=1)
    until(lambda: len(seen) == 12, 10, "all run")
    assert seen == ["CRITICAL"] * 3 + ["HIGH"] * 3 + ["NORMAL"] * 3 + ["LOW"] * 3


def test_messages_of_one_priority_run_in_order(broker, start_worker, seen):
    @job(name="t.order", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def note(payload: Note) -> None:
        seen.append(payload.n)

    broker.enqueue_many(note.message(n=n) for n in range(200))
    start_worker(worker_threads=1)
    until(lambda: len(seen) == 200, 10, "all run")
    assert seen == list(range(200))


def test_delayed_messages_wait_in_the_store_for_their_time(broker, start_worker, seen):
    """OPT-02; TRAPS 6, 7: stock keeps them in a worker's memory, and refuses more than seven days on Redis."""

    @dramatiq.actor(queue_name="q")
    def note(name):
        seen.append((name, time.time()))

    sent = time.time()
    note.send_with_options(args=("soon",), delay=700)
    note.send_with_options(args=("at",), run_at=datetime.now(UTC) + timedelta(milliseconds=400))
    note.send_with_options(args=("weeks",), delay=30 * 24 * 3600 * 1000)
    start_worker()
    until(lambda: len(seen) == 2, 10, "two are due")
    assert [name for name, _ in seen] == ["at", "soon"]
    assert seen[0][1] - sent >= 0.4
    assert seen[1][1] - sent >= 0.7
    assert broker.engine.depths(["q"])[0].delayed == 1


def test_an_unknown_actor_and_an_undecodable_message_are_dead_alone(broker, start_worker, seen):
    """TRAPS 30: stock strands the rest of the batch."""

    @dramatiq.actor(queue_name="q")
    def note(n):
        seen.append(n)

    broker.enqueue_many([note.message(n) for n in range(8)])
    unknown = note.message(99).copy(actor_name="nobody")
    broker.enqueue(unknown)
    broker.engine.enqueue_many([Envelope(str(uuid7()), "q", 3, b'{"not": "a message"}')])
    broker.enqueue_many([note.message(n) for n in range(8, 16)])
    start_worker()
    until(lambda: len(seen) == 16, 10, "the neighbours run")
    letters = until(lambda: len(found := broker.engine.dead_letters("q")) == 2 and found, 10, "two dead letters")
    assert sorted(letter.code for letter in letters) == ["undecodable", "unknown_actor"]


def test_a_job_over_its_time_limit_is_interrupted(broker, start_worker, seen):
    """OPT-05."""

    @job(
        name="t.slow",
        queue="q",
        priority=Priority.NORMAL,
        retry=RetryPolicy(attempts=1),
        time_limit=timedelta(milliseconds=300),
    )
    def slow(payload: Note) -> None:
        for _ in range(600):
            time.sleep(0.01)
        seen.append("finished")

    start_worker()
    slow.send()
    (letter,) = dead(broker)
    assert letter.code == "TimeLimitExceeded"
    assert seen == []


def test_concurrency_is_bounded_in_the_whole_system(broker, start_worker):
    """RUN-08."""
    running, most = [], []
    mutex = threading.Lock()

    @job(name="t.bound", queue="q", priority=Priority.NORMAL, retry=QUICK, concurrency=2)
    def bound(payload: Note) -> None:
        with mutex:
            running.append(1)
            most.append(len(running))
        time.sleep(0.05)
        with mutex:
            running.pop()

    for n in range(8):
        bound.send(n=n)
    start_worker(worker_threads=6)
    until(lambda: len(most) == 8, 15, "all run")
    assert max(most) == 2


def test_a_rate_spaces_the_starts(broker, start_worker, seen):
    """RUN-08."""

    @job(name="t.paced", queue="q", priority=Priority.NORMAL, retry=QUICK, rate=20)
    def paced(payload: Note) -> None:
        seen.append(time.monotonic())

    broker.enqueue_many(paced.message(n=n) for n in range(7))
    start_worker()
    until(lambda: len(seen) == 7, 10, "all run")
    assert max(seen) - min(seen) >= 6 / 20 - 0.02


def test_dramatiqs_own_rate_limiters_work(broker, start_worker):
    """RUN-03: limits on Postgres, too; TRAPS 14."""
    limiter = ConcurrentRateLimiter(broker.rate_limiter_backend(), "one-at-a-time", limit=1)
    with limiter.acquire(raise_on_failure=False) as first, limiter.acquire(raise_on_failure=False) as second:
        assert (first, second) == (True, False)


def test_a_process_has_few_threads_however_many_queues_it_serves(broker, start_worker, seen):
    """Connections and threads do not grow with the queues."""

    def actor_for(n):
        @dramatiq.actor(queue_name=f"q{n}", actor_name=f"a{n}")
        def note():
            seen.append(n)

        return note

    actors = [actor_for(n) for n in range(25)]
    before = threading.active_count()
    start_worker(worker_threads=2)
    for actor in actors:
        actor.send()
    until(lambda: len(seen) == 25, 10, "all queues are served")
    assert threading.active_count() - before <= 10


def test_stopping_hands_prefetched_messages_back_uncounted(broker, start_worker, seen):
    """RUN-09; RELIABILITY, invariant 13."""
    gate = threading.Event()

    @job(name="t.hold", queue="q", priority=Priority.NORMAL, retry=QUICK)
    def hold(payload: Note) -> None:
        seen.append(payload.n)
        gate.wait(10)

    broker.enqueue_many(hold.message(n=n) for n in range(20))
    worker = start_worker(worker_threads=2)
    until(lambda: len(seen) == 2, 5, "two begin")
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    depth = until(lambda: (d := broker.engine.depths(["q"])[0]).waiting == 18 and d, 2, "the others are handed back")
    assert depth.leased == 2
    gate.set()
    stopping.join(10)
    assert (broker.engine.depths(["q"])[0].leased, sorted(seen)) == (0, [0, 1])
    again = start_worker(worker_threads=4)
    until(lambda: len(seen) == 20, 10, "the rest run")
    assert sorted(seen) == list(range(20))
    assert again.worker_threads == 4


def test_a_whitelist_limits_the_queues_served(broker, start_worker, seen):
    @dramatiq.actor(queue_name="mine")
    def mine():
        seen.append("mine")

    @dramatiq.actor(queue_name="other")
    def other():
        seen.append("other")

    start_worker(queues={"mine"})
    other.send()
    mine.send()
    until(lambda: seen, 5, "mine runs")
    assert seen == ["mine"]
    assert broker.engine.depths(["other"])[0].waiting == 1


def test_flush_drops_what_waits(broker, seen):
    @dramatiq.actor(queue_name="q")
    def note():
        seen.append(1)

    note.send()
    note.send_with_options(delay=60_000)
    broker.flush_all()
    assert [d for d in broker.engine.depths(["q"]) if d.waiting or d.delayed] == []
