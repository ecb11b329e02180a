"""Runs a dramatiq group in one step."""

import uuid
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import dramatiq

    from brokers.broker import EngineBroker
    from brokers.results import EngineResults


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


def results_of(group: "dramatiq.group") -> list[Any]:
    """The results of all members of `group`, in their order, as `group.get_results()` reads one by one.

    Raises:
        dramatiq.results.ResultMissing: a member has no result: it has not ended, or failed.
    """
    backend = cast("EngineResults", group.broker.get_results_backend())
    return backend.get_results(group.children)
