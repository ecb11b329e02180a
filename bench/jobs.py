"""Single jobs: contacts imported per second and the memory it takes, messages rendered per second."""

import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import servers
from bench.figure import Figure
from domain.template import Template

SMALL = 10_000
LARGE, LARGE_QUICK = 1_000_000, 200_000
RENDERS = 100_000
PATTERN = 40
"""Of so many rows in a generated file, one has a bad phone, one a bad e-mail and one is a duplicate."""

_BODY = "Hello {{name}}, your order {{order_id}} from {{company}} leaves for {{city}} today. Reply STOP to end this."
_VALUES = {"name": "Zoë Ångström", "order_id": "E-63359", "city": "Oslo", "phone": "+14155552671", "tags": "vip"}
# Spellings of a number as they are found in files, and what is no number.
_SHAPES = (
    "+1 {0}-{1}-{2}",
    "+1{0}{1}{2}",
    "+1 ({0}) {1}{2}",
    " 1{0}{1}{2} ",
    "+1.{0}.{1}.{2}",
    "+1\xa0{0}\xa0{1}\xa0{2}",
)


def run(quick: bool) -> Iterator[Figure]:  # noqa: FBT001  # the package's protocol
    """All figures of this bench."""
    yield _rendering()
    with tempfile.TemporaryDirectory() as folder, servers.postgres() as url, servers.environment(DATABASE_URL=url):
        yield from _importing(Path(folder), LARGE_QUICK if quick else LARGE)


def _rendering() -> Figure:
    template = Template.parse({"kind": "text", "body": _BODY}, {"company": "Acme"})
    rates = []
    for _ in range(5):
        begin = time.monotonic()
        for _ in range(RENDERS):
            template.render(_VALUES)
        rates.append(RENDERS / (time.monotonic() - begin))
    of = f"text of 4 variables, one thread, median of 5 x {RENDERS}"
    return Figure("render_per_s", statistics.median(rates), "messages/s", 50_000, of)


def _importing(folder: Path, large: int) -> Iterator[Figure]:
    small_runs, small_mb = _import(_generate(folder / "small.csv", SMALL), repeats=6)
    large_runs, large_mb = _import(_generate(folder / "large.csv", large), repeats=1)
    warm = statistics.median(_rate(each) for each in small_runs[1:])
    bulk = _rate(large_runs[0])
    cpu = 1e6 * large_runs[0]["cpu_seconds"] / large
    of = (
        f"the less of {warm:.0f}/s with {SMALL} rows (median of 5 after a first) and {bulk:.0f}/s with {large} rows; "
        f"own CPU {cpu:.0f} us a row, PostgreSQL with fsync on the same machine"
    )
    yield Figure("import_csv_rows_per_s", min(warm, bulk), "rows/s", 20_000, of)
    of = f"peak of a process that imports {large} rows; {small_mb:.0f} MB with {SMALL} rows"
    yield Figure("import_rss_mb_1m", large_mb, "MB", 200, of, is_most=True)


def _rate(run_: dict[str, float]) -> float:
    return run_["rows"] / run_["seconds"]


def _import(path: Path, repeats: int) -> tuple[list[dict[str, float]], float]:
    command = [sys.executable, "-m", "bench.import_process", str(path), str(repeats)]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)  # noqa: S603
    return result["runs"], result["peak_mb"]


def _generate(path: Path, rows: int) -> Path:
    """A file like tests/data/contacts_10k.csv: every spelling, some bad rows, some duplicates."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["phone", "name", "email", "tags", "company", "city", "order_id"])
        for number in range(rows):
            writer.writerow(_row(number))
    return path


def _row(number: int) -> list[str]:
    kind = number % PATTERN
    person = number - PATTERN // 2 if kind == PATTERN - 1 else number
    digits = f"{2_000_000 + person:07}"
    phone = _SHAPES[number % len(_SHAPES)].format("201", digits[:3], digits[3:])
    phone = "call me" if kind == 0 else phone
    email = "dots..twice@example.com" if kind == 1 else f"p{person}@sub.example.co.uk"
    tags = "vip|lead" if number % 3 else ""
    return [phone, f"Zoë {number}", email, tags, "Fraser, Brown and Hill", "Sasso Morelli", f"E-{number}"]
