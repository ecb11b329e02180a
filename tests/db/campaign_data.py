"""Contacts, senders and campaigns for tests."""

from uuid import UUID

from psycopg.types.json import Jsonb

from core.clock import uuid7
from db import campaign_plan, campaigns, pool
from db.campaigns import Audience, NewCampaign


def add_contacts(organization_id: UUID, count: int, *, tags: list[str] | None = None, **fields: object) -> list[UUID]:
    """Contacts with phones +15550000000 and up, each with a number of its own in the organisation."""
    ids = [uuid7() for _ in range(count)]
    with pool.transaction() as connection:
        [(first,)] = connection.execute(
            "select count(*) from contacts where organization_id = %s", [organization_id]
        ).fetchall()
        connection.cursor().executemany(
            """
            insert into contacts (id, organization_id, phone, email, name, tags, custom)
            values (%s, %s, %s, %s, %s, %s, %s)
            """,
            [
                (
                    contact_id,
                    organization_id,
                    fields.get("phone", f"+1555{first + i:07d}"),
                    fields.get("email"),
                    fields.get("name", f"Ada {first + i}"),
                    tags or [],
                    Jsonb(fields.get("custom", {})),
                )
                for i, contact_id in enumerate(ids)
            ],
        )
    return ids


def add_sender(organization_id: UUID, *, rate: float | None = None, number: str = "10001") -> UUID:
    sender_id = uuid7()
    with pool.transaction() as connection:
        connection.execute(
            "insert into senders (id, organization_id, provider_id, rate) values (%s, %s, %s, %s)",
            [sender_id, organization_id, number, rate],
        )
    return sender_id


def new_campaign(organization_id: UUID, sender_id: UUID, **changes: object) -> NewCampaign:
    facts: dict = {
        "name": "Spring",
        "content": {"kind": "text", "body": "Hello {{name}}"},
        "variables": ["name"],
        "defaults": {},
        "audience": Audience(),
    }
    return NewCampaign(organization_id=organization_id, sender_id=sender_id, **facts | changes)


def planned(organization_id: UUID, sender_id: UUID, **changes: object) -> UUID:
    """A campaign, accepted and planned to its end."""
    campaign_id = campaigns.accept(new_campaign(organization_id, sender_id, **changes))
    while not campaign_plan.is_planned(campaign_id):
        campaign_plan.plan_next_chunk(campaign_id)
    return campaign_id


def rows(query: str, *parameters: object) -> list:
    with pool.connection() as connection:
        return connection.execute(query, parameters).fetchall()
