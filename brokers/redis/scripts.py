"""The Lua scripts of this folder, each with `shared.lua` before it."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FLAGS_LINE = "-- flags:"


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
    """
    folder = files("brokers.redis")
    text = (folder / f"{name}.lua").read_text()
    first_line, body = text.split("\n", 1)
    flags = first_line.removeprefix(FLAGS_LINE).strip()
    source = f"#!lua{f' flags={flags}' if flags else ''}\n{(folder / 'shared.lua').read_text()}\n{body}".encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())
