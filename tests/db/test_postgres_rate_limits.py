"""dramatiq's own limiters and barrier on our backend, modelled on what dramatiq's tests show of Redis (trap 14)."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from dramatiq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter

from brokers.postgres.rate_limits import PostgresRateLimiterBackend

THREADS = 8


@pytest.fixture(params=[False, True], ids=["direct", "pooler"])
def backend(database: str, request: pytest.FixtureRequest) -> Iterator[PostgresRateLimiterBackend]:
    backend = PostgresRateLimiterBackend(database, transaction_pooling=request.param)
    yield backend
    backend.close()


def at_once(work: Callable[[], bool]) -> list[bool]:
    """What `work` returns in each of the threads that call it at the same moment."""
    results: list[bool] = []
    start = threading.Barrier(THREADS)

    def run() -> None:
        start.wait()
        results.append(work())

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_concurrent_limiter_lets_as_many_in_and_frees_their_places(backend):
    limiter = ConcurrentRateLimiter(backend, "three", limit=3)
    everyone = threading.Barrier(THREADS)

    def work() -> bool:
        with limiter.acquire(raise_on_failure=False) as acquired:
            everyone.wait()
            return bool(acquired)

    assert sum(at_once(work)) == 3
    assert sum(at_once(work)) == 3


def test_concurrent_limiter_forgets_a_killed_holder(backend):
    """Fault 33: the place comes back when its time to live has passed."""
    limiter = ConcurrentRateLimiter(backend, "mutex", ttl=300)
    holder = limiter.acquire()
    holder.__enter__()
    deadline = time.monotonic() + 5
    while True:
        with limiter.acquire(raise_on_failure=False) as acquired:
            if acquired:
                break
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_bucket_limiter_counts_by_bucket(backend):
    limiter = BucketRateLimiter(backend, "bucket", limit=5, bucket=3_600_000)

    def work() -> bool:
        with limiter.acquire(raise_on_failure=False) as acquired:
            return bool(acquired)

    assert sum(at_once(work)) == 5
    assert not work()


def test_window_limiter_counts_over_the_window(backend):
    limiter = WindowRateLimiter(backend, "window", limit=5, window=3600)

    def work() -> bool:
        with limiter.acquire(raise_on_failure=False) as acquired:
            return bool(acquired)

    assert sum(at_once(work)) == 5
    assert not work()


def test_barrier_opens_once_for_the_last_party(backend):
    barrier = Barrier(backend, "barrier")
    assert barrier.create(THREADS)
    assert not barrier.create(THREADS)
    assert sum(map(bool, at_once(lambda: barrier.wait(block=False)))) == 1


def test_barrier_holds_everyone_until_the_last_party(backend):
    barrier = Barrier(backend, "blocking")
    barrier.create(THREADS)
    assert at_once(lambda: barrier.wait(timeout=10_000)) == [True] * THREADS


def test_barrier_gives_up_after_its_timeout(backend):
    barrier = Barrier(backend, "alone")
    barrier.create(2)
    assert not barrier.wait(timeout=1000)


def test_counters_end_with_their_time_to_live(backend):
    assert backend.add("key", 5, 200)
    assert not backend.add("key", 1, 200)
    assert not backend.incr("key", 1, 5, 200)
    deadline = time.monotonic() + 5
    while not backend.add("key", 1, 60_000):
        assert time.monotonic() < deadline
    assert backend.incr("key", 4, 5, 60_000)
    assert not backend.decr("key", 6, 0, 60_000)
    assert backend.decr("key", 5, 0, 60_000)
