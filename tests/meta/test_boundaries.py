"""What import-linter cannot see: where the environment is read, where SQL stands, what must not be in any file."""

import ast
import re
from pathlib import Path

from tests.meta.tree import files, modules, text

SQL = re.compile(
    r"\b(select\b.+\bfrom|insert\s+into|update\s+[\w.\"]+(\s+\w+)?\s+set|delete\s+from|with\s+\w+\s+as\s*\("
    r"|(create|alter|drop)\s+(table|index|type|schema|function)|lock\s+table|truncate\s+table)\b",
    re.IGNORECASE | re.DOTALL,
)
SQL_HOMES = (Path("db"), Path("brokers/postgres"))
THIS = Path("tests/meta/test_boundaries.py")


def reads_environment(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(value=ast.Name(id="os"), attr=name):
            return name in {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
        case ast.ImportFrom(module="os", names=names):
            return any("env" in alias.name for alias in names)
        case _:
            return False


def strings(tree: ast.Module) -> list[ast.Constant]:
    """Every string that is not a docstring: of the pieces of an f-string, each by itself."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose)
    return [node for node in constants if isinstance(node.value, str)]


def lines_with(pattern: str, *, apart_from: frozenset[Path] = frozenset()) -> list[str]:
    found = []
    for path in files():
        if path not in apart_from:
            numbered = enumerate((text(path) if is_text(path) else "").splitlines(), start=1)
            found += [f"{path}:{number}: {line.strip()[:100]}" for number, line in numbered if re.search(pattern, line)]
    return found


def is_text(path: Path) -> bool:
    return path.suffix not in {".xlsx", ".png", ".ico", ".gz", ".zip", ".pdf", ".latin1"}


def test_environment_is_read_in_settings_alone():
    readers = {str(path) for path, tree in modules() if any(map(reads_environment, ast.walk(tree)))}
    assert readers <= {"core/settings.py"}, "add a setting instead"


def test_sql_stands_in_its_homes():
    homeless = [
        f"{path}:{node.lineno}: {str(node.value).strip()[:80]}"
        for path, tree in modules()
        if not any(home in path.parents for home in SQL_HOMES)
        for node in strings(tree)
        if SQL.search(str(node.value))
    ]
    assert not homeless, "move it into db/"


def test_sql_is_recognised():
    assert SQL.search("select id\n from contacts")
    assert SQL.search("UPDATE public.jobs j SET status = 'done'")
    assert SQL.search("with due as (select 1)")
    assert not SQL.search("Select a template, then send it")
    assert not SQL.search("update existing contacts, or skip them")


def test_environment_reading_is_recognised():
    for code in ("os.environ['A']", "os.getenv('A')", "from os import environ", "from os import path, getenv"):
        assert any(map(reads_environment, ast.walk(ast.parse(code)))), code
    assert not any(map(reads_environment, ast.walk(ast.parse("os.cpu_count()"))))


def test_no_file_names_a_machine_path_or_a_package_index():
    hosts = r"pypi\.org|pythonhosted|(?<!no-emit-)index-url|(?<!no-emit-)find-links"
    assert not lines_with(rf"(?<![\w.~-])/(root|work|home|Users|opt)/\w|{hosts}", apart_from=frozenset({THIS}))


def test_nothing_is_left_to_do():
    assert not lines_with(r"\b(TODO|FIXME|HACK)\b", apart_from=frozenset({THIS}))
