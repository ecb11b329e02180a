"""What holds for every job type that is declared: RUN-01, RUN-06, RUN-08, OPT-05."""

import json
import subprocess
import sys

import pytest

from tests.meta.tree import ROOT

TELL = """
import json, sys, typing
import actors
from brokers.job import DEFAULT_TIME_LIMIT, registry
from brokers.current import current_broker
types = {
    name: {
        "fields": {field: str(info.annotation) for field, info in found.payload.model_fields.items()},
        "described": bool(found.description),
        "module": found.actor.fn.__module__,
        "served": found.queue in current_broker().queues,
        "time_limit_s": found.time_limit.total_seconds(),
    }
    for name, found in registry().items()
}
json.dump({"types": types, "default_time_limit_s": DEFAULT_TIME_LIMIT.total_seconds()}, sys.stdout)
"""


@pytest.fixture(scope="module")
def told():
    # a process of its own: it declares every job type on a broker that belongs to nobody else
    command = [sys.executable, "-c", TELL]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout)


def test_payloads_carry_ids_only(told):
    """RUN-06: a worker reads the rows that an id names, so a message never holds stale or personal data."""
    others = {
        f"{name}.{field}: {kind}"
        for name, facts in told["types"].items()
        for field, kind in facts["fields"].items()
        if kind != "<class 'uuid.UUID'>"
    }
    assert not others


def test_every_module_of_jobs_is_found_and_its_queue_is_served(told):
    """RUN-01: what `dramatiq actors` imports."""
    modules = {
        f"{path.parent.name}.{path.stem}"
        for package in ("actors", "pipelines", "periodic")
        for path in (ROOT / package).glob("[a-z]*.py")
    }
    assert {facts["module"] for facts in told["types"].values()} == modules
    assert all(facts["served"] and facts["described"] for facts in told["types"].values())


def test_the_default_time_limit_is_five_minutes(told):
    """OPT-05."""
    assert told["default_time_limit_s"] == 300
    assert all(facts["time_limit_s"] > 0 for facts in told["types"].values())
