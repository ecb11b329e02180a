"""Imports whose process is killed: nothing lost, nothing doubled (JOB-04, RELIABILITY: crash points)."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from db import imports
from db.import_run import run
from tests.conftest import wait_until
from tests.db.test_imports import EXPECTED, SAMPLE, assert_sample_is_imported

ROOT = Path(__file__).parents[2]


def test_import_survives_a_kill_at_random_moments(organization):
    """Real processes, real SIGKILL, while the sample goes in."""
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    rand = random.Random()  # every run tries other moments
    script = f"from uuid import UUID; from db.import_run import run; run(UUID('{import_id}'))"
    kills = 0
    for part in range(1, 6):
        worker = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)  # our own script
        wait_until(lambda goal=part * 1500: imports.load(import_id).records_done >= goal, "the import does not go on")
        time.sleep(rand.uniform(0, 0.03))  # anywhere within a batch
        worker.kill()
        kills += worker.wait() == -9
    assert kills == 5
    assert imports.load(import_id).records_done < EXPECTED["rows"]
    assert_sample_is_imported(run(import_id), organization)


@pytest.mark.timeout(120)
def test_import_survives_death_at_every_exchange_with_the_database(database):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.db.import_crashes"]
    environment = {**os.environ, "DATABASE_URL": database}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # our own
    assert done.returncode == 0, done.stderr
    crashes = json.loads(done.stdout)
    assert crashes["before"] >= 20
    assert crashes["after"] >= 20
