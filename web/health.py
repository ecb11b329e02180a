"""Whether this process can do its work: its database and its broker answer, each asked in a thread."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from brokers.choose import make_engine
from brokers.engine import Engine
from core.errors import FanfareError
from core.logging import get_logger
from db import health

log = get_logger(__name__)

WAIT = timedelta(seconds=3)
"""Longest wait for an answer: platforms give up after 4 or 5 s."""

ADVICE = "The web process's log has the cause; `fanfare health` says what to do."


class Readiness:
    """Looks at what the process needs; remembers its engine, and that the migrations were there."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._migrated = False

    def engine(self) -> Engine:
        """The engine, made at the first use. Raises FanfareError where it cannot be."""
        if self._engine is None:
            self._engine = make_engine()
        return self._engine

    async def problems(self) -> dict[str, str]:
        """What is down, by name, for people who may know nothing of the inside; empty when all is well."""
        looks: dict[str, Callable[[], object]] = {"database": self._look_at_database, "broker": self._look_at_broker}
        found = await asyncio.gather(*(self._problem(name, look) for name, look in looks.items()))
        return {name: problem for name, problem in zip(looks, found, strict=True) if problem}

    def _look_at_database(self) -> None:
        health.ping()
        if not self._migrated:
            health.check_migrations()
            self._migrated = True

    def _look_at_broker(self) -> None:
        self.engine().ping()

    async def _problem(self, name: str, look: Callable[[], object]) -> str:
        try:
            await asyncio.wait_for(asyncio.to_thread(look), WAIT.total_seconds())
        except TimeoutError:
            log.warning("health.failed", what=name, error=f"no answer within {WAIT.total_seconds():g} s")
            return f"The {name} does not answer. {ADVICE}"
        except FanfareError as error:
            log.warning("health.failed", what=name, code=error.code, error=str(error))
            if error.code == "database_not_migrated":
                return f"The {name} lacks migrations. Run `fanfare migrate`."
            return f"The {name} cannot be used. {ADVICE}"
        return ""
