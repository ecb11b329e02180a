"""Stores webhooks of concurrent requests together: a commit costs the same for one as for a hundred."""

import asyncio
from collections.abc import Callable, Sequence

MAX_BATCH = 200


class Inbox:
    """What comes while a batch is being stored is in the next one; nobody waits for a batch to fill.

    For the requests of one event loop.

    Args:
        store_many: Stores bodies in one commit and tells of each whether it is new; called in a thread, one at a time.
    """

    def __init__(self, store_many: Callable[[Sequence[bytes]], Sequence[bool]]) -> None:
        self._store_many = store_many
        self._waiting: list[tuple[bytes, asyncio.Future[bool]]] = []
        self._storing: asyncio.Task[None] | None = None

    async def store(self, body: bytes) -> bool:
        """Returns when it is committed; False when the same bytes were there. Raises what storing its batch raised."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((body, stored))
        if self._storing is None:
            self._storing = asyncio.create_task(self._store())
        return bool(await stored)

    async def _store(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                results = await asyncio.to_thread(self._store_many, [body for body, _ in batch])
            except Exception as error:  # noqa: BLE001 - every request of the batch raises it
                for stored in _open(batch):
                    stored.set_exception(error)
            else:
                for (_, stored), is_new in zip(batch, results, strict=True):
                    if not stored.done():  # its client has gone
                        stored.set_result(is_new)
        self._storing = None


def _open(batch: Sequence[tuple[bytes, asyncio.Future[bool]]]) -> list[asyncio.Future[bool]]:
    return [stored for _, stored in batch if not stored.done()]
