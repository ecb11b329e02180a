"""Opening one connection to PostgreSQL, with errors that say where and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from core.errors import TransientError

CONNECT_TIMEOUT_S = 10
"""Longest wait for one connection, in libpq's unit."""


def connect(url: str, *, autocommit: bool = False, name: str = "fanfare") -> psycopg.Connection:
    """Open a connection of its own, outside the pool; the caller closes it. `name` shows in `pg_stat_activity`.

    Raises:
        TransientError: the server cannot be reached or refuses.
    """
    with connection_errors(url):
        return psycopg.connect(
            url,
            autocommit=autocommit,
            application_name=name,
            connect_timeout=CONNECT_TIMEOUT_S,
            prepare_threshold=None,  # it lives shortly, and a transaction pooler keeps nothing that is prepared
        )


def place(url: str) -> str:
    """Where `url` points, for people: host, port and database, never the password."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


@contextmanager
def connection_errors(url: str) -> Iterator[None]:
    """Turn what PostgreSQL could not do now (no connection, a deadlock, a full disk) into `TransientError`."""
    try:
        yield
    except psycopg.OperationalError as error:
        message = f"PostgreSQL at {place(url)}: {str(error).strip()}."
        if error.sqlstate is None or error.sqlstate.startswith(("08", "28", "3D", "57P")):
            message += " See whether the server runs and whether DATABASE_URL is right."
        raise TransientError(message, code="database_unavailable") from error
