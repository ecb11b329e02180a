"""A TCP proxy of our own before Redis, Postgres or a provider, that fails in the ways in which networks fail.

The mode that matters most is `lose_replies`: the request takes effect, and nobody hears of it.
"""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

CHUNK = 65536
POLL_S = 0.02
REPLY_PAUSE_S = 0.1
"""A reply is complete, and its request has taken effect, when the server is silent for so long."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST, as a peer that crashed does."""

Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""
Matches = Callable[[bytes], bool]


@dataclass
class Passed:
    """What went through so far; a chunk is what one read of a socket gave."""

    connections: int = 0
    requests: int = 0
    replies: int = 0
    lost_replies: int = 0


class Proxy:
    """Forwards from a port of its own to `target`, until told to fail.

    Args:
        target: The server, where it is at each moment; it may move or be restarted.
    """

    def __init__(self, target: Address) -> None:
        self.target = target
        self.passed = Passed()
        self.latency_s = 0.0
        self._forwards = threading.Event()
        self._forwards.set()
        self._mutex = threading.Lock()
        self._links: set[_Link] = set()
        self._losing: tuple[int, str, Matches] = (0, "request", bool)
        self._listener: socket.socket | None = None
        self.port = 0
        self.accept()

    def url(self, server_url: str) -> str:
        """`server_url` with the proxy's place instead of the server's."""
        parts = urlsplit(server_url)
        user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        scheme = "redis" if parts.scheme == "unix" else parts.scheme
        path = "/0" if parts.scheme == "unix" else parts.path
        return f"{scheme}://{user}127.0.0.1:{self.port}{path}"

    # Modes

    def refuse(self) -> None:
        """Close the port and cut all connections: connecting is refused until `accept`."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Wakes the thread that accepts; closing alone would not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.reset()

    def accept(self) -> None:
        """Open the port, the same as before."""
        if self._listener is not None:
            return
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept_loop, args=(listener,), daemon=True).start()

    def black_hole(self) -> None:
        """Accept and read, but pass nothing on, until `forward`."""
        self._forwards.clear()

    def forward(self) -> None:
        """End a black hole: what was swallowed meanwhile is passed on late."""
        self._forwards.set()

    def reset(self) -> None:
        """Cut all present connections with RST; new ones are served."""
        with self._mutex:
            links = list(self._links)
        for link in links:
            link.cut()

    def lose_replies(self, count: int, *, request: Matches | None = None, reply: Matches | None = None) -> None:
        """Forward the next `count` requests and drop their replies: the connection is cut instead.

        With `request`, only requests whose bytes it matches; with `reply`, only replies that it matches.
        """
        with self._mutex:
            self._losing = (count, "reply" if reply else "request", reply or request or bool)

    def close(self) -> None:
        """Stop; all connections are cut."""
        self.refuse()
        self._forwards.set()

    # Called by the links

    def loses(self, kind: str, data: bytes) -> bool:
        """Whether the reply that `data` leads to (or is) gets lost."""
        with self._mutex:
            left, wanted, matches = self._losing
            if left <= 0 or wanted != kind or not matches(data):
                return False
            self._losing = (left - 1, wanted, matches)
            self.passed.lost_replies += 1
            return True

    def wait_to_forward(self) -> None:
        self._forwards.wait()
        if self.latency_s:
            time.sleep(self.latency_s)

    def forget(self, link: "_Link") -> None:
        with self._mutex:
            self._links.discard(link)

    def _accept_loop(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = connect(self.target)
            except OSError:
                cut(client)
                continue
            link = _Link(self, client, server)
            with self._mutex:
                self.passed.connections += 1
                self._links.add(link)
            link.start()


class _Link:
    """One client's connection and its connection to the server."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._loses_reply = False

    def start(self) -> None:
        for way in (self._requests, self._replies):
            threading.Thread(target=way, daemon=True).start()

    def cut(self) -> None:
        self._proxy.forget(self)
        cut(self._client)
        cut(self._server)

    def _requests(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(CHUNK):
                self._proxy.wait_to_forward()
                self._loses_reply = self._loses_reply or self._proxy.loses("request", data)
                self._server.sendall(data)
                self._proxy.passed.requests += 1
        self.cut()

    def _replies(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._server.recv(CHUNK):
                if self._loses_reply or self._proxy.loses("reply", data):
                    self._swallow()
                    break
                self._proxy.wait_to_forward()
                self._client.sendall(data)
                self._proxy.passed.replies += 1
        self.cut()

    def _swallow(self) -> None:
        self._server.settimeout(REPLY_PAUSE_S)
        with contextlib.suppress(TimeoutError):
            while self._server.recv(CHUNK):
                continue


def connect(target: Address) -> socket.socket:
    if isinstance(target, str):
        unix = socket.socket(socket.AF_UNIX)
        unix.connect(target)
        return unix
    tcp = socket.create_connection(target, 5)
    tcp.settimeout(None)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return tcp


def cut(connection: socket.socket) -> None:
    """Close with RST, and wake the thread that reads."""
    with contextlib.suppress(OSError):
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        else:
            connection.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        # A close while another thread reads does not reach the peer; shutting the reading side down wakes that thread.
        connection.shutdown(socket.SHUT_RD)
    connection.close()


def address_of(url: str) -> Address:
    """Where the server of a Redis or PostgreSQL URL listens."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    if (folder := parse_qs(parts.query).get("host", [""])[0]).startswith("/"):
        return f"{folder}/.s.PGSQL.{parts.port or 5432}"
    return parts.hostname or "127.0.0.1", parts.port or (5432 if parts.scheme.startswith("postgres") else 6379)
