"""Steering a campaign from outside: the change in the ledger and the message that makes workers act, both or neither.

See `db.campaign_control` for what each command does, its arguments and its errors; `pause`, which needs no message,
is there only.
"""

from uuid import UUID

from db import campaign_control, campaign_plan, campaigns, pool
from db.campaign_state import Steered
from pipelines.campaign import dispatch_campaign, plan_campaign
from providers.outcomes import TABLE, ProviderAction

PERMANENT = frozenset(
    {"message_too_long", "template_variable_missing", "number_id_invalid"}
    | {
        row.code
        for row in TABLE.values()
        if row.action in {ProviderAction.PERMANENT, ProviderAction.SUPPRESS_RECIPIENT}
    }
)
"""Causes of a failure that another try meets again."""


def resume(campaign_id: UUID, *, version: int | None = None) -> Steered:
    """Let a paused campaign go on, also its planning."""
    with pool.transaction():
        steered = campaign_control.resume(campaign_id, version=version)
        if steered.changed:
            _go_on(campaign_id)
    return steered


def cancel(campaign_id: UUID, reason: str = "", *, version: int | None = None) -> Steered:
    """Let no further send begin, for good; a worker ends the campaign once nothing is being sent."""
    with pool.transaction():
        steered = campaign_control.cancel(campaign_id, reason, version=version)
        if steered.changed:
            _dispatch([campaign_id])
    return steered


def change_rate(campaign_id: UUID, rate: float | None, *, version: int | None = None) -> Steered:
    """Give a campaign another limit of its own."""
    with pool.transaction():
        steered = campaign_control.change_rate(campaign_id, rate, version=version)
        if steered.changed:
            _dispatch(campaign_control.running_on(campaigns.get(campaign_id).sender))
    return steered


def change_sender_rate(sender_id: UUID, rate: float | None) -> bool:
    """Give a number another limit, obeyed by all campaigns that run on it; returns whether anything changed."""
    with pool.transaction():
        number = campaign_control.change_sender_rate(sender_id, rate)
        if number is not None:
            _dispatch(campaign_control.running_on(number))
    return number is not None


def retry_failed(campaign_id: UUID, *, permanent_too: bool = False, version: int | None = None) -> Steered:
    """Try failed recipients again; `permanent_too` also those whose cause will hardly pass."""
    with pool.transaction():
        leave = () if permanent_too else PERMANENT
        steered = campaign_control.retry_failed(campaign_id, leave=leave, version=version)
        if steered.changed and steered.status == "running":
            _go_on(campaign_id)
    return steered


def _go_on(campaign_id: UUID) -> None:
    if not campaign_plan.is_planned(campaign_id):
        plan_campaign.send(campaign_id=str(campaign_id))
    _dispatch([campaign_id])


def _dispatch(campaign_ids: list[UUID]) -> None:
    for campaign_id in campaign_ids:
        dispatch_campaign.send(campaign_id=str(campaign_id))
