"""How an import looks: its progress while it runs, its counts at the end, its error report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cli.live import BAR_WIDTH, POLL, View
from cli.live import follow as follow_live
from cli.output import console, count, duration_text, rate_text, show_path, show_table, table
from db import imports, jobs
from db.imports import Import
from db.jobs import FinalStatus

_REASONS = {
    "duplicate": "in the file before, or a contact already",
    "invalid_phone": "no phone number that exists",
    "invalid_email": "no e-mail address",
    "missing_contact": "neither phone nor e-mail",
}
_STATUS: dict[str, FinalStatus] = {"partial_success": "partial_success", "partial_failure": "partial_failure"}


def follow(import_id: UUID, *, quiet: bool) -> None:
    """Show the progress of an import that a worker runs, until its end; with `quiet` only wait."""
    stored = imports.load(import_id)

    def look() -> View:
        job = jobs.get(stored.organization_id, import_id)
        assert job is not None  # noqa: S101 - imports reference jobs
        return View(
            label=stored.file_name,
            done=job.progress_current,
            total=job.progress_total,
            worked=job.progress_current,
            left=max(0, (job.progress_total or 0) - job.progress_current),
            ended=job.completed_at is not None,
            begun=job.started_at is not None,
        )

    if not quiet:
        follow_live(look)
        return
    while not look().ended:
        time.sleep(POLL.total_seconds())


@contextmanager
def bar(name: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar for an import that runs here; gives what `db.import_run.run` reports to."""
    columns = (
        TextColumn("[bold]{task.description}", markup=True),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), disable=quiet or not console().is_terminal) as progress:
        task = progress.add_task(escape(name), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=max(done, total))


def final_status(result: dict[str, object]) -> FinalStatus:
    """The job's status for an import's summary."""
    return _STATUS.get(str(result["status"]), "completed")


def write_report(stored: Import, file: Path) -> int:
    """Write the error report to `file`, whole or not at all; returns its rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(file.name + ".part")
    with unfinished.open("wb") as output:
        for block in imports.error_report(stored.organization_id, stored.id):
            output.write(block)
    unfinished.replace(file)
    return stored.duplicate + stored.invalid


def show_result(stored: Import, report: Path | None) -> None:
    """Print what became of the rows, by outcome and reason."""
    made = table("Rows", "", "", numbers=("Rows",))
    made.show_header = False
    made.add_row(f"[green]{count(stored.inserted)}[/]", "new contacts")
    if stored.updated:
        made.add_row(f"[green]{count(stored.updated)}[/]", "contacts updated")
    made.add_row(count(stored.duplicate), "duplicate", f"[dim]{_REASONS['duplicate']}[/]")
    for reason, number in sorted(stored.errors_by_reason.items(), key=lambda item: -item[1]):
        made.add_row(f"[red]{count(number)}[/]", reason, f"[dim]{_REASONS.get(reason, '')}[/]")
    made.add_section()
    made.add_row(f"[bold]{count(stored.rows_total)}[/]", "rows", f"[dim]{stored.summary['status']}{_speed(stored)}[/]")
    show_table(f"Import of {escape(stored.file_name)}", made)
    if report is not None:
        show_path("\nEvery row left out, with its line and reason", report)


def imports_table(found: list[Import]) -> Table:
    """A row for each import."""
    columns = ("File", "Job", "Rows", "New", "Updated", "Duplicate", "Invalid", "Id")
    made = table(*columns, numbers=columns[2:7])
    for one in found:
        numbers = (one.records_done, one.inserted, one.updated, one.duplicate, one.invalid)
        made.add_row(escape(one.file_name), one.job_status, *map(count, numbers), str(one.id))
    return made


def _speed(stored: Import) -> str:
    job = jobs.get(stored.organization_id, stored.id)
    if job is None or job.started_at is None or job.completed_at is None:
        return ""
    took = job.completed_at - job.started_at
    rate = stored.rows_total / took.total_seconds() if took else None
    return f" in {duration_text(took)}, {rate_text(rate)}"
