"""The table `contacts`: saving many at once.

A contact is its phone number; one without a phone is its e-mail address, in any case of letters.
"""

from collections.abc import Sequence
from typing import LiteralString, NamedTuple
from uuid import UUID

import orjson
from psycopg.types.json import Json

from core.clock import uuid7
from db.pool import transaction
from domain.contact import Contact

# One JSON parameter and one statement per batch. A temporary table filled by COPY would need three statements and leave
# something behind in the session, which a transaction pooler gives to others.
_ROWS: LiteralString = """
    json_to_recordset(%(rows)s) as r(line bigint, id uuid, phone text, email text, name text, tags text[], custom jsonb)
"""

# Ordered by key, so that two transactions with some contacts in common never wait for each other in a circle; then by
# line, so that the first of two rows with one key is the one that goes in.
_INSERT: LiteralString = f"""
    with rows as materialized (select * from {_ROWS}), inserted as (
        insert into contacts (id, organization_id, phone, email, name, tags, custom, import_id)
        select id, %(organization_id)s, phone, email, name, tags, custom, %(import_id)s
        from rows order by phone, lower(email), line
        on conflict do nothing
        returning id
    )
    select line from rows where id not in (select id from inserted)
"""  # noqa: S608  # made of the constant above

# Contacts that this import has written already are its own, from an earlier row: those rows are duplicates within the
# file. Locks are taken in the order of ids; no row waits for an insert here, so this cannot close a circle either.
_UPDATE: LiteralString = f"""
    with rows as (
        select distinct on (r.phone, case when r.phone is null then lower(r.email) end) r.*
        from {_ROWS}
        order by r.phone, case when r.phone is null then lower(r.email) end, r.line
    ), matched as (
        select c.id, rows.line from rows join contacts c
        on c.organization_id = %(organization_id)s and c.phone = rows.phone
        union all
        select c.id, rows.line from rows join contacts c
        on c.organization_id = %(organization_id)s and c.phone is null and lower(c.email) = lower(rows.email)
        where rows.phone is null
    ), locked as (
        select c.id, matched.line from contacts c join matched using (id)
        where c.import_id is distinct from %(import_id)s
        order by c.id for no key update of c
    )
    update contacts c
    set name = coalesce(nullif(rows.name, ''), c.name),
        email = coalesce(rows.email, c.email),
        tags = c.tags || array(select tag from unnest(rows.tags) as tag where tag <> all (c.tags)),
        custom = c.custom || rows.custom,
        import_id = %(import_id)s,
        updated_at = now()
    from locked join rows using (line)
    where c.id = locked.id
    returning locked.line
"""  # noqa: S608  # made of the constant above


class Saved(NamedTuple):
    """What became of a batch: the contact rows in it are `inserted` + `updated` + the number of `duplicates`.

    Attributes:
        inserted: New contacts.
        updated: Contacts that were there before this import and have been changed.
        duplicates: Lines of the rows whose contact is there already.
    """

    inserted: int
    updated: int
    duplicates: frozenset[int]


def save(organization_id: UUID, import_id: UUID, contacts: Sequence[Contact], *, update_existing: bool) -> Saved:
    """Insert the contacts that are new and, with `update_existing`, update those that were there before this import.

    An update replaces name and e-mail where the row has them, adds tags and custom fields, and never removes anything.
    Of several rows with one key the first counts. In the caller's transaction; safe beside other imports.
    """
    if not contacts:
        return Saved(0, 0, frozenset())
    rows: list[dict[str, object]] = [
        {"line": line, "id": uuid7(), "phone": phone, "email": email, "name": name, "tags": tags, "custom": custom}
        for line, phone, email, name, tags, custom in contacts
    ]
    scope = {"organization_id": organization_id, "import_id": import_id}
    with transaction() as current:
        present = {line for (line,) in current.execute(_INSERT, {**scope, "rows": _json(rows)})}
        updated: set[int] = set()
        if present and update_existing:
            again = [row for row in rows if row["line"] in present]
            updated = {line for (line,) in current.execute(_UPDATE, {**scope, "rows": _json(again)})}
    return Saved(len(rows) - len(present), len(updated), frozenset(present - updated))


def _json(rows: list[dict[str, object]]) -> Json:
    return Json(rows, dumps=orjson.dumps)
