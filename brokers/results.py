"""dramatiq's results, stored by the engine in the same step that ends the message."""

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dramatiq.common import compute_backoff
from dramatiq.results import ResultBackend
from dramatiq.results.errors import ResultMissing, ResultTimeout

from brokers.encoder import OrjsonEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import dramatiq

    from brokers.engine import Engine

DEFAULT_TIMEOUT_MS = 10_000
MAX_POLL_MS = 250


class EngineResults(ResultBackend):
    """Lets `message.get_result()` read what the engine keeps; storing only leaves the result on the message."""

    def __init__(self, engine: "Engine") -> None:
        super().__init__(encoder=OrjsonEncoder())
        self._engine = engine

    def store_result(self, message: Any, result: Any, ttl: int) -> None:  # noqa: ANN401 - dramatiq's signature
        """Leave `result` on the leased message; it is stored when the message is finished."""
        message.result = (self.encoder.encode(result), timedelta(milliseconds=ttl))

    def store_exception(self, message: Any, exception: BaseException, ttl: int) -> None:  # noqa: ANN401
        """Nothing: a failed message is a dead letter, which says more than a result could."""

    def get_results(self, messages: "Sequence[dramatiq.Message[Any]]") -> list[Any]:
        """The results of `messages` in their order, in a few round trips.

        Raises:
            ResultMissing: one of them has none.
        """
        found = self._engine.results([message.message_id for message in messages])
        for message in messages:
            if message.message_id not in found:
                raise ResultMissing(message)
        return [self.encoder.decode(found[message.message_id]) for message in messages]

    def get_result(self, message: "dramatiq.Message[Any]", *, block: bool = False, timeout: int | None = None) -> Any:  # noqa: ANN401 - a result may be anything
        """The result of `message`; with `block`, waits up to `timeout` milliseconds for it.

        Raises:
            ResultMissing: without `block`, while there is none.
            ResultTimeout: with `block`, when there was none in time.
        """
        deadline = time.monotonic() + (DEFAULT_TIMEOUT_MS if timeout is None else timeout) / 1000
        attempts = 0
        while (data := self._engine.result(message.message_id)) is None:
            if not block:
                raise ResultMissing(message)
            attempts, delay_ms = compute_backoff(attempts, factor=2, max_backoff=MAX_POLL_MS)
            if time.monotonic() + delay_ms / 1000 > deadline:
                raise ResultTimeout(message)
            time.sleep(delay_ms / 1000)
        return self.encoder.decode(data)
