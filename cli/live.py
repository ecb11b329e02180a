"""Something that goes on elsewhere, shown while it does: a moving bar on a terminal, lines in a log."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.output import console, count, duration_text, rate_text
from core.errors import TransientError

POLL = timedelta(milliseconds=250)
RATE_WINDOW = timedelta(seconds=5)
"""The current rate is measured over so long."""
LINE_EVERY = timedelta(seconds=5)
SILENCE = timedelta(seconds=10)
"""After so long without a beginning, the view says what may be missing."""
BAR_WIDTH = 40


@dataclass(frozen=True, slots=True)
class View:
    """What is going on at one moment.

    Attributes:
        label: What it is.
        done: Items that are over.
        total: Of so many; None while that is not known.
        worked: Items that took work: the rate is made of these.
        left: Items that will take work.
        ended: Whether it is over.
        begun: Whether anyone has taken it up.
        limit: Most items a second that are allowed, where there is a limit.
        facts: Further counts, by name.
        note: What a person should know now.
    """

    label: str
    done: int
    total: int | None
    worked: int
    left: int
    ended: bool
    begun: bool = True
    limit: float | None = None
    facts: tuple[tuple[str, int], ...] = ()
    note: str = ""


class Meter:
    """Rates from what was seen when."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, worked: int, at: float) -> None:
        """Note the count `worked` at the moment `at`, in seconds of any clock that only goes on."""
        self._seen.append((at, worked))
        while len(self._seen) > 2 and at - self._seen[1][0] >= RATE_WINDOW.total_seconds():  # noqa: PLR2004 - two points make a rate
            self._seen.popleft()

    @property
    def rate(self) -> float | None:
        """Items a second over the last seconds; None before anything has moved."""
        if not self._seen:
            return None
        (first, before), (last, now) = self._seen[0], self._seen[-1]
        return (now - before) / (last - first) if last > first and now > before else None


def follow(look: Callable[[], View]) -> None:
    """Show what `look` sees, again and again until that has ended; a database that is away for a while is waited for.

    Ctrl-C ends it with KeyboardInterrupt and touches nothing of what is shown.
    """
    screen = _Screen()
    with Live(console=console(), refresh_per_second=8, transient=False, auto_refresh=False) as live:
        while True:
            try:
                view = look()
            except TransientError as error:
                screen.note = str(error)
            else:
                screen.see(view)
            if console().is_terminal:
                live.update(screen.render(), refresh=True)
            else:
                screen.print_line()
            if screen.ended:
                return
            time.sleep(POLL.total_seconds())


class _Screen:
    """The last view and what it is shown with."""

    def __init__(self) -> None:
        self.note = ""
        self._view: View | None = None
        self._meter = Meter()
        self._began = time.monotonic()
        self._moved: tuple[float, int] | None = None
        self._next_line = self._began + LINE_EVERY.total_seconds()

    @property
    def ended(self) -> bool:
        return self._view is not None and self._view.ended

    def see(self, view: View) -> None:
        now = time.monotonic()
        self._view, self.note = view, view.note
        if view.worked and self._moved is None:
            self._moved = (now, view.worked)
        self._meter.add(view.worked, now)
        if not view.begun and not view.ended and now - self._began > SILENCE.total_seconds():
            self.note = "No worker has taken it up yet. Is one running (dramatiq actors)? See: fanfare health"

    def render(self) -> Group:
        view = self._view
        if view is None:
            return Group(Text(self.note, style="yellow"))
        line = Table.grid(padding=(0, 1))
        bar = ProgressBar(
            total=view.total or None,
            completed=view.done,
            width=BAR_WIDTH,
            pulse=view.total is None,
            complete_style="cyan",
            finished_style="green",
        )
        line.add_row(f"[bold]{escape(view.label)}[/]", bar, self._position(view))
        rows: list[Table | Text] = [line, Text("  " + " · ".join(self._rates(view)), style="cyan")]
        if view.facts:
            rows.append(Text("  " + _facts(view), style="dim"))
        if self.note:
            rows.append(Text("  " + self.note, style="yellow"))
        return Group(*rows)

    def print_line(self) -> None:
        """One line for a log, if it is time for one."""
        now = time.monotonic()
        if self._view is None or not (now >= self._next_line or self._view.ended):
            return
        self._next_line = now + LINE_EVERY.total_seconds()
        parts = [f"{self._view.label}: {self._position(self._view)}", *self._rates(self._view), _facts(self._view)]
        console().print(escape(" · ".join(part for part in (*parts, self.note) if part)), soft_wrap=True)

    def _position(self, view: View) -> str:
        if view.total is None:
            return count(view.done)
        return f"{count(view.done)} of {count(view.total)}" + (
            f"  {100 * view.done / view.total:.0f} %" if view.total else ""
        )

    def _rates(self, view: View) -> list[str]:
        rate, overall = self._meter.rate, self._overall()
        parts = [] if view.ended else [f"{rate_text(rate)} now"]
        parts.append(f"{rate_text(overall)} overall")
        if view.limit is not None:
            parts.append(f"limit {view.limit:g}/s")
        if not view.ended and rate and view.left:
            parts.append(f"about {_rough(view.left / rate)} to go")
        return parts

    def _overall(self) -> float | None:
        if self._view is None or self._moved is None:
            return None
        at, worked = self._moved
        seconds = time.monotonic() - at
        return (self._view.worked - worked) / seconds if seconds > POLL.total_seconds() else None


def _rough(seconds: float) -> str:
    """A time nobody knows to the tenth: whole seconds, at least one."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else duration_text(timedelta(seconds=whole))  # noqa: PLR2004 - a minute


def _facts(view: View) -> str:
    return " · ".join(f"{name} {count(number)}" for name, number in view.facts)
