import psycopg
import pytest
import redis

from db import pool


def test_transaction_nested_joins_the_outer_one(database, organization):
    with pytest.raises(RuntimeError), pool.transaction() as outer:
        with pool.transaction() as inner:
            assert inner is outer
            inner.execute("update organizations set name = 'changed'")
        raise RuntimeError
    with pool.connection() as connection:
        assert connection.execute("select name from organizations").fetchall() == [("Acme",)]


def test_fixtures_redis_is_valkey_9(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.info("server")["valkey_version"].startswith("9.")


def test_fixtures_database_is_empty(database):
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from organizations").fetchone() == (0,)
