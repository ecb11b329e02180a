"""Import contacts from an uploaded file (JOB-04).

Enqueued by `fanfare contacts import` and by the API, after `db.imports.accept` has stored the file. Changes `contacts`,
`imports`, `import_errors` and the job's progress, and deletes the stored file at the end. Idempotency key: the import's
id. A run goes on where the one before ended, and one of a complete import only returns its result.
"""

from datetime import timedelta
from uuid import UUID

from brokers.job import Payload, Priority, job
from core.errors import RetryPolicy
from core.logging import get_logger
from db import imports
from db.import_run import run

log = get_logger(__name__)


class ImportContacts(Payload):
    """Which import."""

    import_id: UUID


@job(
    name=imports.JOB_TYPE,
    queue=imports.QUEUE,
    priority=Priority.NORMAL,
    retry=RetryPolicy(attempts=5, backoff=timedelta(seconds=2), factor=4.0),
    time_limit=timedelta(hours=2),
    concurrency=2,
)
def import_contacts(payload: ImportContacts) -> dict[str, object]:
    """Import the rows of a contacts file that are not imported yet; the result is `Import.summary`."""

    def told(done: int, total: int) -> None:
        log.info("import.progressed", import_id=str(payload.import_id), done=done, total=total)

    return run(payload.import_id, told)
