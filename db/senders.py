"""The table `senders`: numbers that messages are sent from, each with the rate that its provider allows."""

from uuid import UUID

from core.clock import uuid7
from db.pool import transaction


def register(organization_id: UUID, provider_id: str, *, rate: float | None) -> UUID:
    """The id of the sender, made with `rate` where it is new; one that is there keeps its rate. Idempotent.

    Args:
        organization_id: Whose number it is.
        provider_id: What the provider calls the number: WhatsApp's phone number id.
        rate: Messages a second, may be fractional; None for no limit.
    """
    with transaction() as current:
        current.execute(
            """
            insert into senders (id, organization_id, provider_id, rate) values (%s, %s, %s, %s)
            on conflict (organization_id, channel, provider_id) do nothing
            """,
            (uuid7(), organization_id, provider_id, rate),
        )
        row = current.execute(
            "select id from senders where organization_id = %s and channel = 'whatsapp' and provider_id = %s",
            (organization_id, provider_id),
        ).fetchone()
    if row is None:
        message = f"The sender {provider_id} went away while it was registered."
        raise LookupError(message)
    return UUID(str(row[0]))
