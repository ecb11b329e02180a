"""The table `organizations`: who contacts, campaigns and jobs belong to."""

from uuid import UUID

from core.clock import uuid7
from core.errors import PermanentError
from db.pool import transaction

DEFAULT_ID = UUID("00000000-0000-7000-8000-000000000000")
"""The organisation of an installation that serves only one; a fixed id, so that two first uses make one row."""

DEFAULT_NAME = "Default"


def default() -> UUID:
    """The id of the organisation called "Default", which the first call makes. Idempotent, also at the same moment."""
    with transaction() as current:
        current.execute(
            "insert into organizations (id, name) values (%s, %s) on conflict (id) do nothing",
            (DEFAULT_ID, DEFAULT_NAME),
        )
    return DEFAULT_ID


def named(name: str, *, create: bool = False) -> UUID:
    """The id of the organisation called `name`, made where there is none and `create` is set.

    Raises:
        PermanentError: `organization_unknown`, without `create`; `organization_ambiguous` where two have that name.
    """
    if name == DEFAULT_NAME:
        return default()
    with transaction() as current:
        if create:  # names need not be unique, so a lock keeps two first uses from making two
            current.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"organization:{name}",))
        found = current.execute("select id from organizations where name = %s limit 2", (name,)).fetchall()
        if not found and create:
            found = [(uuid7(),)]
            current.execute("insert into organizations (id, name) values (%s, %s)", (found[0][0], name))
    if not found:
        message = f"There is no organisation called {name!r}. `fanfare contacts import --organization` makes one."
        raise PermanentError(message, code="organization_unknown")
    if len(found) > 1:
        raise PermanentError(f"Two organisations are called {name!r}.", code="organization_ambiguous")
    return UUID(str(found[0][0]))
