"""Draws docs/pictures/demo.svg: what a terminal shows at the end of a real `fanfare demo`.

`python -m docs.picture` runs the demo in a terminal of its own, takes what is on the screen from the campaign on, and
writes it as it was. It takes a minute or so and needs nothing but the environment of `make setup`.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/pictures/demo.svg"
COLUMNS, ROWS = 104, 60
NO_BROKER = dict.fromkeys(("BROKER_URL", "REDIS_URL", "REDIS_HOST"), "")
BEGIN, END = "Campaign", "All processes have ended"
"""The picture begins at the heading with the first and ends before the line with the second."""

_MOVES = re.compile(r"(\n|\r|\x1b\[\d*A|\x1b\[2K)")
_FONTS = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
"""Would be fetched from another host by everyone who looks at the picture."""
_NOT_SHOWN = re.compile(r"\x1b\[\?\d+[hl]|\x1b\]8;[^\x1b\x07]*(?:\x1b\\|\x07)")
"""Hides and shows the cursor; makes links."""


def main() -> None:
    """Run the demo and write the picture."""
    with tempfile.TemporaryDirectory(prefix="fanfare-picture-") as folder:
        shown = _record([sys.executable, "-m", "cli", "demo"], {"DATA_DIR": folder, **NO_BROKER})
    lines = _part(screen(shown))
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, highlight=False)
        for line in lines:
            console.print(Text.from_ansi(line), overflow="fold")
        PICTURE.parent.mkdir(exist_ok=True)
        drawn = console.export_svg(title="make demo", unique_id="demo")
        PICTURE.write_text(_FONTS.sub("", drawn), encoding="utf-8")


def screen(shown: str) -> list[str]:
    """The lines that stand on a terminal after `shown` was written to it, with their colours.

    Knows what rich's live views do: go up by whole lines, clear a line, return to its beginning.
    """
    lines = [""]
    for piece in _MOVES.split(_NOT_SHOWN.sub("", shown)):
        match piece:
            case "\n":
                lines.append("")
            case "\r":
                continue
            case "\x1b[2K":
                lines[-1] = ""
            case up if _MOVES.fullmatch(up):
                del lines[-int(up[2:-1] or 1) :]
            case text:
                lines[-1] += text
    return lines


def _part(lines: list[str]) -> list[str]:
    plain = [Text.from_ansi(line).plain for line in lines]
    first = next(n for n, line in enumerate(plain) if line.startswith(BEGIN) and line.endswith("─"))
    last = next(n for n, line in enumerate(plain) if line.startswith(END))
    return lines[first:last]


def _record(command: list[str], variables: dict[str, str]) -> str:
    """All that `command` writes to a terminal.

    Raises:
        CalledProcessError: it ended with an error; there is no picture of that.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    words = [f"{name}={value}" for name, value in (terminal | variables).items()]
    with subprocess.Popen(  # noqa: S603 - our own command
        ["/usr/bin/env", *words, *command], cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        while piece := _read(ours):
            shown += piece
    os.close(ours)
    text = shown.decode().replace("\r\n", "\n")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, text)
    return text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other side is closed: Linux says so by an error
        return b""


if __name__ == "__main__":
    main()
