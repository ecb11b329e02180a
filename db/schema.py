"""`db/schema.sql`: what all migrations together make, on one page, for people. Written by `python -m db.schema`."""

import re
import tempfile
from pathlib import Path

from db import embedded
from db.embedded_server import run_program
from db.migrate import migrate

PATH = Path(__file__).parent / "schema.sql"

HEAD = "-- The sum of db/migrations, written by `python -m db.schema`: to read, not to edit or to run.\n\n"

_NOISE = re.compile(r"^(--|SET |SELECT pg_catalog\.|\\).*\n", re.MULTILINE)


def dump(url: str) -> str:
    """The schema of the database at `url` in the form of `schema.sql`, independent of the server's minor version."""
    options = ["--schema-only", "--no-owner", "--no-privileges", "--no-comments", "--exclude-table=_yoyo*"]
    statements = _NOISE.sub("", run_program("pg_dump", *options, url))
    return HEAD + re.sub(r"\n{3,}", "\n\n", statements).strip() + "\n"


def write() -> None:
    """Migrate a new database in a passing server and write its schema to `PATH`."""
    with tempfile.TemporaryDirectory() as folder:
        url = embedded.ensure_running(Path(folder))
        try:
            migrate(url)
            PATH.write_text(dump(url))
        finally:
            embedded.stop(Path(folder))


if __name__ == "__main__":
    write()
