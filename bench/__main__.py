"""`python -m bench NAME… [--quick]` measures and prints one JSON line per figure; `--list` names what there is.

A bench is a module of this package with `run(quick: bool) -> Iterator[Figure]`. It starts the servers that it needs and
ends them.
"""

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator

import bench
from bench.figure import Figure

Run = Callable[[bool], Iterator[Figure]]


def main() -> int:
    """Run the named benches one after another, all of them where none is named."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure; everything by default")
    parser.add_argument("--quick", action="store_true", help="smaller amounts: at most 50 seconds per name")
    parser.add_argument("--list", action="store_true", help="print the names and what each measures")
    arguments = parser.parse_args()
    known = _benches()
    if arguments.list:
        for name, (_, about) in known.items():
            sys.stdout.write(f"{name}: {about}\n")
        return 0
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in arguments.names or known:
        for figure in known[name][0](arguments.quick):
            sys.stdout.write(figure.line() + "\n")
            sys.stdout.flush()
    return 0


def _benches() -> dict[str, tuple[Run, str]]:
    """Every module of the package that has a `run`, by name, with the first line of its docstring."""
    found = {}
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name.startswith("_"):
            continue
        loaded = importlib.import_module(f"bench.{module.name}")
        run = getattr(loaded, "run", None)
        if run is not None and run.__module__ == loaded.__name__:
            found[module.name] = (run, (loaded.__doc__ or "").strip().partition("\n")[0])
    return found


if __name__ == "__main__":
    sys.exit(main())
