"""A worker that dies at any call of its engine loses nothing, and doubles nothing but what was running.

TRAPS 1, 2, 4, 6, 9, 25, 32; RELIABILITY, crash-point enumeration. Each point is tried with real processes.
"""

import json
import subprocess
import sys

import pytest

from tests.faults.crash_points import SCENARIOS
from tests.faults.processes import ROOT


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("system", ["postgres", "redis"], indirect=True)
def test_the_effect_happens_once_wherever_a_worker_dies(system, name):
    """At least once always; exactly once where the actor had not run or was finished; what follows, exactly once."""
    command = [sys.executable, "-m", "tests.faults.crash_points", system.kind, system.url, name, str(system.folder)]
    explored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert explored.returncode == 0, explored.stderr
    found = json.loads(explored.stdout.splitlines()[-1])
    assert found["problems"] == [], explored.stderr
    died = {(method, phase) for method, _, phase in found["died"]}
    sent = {("create_group", "before"), ("create_group", "after")} if name == "group" else set()
    assert died >= sent | {
        (method, phase) for method in ("enqueue_many", "claim", "finish_many") for phase in ("before", "after")
    }
