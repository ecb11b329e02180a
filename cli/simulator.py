"""`fanfare simulator`: the simulated outside world as a process."""

import os
import sys

import typer

app = typer.Typer(add_completion=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def run(context: typer.Context) -> None:
    """Run the simulated outside world, to send to while you try things.

    Takes the options of `python -m simulator`; `fanfare simulator --help` lists them.
    """
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "simulator", *context.args])  # noqa: S606 - our own program
