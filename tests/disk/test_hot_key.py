"""Pages on disk that are read again and again: each read finds what is there now, or nothing."""

from collections.abc import Generator
from pathlib import Path

import pytest

from retter.disk.hot_key import READS_PER_COPY
from retter.disk.shelf import DiskShelf
from retter.store.record import BODY, SUPERSEDED
from retter.store.write_behind import Batch, Found, Removals, Written
from tests.disk.pages import NOW, WALL, batch
from tests.support.disk import Clock, open_at

KEY = b"*a.b/page"
BODY_BYTES = 12_000
FIRST, SECOND = [word * (BODY_BYTES // 8) for word in (b"1st page", b"2nd page")]


def commit(shelf: DiskShelf, pages: dict[str, bytes], removals: Removals | None = None) -> None:
    """Write to the database as another worker does: this one's shelf knows nothing of it."""
    shelf._database.commit(batch(pages, removals), [], NOW, WALL)


def read(shelf: DiskShelf) -> bytes | None:
    found = shelf.behind.fetch(KEY, NOW)
    return None if found is None else found.slot[0][BODY]


@pytest.fixture
def shelf(tmp_path: Path) -> Generator[DiskShelf, None, None]:
    """One whose page is remembered, with its place in the map."""
    shelf = open_at(tmp_path, Clock(NOW))
    shelf.behind.changed(KEY, batch({"/page": FIRST}).slots[KEY].slot, (), NOW)
    shelf.flush()
    assert [read(shelf) for _ in range(4)] == [FIRST] * 4
    assert shelf.hot[KEY].place.nbytes == BODY_BYTES
    yield shelf
    shelf.close()


def test_a_page_that_another_worker_has_changed_is_the_new_one(shelf: DiskShelf) -> None:
    commit(shelf, {"/page": SECOND})
    assert [read(shelf) for _ in range(4)] == [SECOND] * 4


def test_a_page_that_another_worker_has_removed_is_gone(shelf: DiskShelf) -> None:
    commit(shelf, {}, Removals(keys={KEY}))
    assert read(shelf) is None


def test_a_page_whose_place_others_have_taken_is_found_where_it_is_now(shelf: DiskShelf) -> None:
    """With each commit LMDB writes to pages that earlier ones have left."""
    for number in range(40):
        commit(shelf, {"/page": FIRST + b"%d" % number, f"/{number % 3}": b"%d" % number * 9000})
        assert [read(shelf) for _ in range(2)] == [FIRST + b"%d" % number] * 2
        shelf._database.commit(
            Batch(Removals(), {b"*a.b/0": Written((), ())}), [], NOW, WALL + number
        )
        assert read(shelf) == FIRST + b"%d" % number


def test_rot_that_comes_after_the_first_reads_is_found(shelf: DiskShelf) -> None:
    with open(Path(shelf.path, "data.mdb"), "r+b") as file:
        data = file.read()
        file.seek(data.index(FIRST) + 5000)
        file.write(b"rot")
    assert read(shelf) is None
    assert shelf.figures.damaged == 1
    shelf.flush()
    assert shelf.stats()["entries"] == 0, "it is removed"


def test_a_page_that_is_removed_here_is_gone_at_once(shelf: DiskShelf) -> None:
    """The commit comes later; meanwhile the database still has it."""
    shelf.behind.withdrawn(KEY, NOW)
    assert read(shelf) is None
    shelf.flush()
    assert read(shelf) is None


def test_a_page_that_is_superseded_here_is_marked_at_once(shelf: DiskShelf) -> None:
    shelf.behind.supersede(KEY, NOW)
    found = shelf.behind.fetch(KEY, NOW)
    assert found is not None
    assert found.slot[0][SUPERSEDED], "it is superseded"


def test_a_closed_shelf_has_nothing(tmp_path: Path) -> None:
    """Its map is gone, and with it the place of the page."""
    shelf = open_at(tmp_path, Clock(NOW))
    shelf.behind.changed(KEY, batch({"/page": FIRST}).slots[KEY].slot, (), NOW)
    shelf.flush()
    assert [read(shelf) for _ in range(4)] == [FIRST] * 4
    shelf.close()
    assert read(shelf) is None
    assert not (tmp_path / "broken").exists(), "the next process can use it"
    shelf = open_at(tmp_path, Clock(NOW))
    assert not shelf.set_aside
    shelf.close()


def test_each_copy_to_memory_takes_eight_times_the_reads_of_the_one_before(
    shelf: DiskShelf,
) -> None:
    """Who is evicted before it was read again is one of many that are read by turns."""
    copied: list[int] = []
    for number in range(5, READS_PER_COPY**3 + 1):
        found: Found | None = shelf.behind.fetch(KEY, NOW)
        assert found is not None
        if found.often:
            copied.append(number)
    assert copied == [READS_PER_COPY, READS_PER_COPY**2, READS_PER_COPY**3]


def test_reads_are_all_timed(shelf: DiskShelf) -> None:
    before = shelf.figures.reads
    for _ in range(5):
        read(shelf)
    assert shelf.figures.reads == before + 5
    assert sum(shelf.figures.held.counts) == shelf.figures.reads
