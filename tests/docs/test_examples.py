"""The Python on the pages runs, from the copy of the project that a reader has: RUN-11, RUN-12, X-07."""

import signal
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.db.campaign_data import add_contacts, rows
from tests.docs.pages import files_of, python_pages, script_of

README = Path("README.md")
JOB_FILE = "actors/order_remind.py"
CUSTOMERS = 12


@pytest.fixture
def example(checkout):
    """A checkout with the README's job type in it, and nothing else changed."""
    assert list(files_of(README)) == [JOB_FILE]
    checkout.write(JOB_FILE, files_of(README)[JOB_FILE])
    return checkout


def send_and_wait(checkout):
    """The result of a job of the example's type."""
    script = """
        from core.clock import uuid7
        from actors.order_remind import remind_of_order
        print(remind_of_order.send(order_id=uuid7()).get_result(block=True, timeout=20_000))
    """
    return checkout.run("-c", "\n".join(map(str.strip, script.splitlines())))


def test_a_new_job_type_is_one_new_file(example):
    """RUN-11: workers run it, and the registry, from which the pages are made, has it with its options."""
    example.start_worker()
    assert send_and_wait(example).startswith("reminded of ")
    example.run("-m", "docs.generate")
    page = (example.folder / "docs/jobs.md").read_text()
    assert "[`orders.remind`](#ordersremind) | `reminders` | LOW | 5 | 2 s, 4 s, 8 s, 16 s | 30 s | any | 10 |" in page
    assert "Remind the customer of an order." in page


def test_sighup_loads_changed_code(example):
    """RUN-12, as far as it needs no further package; `dramatiq --watch` sends the same signal."""
    worker = example.start_worker()
    assert send_and_wait(example).startswith("reminded of ")
    example.write(JOB_FILE, files_of(README)[JOB_FILE].replace("reminded of", "changed for"))
    worker.send_signal(signal.SIGHUP)
    wait_until(lambda: example.log().count("is booting up") == 2, "the worker does not start anew")
    assert send_and_wait(example).startswith("changed for ")
    assert worker.poll() is None


@pytest.mark.parametrize("page", python_pages(), ids=str)
def test_the_code_on_a_page_runs(example, page):
    for path, code in files_of(page).items():
        example.write(path, code)
    example.start_worker()
    example.run("-c", script_of(page))


def test_the_readme_s_campaign_reaches_everyone(example, organization, simulator):
    script = "from uuid import UUID\n" + script_of(README)
    script = script.replace("organizations.default()", f"UUID('{organization}')")
    add_contacts(organization, CUSTOMERS, tags=["customers"], name="Ada")
    add_contacts(organization, 3)
    example.start_worker()
    assert example.run("-c", script).startswith("reminded of ")
    wait_until(lambda: rows("select status from campaigns") == [("completed",)], "the campaign does not end")
    sent = [arrival for arrival in simulator.arrivals() if arrival.accepted]
    assert {arrival.content["body"] for arrival in sent} == {"Hi Ada, your order is on its way."}
    assert len({arrival.recipient for arrival in sent}) == len(sent) == CUSTOMERS
