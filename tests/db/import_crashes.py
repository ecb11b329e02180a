"""Dies at every exchange with the database that an import makes, before it and after it; prints what came of it.

Run by `test_import_crashes.py` as a process of its own, with DATABASE_URL set. Every run is a fork that ends by
`os._exit`, as hard as SIGKILL: no `finally`, no rollback, no goodbye to the server.
"""

import io
import itertools
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from uuid import UUID

import psycopg

from core.clock import uuid7
from db import imports, pool
from db.import_run import run
from domain.contact import ImportOptions

ROWS = 15  # two batches
FILE = "phone,name\n" + "".join(f"+1415555{n:04},N{n}\n" for n in range(2000, 2000 + ROWS - 3))
FILE += "+14155552000,again\n+14155552005,again\nnonsense,x\n"
EXPECTED = {"inserted": ROWS - 3 - 5, "updated": 5, "duplicate": 2, "invalid": 1}


def forked(work: Callable[[], object]) -> int:
    """Run `work` in a fork; its exit status is 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare(organization_id: UUID, import_id: UUID) -> None:
    """An organisation with five of the contacts, and the import, with an id that is known beforehand."""
    with pool.transaction() as connection:
        connection.execute("insert into organizations (id, name) values (%s, 'Acme')", [organization_id])
    options = ImportOptions(update_existing=True)
    first = FILE.splitlines(keepends=True)[:6]
    run(imports.accept(organization_id, io.BytesIO("".join(first).encode()), "first.csv"))
    imports.uuid7 = lambda: import_id  # type: ignore[attr-defined]  # the id is known before it dies
    imports.accept(organization_id, io.BytesIO(FILE.encode()), "all.csv", options)


def run_and_die(import_id: UUID, at: int, *, is_before: bool) -> None:
    """Run the import, but end this process before or after its exchange number `at` with the server."""
    with pool.connection() as connection:  # opens the pool, so that only the import's exchanges are counted
        connection.execute("select 1")
    numbers = itertools.count(1)
    wait = psycopg.Connection.wait

    def counted(self, *args, **options) -> object:
        number = next(numbers)
        if is_before and number == at:
            os._exit(9)
        result = wait(self, *args, **options)
        if not is_before and number == at:
            os._exit(9)
        return result

    psycopg.Connection.wait = counted  # type: ignore[method-assign, assignment]  # every exchange passes here
    run(import_id)


def check(organization_id: UUID, import_id: UUID) -> None:
    """Run the import to its end and compare every count with the rows."""
    summary = run(import_id)
    assert {key: summary[key] for key in EXPECTED} == EXPECTED, summary
    with pool.connection() as connection:
        query = "select count(*), count(distinct phone) from contacts where organization_id = %s"
        assert connection.execute(query, [organization_id]).fetchone() == (ROWS - 3, ROWS - 3)
        query = "select count(*) from import_errors where import_id = %s"
        assert connection.execute(query, [import_id]).fetchone() == (3,)


def main() -> None:
    """Every crash point in turn, until a run comes to its end because the point lies behind it."""
    crashes = {True: 0, False: 0}
    for is_before in crashes:
        for at in itertools.count(1):
            organization_id, import_id = uuid7(), uuid7()
            assert forked(partial(prepare, organization_id, import_id)) == 0
            status = forked(partial(run_and_die, import_id, at, is_before=is_before))
            assert status in {0, 9}, status
            assert forked(partial(check, organization_id, import_id)) == 0, (is_before, at)
            if status == 0:
                break
            crashes[is_before] += 1
    json.dump({"before": crashes[True], "after": crashes[False]}, sys.stdout)


if __name__ == "__main__":
    main()
