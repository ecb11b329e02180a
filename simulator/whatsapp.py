"""The Cloud API's `POST /{version}/{number_id}/messages`: judges a request, logs it, then answers as planned."""

import asyncio
import base64
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from simulator.books import Books
from simulator.faults import Faults
from simulator.http import Receive, Scope, Send, answer, answer_json, gone, header, read_body
from simulator.ledger import Arrival, Ledger
from simulator.limits import PairLimits, RateLimit
from simulator.plan import Plan
from simulator.webhooks import Webhooks

ACCEPTING = frozenset({"ok", "slow", "silent", "reset", "garbage"})
"""Outcomes in which the message is taken, whatever becomes of the answer."""

# Statuses of the codes that do not come with 400. Source: Meta's page of error codes; 429 for limits is our choice,
# as the page and the service differ.
_STATUS = {0: 401, 2: 503, 3: 500, 4: 429, 10: 403, 190: 401, 368: 403, 80007: 429, 130429: 429, 130497: 403}
_STATUS |= {1: 500, 131000: 500, 131005: 403, 131016: 503, 131031: 403, 131056: 429, 131057: 503, 132001: 404}
_TITLES = {
    100: "Invalid parameter",
    190: "Access token has expired",
    130429: "Rate limit hit",
    131000: "Something went wrong",
    131016: "Service unavailable",
    131026: "Message undeliverable",
    131056: "(Business Account, Consumer Account) pair rate limit hit",
}
_RETRY_AFTER_STATUSES = {429, 503}
_MAX_TEXT = 4096
_MAX_CALLBACK = 512


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of a request's body that matter. `problem` says what is wrong with it; empty: nothing."""

    recipient: str = ""
    callback: str = ""
    content: Any = None
    problem: str = ""


def parse(body: bytes) -> Request:
    """Reads a request's body as the Cloud API would."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Request(problem="The body is not JSON.")
    if not isinstance(data, dict):
        return Request(problem="The body is not a JSON object.")
    recipient, callback = data.get("to"), data.get("biz_opaque_callback_data", "")
    if not isinstance(recipient, str) or not recipient.removeprefix("+").isdecimal():
        return Request(problem="Parameter 'to' is not a phone number.")
    if not isinstance(callback, str) or len(callback) > _MAX_CALLBACK:
        return Request(recipient, problem="Parameter 'biz_opaque_callback_data' is not a string of up to 512.")
    kind = data.get("type", "text")
    content = data.get(kind) if isinstance(kind, str) else None
    return Request(recipient, callback, content, _problem(data, kind, content))


def _problem(data: dict[str, Any], kind: object, content: object) -> str:
    if data.get("messaging_product") != "whatsapp":
        return "Parameter 'messaging_product' must be 'whatsapp'."
    if data.get("recipient_type", "individual") != "individual":
        return "Parameter 'recipient_type' must be 'individual'."
    match kind:
        case "text":
            return "" if _is_text(content) else "Parameter 'text.body' must be a string of 1 to 4096 characters."
        case "template":
            return "" if _is_template(content) else "Parameter 'template' needs name, language and right components."
    return "Parameter 'type' must be 'text' or 'template'."


def _is_text(content: object) -> bool:
    match content:
        case {"body": str(text)}:
            return 0 < len(text) <= _MAX_TEXT
    return False


def _is_template(content: object) -> bool:
    match content:
        case {"name": str(), "language": {"code": str()}, "components": [*components]}:
            return all(map(_is_component, components))
        case {"name": str(), "language": {"code": str()}, **rest}:
            return "components" not in rest
    return False


def _is_component(component: object) -> bool:
    match component:
        case {"type": str(), "parameters": [*parameters]}:
            return all(isinstance(parameter, dict) and "type" in parameter for parameter in parameters)
    return False


class WhatsApp:
    """The Cloud API's messages endpoint.

    Args:
        ledger: Each request is written there before its answer.
        plan: See `replan`.
        cut: Breaks the connection from a peer's address without an answer.
    """

    def __init__(self, ledger: Ledger, plan: Plan, cut: Callable[[tuple[str, int]], None]) -> None:
        self._ledger = ledger
        self._cut = cut
        self.books = Books()
        self.webhooks = Webhooks()
        self.replan(plan)
        self.forget()

    def replan(self, plan: Plan) -> None:
        """Behaves as `plan` says from now on; windows of numbers whose rate changes begin empty."""
        self.plan = plan
        self._faults = Faults(plan)
        self.webhooks.replan(plan)

    def forget(self) -> None:
        """Begins new books and empties all limits; the log stays."""
        self.books = Books()
        self._rates: dict[str, RateLimit] = {}
        self._pairs = PairLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, number: str) -> None:
        """Handles one request for the sending number `number`."""
        request = parse(await read_body(receive))
        arrival = self._judge(number, request, header(scope, b"authorization"))
        self._ledger.append(arrival)
        self.books.add(arrival)
        await self._ledger.durable()
        delay_s = self._faults.delay_s(arrival.recipient, arrival.attempt, arrival.outcome)
        if arrival.accepted and self.plan.webhook_url:
            self.webhooks.tell(arrival, answer_in_s=delay_s)
        if delay_s:
            await asyncio.sleep(delay_s)
        await self._answer(scope, receive, send, arrival, request.problem)

    def _judge(self, number: str, request: Request, authorization: str) -> Arrival:
        at_ns, mono_ns = time.time_ns(), time.monotonic_ns()
        attempt, outcome = 0, self._refusal(number, request, authorization, mono_ns)
        if not outcome:
            attempt = self.books.attempts[request.recipient] + 1
            outcome = self._faults.outcome(request.recipient, attempt)
        accepted = outcome in ACCEPTING
        return Arrival(
            at_ns=at_ns,
            mono_ns=mono_ns,
            number=number,
            recipient=request.recipient,
            callback=request.callback,
            content=request.content,
            attempt=attempt,
            outcome=outcome,
            accepted=accepted,
            wamid="wamid." + base64.urlsafe_b64encode(secrets.token_bytes(18)).decode() if accepted else "",
        )

    def _refusal(self, number: str, request: Request, authorization: str, mono_ns: int) -> str:
        """The error code that the request's sender, shape or rate earns; empty for none."""
        token = authorization.removeprefix("Bearer ")
        if token == authorization or not token:
            return "0"
        if token in self.plan.revoked_tokens or (self.plan.tokens and token not in self.plan.tokens):
            return "190"
        if request.problem:
            return "100"
        if not self._rate(number).allows(mono_ns):
            return "130429"
        if self.plan.pair_limit and not self._pairs.allows(number, request.recipient, mono_ns):
            return "131056"
        return ""

    def _rate(self, number: str) -> RateLimit:
        rate = self.plan.rate_of(number)
        limit = self._rates.get(number)
        if limit is None or limit.rate != rate:
            limit = self._rates[number] = RateLimit(rate)
        return limit

    async def _answer(self, scope: Scope, receive: Receive, send: Send, arrival: Arrival, problem: str) -> None:
        match arrival.outcome:
            case "ok" | "slow":
                contact = {"input": arrival.recipient, "wa_id": arrival.recipient.removeprefix("+")}
                messages = [{"id": arrival.wamid}]
                content = {"messaging_product": "whatsapp", "contacts": [contact], "messages": messages}
                await answer_json(send, 200, content)
            case "garbage":
                await answer(send, 200, b"<html>It works!</html>", (b"content-type", b"text/html"))
            case "silent":
                await gone(receive)
            case "reset" | "dropped":
                self._cut(scope["client"])
                await gone(receive)
            case outcome if outcome.startswith("http:"):
                status = int(outcome.removeprefix("http:"))
                await answer(send, status, b"", *self._retry_after(status))
            case outcome:
                code = int(outcome)
                status = _STATUS.get(code, 400)
                await answer_json(send, status, _error(code, problem), *self._retry_after(status))

    def _retry_after(self, status: int) -> list[tuple[bytes, bytes]]:
        if status not in _RETRY_AFTER_STATUSES or not self.plan.retry_after_s:
            return []
        return [(b"retry-after", str(self.plan.retry_after_s).encode())]


def _error(code: int, problem: str) -> dict[str, Any]:
    """The body of an error, in the shape of the Graph API."""
    title = _TITLES.get(code, "Simulated error")
    details = problem or f"{title}, made up by the simulator."
    return {
        "error": {
            "message": f"(#{code}) {title}",
            "type": "OAuthException",
            "code": code,
            "error_data": {"messaging_product": "whatsapp", "details": details},
            "fbtrace_id": "A" + secrets.token_urlsafe(16),
        }
    }
