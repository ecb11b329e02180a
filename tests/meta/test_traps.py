"""docs/traps.md names tests that exist, and every trap and fault that must have one has it."""

import ast
import re

import pytest

from tests.meta.tree import ROOT, text

PROOF = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
ROW = re.compile(r"^\| (\d+|-) \|", re.MULTILINE)
MUST_HAVE_ONE = {1, 2, 6, 9, 18, 22, *range(25, 39)}
"""The marked ones of the list of traps, but for 21, and each fault that was injected into the stock parts."""


def functions_of(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(text(path))) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("path", "name"), sorted(set(PROOF.findall(text("docs/traps.md")))))
def test_a_named_test_exists(path, name):
    assert (ROOT / path).exists()
    assert not name or name in functions_of(path)


def test_each_row_names_a_test():
    rows = [line for line in text("docs/traps.md").splitlines() if ROW.match(line)]
    assert [row for row in rows if not PROOF.search(row)] == []
    assert {int(number) for number in ROW.findall(text("docs/traps.md")) if number.isdigit()} >= MUST_HAVE_ONE


def test_each_fault_test_stands_on_the_page():
    named = {name for _, name in PROOF.findall(text("docs/traps.md"))}
    written = set()
    for path in (ROOT / "tests/faults").glob("test_*.py"):
        written |= {name for name in functions_of(str(path.relative_to(ROOT))) if name.startswith("test_")}
    about_the_harness = {name for name in functions_of("tests/faults/test_proxy.py") if name.startswith("test_")}
    assert written - named == about_the_harness
