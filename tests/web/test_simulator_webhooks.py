"""The simulator's status webhooks: signed, to every accepted message, duplicated, shuffled, early and sent again."""

import json
import threading
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core.errors import AmbiguousError, PermanentError
from domain.whatsapp_webhook import is_genuine, parse
from providers.whatsapp import TextMessage, WhatsApp
from simulator.process import running_simulator
from tests.conftest import wait_until

SECRET = "made up"
CALLBACK = "0190a1b2-0000-7000-8000-{:012d}:1"


class Inbox:
    """What came: bodies with their signatures, and the statuses in them."""

    def __init__(self):
        self.webhooks = []
        self.refusals = 0

    @property
    def statuses(self):
        return [status for body, _ in self.webhooks for status in parse(body).statuses]

    def of(self, number):
        return [s.status for s in self.statuses if str(s.delivery_id).endswith(f"-{number:012}")]


@contextmanager
def receiving():
    """An HTTP server that takes webhooks; yields its address and its inbox."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if inbox.refusals:
                inbox.refusals -= 1
                self.send_response(503)
            else:
                inbox.webhooks.append((body, self.headers["x-hub-signature-256"]))
                self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/webhooks/whatsapp", inbox
        server.shutdown()


@pytest.fixture
def inbox_and_simulator():
    with receiving() as (url, inbox), running_simulator(rate=0, webhook_url=url, app_secret=SECRET) as simulator:
        yield inbox, simulator


def send(simulator, count, first=0):
    client = WhatsApp(simulator.whatsapp_base_url, "token", timedelta(seconds=1))
    for number in range(first, first + count):
        message = TextMessage("Hello")
        try:
            client.send(
                number_id="7", recipient=f"+1555{number:07}", message=message, callback_data=CALLBACK.format(number)
            )
        except (AmbiguousError, PermanentError):
            continue
    client.close()


def test_every_accepted_message_gets_its_statuses_signed(inbox_and_simulator):
    inbox, simulator = inbox_and_simulator
    simulator.plan(recipients={"+15550000001": "131026"}, statuses={"read": 1})
    send(simulator, 3)
    wait_until(lambda: len(inbox.webhooks) >= 6, "the webhooks do not come")
    wait_until(lambda: simulator.summary()["webhooks"] == {"accepted": 6, "refused": 0, "waiting": 0}, "more came")
    assert all(is_genuine(body, signature, [SECRET]) for body, signature in inbox.webhooks)
    assert {tuple(sorted(inbox.of(number))) for number in (0, 2)} == {("delivered", "read", "sent")}
    assert inbox.of(1) == [], "what was not accepted has no status"
    value = json.loads(inbox.webhooks[0][0])["entry"][0]["changes"][0]["value"]
    assert value["metadata"]["phone_number_id"] == "7"
    wamids = {arrival.wamid for arrival in simulator.arrivals() if arrival.accepted}
    assert {status.message_id for status in inbox.statuses} == wamids


def test_a_message_whose_answer_was_lost_has_statuses_too(inbox_and_simulator):
    inbox, simulator = inbox_and_simulator
    simulator.plan(recipients={"+15550000000": "silent", "+15550000001": "reset"}, statuses={"sent": 1})
    send(simulator, 2)
    wait_until(lambda: (inbox.of(0), inbox.of(1)) == (["sent"], ["sent"]), "no statuses")


def test_shares_decide_the_last_status_and_failed_ones_carry_a_code(inbox_and_simulator):
    inbox, simulator = inbox_and_simulator
    simulator.plan(statuses={"failed": 0.3, "read": 0.3, "none": 0.2}, status_error=131049, seed=3)
    send(simulator, 100)
    wait_until(lambda: simulator.summary()["webhooks"]["waiting"] == 0, "they wait")
    kinds = Counter(status.status for status in inbox.statuses)
    assert 65 < kinds["sent"] < 95
    assert 15 < kinds["failed"] < 45
    assert 15 < kinds["read"] < 45
    assert {status.code for status in inbox.statuses if status.status == "failed"} == {"131049"}


def test_duplicates_shuffle_and_batches(inbox_and_simulator):
    inbox, simulator = inbox_and_simulator
    changes = {"duplicate_share": 1, "shuffle": True, "status_batch": 100, "status_delay_ms": 30}
    simulator.plan(statuses={"read": 1}, **changes)
    send(simulator, 20)
    wait_until(lambda: len(inbox.statuses) == 120, "not all came twice")
    firsts = [list(dict.fromkeys(inbox.of(number))) for number in range(20)]
    assert all(sorted(first) == ["delivered", "read", "sent"] for first in firsts)
    assert len({tuple(first) for first in firsts}) > 2, "in any order"
    assert len(inbox.webhooks) < 100, "several in one webhook"


def test_an_early_status_comes_before_the_answer(inbox_and_simulator):
    inbox, simulator = inbox_and_simulator
    simulator.plan(early_share=1, slow_ms=600_000, shares={"slow": 1})
    send(simulator, 1)  # gives up long before the answer
    wait_until(lambda: inbox.of(0) == ["sent", "delivered"], "nothing came before the answer")


def test_a_webhook_that_is_not_taken_comes_again(inbox_and_simulator):
    inbox, simulator = inbox_and_simulator
    inbox.refusals = 2
    send(simulator, 1)
    wait_until(lambda: sorted(inbox.of(0)) == ["delivered", "sent"], "it did not come again")
    assert simulator.summary()["webhooks"]["refused"] == 2
