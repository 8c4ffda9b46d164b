"""Traps of LMDB, and the measure against each of them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from retter.disk.database import Database
from retter.disk.environment import Full
from retter.disk.folder import damage_of
from retter.disk.shelf import DiskShelf
from retter.store.record import STORED_AT
from retter.store.write_behind import Found
from tests.disk.pages import NOW, WALL, batch, bodies, child, served_from, store_pages
from tests.support.disk import Clock, open_at


def test_what_is_not_used_makes_room_for_what_is_new(tmp_path: Path) -> None:
    """Three times the disk's size of pages of all sizes come in, and none is refused."""
    database, random = Database(str(tmp_path), 1 << 20), Random(1)
    evicted = written = 0
    for turn in range(60):
        pages = {
            f"/{turn}/{n}": random.randbytes(random.choice([100, 3000, 12_000, 12_000, 40_000]))
            for n in range(6)
        }
        done = database.commit(batch(pages), [], NOW, WALL + turn * 600)
        assert done.not_written == 0
        written, evicted = written + done.written, evicted + done.evicted
        assert bodies(database, list(pages)) == pages, "what came last is there"
        assert database.bytes_used <= database.bytes_max
    assert (written, database.entries) == (360, 360 - evicted)
    assert (tmp_path / "data.mdb").stat().st_size <= database.map_bytes
    database.close()


def test_a_small_store_does_not_lose_all_when_it_is_full(tmp_path: Path) -> None:
    """As one of workers in memory, whose pages have all been used within ten minutes."""
    database, random = Database(str(tmp_path), 4 << 20), Random(1)
    for turn in range(60):
        database.commit(batch({f"/{turn}": random.randbytes(100_000)}), [], NOW, WALL)
        assert database.bytes_used <= database.bytes_max
        assert database.entries >= min(turn + 1, 35), turn
    database.close()


def test_what_is_evicted_may_free_nothing_because_others_have_the_same_body(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """There are few transactions in any case: each of them waits for the disk."""
    database, transactions = Database(str(tmp_path), 1 << 20), 0
    same = b"s" * 500_000
    database.commit(batch({f"/{n}": same for n in range(300)}), [], NOW, WALL)
    delete = database._delete_some

    def counted(keys: list[bytes], removed: set[int]) -> int:
        nonlocal transactions
        transactions += 1
        return delete(keys, removed)

    monkeypatch.setattr(database, "_delete_some", counted)
    assert database._evict(100_000, set()) == 300
    assert transactions <= 9 and database.entries == 0
    database.close()


def test_a_reader_that_holds_the_map_costs_writes_and_nothing_else(tmp_path: Path) -> None:
    """While it is there no page comes back. What is there stays whole, and then all is well."""
    database, random = Database(str(tmp_path), 1 << 20), Random(2)
    kept = {"/kept": b"k" * 9000}
    database.commit(batch(kept), [], NOW, WALL + 10**6)
    reader: Any = database._env.begin()
    not_written = 0
    for turn in range(60):
        pages = {f"/{turn}/{n}": random.randbytes(60_000) for n in range(6)}
        try:
            not_written += database.commit(batch(pages), [], NOW, WALL + turn).not_written
        except Full:
            not_written += len(pages)
        assert set(bodies(database, list(pages)).values()) <= set(pages.values())
    assert not_written > 0, "else it was no test"
    reader.abort()
    after = {f"/after/{n}": random.randbytes(12_000) for n in range(6)}
    assert database.commit(batch(after), [], NOW, WALL + 10**6).not_written == 0
    assert bodies(database, list(after)) == after
    database.close()


def test_no_transaction_outlives_a_call(tmp_path: Path) -> None:
    database = Database(str(tmp_path), 1 << 20)
    database.commit(batch({"/a": b"a"}), [], NOW, WALL)
    bodies(database, ["/a"])
    walk = database.walk(NOW, WALL)
    next(walk)  # and stop in the middle
    assert _readers(database) == 0
    database.close()


def _readers(database: Database) -> int:
    """Return how many transactions are being read from."""
    lines = database._env.readers().splitlines()
    return len([line for line in lines if re.match(r"\s*\d+\s+\S+\s+\d+$", line)])


HOLDS = """
import lmdb, os, signal, sys
env = lmdb.open(sys.argv[1], max_dbs=8, map_size=1 << 24)
held = env.begin()
if sys.argv[2] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
print("holds", flush=True)
sys.stdin.read()
"""


def test_readers_that_were_killed_are_forgotten_at_the_start(tmp_path: Path) -> None:
    """LMDB does it itself where nobody else has the file open; `retter store` may have it open."""
    open_at(tmp_path, Clock()).close()
    command = [sys.executable, "-c", HOLDS, str(tmp_path), "stay"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"holds\n"
        assert child(HOLDS, str(tmp_path), "kill").returncode == -signal.SIGKILL
        shelf = open_at(tmp_path, Clock())
        assert _readers(shelf._database) == 1, "the one that lives"
        other.stdin.close()
    shelf.close()


def test_a_database_of_larger_pages_is_as_long_as_its_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB takes the pages of the machine: 16 KiB on a Raspberry Pi 5, 64 KiB on some servers.

    Counted in pages of 4 KiB the file was long enough, and the next start set it aside.
    """
    database = Database(str(tmp_path), 1 << 20)
    database.commit(batch({"/a": b"a"}), [], NOW, WALL)
    env, small = database._env, database.file_bytes

    class Large:
        def __getattr__(self, name: str) -> Any:
            return getattr(env, name)

        def stat(self) -> dict[str, object]:
            return {**env.stat(), "psize": 16384}

    assert small == (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    monkeypatch.setattr(database, "_env", Large())
    database.keep_size()
    assert (tmp_path / "data.mdb").stat().st_size == database.file_bytes == 4 * small
    assert database.free_bytes <= database.file_bytes
    database.close()


def test_nobody_writes_while_the_file_is_made_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another worker appends between the look and the change would be cut off."""
    database, steps = Database(str(tmp_path), 1 << 20), []
    database.commit(batch({"/a": b"a"}), [], NOW, WALL)
    with database._env.begin(write=True) as txn:
        txn.put(b"x" * 16, b"x" * 100_000, db=database._trees.bodies)
        txn.delete(b"x" * 16, db=database._trees.bodies)
    env, truncate = database._env, os.truncate

    class Told:
        def __getattr__(self, name: str) -> Any:
            return getattr(env, name)

        @contextlib.contextmanager
        def begin(self, *, write: bool) -> Iterator[Any]:
            with env.begin(write=write) as txn:
                steps.append("begin")
                yield txn
            steps.append("end")

    def truncated(path: str, length: int) -> None:
        steps.append("truncate")
        truncate(path, length)

    monkeypatch.setattr(os, "truncate", truncated)
    monkeypatch.setattr(database, "_env", Told())
    database.keep_size()
    database.keep_size()
    assert steps == ["begin", "truncate", "end"]
    assert (tmp_path / "data.mdb").stat().st_size >= database.file_bytes
    database.close()


FILLS = """
import lmdb, os, signal, sys
env = lmdb.open(sys.argv[1], max_dbs=8, map_size=1 << 24, max_readers=99)
held = []
try:
    while True:
        held.append(env.begin())
except lmdb.ReadersFullError:
    os.kill(os.getpid(), signal.SIGKILL)
"""


COUNTS = """
import sys
from retter.disk.database import Database
print(Database(sys.argv[1], 1 << 20).amounts()[0])
"""


def test_places_of_readers_that_are_all_taken_do_not_cost_the_database(tmp_path: Path) -> None:
    """By processes that were killed while another one, which lives, has the file open."""
    pages = store_pages(tmp_path / "store")
    shelf = open_at(tmp_path / "store", Clock(NOW))
    assert child(FILLS, str(tmp_path / "store")).returncode == -signal.SIGKILL
    found: list[dict[bytes, Found]] = []
    for page in list(pages)[:2]:
        shelf.load([b"*a.b" + page.encode()], found.append)
    assert [len(one) for one in found] == [0, 1], "the next read has a place"
    assert shelf.trouble == ""
    assert shelf.figures.damaged == 0

    # Nor when it is opened meanwhile, as by a worker that takes the place of another one.
    assert child(FILLS, str(tmp_path / "store")).returncode == -signal.SIGKILL
    refused = child(COUNTS, str(tmp_path / "store"))
    assert "BlockingIOError: [Errno 11] too many processes read it" in refused.stderr
    shelf.load([b"*a.b/7"], found.append)
    opened = child(COUNTS, str(tmp_path / "store"))
    assert opened.stdout == f"{len(pages)}\n", opened.stderr
    shelf.close()
    assert served_from(tmp_path / "store", pages) == pages
    assert not list(tmp_path.glob("store.broken-*"))


def test_a_file_is_never_shorter_than_its_header_says(tmp_path: Path) -> None:
    """LMDB does not write pages that were added and freed in one commit: it looks cut off then."""
    database, file = Database(str(tmp_path), 1 << 20), tmp_path / "data.mdb"
    database.commit(batch({"/a": b"a"}), [], NOW, WALL)
    with database._env.begin(write=True) as txn:
        txn.put(b"x" * 16, b"x" * 100_000, db=database._trees.bodies)
        txn.delete(b"x" * 16, db=database._trees.bodies)
    with file.open("rb") as opened:
        header = opened.read(2 * 65536)
    assert damage_of(header, file.stat().st_size), "else it was no test"
    database.commit(batch({"/b": b"b"}), [], NOW, WALL)
    database.close()
    with file.open("rb") as opened:
        header = opened.read(2 * 65536)
    assert damage_of(header, file.stat().st_size) == ""


def test_a_url_may_be_longer_than_a_key_of_the_database(tmp_path: Path) -> None:
    """LMDB takes 511 octets. The record holds all of it, and a URL that begins alike is another."""
    database = Database(str(tmp_path), 1 << 20)
    pages = {"/" + "x" * 8000 + end: end.encode() for end in "ab"}
    database.commit(batch(pages), [], NOW, WALL)
    assert bodies(database, list(pages)) == pages
    assert bodies(database, ["/" + "x" * 8000]) == {}
    database.close()


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, -3600.0, 3600.0])
def test_a_clock_that_jumps_loses_no_page_that_was_there(tmp_path: Path, jump_s: float) -> None:
    """A Raspberry Pi begins in 1970, or at its last end, until it has asked for the time."""
    pages = store_pages(tmp_path)
    clock = Clock(NOW)
    clock.wall_offset += jump_s
    shelf = open_at(tmp_path, clock)
    found: list[dict[bytes, Found]] = []
    shelf.load([b"*a.b/1"], found.append)
    (record_found,) = found[0][b"*a.b/1"].slot
    age_s = clock.now - record_found[STORED_AT]
    assert age_s == pytest.approx(max(0.0, jump_s), abs=0.001)
    # What is stored while the clock is wrong is there when it is right again.
    for key, waits in batch({"/new": b"new"}).slots.items():
        shelf.behind.changed(key, waits.slot, (), clock.now)
    shelf.close()
    served = served_from(tmp_path, {**pages, "/new": b"new"})
    assert served.keys() == (pages.keys() | {"/new"} if jump_s > -86400.0 else pages.keys())


def test_a_clock_that_jumps_a_year_ahead_makes_all_of_it_too_old(tmp_path: Path) -> None:
    """`--max-stale` holds in either case. When it is set right, what was not swept is back."""
    pages = store_pages(tmp_path)
    clock = Clock(NOW)
    clock.wall_offset += 365 * 86400.0
    shelf = open_at(tmp_path, clock)
    found: list[dict[bytes, Found]] = []
    shelf.load([b"*a.b/1"], found.append)
    assert found == [{}]
    shelf.close()
    assert served_from(tmp_path, pages) == pages


def put(shelf: DiskShelf, page: str, now: float) -> None:
    for key, waits in batch({page: page.encode()}).slots.items():
        (one,) = waits.slot
        stored = (*one[:STORED_AT], now, *one[STORED_AT + 1 :])
        shelf.behind.changed(key, (stored,), (), now)
    shelf.flush()


def test_what_was_stored_in_the_future_grows_old_from_the_next_sweep_on(tmp_path: Path) -> None:
    """The clock was years ahead, and is right now. Before, these pages had no age for years."""
    clock, ahead_s = Clock(NOW), 10 * 365 * 86400.0
    clock.wall_offset += ahead_s
    shelf = open_at(tmp_path, clock)
    put(shelf, "/a", clock.now)
    clock.wall_offset -= ahead_s
    put(shelf, "/b", clock.now)
    clock.now += 3600.0
    shelf.tick(clock.now)
    assert shelf.stats()["entries"] == 2
    shelf.close()

    clock.now += 80_000.0
    shelf = open_at(tmp_path, clock)
    found: list[dict[bytes, Found]] = []
    for key in (b"*a.b/a", b"*a.b/b"):
        shelf.load([key], found.append)
    ages = [clock.now - one.slot[0][STORED_AT] for each in found for one in each.values()]
    assert ages == pytest.approx([80_000.0, 83_600.0], abs=0.001)
    shelf.close()
    clock.now += 6500.0
    shelf = open_at(tmp_path, clock)
    shelf.load([b"*a.b/a"], found.append)
    assert found[-1] == {}, "older than a day"
    shelf.close()


def test_what_was_used_in_the_future_is_evicted_as_if_it_was_used_at_the_sweep(
    tmp_path: Path,
) -> None:
    """Before, all that was stored since was evicted first, as if it was older."""
    clock = Clock(NOW)
    clock.wall_offset += 10 * 86400.0
    shelf = open_at(tmp_path, clock)
    put(shelf, "/future", clock.now)
    clock.wall_offset -= 10 * 86400.0
    clock.now += 3600.0
    shelf.tick(clock.now)
    clock.now += 3600.0
    put(shelf, "/new", clock.now)
    database = shelf._database
    database._evict(database.bytes_used - 1, set())
    assert not database.has(database.slot_key(b"*a.b/future"))
    assert database.has(database.slot_key(b"*a.b/new"))
    shelf.close()


def test_readers_that_are_killed_are_looked_for_every_hour(tmp_path: Path) -> None:
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock)
    assert child(HOLDS, str(tmp_path), "kill").returncode == -signal.SIGKILL
    shelf.tick(clock.now + 3599.0)
    assert (shelf.figures.stale_readers, _readers(shelf._database)) == (0, 1)
    shelf.tick(clock.now + 3601.0)
    assert (shelf.figures.stale_readers, _readers(shelf._database)) == (1, 0)
    shelf.close()


def test_nothing_writes_through_the_map(tmp_path: Path) -> None:
    """A stray write into memory would be in the file."""
    database = Database(str(tmp_path), 1 << 20)
    flags = database._env.flags()
    assert flags["writemap"] is False and flags["sync"] is True and flags["lock"] is True
    assert flags["readahead"] is False
    database.close()


def test_a_map_that_is_full_is_made_room_in_and_written_once_more(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """LMDB says so long before the map is full of what is kept."""
    database = Database(str(tmp_path), 1 << 20)
    database.commit(batch({f"/{n}": os.urandom(12_000) for n in range(75)}), [], NOW, WALL)
    commit, calls = database._commit, []

    def full_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise lmdb.MapFullError("full")
        return commit(*arguments)

    monkeypatch.setattr(database, "_commit", full_once)
    done = database.commit(batch({"/new": b"new"}), [], NOW, WALL + 3600.0)
    assert (done.written, done.not_written, len(calls)) == (1, 0, 2)
    assert done.evicted > 0
    assert bodies(database, ["/new"]) == {"/new": b"new"}
    database.close()
