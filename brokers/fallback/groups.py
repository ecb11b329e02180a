"""In which store each group of this process lives. All members of a group must be where the group is counted."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from brokers.engine import Envelope

MAX_GROUPS = 10_000


@dataclass(slots=True)
class _Home:
    size: int
    is_second: bool


class Groups:
    """Groups that this process announced, the newest `MAX_GROUPS`."""

    def __init__(self) -> None:
        self._homes: OrderedDict[str, _Home] = OrderedDict()
        self.any_in_second = False

    def announced(self, group_id: str, size: int, *, in_second: bool) -> None:
        """A group now lives in a store."""
        self._homes[group_id] = _Home(size, in_second)
        self.any_in_second |= in_second
        while len(self._homes) > MAX_GROUPS:
            self._homes.popitem(last=False)

    def in_second(self, envelopes: Sequence[Envelope]) -> list[Envelope]:
        """Members of groups that live in the second store."""
        return [e for e in envelopes if e.group_id and (home := self._homes.get(e.group_id)) and home.is_second]

    def sizes(self, envelopes: Sequence[Envelope]) -> dict[str, int]:
        """Sizes of the groups of which all members are among `envelopes`: those can be counted in another store."""
        members = Counter(e.group_id for e in envelopes if e.group_id)
        return {g: n for g, n in members.items() if (home := self._homes.get(g)) and home.size == n}
