"""Deletes, every night, what has become old (JOB-25).

Sent by the scheduler. Removes job logs and the stored files of ended imports by the ages below, and dead letters as the
settings say; running it twice, or stopping it half way, does no harm.
"""

from datetime import timedelta

from brokers.current import current_broker
from brokers.job import Payload, Priority, job
from brokers.retention import trim_dead_letters
from core.errors import RetryPolicy
from core.logging import get_logger
from core.settings import get_settings
from db import retention

log = get_logger(__name__)

JOB_LOGS_KEPT = timedelta(days=90)
IMPORT_FILES_KEPT = timedelta(days=7)
"""Long enough to look at what was uploaded when an import failed."""


class CleanUp(Payload):
    """Nothing: the rules stand here."""


@job(
    name="maintenance.clean",
    queue="maintenance",
    priority=Priority.LOW,
    retry=RetryPolicy(attempts=3, backoff=timedelta(minutes=1)),
    time_limit=timedelta(minutes=30),
    concurrency=1,
    schedule="30 3 * * *",
)
def clean_up(_: CleanUp) -> None:
    """Delete what the retention rules no longer keep."""
    deleted = retention.clean(job_logs=JOB_LOGS_KEPT, import_files=IMPORT_FILES_KEPT)
    settings = get_settings()
    dead_letters = trim_dead_letters(
        current_broker().engine,
        keep=settings.dead_letters_kept,
        keep_for=timedelta(days=settings.dead_letters_days) if settings.dead_letters_days else None,
    )
    log.info(
        "maintenance.completed",
        job_logs=deleted.job_logs,
        import_files=deleted.import_files,
        dead_letters=dead_letters,
    )
