"""Writes the pages that would otherwise repeat the code: settings and job types.

`make docs` writes them; `make check` runs this with `--check`, which writes nothing and fails when a page is stale.
"""

import argparse
import sys
from pathlib import Path

from docs.cli_page import cli_page
from docs.jobs_page import jobs_page
from docs.settings_page import env_example, settings_page

ROOT = Path(__file__).resolve().parents[1]

PAGES = {
    ".env.example": env_example,
    "docs/settings.md": settings_page,
    "docs/jobs.md": jobs_page,
    "docs/cli.md": cli_page,
}


def main() -> int:
    """Write the pages, or with `--check` name the stale ones.

    Returns:
        The exit status: 1 when `--check` found a stale page.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description="Write the generated pages.")
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is stale")
    check = parser.parse_args().check
    stale = []
    for path, page in PAGES.items():
        file, text = ROOT / path, page()
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not check:
            file.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"{'stale, run `make docs`' if check else 'written'}: {', '.join(stale)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
