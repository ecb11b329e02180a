"""Migrations: the plain SQL files of `db/migrations`, applied once each, in the order of their names, by yoyo.

Each file is one transaction, together with the note that it was applied. A lock keeps two machines from migrating at
once. It belongs to a transaction on a connection of its own: it is gone with that, so that a killed process leaves
nothing to clean up, and it holds behind a transaction pooler too, which gives nobody a session.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.migrations import Migration, MigrationList

from core.clock import uuid7
from core.errors import SettingsError
from db.connection import connect, place

FOLDER = Path(__file__).parent / "migrations"

TABLE = "_yoyo_migration"
"""Which migrations are applied; yoyo's own name for it, so that its command line works too."""

LOCK_KEY = 0x66616E66
"""Key of the advisory lock held while migrating; "fanf" in ASCII."""


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc] # yoyo has no types
    """yoyo on one psycopg 3 connection of ours."""

    _is_locked: bool

    def connect(self, dburi: str) -> psycopg.Connection:
        # yoyo writes BEGIN and COMMIT itself.
        return connect(dburi, autocommit=True)

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:  # noqa: ARG002 - yoyo's signature
        """Replaces yoyo's lock, a row that stays behind when its process is killed. Taken inside itself, it is held."""
        if self._is_locked:
            yield
            return
        with connect(self.uri) as guard:
            guard.execute("set local idle_in_transaction_session_timeout = 0")
            guard.execute("select pg_advisory_xact_lock(%s)", [LOCK_KEY])
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    def apply_one(self, migration: Migration, **_: bool) -> None:
        """Replaces yoyo's, which notes a migration in another transaction than the one that applies it.

        The file goes to the server whole, so that no splitter has to understand function bodies.
        """
        with self.transaction():
            self.connection.execute(Path(migration.path).read_bytes())
            self.mark_one(migration)

    def list_tables(self, **_: object) -> list[str]:
        """Replaces yoyo's, which needs its own kind of URL."""
        return [row[0] for row in self.connection.execute("select tablename from pg_tables")]

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """Replaces yoyo's, which asks for the user and host names, and fails or waits where there are none."""
        data: dict[str, Any] = {"id": str(uuid7()), "username": None, "hostname": None, "operation": operation}
        data |= {"created_at_utc": datetime.now(UTC).replace(tzinfo=None)}
        return data | {"migration_id": migration and migration.id, "migration_hash": migration and migration.hash}


def migrate(url: str, folder: Path = FOLDER) -> list[str]:
    """Apply what the database at `url` does not have yet; returns the names applied, in order, none if up to date.

    Waits while another machine migrates. When a file fails, those before it stay applied and it leaves nothing.

    Raises:
        TransientError: the database cannot be reached.
        psycopg.Error: what the database said about a wrong migration.
    """
    with _Backend(url, TABLE) as backend, backend.lock():
        waiting = backend.to_apply(_files(folder))
        for migration in waiting:
            backend.apply_one(migration)
        return [migration.id for migration in waiting]


def ensure_migrated(url: str, *, apply: bool) -> None:
    """Make sure that the database at `url` has all migrations: apply them, or, unless `apply`, refuse.

    Raises:
        SettingsError: some are missing and `apply` is false.
        TransientError: the database cannot be reached.
    """
    missing = _missing(url)
    if missing and apply:
        migrate(url)
    elif missing:
        message = f"The database {place(url)} lacks {', '.join(missing)}. Run: fanfare migrate"
        raise SettingsError(message, code="database_not_migrated")


def _missing(url: str) -> list[str]:
    wanted = [migration.id for migration in _files(FOLDER)]
    with connect(url, autocommit=True) as connection:
        if connection.execute("select from pg_class where oid = to_regclass(%s)", [TABLE]).rowcount == 0:
            return wanted
        query = sql.SQL("select migration_id from {}").format(sql.Identifier(TABLE))
        applied = {row[0] for row in connection.execute(query)}
    return [name for name in wanted if name not in applied]


def _files(folder: Path) -> MigrationList:
    return read_migrations(str(folder))
