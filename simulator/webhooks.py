"""Sends status webhooks, signed as Meta signs them, and again until they are answered with 200."""

import asyncio
import hashlib
import heapq
import hmac
from datetime import timedelta
from itertools import count
from typing import Any

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import RequestError

from simulator.ledger import Arrival
from simulator.plan import Plan
from simulator.statuses import payload, statuses_of

_AT_ONCE = 16
_TIMEOUT = timedelta(seconds=10)
_AGAIN_S = 0.25
_AGAIN_AT_MOST_S = 30.0
_OK = 200


class Webhooks:
    """What is to be sent, and the tasks that send it; does nothing until `tell` is called.

    What waits is lost when the process ends.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, str, dict[str, Any]]] = []
        self._order = count()
        self._news = asyncio.Event()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._sender: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._accepted = 0
        self._refused = 0

    def replan(self, plan: Plan) -> None:
        """Behaves as `plan` says from now on; what waits goes to the new address."""
        self._plan = plan

    def tell(self, arrival: Arrival, *, answer_in_s: float) -> None:
        """Plans the statuses of an accepted message."""
        if self._sender is None:
            self._sender = asyncio.create_task(self._run())
        now_s = asyncio.get_running_loop().time()
        for in_s, status in statuses_of(arrival, self._plan, answer_in_s):
            heapq.heappush(self._due, (now_s + in_s, next(self._order), arrival.number, status))
        self._news.set()

    def summary(self) -> dict[str, int]:
        """Webhooks answered with 200 and otherwise (or not), and how many statuses and webhooks still wait."""
        return {
            "accepted": self._accepted,
            "refused": self._refused,
            "waiting": len(self._due) + len(self._under_way),
        }

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        async with ClientBuilder().no_proxy().timeout(_TIMEOUT).follow_redirects(enable=False).build() as client:
            while True:
                self._news.clear()
                wait_s = self._due[0][0] - loop.time() if self._due else None
                if wait_s is None or wait_s > 0:
                    await self._news_within(wait_s)
                    continue
                await self._free.acquire()
                number, statuses = self._pop(loop.time())
                task = asyncio.create_task(self._send(client, orjson.dumps(payload(number, statuses))))
                self._under_way.add(task)
                task.add_done_callback(self._done)

    async def _news_within(self, wait_s: float | None) -> None:
        """Returns when something was planned, at the latest after so long."""
        try:
            await asyncio.wait_for(self._news.wait(), wait_s)
        except TimeoutError:
            return

    def _pop(self, until_s: float) -> tuple[str, list[dict[str, Any]]]:
        """What is due for one number, in order, up to a batch."""
        number, statuses = self._due[0][2], []
        while self._due and self._due[0][0] <= until_s and self._due[0][2] == number:
            statuses.append(heapq.heappop(self._due)[3])
            if len(statuses) == self._plan.status_batch:
                break
        return number, statuses

    async def _send(self, client: Client, body: bytes) -> None:
        """Sends one webhook until it is taken, each time by the plan of the moment; ends when webhooks are off."""
        again_s = _AGAIN_S
        while self._plan.webhook_url:
            if await self._post(client, body):
                self._accepted += 1
                return
            self._refused += 1
            await asyncio.sleep(again_s)
            again_s = min(2 * again_s, _AGAIN_AT_MOST_S)

    async def _post(self, client: Client, body: bytes) -> bool:
        signature = hmac.new(self._plan.app_secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
        try:
            response = await client.post(self._plan.webhook_url).headers(headers).body_bytes(body).build().send()
        except RequestError:
            return False
        return response.status == _OK

    def _done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._free.release()
