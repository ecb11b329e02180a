"""Old rows go, young ones stay (JOB-25, OPT-09)."""

from datetime import timedelta

from core.clock import uuid7
from db import retention
from tests.db.campaign_data import rows

DAY = timedelta(days=1)


def test_only_what_is_old_is_deleted(organization):
    for age in (1, 89, 91, 92, 100, 200):
        rows(
            """
            insert into job_logs (id, job_id, type, organization_id, status, created_at)
            values (%s, %s, 't', %s, 'completed', now() - %s) returning id
            """,
            uuid7(),
            uuid7(),
            organization,
            age * DAY,
        )
    assert retention.clean(job_logs=90 * DAY, import_files=DAY, batch=3).job_logs == 4
    assert rows("select count(*) from job_logs") == [(2,)]
    assert retention.clean(job_logs=90 * DAY, import_files=DAY).job_logs == 0


def test_files_of_imports_go_after_they_ended(organization):
    old, new, running = (uuid7() for _ in range(3))
    for job_id, ended in ((old, 8 * DAY), (new, DAY), (running, None)):
        status = "running" if ended is None else "failed"
        rows(
            """
            insert into jobs (id, organization_id, type, queue, status, completed_at)
            values (%s, %s, 't', 'q', %s, now() - %s::interval) returning id
            """,
            job_id,
            organization,
            status,
            ended,
        )
        rows(
            """
            insert into imports (id, organization_id, file_name, source_chunks, source_lines)
            values (%s, %s, 'a.csv', 1, 1) returning id
            """,
            job_id,
            organization,
        )
        rows("insert into import_chunks (import_id, number, bytes) values (%s, 0, 'x') returning number", job_id)
    assert retention.clean(job_logs=90 * DAY, import_files=7 * DAY).import_files == 1
    assert rows("select import_id from import_chunks order by 1") == sorted([(new,), (running,)])
