"""Dead letters are kept by count and by age (OPT-09); one message for one key (OPT-07)."""

from datetime import timedelta

import dramatiq
import pytest

from brokers.retention import trim_dead_letters
from tests.e2e.stack import until


@pytest.fixture
def dead_letters(broker, start_worker):
    @dramatiq.actor(queue_name="q", max_retries=0)
    def fail(n):
        raise ValueError(n)

    start_worker(worker_threads=1)
    for n in range(7):
        fail.send(n)
    return until(lambda: len(found := broker.engine.dead_letters("q")) == 7 and found, 10, "seven dead letters")


def test_the_oldest_beyond_the_count_are_discarded(broker, dead_letters):
    assert trim_dead_letters(broker.engine, keep=3) == 4
    kept = broker.engine.dead_letters("q")
    assert [letter.message_id for letter in kept] == [letter.message_id for letter in dead_letters[:3]]
    assert trim_dead_letters(broker.engine, keep=3) == 0


def test_age_alone_discards_nothing_young(broker, dead_letters):
    assert trim_dead_letters(broker.engine, keep=1000, keep_for=timedelta(days=1)) == 0
    assert trim_dead_letters(broker.engine, keep=1000, keep_for=timedelta()) == 7


def test_messages_with_one_key_are_one_message(broker, start_worker):
    seen = []

    @dramatiq.actor(queue_name="q")
    def note(n):
        seen.append(n)

    sent = [note.send_with_options(args=(n,), deduplication_key="daily report") for n in range(3)]
    other = note.send_with_options(args=(9,), deduplication_key="weekly report")
    assert len({message.message_id for message in sent}) == 1
    assert broker.engine.depths(["q"])[0].waiting == 2
    start_worker(worker_threads=1)
    until(lambda: len(seen) == 2, 10, "two run")
    broker.join("q", timeout=5000)
    assert sorted(seen) == [0, 9]
    assert other.message_id != sent[0].message_id
