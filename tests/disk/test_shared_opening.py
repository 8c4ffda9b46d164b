"""The folder of several workers: prepared once, opened by each, and right after any dies."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from retter.base.shared_memory import SharedMemory, bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.config.settings import ConfigError
from retter.disk import shared_opening
from retter.disk.shared_behind import follow
from retter.disk.shared_opening import open_shared, prepare
from retter.disk.shared_shelf import NEW_EVERY_S, NOTES_MAX, SharedShelf
from retter.http.message import RequestHead
from retter.store.rules import StoreRules
from retter.store.shared_store import SharedStore
from retter.store.write_behind import COMMIT_EVERY_S
from tests.support.disk import Clock, Immediately, Later, disk_settings, open_at
from tests.support.disk_of_workers import Crew
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, SECRET, put, request, who

PAGE, MINE = request(target=b"/page"), request(ALICE, target=b"/mine")


class Folder:
    """A folder with its shared memory; one worker at a time has it open in this process."""

    def __init__(self, path: Path, **changes: Any) -> None:
        self.path = path
        self.settings = disk_settings(path, **changes)
        self.clock = Clock()
        self.shared: SharedMemory = divided(memoryview(bytearray(bytes_for(2))), 2)
        self.lock_fd = prepare(self.settings, 2)

    def worker(self, place: int, reader: Any = None) -> "Worker":
        where = WorkerPlace(place, 2, place, self.shared, self.lock_fd)
        shelf = open_shared(
            self.settings, where, reader or Immediately(), Immediately(), self.clock.monotonic
        )
        return Worker(shelf, self.clock)

    def close(self) -> None:
        os.close(self.lock_fd)


class Worker:
    """A store with the shared database behind it."""

    def __init__(self, shelf: SharedShelf, clock: Clock) -> None:
        self.shelf = shelf
        self.clock = clock
        self.store = SharedStore(StoreRules(secret=SECRET), shelf.news)
        self.store.put_behind(shelf.behind)
        follow(self.store, shelf.news, shelf.shared_behind)
        shelf.start()

    def put(self, asked: RequestHead) -> None:
        now = self.clock.now
        assert put(self.store, asked, response(), b"body", now, now)

    def finds(self, asked: RequestHead) -> bool:
        return self.store.find(who(asked), asked, self.clock.now) is not None

    def die(self) -> None:
        """End without writing anything, as after `kill -9`."""
        self.shelf._database.close()
        self.shelf._journal.close()
        self.shelf._folder.close()


@pytest.fixture(params=["memory", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(
        shared_opening, "file_system", lambda _: {"memory": "tmpfs"}.get(request.param, "ext4")
    )
    found = Folder(tmp_path / "store")
    yield found
    found.close()


def test_one_worker_finds_what_another_has_written(folder: Folder) -> None:
    first = folder.worker(0)
    first.put(PAGE)
    first.shelf.flush()
    first.shelf.close()
    second = folder.worker(1)
    assert second.shelf.knows(who(PAGE).key)
    if second.shelf.is_slow(who(PAGE).key):  # on a disk, its pages may not be in memory
        assert second.shelf.load([who(PAGE).key], lambda found: None)
        assert not second.shelf.is_slow(who(PAGE).key), "now they are"
    assert second.finds(PAGE)
    assert not second.shelf.knows(who(MINE).key) and not second.finds(MINE)
    second.shelf.close()


def test_a_removal_of_a_killed_worker_is_committed_when_it_starts_again(folder: Folder) -> None:
    first = folder.worker(0)
    first.put(MINE)
    first.shelf.flush()
    identity = who(MINE)
    first.store.invalidation.drop_owner(identity.owner, folder.clock.now, identity.marks)
    first.die()
    second = folder.worker(1)
    assert not second.finds(MINE), "it hears of it, and the database has it still"
    assert second.shelf._database.entries == 1
    second.shelf.close()
    again = folder.worker(0)
    assert again.shelf._database.entries == 0
    assert folder.shared.committed[0] == folder.shared.heads[0] > 0
    again.shelf.close()


READS = """
import os, sys, lmdb
env = lmdb.open(sys.argv[1], max_dbs=8, max_readers=44)
txn = env.begin()
print(flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


def test_a_worker_that_starts_frees_the_places_of_readers_that_were_killed(tmp_path: Path) -> None:
    """Else a worker that is killed again and again takes them all within an hour."""
    folder = Folder(tmp_path / "store")
    command = [sys.executable, "-c", READS, str(folder.path)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as lives,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as dies,
    ):
        for one in (lives, dies):
            assert one.stdout is not None and one.stdout.readline()
        dies.communicate()
        worker = folder.worker(0)
        readers = worker.shelf._database._env.readers()
        assert str(lives.pid) in readers and str(dies.pid) not in readers
        worker.shelf.close()
        lives.communicate()
    folder.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_when_all_were_killed_the_next_start_commits_their_removals(
    folder: Folder, workers: int
) -> None:
    worker = folder.worker(1)
    worker.put(MINE)
    worker.shelf.flush()
    identity = who(MINE)
    worker.store.invalidation.drop_owner(identity.owner, folder.clock.now, identity.marks)
    worker.die()
    folder.close()
    assert "drops-1" in os.listdir(folder.path)
    if workers:
        folder.lock_fd = prepare(folder.settings, workers)
    else:  # one process
        shelf = open_at(folder.path, folder.clock)
        assert shelf._database.entries == 0
        shelf.close()
        folder.lock_fd = prepare(folder.settings, 2)
    assert "drops-1" not in os.listdir(folder.path)
    worker = folder.worker(0)
    assert worker.shelf._database.entries == 0
    worker.shelf.close()


def test_a_thread_reads_only_where_pages_may_be_on_a_disk(folder: Folder) -> None:
    thread = Later()
    worker = folder.worker(0, thread)
    worker.put(PAGE)
    worker.shelf.flush()
    key = who(PAGE).key
    worker.shelf._keys._table.clear()
    in_memory = worker.shelf._keys._in_memory  # type: ignore[attr-defined]
    assert worker.shelf.is_slow(key) is not in_memory
    # A disk wears, memory does not.
    assert worker.shelf.behind.new_every_s == (NEW_EVERY_S if in_memory else COMMIT_EVERY_S)
    worker.shelf.close()


def test_the_notes_of_reads_are_bounded(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retter.disk.shared_shelf.NOTES_MAX", 3)
    worker = folder.worker(0)
    for number in range(9):
        worker.shelf._keys.used(bytes(16) + number.to_bytes(16, "big"), folder.clock.now)
    assert len(worker.shelf._keys) <= 3 < NOTES_MAX
    worker.shelf.close()


def test_a_database_that_fails_has_no_keys(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = folder.worker(0)

    def fails(_: bytes) -> bool:
        raise OSError(5, "no")

    monkeypatch.setattr(worker.shelf._database, "has", fails)
    assert not worker.shelf.knows(who(PAGE).key)
    worker.shelf.close()


def test_only_the_first_worker_looks_for_old_entries(folder: Folder) -> None:
    worker = folder.worker(1)
    worker.shelf.tick(1e9)
    assert worker.shelf._sweep_at > 1e9
    worker.shelf.close()


def test_workers_of_a_successor_with_a_smaller_disk_have_the_map_of_those_before(
    tmp_path: Path,
) -> None:
    folder = Folder(tmp_path / "store", store_disk_bytes=64 << 20)
    before = folder.worker(0)
    before.shelf.set_note("one", 1)
    map_bytes = before.shelf._database.map_bytes
    before.shelf.close()
    folder.settings = disk_settings(folder.path, store_disk_bytes=1 << 20)
    where = WorkerPlace(1, 2, 1, folder.shared, folder.lock_fd, store_is_lent=True)
    thread, clock = Immediately(), folder.clock.monotonic
    successor = open_shared(folder.settings, where, thread, thread, clock)
    assert successor._database.map_bytes == map_bytes
    successor.close()
    folder.close()


def test_two_retters_cannot_have_one_folder(folder: Folder) -> None:
    with pytest.raises(ConfigError, match="used by another RETTER"):
        prepare(folder.settings, 2)


def test_a_folder_with_a_database_that_is_none_is_told(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "store")
    data = folder.path / "data.mdb"
    data.write_bytes(b"x" * data.stat().st_size)
    with pytest.raises(ConfigError, match="store"):
        folder.worker(0)
    folder.close()


def test_a_broken_database_is_set_aside_once_and_the_first_worker_tells_it(
    tmp_path: Path,
) -> None:
    path, told = tmp_path / "store", list[str]()
    path.mkdir()
    (path / "data.mdb").write_bytes(b"no database" * 1000)
    folder = Folder(path)
    folder.close()
    (path / "data.mdb").write_bytes(b"no database" * 1000)
    folder.lock_fd = prepare(folder.settings, 2, told.append)
    assert told == ["its header is not that of a database"]
    for place, why in ((0, told[0]), (1, "")):
        where = WorkerPlace(place, 2, place, folder.shared, folder.lock_fd, store_set_aside=told[0])
        thread = Immediately()
        shelf = open_shared(folder.settings, where, thread, thread, folder.clock.monotonic)
        assert shelf.set_aside == why and shelf.stats()["set_aside"] == bool(why)
        shelf.close()
    folder.close()


def test_the_amounts_on_disk_are_those_of_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew = Crew(tmp_path / "store", monkeypatch)
    first, second = crew.workers
    assert put(second.store, PAGE, response(), b"body", crew.clock.now)
    second.shelf.flush()
    crew.database.entries = crew.database.bytes_used = 0  # as the first one has seen it last
    assert first.shelf.stats()["entries"] == 1 and first.shelf.stats()["bytes_used"] > 0
    first.shelf.leave("it is broken")
    assert first.shelf.stats()["entries"] == 0
    crew.close()
