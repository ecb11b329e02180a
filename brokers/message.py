"""A leased message on its way through a worker."""

from typing import TYPE_CHECKING, Any

from dramatiq.broker import MessageProxy

from brokers.engine import Claim, Finish, Held

if TYPE_CHECKING:
    from datetime import timedelta

    import dramatiq


class LeasedMessage(MessageProxy):
    """A dramatiq message with its lease, and with the decision on what follows once its actor has run.

    dramatiq's worker keeps prefetched messages in a priority queue; they order themselves as the store does.
    """

    def __init__(self, message: "dramatiq.Message[Any]", claim: Claim) -> None:
        super().__init__(message)
        self.claim = claim
        self.finish: Finish | None = None
        self.result: tuple[bytes, timedelta] | None = None
        self.stop_requested = False

    @property
    def held(self) -> Held:
        """The lease, as heartbeats and releases name it."""
        return Held(self.claim.message_id, self.claim.queue, self.claim.token)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, LeasedMessage):
            return NotImplemented
        return (self.claim.priority, self.claim.order) < (other.claim.priority, other.claim.order)

    __hash__ = object.__hash__
