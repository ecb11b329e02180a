"""Every command on the pages names what exists: targets, commands and their options, modules."""

import re
from importlib.util import find_spec
from typing import Any

import pytest
from dramatiq.cli import make_argument_parser

from cli.main import COMMANDS, load
from tests.docs.pages import commands, guides
from tests.meta.tree import ROOT, make_targets

WATCHDOG = {"--watch", "--watch-include"}
"""dramatiq has these options only where the package watchdog is installed."""
PLACEHOLDER = re.compile(r"[A-Z_]+[….]*|…")
PASSED_ON = ("simulator",)
"""Commands that give their options to another program."""


def problem_with(words: list[str]) -> str | None:
    program, *rest = words
    match program:
        case "make":
            targets = {word for word in rest if "=" not in word and not word.startswith("-")}
            return f"no target {targets - make_targets()}" if targets - make_targets() else None
        case "fanfare":
            return problem_with_ours(rest)
        case "python":
            return problem_with_module(rest)
        case "dramatiq":
            known = set(re.findall(r"--[a-z-]+", make_argument_parser().format_help()))
            return problem_with_module_name(rest[:1]) or unknown_options(rest, known | WATCHDOG)
        case _:
            return problem_with_module_name(rest[:1])


def problem_with_ours(words: list[str]) -> str | None:
    if not words or words == ["--help"] or PLACEHOLDER.fullmatch(words[0]):
        return None
    name, *rest = words
    if name not in COMMANDS:
        return f"no command {name}"
    command: Any = load(name)
    while rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    if name in PASSED_ON:
        return None
    if getattr(command, "commands", {}) and rest and not rest[0].startswith("-"):
        return f"{name} has no command {rest[0]}"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return unknown_options(rest, options | {"--help"})


def problem_with_module(words: list[str]) -> str | None:
    if words[:1] != ["-m"]:
        return None
    _, module, *rest = words
    if module == "cli":
        return problem_with_ours(rest)
    if module == "bench":
        return next((f"no bench {w}" for w in rest if w.isidentifier() and not (ROOT / f"bench/{w}.py").exists()), None)
    return problem_with_module_name([module])


def problem_with_module_name(names: list[str]) -> str | None:
    return next((f"no module {name}" for name in names if name.islower() and not find_spec(name)), None)


def unknown_options(words: list[str], known: set[str]) -> str | None:
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    return f"no option {options - known}" if options - known else None


@pytest.mark.parametrize("page", guides(), ids=str)
def test_commands_on_a_page_exist(page):
    problems = [f"{' '.join(words)}: {problem}" for words in commands(page) if (problem := problem_with(words))]
    assert not problems


def test_the_pages_for_newcomers_have_commands():
    found = {" ".join(words[:2]) for page in guides() for words in commands(page)}
    assert {"make demo", "make test", "dramatiq actors", "periodiq actors", "fanfare campaign"} <= found


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "fanfare nothing",
        "fanfare campaign nothing",
        "fanfare campaign show --nothing",
        "python -m nothing",
        "python -m bench nothing",
        "dramatiq nothing",
        "dramatiq actors --nothing",
        "periodiq nothing",
    ],
)
def test_what_does_not_exist_is_found(line):
    assert problem_with(line.split())
