"""docs/cli.md is what the commands say of themselves."""

from docs.cli_page import cli_page
from tests.meta.tree import text


def test_page_of_the_command_line_is_current():
    assert text("docs/cli.md") == cli_page(), "run `make docs`"


def test_page_names_commands_options_and_defaults():
    page = cli_page()
    assert "## fanfare campaign send\n" in page
    assert "| `--on-unknown` | no | `hold` |" in page
    assert "| `--validate-phone`, `--no-validate-phone` | no | on |" in page
