"""docs/picture.py reads what rich writes to a terminal, and the picture is a person's who has no other host."""

import io

from rich.console import Console
from rich.live import Live
from rich.text import Text

from docs.picture import PICTURE, screen


def test_a_live_view_leaves_its_last_state():
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=40)
    console.print("before")
    with Live(console=console, auto_refresh=False) as live:
        for share in (10, 50, 100):
            live.update(Text(f"{share} %\nof all", style="green"), refresh=True)
    console.print("after")
    lines = screen(written.getvalue())
    assert [Text.from_ansi(line).plain for line in lines] == ["before", "100 %", "of all", "after", ""]
    assert "\x1b[32m" in lines[1], "colours are kept"


def test_the_picture_shows_the_comparison_and_fetches_nothing():
    drawn = PICTURE.read_text(encoding="utf-8")
    assert "recipients&#160;accounted&#160;for" in drawn
    assert "url(" not in drawn.replace("url(#", "")
