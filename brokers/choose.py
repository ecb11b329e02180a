"""Makes the process's broker from the settings: the one place where an engine is chosen."""

from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from core.settings import REDIS_SCHEMES, Settings, get_settings
from db import pool

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.engine import Engine
    from brokers.postgres.engine import PostgresEngine
    from brokers.redis.engine import RedisEngine
    from brokers.stores import Store

FALLBACK_TIMEOUT_S = 2.0
"""Longest wait for an answer where there is another store to turn to."""


def make_broker(settings: Settings) -> "EngineBroker":
    """The broker that BROKER_URL asks for; with none, messages live in the database."""
    engine = make_engine(settings)
    # Each engine's libraries are imported only where they are used.
    if settings.broker_kind == "redis":
        from brokers.redis.broker import RedisBroker  # noqa: PLC0415

        return RedisBroker(engine=engine, lease=settings.lease, url=settings.resolved_broker_url)
    from brokers.postgres.broker import PostgresBroker  # noqa: PLC0415

    postgres = cast("PostgresEngine", engine)
    return PostgresBroker(engine=postgres, lease=settings.lease, url=_postgres_url(settings))


def make_engine(settings: Settings | None = None) -> "Engine":
    """The engine alone, for those who steer and watch without sending."""
    settings = settings or get_settings()
    if settings.broker_kind != "redis":
        return _postgres(_postgres_url(settings), settings)
    if not settings.broker_fallback:
        return _redis(settings.resolved_broker_url, settings)
    from brokers.fallback import FallbackEngine  # noqa: PLC0415

    first = _redis(settings.resolved_broker_url, settings, answer_timeout_s=FALLBACK_TIMEOUT_S)
    return FallbackEngine(first, lambda: _postgres(pool.database_url(), settings))


def make_store(url: str) -> "Store":
    """The single store at `url`, for those who move messages between two; "" is the database."""
    settings = get_settings()
    if urlsplit(url).scheme in REDIS_SCHEMES:
        return _redis(url, settings)
    return _postgres(url or pool.database_url(), settings)


def _redis(url: str, settings: Settings, **options: float) -> "RedisEngine":
    from brokers.redis.engine import RedisEngine  # noqa: PLC0415

    return RedisEngine(url, namespace=settings.broker_namespace, **options)


def _postgres(url: str, settings: Settings) -> "PostgresEngine":
    from brokers.postgres.engine import PostgresEngine  # noqa: PLC0415

    return PostgresEngine(url, transaction_pooling=settings.database_transaction_pooling)


def _postgres_url(settings: Settings) -> str:
    return settings.resolved_broker_url or pool.database_url()
