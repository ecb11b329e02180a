"""A backlog costs neither time at a claim, nor memory in a worker, nor its order; NUM-02, OPT-01.

With 200 000 messages; `python -m tests.deployments.backlog 1000000` measures the same with a million.
"""

import pytest

from tests.conformance.servers import running
from tests.conftest import wait_until
from tests.deployments.backlog import cost, engine_of
from tests.deployments.workers import note, running_worker

COUNT = 200_000
RAN = 3000
OVERTAKEN = 3000
"""A process holds at most 1000 messages; those, and what it ended meanwhile, may run before an urgent one."""
MEMORY_MB = 25
"""All messages in one process would be five times as much."""


@pytest.fixture(params=["postgres", "redis7"])
def kind(request) -> str:
    return str(request.param)


@pytest.fixture
def store_url(kind, request):
    """An empty store that nobody else keeps busy."""
    if kind == "postgres":
        yield request.getfixturevalue("database")
        return
    with running(kind) as server:
        yield server.url


def test_a_backlog_costs_no_time_no_memory_and_no_order(kind, store_url, tmp_path):
    found = cost(kind, store_url, COUNT)
    # A claim that looks through the backlog takes some 200 times as long; `bench engines` holds it to a closer bound.
    assert found.large_ms <= 5 * found.small_ms + 5

    variable = {"DATABASE_URL" if kind == "postgres" else "BROKER_URL": store_url, "BROKER_FALLBACK": "false"}
    engine = engine_of(kind, store_url)
    with running_worker(tmp_path, threads=4, **variable) as worker:
        at_start_kb = worker.status("VmRSS")
        wait_until(lambda: len(worker.ran()) > RAN, "the worker does not work off the backlog", 40)
        engine.enqueue_many([note("urgent", priority=1)])
        ran = len(worker.ran())
        wait_until(lambda: "urgent" in worker.ran(), "the urgent message does not run")
        assert worker.ran().index("urgent") < ran + OVERTAKEN
        assert (worker.status("VmHWM") - at_start_kb) / 1024 < MEMORY_MB
    engine.close()
