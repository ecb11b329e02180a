"""A leased message on its way through a worker."""

from typing import TYPE_CHECKING, Any

from dramatiq.broker import MessageProxy

from brokers.engine import Claim, Finish, Held

if TYPE_CHECKING:
    from datetime import timedelta

    import dramatiq


class LeasedMessage(MessageProxy):
    """A dramatiq message with its lease, and with the decision on what follows once its actor has run.

    The message's own attributes are copied: each is read many times in a run, and the proxy looks them up by name.
    """

    def __init__(self, message: "dramatiq.Message[Any]", claim: Claim) -> None:
        super().__init__(message)
        self.queue_name = message.queue_name
        self.actor_name = message.actor_name
        self.args = message.args
        self.kwargs = message.kwargs
        self.options = message.options
        self.message_id = message.message_id
        self.claim = claim
        self.finish: Finish | None = None
        self.result: tuple[bytes, timedelta] | None = None
        self.stop_requested = False
        self.began_at = 0.0

    @property
    def held(self) -> Held:
        """The lease, as heartbeats and releases name it."""
        return Held(self.claim.message_id, self.claim.queue, self.claim.token)

    def log_facts(self) -> dict[str, str]:
        """What identifies this run in a log line."""
        facts = {"message_id": self.message_id, "actor": self.actor_name}
        if (job_id := self.options.get("job_id")) is not None:
            facts["job_id"] = job_id
        return facts

    # A lease is itself and no other, whatever its message says.
    __eq__ = object.__eq__
    __hash__ = object.__hash__
