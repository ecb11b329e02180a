"""How many dead letters are kept, and for how long. Nothing goes without a line in the log."""

from datetime import timedelta
from typing import TYPE_CHECKING

from core.clock import now
from core.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from brokers.engine import DeadLetter, Engine

log = get_logger(__name__)

PAGE = 500


def trim_dead_letters(engine: "Engine", *, keep: int, keep_for: timedelta | None = None) -> int:
    """Discard the oldest dead letters of each queue beyond `keep`, and those older than `keep_for`; returns how many.

    Safe to repeat and to interrupt. What is discarded is counted by queue in the log.
    """
    oldest = None if keep_for is None else now() - keep_for

    def is_over(rank: int, letter: "DeadLetter") -> bool:
        return rank >= keep or (oldest is not None and letter.died_at < oldest)

    return sum(_trim(engine, depth.queue, is_over) for depth in engine.depths() if depth.dead)


def _trim(engine: "Engine", queue: str, is_over: "Callable[[int, DeadLetter], bool]") -> int:
    over: list[str] = []
    rank, before = 0, None
    while page := engine.dead_letters(queue, limit=PAGE, before=before):
        over += [letter.message_id for rank_, letter in enumerate(page, rank) if is_over(rank_, letter)]
        rank, before = rank + len(page), page[-1].died_at
    discarded = sum(engine.discard(over[first : first + PAGE]) for first in range(0, len(over), PAGE))
    if discarded:
        log.warning("dead_letters.discarded", queue=queue, count=discarded)
    return discarded
