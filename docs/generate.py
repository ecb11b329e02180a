"""Writes the pages that would otherwise repeat the code: `.env.example` and docs/settings.md, from the settings.

`make docs` writes them; `make check` runs this with `--check`, which writes nothing and fails when a page is stale.
"""

import argparse
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from core.settings import Settings

ROOT = Path(__file__).resolve().parents[1]

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


PAGES = {".env.example": env_example, "docs/settings.md": settings_page}


def main() -> int:
    """Write the pages, or with `--check` name the stale ones.

    Returns:
        The exit status: 1 when `--check` found a stale page.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description="Write the generated pages.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is stale")
    check = parser.parse_args().check
    stale = []
    for path, page in PAGES.items():
        file, text = ROOT / path, page()
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not check:
            file.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"{'stale, run `make docs`' if check else 'written'}: {', '.join(stale)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
