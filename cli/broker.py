"""`fanfare broker`: the stores of messages, and moving from one to the other."""

from contextlib import closing
from time import monotonic, sleep
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from brokers.choose import make_store
from brokers.move import Moved, move
from cli.output import console, count, table
from core.errors import PermanentError

app = typer.Typer(add_completion=False, no_args_is_help=True)

PAUSE_S = 1.0


@app.callback()
def broker() -> None:
    """Move messages between Redis and PostgreSQL while workers run."""


@app.command("move")
def run(
    *,
    source: Annotated[str, typer.Option("--from", help="redis://... or postgresql://...")],
    target: Annotated[str, typer.Option("--to", help="The same; messages go there.")],
    wait: Annotated[float, typer.Option(help="Seconds to wait for running members of groups.", min=0)] = 60.0,
) -> None:
    """Move waiting, delayed and dead messages, with their groups, to another broker.

    Workers may run on both brokers meanwhile; what a worker runs stays with it. Killed, it can be run again, or not:
    nothing is lost or doubled. First let the processes that send use the new broker, then move; stop the old workers
    when their queues are empty (fanfare queues), and move once more what they handed back.
    """
    if source == target:
        raise PermanentError("--from and --to are the same broker.", code="same_store")
    until = monotonic() + wait
    total = Moved()
    with closing(make_store(source)) as old, closing(make_store(target)) as new, _live(total) as live:
        while True:
            move(old, new, total, lambda: live.update(_table(total)))
            if not total.left or monotonic() > until:
                break
            sleep(PAUSE_S)
    _end(total)


def _live(moved: Moved) -> Live:
    return Live(_table(moved), console=console(), refresh_per_second=4)


def _table(moved: Moved) -> Table:
    made = table("Moved", "Queue", "Messages", numbers=("Messages",))
    for queue, number in sorted(moved.queues.items()):
        made.add_row(queue, count(number))
    made.add_row("[bold]all[/]", f"[bold]{count(moved.total)}[/]")
    return made


def _end(moved: Moved) -> None:
    if moved.left:
        console().print(
            f"{count(moved.left)} messages stay until the running members of their groups have ended: run it again."
        )
        raise typer.Exit(1)
    console().print(f"All is moved: {count(moved.total)} messages, {count(moved.dead)} of them dead letters.")
