"""Runs a dramatiq group in one step."""

import uuid
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import dramatiq

    from brokers.broker import EngineBroker


def fan_out(group: "dramatiq.group") -> str:
    """Run `group` as `group.run()` would, but with all its members stored at once; returns the group's id.

    dramatiq announces the group and then stores one member at a time: a crash in between leaves a group that can never
    complete, and a million members cost a million round trips. Members are messages; each may have an option `delay`
    in milliseconds. The completion callbacks run exactly once, after the last member ended, however it ended.
    """
    broker = cast("EngineBroker", group.broker)
    group_id = str(uuid.uuid4())
    options = {"group_completion_uuid": group_id, "group_completion_callbacks": group.completion_callbacks}
    members: list[dramatiq.Message[Any]] = [member.copy(options=options) for member in group.children]
    broker.create_group(group_id, len(members))
    broker.enqueue_many(members)
    return group_id
