"""Makes a command's process able to send: the composition root of `actors`, without the log lines of a worker."""

import logging


def compose() -> None:
    """Make the broker and declare all job types, as workers do. Takes about a second."""
    import actors  # noqa: F401, PLC0415 - importing it composes the process, which only commands that send should

    root = logging.getLogger()
    if root.level == logging.INFO:  # the default; a person at a terminal asked for one thing and sees its result
        root.setLevel(logging.WARNING)
