import ast
import re
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CLAUSE = re.compile(r"^- \*\*([A-Z]+-\d+)\*\*", re.MULTILINE)
STORE_FIXTURES = {"engine", "make_engine", "kind"}
"""A test that has one of them runs on every kind of store."""


def clauses() -> list[str]:
    return CLAUSE.findall((HERE.parents[1] / "docs/broker-contract.md").read_text())


def marked_tests() -> Iterator[tuple[str, ast.FunctionDef, list[str]]]:
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                marks = [
                    d
                    for d in node.decorator_list
                    if isinstance(d, ast.Call) and ast.unparse(d.func).endswith("mark.clause")
                ]
                yield path.name, node, [ast.literal_eval(argument) for mark in marks for argument in mark.args]


def test_each_clause_has_one_line():
    assert len(clauses()) == len(set(clauses()))


def test_each_clause_has_a_test_that_runs_on_every_store():
    shown = {
        clause
        for _, test, marked in marked_tests()
        for clause in marked
        if STORE_FIXTURES & {argument.arg for argument in test.args.args}
    }
    assert set(clauses()) - shown == set()


def test_tests_name_clauses_that_exist():
    named = {clause for _, _, marked in marked_tests() for clause in marked}
    assert named - set(clauses()) == set()
