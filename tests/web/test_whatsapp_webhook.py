"""WhatsApp's webhooks over a real socket: API-12, X-10, and the row of forged webhooks in SECURITY."""

import http.client
import json
import random
import socket
from dataclasses import dataclass
from urllib.parse import urlencode

import pytest

from domain.whatsapp_webhook import MAX_BODY_BYTES, is_genuine, signature_of
from tests.conftest import wait_until
from tests.db.campaign_data import rows
from tests.web.test_health import web

SECRET, PREVIOUS, TOKEN = "s3cret-of-today", "s3cret-of-yesterday", "a word of ours"
PATH = "/webhooks/whatsapp"
BODY = json.dumps({"object": "whatsapp_business_account", "entry": []}).encode()


@dataclass
class Web:
    """A running web process; the body of what it answers is text."""

    port: int

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()

    def post(self, body, signature):
        headers = {} if signature is None else {"X-Hub-Signature-256": signature}
        return self.ask("POST", PATH, body, headers)[0]


def port_of(folder):
    """Where the web process that logs to `folder` listens."""
    with (folder / "web.log").open() as log:
        return next(json.loads(line)["port"] for line in log if "web.started" in line)


@pytest.fixture
def running(tmp_path):
    """Starts a web process with variables."""
    started = []

    def start(**variables):
        context = web(tmp_path, **variables)
        started.append(context)
        context.__enter__()
        return Web(port_of(tmp_path))

    yield start
    for context in started:
        context.__exit__(None, None, None)


@pytest.fixture
def meta(database, running):
    """A web process that is set up as Meta needs it."""
    return running(
        WHATSAPP_APP_SECRET=SECRET, WHATSAPP_APP_SECRET_PREVIOUS=PREVIOUS, WHATSAPP_VERIFY_TOKEN=TOKEN, BROKER_URL=""
    )


def challenge(**changes):
    asked = {"hub.mode": "subscribe", "hub.verify_token": TOKEN, "hub.challenge": "<b>1158201444</b>"}
    return f"{PATH}?{urlencode(asked | changes)}"


def stored():
    return rows("select body from inbound_events order by received_at")


def test_the_challenge_is_repeated_as_plain_text_to_who_knows_the_token(meta):
    status, headers, text = meta.ask("GET", challenge())
    assert (status, text) == (200, "<b>1158201444</b>")
    assert headers["Content-Type"].startswith("text/plain")
    assert headers["X-Content-Type-Options"] == "nosniff"
    for wrong in ({"hub.verify_token": "guess"}, {"hub.verify_token": "wörd"}, {"hub.mode": "other"}):
        status, headers, text = meta.ask("GET", challenge(**wrong))
        assert status == 403
        assert headers["Content-Type"] == "application/problem+json"
        assert "1158201444" not in text
    assert meta.ask("GET", PATH)[0] == 403


def test_a_signed_webhook_is_stored_as_it_came_and_a_replay_has_one_effect(meta):
    odd = b'{"entry":  [ "\\u0000 \xff" ]}'  # neither JSON nor UTF-8: the bytes count
    assert meta.post(BODY, signature_of(BODY, SECRET)) == 200
    assert meta.post(odd, signature_of(odd, PREVIOUS)) == 200, "the secret before this one, while it is changed"
    for _ in range(3):
        assert meta.post(BODY, signature_of(BODY, SECRET)) == 200
    assert stored() == [(BODY,), (odd,)]


def test_workers_are_told_once_it_is_stored(meta):
    assert meta.post(BODY, signature_of(BODY, SECRET)) == 200
    waiting = "select count(*) from dramatiq.queue where queue_name = 'whatsapp-webhook' and state = 'queued'"
    wait_until(lambda: rows(waiting) == [(1,)], "no message")


def mutations(body, signature, count):
    """Bodies and signatures of which one bit, one byte or the form is wrong."""
    chance = random.Random(12)
    for _ in range(count):
        at = chance.randrange(len(body) * 8)
        changed = bytearray(body)
        changed[at // 8] ^= 1 << at % 8
        yield bytes(changed), signature
        at = chance.randrange(len(signature))
        yield body, signature[:at] + chance.choice("0123456789abcdefxyzé =") + signature[at + 1 :]
        yield body, signature[:at]
        yield body[: chance.randrange(len(body))], signature


def test_no_mutation_is_genuine():
    body = json.dumps({"entry": [{"id": "1", "changes": list(range(60))}]}).encode()
    signature = signature_of(body, SECRET)
    assert is_genuine(body, signature, [PREVIOUS, SECRET])
    forged = [pair for pair in mutations(body, signature, 1500) if pair != (body, signature)]
    assert len(forged) > 5000
    assert not [pair for pair in forged if is_genuine(*pair, [SECRET, PREVIOUS, ""])]
    assert not is_genuine(body, signature_of(body, ""), ["", ""]), "an empty secret is none"
    assert not is_genuine(body, signature, [])
    assert not is_genuine(body, signature.upper(), [SECRET])


def test_forged_webhooks_are_refused_and_leave_nothing(meta):
    signature = signature_of(BODY, SECRET)
    wrong = [None, "", "sha256=", "sha1=" + signature[7:], signature[7:], signature_of(BODY, "guess")]
    wrong += [signature_of(BODY, ""), signature + "0", "sha256=" + "é" * 64]
    assert {meta.post(BODY, each) for each in wrong} == {403}
    forged = [pair for pair in mutations(BODY, signature, 50) if pair != (BODY, signature)]
    assert {meta.post(body, each) for body, each in forged} == {403}
    assert stored() == []


def test_a_body_above_3_mb_is_refused_announced_or_not(meta):
    largest = b"x" * MAX_BODY_BYTES
    assert meta.post(largest, signature_of(largest, SECRET)) == 200
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    unannounced = chunk * (MAX_BODY_BYTES // 0x10000) + b"1\r\nx\r\n0\r\n\r\n"
    for head, sent in ((f"Content-Length: {MAX_BODY_BYTES + 1}", b""), ("Transfer-Encoding: chunked", unannounced)):
        with socket.create_connection(("127.0.0.1", meta.port), 20) as connection:
            connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: web\r\n{head}\r\n\r\n".encode() + sent)
            assert connection.recv(4096).startswith(b"HTTP/1.1 413")
    assert rows("select count(*) from inbound_events") == [(1,)]


def test_without_secrets_it_says_what_is_missing(database, running):
    """An empty secret would make every signature by it a good one."""
    web_process = running(BROKER_URL="")
    status, headers, text = web_process.ask("POST", PATH, BODY, {"X-Hub-Signature-256": signature_of(BODY, "")})
    assert status == 503
    assert headers["Content-Type"] == "application/problem+json"
    assert "WHATSAPP_APP_SECRET" in json.loads(text)["detail"]
    status, _, text = web_process.ask("GET", challenge(**{"hub.verify_token": ""}))
    assert status == 503
    assert "WHATSAPP_VERIFY_TOKEN" in json.loads(text)["detail"]


def test_webhooks_are_taken_while_the_broker_is_down(database, running):
    """X-10: nothing but the database stands between a webhook and its answer."""
    away = running(WHATSAPP_APP_SECRET=SECRET, BROKER_URL="redis://127.0.0.1:1/0", BROKER_FALLBACK="false")
    for number in range(20):
        body = BODY + b" " * number
        assert away.post(body, signature_of(body, SECRET)) == 200
    assert rows("select count(*) from inbound_events where processed_at is null") == [(20,)]


def test_a_database_that_is_down_makes_meta_send_it_again(running):
    down = running(WHATSAPP_APP_SECRET=SECRET, DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing", BROKER_URL="")
    assert down.post(BODY, signature_of(BODY, SECRET)) == 503
    assert down.post(BODY, signature_of(BODY, "guess")) == 403
