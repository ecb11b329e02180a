"""The little of HTTP that the simulator needs on top of ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")
_MAX_BODY = 3_000_000


async def read_body(receive: Receive) -> bytes:
    """The request's whole body; what lies beyond 3 MB is dropped, and JSON cut so does not parse."""
    event = await receive()
    body: bytes = event.get("body", b"")
    while event.get("more_body"):
        event = await receive()
        if len(body) < _MAX_BODY:
            body += event.get("body", b"")
    return body


async def gone(receive: Receive) -> None:
    """Returns when the other side has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Sends a whole answer."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, status: int, content: object, *headers: tuple[bytes, bytes]) -> None:
    """Sends `content` as JSON."""
    await answer(send, status, orjson.dumps(content), _JSON, *headers)


def header(scope: Scope, name: bytes) -> str:
    """The request's header `name` (in small letters); empty if it has none."""
    value = next((value for key, value in scope["headers"] if key == name), b"")
    return str(value, "latin-1")
