"""The Lua scripts of this folder, each with `base.lua` and the other parts that it names before it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FLAGS_LINE = "-- flags:"
PARTS_LINE = "-- parts:"


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text, and its name at the server."""

    source: bytes
    sha: bytes


@cache
def load(name: str) -> Script:
    """The script in `name`.lua.

    Its first line states the flags of the server's script engine; a script without `allow-oom` is refused as a whole
    when the server is out of memory, one with it always runs to its end. Nothing stops half way.
    Its second line names its parts: a script pays for each function defined before it.
    """
    folder = files("brokers.redis")
    flags_line, parts_line, body = (folder / f"{name}.lua").read_text().split("\n", 2)
    flags = flags_line.removeprefix(FLAGS_LINE).strip()
    parts = ["base", *parts_line.removeprefix(PARTS_LINE).split()]
    texts = [
        f"#!lua flags={flags}" if flags else "#!lua",
        *((folder / f"{part}.lua").read_text() for part in parts),
        body,
    ]
    source = "\n".join(texts).encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())
