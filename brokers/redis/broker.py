"""dramatiq's Redis broker with our engine inside."""

from datetime import timedelta

import redis
from dramatiq.brokers import redis as stock
from dramatiq.rate_limits import RateLimiterBackend
from dramatiq.rate_limits.backends import RedisBackend

from brokers.broker import EngineBroker
from brokers.engine import Engine
from brokers.redis.address import connection_pool


class RedisBroker(EngineBroker, stock.RedisBroker):
    """A `dramatiq.brokers.redis.RedisBroker` to whoever asks; the stock broker's own scripts and keys are not used.

    Making one does no I/O.

    Args:
        engine: Where messages live.
        lease: A message whose worker was silent for so long is run by another.
        url: The server, for the inherited `client`.
    """

    def __init__(self, *, engine: Engine, lease: timedelta, url: str) -> None:
        client = redis.Redis(connection_pool=connection_pool(url, answer_timeout_s=None))  # its rate limiters block
        super().__init__(engine=engine, lease=lease, client=client)
        self.queues = {}  # the stock broker makes it a set

    def get_declared_queues(self) -> set[str]:
        """Names of the queues declared so far."""
        return set(self.queues)

    def rate_limiter_backend(self) -> RateLimiterBackend:
        """Where dramatiq's own rate limiters (`dramatiq.rate_limits`) keep their counts."""
        return RedisBackend(client=self.client)

    def join(self, queue_name: str, *, interval: int = 0, timeout: int | None = None) -> None:  # noqa: ARG002
        """As `EngineBroker.join`; `interval` is the stock broker's and is not used."""
        EngineBroker.join(self, queue_name, timeout=timeout)
