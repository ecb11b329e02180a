"""WhatsApp Cloud API: sends one message. See `providers.outcomes` for what each refusal means."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Self
from urllib.parse import urlsplit

import orjson
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import DecodeError, RequestError, RequestTimeoutError
from pyreqwest.response import SyncResponse

from core.clock import now
from core.errors import PermanentError, SettingsError
from core.settings import Settings, get_settings
from providers.outcomes import TABLE, ProviderCode, by_code, by_status, error_for

_CONNECT_TIMEOUT = timedelta(seconds=5)
_IDLE_TIMEOUT = timedelta(seconds=20)  # below the minute after which servers and NATs drop idle connections unseen
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}
_SUCCESS = range(200, 300)
_NUMBER_ID = re.compile(r"[\w-]{1,64}", re.ASCII)  # becomes a part of the URL


@dataclass(frozen=True, slots=True)
class TextMessage:
    """Free text; WhatsApp delivers it only within 24 h of the recipient's last message (code 131047)."""

    body: str


@dataclass(frozen=True, slots=True)
class TemplateMessage:
    """A template that Meta has approved, with the values of its body's variables, in order."""

    name: str
    language: str
    parameters: tuple[str, ...] = ()


class WhatsApp:
    """A client for all threads of one process, with one pool of connections.

    Not for use after a fork: the library's own thread does not exist in the child, where a request would wait for
    ever. `send` refuses there, and `whatsapp()` makes each process its own client.

    Args:
        base_url: With the version, such as `https://graph.facebook.com/v23.0`.
        token: Access token; never in an error's message.
        timeout: Longest wait from the start of a request to the end of its answer; connecting may take half of
            it, and 5 s at most.

    Raises:
        SettingsError: The URL or the token cannot be used.
    """

    def __init__(self, base_url: str, token: str, timeout: timedelta) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise SettingsError("WHATSAPP_BASE_URL must begin with https:// or http:// and name a host.")
        if not token.isascii() or not token.isprintable():
            raise SettingsError("WHATSAPP_TOKEN has characters that no HTTP header may carry.")
        self._base_url = base_url.rstrip("/")
        self._client = _client(token, timeout, use_proxy=parts.hostname not in _LOOPBACK)
        self._pid = os.getpid()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """A client as WHATSAPP_BASE_URL, WHATSAPP_TOKEN and PROVIDER_TIMEOUT say."""
        token = settings.whatsapp_token.get_secret_value()
        return cls(settings.whatsapp_base_url, token, settings.provider_timeout)

    def send(
        self, *, number_id: str, recipient: str, message: TextMessage | TemplateMessage, callback_data: str
    ) -> str:
        """Sends one message and returns the provider's id for it (`wamid...`).

        There is no idempotency key: each call may send once more. A 200 is not delivery; what became of the message
        comes by webhook, with `callback_data` in it.

        Args:
            number_id: The sending number's id at Meta.
            recipient: Phone number in E.164 form, with its plus.
            message: What to send.
            callback_data: Up to 512 characters that come back in the status webhooks.

        Raises:
            TransientError: Nothing was sent and a later try may work.
            ThrottledError: Nothing was sent; a limit was reached; costs no attempt.
            AmbiguousError: It may have been sent: the answer was lost, late or unreadable.
            PermanentError: Nothing was sent and never will be; `outcomes.known(error.code)` tells what else to stop.
        """
        if os.getpid() != self._pid:
            raise RuntimeError("This WhatsApp client was made before a fork; call providers.whatsapp.whatsapp() here.")
        if not _NUMBER_ID.fullmatch(number_id):
            raise PermanentError("A WhatsApp number id has only letters, digits, - and _.", code="number_id_invalid")
        url = f"{self._base_url}/{number_id}/messages"
        request = self._client.post(url).body_bytes(_payload(recipient, message, callback_data)).build()
        try:
            response = request.send()
            body = bytes(response.bytes())
        except RequestError as error:
            lost = _lost(error)
        else:
            return _message_id(response, body)
        # Outside the except block, so that no chained error carries the library's text to logs and error reports.
        raise error_for("WhatsApp", lost)

    def close(self) -> None:
        """Closes the connections; requests under way fail as ambiguous."""
        self._client.close()


def whatsapp() -> WhatsApp:
    """The client of this process, made from the settings at the first call; a forked child gets its own."""
    return _client_of_process(os.getpid())


@lru_cache(maxsize=1)
def _client_of_process(_pid: int) -> WhatsApp:
    return WhatsApp.from_settings(get_settings())


def _client(token: str, timeout: timedelta, *, use_proxy: bool) -> SyncClient:
    builder = (
        SyncClientBuilder()
        .default_headers({"authorization": f"Bearer {token}", "content-type": "application/json"})
        .user_agent("fanfare")
        # Shorter than the whole, or the whole would end first and a connection never made would count as ambiguous.
        .connect_timeout(min(_CONNECT_TIMEOUT, timeout / 2))
        .read_timeout(timeout)
        .timeout(timeout)
        .pool_idle_timeout(_IDLE_TIMEOUT)
        .follow_redirects(enable=False)
    )
    return (builder if use_proxy else builder.no_proxy()).build()


def _payload(recipient: str, message: TextMessage | TemplateMessage, callback_data: str) -> bytes:
    kind, content = _content(message)
    return orjson.dumps(
        {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": recipient,
            "type": kind,
            kind: content,
            "biz_opaque_callback_data": callback_data,
        }
    )


def _content(message: TextMessage | TemplateMessage) -> tuple[str, dict[str, Any]]:
    if isinstance(message, TextMessage):
        return "text", {"preview_url": False, "body": message.body}
    template: dict[str, Any] = {"name": message.name, "language": {"code": message.language}}
    if message.parameters:
        values = [{"type": "text", "text": value} for value in message.parameters]
        template["components"] = [{"type": "body", "parameters": values}]
    return "template", template


def _message_id(response: SyncResponse, body: bytes) -> str:
    """The id in a good answer; raises what any other answer means."""
    match _parsed(body):
        case {"error": {"code": int(code)}}:
            row = by_code(code, response.status)
        case {"messages": [{"id": str(message_id)}, *_]} if response.status in _SUCCESS and message_id:
            return message_id
        case _:
            row = by_status(response.status)
    raise error_for("WhatsApp", row, _retry_after(response.get_header("retry-after")))


def _parsed(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _retry_after(header: str | None) -> timedelta | None:
    """The wait that a Retry-After header asks for, in seconds or as a date; None where it has neither."""
    if header is None:
        return None
    try:
        if header.strip().isdecimal():
            return timedelta(seconds=min(int(header), 10**9))
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return _aware(moment) - now()


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _lost(error: RequestError) -> ProviderCode:
    """What it means that no answer was read.

    The library calls a connection that broke after the request was sent `ConnectError`, and an answer that did not
    come `ConnectTimeoutError`, just like those that were never connected; only its list of causes tells them apart.
    Whatever is not surely unsent counts as possibly sent.
    """
    causes = [cause["message"] for cause in error.details["causes"] or ()]
    if "client error (Connect)" in causes:
        return TABLE["net_connect"]
    if isinstance(error, RequestTimeoutError):
        return TABLE["net_timeout"]
    return TABLE["net_unreadable" if isinstance(error, DecodeError) else "net_lost"]
