import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from core.errors import TransientError
from db import pool
from tests.conftest import named

COUNT = "select count(*) from pg_stat_activity where application_name = 'fanfare' and datname = current_database()"

pytestmark = pytest.mark.usefixtures("organization")


class Stop(Exception):
    """Raised by a test to leave a block."""


def rename(name):
    with pool.transaction() as connection:
        connection.execute("update organizations set name = %s", [name])


def names():
    with pool.connection() as connection:
        return [name for (name,) in connection.execute("select name from organizations")]


def test_transaction_commits_at_its_end():
    rename("changed")
    assert names() == ["changed"]


def test_transaction_nested_joins_the_outer_one():
    def rename_twice_and_stop():
        with pool.transaction() as outer:
            rename("changed")
            with pool.transaction() as inner, pool.connection() as reader:
                assert inner is outer is reader
            raise Stop

    with pytest.raises(Stop):
        rename_twice_and_stop()
    assert names() == ["Acme"]


def test_transaction_of_another_thread_is_another_one():
    with pool.transaction() as outer, ThreadPoolExecutor(1) as executor:
        outer.execute("update organizations set name = 'changed'")
        assert executor.submit(names).result() == ["Acme"]


def test_connection_commits_each_statement():
    def rename_and_stop():
        with pool.connection() as connection:
            connection.execute("update organizations set name = 'changed'")
            raise Stop

    with pytest.raises(Stop):
        rename_and_stop()
    assert names() == ["changed"]


def test_forked_child_opens_its_own_connections():
    """RUN-03: dramatiq forks; a connection shared by two processes mixes up their answers."""
    names()
    with multiprocessing.get_context("fork").Pool(2) as children:
        assert children.map(_names_of_child, range(20)) == [["Acme"]] * 20
    assert names() == ["Acme"]


def _names_of_child(_):
    return names()


def test_lost_connections_are_replaced_without_an_error(database):
    names()
    with psycopg.connect(database) as admin:
        ended = admin.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        assert ended.rowcount >= 1
    assert names() == ["Acme"]


def test_connection_lost_inside_a_transaction_is_transient(database):
    def lose_it():
        with pool.transaction() as connection:
            pid = connection.info.backend_pid
            with psycopg.connect(database) as admin:
                admin.execute("select pg_terminate_backend(%s, 5000)", [pid])
            connection.execute("select 1")

    with pytest.raises(TransientError, match="DATABASE_URL"):
        lose_it()
    assert names() == ["Acme"]


def test_unknown_database_is_transient_with_place_and_advice(database, settings_env):
    settings_env(DATABASE_URL=named(database, "missing"))
    with pytest.raises(TransientError, match=r"missing.*See whether the server runs"):
        names()


def test_pool_has_at_most_its_size(database, settings_env):
    settings_env(DATABASE_URL=database, DATABASE_POOL_SIZE="2")
    barrier = threading.Barrier(2)

    def count(_):
        with pool.connection() as connection:
            barrier.wait(timeout=10)
            return connection.execute(COUNT).fetchall()

    with ThreadPoolExecutor(8) as executor:
        assert all(rows in ([(1,)], [(2,)]) for rows in executor.map(count, range(8)))


@pytest.mark.parametrize(("pooling", "prepared"), [("false", True), ("true", False)])
def test_transaction_pooling_prepares_nothing(database, settings_env, pooling, prepared):
    settings_env(DATABASE_URL=database, DATABASE_TRANSACTION_POOLING=pooling)
    with pool.connection() as connection:
        for _ in range(10):
            connection.execute("select name from organizations where id = %s", [None])
        found = connection.execute("select name from pg_prepared_statements").fetchall()
    assert bool(found) is prepared
