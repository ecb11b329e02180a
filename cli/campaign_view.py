"""How a campaign looks: its progress while it runs, its report at the end."""

import time
from dataclasses import asdict
from typing import Any
from uuid import UUID

from rich.markup import escape
from rich.table import Table

from cli.live import POLL, View
from cli.live import follow as follow_live
from cli.output import console, count, duration_text, limit_text, rate_text, show_table, table
from core.clock import now
from db import campaigns
from db.campaign_list import pace
from db.campaigns import FINAL_STATUSES, Counts, Progress
from providers.outcomes import known

_STYLES = {
    "completed": "green",
    "partial_success": "yellow",
    "partial_failure": "red",
    "failed": "red",
    "running": "cyan",
    "paused": "yellow",
    "cancelling": "yellow",
}
_MEANINGS = {
    "no_phone": "the contact has no phone number",
    "missing_variable": "the contact has no value for it, and it has no default",
    "template_variable_missing": "the contact has no value for a variable",
    "message_too_long": "the text is too long with this contact's values",
}


def follow(campaign_id: UUID, *, quiet: bool) -> Progress:
    """Show a campaign's progress until its end, and return where it ended; with `quiet` only wait."""
    seen = [campaigns.progress(campaign_id)]

    def look() -> View:
        seen[0] = campaigns.progress(campaign_id)
        return _view(seen[0])

    if not quiet:
        follow_live(look)
    while not _view(seen[0]).ended:
        time.sleep(POLL.total_seconds())
        look()
    return seen[0]


def _view(progress: Progress) -> View:
    counts = progress.counts
    names = ("sent", "failed", "skipped", "unknown", "in_flight")
    return View(
        label=f"{progress.name} ({_state(progress)})" if _state(progress) else progress.name,
        done=counts.settled,
        total=counts.total if counts.total or progress.planned else None,
        worked=counts.sent + counts.failed + counts.unknown,
        left=counts.pending + counts.in_flight,
        ended=progress.status in FINAL_STATUSES,
        begun=counts.total > 0 or progress.planned,
        limit=progress.rate,
        facts=tuple((name.replace("_", " "), getattr(counts, name)) for name in names),
        note=_note(progress),
    )


def _state(progress: Progress) -> str:
    """What is special about it now, in a word."""
    if progress.status in {"paused", "cancelling"}:
        return progress.status
    return "" if progress.planned else "planning"


def _note(progress: Progress) -> str:
    """Why it is paused or cancelled, and since when it is paused."""
    since = f" {duration_text(now() - progress.paused_at)} ago" if progress.paused_at else ""
    return f"{progress.status}{since}: {progress.status_reason}" if progress.status_reason else ""


def facts(progress: Progress, *, whole: bool = True) -> dict[str, Any]:
    """A campaign as JSON can say it; `whole` adds what reads all its deliveries."""
    known_facts = {**asdict(progress), "limit": progress.rate}
    known_facts.pop("rate")
    if whole:
        pace_ = pace(progress.id)
        known_facts |= {
            "provider_calls": pace_.calls,
            "achieved_rate": pace_.rate,
            "failures": [
                {"status": status, "code": code, "count": number}
                for status, code, number in campaigns.failures(progress.id)
            ],
        }
    return known_facts


def show_report(progress: Progress) -> None:
    """Print counts by outcome, failures by cause, duration and the achieved rate against the limit."""
    show_table(f"Campaign {escape(progress.name)}: {_status(progress)}", _outcomes(progress))
    if note := _note(progress):
        console().print(f"\n[yellow]{escape(note[0].upper() + note[1:])}[/]", soft_wrap=True)
    failures = campaigns.failures(progress.id)
    if failures:
        show_table("Not sent, by cause", _causes(failures))
    show_table("", _speed(progress))


def campaigns_table(found: list[Progress]) -> Table:
    """A row for each campaign."""
    columns = ("Campaign", "Status", "Recipients", "Sent", "Failed", "Skipped", "Unknown", "Limit", "Id")
    made = table(*columns, numbers=columns[2:8])
    for progress in found:
        c = progress.counts
        numbers = (count(n) for n in (c.total, c.sent, c.failed, c.skipped, c.unknown))
        made.add_row(escape(progress.name), _status(progress), *numbers, limit_text(progress.rate), str(progress.id))
    return made


def _outcomes(progress: Progress) -> Table:
    made = table("Outcome", "Recipients", "%", numbers=("Recipients", "%"))
    for name, number in _by_outcome(progress.counts):
        made.add_row(
            name, count(number), f"{100 * number / progress.counts.total:.1f}" if progress.counts.total else ""
        )
    made.add_section()
    made.add_row("[bold]all[/]", f"[bold]{count(progress.counts.total)}[/]")
    return made


def _by_outcome(counts: Counts) -> list[tuple[str, int]]:
    """Every outcome that occurred, and always how many were sent; they add up to the total."""
    styles = {"sent": "green", "failed": "red", "unknown": "yellow"}
    names = ("sent", "failed", "skipped", "unknown", "cancelled", "in_flight", "pending")
    found = [(name, int(getattr(counts, name))) for name in names]
    return [
        (f"[{styles.get(name, 'default')}]{name.replace('_', ' ')}[/]", number)
        for name, number in found
        if number or name == "sent"
    ]


def _causes(failures: list[tuple[str, str, int]]) -> Table:
    made = table("Outcome", "Cause", "Recipients", "Meaning", numbers=("Recipients",))
    for status, code, number in failures:
        made.add_row(status, code or "-", count(number), _meaning(code))
    return made


def _meaning(code: str) -> str:
    row = known(code)
    return row.meaning if row else _MEANINGS.get(code.partition(":")[0], "")


def _speed(progress: Progress) -> Table:
    made = Table.grid(padding=(0, 2))
    ended = progress.finished_at or now()
    made.add_row("Duration", duration_text(ended - progress.started_at if progress.started_at else None))
    achieved = pace(progress.id)
    share = f", {100 * achieved.rate / progress.rate:.1f} % of the limit" if achieved.rate and progress.rate else ""
    made.add_row("Provider calls", count(achieved.calls))
    made.add_row("Achieved rate", f"[bold]{rate_text(achieved.rate)}[/]{share}")
    made.add_row("Limit", limit_text(progress.rate))
    return made


def _status(progress: Progress) -> str:
    return f"[{_STYLES.get(progress.status, 'default')}]{progress.status}[/]"
