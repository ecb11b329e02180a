"""The pages lead somewhere: links, make targets, and the proofs of docs/requirements.md exist."""

import ast
import re
from collections import Counter

from tests.meta.tree import ROOT, make_targets, pages, text

ROWS = {
    "RUN": 12,
    "JOB": 25,
    "OPT": 17,
    "API": 15,
    "AUTH": 5,
    "DB": 5,
    "CRON": 3,
    "MON": 6,
    "DEP": 5,
    "NUM": 5,
    "X": 14,
}
"""How many requirements each section of docs/requirements.md has."""


def slug(heading: str) -> str:
    """The anchor that code hosts make from a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(page):
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", text(page)):
        file = ROOT / page.parent / target if target else ROOT / page
        if not file.exists():
            yield f"{page}: {target} does not exist"
        elif anchor and slug(anchor) not in map(slug, re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)):
            yield f"{page}: {target} has no heading #{anchor}"


def requirement_rows():
    for line in text("docs/requirements.md").splitlines():
        if re.match(r"\| [A-Z]+-\d+ ", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def row_problem(_id: str, what: str, where: str, proof: str, state: str) -> str | None:
    if not what or not where:
        return "says too little"
    if state == "open":
        return None if proof == "none" else "has a proof and is open"
    return missing_proof(proof) if state in {"done", "partly"} else f"has no such state as {state!r}"


def missing_proof(proof: str) -> str | None:
    """What the proof names that does not exist, or None."""
    named = re.findall(r"`([^`]+)`", proof)
    if not named:
        return "names nothing to run"
    for command in named:
        if command.startswith("make "):
            exists = command.split()[1] in make_targets()
        elif command.startswith("python -m bench "):
            exists = (ROOT / "bench" / f"{command.split()[3]}.py").exists()
        else:
            exists = has_test(*command.split("::"))
        if not exists:
            return f"{command} does not exist"
    return None


def has_test(path: str, *names: str) -> bool:
    scope: list[ast.stmt] = []
    if (ROOT / path).is_file() and path.startswith("tests/"):
        scope = ast.parse(text(path)).body
    for name in names:
        found = [node for node in scope if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name]
        scope = found[0].body if found else []
    return bool(scope)


def test_links_resolve():
    assert not [problem for page in pages() for problem in broken_links(page)]


def test_make_targets_named_in_pages_exist():
    named = {
        target for page in pages() for target in re.findall(r"(?:`|^)make ([a-z][a-z0-9-]*)", text(page), re.MULTILINE)
    }
    assert {"demo", "test"} <= named
    assert named <= make_targets()


def test_every_make_target_explains_itself():
    explained = set(re.findall(r"^([a-z][a-z0-9-]*):.*## \S", text("Makefile"), re.MULTILINE))
    assert explained == make_targets()


def test_every_requirement_has_one_row():
    ids = Counter(row[0] for row in requirement_rows())
    assert ids == {f"{prefix}-{n:02}": 1 for prefix, count in ROWS.items() for n in range(1, count + 1)}


def test_requirement_rows_are_proved_as_they_say():
    problems = [f"{row[0]}: {problem}" for row in requirement_rows() if (problem := row_problem(*row))]
    assert not problems
