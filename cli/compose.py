"""Makes a command's process: its logs, and, where it sends, the composition root of `actors`."""

import logging

from core import logging as our_logging
from core.settings import get_settings


def configure_logs() -> None:
    """Send logs to standard error, for its output is the result, and only what a person at a terminal must know."""
    our_logging.configure(get_settings())
    _quieten()


def compose() -> None:
    """Make the broker and declare all job types, as workers do. Takes about a second."""
    import actors  # noqa: F401, PLC0415 - importing it composes the process, which only commands that send should

    _quieten()


def _quieten() -> None:
    root = logging.getLogger()
    if root.level == logging.INFO:  # the default; a person asked for one thing and sees its result
        root.setLevel(logging.WARNING)
