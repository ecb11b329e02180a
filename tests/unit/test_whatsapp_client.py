"""The WhatsApp client against the simulator, over real sockets (JOB-01, X-01: an unclear send is never a failure)."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from email.utils import formatdate

import pytest

from core.errors import (
    AmbiguousError,
    FanfareError,
    PermanentError,
    SettingsError,
    ThrottledError,
    TransientError,
)
from core.settings import Settings
from providers.outcomes import TABLE, ProviderAction
from providers.whatsapp import TemplateMessage, TextMessage, WhatsApp
from simulator.process import running_simulator

PHONE = "+15550107788"
TOKEN = "EAAcanary-token"
BODY = "canary text for Zoë"
HELLO = TextMessage(BODY)
RAISED = {
    ProviderAction.RETRY: TransientError,
    ProviderAction.THROTTLE: ThrottledError,
    ProviderAction.WAIT_DAY: TransientError,
    ProviderAction.HOLD: AmbiguousError,
}


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(rate=0, pair_limit=False) as running:
        yield running


@pytest.fixture
def client(simulator):
    whatsapp = WhatsApp(simulator.whatsapp_base_url, TOKEN, timedelta(seconds=5))
    yield whatsapp
    whatsapp.close()


def send(client, recipient=PHONE, message=HELLO, callback_data="delivery-1"):
    return client.send(number_id="1001", recipient=recipient, message=message, callback_data=callback_data)


def failure(simulator, client, outcome, **plan):
    """The error that `send` raises when the simulator has `outcome`, and the arrivals that it caused."""
    simulator.plan(recipients={PHONE: outcome}, **plan)
    before = len(simulator.arrivals())
    with pytest.raises(FanfareError) as caught:
        send(client)
    return caught.value, simulator.arrivals()[before:]


def test_a_text_is_sent_in_the_shape_of_the_cloud_api(simulator, client):
    wamid = send(client, "+15550100001", callback_data="delivery-7")
    arrival = simulator.arrivals()[-1]
    assert wamid.startswith("wamid.")
    assert (arrival.wamid, arrival.number, arrival.recipient) == (wamid, "1001", "+15550100001")
    assert arrival.callback == "delivery-7"
    assert arrival.content == {"preview_url": False, "body": BODY}
    assert arrival.accepted


def test_a_template_is_sent_with_its_parameters_in_order(simulator, client):
    send(client, "+15550100002", TemplateMessage("order_shipped", "pt_BR", ("Ana", "42")))
    assert simulator.arrivals()[-1].content == {
        "name": "order_shipped",
        "language": {"code": "pt_BR"},
        "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "Ana"}, {"type": "text", "text": "42"}]}
        ],
    }


def test_a_template_without_parameters_has_no_components(simulator, client):
    send(client, "+15550100003", TemplateMessage("hello_world", "en_US"))
    assert simulator.arrivals()[-1].content == {"name": "hello_world", "language": {"code": "en_US"}}


@pytest.mark.parametrize("code", [code for code in TABLE if code.isdecimal()])
def test_each_code_of_the_table_raises_what_the_table_says(simulator, client, code):
    error, arrivals = failure(simulator, client, code)
    row = TABLE[code]
    assert type(error) is RAISED.get(row.action, PermanentError)
    assert error.code == code
    assert [arrival.accepted for arrival in arrivals] == [False]


@pytest.mark.parametrize("code", [code for code in TABLE if code.startswith("http_")])
def test_each_status_without_a_code_raises_what_the_table_says(simulator, client, code):
    error, arrivals = failure(simulator, client, f"http:{code.removeprefix('http_')}")
    assert type(error) is RAISED.get(TABLE[code].action, PermanentError)
    assert error.code == code
    assert len(arrivals) == 1


@pytest.mark.parametrize(
    ("outcome", "code", "accepted"),
    [
        ("silent", "net_timeout", True),
        ("slow", "net_timeout", True),
        ("reset", "net_lost", True),
        ("dropped", "net_lost", False),
        ("garbage", "net_unreadable", True),
    ],
)
def test_a_lost_answer_is_ambiguous_and_never_sent_twice(simulator, outcome, code, accepted):
    client = WhatsApp(simulator.whatsapp_base_url, TOKEN, timedelta(seconds=0.5))
    send(client, "+15550100004")  # so that the fault meets a connection that was used before, as in a campaign
    started = time.monotonic()
    error, arrivals = failure(simulator, client, outcome, slow_ms=5000)
    assert type(error) is AmbiguousError
    assert error.code == code
    assert [arrival.accepted for arrival in arrivals] == [accepted]
    assert time.monotonic() - started < 2
    client.close()


def test_a_refused_connection_is_transient_as_nothing_was_sent():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        client = WhatsApp(f"http://127.0.0.1:{closed.getsockname()[1]}/v23.0", TOKEN, timedelta(seconds=2))
        with pytest.raises(TransientError) as caught:
            send(client)
    assert caught.value.code == "net_connect"
    assert not isinstance(caught.value, ThrottledError)


def test_a_handshake_that_hangs_is_transient_as_nothing_was_sent():
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts TCP and never answers TLS
        client = WhatsApp(f"https://127.0.0.1:{listener.getsockname()[1]}/v23.0", TOKEN, timedelta(seconds=0.3))
        with pytest.raises(TransientError) as caught:
            send(client)
    assert caught.value.code == "net_connect"


@contextmanager
def answering(raw):
    """A client whose service reads a request, answers `raw` and hangs up, and the list of requests that it read."""
    requests = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                connection, _ = listener.accept()
                with connection:
                    request = connection.recv(65536)
                    if not request:
                        return
                    requests.append(request)
                    connection.sendall(raw)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield WhatsApp(f"http://127.0.0.1:{listener.getsockname()[1]}/v23.0", TOKEN, timedelta(seconds=2)), requests
        with socket.create_connection(listener.getsockname()):
            pass  # a connection without a request ends the server
        server.join()


def answer(status, body=b"", **headers):
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join(lines).replace("_", "-").encode() + b"\r\n\r\n" + body


def test_a_connection_that_breaks_while_the_answer_is_read_is_ambiguous():
    cut = b'HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n{"messages": ['
    with answering(cut) as (client, requests), pytest.raises(AmbiguousError):
        send(client)
    assert len(requests) == 1


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"messages": []}', b'{"messages": [{"id": ""}]}', b"\xff"])
def test_a_success_without_a_message_id_is_ambiguous(body):
    with answering(answer(200, body)) as (client, _), pytest.raises(AmbiguousError) as caught:
        send(client)
    assert caught.value.code == "net_unreadable"


def test_an_error_in_an_answer_with_status_200_is_an_error():
    with answering(answer(200, b'{"error": {"code": 131026}}')) as (client, _), pytest.raises(PermanentError) as caught:
        send(client)
    assert caught.value.code == "131026"


def test_a_redirect_is_not_followed():
    to_elsewhere = answer(307, location="/elsewhere")
    with answering(to_elsewhere) as (client, requests), pytest.raises(PermanentError) as caught:
        send(client)
    assert caught.value.code == "http_307"
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("120", 120, 120),
        ("99999999999", 3600, 3600),
        pytest.param(formatdate(time.time() + 600, usegmt=True), 300, 600, id="date"),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 0, 0),
        ("soon", 1, 1),
        ("-5", 1, 1),
    ],
)
def test_retry_after_is_read_as_seconds_or_date_within_bounds(header, least, most):
    with answering(answer(429, retry_after=header)) as (client, _), pytest.raises(ThrottledError) as caught:
        send(client)
    assert timedelta(seconds=least) <= caught.value.retry_after <= timedelta(seconds=most)


def test_retry_after_of_the_answer_is_honoured(simulator, client):
    error, _ = failure(simulator, client, "http:429", retry_after_s=17)
    assert error.retry_after == timedelta(seconds=17)
    error, _ = failure(simulator, client, "131056", retry_after_s=0)
    assert error.retry_after == TABLE["131056"].wait


def test_a_revoked_token_is_told_apart(simulator):
    simulator.plan(revoked_tokens=["revoked"])
    client = WhatsApp(simulator.whatsapp_base_url, "revoked", timedelta(seconds=5))
    with pytest.raises(PermanentError) as caught:
        send(client, "+15550100005")
    assert caught.value.code == "190"


@pytest.mark.parametrize("outcome", ["190", "131026", "131000", "http:500", "garbage", "reset", "130429", "777777"])
def test_errors_carry_no_phone_number_token_or_text(simulator, client, outcome):
    """SECURITY, leaks: canaries in every input, none in the error, its chain or its traceback."""
    error, _ = failure(simulator, client, outcome)
    shown = "".join(traceback.format_exception(error)) + repr(error)
    for canary in (PHONE.removeprefix("+"), TOKEN, BODY):
        assert canary not in shown
    assert error.__context__ is None


def test_threads_share_connections_and_use_them_again(simulator, client):
    simulator.plan(recipients={}, latency_ms=5)
    before = simulator.summary()
    with ThreadPoolExecutor(8) as threads:
        wamids = list(threads.map(lambda i: send(client, f"+1555020{i:04}", callback_data=f"reuse-{i}"), range(200)))
    after = simulator.summary()
    assert len(set(wamids)) == 200
    assert after["accepted"] - before["accepted"] == 200
    assert after["connections"] - before["connections"] <= 8 + 2  # one per thread, and the two looks at the summary


def test_other_threads_run_while_one_waits_for_an_answer(simulator):
    simulator.plan(recipients={PHONE: "silent"})
    client = WhatsApp(simulator.whatsapp_base_url, TOKEN, timedelta(seconds=0.5))
    with ThreadPoolExecutor(8) as threads:
        started = time.monotonic()
        waits = [threads.submit(send, client) for _ in range(8)]
        assert all(isinstance(wait.exception(), AmbiguousError) for wait in waits)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("number_id", ["../7", "1/messages?x=", "..", "", "1%2F2", "1\r\nhost: x"])
def test_a_number_id_that_would_change_the_url_is_refused_unsent(simulator, client, number_id):
    before = len(simulator.arrivals())
    with pytest.raises(PermanentError) as caught:
        client.send(number_id=number_id, recipient="+15550100006", message=HELLO, callback_data="")
    assert caught.value.code == "number_id_invalid"
    assert len(simulator.arrivals()) == before


def test_a_client_from_before_a_fork_refuses_in_the_child_and_goes_on_in_the_parent(client):
    send(client, "+15550100008")
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # without the refusal, the child would wait for ever
        signal.alarm(5)
        try:
            send(client)
        except RuntimeError as error:
            os._exit(0 if "fork" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert send(client, "+15550100008").startswith("wamid.")


@pytest.mark.parametrize(
    ("base_url", "token"), [("graph.facebook.com", "x"), ("ftp://host/v1", "x"), ("https://h/v1", "a\nb")]
)
def test_settings_that_cannot_work_are_refused_at_the_start(base_url, token):
    with pytest.raises(SettingsError) as caught:
        WhatsApp(base_url, token, timedelta(seconds=1))
    assert token not in str(caught.value) or token == "x"


def test_a_client_is_made_from_the_settings(simulator):
    settings = Settings(whatsapp_base_url=simulator.whatsapp_base_url, whatsapp_token="from-settings")
    client = WhatsApp.from_settings(settings)
    simulator.plan(tokens=["from-settings"])
    try:
        assert send(client, "+15550100009").startswith("wamid.")
    finally:
        simulator.plan(tokens=[])


def test_forked_workers_make_their_own_clients_and_ask_no_proxy_for_this_machine(simulator):
    """As dramatiq starts its workers: the settings are read, the process forks, each child sends."""
    program = """
import os
from providers.whatsapp import TextMessage, whatsapp
from core.settings import get_settings
get_settings()
child = os.fork()
client = whatsapp()
assert client is whatsapp()
sent = client.send(number_id="1", recipient="+15550100010", message=TextMessage("Hi"), callback_data="")
os.write(1, f"{sent}\\n".encode())  # in one piece, beside the other process's
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    environment = {
        **os.environ,
        "WHATSAPP_BASE_URL": simulator.whatsapp_base_url,
        "WHATSAPP_TOKEN": "any",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line[:6] for line in done.stdout.splitlines()] == ["wamid.", "wamid."]
