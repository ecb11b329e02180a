"""The simulator's own pages: what it has seen, and how to change what it does."""

import time
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import ValidationError

from simulator import page
from simulator.http import Receive, Scope, Send, answer, answer_json, header, read_body
from simulator.whatsapp import WhatsApp

_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_GUARDS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_HTML = (b"content-type", b"text/html; charset=utf-8")
_CSS = (b"content-type", b"text/css; charset=utf-8")


class Admin:
    """GET /admin, /admin/style.css, /admin/summary.json, /admin/plan, /health; POST /admin/plan, /admin/reset.

    Args:
        whatsapp: Whose books are shown and whose plan is changed.
        connections: Returns the number of TCP connections since the start.
    """

    def __init__(self, whatsapp: WhatsApp, connections: Callable[[], int]) -> None:
        self._whatsapp = whatsapp
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request."""
        match scope["method"], scope["path"]:
            case "GET", "/health":
                await answer_json(send, 200, {"status": "ok"})
            case "GET", "/admin" | "/":
                html = page.render(self._summary(), self._whatsapp.books.last)
                await answer(send, 200, html.encode(), _HTML, *_GUARDS)
            case "GET", "/admin/style.css":
                await answer(send, 200, page.STYLE.encode(), _CSS, *_GUARDS)
            case "GET", "/admin/summary.json":
                await answer_json(send, 200, self._summary(), *_GUARDS)
            case "GET", "/admin/plan":
                await answer_json(send, 200, self._whatsapp.plan.model_dump(mode="json"), *_GUARDS)
            case "POST", "/admin/plan" | "/admin/reset":
                await self._change(scope, receive, send)
            case _:
                await answer_json(send, 404, {"error": {"message": "Nothing is here; see docs/simulator.md."}})

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        # A page of another site can send a form to this port, but not this content type.
        if header(scope, b"content-type") != "application/json":
            await answer_json(send, 415, {"error": {"message": "Send content-type: application/json."}})
            return
        if scope["path"] == "/admin/reset":
            self._whatsapp.forget()
        else:
            try:
                self._whatsapp.replan(self._whatsapp.plan.changed(orjson.loads(body)))
            except (ValidationError, orjson.JSONDecodeError, TypeError) as error:
                await answer_json(send, 400, {"error": {"message": str(error)}})
                return
        await answer_json(send, 200, self._whatsapp.plan.model_dump(mode="json"))

    def _summary(self) -> dict[str, Any]:
        summary = self._whatsapp.books.summary(self._whatsapp.plan, time.monotonic_ns())
        return {**summary, "connections": self._connections(), "webhooks": self._whatsapp.webhooks.summary()}
