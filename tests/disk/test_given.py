"""A refusal counts in any worker as in one process: who had the page last is told to all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from retter.breaker import State
from retter.disk.given import NOTE_BYTES, SAME_S
from retter.proxy.withdrawals import DOUBT_S, Withdrawals
from retter.store.record import GIVEN_TO, OTHERS_AT
from tests.support.disk_of_workers import Crew, Worker
from tests.support.heads import response_head as response
from tests.support.stores import request, who

PAGE = request(target=b"/page")
EDITOR, READER = 7, 8


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    made = Crew(tmp_path / "store", monkeypatch)
    yield made
    made.close()


def gets(worker: Worker, client: int, body: bytes = b"body") -> None:
    """Let a client get the page, which is committed at once."""
    now = worker.clock.now
    assert worker.store.put(who(PAGE), PAGE, response(), body, now, now, client=client)
    worker.shelf.flush()


def reads(worker: Worker) -> None:
    """Copy the page from the database to memory, as for a request."""
    key = who(PAGE).key
    if worker.shelf.is_slow(key):
        assert worker.shelf.load([key], lambda found: None)
    found = worker.shelf.behind.fetch(key, worker.clock.now)
    assert found is not None
    worker.store.shelves.promote(key, found)


def is_refused(worker: Worker, client: int) -> bool:
    """Let the application refuse the page; return whether that has withdrawn it."""
    store, identity, now = worker.store, who(PAGE), worker.clock.now
    reads(worker)
    judge = Withdrawals(store, now - 1.0)
    judge.confirmed = 100  # no mass refusals
    return judge.refused(identity, 404, State.CLOSED, client, now)


def test_the_only_client_that_had_the_page_is_believed_in_another_worker(crew: Crew) -> None:
    first, second = crew.workers
    gets(first, EDITOR)
    crew.clock.now += 1.0
    assert is_refused(second, EDITOR)
    second.shelf.flush()
    assert not first.has(PAGE) and not second.has(PAGE)


def test_a_page_that_another_client_had_stays_in_doubt_there(crew: Crew) -> None:
    first, second = crew.workers
    gets(first, READER)
    crew.clock.now += 1.0
    assert not is_refused(second, EDITOR)
    assert second.has(PAGE) and first.has(PAGE)


def test_who_else_had_it_before_is_known_there_too(crew: Crew) -> None:
    first, second = crew.workers
    gets(first, READER, b"one")
    crew.clock.now += 1.0
    gets(first, EDITOR, b"two")
    assert not is_refused(second, EDITOR)


def test_a_client_that_comes_to_both_workers_is_one(crew: Crew) -> None:
    first, second = crew.workers
    gets(first, EDITOR)
    crew.clock.now += 1.0
    reads(second)
    gets(second, EDITOR, b"body")
    crew.clock.now += 1.0
    assert is_refused(second, EDITOR)


def test_what_is_not_known_counts_as_another_client(crew: Crew) -> None:
    first, second = crew.workers
    gets(first, EDITOR)
    for part in crew.shared.given:
        part[:] = bytes(part.nbytes)
    crew.clock.now += 1.0
    assert not is_refused(second, EDITOR)
    crew.clock.now += DOUBT_S
    assert is_refused(second, EDITOR)


def test_a_note_of_another_response_or_half_a_note_is_none(crew: Crew) -> None:
    first, second = crew.workers
    gets(first, EDITOR)
    key = who(PAGE).key
    assert second.shelf.load([key], lambda found: None)
    found = second.shelf.behind.fetch(key, crew.clock.now)
    assert found is not None
    (given,) = found.slot
    assert given[GIVEN_TO] == EDITOR
    known = second.shelf._given.known
    unknown = (*given[:GIVEN_TO], 0, 0.0, *given[OTHERS_AT + 1 :])
    assert known(key, (unknown,))[0][GIVEN_TO] == EDITOR
    assert known(key + b"x", (unknown,))[0][GIVEN_TO] == 0
    crew.clock.now += 10 * SAME_S
    later = second.shelf._read_slot(key, second.shelf._database.slot_key(key), crew.clock.now)
    assert later is not None and later.variants[0][GIVEN_TO] == EDITOR, "its time is the same"
    part = crew.shared.given[0]
    for at in range(0, part.nbytes - NOTE_BYTES, NOTE_BYTES):
        part[at + 8] ^= 1
    assert known(key, (unknown,))[0][GIVEN_TO] == 0
