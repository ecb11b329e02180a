"""docs/cli.md, made from the tree of commands."""

from collections.abc import Iterator
from typing import Any

from cli.main import COMMANDS, load

HEAD = """\
# Command line

<!-- Written by `make docs` from cli/: change it there. -->

`fanfare COMMAND --help` says the same in the terminal. Every command reads the [settings](settings.md) from the
environment. It ends with 0 when it is done, with 1 and one message when something is wrong, with 2 when it was called
wrongly, and with 130 after Ctrl-C. Progress and tables are for people; `--json` gives one line of JSON instead.

| Command | What it does |
|---|---|
"""


def cli_page() -> str:
    """The text of docs/cli.md."""
    found = [found for name in COMMANDS for found in _walk(f"fanfare {name}", load(name))]
    rows = "".join(f"| [`{path}`](#{path.replace(' ', '-')}) | {_summary(command)} |\n" for path, command in found)
    return HEAD + rows + "".join(_section(path, command) for path, command in found)


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's command classes are private
    """The commands that do something: every leaf, and a group that also runs by itself."""
    parts = getattr(command, "commands", {})
    if not parts or command.invoke_without_command:
        yield path, command
    for name, part in parts.items():
        yield from _walk(f"{path} {name}", part)


def _summary(command: Any) -> str:  # noqa: ANN401 - as above
    return str(command.help or "").partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")


def _section(path: str, command: Any) -> str:  # noqa: ANN401 - as above
    return "\n".join(("", f"## {path}", "", (command.help or "").strip(), "", *_parameters(command)))


def _parameters(command: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    parameters = [parameter for parameter in command.params if parameter.name != "help"]
    if not parameters:
        return
    yield "| Argument or option | Needed | Default | What it is |\n|---|---|---|---|"
    for parameter in parameters:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        if parameter.param_type_name == "argument":
            names = f"`{parameter.metavar or str(parameter.name).upper()}`"
        elif parameter.metavar:
            names += f" {parameter.metavar}"
        text = str(parameter.help or "").replace("|", "\\|")
        yield f"| {names} | {'yes' if parameter.required else 'no'} | {_default(parameter)} | {text} |"
    yield ""


def _default(parameter: Any) -> str:  # noqa: ANN401 - as above
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    if parameter.default in (None, "", False) or callable(parameter.default):
        return ""
    return "on" if parameter.default is True else f"`{parameter.default}`"
