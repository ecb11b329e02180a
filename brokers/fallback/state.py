"""What people see of a fallback."""

from dataclasses import dataclass

from brokers.engine import Engine
from brokers.fallback.engine import FallbackEngine
from core.errors import TransientError
from db import outbox


@dataclass(frozen=True, slots=True)
class FallbackState:
    """Two stores at one moment.

    Attributes:
        is_away: The first store takes no messages; they go to the second.
        error: Why.
        in_second: Messages in the second store that have not ended.
        undecided: Messages of sends that the first store did not confirm; decided within seconds.
        in_outbox: Messages and ends of attempts that wait to be told to the first store.
    """

    is_away: bool
    error: str
    in_second: int
    undecided: int
    in_outbox: int


def state(engine: Engine) -> FallbackState | None:
    """How it stands with the two stores of `engine`, None where it is a single one. Asks both.

    Raises:
        TransientError: the second store cannot be reached.
    """
    if not isinstance(engine, FallbackEngine):
        return None
    error = engine.circuit.error
    if not error:
        try:
            engine.first.probe()
        except TransientError as reason:
            error = str(reason)
    in_second, undecided = engine.second.counts()
    return FallbackState(bool(error), error, in_second, undecided, outbox.waiting())
