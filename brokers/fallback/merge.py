"""Answers of two stores as one."""

from collections.abc import Sequence

from brokers.engine import DeadLetterGroup, QueueDepth


def depths(answers: Sequence[Sequence[QueueDepth]]) -> list[QueueDepth]:
    """Queues with what they hold in all stores, sorted by name."""
    merged: dict[str, QueueDepth] = {}
    for depth in (depth for answer in answers for depth in answer):
        known = merged.get(depth.queue)
        merged[depth.queue] = depth if known is None else _sum_of_depths(known, depth)
    return sorted(merged.values(), key=lambda depth: depth.queue)


def dead_letter_groups(answers: Sequence[Sequence[DeadLetterGroup]]) -> list[DeadLetterGroup]:
    """Causes of death with their counts in all stores, largest first."""
    merged: dict[tuple[str, str, str], DeadLetterGroup] = {}
    for group in (group for answer in answers for group in answer):
        key = (group.queue, group.actor, group.code)
        known = merged.get(key)
        merged[key] = group if known is None else _sum_of_groups(known, group)
    return sorted(merged.values(), key=lambda group: -group.count)


def _sum_of_depths(one: QueueDepth, other: QueueDepth) -> QueueDepth:
    return QueueDepth(
        queue=one.queue,
        waiting=one.waiting + other.waiting,
        delayed=one.delayed + other.delayed,
        leased=one.leased + other.leased,
        dead=one.dead + other.dead,
        paused=one.paused or other.paused,
        oldest=max((oldest for oldest in (one.oldest, other.oldest) if oldest is not None), default=None),
    )


def _sum_of_groups(one: DeadLetterGroup, other: DeadLetterGroup) -> DeadLetterGroup:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return DeadLetterGroup(one.queue, one.actor, one.code, one.count + other.count, first, last)
