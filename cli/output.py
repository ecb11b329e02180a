"""How the command line speaks: one console, tables of one look, JSON for machines."""

import sys
from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from pathlib import Path

import orjson
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.errors import FanfareError

PLAIN_WIDTH = 120
"""Columns where the output is no terminal, as in a log."""


@cache
def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def show_error(error: FanfareError) -> None:
    """Write an error's message to standard error; what to do is in it."""
    Console(stderr=True, width=None if sys.stderr.isatty() else PLAIN_WIDTH, highlight=False).print(
        f"[bold red]Error:[/] {escape(str(error))}", soft_wrap=True
    )


def show_json(value: object) -> None:
    """Write `value` for machines: one line of JSON."""
    sys.stdout.write(orjson.dumps(value, default=_json_value).decode() + "\n")


def table(*columns: str, numbers: Iterable[str] = ()) -> Table:
    """An empty table; the columns named in `numbers` are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    right = set(numbers)
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def show_table(title: str, made: Table) -> None:
    """Print a table under its title, which may have markup."""
    console().print(f"\n[bold]{title}[/]\n" if title else "")
    console().print(made)


def show_path(text: str, path: Path) -> None:
    """Print where a file is, as short as it can be said from here."""
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    console().print(f"{text}: {escape(str(shown))}", soft_wrap=True)


def count(number: int) -> str:
    """`1,234`."""
    return f"{number:,}"


def rate_text(rate: float | None) -> str:
    """`79.8/s`; "-" where there is none."""
    return "-" if rate is None else f"{rate:,.1f}/s" if rate < 1000 else f"{rate:,.0f}/s"  # noqa: PLR2004 - decimals of a large rate say nothing


def limit_text(rate: float | None) -> str:
    """`80/s`, or that there is no limit."""
    return "none" if rate is None else f"{rate:g}/s"


def duration_text(duration: timedelta | None) -> str:
    """`340 ms`, `25.3 s`, `3 min 05 s`, `2 h 10 min`; "-" where there is none."""
    if duration is None:
        return "-"
    seconds = duration.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left:02} min" if hours else f"{minutes} min {rest:02} s"


def _json_value(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)
