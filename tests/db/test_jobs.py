"""The books of jobs: states, progress in percent, idempotency, a log of each step (DB-04, OPT-10)."""

import threading
from uuid import UUID, uuid4

import psycopg
import pytest

from db import jobs, pool


def new(organization: UUID, **options) -> UUID:
    return jobs.create(organization, "contacts.import", "contact-import", {"file": "a.csv"}, **options)


def got(organization: UUID, job_id: UUID) -> jobs.Job:
    job = jobs.get(organization, job_id)
    assert job is not None
    return job


def logged(job_id: UUID) -> list[str]:
    with pool.connection() as connection:
        query = "select status from job_logs where job_id = %s order by created_at, id"
        return [status for (status,) in connection.execute(query, [job_id])]


def test_job_goes_from_queued_over_running_and_a_retry_to_its_end(organization):
    job_id = new(organization, max_attempts=3)
    job = got(organization, job_id)
    assert (job.status, job.attempts, job.percent, job.data) == ("queued", 0, 0.0, {"file": "a.csv"})
    assert jobs.start(job_id)
    assert jobs.retry(job_id, {"code": "x"})
    assert got(organization, job_id).status == "queued"
    assert jobs.start(job_id)
    jobs.report_progress(job_id, 30, 120)
    job = got(organization, job_id)
    assert (job.status, job.attempts, job.percent) == ("running", 2, 25.0)
    assert jobs.finish(job_id, "partial_success", {"rows": 120}, {"failed": [1]})
    job = got(organization, job_id)
    assert (job.status, job.result, job.error_details) == ("partial_success", {"rows": 120}, {"failed": [1]})
    assert job.completed_at is not None
    assert job.started_at is not None
    assert logged(job_id) == ["started", "retried", "started", "partial_success"]


def test_job_that_is_over_stays_as_it_is(organization):
    job_id = new(organization)
    assert jobs.finish(job_id, "cancelled")
    before = got(organization, job_id)
    assert not jobs.start(job_id)
    assert not jobs.retry(job_id, {})
    assert not jobs.finish(job_id, "completed", {"rows": 1})
    jobs.report_progress(job_id, 5, 10)
    assert got(organization, job_id) == before
    assert logged(job_id) == ["cancelled"]


def test_unknown_job_changes_nothing(organization):
    assert not jobs.start(uuid4())
    assert not jobs.finish(uuid4(), "completed")
    assert jobs.get(organization, uuid4()) is None


def test_same_key_of_the_same_organization_is_the_same_job(organization, database):
    other = uuid4()
    with psycopg.connect(database) as connection:
        connection.execute("insert into organizations (id, name) values (%s, 'Other')", [other])
    first = new(organization, idempotency_key="k")
    assert new(organization, idempotency_key="k") == first
    assert new(organization, idempotency_key="l") != first
    assert new(other, idempotency_key="k") != first
    assert new(organization) != new(organization)
    assert jobs.get(other, first) is None


def test_same_key_at_the_same_time_makes_one_job(organization):
    found: list[UUID] = []
    threads = [threading.Thread(target=lambda: found.append(new(organization, idempotency_key="k"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_job_and_log_are_undone_with_the_caller_s_transaction(organization):
    job_id = uuid4()
    with pytest.raises(RuntimeError), pool.transaction():
        begin_and_fail(organization, job_id)
    assert jobs.get(organization, job_id) is None
    assert logged(job_id) == []


def begin_and_fail(organization: UUID, job_id: UUID) -> None:
    new(organization, job_id=job_id)
    jobs.start(job_id)
    raise RuntimeError


def test_percent_is_a_hundred_only_at_the_end(organization):
    job_id = new(organization)
    jobs.start(job_id)
    jobs.report_progress(job_id, 10, 10)
    assert got(organization, job_id).percent == 99.9
    jobs.finish(job_id, "completed")
    assert got(organization, job_id).percent == 100.0
