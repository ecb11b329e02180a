"""`.env.example` and docs/settings.md, made from core.settings."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.settings import Settings

ENV_HEAD = """\
# Every setting with its default. Copy the file to .env and take away the "#" of what you change; the environment wins
# over .env. With nothing set, Fanfare starts an embedded PostgreSQL and uses it for everything.
# Written by `make docs` from core/settings.py.
"""

SETTINGS_HEAD = """\
# Settings

<!-- Written by `make docs` from core/settings.py: change it there. -->

Fanfare is configured by environment variables only. A file `.env` in the working folder is read too; the environment
wins over it. Every process reads the same settings. A wrong value stops the process at its start with the variable's
name; values are not printed, because they may be secret.

| Variable | Default | Values | What it does |
|---|---|---|---|
"""


def settings() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting as the variable's name and its field, in the order of the class."""
    for name, field in Settings.model_fields.items():
        yield name.upper(), field


def default_text(field: FieldInfo) -> str:
    """The default as one writes it into the environment; durations in seconds, nothing as the empty string."""
    match field.default:
        case SecretStr() as secret:
            return secret.get_secret_value()
        case timedelta() as duration:
            return f"{duration.total_seconds():g}"
        case bool() as flag:
            return str(flag).lower()
        case None:
            return ""
        case value:
            return str(value)


def values_text(field: FieldInfo) -> str:
    """What the variable may be: its choices, or its kind with its bounds."""
    kind: Any = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    kinds = {int: "integer", float: "number", bool: "`true` or `false`", timedelta: "seconds", Path: "path"}
    words = [kinds.get(kind, "secret" if kind is SecretStr else "text")]
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for bound in field.metadata:
        words += [f"{sign} {getattr(bound, name)}" for name, sign in signs.items() if hasattr(bound, name)]
    return ", ".join(words)


def env_example() -> str:
    """The text of `.env.example`."""
    parts = [ENV_HEAD]
    for name, field in settings():
        text = f"{_description(name, field)} ({values_text(field).replace('`', '')})"
        parts.append("\n".join(f"# {line}" for line in wrap(text, 116)) + f"\n#{name}={default_text(field)}\n")
    return "\n".join(parts)


def settings_page() -> str:
    """The text of docs/settings.md."""
    rows = (
        f"| `{name}` | {f'`{default}`' if (default := default_text(field)) else ''} | {values_text(field)} "
        f"| {_description(name, field).replace('|', chr(92) + '|')} |"
        for name, field in settings()
    )
    return SETTINGS_HEAD + "\n".join(rows) + "\n"


def _description(name: str, field: FieldInfo) -> str:
    if not field.description:
        raise SystemExit(f"core/settings.py: {name} has no description; it is the setting's documentation.")
    return field.description
