"""What a purge has dropped is counted in memory, on disk and near other workers, each page once."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from retter.disk import purge_answers
from retter.disk.purge_answers import ALIVE_S, GATHER_S
from retter.disk.shelf import COUNT_S, DiskShelf
from retter.http.message import RequestHead
from retter.store.store import ResponseStore
from retter.store.write_behind import COMMIT_EVERY_S
from tests.support.disk import Clock, Lasting, Later
from tests.support.disk_of_workers import TICK_S, Crew
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, BOB, put, request, who

Told = list[tuple[int, bool]]


def page(number: int, cookie: Any = None) -> RequestHead:
    target = b"/page/%d" % number
    return request(target=target) if cookie is None else request(cookie, target=target)


def purge(store: ResponseStore, disk: DiskShelf, **what: Any) -> Told:
    """Purge as the admin listener does; return the list that gets what is told."""
    told: Told = []
    keys: list[bytes] = []
    invalidation = store.invalidation
    owner = what.pop("session", None)
    if owner is not None:
        drop: Any = partial(invalidation.drop_owner, owner.owner, 1.0, owner.marks)
    else:
        drop = partial(invalidation.purge, **what)
    invalidation.dropped = keys
    disk.count(keys, drop, lambda pages, complete: told.append((pages, complete)))
    invalidation.dropped = None
    return told


# One process


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Lasting]:
    """Pages 0 to 5 on disk, of which 3 to 5 in memory too; page 6 in memory alone."""
    lasting = Lasting(tmp_path / "store", Clock())
    for number in range(6):
        store(lasting, page(number))
    lasting.disk.flush()
    lasting.forget()
    for number in range(3, 6):
        lasting.store.shelves.promote(
            who(page(number)).key, lasting.disk.behind.fetch(who(page(number)).key, 1.0) or NONE
        )
    store(lasting, page(6))
    yield lasting
    lasting.disk.close()


NONE: Any = None


def store(lasting: Any, asked: RequestHead) -> None:
    now = lasting.clock.now
    assert put(lasting.store, asked, response(), b"body", now, now)


@pytest.mark.parametrize(
    ("what", "pages"),
    [
        ({}, 7),
        ({"prefix": b"/page/"}, 7),
        ({"prefix": b"/page/1"}, 1),
        ({"url": b"a.b/page/2"}, 1),
        ({"url": b"/page/4"}, 1),
        ({"url": b"/page/6"}, 1),
        ({"url": b"/other"}, 0),
    ],
)
def test_a_page_on_disk_counts_and_one_that_is_in_memory_too_counts_once(
    alone: Lasting, what: Any, pages: int
) -> None:
    told = purge(alone.store, alone.disk, **what)
    assert told == []
    alone.tick()
    assert told == [(pages, True)]
    again = purge(alone.store, alone.disk, **what)
    alone.tick()
    assert again == [(0, True)]
    assert alone.disk.stats()["entries"] == 7 - pages


def test_the_pages_of_a_session_count(alone: Lasting) -> None:
    for number in range(3):
        store(alone, page(number, ALICE))
    alone.disk.flush()
    alone.forget()
    store(alone, page(3, ALICE))
    store(alone, page(3, BOB))
    told = purge(alone.store, alone.disk, session=who(page(0, ALICE)))
    alone.tick()
    assert told == [(4, True)]


def test_two_purges_of_one_batch_count_each_page_for_the_first(alone: Lasting) -> None:
    first = purge(alone.store, alone.disk, prefix=b"/page/1")
    second = purge(alone.store, alone.disk, prefix=b"/page/")
    everything = purge(alone.store, alone.disk)
    alone.tick()
    assert (first, second, everything) == ([(1, True)], [(6, True)], [(0, True)])


def test_a_page_that_waits_for_its_commit_counts_when_memory_has_evicted_it(
    alone: Lasting,
) -> None:
    alone.store.shelves.remove_key(who(page(6)).key)
    told = purge(alone.store, alone.disk, url=b"/page/6")
    alone.tick()
    assert told == [(1, True)]


def test_private_pages_that_are_never_on_disk_count(tmp_path: Path) -> None:
    lasting = Lasting(tmp_path / "store", Clock(), store_private="off")
    store(lasting, page(1, ALICE))
    told = purge(lasting.store, lasting.disk, session=who(page(1, ALICE)))
    lasting.tick()
    assert told == [(1, True)]
    lasting.disk.close()


def test_a_disk_that_is_too_slow_gives_at_least_what_was_in_memory(tmp_path: Path) -> None:
    clock, writer = Clock(), Later()
    lasting = Lasting(tmp_path / "store", clock, writer=writer)
    for number in range(3):
        store(lasting, page(number))
    clock.now += COMMIT_EVERY_S
    lasting.tick()
    writer.work()
    lasting.store.shelves.remove_key(who(page(0)).key)
    told = purge(lasting.store, lasting.disk)
    assert lasting.store.find(who(page(1)), page(1), clock.now) is None, "it holds at once"
    lasting.tick()
    clock.now += COUNT_S - TICK_S
    lasting.tick()
    assert told == []
    clock.now += TICK_S
    lasting.tick()
    assert told == [(2, False)]
    writer.work()
    assert told == [(2, False)], "once"
    lasting.disk.close()


def test_a_disk_that_cannot_be_written_is_tried_again_within_the_time(
    alone: Lasting, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = purge(alone.store, alone.disk)
    with monkeypatch.context() as broken:
        broken.setattr(alone.disk._database, "commit", fails)
        alone.tick()
    assert told == []
    alone.clock.now += COUNT_S
    alone.tick()
    assert told == [(4, False)]


def fails(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_without_a_disk_that_works_memory_is_all_there_is(alone: Lasting) -> None:
    alone.disk.leave("it is broken")
    told = purge(alone.store, alone.disk)
    alone.tick()
    assert told == [(4, True)]


# Several workers


def purge_of(crew: Crew, **what: Any) -> Told:
    """Purge at the first worker."""
    return purge(crew.workers[0].store, crew.workers[0].shelf, **what)


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Pages 0 to 3 are in the database: 0 in no memory, 1 near each worker, 2 and 3 near one.

    Page 4 is near both and not committed, page 5 near the second one.
    """
    made = Crew(tmp_path / "store", monkeypatch)
    first, second = made.workers
    for number in range(4):
        store(first, page(number))
    first.shelf.flush()
    for worker, kept in ((first, (1, 2)), (second, (1, 3))):
        for number in set(range(4)) - set(kept):
            worker.store.shelves.remove_key(who(page(number)).key)
    store(second, page(1))
    store(second, page(3))
    second.shelf.flush()
    for worker in (first, second):
        store(worker, page(4))
    store(second, page(5))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("what", "pages"),
    [
        ({}, 6),
        ({"prefix": b"/page/"}, 6),
        ({"url": b"/page/0"}, 1),
        ({"url": b"/page/1"}, 1),
        ({"url": b"/page/3"}, 1),
        ({"url": b"/page/4"}, 1),
        ({"url": b"/page/5"}, 1),
        ({"url": b"/other"}, 0),
    ],
)
def test_a_page_of_any_worker_counts_once(crew: Crew, what: Any, pages: int) -> None:
    told = purge_of(crew, **what)
    crew.tick()
    assert told == [(pages, True)]
    again = purge_of(crew, **what)
    crew.tick()
    assert again == [(0, True)]


def test_nobody_serves_what_is_purged_while_it_is_counted(crew: Crew) -> None:
    first, second = crew.workers
    assert second.has(page(1)) and second.has(page(5))
    told = purge_of(crew)
    for worker in (first, second):
        assert not any(worker.has(page(number)) for number in range(6))
    crew.tick(0)
    assert told == [(6, True)], "the look-up of the second one has answered"


def test_a_page_of_a_session_counts_wherever_it_is(crew: Crew) -> None:
    first, second = crew.workers
    for worker, number in ((first, 1), (second, 1), (second, 2)):
        store(worker, page(number, ALICE))
    store(second, page(1, BOB))
    told = purge_of(crew, session=who(page(1, ALICE)))
    crew.tick()
    assert told == [(2, True)]


def test_a_worker_that_does_not_answer_makes_it_at_least_so_many(crew: Crew) -> None:
    told = purge_of(crew)
    crew.tick(0)
    assert told == [], "it may answer yet"
    assert crew.workers[0].shelf._database.entries == 4, "the commit waits for it"
    crew.tick(0, count=int(GATHER_S / TICK_S))
    assert told == [(5, False)]
    assert crew.workers[0].shelf._database.entries == 0
    crew.tick()
    assert told == [(5, False)]


def test_a_worker_that_has_ended_is_not_waited_for(crew: Crew) -> None:
    crew.clock.now += ALIVE_S
    told = purge_of(crew)
    crew.tick(0)
    assert told == [(5, True)]


def test_purges_one_after_the_other_do_not_put_the_commit_off(crew: Crew) -> None:
    told: list[Told] = []
    for _ in range(int(GATHER_S / TICK_S) + 2):
        told.append(purge_of(crew))
        crew.tick(0, count=1)
    assert crew.workers[0].shelf._database.entries == 0
    assert told[0] == [(5, False)]


def test_of_two_purges_at_once_each_page_counts_for_the_first(crew: Crew) -> None:
    one, other = purge_of(crew, url=b"/page/5"), purge_of(crew)
    crew.tick()
    assert (one, other) == ([(1, True)], [(5, True)])


def test_a_logout_of_the_same_moment_is_no_purge(crew: Crew) -> None:
    first, second = crew.workers
    store(second, page(9, BOB))
    identity = who(page(9, BOB))
    first.store.invalidation.drop_owner(identity.owner, 1.0, identity.marks)
    told = purge_of(crew, prefix=b"/page/")
    crew.tick()
    assert told == [(6, True)]


def test_a_worker_with_too_many_pages_of_its_own_says_so(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge_answers, "KEYS_MAX", 3)
    second = crew.workers[1]
    second.shelf.behind.forget(who(page(4)).key)
    second.store.shelves.remove_key(who(page(4)).key)
    second.shelf.behind.forget(who(page(4)).key)
    for number in range(10, 14):
        store(second, page(number))
    told = purge_of(crew)
    crew.tick()
    assert told == [(5 + 3, False)]


def test_more_pages_than_a_message_holds_are_told_in_several(crew: Crew) -> None:
    second = crew.workers[1]
    count = crew.shared.answers[0].nbytes // 4 // 32 + 10
    now = crew.clock.now
    for number in range(100, 100 + count):
        second.store.shelves.behind = None
        assert put(second.store, page(number), response(), b"body", now, now)
    second.store.shelves.behind = second.shelf.behind
    told = purge_of(crew)
    crew.tick()
    assert told == [(6 + count, True)]


def test_a_broken_database_leaves_what_is_near_the_workers(crew: Crew) -> None:
    for worker in crew.workers:
        worker.shelf.leave("it is broken")
    told = purge_of(crew)
    crew.tick()
    assert told == [(5, True)], "1 to 5"
