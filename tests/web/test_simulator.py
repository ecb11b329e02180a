"""The simulator as a process, over real sockets (X-14; RELIABILITY: logged before it is answered)."""

import http.client
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from core.errors import AmbiguousError, FanfareError, ThrottledError
from providers.whatsapp import TextMessage, WhatsApp
from simulator.ledger import Ledger, read, worst_window
from simulator.process import running_simulator

HELLO = TextMessage("Hello")
GOOD = {"messaging_product": "whatsapp", "to": "+15550100001", "type": "text", "text": {"body": "Hi"}}


def client_of(simulator, timeout_s=5.0):
    return WhatsApp(simulator.whatsapp_base_url, "token", timedelta(seconds=timeout_s))


def send(client, number=1, callback="", number_id="1"):
    return client.send(
        number_id=number_id, recipient=f"+1555{number:07}", message=HELLO, callback_data=callback or f"d{number}"
    )


def ask(simulator, method, path, body=None, headers=None):
    """Status, headers and body of one plain HTTP request."""
    connection = http.client.HTTPConnection(urlsplit(simulator.url).netloc, timeout=10)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def post(simulator, body, authorization="Bearer x", path="/v23.0/1/messages"):
    headers = {"content-type": "application/json"} | ({"authorization": authorization} if authorization else {})
    status, headers, answer = ask(simulator, "POST", path, body if isinstance(body, str) else json.dumps(body), headers)
    return status, headers, json.loads(answer)


def poll(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def simulator():
    with running_simulator(rate=0, pair_limit=False) as running:
        yield running


def test_a_number_is_held_to_its_rate_and_others_are_not():
    with running_simulator(rate=0, rates={"1": 2.5}) as simulator:
        client = client_of(simulator)
        errors = []
        for number in range(60):
            try:
                send(client, number)
            except ThrottledError as error:
                errors.append(error)
            send(client, number, number_id="2")
        arrivals = [arrival for arrival in simulator.arrivals() if arrival.number == "1"]
        accepted = [arrival.mono_ns for arrival in arrivals if arrival.accepted]
        assert {error.code for error in errors} == {"130429"}
        assert len(errors) + len(accepted) == 60
        assert worst_window(accepted, timedelta(seconds=2)) <= 5
        assert simulator.summary()["numbers"]["2"]["accepted"] == 60
        simulator.plan(rates={})
        assert send(client, 99)


def test_the_error_above_the_rate_has_the_shape_of_the_graph_api():
    with running_simulator(rate=1, retry_after_s=3) as simulator:
        answers = [post(simulator, GOOD) for _ in range(2)]
    status, headers, body = answers[1]
    assert answers[0][0] == 200
    assert (status, headers["retry-after"]) == (429, "3")
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "code", "error_data", "fbtrace_id"}
    assert body["error"]["code"] == 130429


def test_a_pair_above_its_burst_gets_131056():
    with running_simulator(rate=0) as simulator:
        client = client_of(simulator)
        for _ in range(45):
            send(client)
        with pytest.raises(ThrottledError) as caught:
            send(client)
        assert send(client, 2)
    assert caught.value.code == "131056"


def test_a_good_answer_has_the_shape_of_the_cloud_api(simulator):
    status, _, body = post(simulator, GOOD)
    assert status == 200
    assert body["messaging_product"] == "whatsapp"
    assert body["contacts"] == [{"input": "+15550100001", "wa_id": "15550100001"}]
    assert [set(message) for message in body["messages"]] == [{"id"}]


@pytest.mark.parametrize(
    "change",
    [
        {"messaging_product": "sms"},
        {"recipient_type": "group"},
        {"to": "Ana"},
        {"to": 15550100001},
        {"type": "image"},
        {"type": ["text"]},
        {"text": {"body": ""}},
        {"text": {"body": "x" * 4097}},
        {"biz_opaque_callback_data": "x" * 513},
        {"type": "template", "template": {"name": "x"}},
        {"type": "template", "template": {"name": "x", "language": {"code": "en"}, "components": [{"type": "body"}]}},
        {"type": "template", "template": {"name": "x", "language": {"code": "en"}, "components": "none"}},
    ],
)
def test_a_body_of_the_wrong_shape_is_refused_with_100(simulator, change):
    status, _, body = post(simulator, GOOD | change)
    assert (status, body["error"]["code"]) == (400, 100)
    assert simulator.arrivals()[-1].accepted is False


@pytest.mark.parametrize("body", ["", "{", "[]", "\xff", '{"to": '])
def test_what_is_not_a_json_object_is_refused_with_100(simulator, body):
    assert post(simulator, body)[2]["error"]["code"] == 100


@pytest.mark.parametrize("authorization", ["", "Basic abc", "Bearer "])
def test_a_request_without_a_token_is_refused(simulator, authorization):
    status, _, body = post(simulator, GOOD, authorization=authorization)
    assert (status, body["error"]["code"]) == (401, 0)


def test_every_acknowledged_send_is_in_the_log_after_a_kill(tmp_path):
    """Killed in the middle of traffic: what was answered is logged; started again, it knows what it had seen."""
    with running_simulator(data=tmp_path, rate=0, fsync=True) as simulator:
        acknowledged, enough = [], threading.Event()

        def traffic(first):
            client = client_of(simulator)
            try:
                for number in range(first, first + 100_000):
                    acknowledged.append(send(client, number))
                    if len(acknowledged) > 200:
                        enough.set()
            except FanfareError:
                return

        threads = [threading.Thread(target=traffic, args=(lane * 100_000,)) for lane in range(4)]
        for thread in threads:
            thread.start()
        assert enough.wait(20)
        simulator.kill()
        for thread in threads:
            thread.join()
        logged = simulator.arrivals()
        assert set(acknowledged) <= {arrival.wamid for arrival in logged}
        assert len(logged) - len(acknowledged) <= len(threads)
    with running_simulator(data=tmp_path, rate=0) as again:
        assert again.summary()["accepted"] == len(logged)
        send(client_of(again), 0)
        assert again.arrivals()[-1].attempt == 2


def test_a_line_cut_short_by_a_dying_machine_is_dropped(tmp_path):
    with running_simulator(data=tmp_path, rate=0) as simulator:
        send(client_of(simulator))
        log = simulator.log
    with log.open("ab") as file:
        file.write(b'{"at_ns": 17')
    assert len(read(log)) == 1
    ledger = Ledger(tmp_path)
    ledger.append(read(log)[0])
    ledger.close()
    assert len(read(log)) == 2


def test_a_message_is_logged_although_its_answer_never_comes(simulator):
    simulator.plan(recipients={"+15550000042": "silent"})
    with pytest.raises(AmbiguousError):
        send(client_of(simulator, 0.3), 42)
    arrival = simulator.arrivals()[-1]
    assert (arrival.recipient, arrival.outcome, arrival.accepted) == ("+15550000042", "silent", True)


def test_sigterm_ends_it_at_once_with_0_even_with_a_request_open():
    with running_simulator(recipients={"+15550000001": "silent"}) as simulator:
        client = client_of(simulator)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(send, client)
            poll(simulator.arrivals)
            assert simulator.terminate() == 0
            assert isinstance(waiting.exception(), AmbiguousError)


def test_it_ends_when_its_parent_is_gone():
    program = (
        "import os\nfrom simulator.process import running_simulator\n"
        "with running_simulator() as simulator:\n"
        "    print(simulator.process.pid, flush=True)\n    os._exit(9)\n"
    )
    parent = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    pid = int(parent.stdout)
    poll(lambda: not is_running(pid))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a file of the kernel
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_summary_counts_what_happened():
    with running_simulator(rate=0, recipients={"+15550000003": "131026"}) as simulator:
        client = client_of(simulator)
        send(client, 1, callback="a")
        send(client, 1, callback="a")
        send(client, 2, callback="b")
        with pytest.raises(FanfareError):
            send(client, 3)
        summary = simulator.summary()
        simulator.reset()
        empty = simulator.summary()
        assert len(simulator.arrivals()) == 4
    assert summary["requests"] == 4
    assert summary["outcomes"] == {"ok": 3, "131026": 1}
    assert (summary["distinct_recipients"], summary["duplicates"]) == (2, 1)
    assert summary["numbers"]["1"]["worst_1s"] == 4
    assert empty["requests"] == 0


def test_the_plan_changes_while_it_runs(simulator):
    simulator.plan(recipients={"+15550000005": "131026"})
    with pytest.raises(FanfareError):
        send(client_of(simulator), 5)
    simulator.plan(recipients={})
    assert send(client_of(simulator), 5)


def test_a_wrong_change_is_refused_and_changes_nothing(simulator):
    before = simulator.plan()
    with pytest.raises(ValueError, match="shares"):
        simulator.plan(shares={"ok": 2})
    assert simulator.plan() == before


def test_a_page_of_another_site_cannot_change_the_plan(simulator):
    status, _, _ = ask(simulator, "POST", "/admin/plan", '{"rate": 1}', {"content-type": "text/plain"})
    assert status == 415


def test_the_page_shows_hostile_text_as_text_and_runs_no_script(simulator):
    """SECURITY, dashboard XSS."""
    hostile = "<script>alert(1)</script>"
    post(simulator, GOOD | {"text": {"body": hostile}}, path="/v23.0/%3Cimg%20src=x%3E/messages")
    status, headers, body = ask(simulator, "GET", "/admin")
    page = body.decode()
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img" not in page
    assert ask(simulator, "GET", "/admin/style.css")[0] == 200


def test_health_answers_and_unknown_paths_do_not_exist(simulator):
    assert ask(simulator, "GET", "/health")[0] == 200
    assert ask(simulator, "GET", "/nothing")[0] == 404
    assert post(simulator, GOOD, path="/1/messages")[0] == 404


def test_options_of_the_command_line_reach_the_plan(tmp_path):
    command = [sys.executable, "-m", "simulator", "--port=0", f"--data={tmp_path}", "--until-stdin-closes"]
    command += ["--seed=7", "--rate=20", "--number=55=12.5", "--fault=131026=0.25", "--fault=http:500=0.1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        netloc = urlsplit(json.loads(process.stdout.readline())["url"]).netloc
        connection = http.client.HTTPConnection(netloc, timeout=10)
        connection.request("GET", "/admin/plan")
        plan = json.loads(connection.getresponse().read())
        connection.close()
        process.stdin.close()
        assert process.wait(10) == 0
    assert (plan["seed"], plan["rate"], plan["rates"]) == (7, 20, {"55": 12.5})
    assert plan["shares"] == {"131026": 0.25, "http:500": 0.1}


def test_a_wrong_option_is_explained(tmp_path):
    command = [sys.executable, "-m", "simulator", "--port=0", f"--data={tmp_path}", "--fault=explode=0.25"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "explode" in done.stderr
