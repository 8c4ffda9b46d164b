"""A list of what all workers have stored: each page once, the newest first."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.disk import page_answers, page_list
from retter.disk.page_answers import Near, Row, Wanted, unpacked
from retter.disk.page_list import KEPT_S, LIST_S, LISTS_MAX, Listing, Order
from retter.disk.purge_answers import ALIVE_S, GATHER_S
from retter.http.message import RequestHead
from tests.support.disk import Immediately, Later
from tests.support.disk_of_workers import TICK_S, Crew, Worker
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, BOB, put, request, who

ROWS = 50


def page(number: int, cookie: Any = None) -> RequestHead:
    target = b"/page/%d" % number
    return request(target=target) if cookie is None else request(cookie, target=target)


def store(
    worker: Worker, asked: RequestHead, body: bytes = b"body", *fields: tuple[bytes, bytes]
) -> None:
    """Store a page, a second after what was stored before."""
    worker.clock.now += 1
    now = worker.clock.now
    assert put(worker.store, asked, response(*fields), body, now, now)


def forget(worker: Worker, asked: RequestHead) -> None:
    worker.store.shelves.remove_key(who(asked).key)


def asks(
    crew: Crew, wanted: Wanted | None = None, skip: int = 0, rows: int = ROWS
) -> list[Listing]:
    """Ask the first worker; return what it gets, when it comes."""
    told: list[Listing] = []
    crew.beat()
    crew.workers[0].shelf.list_pages(wanted or Wanted(), skip, rows, told.append)
    return told


def ask(crew: Crew, wanted: Wanted | None = None, skip: int = 0, rows: int = ROWS) -> Listing:
    told = asks(crew, wanted, skip, rows)
    crew.tick()
    (listing,) = told
    return listing


def urls(listing: Listing) -> list[str]:
    return [row.url.removeprefix("a.b/page/") for row in listing.rows]


@pytest.fixture
def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """Pages 0 to 3 are in the database: 0 in no memory, 1 near each worker, 2 and 3 near one.

    Page 4 is near both and not committed, page 5 near the second one.
    """
    made = Crew(tmp_path / "store", monkeypatch)
    first, second = made.workers
    for worker, number in ((first, 0), (first, 1), (second, 1), (first, 2), (second, 3)):
        store(worker, page(number))
    first.shelf.flush()
    second.shelf.flush()
    forget(first, page(0))
    for worker in (first, second):
        store(worker, page(4))
    store(second, page(5))
    yield made
    made.close()


def test_each_page_of_any_worker_stands_there_once_and_the_newest_first(crew: Crew) -> None:
    found = ask(crew)
    assert urls(found) == ["5", "4", "3", "2", "1", "0"]
    assert found[1:] == (6, 6, None, True)
    crew.workers[1].shelf.flush()
    crew.workers[0].shelf.flush()
    assert ask(crew) == found, "wherever it is"


def test_no_answer_of_a_worker_is_in_the_database_twice(crew: Crew) -> None:
    """What one has committed while it was asked counts once."""
    told = asks(crew)
    crew.workers[1].shelf.flush()
    crew.tick()
    assert urls(told[0]) == ["5", "4", "3", "2", "1", "0"]


def test_a_page_is_as_old_as_its_newest_version(crew: Crew) -> None:
    first, second = crew.workers
    store(second, page(3))  # unchanged, so it is not written again
    second.shelf.flush()
    assert urls(ask(crew))[0] == "3"
    store(first, page(3), b"another")
    found = ask(crew)
    assert (urls(found)[0], found.rows[0].size) == ("3", 7)
    first.shelf.flush()
    assert ask(crew).rows[0].size == 7, "and not that of the second one"
    assert found.rows[0].stored_at == pytest.approx(crew.clock.wall(), abs=2)


def test_filters_hold_near_the_workers_and_in_the_database(crew: Crew) -> None:
    first, second = crew.workers
    for worker, number, cookie in ((first, 0, ALICE), (second, 0, BOB), (second, 9, ALICE)):
        store(worker, page(number, cookie))
    first.shelf.flush()
    forget(first, page(0, ALICE))
    everyone, private = ask(crew, Wanted(private=False)), ask(crew, Wanted(private=True))
    assert [row.private for row in everyone.rows] == [False] * 6
    assert (urls(private), [row.private for row in private.rows]) == (["9", "0", "0"], [True] * 3)
    assert urls(ask(crew, Wanted(b"page/0"))) == ["0", "0", "0"]
    assert urls(ask(crew, Wanted(b"page/0", private=False))) == ["0"]
    nothing = ask(crew, Wanted(b"none"))
    assert nothing == ([], 9, 9, None, True)
    assert not any(word in str(private) for word in ("alice", "bob", "session"))


def test_parts_follow_each_other(crew: Crew) -> None:
    first = ask(crew, rows=4)
    assert (urls(first), first.next) == (["5", "4", "3", "2"], 4)
    second = ask(crew, skip=4, rows=4)
    assert (urls(second), second.next) == (["1", "0"], None)
    assert ask(crew, skip=6).rows == []


def test_what_is_written_between_two_parts_keeps_its_place(crew: Crew) -> None:
    second = crew.workers[1]
    parts = urls(ask(crew, rows=2))
    crew.clock.wall_offset -= 20  # so much that the times of the writes are in another order
    second.shelf.flush()
    crew.clock.wall_offset += 20
    for number in (4, 5):
        forget(second, page(number))
    store(second, page(6))
    parts += urls(ask(crew, skip=2, rows=2)) + urls(ask(crew, skip=4, rows=2))
    assert parts == ["5", "4", "3", "2", "1", "0"]
    assert urls(ask(crew))[0] == "6"


def test_a_later_part_goes_through_the_database_once(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks: list[object] = []
    slots = crew.database.packed_slots

    def walked() -> Any:
        walks.append(1)
        return slots()

    monkeypatch.setattr(crew.database, "packed_slots", walked)
    for skip in (0, 2, 4):
        ask(crew, skip=skip, rows=2)
    assert len(walks) == 1
    ask(crew)
    assert len(walks) == 2, "who asks from the beginning wants what is there now"
    crew.clock.now += KEPT_S
    crew.tick()
    assert urls(ask(crew, skip=2, rows=2)) == ["3", "2"]
    assert len(walks) == 3, "it was kept for a minute"
    for number in range(LISTS_MAX + 1):
        ask(crew, Wanted(b"%d" % number))
    ask(crew, skip=2)
    assert len(walks) == 3 + LISTS_MAX + 2, "only a few are kept"


def test_what_is_removed_is_not_listed_before_its_commit(crew: Crew) -> None:
    first, second = crew.workers
    first.shelf._writer = second.shelf._writer = Later()
    first.store.invalidation.purge(url=b"a.b/page/0")
    second.store.invalidation.purge(url=b"a.b/page/2")
    second.shelf.behind.supersede(who(page(1)).key, crew.clock.now)
    for worker in crew.workers:
        forget(worker, page(1))
    told = asks(crew)
    crew.tick()
    assert urls(told[0]) == ["5", "4", "3", "1"]
    assert [row.superseded for row in told[0].rows] == [False, False, False, True]


def test_a_page_that_is_never_written_is_listed(crew: Crew) -> None:
    second = crew.workers[1]
    store(second, page(7), b"", (b"cache-control", b"no-store"))
    second.shelf.flush()
    crew.tick()
    found = ask(crew)
    assert urls(found)[0] == "7"
    assert found.of == 7


def test_a_worker_that_does_not_answer_makes_it_incomplete(crew: Crew) -> None:
    told = asks(crew)
    crew.tick(0)
    assert told == [], "it may answer yet"
    crew.tick(0, count=int(GATHER_S / TICK_S))
    (found,) = told
    assert (urls(found), found.complete) == (["4", "3", "2", "1", "0"], False)
    crew.tick()
    assert len(told) == 1


def test_a_worker_that_has_ended_is_not_asked(crew: Crew) -> None:
    crew.clock.now += ALIVE_S
    told: list[Listing] = []
    crew.workers[0].shelf.list_pages(Wanted(), 0, ROWS, told.append)
    crew.tick(0, count=1)
    assert urls(told[0]) == ["4", "3", "2", "1", "0"] and told[0].complete


def test_any_worker_may_be_asked_and_both_at_once(crew: Crew) -> None:
    told: list[Listing] = []
    crew.beat()
    for worker in crew.workers:
        worker.shelf.list_pages(Wanted(), 0, ROWS, told.append)
    crew.tick()
    assert [urls(found) for found in told] == [["5", "4", "3", "2", "1", "0"]] * 2


def test_a_worker_with_more_pages_of_its_own_than_it_tells_says_so(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_answers, "ROWS_MAX", 2)
    monkeypatch.setattr(page_answers, "ALONE_MAX", 2)
    found = ask(crew)
    assert (urls(found), found.complete) == (["5", "4", "3", "2", "1", "0"], True)
    for number in (6, 7, 8):
        store(crew.workers[1], page(number))
    found = ask(crew)
    assert urls(found) == ["8", "7", "4", "3", "2", "1", "0"]
    assert (found.of, found.complete) == (4 + 5, False)


def test_rows_for_which_a_message_has_no_room_are_left_out() -> None:
    row = Row(1.0, "a.b/" + "x" * 900, False, 200, 4, 1, False, False)
    near = Near({bytes([number]) * 32: row for number in range(100)}, 0, {b"a" * 32}, 3)
    packed = near.packed(20_000)
    assert 19_000 < len(packed) <= 20_000
    told = unpacked(packed)
    assert 15 < len(told.rows) < 20 and told[1:] == near[1:]
    assert told.complete and not told._replace(wanted=30).complete


def test_a_large_store_is_looked_through_in_slices(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_list, "SLICE_ENTRIES", 2)
    first = crew.workers[0]
    later = Later()
    first.shelf._pages._source = first.shelf._pages._source._replace(writer=later)
    told = asks(crew)
    assert later.work() == 2, "a slice, and what is near"
    crew.tick()
    assert later.work() == 1 and told == []
    assert len(later.jobs) == 1, "a commit that came meanwhile would be next"
    crew.clock.now += LIST_S
    crew.tick()
    assert told == [([], 4, 4, 0, True)], "so far it has come"
    while later.work():
        pass
    again = asks(crew)
    while later.work() or not again:
        crew.tick(count=1)
    assert urls(again[0]) == ["5", "4", "3", "2", "1", "0"], "and now it is there"
    assert again[0][1:] == (6, 6, None, True)
    assert len(told) == 1


def test_a_broken_database_leaves_what_is_near_the_workers(crew: Crew) -> None:
    for worker in crew.workers:
        worker.shelf.leave("it is broken")
    found = ask(crew)
    assert (urls(found), found.of) == (["5", "4", "3", "2", "1"], 5)


def test_a_read_that_fails_ends_the_list(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(crew.database, "slot_without_bodies", fails)
        assert ask(crew).complete is False
    with monkeypatch.context() as broken:
        broken.setattr(page_list, "newest_of_packed", fails)
        assert urls(ask(crew)) == ["5", "4", "3", "2", "1"]
    assert ask(crew).complete


def test_only_the_newest_of_very_many_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_list, "LISTED_MAX", 10)
    monkeypatch.setattr(page_list, "RUN_ENTRIES", 4)
    monkeypatch.setattr(
        page_list, "newest_of_packed", lambda data: (b"*a/", float(int.from_bytes(data)))
    )
    numbers = [number * 7 % 100 for number in range(100)]
    order = Order(Wanted(), iter([(bytes([one]) * 32, bytes([one])) for one in numbers]))
    order.go_on(lambda: 0.0)
    assert order.is_whole and order.looked_through == 100
    assert [key[0] for key in order.newest()][:10] == list(range(99, 89, -1))
    assert order._length <= 2 * 10 + 4


def test_a_question_waits_for_the_commits_before_it(crew: Crew) -> None:
    """What a thread is about to write is in the database when the worker answers."""
    second, later = crew.workers[1], Later()
    second.shelf._writer = later
    second.shelf._pages._source = second.shelf._pages._source._replace(writer=later)
    crew.clock.now += 10
    second.shelf.tick(crew.clock.now)
    assert len(later.jobs) == 1, "a commit"
    told = asks(crew)
    crew.tick(1, count=1)
    assert later.work() == 2
    crew.tick()
    assert urls(told[0]) == ["5", "4", "3", "2", "1", "0"] and told[0].of == 6
    second.shelf._writer = Immediately()
