"""Importing contacts on a real database (JOB-04, OPT-10)."""

import csv
import io
import json
import random
import threading
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from core.errors import Cancelled, NotYet, PermanentError
from db import imports, jobs, pool
from db.import_run import run
from domain.contact import ImportOptions

DATA = Path(__file__).parents[1] / "data"
SAMPLE = DATA / "contacts_10k.csv"
EXPECTED = json.loads((DATA / "contacts_10k.expected.json").read_text())


def imported(organization: UUID, text: str | bytes, **options) -> dict[str, object]:
    return run(accepted(organization, text, **options))


def accepted(organization: UUID, text: str | bytes, **options) -> UUID:
    content = text.encode() if isinstance(text, str) else text
    return imports.accept(organization, io.BytesIO(content), "a.csv", ImportOptions(**options))


def contacts(organization: UUID) -> list[dict[str, object]]:
    with pool.connection() as connection, connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        query = "select phone, email, name, tags, custom from contacts where organization_id = %s order by phone, email"
        return cursor.execute(query, [organization]).fetchall()


def report(organization: UUID, import_id: UUID) -> list[dict[str, str]]:
    text = b"".join(imports.error_report(organization, import_id)).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def assert_sample_is_imported(summary: dict[str, object], organization: UUID) -> None:
    assert summary == {
        "status": "partial_success",
        "rows": EXPECTED["rows"],
        "inserted": EXPECTED["valid"],
        "updated": 0,
        "duplicate": EXPECTED["duplicate"],
        "invalid": EXPECTED["invalid_phone"] + EXPECTED["invalid_email"] + EXPECTED["missing_contact"],
        "errors_by_reason": {key: EXPECTED[key] for key in ("invalid_phone", "invalid_email", "missing_contact")},
    }
    assert len(contacts(organization)) == EXPECTED["valid"]


def test_sample_gives_exactly_the_expected_counts(organization):
    seen: list[tuple[int, int]] = []
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    summary = run(import_id, lambda done, total: seen.append((done, total)))
    assert_sample_is_imported(summary, organization)
    assert seen[-1][0] == EXPECTED["rows"]
    assert len(seen) >= 20  # OPT-10
    job = jobs.get(organization, import_id)
    assert job is not None
    assert (job.progress_current, job.progress_total) == (EXPECTED["rows"], EXPECTED["rows"])


def test_error_report_names_line_column_value_and_reason_of_every_row_left_out(organization):
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    run(import_id)
    rows = report(organization, import_id)
    assert len(rows) == EXPECTED["rows"] - EXPECTED["valid"]
    lines = SAMPLE.read_bytes().decode("utf-8-sig").split("\n")
    for row in rows:
        value = row["value"].removeprefix("'")
        if row["reason"] in {"invalid_phone", "invalid_email"}:
            begin = int(row["line"]) - 1  # the record may go on in the next line
            assert value in "".join(lines[begin : begin + 2]), row
    assert {row["reason"] for row in rows} == {"invalid_phone", "invalid_email", "missing_contact", "duplicate"}


def test_completed_import_keeps_no_copy_of_the_file_and_a_second_run_only_reports(organization):
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    summary = run(import_id)
    with pool.connection() as connection:
        assert connection.execute("select count(*) from import_chunks").fetchone() == (0,)
    assert run(import_id) == summary


def test_importing_the_sample_again_finds_only_duplicates(organization):
    run(imports.accept(organization, SAMPLE, "contacts_10k.csv"))
    again = run(imports.accept(organization, SAMPLE, "contacts_10k.csv"))
    assert (again["inserted"], again["updated"]) == (0, 0)
    assert again["duplicate"] == EXPECTED["valid"] + EXPECTED["duplicate"]


def test_update_existing_updates_each_contact_once_and_counts_the_file_s_own_duplicates(organization):
    run(imports.accept(organization, SAMPLE, "contacts_10k.csv"))
    again = run(imports.accept(organization, SAMPLE, "contacts_10k.csv", ImportOptions(update_existing=True)))
    assert (again["inserted"], again["updated"]) == (0, EXPECTED["valid"])
    assert again["duplicate"] == EXPECTED["duplicate"]


def test_update_existing_changes_what_the_row_has_and_removes_nothing(organization):
    imported(organization, "phone,name,email,tags,city,plan\n+14155552671,Ann,a@example.com,vip,Rome,gold\n")
    summary = imported(
        organization,
        "phone,name,email,tags,city,plan\n+14155552671,,b@example.com,new|vip,Oslo,\n+1 415 555 2671,Late,,,,\n",
        update_existing=True,
    )
    assert (summary["inserted"], summary["updated"], summary["duplicate"]) == (0, 1, 1)
    assert contacts(organization) == [
        {
            "phone": "+14155552671",
            "email": "b@example.com",
            "name": "Ann",
            "tags": ["vip", "new"],
            "custom": {"city": "Oslo", "plan": "gold"},
        }
    ]


def test_update_existing_does_not_update_what_the_same_file_inserted(organization):
    summary = imported(organization, "phone,name\n+14155552671,Ann\n+14155552671,Bob\n", update_existing=True)
    assert (summary["inserted"], summary["updated"], summary["duplicate"]) == (1, 0, 1)
    assert contacts(organization)[0]["name"] == "Ann"


def test_contact_without_phone_is_its_email_address_in_any_case(organization):
    text = "phone,email,name\n,Ann@Example.com,Ann\n,ann@example.com,Same\n+14155552671,ann@example.com,Other\n"
    summary = imported(organization, text)
    assert (summary["inserted"], summary["duplicate"]) == (2, 1)
    updated = imported(organization, "email,name\nANN@example.com,Anna\n", update_existing=True)
    assert updated["updated"] == 1
    assert [row["name"] for row in contacts(organization) if row["phone"] is None] == ["Anna"]


def test_duplicates_that_must_not_be_skipped_count_as_failures(organization):
    text = "phone\n+14155552671\n+14155552671\n"
    assert imported(organization, text)["status"] == "completed"
    assert imported(organization, text, skip_duplicates=False)["status"] == "partial_failure"


def test_phone_is_not_checked_against_the_numbering_plan_when_that_is_switched_off(organization):
    assert imported(organization, "phone\n+15555555555\n")["errors_by_reason"] == {"invalid_phone": 1}
    assert imported(organization, "phone\n+15555555555\n", validate_phone=False)["inserted"] == 1


def test_default_region_of_the_settings_is_used_where_the_options_have_none(organization, settings_env, database):
    settings_env(DATABASE_URL=database, DEFAULT_REGION="DE")
    imported(organization, "phone\n0151 23456789\n")
    assert contacts(organization)[0]["phone"] == "+4915123456789"


def test_organizations_do_not_see_each_other(organization, database):
    other = UUID(int=7)
    with psycopg.connect(database) as connection:
        connection.execute("insert into organizations (id, name) values (%s, 'Other')", [other])
    import_id = accepted(organization, "phone\n+14155552671\nx\n")
    run(import_id)
    assert imported(other, "phone\n+14155552671\n")["inserted"] == 1
    assert imports.find(other, import_id) is None
    assert report(other, import_id) == []
    assert len(report(organization, import_id)) == 1


def test_error_report_holds_no_formula(organization):
    import_id = accepted(organization, 'phone\n"=HYPERLINK(""http://x"")"\n+1\n @cmd\n')
    run(import_id)
    assert [row["value"] for row in report(organization, import_id)] == ['\'=HYPERLINK("http://x")', "'+1", "'@cmd"]


def test_same_idempotency_key_is_the_same_import(organization):
    first, second = (
        imports.accept(organization, io.BytesIO(b"phone\n+14155552671\n"), "a.csv", idempotency_key="k") for _ in "ab"
    )
    assert first == second
    with pool.connection() as connection:
        assert connection.execute("select count(*) from import_chunks").fetchone() == (1,)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "import_empty"),
        (b"PK\x03\x04whatever", "import_not_text"),
        (b"colour,size\nred,4\n", "import_no_contact_column"),
        (b"phone" + b",x" * 1000, "import_too_many_columns"),
    ],
)
def test_file_that_cannot_be_imported_is_refused_at_once_and_leaves_nothing(organization, content, code):
    with pytest.raises(PermanentError) as caught:
        accepted(organization, content)
    assert caught.value.code == code
    with pool.connection() as connection:
        assert connection.execute("select count(*) from jobs").fetchone() == (0,)


def test_file_over_the_limit_is_refused(organization, settings_env, database):
    settings_env(DATABASE_URL=database, IMPORT_MAX_BYTES="1000")
    with pytest.raises(PermanentError, match="IMPORT_MAX_BYTES"):
        accepted(organization, "phone\n" + "+14155552671\n" * 100)


def test_rows_before_an_unreadable_record_are_kept_and_the_error_names_its_line(organization):
    good = "".join(f"+1415555{n:04}\n" for n in range(2000, 2100))
    import_id = accepted(organization, f"phone\n{good}" + "x" * 1_200_000 + "\n+14155559999\n")
    for _ in range(2):  # the second run goes on at the same place
        with pytest.raises(PermanentError, match="line 102 ") as caught:
            run(import_id)
        assert caught.value.code == "import_record_too_long"
    done = imports.load(import_id).records_done
    assert done == len(contacts(organization)) > 0


def test_cancelled_job_stops_at_the_next_batch(organization):
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    with pytest.raises(Cancelled):
        run(import_id, lambda _done, _total: jobs.finish(import_id, "cancelled") and None)
    stored = imports.load(import_id)
    assert 0 < stored.records_done < EXPECTED["rows"]
    assert stored.inserted == len(contacts(organization))


def test_run_that_died_between_two_batches_is_taken_up_where_it_ended(organization):
    """The oracle for a crash: whatever batch it dies after, the sums are those of the whole file."""
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    batches = random.Random(4).sample(range(1, 5), 3)
    for survive in batches:
        left = iter(range(survive))

        def die(_done: int, _total: int, left=left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(import_id, die)
    assert 0 < imports.load(import_id).records_done < EXPECTED["rows"]
    assert_sample_is_imported(run(import_id), organization)


def test_two_workers_on_one_import_do_not_double_a_row(organization):
    import_id = imports.accept(organization, SAMPLE, "contacts_10k.csv")
    outcomes: list[object] = []

    def work() -> None:
        try:
            outcomes.append(run(import_id))
        except NotYet as error:
            outcomes.append(error.code)

    in_parallel(work, work, work)
    assert all(outcome == "import_taken_over" or isinstance(outcome, dict) for outcome in outcomes), outcomes
    assert_sample_is_imported(run(import_id), organization)


@pytest.mark.parametrize("update_existing", [False, True])
def test_imports_of_the_same_people_at_the_same_time_neither_deadlock_nor_double(organization, update_existing):
    lines = [f"+1415555{n:04},Name {n}\n" for n in range(2000, 5000)]
    if update_existing:
        imported(organization, "phone,name\n" + "".join(lines[:1500]))
    orders = [lines, lines[::-1], random.Random(3).sample(lines, len(lines))]
    ids = [accepted(organization, "phone,name\n" + "".join(o), update_existing=update_existing) for o in orders]
    results: list[dict[str, object]] = []
    in_parallel(*[lambda import_id=import_id: results.append(run(import_id)) for import_id in ids])
    assert len(results) == 3
    assert len(contacts(organization)) == 3000
    assert sum(r["inserted"] for r in results) == (1500 if update_existing else 3000)
    assert all(r["inserted"] + r["updated"] + r["duplicate"] == 3000 for r in results)


def in_parallel(*functions) -> None:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
