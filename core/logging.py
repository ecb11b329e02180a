"""Structured logs: lines for people in development, JSON lines elsewhere, and nobody's number or address in either.

Events are named `noun.past_participle` with facts as fields: `log.info("import.completed", rows=10_000)`. Lines of the
libraries (dramatiq, periodiq, psycopg) go through the same renderer. What is rendered passes `scrub` first.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, TextIO
from urllib.parse import unquote, urlsplit
from uuid import UUID

import orjson
import structlog
from pydantic import SecretStr
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

from core.settings import Settings

SHORTEST_SECRET = 6
"""Characters from which on a configured secret is searched for in texts; a shorter one would mask half of them."""

QUIET_LOGGERS = ("yoyo", "urllib3")
"""Libraries that tell their every step at INFO or DEBUG: only their warnings are logged."""

DRAMATIQ_ARGUMENTS_LINE = "Received args=%r kwargs=%r."
"""What each actor of dramatiq logs at DEBUG when it is called; it tells nothing but the arguments."""

_PATTERNS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@"), r"\1:[secret]@"),
    (re.compile(r"(?i)\b(bearer) [\w.~+/=-]{6,}"), r"\1 [secret]"),
    (
        re.compile(r"(?i)\b(\w*(?:token|password|secret|api_?key))([\"']?\s*[=:]\s*)[\"']?[^\s\"',;&)}\]]+"),
        r"\1\2[secret]",
    ),
    (re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]+@[\w-]+(?:\.[\w-]+)*"), "[email]"),
    # E.164, written with its plus and any separators; without it, as WhatsApp's API does; and the North American way.
    (re.compile(r"\+[1-9](?:[ ().-]{0,2}\d){6,14}(?!\d)"), "[phone]"),
    (re.compile(r"(?<![\w.-])[1-9]\d{9,14}(?![\w-]|\.\d)"), "[phone]"),
    (re.compile(r"(?<![\w.-])\(?\d{3}\)?[ .-]{1,2}\d{3}[ .-]\d{4}(?![\w-])"), "[phone]"),
]
_SENSITIVE_KEY = re.compile(r"(?i)token|secret|password|authorization|cookie|api_?key|dsn|phone|e_?mail|recipient")
_PLAIN = (int, float, Decimal, UUID, date, timedelta, type(None))  # bool is an int, datetime a date

Facts = Callable[[], Mapping[str, object]]

_followed: ContextVar[Facts | None] = ContextVar("followed", default=None)
_secrets: list[str] = []


def configure(settings: Settings) -> None:
    """Send all logs of this process to its standard error, in the form of `settings`. Idempotent: the last call counts.

    To be called after a library's own set-up (dramatiq's and periodiq's command lines make one), which it replaces.
    """
    _secrets[:] = [secret for secret in _configured_secrets(settings) if len(secret) >= SHORTEST_SECRET]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_followed,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, _wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=BoundLogger,
    )
    people = settings.environment == "development"
    handler = _Handler()
    handler.addFilter(without_arguments)
    handler.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _scrub_event,
                structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
                if people
                else structlog.processors.JSONRenderer(_to_json),
            ],
        )
    )
    root = logging.getLogger()
    for old in [h for h in root.handlers if type(h) in {_Handler, logging.StreamHandler}]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.log_level)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


def get_logger(name: str) -> BoundLogger:
    """The logger of the module called `name`; it may be made before `configure` is called."""
    logger: BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def bind(**facts: object) -> AbstractContextManager[None]:
    """Add `facts`, such as `job_id` and `message_id`, to every line logged in the block by this thread or task."""
    return structlog.contextvars.bound_contextvars(**facts)


def follow(facts: Facts | None) -> None:
    """Add to every line of this thread or task, from now on, what `facts` tells when the line is logged; None ends it.

    Costs next to nothing for what logs nothing.
    """
    _followed.set(facts)


def scrub(value: object) -> object:
    """`value` with phone numbers, mail addresses, passwords and tokens masked in all its texts, in a new object.

    Numbers, ids and times stay; mappings and sequences are gone through; anything else becomes its scrubbed text.
    """
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {key: _scrub_field(key, item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [scrub(item) for item in value]
    return _scrub_text(str(value))


def without_arguments(record: logging.LogRecord) -> bool:
    """A filter for the lines in which dramatiq prints a message's arguments: its actor and id instead, or no line."""
    if record.msg == DRAMATIQ_ARGUMENTS_LINE:
        return False
    if isinstance(record.args, tuple):
        record.args = tuple(_named(argument) for argument in record.args)
    return True


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the moment: dramatiq gives its worker processes another one."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _: object) -> None:
        """The base class sets one; it is not used."""


def _named(argument: object) -> object:
    actor, message_id = getattr(argument, "actor_name", None), getattr(argument, "message_id", None)
    return argument if actor is None or message_id is None else f"{actor}[{message_id}]"


def _configured_secrets(settings: Settings) -> list[str]:
    values = [getattr(settings, name) for name in type(settings).model_fields]
    secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    passwords = [urlsplit(value).password for value in values if isinstance(value, str) and "://" in value]
    return secrets + [text for password in passwords if password for text in (password, unquote(password))]


def _wrap_for_formatter(
    logger: WrappedLogger, method: str, event: EventDict
) -> tuple[tuple[EventDict], dict[str, Any]]:
    """Structlog's, and the error on the record too, where error reports look for it."""
    args, options = ProcessorFormatter.wrap_for_formatter(logger, method, event)
    return args, {**options, "exc_info": event.get("exc_info")}


def _add_followed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    facts = _followed.get()
    return event if facts is None else {**facts(), **event}


def _scrub_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        key: value if key in {"timestamp", "level", "logger"} else _scrub_field(key, value)
        for key, value in event.items()
    }


def _scrub_field(key: object, value: object) -> object:
    if isinstance(value, str) and value and _SENSITIVE_KEY.search(str(key)):
        return "[masked]"
    return scrub(value)


def _scrub_text(text: str) -> str:
    for secret in _secrets:
        text = text.replace(secret, "[secret]")
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text


def _to_json(event: EventDict, **_: object) -> str:
    return orjson.dumps(event, default=_json_value, option=orjson.OPT_NON_STR_KEYS).decode()


def _json_value(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)
