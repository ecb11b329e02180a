"""dramatiq's broker on PostgreSQL: a `dramatiq_pg.PostgresBroker` whose messages go through the engine."""

from datetime import timedelta

import dramatiq_pg
from dramatiq.rate_limits import RateLimiterBackend

from brokers.broker import EngineBroker
from brokers.postgres.engine import PostgresEngine
from brokers.postgres.rate_limits import PostgresRateLimiterBackend
from core.settings import get_settings


class PostgresBroker(EngineBroker, dramatiq_pg.PostgresBroker):  # type: ignore[misc] # dramatiq-pg has no types
    """Takes the place of dramatiq-pg's broker wherever one is expected, with none of its connections.

    Args:
        engine: Where messages live.
        lease: A message whose worker was silent for so long is run by another.
        url: The database of `engine`; the stock part opens a psycopg2 pool on it, which connects only when used.
    """

    def __init__(self, *, engine: PostgresEngine, lease: timedelta, url: str) -> None:
        super().__init__(engine=engine, lease=lease, url=url, results=False, schema="dramatiq", prefix="")
        self._limits = PostgresRateLimiterBackend(url, transaction_pooling=get_settings().database_transaction_pooling)

    def rate_limiter_backend(self) -> RateLimiterBackend:
        """Where dramatiq's own rate limiters (`dramatiq.rate_limits`) keep their counts."""
        return self._limits

    def close(self) -> None:
        """Close the connections of this process."""
        super().close()
        self._limits.close()
