"""The HTTP server under the app: uvicorn, with hands on its connections, as some faults break them."""

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with no time: closing sends RST
_SHUTDOWN_S = 1


class Connections:
    """The TCP connections of the server: how many were made, and a way to break one."""

    def __init__(self) -> None:
        self.made = 0
        self._open: dict[tuple[str, int], asyncio.Transport] = {}

    def cut(self, peer: tuple[str, int]) -> None:
        """Resets the connection from `peer` (address, port), if it is still open."""
        transport = self._open.get(tuple(peer))  # type: ignore[arg-type]  # uvicorn's scope has it as a list or tuple
        if transport is not None:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    def protocol(self) -> type[HttpToolsProtocol]:
        """A protocol class for uvicorn that reports its connections here."""
        connections = self

        class Protocol(HttpToolsProtocol):
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
                super().connection_made(transport)
                connections.made += 1
                if self.client:
                    connections._open[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    connections._open.pop(self.client, None)
                super().connection_lost(exc)

        return Protocol


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], *, until_stdin_closes: bool) -> None:
        super().__init__(config)
        self._ready = ready
        self._until_stdin_closes = until_stdin_closes

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._until_stdin_closes:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._stdin_ready)
        self._ready()

    def _stdin_ready(self) -> None:
        if not os.read(sys.stdin.fileno(), 1024):
            self.should_exit = True
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


def run(
    app: Any,  # noqa: ANN401 - an ASGI app
    listener: socket.socket,
    connections: Connections,
    ready: Callable[[], None],
    *,
    until_stdin_closes: bool = False,
) -> None:
    """Serves `app` on `listener` until SIGTERM or SIGINT, or, if asked, until standard input closes.

    Args:
        app: The ASGI app.
        listener: A listening socket.
        connections: Filled while it runs.
        ready: Called once, when requests are served.
        until_stdin_closes: For a child process: ends when its parent does, however that dies.
    """
    # uvicorn raises the signal that stopped it once more when it is done; the stop was asked for, so exit with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        http=connections.protocol(),
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        timeout_keep_alive=75,
        backlog=2048,
    )
    _Server(config, ready, until_stdin_closes=until_stdin_closes).run(sockets=[listener])
