"""WhatsApp's webhooks, coming in (API-12): checked, stored and answered at once; workers do the rest.

The answer waits for one commit in PostgreSQL and for nothing else: that workers are told of it happens after, in
`web.wake_up`. Meta sends a webhook again that was not answered with 200, for up to 7 days.
"""

import hmac
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from core.errors import TransientError
from core.logging import get_logger
from core.settings import get_settings
from db import inbound
from domain.whatsapp_webhook import MAX_BODY_BYTES, is_genuine
from web.inbox import Inbox
from web.wake_up import WakeUp

log = get_logger(__name__)

PATH = "/webhooks/whatsapp"

_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}


def make_router() -> APIRouter:
    """The two routes of `PATH`; connects to nothing before it is asked something."""
    router = APIRouter()
    inbox, wake_up = Inbox(inbound.store_many), WakeUp(_tell_workers)

    @router.get(PATH)
    async def verify(request: Request) -> Response:
        """Meta sets the address up: repeat its challenge if it knows our token."""
        token = get_settings().whatsapp_verify_token.get_secret_value()
        if not token:
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "WHATSAPP_VERIFY_TOKEN is not set.")
        asked = request.query_params
        given = asked.get("hub.verify_token", "").encode()
        if not hmac.compare_digest(given, token.encode()) or asked.get("hub.mode") != "subscribe":
            return _problem(HTTPStatus.FORBIDDEN, "hub.mode or hub.verify_token is not the right one.")
        return PlainTextResponse(asked.get("hub.challenge", ""), headers=_HEADERS)

    @router.post(PATH)
    async def receive(request: Request) -> Response:
        """Store a webhook that WhatsApp signed."""
        settings = get_settings()
        secrets = (settings.whatsapp_app_secret, settings.whatsapp_app_secret_previous)
        if not secrets[0].get_secret_value():
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "WHATSAPP_APP_SECRET is not set.")
        body = await _body(request)
        if body is None:
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"At most {MAX_BODY_BYTES} bytes are accepted.")
        signature = request.headers.get("x-hub-signature-256")
        if not is_genuine(body, signature, [secret.get_secret_value() for secret in secrets]):
            return _problem(HTTPStatus.FORBIDDEN, "X-Hub-Signature-256 is not the signature of this body.")
        try:
            is_new = await inbox.store(body)
        except TransientError as error:
            log.warning("webhook.not_stored", code=error.code, error=str(error))
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "It could not be stored; send it again.")
        if is_new:
            wake_up()
        return Response(status_code=HTTPStatus.OK, headers=_HEADERS)

    return router


async def _body(request: Request) -> bytes | None:
    """The raw body; None as soon as it is known to be too large."""
    if int(request.headers.get("content-length", "0")) > MAX_BODY_BYTES:  # a server lets only numbers through
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _tell_workers() -> None:
    # Declares all job types on the process's broker: not before it is needed, and not in the event loop.
    from actors.whatsapp_webhook import process_webhooks  # noqa: PLC0415

    process_webhooks.send()


def _problem(status: HTTPStatus, detail: str) -> JSONResponse:
    """A problem document (RFC 9457)."""
    body = {"type": "about:blank", "title": status.phrase, "status": status, "detail": detail}
    return JSONResponse(body, status, _HEADERS, "application/problem+json")
