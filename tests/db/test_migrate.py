import os
import signal
import subprocess
import sys
import threading

import psycopg
import pytest

from core.errors import SettingsError, TransientError
from db import pool, schema
from db.migrate import FOLDER, LOCK_KEY, ensure_migrated, migrate
from tests.conftest import wait_until

ROOT = FOLDER.parents[1]
ALL = sorted(path.stem for path in FOLDER.glob("*.sql"))

MIGRATE = (
    "import sys; from db.migrate import migrate; from pathlib import Path; migrate(sys.argv[1], Path(sys.argv[2]))"
)


def tables(url):
    with psycopg.connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {name for (name,) in rows if not name.startswith("_yoyo")}


def start_migration(url, folder):
    return subprocess.Popen([sys.executable, "-c", MIGRATE, url, str(folder)], stderr=subprocess.PIPE)


def waiting_sessions(url, event):
    query = "select 1 from pg_stat_activity where datname = current_database() and wait_event = %s"
    with psycopg.connect(url) as connection:
        return len(connection.execute(query, [event]).fetchall())


def test_migrate_twice_applies_all_once_in_order(empty_database):
    """DB-04."""
    assert migrate(empty_database) == ALL
    assert {"campaigns", "deliveries", "job_logs"} <= tables(empty_database)
    assert migrate(empty_database) == []


def test_migrate_at_once_applies_each_once(empty_database):
    """DB-04: two machines at the same moment."""
    applied = []
    threads = [threading.Thread(target=lambda: applied.extend(migrate(empty_database))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert applied == ALL


def test_migrate_waits_while_another_machine_migrates(empty_database):
    """DB-04."""
    with psycopg.connect(empty_database, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
        with start_migration(empty_database, FOLDER) as process:
            wait_until(lambda: waiting_sessions(empty_database, "advisory") == 1, "the second machine does not wait")
            assert tables(empty_database) == set()
            other.execute("select pg_advisory_unlock(%s)", [LOCK_KEY])
            assert process.wait(timeout=20) == 0
    assert "campaigns" in tables(empty_database)


def test_migrate_after_a_kill_in_the_middle_works(empty_database, tmp_path):
    """DB-04: neither a lock nor half a migration stays behind."""
    (tmp_path / "0001_whole.sql").write_text("create table first (n int);")
    slow = tmp_path / "0002_slow.sql"
    slow.write_text("create table second (n int);\nselect pg_sleep(60);")
    with start_migration(empty_database, tmp_path) as process:
        wait_until(lambda: waiting_sessions(empty_database, "PgSleep") == 1, "the migration does not begin")
        process.send_signal(signal.SIGKILL)
    assert tables(empty_database) == {"first"}
    with psycopg.connect(empty_database, autocommit=True) as connection:
        # The server would notice the lost client at the end of the statement, in a minute.
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'")
    slow.write_text("create table second (n int);")
    assert migrate(empty_database, tmp_path) == ["0002_slow"]
    assert tables(empty_database) == {"first", "second"}


def test_migrate_failing_file_leaves_nothing_of_itself(empty_database, tmp_path):
    """DB-04: a file is one transaction."""
    (tmp_path / "0001_whole.sql").write_text("create table first (n int);")
    (tmp_path / "0002_wrong.sql").write_text("create table second (n int);\nselect 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_database, tmp_path)
    assert tables(empty_database) == {"first"}


def test_migrate_keeps_function_bodies_whole(empty_database, tmp_path):
    body = "create function f() returns text language plpgsql as $$ begin return 'a;b -- %s :x'; end; $$;\nselect f();"
    (tmp_path / "0001_function.sql").write_text(body)
    migrate(empty_database, tmp_path)
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("select f()").fetchone() == ("a;b -- %s :x",)


def test_unmigrated_database_is_told_with_the_command(empty_database, settings_env):
    """DB-04, DEP-04: with an explicit DATABASE_URL, `fanfare migrate` is a step of the release."""
    settings_env(DATABASE_URL=empty_database)
    with pytest.raises(SettingsError, match="fanfare migrate"), pool.connection():
        pass
    migrate(empty_database)
    with pool.connection() as connection:
        assert connection.execute("select count(*) from campaigns").fetchone() == (0,)


def test_ensure_migrated_applies_where_it_may(empty_database):
    """RUN-03: with the embedded default, any process migrates at its start."""
    ensure_migrated(empty_database, apply=True)
    ensure_migrated(empty_database, apply=False)
    assert "campaigns" in tables(empty_database)


def test_unreachable_database_is_transient_and_hides_the_password():
    with pytest.raises(TransientError, match=r"nowhere\.invalid") as caught:
        migrate("postgresql://user:hunter2-secret@nowhere.invalid:5433/x")
    assert "hunter2-secret" not in str(caught.value)


def test_schema_file_is_the_sum_of_the_migrations(empty_database):
    migrate(empty_database)
    assert schema.PATH.read_text() == schema.dump(empty_database), "run: python -m db.schema"


def test_process_without_variables_starts_and_migrates_the_embedded_database(tmp_path):
    """RUN-03: nothing is set, nothing was run before."""
    code = "from db import pool\nwith pool.connection() as c: print(c.execute('select count(*) from jobs').fetchone())"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "DATA_DIR": str(tmp_path / "data")}
    out = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (out.stdout, out.stderr) == ("(0,)\n", "")
