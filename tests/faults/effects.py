"""What actors did, in a file that outlives their processes: one line for each effect."""

import os
from collections import Counter
from pathlib import Path


class Effects:
    """An append-only log; short lines of several processes do not mix."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, *words: object) -> None:
        """Append one line."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(file, (" ".join(map(str, words)) + "\n").encode())
        finally:
            os.close(file)

    def all(self) -> list[tuple[str, ...]]:
        """The lines so far, in order, each as its words."""
        if not self.path.exists():
            return []
        return [tuple(line.split()) for line in self.path.read_text().splitlines()]

    def of(self, event: str) -> list[tuple[str, ...]]:
        """What follows the word `event`, of the lines that begin with it."""
        return [line[1:] for line in self.all() if line[0] == event]

    def count(self, event: str) -> Counter[str]:
        """How often each name has `event`."""
        return Counter(line[0] for line in self.of(event))
