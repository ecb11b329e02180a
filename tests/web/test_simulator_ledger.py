"""The simulator's log with fsync: nothing is answered before its line is on the disk (RELIABILITY, harness)."""

import asyncio
import os
import threading

import orjson

from simulator.app import App
from simulator.ledger import Ledger
from simulator.plan import Plan
from simulator.server import Connections

BODY = orjson.dumps({"messaging_product": "whatsapp", "to": "+15550000001", "type": "text", "text": {"body": "Hi"}})
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v23.0/1/messages",
    "headers": [(b"authorization", b"Bearer x")],
    "client": ("127.0.0.1", 1),
}


class SlowDisk:
    """A disk that takes its time until `ready` is set."""

    def __init__(self):
        self.syncs = 0
        self.begun = threading.Event()
        self.ready = threading.Event()

    def sync(self, file):
        self.syncs += 1
        self.begun.set()
        self.ready.wait(10)
        os.fsync(file)


async def statuses_of(app):
    """Sends one request to `app` and returns the statuses that it answered."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": BODY}

    async def send(event):
        sent.append(event)

    await app(SCOPE, receive, send)
    return [event["status"] for event in sent if event["type"] == "http.response.start"]


def test_no_request_is_answered_before_its_line_is_on_the_disk_and_many_share_one_fsync(tmp_path):
    async def run():
        disk = SlowDisk()
        ledger = Ledger(tmp_path, fsync=True, sync=disk.sync)
        app = App(ledger, Plan(rate=0, pair_limit=False), Connections())
        first = asyncio.create_task(statuses_of(app))
        assert await asyncio.to_thread(disk.begun.wait, 10)
        later = [asyncio.create_task(statuses_of(app)) for _ in range(50)]
        await asyncio.wait(later, timeout=0.1)
        assert not any(task.done() for task in (first, *later))
        disk.ready.set()
        assert await asyncio.gather(first, *later) == [[200]] * 51
        assert disk.syncs == 2  # the first one's, and one for all that came while it ran
        ledger.close()

    asyncio.run(run())


def test_a_disk_that_fails_answers_no_request(tmp_path):
    def broken(_file):
        raise OSError(5, "Input/output error")

    async def run():
        ledger = Ledger(tmp_path, fsync=True, sync=broken)
        app = App(ledger, Plan(), Connections())
        results = await asyncio.gather(statuses_of(app), statuses_of(app), return_exceptions=True)
        assert [type(result) for result in results] == [OSError, OSError]

    asyncio.run(run())
