"""`fanfare migrate`: the release step of a deploy."""

import typer

from cli.output import console
from core.settings import get_settings
from db.connection import place
from db.migrate import migrate
from db.pool import database_url

app = typer.Typer(add_completion=False)


@app.command()
def run() -> None:
    """Bring the database to this version; harmless when it is there already.

    Waits while another machine does the same. With no DATABASE_URL it is the embedded PostgreSQL's. A PostgreSQL that
    BROKER_URL names gets its tables too.
    """
    settings = get_settings()
    urls = [database_url()]
    if settings.broker_kind == "postgres" and settings.resolved_broker_url not in {"", urls[0]}:
        urls.append(settings.resolved_broker_url)
    for url in urls:
        applied = migrate(url)
        for name in applied:
            console().print(f"applied {name}")
        console().print(f"[green]✓[/] {place(url)} is up to date", soft_wrap=True)
