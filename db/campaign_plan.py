"""Writes a campaign's recipients to the ledger: inside the database, in chunks, resumable."""

from uuid import UUID

from psycopg.rows import dict_row
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from db import pool
from db.campaigns import Audience

PLAN_CHUNK = 5_000
"""Recipients planned in one transaction."""


def plan_next_chunk(campaign_id: UUID, *, size: int = PLAN_CHUNK) -> int:
    """Write the next `size` recipients as deliveries; returns how many, 0 when the campaign is planned to its end.

    A recipient who lacks a variable's value or a phone number becomes a skipped delivery with its reason. The place
    reached is stored with the rows, so a planner that was killed goes on exactly there.
    """
    with pool.transaction() as connection, connection.cursor(row_factory=dict_row) as cursor:
        plan = cursor.execute(
            """
            select c.organization_id, c.plan_cursor, c.planned_at, c.audience, c.variables, c.defaults, n.total
            from campaigns c join campaign_counts n on n.campaign_id = c.id
            where c.id = %s for update of c
            """,
            (campaign_id,),
        ).fetchone()
        if plan is None or plan["planned_at"] is not None:
            return 0
        audience = Audience.model_validate(plan["audience"])
        if audience.limit is not None:
            size = min(size, audience.limit - plan["total"])
        planned = cursor.execute(
            _PLAN.format(audience=_AUDIENCES[audience.kind]),
            {
                "campaign_id": campaign_id,
                "organization_id": plan["organization_id"],
                "cursor": plan["plan_cursor"],
                "size": size,
                "variables": plan["variables"],
                "defaults": Jsonb(plan["defaults"]),
                **audience.model_dump(include={"tag", "import_id"}),
                "ids": list(audience.ids),
            },
        ).fetchone()
        count, last = (planned["count"], planned["last"]) if planned else (0, None)
        cursor.execute(
            """
            update campaigns set plan_cursor = coalesce(%s, plan_cursor), planned_at = case when %s then now() end
            where id = %s
            """,
            (last, count < size or size == 0, campaign_id),
        )
    return int(count)


_AUDIENCES: dict[str, SQL] = {
    "all": SQL("true"),
    "tag": SQL("tags @> array[%(tag)s]"),
    "import": SQL("import_id = %(import_id)s"),
    "contacts": SQL("id = any(%(ids)s)"),
}

_PLAN = SQL("""
with chunk as materialized (
    select id, phone, email, name, custom from contacts
    where organization_id = %(organization_id)s and (%(cursor)s::uuid is null or id > %(cursor)s::uuid) and {audience}
    order by id limit %(size)s
), personal as materialized (
    select id, coalesce(phone, '') as recipient,
           coalesce((
               select jsonb_object_agg(v.name, coalesce(
                   nullif(case v.name when 'name' then chunk.name when 'phone' then chunk.phone
                                      when 'email' then chunk.email else chunk.custom ->> v.name end, ''),
                   %(defaults)s::jsonb ->> v.name))
               from unnest(%(variables)s::text[]) as v(name)
           ), '{{}}') as parameters
    from chunk
), judged as (
    select *, case
        when recipient = '' then 'no_phone'
        else (select 'missing_variable:' || p.key from jsonb_each(parameters) p where p.value = 'null' limit 1)
    end as reason
    from personal
), inserted as (
    insert into deliveries (id, campaign_id, organization_id, contact_id, recipient, parameters, status, code,
                            settled_at)
    select gen_random_uuid(), %(campaign_id)s, %(organization_id)s, id, recipient, parameters,
           case when reason is null then 'pending' else 'skipped' end, reason,
           case when reason is not null then now() end
    from judged
    on conflict (campaign_id, contact_id) do nothing
)
select count(*)::bigint as count, (select id from chunk order by id desc limit 1) as last from chunk
""")


def is_planned(campaign_id: UUID) -> bool:
    """Whether all recipients have been written."""
    with pool.connection() as connection:
        row = connection.execute(
            "select planned_at is not null from campaigns where id = %s", (campaign_id,)
        ).fetchone()
    return row is not None and bool(row[0])
