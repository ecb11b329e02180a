"""The command `fanfare`. A command's module is imported when it is called, so that `fanfare --help` answers at once."""

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from core.errors import FanfareError

COMMANDS = {
    "demo": "Show everything at work: import 10,000 contacts, send a campaign to the simulator.",
    "contacts": "Import contacts and see what became of an import.",
    "campaign": "Send campaigns, watch and steer them.",
    "health": "Say whether everything that Fanfare needs is there, and what to do where it is not.",
    "broker": "Move messages between Redis and PostgreSQL while workers run.",
    "queues": "Show the queues, pause one, let it go on.",
    "migrate": "Bring the database to this version; harmless when it is there already.",
    "web": "Serve the status page and the health checks.",
    "simulator": "Run the simulated outside world, to send to while you try things.",
}
"""Each command and what it is for; the module `cli.<command>` has it as `app`."""


def app() -> None:
    """Run the command line. Ends the process: 0 done, 1 failed with a message, 2 wrong usage, 130 after Ctrl-C."""
    commands()(prog_name="fanfare")


def commands() -> "Commands":
    """The tree of all commands."""
    stubs = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}
    about = "Background work of messaging products: campaigns in which every recipient is accounted for."
    return Commands(name="fanfare", help=about, commands=dict(stubs), no_args_is_help=True)


def load(name: str) -> Any:  # noqa: ANN401 - typer's command classes are private
    """The command `name` with its options or its own commands."""
    command = typer.main.get_command(import_module(f"cli.{name}").app)
    command.name = name
    return command


class Commands(TyperGroup):
    """Shows stubs in its help, loads the command that is called, and tells errors in one message."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - as at `load`
        """As in typer, but with the real command in the place of its stub."""
        name, stub, rest = super().resolve_command(ctx, args)
        if stub is not None and not ctx.resilient_parsing:
            from cli.compose import configure_logs  # noqa: PLC0415 - it takes time to import

            configure_logs()
        return name, stub and load(name or ""), rest

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - as at `load`
        """As in typer; an error that we raise on purpose is shown as its message, without a traceback."""
        try:
            return super().invoke(ctx)
        except FanfareError as error:
            from cli.output import show_error  # noqa: PLC0415 - rich takes time to import

            show_error(error)
            raise typer.Exit(1) from error
