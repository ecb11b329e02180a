"""One measured number, in the form in which it is printed."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value beside its goal.

    Attributes:
        figure: Its name, the same in every run.
        value: The number, in `unit`.
        unit: Such as `rows/s`, `MB`, `x`.
        goal: What the value is held against; None: it is only printed.
        of: How it came about: sizes, repetitions, and the parts of a ratio.
        is_most: True where the goal is the largest value wanted, False where it is the smallest.
    """

    figure: str
    value: float
    unit: str
    goal: float | None
    of: str
    is_most: bool = False

    @property
    def ok(self) -> bool:
        """Whether the goal is met."""
        if self.goal is None:
            return True
        return self.value <= self.goal if self.is_most else self.value >= self.goal

    def line(self) -> str:
        """One line of JSON, the value with three significant digits or in whole units."""
        value = round(self.value) if abs(self.value) >= 1000 else float(f"{self.value:.3g}")  # noqa: PLR2004
        fields = asdict(self)
        del fields["is_most"]
        return json.dumps({**fields, "value": value, "ok": self.ok, "of": fields.pop("of")})
