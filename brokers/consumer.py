"""Feeds a worker: claims messages for all its queues in batches and ends them in batches."""

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ActorNotFound, DecodeError
from dramatiq.message import Message

from brokers.engine import Claim, ClaimRequest, Disposition, Finish
from brokers.leases import Leases
from brokers.message import LeasedMessage
from brokers.middleware.outcomes import decide
from brokers.work_queue import WorkQueue
from core.errors import FanfareError, TransientError
from core.logging import get_logger

if TYPE_CHECKING:
    from brokers.broker import EngineBroker

log = get_logger(__name__)

MAX_HELD = 1000
BUFFERED_S = 0.05
"""A process has about as many messages waiting as it works off in this time, so that others find work too."""
LOOK_EVERY_S = 5.0
"""An idle worker looks after this time though nobody woke it: a wake-up is lost with a process that dies of it."""
STORE_DOWN_PAUSE_S = 1.0
STOPPED_PAUSE_S = 0.02


class EngineConsumer(Consumer):
    """dramatiq's view of an engine. Iterating never ends; None means that there was nothing for `timeout`.

    Args:
        broker: Whose messages.
        queues: Tells the queues to serve now, each with its bound on concurrency.
        prefetch: Messages held at least, if there are so many.
        timeout: Longest wait for a message.
    """

    def __init__(
        self,
        broker: "EngineBroker",
        queues: Callable[[], Mapping[str, int | None]],
        prefetch: int,
        timeout: timedelta,
    ) -> None:
        self._broker = broker
        self._engine = broker.engine
        self._queues = queues
        self._prefetch = prefetch
        self._timeout = timeout
        self._leases = Leases(broker.engine, broker.lease)
        self._buffer: deque[LeasedMessage] = deque()
        self._request: ClaimRequest | None = None
        self._idle_until = 0.0
        self._stopped = False

    def __next__(self) -> MessageProxy | None:
        if self._buffer:
            return self._buffer.popleft()
        if self._stopped:
            time.sleep(STOPPED_PAUSE_S)
            return None
        if time.monotonic() < self._idle_until:
            self._wait()
            return None
        capacity = max(self._prefetch, min(MAX_HELD, int(self._leases.rate * BUFFERED_S)))
        enough = capacity - capacity // 4
        if not self._leases.has_room(enough):
            self._leases.wait_for_room(enough, self._timeout.total_seconds())
            return None
        self._fetch(capacity - self._leases.unfinished)
        return self._buffer.popleft() if self._buffer else None

    def _fetch(self, room: int) -> None:
        # A request whose reply was lost is repeated as it was, so that what it leased is not stranded.
        request = self._request or ClaimRequest(str(uuid.uuid4()), self._queues(), room, self._broker.lease)
        try:
            self._request = request
            claims = self._engine.claim(request)
            self._request = None
            if claims:
                self._take(claims)
            else:
                self._idle_until = time.monotonic() + LOOK_EVERY_S
        except TransientError as error:
            log.warning("claim.failed", error=str(error))
            time.sleep(STORE_DOWN_PAUSE_S)

    def _wait(self) -> None:
        try:
            if self._engine.wait(self._timeout):
                self._idle_until = 0.0
        except TransientError as error:
            self._idle_until = 0.0
            log.warning("claim.failed", error=str(error))
            time.sleep(STORE_DOWN_PAUSE_S)

    def _take(self, claims: list[Claim]) -> None:
        messages = [self._decode(claim) for claim in claims]
        self._leases.add(messages)
        for message in messages:
            if message.failed:
                self.nack(message)
        runnable = [message for message in messages if not message.failed]
        worker = self._broker.worker
        if self._stopped:
            self._leases.release(runnable)
        elif worker is not None and isinstance(worker.work_queue, WorkQueue):
            # dramatiq's thread would take them one by one, with several steps for each.
            worker.work_queue.put_many(runnable)
        else:
            self._buffer.extend(runnable)

    def _decode(self, claim: Claim) -> LeasedMessage:
        """The message of a claim. One that cannot be read, or that no actor here can run, is dead by itself."""
        try:
            message = LeasedMessage(Message.decode(claim.body), claim)
            self._broker.get_actor(message.actor_name)
        except DecodeError:
            unreadable: Message[object] = Message(claim.queue, "?", (), {}, {}, claim.message_id)
            return self._quarantine(LeasedMessage(unreadable, claim), "undecodable", "The message is not JSON of ours.")
        except ActorNotFound as error:
            text = f"No actor named {error} is declared in this worker; requeue the message where it is."
            return self._quarantine(message, "unknown_actor", text)
        return message

    @staticmethod
    def _quarantine(message: LeasedMessage, code: str, error: str) -> LeasedMessage:
        claim = message.claim
        message.finish = Finish(claim.message_id, claim.queue, claim.token, Disposition.DEAD, code=code, error=error)
        message.fail()
        return message

    def ack(self, message: LeasedMessage) -> None:
        """End the attempt as decided by `Outcomes`; one without a decision failed in a middleware, and is retried."""
        if message.finish is None:
            undecided = FanfareError("A middleware failed before the outcome was decided.", code="undecided")
            message.finish = decide(self._broker, message, None, undecided)
        self._leases.finish(message)

    nack = ack

    def requeue(self, messages: Iterable[LeasedMessage]) -> None:
        """Hand messages back that did not begin."""
        self._leases.release(messages)

    def stop_fetching(self) -> None:
        """Claim no more and hand back what is buffered; what runs goes on."""
        self._stopped = True
        self._engine.wake()
        unstarted = list(self._buffer)
        self._buffer.clear()
        self._leases.release(unstarted)

    def close(self) -> None:
        """Apply what is decided and stop."""
        self.stop_fetching()
        self._leases.close()
        self._broker.consumers.discard(self)
