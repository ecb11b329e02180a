"""Leases of a second: for those who want lost work back sooner than by default."""

from datetime import timedelta

import pytest

from tests.conftest import wait_until
from tests.faults.actors import declare


@pytest.mark.parametrize("system", ["postgres", "redis"], indirect=True)
def test_a_short_lease_is_renewed_while_the_actor_runs(system):
    """RELIABILITY, invariant 7: heartbeats keep up with the lease, whatever it is."""
    broker, other = system.broker(lease=timedelta(seconds=1)), system.broker()
    work, _ = declare(broker, system.effects)
    system.start_worker(broker)
    broker.enqueue(work.message("long", {"sleep": 2.5}))

    def ended() -> bool:
        assert other.engine.reap(max_lost=3) == 0, "its lease ran out"
        return bool(system.effects.count("end")["long"])

    wait_until(ended, "it ends")
    wait_until(lambda: not system.unfinished(broker), "nothing is left")
    assert system.effects.count("run")["long"] == 1
