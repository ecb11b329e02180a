"""The proxy fails as it is told: otherwise the tests beside it would be blind."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.conftest import wait_until
from tests.faults.proxy import Proxy, address_of


@pytest.fixture
def echo() -> Iterator[tuple[Proxy, list[bytes]]]:
    """A proxy before a server that answers each line with itself, and the lines that the server got."""
    got: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(1000):
                got.append(data)
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    proxy = Proxy(server.getsockname())
    yield proxy, got
    proxy.close()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def client_of(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), 2)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(1000)


def test_it_forwards_and_counts(echo):
    proxy, got = echo
    with client_of(proxy) as client:
        assert ask(client, b"one") == b"one"
        assert ask(client, b"two") == b"two"
    assert got == [b"one", b"two"]
    passed = proxy.passed
    # Requests and replies are counted by two threads.
    wait_until(lambda: (passed.requests, passed.replies) == (2, 2), "two requests and replies are counted")
    assert (passed.connections, passed.lost_replies) == (1, 0)


def test_it_forwards_the_request_and_loses_the_reply(echo):
    proxy, got = echo
    proxy.lose_replies(1, request=lambda data: b"lost" in data)
    with client_of(proxy) as client:
        assert ask(client, b"other") == b"other"
        with pytest.raises(ConnectionResetError):
            ask(client, b"lost")
    with client_of(proxy) as client:
        assert ask(client, b"lost") == b"lost", "only one was to be lost"
    assert got == [b"other", b"lost", b"lost"]
    proxy.lose_replies(1, reply=lambda data: b"answer" in data)
    with client_of(proxy) as client, pytest.raises(ConnectionResetError):
        ask(client, b"answer")
    assert proxy.passed.lost_replies == 2


def test_it_refuses_and_accepts_again_on_the_same_port(echo):
    proxy, _ = echo
    with client_of(proxy) as client:
        ask(client, b"one")
        proxy.refuse()
        with pytest.raises(ConnectionError):
            raise_when_closed(client)
    with pytest.raises(ConnectionRefusedError):
        client_of(proxy)
    proxy.accept()
    with client_of(proxy) as client:
        assert ask(client, b"two") == b"two"


def test_a_reset_cuts_present_connections_only(echo):
    proxy, _ = echo
    with client_of(proxy) as client:
        ask(client, b"one")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            raise_when_closed(client)
    with client_of(proxy) as client:
        assert ask(client, b"two") == b"two"


def test_a_black_hole_swallows_until_it_ends(echo):
    proxy, got = echo
    with client_of(proxy) as client:
        proxy.black_hole()
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(client, b"one")
        assert got == []
        proxy.forward()
        client.settimeout(2)
        assert client.recv(1000) == b"one"


def test_latency_delays_both_ways(echo):
    proxy, _ = echo
    proxy.latency_s = 0.05
    with client_of(proxy) as client:
        began = time.monotonic()
        assert ask(client, b"one") == b"one"
        assert time.monotonic() - began >= 0.1


def raise_when_closed(client: socket.socket) -> None:
    """Reads; an orderly end is a lost connection, too."""
    if not client.recv(1000):
        raise ConnectionResetError


def test_it_finds_a_server_by_its_url():
    assert address_of("unix://:secret@/run/redis.sock") == "/run/redis.sock"
    assert address_of("postgresql://me@/db?host=/run/postgres") == "/run/postgres/.s.PGSQL.5432"
    assert address_of("redis://h:1/0") == ("h", 1)
    assert address_of("postgresql://me@h/db") == ("h", 5432)
