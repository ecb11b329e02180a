"""`fanfare health`: is everything there that Fanfare needs?"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import typer

from brokers.choose import make_engine
from brokers.engine import QueueDepth
from brokers.fallback.state import state
from cli.output import duration_text, show_json, show_table, table
from core.errors import FanfareError
from core.settings import Settings, get_settings
from db import health

app = typer.Typer(add_completion=False)

STALE = timedelta(minutes=2)
"""A message that has waited longer is a sign that no worker serves its queue."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `problem` says what is wrong and what to do, and is empty where all is well."""

    name: str
    found: str
    problem: str = ""
    fatal: bool = True


@app.command()
def run(*, as_json: Annotated[bool, typer.Option("--json", help="For machines: an object per check.")] = False) -> None:
    """Say whether everything that Fanfare needs is there, and what to do where it is not.

    Ends with 1 when something is down.
    """
    checks = _checks(get_settings())
    if as_json:
        show_json([{"name": c.name, "ok": not c.problem, "found": c.found, "problem": c.problem} for c in checks])
    else:
        _show(checks)
    if any(check.problem and check.fatal for check in checks):
        raise typer.Exit(1)


def _checks(settings: Settings) -> list[Check]:
    kind = "embedded PostgreSQL" if not settings.database_url else "PostgreSQL"
    checks = [_check("database", lambda: f"{kind}, {duration_text(health.ping())}")]
    if checks[0].problem:
        return [*checks, Check("migrations", "not looked at: the database is down")]
    checks.append(_check("migrations", _migrations))
    if settings.broker_kind == "postgres" and checks[1].problem:
        return [*checks, Check("broker", "not looked at: its tables are missing")]
    checks.append(_broker(settings))
    if checks[2].problem and checks[2].fatal:
        return [*checks, Check("queues", "not looked at: the broker is down")]
    return [*checks, _queues(make_engine(settings).depths())]


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, look())
    except FanfareError as error:
        return Check(name, "down", str(error))


def _broker(settings: Settings) -> Check:
    """The broker itself: that messages find another way while it is away is no reason to call it well."""
    alone = make_engine(settings.model_copy(update={"broker_fallback": False}))
    check = _check("broker", lambda: f"{settings.broker_kind}, {duration_text(alone.ping())}")
    if not check.problem or settings.broker_kind == "postgres" or not settings.broker_fallback:
        return check
    return Check("broker", f"down; messages go through the database{_detour(settings)}", check.problem, fatal=False)


def _detour(settings: Settings) -> str:
    """What is on its way around a broker that is away."""
    now = state(make_engine(settings))
    if now is None:
        return ""
    return f": {now.in_second:,} there, {now.undecided:,} in doubt, {now.in_outbox:,} kept for the broker"


def _migrations() -> str:
    health.check_migrations()
    return "up to date"


def _queues(depths: list[QueueDepth]) -> Check:
    """The queues together: stale work and dead letters are worth a look, but nothing is down for them."""
    found = f"{sum(depth.waiting for depth in depths):,} messages wait, {sum(depth.leased for depth in depths):,} run"
    problems = [
        f"{depth.queue} has waited for {duration_text(depth.oldest)}: is a worker running (dramatiq actors)?"
        for depth in depths
        if depth.oldest and depth.oldest > STALE and not depth.paused
    ]
    problems += [f"{depth.queue} has {depth.dead:,} dead letters." for depth in depths if depth.dead]
    problems += [f"{depth.queue} is paused: fanfare queues resume {depth.queue}" for depth in depths if depth.paused]
    return Check("queues", found, "\n".join(problems), fatal=False)


def _show(checks: list[Check]) -> None:
    made = table("", "What", "State", "What to do")
    for check in checks:
        mark = "[green]✓[/]" if not check.problem else "[red]✗[/]" if check.fatal else "[yellow]![/]"
        made.add_row(mark, check.name, check.found, check.problem)
    show_table("Health", made)
