"""Whether the database answers and has what this version needs."""

import time
from datetime import timedelta

from db.connection import connect
from db.migrate import ensure_migrated
from db.pool import database_url


def ping() -> timedelta:
    """Time of one new connection to the database and an answer over it; never waits for the process's own pool.

    Raises:
        TransientError: it cannot be reached; the message says where and what to do.
        SettingsError: the embedded one does not start.
    """
    began = time.monotonic()
    with connect(database_url(), autocommit=True, name="fanfare-health") as connection:
        connection.execute("select 1")
    return timedelta(seconds=time.monotonic() - began)


def check_migrations() -> None:
    """Raises SettingsError, with what to do, where the database lacks migrations of this version."""
    ensure_migrated(database_url(), apply=False)
