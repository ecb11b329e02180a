"""What one request costs each HTTP client in CPU time of the sending process: `python -m bench.http_clients`.

16 threads of a process of their own post a small JSON message, as a campaign does, to a bare ASGI server in another
process. The cost is the sending process's user and system time (`getrusage`) divided by its requests; threads that a
library runs underneath are in it. Clients that are not installed are named and left out; to compare all of them, make
an environment beside the project's: `python -m venv /tmp/clients`, `/tmp/clients/bin/pip install uvicorn[standard]
pyreqwest pycurl urllib3 httpx`, then `/tmp/clients/bin/python -m bench.http_clients`.
"""

import argparse
import importlib
import importlib.util
import io
import json
import multiprocessing
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

THREADS = 16
BODY = json.dumps({"messaging_product": "whatsapp", "to": "15550001", "text": {"body": "Hello"}}).encode()
HEADERS = {"content-type": "application/json", "authorization": "Bearer token"}
ANSWER = json.dumps({"messages": [{"id": "wamid.HBgLMTU1NTAwMDEVAgARGBI"}]}).encode()

Post = Callable[[], bytes]
"""Sends one request and returns the body of the answer."""


async def bare_app(_scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's own callables
    """An ASGI app that reads the request and answers at once."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER})


def pyreqwest(url: str) -> Callable[[], Post]:
    """One client for all threads."""
    builder = importlib.import_module("pyreqwest.client").SyncClientBuilder()

    client = builder.default_headers(HEADERS).build()
    return lambda: lambda: bytes(client.post(url).body_bytes(BODY).build().send().bytes())


def pycurl(url: str) -> Callable[[], Post]:
    """One handle per thread, as libcurl demands."""
    curl = importlib.import_module("pycurl")

    def make() -> Post:
        handle = curl.Curl()
        handle.setopt(curl.URL, url)
        handle.setopt(curl.HTTPHEADER, [f"{name}: {value}" for name, value in HEADERS.items()])
        handle.setopt(curl.POSTFIELDS, BODY)
        handle.setopt(curl.NOSIGNAL, 1)

        def post() -> bytes:
            answer = io.BytesIO()
            handle.setopt(curl.WRITEDATA, answer)
            handle.perform()
            return answer.getvalue()

        return post

    return make


def urllib3(url: str) -> Callable[[], Post]:
    """One pool for all threads."""
    library = importlib.import_module("urllib3")

    pool = library.PoolManager(maxsize=THREADS, headers=HEADERS)
    return lambda: lambda: bytes(pool.request("POST", url, body=BODY).data)


def httpx(url: str) -> Callable[[], Post]:
    """One client for all threads."""
    library = importlib.import_module("httpx")

    client = library.Client(headers=HEADERS)
    return lambda: lambda: bytes(client.post(url, content=BODY).content)


CLIENTS = {"pyreqwest": pyreqwest, "pycurl": pycurl, "urllib3": urllib3, "httpx": httpx}


def serve(listener: socket.socket) -> None:
    """Runs the bare server on `listener` until it is terminated."""
    uvicorn = importlib.import_module("uvicorn")

    config = uvicorn.Config(bare_app, log_level="error", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


def measure(name: str, url: str, requests: int, results: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """Sends `requests` by client `name`, after a tenth as many to warm up; puts (CPU seconds, seconds)."""
    make = CLIENTS[name](url)

    def loop(count: int) -> None:
        post = make()
        for _ in range(count):
            if post() != ANSWER:
                raise SystemExit(f"{name} got a wrong answer")

    def run(count: int) -> None:
        threads = [threading.Thread(target=loop, args=(count // THREADS,)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run(requests // 10)
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    run(requests)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    results.put((cpu, time.monotonic() - started))


def main() -> None:
    """Measures each installed client in turn and prints one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=32_000, help="requests per client")
    requests = parser.parse_args().requests // THREADS * THREADS
    spawn = multiprocessing.get_context("spawn")
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v23.0/1/messages"
        server = spawn.Process(target=serve, args=(listener,))
        server.start()
        for name in CLIENTS:
            if importlib.util.find_spec(name) is None:
                sys.stderr.write(f"{name} is not installed: left out (see --help)\n")
                continue
            results: multiprocessing.Queue[tuple[float, float]] = spawn.Queue()
            process = spawn.Process(target=measure, args=(name, url, requests, results))
            process.start()
            cpu, elapsed = results.get(timeout=600)
            process.join()
            figure = {
                "figure": f"http_client_cpu_us_{name}",
                "value": round(cpu / requests * 1e6, 1),
                "unit": "us",
                "of": f"{requests} requests, {THREADS} threads, {requests / elapsed:.0f}/s",
            }
            sys.stdout.write(json.dumps(figure) + "\n")
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
