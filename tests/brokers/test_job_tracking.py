"""A tracked message keeps its job's row and tells in the log how it went (MON-02, DB-01, OPT-06)."""

import json
import logging

import pytest

from brokers.job import Payload, Priority, job
from core import logging as our_logging
from core.errors import PermanentError, RetryPolicy, TransientError
from db import jobs
from tests.db.campaign_data import rows


class Count(Payload):
    """How many items."""

    items: int = 0


@pytest.fixture
def run(broker, start_worker, organization, settings_env, capsys):
    """Runs a function as the tracked job of a message; returns the job's row and the lines logged."""
    previous = logging.getLogger().handlers[:]
    our_logging.configure(settings_env(ENVIRONMENT="production"))

    def run(function):
        actor = job(
            name="t.tracked", queue="q", priority=Priority.NORMAL, retry=RetryPolicy(attempts=2, backoff=TINY, jitter=0)
        )(function)
        job_id = jobs.create(organization, "t.tracked", "q", {})
        start_worker(worker_threads=1)
        actor.send_with_options(job_id=str(job_id))
        broker.join("q", timeout=10_000)
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
        return jobs.get(organization, job_id), [line for line in lines if line.get("job_id") == str(job_id)]

    yield run
    logging.getLogger().handlers[:] = previous


TINY = RetryPolicy().backoff / 100


def test_a_job_that_ends_well_is_completed_with_its_duration(run):
    def work(payload: Count) -> dict:
        return {"sent": 3}

    row, lines = run(work)
    assert (row.status, row.result, row.attempts) == ("completed", {"sent": 3}, 1)
    assert [line["event"] for line in lines] == ["job.started", "job.completed"]
    assert lines[1]["duration_s"] >= 0
    assert rows("select status from job_logs where job_id = %s order by created_at", row.id) == [
        ("started",),
        ("completed",),
    ]


def test_a_partial_result_is_the_jobs_status(run):
    def work(payload: Count) -> dict:
        return {"status": "partial_success", "error_details": {"131026": 2}}

    row, _ = run(work)
    assert (row.status, row.error_details) == ("partial_success", {"131026": 2})


def test_a_job_that_fails_for_good_says_why(run):
    def work(payload: Count) -> None:
        raise PermanentError("the file is empty", code="file_empty")

    row, lines = run(work)
    assert (row.status, row.error_details) == ("failed", {"code": "file_empty", "message": "the file is empty"})
    failed = next(line for line in lines if line["event"] == "job.failed")
    assert (failed["code"], failed["level"]) == ("file_empty", "error")


def test_a_job_that_is_tried_again_waits_and_then_completes(run):
    tries = []

    def work(payload: Count) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise TransientError("busy", code="busy")

    row, lines = run(work)
    assert (row.status, row.attempts) == ("completed", 2)
    assert [line["event"] for line in lines].count("job.started") == 2
    assert next(line for line in lines if line["event"] == "message.failed")["retry_in_s"] > 0
