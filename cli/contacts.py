"""`fanfare contacts`: importing them, and what became of an import."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from brokers.tracked import send_tracked
from cli import import_view, organization
from cli.compose import compose
from cli.organization import Organization
from cli.output import console, count, show_json, show_path, show_table
from core.errors import FanfareError, PermanentError
from core.settings import get_settings
from db import import_run, imports, jobs, organizations, pool
from db.import_list import newest
from domain.contact import ImportOptions

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Import contacts and see what became of an import.")

_Import = Annotated[UUID, typer.Argument(metavar="ID", help="The import, as `contacts import` printed it.")]
_Json = Annotated[bool, typer.Option("--json", help="For machines: the result as one object, nothing else.")]


@app.command("import")
def import_file(  # noqa: PLR0913 - a command's options are its arguments
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A CSV file with a header.")],
    *,
    organization_name: Organization = None,
    update_existing: Annotated[bool, typer.Option("--update-existing", help="Update contacts already there.")] = False,
    skip_duplicates: Annotated[
        bool, typer.Option(help="Leave duplicates out; otherwise each counts as a failed row.")
    ] = True,
    validate_phone: Annotated[
        bool, typer.Option(help="Take only numbers that exist; otherwise any 10 to 15 digits.")
    ] = True,
    region: Annotated[
        str,
        typer.Option(metavar="US", help="Country of numbers without a country code.", show_default="DEFAULT_REGION"),
    ] = "",
    errors: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where to write the error report.", show_default="below DATA_DIR"),
    ] = None,
    watch: Annotated[bool | None, typer.Option(help="Show its progress.", show_default="on a terminal")] = None,
    here: Annotated[bool, typer.Option("--here", help="Run it in this process; needs no worker.")] = False,
    as_json: _Json = False,
) -> None:
    """Import a CSV file: accept it, and let a worker import it.

    Each row becomes a contact, or a line of the error report. The same file may be imported again: nothing doubles.
    """
    if len(region) not in {0, 2} or not region.isascii():
        raise typer.BadParameter("must be a country's two letters, such as US", param_hint="--region")
    options = ImportOptions(
        update_existing=update_existing,
        skip_duplicates=skip_duplicates,
        validate_phone=validate_phone,
        default_region=region,
    )
    import_id = _accept(file, organization_name, options, enqueue=not here)
    if here:
        _run_here(import_id, quiet=as_json)
    elif not (console().is_terminal if watch is None else watch):
        _tell_accepted(import_id, as_json=as_json)
        return
    _conclude(import_id, errors, as_json=as_json, show=not here)


@app.command()
def watch(
    import_id: _Import,
    *,
    errors: Annotated[Path | None, typer.Option(dir_okay=False, help="Where to write the error report.")] = None,
    as_json: _Json = False,
) -> None:
    """Follow an import until its end, then show what became of it."""
    _conclude(import_id, errors, as_json=as_json, show=True)


@app.command("list")
def list_imports(
    *,
    organization_name: Organization = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    as_json: _Json = False,
) -> None:
    """List the newest imports."""
    found = newest(organization.find(organization_name), limit=limit)
    if as_json:
        show_json([{"id": one.id, "file": one.file_name, "job": one.job_status, **one.summary} for one in found])
    elif found:
        show_table("Imports", import_view.imports_table(found))
    else:
        console().print("There are no imports yet. Start one with: fanfare contacts import FILE")


@app.command("errors")
def write_errors(
    import_id: _Import,
    file: Annotated[Path, typer.Argument(dir_okay=False, help="The CSV file to write.")],
) -> None:
    """Write an import's error report: line, column, value and reason of every row that became no contact."""
    stored = imports.load(import_id)
    written = import_view.write_report(stored, file)
    show_path(f"{count(written)} rows", file)


def _accept(file: Path, owner_name: str | None, options: ImportOptions, *, enqueue: bool) -> UUID:
    if enqueue:
        compose()
    with pool.transaction():
        owner = organizations.default() if owner_name is None else organizations.named(owner_name, create=True)
        import_id = imports.accept(owner, file, file.name, options)
        if enqueue:
            from actors.contact_import import import_contacts  # noqa: PLC0415 - needs a composed process

            send_tracked(import_contacts, import_id, {"import_id": str(import_id)})
    return import_id


def _run_here(import_id: UUID, *, quiet: bool) -> None:
    jobs.start(import_id)
    try:
        with import_view.bar(imports.load(import_id).file_name, quiet=quiet) as on_progress:
            result = import_run.run(import_id, on_progress)
    except FanfareError as error:
        jobs.finish(import_id, "failed", error_details={"code": error.code, "message": str(error)})
        raise
    jobs.finish(import_id, import_view.final_status(result), result)


def _tell_accepted(import_id: UUID, *, as_json: bool) -> None:
    if as_json:
        show_json({"id": import_id, "status": "queued"})
    else:
        console().print(f"Accepted: import {import_id}. Follow it with: fanfare contacts watch {import_id}")


def _conclude(import_id: UUID, errors: Path | None, *, as_json: bool, show: bool) -> None:
    """Wait for the end, write the error report, tell the result; PermanentError where the import failed."""
    if show:
        import_view.follow(import_id, quiet=as_json)
    stored = imports.load(import_id)
    job = jobs.get(stored.organization_id, import_id)
    if job is None or job.status in {"failed", "cancelled"}:
        details = (job and job.error_details) or {}
        message = details.get("message") or "see the worker's log"
        raise PermanentError(f"The import of {stored.file_name} did not succeed: {message}", code="import_failed")
    report = None
    if stored.invalid or stored.duplicate:
        report = errors or get_settings().data_dir / "error-reports" / f"{import_id}.csv"
        import_view.write_report(stored, report)
    if as_json:
        show_json({"id": import_id, **stored.summary, "error_report": report})
    else:
        import_view.show_result(stored, report)
