"""What stands on the Markdown pages: blocks of code, and commands."""

import re
import shlex
from pathlib import Path

from tests.meta.tree import pages, text

PROGRAMS = ("make", "fanfare", "python", "dramatiq", "periodiq")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FILE = re.compile(r"# (actors/\w+\.py)\n")


def guides() -> tuple[Path, ...]:
    """The pages that tell people what to do now; decisions tell what was."""
    return tuple(path for path in pages() if path.parts[:2] != ("docs", "adr"))


def blocks(page: Path, language: str) -> list[str]:
    """The page's code in that language."""
    return [code for name, code in _BLOCK.findall(text(page)) if name == language]


def python_pages() -> tuple[Path, ...]:
    return tuple(page for page in guides() if blocks(page, "python"))


def files_of(page: Path) -> dict[str, str]:
    """The blocks that are a file, by its path: their first line names it."""
    return {found[1]: code for code in blocks(page, "python") if (found := _FILE.match(code))}


def script_of(page: Path) -> str:
    """The other blocks, one after another."""
    return "\n".join(code for code in blocks(page, "python") if not _FILE.match(code))


def commands(page: Path) -> list[list[str]]:
    """The page's commands of ours, as words, from its shell blocks and from code in its text."""
    lines = [line for language in ("sh", "") for block in blocks(page, language) for line in block.splitlines()]
    lines += _SPAN.findall(_BLOCK.sub("", text(page)))
    found = []
    for line in lines:
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe of prose
            continue
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words and words[0] in PROGRAMS:
            found.append(words)
    return found
