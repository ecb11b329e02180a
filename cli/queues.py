"""`fanfare queues`: what waits, what runs, and steering it."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from brokers.choose import make_engine
from brokers.engine import QueueDepth
from cli.output import console, count, duration_text, show_json, show_table, table

app = typer.Typer(add_completion=False, invoke_without_command=True)

_Queue = Annotated[str, typer.Argument(help="Name of the queue, as the table shows it.")]


@app.callback()
def show(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="For machines: an object per queue.")] = False,
) -> None:
    """Show the queues, pause one, let it go on."""
    if context.invoked_subcommand is not None:
        return
    depths = make_engine().depths()
    if as_json:
        show_json([asdict(depth) for depth in depths])
    elif depths:
        show_table("Queues", queues_table(depths))
    else:
        console().print("All queues are empty.")


@app.command()
def pause(queue: _Queue) -> None:
    """Let no message of a queue start until it is resumed; those that run go on."""
    make_engine().pause(queue)
    console().print(f"{queue} is paused. Let it go on with: fanfare queues resume {queue}")


@app.command()
def resume(queue: _Queue) -> None:
    """Let a paused queue go on."""
    make_engine().resume(queue)
    console().print(f"{queue} goes on.")


def queues_table(depths: list[QueueDepth]) -> Table:
    """A row for each queue."""
    columns = ("Queue", "Waiting", "Delayed", "Running", "Dead", "Oldest waits", "")
    made = table(*columns, numbers=columns[1:6])
    for depth in depths:
        dead = count(depth.dead)
        made.add_row(
            depth.queue,
            count(depth.waiting),
            count(depth.delayed),
            count(depth.leased),
            f"[red]{dead}[/]" if depth.dead else dead,
            duration_text(depth.oldest),
            "[yellow]paused[/]" if depth.paused else "",
        )
    return made
