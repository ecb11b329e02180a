"""Makes the process's broker from the settings: the one place where an engine is chosen."""

from typing import TYPE_CHECKING

from core.settings import Settings, get_settings
from db import pool

if TYPE_CHECKING:
    from brokers.broker import EngineBroker
    from brokers.engine import Engine


def make_broker(settings: Settings) -> "EngineBroker":
    """The broker that BROKER_URL asks for; with none, messages live in the database."""
    engine = make_engine(settings)
    # Each engine's libraries are imported only where they are used.
    if settings.broker_kind == "redis":
        from brokers.redis.broker import RedisBroker  # noqa: PLC0415

        return RedisBroker(engine=engine, lease=settings.lease, url=settings.resolved_broker_url)
    from brokers.postgres.broker import PostgresBroker  # noqa: PLC0415

    return PostgresBroker(engine=engine, lease=settings.lease, url=_postgres_url(settings))


def make_engine(settings: Settings | None = None) -> "Engine":
    """The engine alone, for those who steer and watch without sending."""
    settings = settings or get_settings()
    if settings.broker_kind == "redis":
        from brokers.redis.engine import RedisEngine  # noqa: PLC0415

        return RedisEngine(settings.resolved_broker_url, namespace=settings.broker_namespace)
    from brokers.postgres.engine import PostgresEngine  # noqa: PLC0415

    return PostgresEngine(_postgres_url(settings), transaction_pooling=settings.database_transaction_pooling)


def _postgres_url(settings: Settings) -> str:
    return settings.resolved_broker_url or pool.database_url()
