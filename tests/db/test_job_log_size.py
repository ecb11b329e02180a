"""NUM-05: what a job costs in the ledger."""

from db import jobs
from tests.db.campaign_data import rows

JOBS = 500
ERROR = {"code": "131026", "message": "The recipient cannot receive it (not on WhatsApp, or an old version)."}


def test_a_job_log_takes_less_than_a_kilobyte_with_its_indexes(organization):
    for n in range(JOBS):
        job_id = jobs.create(organization, "contacts.import", "contact-import", {"import_id": str(n)})
        jobs.start(job_id)
        jobs.finish(job_id, "failed", {"rows": 10_000, "inserted": 8_917}, ERROR)
    ((logs, size),) = rows("select count(*), pg_total_relation_size('job_logs') from job_logs")
    assert logs == 2 * JOBS
    assert size / logs < 1024
