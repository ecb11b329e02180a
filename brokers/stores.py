"""What an engine must do so that two of them can work together: as a fallback, and in a live move between them.

Further clauses of the contract in `brokers/engine.py`, see `docs/broker-contract.md`.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from brokers.engine import Engine


@dataclass(frozen=True, slots=True)
class Stored:
    """A message that no worker holds, with all that a store knows of it.

    Attributes:
        due: When it arrived, or becomes due: its place in line.
        died_at: Set where it is a dead letter, for the reason `code` and `error`.
        attempts: How many there were.
        lost: How many of its leases expired.
        group_id: Its group.
        group_left: The group has counted it already.
    """

    message_id: str
    queue: str
    priority: int
    body: bytes
    due: datetime
    died_at: datetime | None = None
    attempts: int = 0
    lost: int = 0
    code: str = ""
    error: str = ""
    group_id: str | None = None
    group_left: bool = False


class Store(Engine):
    """An engine whose messages can be looked for, withdrawn and moved. Errors as in `Engine`."""

    @abstractmethod
    def probe(self) -> None:
        """Return if messages can be stored now, raise TransientError otherwise."""

    @abstractmethod
    def revoke(self, message_ids: Sequence[str], groups: Sequence[str]) -> None:
        """Remove messages in whatever state, uncounted by their groups, and these groups; they live elsewhere."""

    @abstractmethod
    def identity(self) -> str:
        """Names the store itself, by whatever address it is reached."""

    @abstractmethod
    def list_idle(self, cursor: str, limit: int) -> tuple[list[tuple[str, str | None]], str]:
        """Some messages that no worker holds, each with the group that will count it, and the cursor for the next call.

        The first cursor is "", after the last call it is "" again. A message that stays is listed at least once.
        """

    @abstractmethod
    def take_out(self, batch_id: str, message_ids: Sequence[str], lease: timedelta) -> list[Stored]:
        """Set messages aside for a move: nobody runs them. Those that workers hold stay, and groups not given whole.

        Repeated, it returns the same. After `lease` without `forget`, `reap` brings them back as they were.
        """

    @abstractmethod
    def forget(self, batch_id: str) -> bool:
        """Remove what was set aside, for good. True when it is gone, now or before; False when it was brought back.

        The answer stays the same for a week.
        """

    @abstractmethod
    def put_in(self, batch_id: str, stored: Sequence[Stored]) -> int:
        """Store messages as they were elsewhere: time, attempts, group, cause of death. Returns how many were new.

        A batch is put in once, however often it is repeated within a week, also when its messages have ended since.
        """
