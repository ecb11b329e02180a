"""Leases of two stores: whose they are, and claims from both by priority."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from brokers.engine import Claim, ClaimRequest, Engine, Finish, Held

MARK = "s"
"""First letter of the tokens of the second store; both stores' own tokens are numbers."""

EPOCH_S = 1_735_689_600
TICKS_A_SECOND = 100_000
"""`Claim.order` is seconds of Unix time in Postgres, and in Redis ticks since 2025."""

LeaseT = TypeVar("LeaseT", Finish, Held)


def is_second(lease: Claim | Finish | Held) -> bool:
    """Whether the lease is of the second store."""
    return lease.token.startswith(MARK)


def marked(claims: Sequence[Claim]) -> list[Claim]:
    """Claims of the second store, recognisable as such and ordered as the first's are."""
    return [replace(c, token=MARK + c.token, order=(c.order - EPOCH_S) * TICKS_A_SECOND) for c in claims]


def unmarked(lease: LeaseT) -> LeaseT:
    """A lease as the second store knows it."""
    return replace(lease, token=lease.token.removeprefix(MARK))


def split(held: Sequence[Held]) -> tuple[list[Held], list[Held]]:
    """Leases of the first store, and of the second as it knows them."""
    return [h for h in held if not is_second(h)], [unmarked(h) for h in held if is_second(h)]


def both(
    claim_first: Callable[[ClaimRequest], list[Claim]], first: Engine, second: Engine, request: ClaimRequest
) -> list[Claim]:
    """Claim from both stores; what is too much goes back, so that the rest is what comes first over both."""
    from_second = marked(second.claim(left(request, first)))
    from_first = claim_first(left(request, second))
    ordered = sorted([*from_first, *from_second], key=lambda claim: (claim.priority, claim.order))
    surplus = [Held(c.message_id, c.queue, c.token) for c in ordered[request.room :]]
    of_first, of_second = split(surplus)
    if of_first:
        first.release_many(of_first)
    if of_second:
        second.release_many(of_second)
    return ordered[: request.room]


def left(request: ClaimRequest, other: Engine) -> ClaimRequest:
    """`request` with bounds that count the leases of the other store."""
    bounded = [queue for queue, bound in request.queues.items() if bound is not None]
    if not bounded:
        return request
    leased = {depth.queue: depth.leased for depth in other.depths(bounded)}
    queues = {
        queue: bound if bound is None else max(0, bound - leased.get(queue, 0))
        for queue, bound in request.queues.items()
    }
    return replace(request, queues=queues)
