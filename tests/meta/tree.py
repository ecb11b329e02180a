"""The project's own files, as the tests of this folder look at them."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "actors",
    "brokers",
    "cli",
    "core",
    "db",
    "domain",
    "periodic",
    "pipelines",
    "providers",
    "simulator",
    "web",
)


@cache
def files() -> tuple[Path, ...]:
    """Every file that is tracked or would be, relative to the root."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return tuple(Path(name) for name in sorted(set(names.split("\0"))) if name and (ROOT / name).is_file())


def text(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def pages() -> tuple[Path, ...]:
    """The Markdown pages."""
    return tuple(path for path in files() if path.suffix == ".md")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """The Python modules that processes import, parsed; tests, bench and docs are not among them."""
    for path in files():
        if path.suffix == ".py" and path.parts[0] in PACKAGES:
            yield path, ast.parse(text(path), filename=str(path))


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z][a-z0-9-]*):", text("Makefile"), flags=re.MULTILINE))


@cache
def procfile() -> dict[str, str]:
    """The Procfile's commands by process name."""
    lines = (line.partition(":") for line in text("Procfile").splitlines() if line.strip())
    return {name: command.strip() for name, _, command in lines}
