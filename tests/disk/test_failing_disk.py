"""A disk that fails, or is slow."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lmdb
import pytest

from retter.disk.change import NAMES_TRIED_MAX
from retter.disk.database import Database
from retter.disk.environment import Damaged
from retter.store.write_behind import Purge, Removals
from tests.disk.pages import NOW, WALL, batch, bodies, child, no_space, served_from, store_pages
from tests.support.disk import Clock, Later, open_at

FULL = """
import resource, signal, sys
from pathlib import Path
from tests.disk.pages import batch, NOW
from tests.support.disk import Clock, open_at
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clock = Clock(NOW)
shelf = open_at(Path(sys.argv[1]), clock)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))  # the disk is full from here on
for key, waits in batch({f"/{n}": bytes([n]) * 100_000 for n in range(20)}).slots.items():
    shelf.behind.changed(key, waits.slot, (), clock.now)
shelf.tick(clock.now + 10.0)
assert shelf.figures.commit_failures == 1, shelf.stats()
assert not shelf.trouble, "it is tried again"
assert shelf.behind.keys_waiting == 20
found = shelf.behind.fetch(b"*a.b/7", clock.now)
assert found is not None and found.slot[0][2] == bytes([7]) * 100_000, "what is in memory is served"
from retter.store.write_behind import Removals
shelf.behind.drop_owners([b"o" * 16], (), clock.now)
assert shelf.figures.journal_failures == 0, "a logout has its place on the disk already"
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
clock.now += 20.0
shelf.tick(clock.now)
assert shelf.behind.is_clean and shelf.figures.commits == 1, shelf.stats()
"""


def test_a_full_disk_costs_what_is_new_and_no_logout(tmp_path: Path) -> None:
    result = child(FULL, str(tmp_path))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("free", "said"), [(100, "No space left on device"), (10**6, "short")])
def test_a_write_that_a_full_disk_cuts_short_is_called_so(
    tmp_path: Path, monkeypatch: Any, free: int, said: str
) -> None:
    """LMDB calls it an input/output error."""
    database = Database(str(tmp_path), 1 << 20)
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=4096))
    assert said in str(database.failure(lmdb.Error("mdb_txn_commit: short")))
    database.close()


def test_a_write_that_fails_is_done_again(tmp_path: Path, monkeypatch: Any) -> None:
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock)
    pages = batch({"/a": b"a"})
    for key, waits in pages.slots.items():
        shelf.behind.changed(key, waits.slot, (), NOW)
    with monkeypatch.context() as patched:
        patched.setattr(shelf._database, "commit", no_space)
        clock.now += 6.0
        shelf.tick(clock.now)
        assert (shelf.figures.commits, shelf.figures.commit_failures) == (0, 1)
        assert shelf.figures.last_failure == "No space left on device"
        clock.now += 1.0
        shelf.tick(clock.now)
        assert shelf.figures.commit_failures == 1, "not again at once"
    clock.now += 6.0
    shelf.tick(clock.now)
    assert (shelf.figures.commits, shelf.behind.is_clean) == (1, True)
    shelf.close()


@pytest.mark.parametrize("lost", ["lock", "data.mdb", "folder"])
def test_what_goes_into_removed_files_is_not_called_written(tmp_path: Path, lost: str) -> None:
    """As when a backup is put in place of the folder while RETTER runs."""
    clock = Clock(NOW)
    shelf = open_at(tmp_path / "store", clock)
    for number, page in enumerate((b"a", b"b")):
        if number and lost == "folder":
            (tmp_path / "store").rename(tmp_path / "old")
            shutil.copytree(tmp_path / "old", tmp_path / "store")
        elif number:
            (tmp_path / "store" / lost).unlink()
        for key, waits in batch({f"/{number}": page}).slots.items():
            shelf.behind.changed(key, waits.slot, (), clock.now)
        clock.now += 6.0
        shelf.tick(clock.now)
    assert (shelf.figures.commits, shelf.figures.commit_failures) == (1, 1)
    assert shelf.figures.last_failure.startswith("somebody has removed or replaced ")
    for number, page in enumerate((b"a", b"b")):  # those on disk, and those that wait
        found = shelf.behind.fetch(b"*a.b/%d" % number, clock.now)
        assert found is not None and found.slot[0][2] == page
    shelf.close()


def test_a_note_that_fails_is_written_with_the_entries_that_need_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """Else entries would stand beside the rules of others after the next start."""
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock)
    with monkeypatch.context() as patched:
        patched.setattr(shelf._database, "set_notes", no_space)
        shelf.set_note("rules", {"new": True})
    assert shelf.note_of("rules") is None
    for key, waits in batch({"/a": b"a"}).slots.items():
        shelf.behind.changed(key, waits.slot, (), NOW)
    clock.now += 6.0
    shelf.tick(clock.now)
    assert (shelf.figures.commits, shelf.note_of("rules")) == (1, {"new": True})
    assert not shelf._notes
    shelf.close()


def test_what_could_not_be_written_is_dropped_when_another_process_takes_over(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """By the next attempt that process may have emptied the store, because its rules differ."""
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock)
    shelf.set_note("rules", {"old": True})
    for key, waits in batch({"/a": b"a"}).slots.items():
        shelf.behind.changed(key, waits.slot, (), NOW)
    with monkeypatch.context() as patched:
        patched.setattr(shelf._database, "commit", no_space)
        patched.setattr(shelf._database, "set_notes", no_space)
        shelf.set_note("rules", {"old": False})
        clock.now += 6.0
        shelf.tick(clock.now)
    shelf.lend()
    shelf._database.set_notes({"rules": {"of the successor": True}})
    clock.now += 6.0
    shelf.tick(clock.now)
    assert shelf.behind.is_clean and shelf._database.entries == 0
    assert shelf.note_of("rules") == {"of the successor": True}
    shelf.close()


def test_what_fails_while_another_process_takes_over_is_dropped(
    tmp_path: Path, monkeypatch: Any
) -> None:
    clock, writer = Clock(NOW), Later()
    shelf = open_at(tmp_path, clock, writer=writer)
    for key, waits in batch({"/a": b"a"}).slots.items():
        shelf.behind.changed(key, waits.slot, (), NOW)
    clock.now += 6.0
    shelf.tick(clock.now)
    shelf.lend()
    with monkeypatch.context() as patched:
        patched.setattr(shelf._database, "commit", no_space)
        writer.work()
    clock.now += 6.0
    shelf.tick(clock.now)
    writer.work()
    assert shelf.behind.is_clean and shelf._database.entries == 0
    shelf.close()


def test_a_folder_that_is_gone_when_the_successor_has_failed_is_left(
    tmp_path: Path, monkeypatch: Any
) -> None:
    shelf = open_at(tmp_path / "store", Clock(NOW))
    shelf.lend()
    shutil.rmtree(tmp_path / "store")
    shelf.take_back()
    assert not shelf.lent and "journal" in shelf.trouble
    shelf.close()


def test_a_disk_that_cannot_be_read_is_left_alone_and_set_aside(
    tmp_path: Path, monkeypatch: Any
) -> None:
    store = tmp_path / "store"
    pages = store_pages(store)
    shelf = open_at(store, Clock(NOW))
    monkeypatch.setattr(shelf._database, "read", _no_disk)
    found: list[Any] = []
    shelf.load([b"*a.b/1"], found.append)
    assert found == [{}]
    assert shelf.trouble == "it cannot be read: Input/output error"
    assert not shelf.knows(b"*a.b/2") and shelf.read(b"*a.b/2", NOW) is None
    monkeypatch.undo()
    shelf.close()
    assert served_from(store, pages) == {}, "what it holds is not trusted"
    assert list(tmp_path.glob("store.broken-*/data.mdb"))


def _no_disk(*_: Any) -> None:
    raise OSError(5, "Input/output error")


def test_what_was_not_read_lately_is_read_in_a_thread(tmp_path: Path) -> None:
    """Its pages are not in memory: the kernel would fetch them while every client waits."""
    store_pages(tmp_path)
    with open(tmp_path / "data.mdb", "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    clock, reader = Clock(NOW), Later()
    shelf = open_at(tmp_path, clock, reader=reader)
    key = b"*a.b/1"
    found: list[Any] = []
    assert shelf.is_slow(key) and shelf.read(key, NOW) is None
    assert shelf.load([key], found.append)
    assert (found, shelf.figures.reads) == ([], 0)
    reader.work()
    assert found[0][key].slot[0][2] == b"1 " * 3000
    assert not shelf.is_slow(key)
    assert shelf.read(key, NOW) is not None and shelf.figures.reads == 1
    clock.now += 3600.0
    shelf.tick(clock.now)
    assert shelf.is_slow(key), "after an hour other things are in memory"
    assert not shelf.is_slow(b"*a.b/not-there")
    shelf.close()


def test_nobody_waits_for_a_disk_that_stands_still(tmp_path: Path) -> None:
    store_pages(tmp_path)
    clock, reader = Clock(NOW), Later()
    shelf = open_at(tmp_path, clock, reader=reader)
    found: list[Any] = []
    for number in range(300):
        shelf.load([b"*a.b/%d" % number], found.append)
    assert len(shelf._reads) == 256, "so many at the most"
    clock.now += 1.1
    shelf.tick(clock.now)
    assert found == [{}] * 256
    assert not shelf.load([b"*a.b/1"], found.append), "one second of it is enough"
    reader.work()
    assert len(found) == 256, "each is answered once"
    assert shelf.load([b"*a.b/1"], found.append), "it has come back"
    shelf.close()


def test_until_the_disk_is_listed_everything_may_be_on_it(tmp_path: Path) -> None:
    store_pages(tmp_path)
    writer = Later()
    shelf = open_at(tmp_path, Clock(NOW), writer=writer)
    assert shelf.is_slow(b"*a.b/1") and shelf.is_slow(b"*a.b/not-there")
    writer.work()
    assert shelf.is_slow(b"*a.b/1") and not shelf.is_slow(b"*a.b/not-there")
    shelf.close()


def test_a_record_that_is_somebody_elses_is_not_there(tmp_path: Path, monkeypatch: Any) -> None:
    """Two keys with one hash: the whole key is compared."""
    store_pages(tmp_path)
    shelf = open_at(tmp_path, Clock(NOW))
    own = shelf._database.slot_key(b"*a.b/1")
    monkeypatch.setattr(shelf._database, "slot_key", lambda _: own)
    found: list[Any] = []
    shelf.load([b"*a.b/2"], found.append)
    assert found == [{}]
    shelf.close()


def test_bodies_with_one_checksum_are_compared(tmp_path: Path, monkeypatch: Any) -> None:
    """Somebody has made them: the name of a body is its checksum and length, and a number."""
    for module in ("change", "database"):
        monkeypatch.setattr(f"retter.disk.{module}.crc32", lambda _: 7)
    database = Database(str(tmp_path), 1 << 20)
    pages = {f"/{n}": b"%03d" % n * 1000 for n in range(2 * NAMES_TRIED_MAX)}
    for _ in range(2):  # as new ones, and unchanged
        database.commit(batch({**pages, "/0-again": pages["/0"]}), [], NOW, WALL)
        assert bodies(database, [*pages, "/0-again"]) == {**pages, "/0-again": pages["/0"]}
        assert sorted(count for _, count in database.body_counts()) == [1] * (len(pages) - 1) + [2]
    gone = [f"/{n}" for n in (0, 3, NAMES_TRIED_MAX + 1)]
    removals = Removals(keys={b"*a.b" + path.encode() for path in gone})
    database.commit(batch({}, removals), [], NOW, WALL)
    left = {path: body for path, body in pages.items() if path not in gone}
    left["/0-again"] = pages["/0"]
    assert bodies(database, [*pages, "/0-again"]) == left
    database.commit(batch({}, Removals(purges=[Purge(None, b"", None)])), [], NOW, WALL)
    assert (database.entries, database.bytes_used, database.bodies) == (0, 0, 0)
    database.close()


def test_a_record_under_another_key_is_damage(tmp_path: Path) -> None:
    store_pages(tmp_path)
    database = Database(str(tmp_path), 1 << 20)
    one, other = database.slot_key(b"*a.b/1"), database.slot_key(b"*a.b/2")
    with database._env.begin(write=True) as txn:
        txn.put(one, txn.get(other, db=database._trees.records) or b"", db=database._trees.records)
    with pytest.raises(Damaged):
        database.read(one, NOW, WALL, 1e9)
    database.close()


def test_what_changes_while_the_disk_is_listed_is_known_as_it_is_now(tmp_path: Path) -> None:
    """The list is made in a thread, into a table of its own, and found on the loop all at once."""
    pages = store_pages(tmp_path)
    clock, writer = Clock(NOW), Later()
    shelf = open_at(tmp_path, clock, writer=writer)
    listing = writer.jobs.pop()
    table = listing[0]()  # while the loop goes on
    shelf.behind.withdrawn(b"*a.b/1", clock.now)
    for key, waits in batch({"/new": b"new"}).slots.items():
        shelf.behind.changed(key, waits.slot, (), clock.now)
    shelf.tick(clock.now)
    writer.work()
    listing[1](table)
    assert not shelf.knows(b"*a.b/1") and not shelf.knows(b"*a.b/never")
    assert shelf.knows(b"*a.b/new") and shelf.knows(b"*a.b/2")
    assert len(shelf._keys) == len(pages)
    shelf.close()


def test_all_that_goes_while_the_disk_is_listed_is_gone(tmp_path: Path) -> None:
    store_pages(tmp_path)
    clock, writer = Clock(NOW), Later()
    shelf = open_at(tmp_path, clock, writer=writer)
    listing = writer.jobs.pop()
    table = listing[0]()
    shelf.behind.purge(Purge(None, None, None), clock.now)
    shelf.tick(clock.now)
    writer.work()
    listing[1](table)
    assert not shelf.knows(b"*a.b/1")
    shelf.close()
