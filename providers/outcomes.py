"""What the codes of outside services mean for a send, as one table, and the error that each is raised as.

Decisions are made on the code, never on the title or the text: titles change, and texts can carry phone numbers.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from core.errors import AmbiguousError, FanfareError, PermanentError, ThrottledError, TransientError

LONGEST_RETRY_AFTER = timedelta(hours=1)
"""A Retry-After beyond this is cut to it, so that one strange answer cannot park a campaign for days."""


class ProviderAction(StrEnum):
    """What follows an answer that is not a success.

    RETRY is raised as `TransientError`, THROTTLE as `ThrottledError`, WAIT_DAY as `TransientError` with a wait of a
    day, HOLD as `AmbiguousError`, all others as `PermanentError`: this send is over, and the action tells what else
    the caller should stop (`known(error.code)` finds it again).
    """

    RETRY = "retry"
    THROTTLE = "throttle"
    WAIT_DAY = "wait_day"
    HOLD = "hold"
    PERMANENT = "permanent"
    PAUSE_NUMBER = "pause_number"
    PAUSE_TEMPLATE = "pause_template"
    PAUSE_CAMPAIGN = "pause_campaign"
    SUPPRESS_RECIPIENT = "suppress_recipient"


@dataclass(frozen=True, slots=True)
class ProviderCode:
    """One row of the table.

    Attributes:
        code: The service's own number, `http_<status>` where it gave none, or `net_...` where nothing was answered.
        meaning: For people; never the service's own text.
        action: What follows.
        wait: Wait before the next try, where the answer does not tell.
    """

    code: str
    meaning: str
    action: ProviderAction
    wait: timedelta | None = None


_A = ProviderAction
_S = timedelta(seconds=1)
_DAY = timedelta(days=1)

# Source of the WhatsApp rows: Meta, "WhatsApp Cloud API: Error codes", as mirrored by Kaleyra, 360dialog and Alendei
# (2026). Its advice is to build on `code`; the HTTP status that comes along is not dependable.
_WHATSAPP = (
    # Authorisation: no message of this account can go out until a person acts.
    ProviderCode("0", "the access token could not be authenticated", _A.PAUSE_CAMPAIGN),
    ProviderCode("3", "the access token lacks a capability", _A.PAUSE_CAMPAIGN),
    ProviderCode("10", "permission is not granted or was removed", _A.PAUSE_CAMPAIGN),
    ProviderCode("190", "the access token has expired or was revoked", _A.PAUSE_CAMPAIGN),
    ProviderCode("200", "API permission is not granted or was removed", _A.PAUSE_CAMPAIGN),  # stands for 200 to 299
    ProviderCode("131005", "access denied to this number or account", _A.PAUSE_CAMPAIGN),
    # Limits. 131056: one message per 6 s to one recipient. 131057: the number is being upgraded, up to a minute.
    ProviderCode("4", "the app reached its API call limit", _A.THROTTLE, 60 * _S),
    ProviderCode("17", "the user reached the API call limit", _A.THROTTLE, 60 * _S),
    ProviderCode("613", "the API call limit of this hour is reached", _A.THROTTLE, 60 * _S),
    ProviderCode("80007", "the business account reached its API call limit", _A.THROTTLE, 60 * _S),
    ProviderCode("130429", "the number's throughput is reached", _A.THROTTLE, _S),
    ProviderCode("131056", "too many messages to this recipient in a short time", _A.THROTTLE, 6 * _S),
    ProviderCode("131057", "the number is in maintenance", _A.THROTTLE, 60 * _S),
    ProviderCode("132069", "the template's flow is throttled", _A.THROTTLE, timedelta(hours=1)),
    ProviderCode("131049", "the recipient gets no more marketing messages today", _A.WAIT_DAY, _DAY),
    # Passing troubles of the service.
    ProviderCode("1", "unknown error of the API", _A.RETRY),
    ProviderCode("2", "the API is down or overloaded", _A.RETRY),
    ProviderCode("131000", "something went wrong at the service", _A.RETRY),
    ProviderCode("131016", "the service is unavailable", _A.RETRY),
    ProviderCode("133004", "the server is temporarily unavailable", _A.RETRY),
    # The sending number or its account.
    ProviderCode("33", "the sending number was deleted", _A.PAUSE_NUMBER),
    ProviderCode("368", "the account is blocked for policy violations", _A.PAUSE_NUMBER),
    ProviderCode("131031", "the account is locked", _A.PAUSE_NUMBER),
    ProviderCode("131037", "the number's display name is not approved", _A.PAUSE_NUMBER),
    ProviderCode("131042", "there is a payment problem with the account", _A.PAUSE_NUMBER),
    ProviderCode("131045", "the number is not registered with a valid certificate", _A.PAUSE_NUMBER),
    ProviderCode("131048", "the number is limited because messages were reported as spam", _A.PAUSE_NUMBER),
    ProviderCode("133006", "the number must be verified again", _A.PAUSE_NUMBER),
    ProviderCode("133010", "the number is not registered", _A.PAUSE_NUMBER),
    # The template: every recipient would get the same answer.
    ProviderCode("132000", "the number of parameters is not the template's", _A.PAUSE_TEMPLATE),
    ProviderCode("132001", "the template does not exist in this language", _A.PAUSE_TEMPLATE),
    ProviderCode("132007", "the template violates a content policy", _A.PAUSE_TEMPLATE),
    ProviderCode("132015", "the template is paused for low quality", _A.PAUSE_TEMPLATE),
    ProviderCode("132016", "the template is disabled for low quality", _A.PAUSE_TEMPLATE),
    ProviderCode("132068", "the template's flow is blocked", _A.PAUSE_TEMPLATE),
    # This message or this recipient.
    ProviderCode("100", "a parameter is wrong or unknown", _A.PERMANENT),
    ProviderCode("130472", "the recipient is part of an experiment and never gets it", _A.PERMANENT),
    ProviderCode("130497", "messages to this country are restricted", _A.PERMANENT),
    ProviderCode("131008", "a required parameter is missing", _A.PERMANENT),
    ProviderCode("131009", "a parameter has a wrong value", _A.PERMANENT),
    ProviderCode("131021", "sender and recipient are the same number", _A.PERMANENT),
    ProviderCode("131026", "the recipient cannot receive it (not on WhatsApp, or an old version)", _A.PERMANENT),
    ProviderCode("131030", "the recipient is not on the test number's list", _A.PERMANENT),
    ProviderCode("131043", "the message expired before it could be sent", _A.PERMANENT),
    ProviderCode("131047", "more than 24 h since the recipient wrote: use a template", _A.PERMANENT),
    ProviderCode("131051", "the message type is not supported", _A.PERMANENT),
    ProviderCode("131052", "the media could not be downloaded", _A.PERMANENT),
    ProviderCode("131053", "the media could not be uploaded", _A.PERMANENT),
    ProviderCode("132005", "the filled-in template is too long", _A.PERMANENT),
    ProviderCode("132012", "a template parameter has a wrong format", _A.PERMANENT),
    ProviderCode("132018", "a template parameter is wrong", _A.PERMANENT),
    ProviderCode("135000", "the service refused the message without a reason", _A.PERMANENT),
    ProviderCode("131050", "the recipient stopped marketing messages of this business", _A.SUPPRESS_RECIPIENT),
)

# Statuses of answers without an error code of the service: something between us and it may have spoken (RFC 9110).
# 408, 425 and 503 say that the request was not handled. After any other 5xx a proxy may already have passed it on, and
# there is no idempotency key: held, rather than sent twice.
_HTTP = (
    ProviderCode("http_400", "the request was refused", _A.PERMANENT),
    ProviderCode("http_401", "the access token was refused", _A.PAUSE_CAMPAIGN),
    ProviderCode("http_403", "access was refused", _A.PAUSE_CAMPAIGN),
    ProviderCode("http_404", "nothing is at this address: see WHATSAPP_BASE_URL", _A.PAUSE_CAMPAIGN),
    ProviderCode("http_408", "the request did not arrive in time", _A.RETRY),
    ProviderCode("http_413", "the message is too large", _A.PERMANENT),
    ProviderCode("http_425", "the request came too early", _A.RETRY),
    ProviderCode("http_429", "too many requests", _A.THROTTLE, _S),
    ProviderCode("http_500", "the server failed, perhaps after taking the message", _A.HOLD),
    ProviderCode("http_502", "a gateway failed, perhaps after passing the message on", _A.HOLD),
    ProviderCode("http_503", "the service is unavailable", _A.RETRY),
    ProviderCode("http_504", "a gateway waited in vain, perhaps after passing the message on", _A.HOLD),
)

_NETWORK = (
    ProviderCode("net_connect", "no connection could be made; nothing was sent", _A.RETRY),
    ProviderCode("net_timeout", "no answer came in time; the message may have been sent", _A.HOLD),
    ProviderCode("net_lost", "the connection broke before the answer; the message may have been sent", _A.HOLD),
    ProviderCode("net_unreadable", "the answer could not be read; the message was probably sent", _A.HOLD),
)

TABLE: dict[str, ProviderCode] = {row.code: row for row in (*_WHATSAPP, *_HTTP, *_NETWORK)}

_PERMISSION_CODES = range(200, 300)
_SERVER_ERROR = 500
_CLIENT_ERROR = 400
_SUCCESS = range(200, 300)


def known(code: str) -> ProviderCode | None:
    """What `code` means, as found in an error's `code`; None for one that the table says nothing about."""
    if row := TABLE.get(code):
        return row
    if code.isdecimal() and int(code) in _PERMISSION_CODES:
        return by_code(int(code), _CLIENT_ERROR)
    kind, _, status = code.partition("_")
    return by_status(int(status)) if kind == "http" and status.isdecimal() else None


def by_code(code: int, status: int) -> ProviderCode:
    """What an answer with the service's own error `code` means; `status` decides only where the code is not known."""
    if row := TABLE.get(str(code)):
        return row
    if code in _PERMISSION_CODES:
        return ProviderCode(str(code), TABLE["200"].meaning, TABLE["200"].action)
    if status == 429:  # noqa: PLR2004 - the one status that RFC 6585 gives to rate limits
        return ProviderCode(str(code), "too many requests", _A.THROTTLE, _S)
    action = _A.RETRY if status >= _SERVER_ERROR else _A.PERMANENT
    return ProviderCode(str(code), f"a code we do not know came with HTTP status {status}", action)


def by_status(status: int) -> ProviderCode:
    """What an answer without a readable error code means. A success without a message id is unreadable, too."""
    if status in _SUCCESS:
        return TABLE["net_unreadable"]
    code = f"http_{status}"
    if row := TABLE.get(code):
        return row
    if status >= _SERVER_ERROR:
        return ProviderCode(code, "the server failed, perhaps after taking the message", _A.HOLD)
    if status >= _CLIENT_ERROR:
        return ProviderCode(code, "the request was refused", _A.PERMANENT)
    return ProviderCode(code, "a redirect, which is not followed: see the base URL in the settings", _A.PAUSE_CAMPAIGN)


def error_for(service: str, row: ProviderCode, retry_after: timedelta | None = None) -> FanfareError:
    """The error to raise for `row`; its message has the code and our own words, so never anything personal.

    Args:
        service: Name for people, such as `WhatsApp`.
        row: From `TABLE`, `by_code` or `by_status`.
        retry_after: What the answer asked for, cut to `LONGEST_RETRY_AFTER`; None: the row's own wait counts.
    """
    message = f"{service}, code {row.code}: {row.meaning}."
    wait = row.wait if retry_after is None else max(timedelta(), min(retry_after, LONGEST_RETRY_AFTER))
    match row.action:
        case ProviderAction.RETRY:
            return TransientError(message, code=row.code, retry_after=wait)
        case ProviderAction.THROTTLE:
            return ThrottledError(message, code=row.code, retry_after=wait)
        case ProviderAction.WAIT_DAY:
            return TransientError(message, code=row.code, retry_after=row.wait)
        case ProviderAction.HOLD:
            return AmbiguousError(message, code=row.code)
        case _:
            return PermanentError(message, code=row.code)
