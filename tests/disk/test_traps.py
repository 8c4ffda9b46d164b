"""Traps of LMDB and of disks, and the measure against each of them."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import lmdb
import pytest

from retter.config.settings import ConfigError
from retter.disk.change import NAMES_TRIED_MAX
from retter.disk.database import Database
from retter.disk.environment import Damaged, Full
from retter.disk.folder import LOOP, Folder, cannot_use, damage_of, file_system
from retter.disk.inspection import used_by
from retter.disk.opening import open_shelf
from retter.store.record import BODY, STORED_AT
from retter.store.write_behind import Batch, Found, Purge, Removals, Written
from tests.store.test_packing import record
from tests.support.disk import Clock, Immediately, Later, disk_settings, open_at

NOW, WALL = 1000.0, 1_700_001_000.0
HERE = Path(__file__).parent.parent.parent


def batch(pages: dict[str, bytes], removals: Removals | None = None) -> Batch:
    slots = {}
    for path, body in pages.items():
        key = b"*a.b" + path.encode()
        one = record(key, body=body, stored_at=NOW, age_max_s=86400.0)
        slots[key] = Written((one,), ())
    return Batch(removals or Removals(), slots)


def bodies(database: Database, paths: list[str]) -> dict[str, bytes]:
    """Return those that are there, verified."""
    found = {}
    for path in paths:
        packed = database.slot_key(b"*a.b" + path.encode())
        if (one := database.read(packed, NOW, WALL, 86400.0)) is not None:
            found[path] = one.variants[0][BODY]
    return found


def child(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run code in another process, which may die of it."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )


# -- the map


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


# -- what is on the disk


def _store_pages(path: Path, count: int = 20) -> dict[str, bytes]:
    pages = {f"/{n}": b"%d " % n * 3000 for n in range(count)}
    shelf = open_at(path, Clock(NOW))
    for key, waits in batch(pages).slots.items():
        shelf.behind.changed(key, waits.slot, (), NOW)
    shelf.close()
    return pages


def _served(path: Path, pages: dict[str, bytes]) -> dict[str, bytes]:
    """Open a store as the next process does, and return what it would serve."""
    shelf = open_at(path, Clock(NOW))
    served: dict[str, bytes] = {}
    for page in pages:
        key = b"*a.b" + page.encode()
        found: list[dict[bytes, Found]] = []
        shelf.load([key], found.append)
        if key in found[0]:
            served[page] = found[0][key].slot[0][2]
    shelf.close()
    return served


def test_rot_in_a_body_costs_that_page(tmp_path: Path) -> None:
    pages = _store_pages(tmp_path)
    data = (tmp_path / "data.mdb").read_bytes()
    at = data.index(b"7 7 7 7 ")
    (tmp_path / "data.mdb").write_bytes(data[:at] + b"X" + data[at + 1 :])
    served = _served(tmp_path, pages)
    assert served == {page: body for page, body in pages.items() if page != "/7"}
    shelf = open_at(tmp_path, Clock(NOW))
    assert shelf.stats()["entries"] == len(pages) - 1, "it is removed"
    shelf.close()


def test_rot_in_many_pages_takes_no_place_of_a_reader(tmp_path: Path) -> None:
    """There are 32 places, and the garbage collector may come late or never."""
    pages = _store_pages(tmp_path, 40)
    data = (tmp_path / "data.mdb").read_bytes()
    for number in range(40):
        data = data.replace(b"%d " % number * 3000, b"%d-" % number * 3000)
    (tmp_path / "data.mdb").write_bytes(data)
    gc.disable()
    try:
        shelf = open_at(tmp_path, Clock(NOW))
        for page in pages:
            shelf.load([b"*a.b" + page.encode()], lambda found: None)
        assert shelf.figures.damaged > 35
        assert shelf.trouble == ""
        assert shelf._database._env.readers().count("\n") <= 2, "a title and the one that reads"
    finally:
        gc.enable()
    shelf.close()


SERVES_ROTTEN = """
import os, sys
from pathlib import Path
from tests.disk.test_traps import _served
pages = {f"/{n}": b"%d " % n * 3000 for n in range(20)}
for folder in sys.argv[1:]:
    for _ in range(3):
        if pid := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        served = _served(Path(folder), pages)
        os._exit(any(pages[page] != body for page, body in served.items()))
"""


def test_rot_anywhere_is_never_served(tmp_path: Path) -> None:
    """Flipped bits all over the file: a page is whole or it is not there, and nothing loops.

    Each opens it in a process of its own, which may die of it once and no third time.
    """
    _store_pages(tmp_path / "store")
    whole = (tmp_path / "store/data.mdb").read_bytes()
    random = Random(3)
    folders = [tmp_path / f"store{turn}" for turn in range(6)]
    for folder in folders:
        folder.mkdir()
        for name in ("secret", "drops"):
            (folder / name).write_bytes((tmp_path / "store" / name).read_bytes())
        rotten = bytearray(whole)
        for _ in range(40):
            rotten[random.randrange(len(rotten))] ^= 1 << random.randrange(8)
        (folder / "data.mdb").write_bytes(rotten)
    result = child(SERVES_ROTTEN, *map(str, folders))
    codes = [int(line) for line in result.stdout.splitlines()]
    assert len(codes) == 3 * len(folders), result.stderr
    assert set(codes[0::3]) <= {0, -signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT}, result.stderr
    assert set(codes[2::3]) == {0}, result.stderr


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_a_file_that_is_cut_off_is_set_aside(tmp_path: Path, share: float) -> None:
    store = tmp_path / "store"
    pages = _store_pages(store)
    data = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data[: int(share * len(data))])
    assert _served(store, pages) == {}
    broken = list(tmp_path.glob("store.broken-*/data.mdb"))
    assert len(broken) == bool(share), "an empty file is nothing to keep"
    assert _store_pages(store) == _served(store, pages), "and a new one is begun"


def test_one_broken_database_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for turn in range(3):
        pages = _store_pages(store)
        (tmp_path / f"store.broken-2026010{turn}T000000").mkdir()
        (store / "data.mdb").write_bytes(b"no database" * 1000)
        _served(store, pages)
        assert len(list(tmp_path.glob("store.broken-*"))) == 1


def test_garbage_that_looks_like_nothing_is_set_aside(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "data.mdb").write_bytes(Random(4).randbytes(100_000))
    shelf = open_at(store, Clock())
    assert shelf.set_aside == "its header is not that of a database"
    shelf.close()


DIES = """
import os, sys
from tests.support.disk import Clock, disk_settings, Immediately
from retter.disk.opening import open_shelf
clock = Clock(1000.0)
settings = disk_settings(sys.argv[1])
threads = Immediately(), Immediately()
shelf = open_shelf(settings, *threads, clock.monotonic, wall=clock.wall, faults=True)
shelf.start()
if sys.argv[2] == "bus":
    os.truncate(sys.argv[1] + "/data.mdb", 8192)
    for number in range(20):
        shelf.load([b"*a.b/%d" % number], print)
elif sys.argv[2] == "kill":
    shelf._folder.enter(0)
    os.kill(os.getpid(), 9)
print("lives")
shelf.close()
"""


def test_a_page_that_cannot_be_read_kills_once_and_no_second_time(tmp_path: Path) -> None:
    """It is a signal and no exception: the next start would read it again, and so on."""
    store = tmp_path / "store"
    _store_pages(store)
    assert child(DIES, str(store), "bus").returncode == -signal.SIGBUS
    # The file is as long as its header says: nothing but the marker tells.
    os.truncate(store / "data.mdb", 10_000_000)
    shelf = open_at(store, Clock(NOW))
    assert shelf.set_aside == "a process died while it read the database"
    assert shelf.stats()["entries"] == 0
    shelf.close()
    assert open_at(store, Clock(NOW)).set_aside == "", "said once"


def test_a_process_that_was_killed_while_it_read_costs_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pages = _store_pages(store)
    assert child(DIES, str(store), "kill").returncode == -signal.SIGKILL
    assert (store / "reading").read_bytes()[0] == 1, "it was inside"
    assert _served(store, pages) == pages
    assert not list(tmp_path.glob("store.broken-*"))


def test_without_a_note_of_the_interpreters_the_marker_alone_counts(tmp_path: Path) -> None:
    """In a program that embeds RETTER, or has its faults told elsewhere."""
    folder = Folder(str(tmp_path), 1 << 20)
    (tmp_path / "data.mdb").write_bytes(b"x")
    folder.enter(LOOP)
    folder.close()
    again = Folder(str(tmp_path), 1 << 20)
    assert again.set_aside_reason == "a process died while it read the database"
    again.close()


@pytest.mark.parametrize("version", [1, 99], ids=["past", "future"])
def test_another_version_is_set_aside(tmp_path: Path, version: int) -> None:
    """In the first one owners were hashed otherwise: no logout would drop what is in it."""
    store = tmp_path / "store"
    _store_pages(store)
    with lmdb.open(str(store), max_dbs=8) as env:
        db = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"version", b"%d" % version, db=db)
    shelf = open_at(store, Clock())
    assert shelf.set_aside == f"its format is version {version}"
    shelf.close()


# -- the folder


def test_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    (tmp_path / "sub").mkdir()
    pages = _store_pages(tmp_path)
    assert _served(tmp_path, pages) == pages
    assert (tmp_path / "index.html").read_text() == "mine"
    assert (tmp_path / "sub").is_dir()


@pytest.mark.parametrize("name", ["data.mdb", "secret", "drops", "learnt", "lock"])
def test_a_pipe_in_the_folder_is_one_clear_line(tmp_path: Path, name: str) -> None:
    """Opening it would wait for ever."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name} is a pipe; remove it"):
        open_at(tmp_path, Clock())


def test_a_database_of_another_program_is_not_touched(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), max_dbs=2) as env, env.begin(write=True) as txn:
        for number in range(3):
            txn.put(b"theirs%d" % number, b"data")
    before = (tmp_path / "data.mdb").read_bytes()
    with pytest.raises(ConfigError, match="holds the database of another program"):
        open_at(tmp_path, Clock())
    assert (tmp_path / "data.mdb").read_bytes() == before


def test_a_second_retter_on_the_same_folder_is_told_so(tmp_path: Path) -> None:
    shelf = open_at(tmp_path, Clock())
    with pytest.raises(ConfigError, match=rf"used by another RETTER \(process {os.getpid()}\)"):
        open_at(tmp_path, Clock())
    shelf.close()
    open_at(tmp_path, Clock()).close()


def test_a_successor_with_another_folder_takes_the_lock_of_that_one(tmp_path: Path) -> None:
    """With the lock of the folder before it, a second RETTER could write to the new one."""
    before = open_at(tmp_path / "before", Clock())
    settings, fd = disk_settings(tmp_path / "other"), os.dup(before.lock_fd)
    successor = open_shelf(settings, Immediately(), Immediately(), Clock().monotonic, lock_fd=fd)
    with pytest.raises(ConfigError, match="used by another RETTER"):
        open_at(tmp_path / "other", Clock())
    before.close()
    open_at(tmp_path / "before", Clock()).close()
    successor.close()


def test_a_successor_says_that_it_uses_the_folder_when_it_serves(
    tmp_path: Path, monkeypatch: Any
) -> None:
    settings, clock, number = disk_settings(tmp_path), Clock(), os.getpid()
    before = open_at(tmp_path, clock)
    fd = os.dup(before.lock_fd)
    before.close()
    monkeypatch.setattr(os, "getpid", lambda: number + 1)
    successor = open_shelf(settings, Immediately(), Immediately(), clock.monotonic, lock_fd=fd)
    assert used_by(str(tmp_path)) == number
    successor.claim()
    assert used_by(str(tmp_path)) == number + 1
    assert not successor.set_aside
    successor.close()


GROWS = """
import sys
from tests.disk.test_traps import NOW, WALL, batch
from retter.disk.database import Database
database = Database(sys.argv[1], 64 << 20)
for turn in range(4):
    pages = {f"/{turn}/{n}": bytes([n]) * 1_000_000 + bytes([turn]) for n in range(10)}
    database.commit(batch(pages), [], NOW, WALL)
database.close()
"""


def test_a_store_that_a_successor_makes_larger_than_the_map_is_not_set_aside(
    tmp_path: Path,
) -> None:
    """SIGUSR2 with a larger --store-disk: the process before cannot read it any more."""
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock, store_disk_bytes=1 << 20)
    shelf._database.commit(batch({"/a": b"a"}), [], NOW, clock.wall())
    shelf.start()
    result = child(GROWS, str(tmp_path))
    assert result.returncode == 0, result.stderr
    found: list[dict[bytes, Found]] = []
    shelf.load([b"*a.b/a"], found.append)
    assert found == [{}]
    assert shelf.trouble == "it cannot be read: another process has made it larger"
    assert shelf.is_spared
    shelf.close()
    again = open_at(tmp_path, clock, store_disk_bytes=64 << 20)
    assert not again.set_aside and again._database.entries == 41
    again.close()


def test_a_removal_in_a_store_that_has_become_larger_than_the_map_is_kept_for_the_next_start(
    tmp_path: Path,
) -> None:
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock, store_disk_bytes=1 << 20)
    assert child(GROWS, str(tmp_path)).returncode == 0
    shelf.behind.purge(Purge(b"a.b/0/0", None, None), NOW)
    shelf.tick(NOW)
    assert shelf.is_spared and shelf.figures.commit_failures == 1
    shelf.close()
    again = open_at(tmp_path, clock, store_disk_bytes=64 << 20)
    assert not again.set_aside and again._database.entries == 39
    again.close()


def test_a_successor_with_a_smaller_disk_can_read_what_the_process_before_still_writes(
    tmp_path: Path,
) -> None:
    clock = Clock(NOW)
    before = open_at(tmp_path, clock, store_disk_bytes=64 << 20)
    before._database.commit(batch({"/a": b"a"}), [], NOW, clock.wall())
    how = disk_settings(tmp_path, store_disk_bytes=1 << 20)
    fd, map_bytes = os.dup(before.lock_fd), before._database.map_bytes
    before.close()
    successor = open_shelf(how, Immediately(), Immediately(), clock.monotonic, lock_fd=fd)
    assert successor._database.map_bytes == map_bytes
    assert successor._database.bytes_max == 1 << 20
    successor.close()
    after = open_at(tmp_path, clock, store_disk_bytes=1 << 20)
    assert after._database.map_bytes < 32 << 20
    after.close()


def test_nobody_else_may_look_in(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        _store_pages(tmp_path / "store")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "store").iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert {"data.mdb", "secret", "drops", "lock"} <= set(modes)
    assert (tmp_path / "store").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^store: /proc/1/retter: "):
        open_at("/proc/1/retter", Clock())
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a folder"):
        open_at(tmp_path / "file", Clock())


MOUNTS = (
    "/dev/sda1 / ext4 rw 0 0\nserver:/x /var/data nfs4 rw 0 0\n"
    "/dev/sdb /var/data/local\\040disk xfs rw 0 0\n"
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/data", "nfs4"),
        ("/var/data/store", "nfs4"),
        ("/var/database", "ext4"),
        ("/var/data/local disk/store", "xfs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_mount(path: str, kind: str) -> None:
    assert file_system(path, lambda: MOUNTS) == kind


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("retter.disk.folder.file_system", lambda _: "nfs4")
    with pytest.raises(ConfigError, match=r"network file system \(nfs4\)"):
        open_at(tmp_path, Clock())


def test_a_32_bit_process_is_told_what_it_can_have(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.maxsize", 2**31 - 1)
    with pytest.raises(ConfigError, match="cannot map more than 1GiB"):
        open_at(tmp_path, Clock(), store_disk_bytes=2 << 30)
    open_at(tmp_path, Clock(), store_disk_bytes=1 << 20).close()


# -- a disk that fails, or is slow

FULL = """
import resource, signal, sys
from pathlib import Path
from tests.disk.test_traps import batch, NOW
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
        patched.setattr(shelf._database, "commit", _no_space)
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


def _no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")


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
        patched.setattr(shelf._database, "set_notes", _no_space)
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
        patched.setattr(shelf._database, "commit", _no_space)
        patched.setattr(shelf._database, "set_notes", _no_space)
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
        patched.setattr(shelf._database, "commit", _no_space)
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
    pages = _store_pages(store)
    shelf = open_at(store, Clock(NOW))
    monkeypatch.setattr(shelf._database, "read", _no_disk)
    found: list[Any] = []
    shelf.load([b"*a.b/1"], found.append)
    assert found == [{}]
    assert shelf.trouble == "it cannot be read: Input/output error"
    assert not shelf.knows(b"*a.b/2") and shelf.read(b"*a.b/2", NOW) is None
    monkeypatch.undo()
    shelf.close()
    assert _served(store, pages) == {}, "what it holds is not trusted"
    assert list(tmp_path.glob("store.broken-*/data.mdb"))


def _no_disk(*_: Any) -> None:
    raise OSError(5, "Input/output error")


def test_what_was_not_read_lately_is_read_in_a_thread(tmp_path: Path) -> None:
    """Its pages are not in memory: the kernel would fetch them while every client waits."""
    _store_pages(tmp_path)
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
    _store_pages(tmp_path)
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
    _store_pages(tmp_path)
    writer = Later()
    shelf = open_at(tmp_path, Clock(NOW), writer=writer)
    assert shelf.is_slow(b"*a.b/1") and shelf.is_slow(b"*a.b/not-there")
    writer.work()
    assert shelf.is_slow(b"*a.b/1") and not shelf.is_slow(b"*a.b/not-there")
    shelf.close()


def test_a_record_that_is_somebody_elses_is_not_there(tmp_path: Path, monkeypatch: Any) -> None:
    """Two keys with one hash: the whole key is compared."""
    _store_pages(tmp_path)
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
    _store_pages(tmp_path)
    database = Database(str(tmp_path), 1 << 20)
    one, other = database.slot_key(b"*a.b/1"), database.slot_key(b"*a.b/2")
    with database._env.begin(write=True) as txn:
        txn.put(one, txn.get(other, db=database._trees.records) or b"", db=database._trees.records)
    with pytest.raises(Damaged):
        database.read(one, NOW, WALL, 1e9)
    database.close()


def test_what_changes_while_the_disk_is_listed_is_known_as_it_is_now(tmp_path: Path) -> None:
    """The list is made in a thread, into a table of its own, and found on the loop all at once."""
    pages = _store_pages(tmp_path)
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
    _store_pages(tmp_path)
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


# -- what else may differ from one start to the next


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
    pages = _store_pages(tmp_path)
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
    served = _served(tmp_path, {**pages, "/new": b"new"})
    assert served.keys() == (pages.keys() | {"/new"} if jump_s > -86400.0 else pages.keys())


def test_a_clock_that_jumps_a_year_ahead_makes_all_of_it_too_old(tmp_path: Path) -> None:
    """`--max-stale` holds in either case. When it is set right, what was not swept is back."""
    pages = _store_pages(tmp_path)
    clock = Clock(NOW)
    clock.wall_offset += 365 * 86400.0
    shelf = open_at(tmp_path, clock)
    found: list[dict[bytes, Found]] = []
    shelf.load([b"*a.b/1"], found.append)
    assert found == [{}]
    shelf.close()
    assert _served(tmp_path, pages) == pages


def test_readers_that_are_killed_are_looked_for_every_hour(tmp_path: Path) -> None:
    clock = Clock(NOW)
    shelf = open_at(tmp_path, clock)
    assert child(HOLDS, str(tmp_path), "kill").returncode == -signal.SIGKILL
    shelf.tick(clock.now + 3599.0)
    assert (shelf.figures.stale_readers, _readers(shelf._database)) == (0, 1)
    shelf.tick(clock.now + 3601.0)
    assert (shelf.figures.stale_readers, _readers(shelf._database)) == (1, 0)
    shelf.close()


@pytest.mark.parametrize("number", [28, 30, 13])
def test_a_disk_that_cannot_be_written_at_the_start_is_one_line(
    tmp_path: Path, monkeypatch: Any, number: int
) -> None:
    """No space, read-only, not allowed: RETTER does not start as if it would keep anything."""
    _store_pages(tmp_path)
    opened = os.open

    def refused(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(path).startswith(str(tmp_path)) and flags & os.O_RDWR:
            raise OSError(number, os.strerror(number), path)
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ConfigError) as refusal:
        open_at(tmp_path, Clock())
    assert str(refusal.value) == f"store: {tmp_path}/lock: {os.strerror(number)}"


@pytest.mark.parametrize("name", ["lock", "reading", "drops"])
def test_a_file_of_the_store_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    _store_pages(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError) as refused:
        open_at(tmp_path, Clock())
    assert str(refused.value) == f"store: {tmp_path}/{name}: Is a directory"


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_a_file_that_the_database_may_not_open_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """LMDB itself says no name."""
    _store_pages(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: not os.fsdecode(path).endswith(name))
    denied = PermissionError(13, os.strerror(13))
    assert str(cannot_use(str(tmp_path), denied)) == f"store: {tmp_path}/{name}: Permission denied"


def test_a_folder_that_cannot_be_made_is_named_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as refused:
        open_at(tmp_path / "file" / "store", Clock())
    assert str(refused.value) == f"store: {tmp_path}/file/store: Not a directory"


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


def test_a_folder_that_others_could_look_into_is_closed_to_them(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    open_at(store, Clock()).close()
    assert store.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("names", "refused"),
    [(["mail", "lock"], True), (["lost+found"], False), (["cache", "secret"], False)],
)
def test_a_folder_that_others_use_is_not_closed_to_them(
    tmp_path: Path, names: list[str], refused: bool
) -> None:
    """As with `--store /var/lib`, in place of a folder in it."""
    folder = tmp_path / "lib"
    folder.mkdir(mode=0o755)
    for name in names:
        (folder / name).touch()
    if refused:
        with pytest.raises(ConfigError, match="holds files of others; name a folder that is new"):
            open_at(folder, Clock())
        assert folder.stat().st_mode & 0o777 == 0o755
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    else:
        open_at(folder, Clock()).close()
        assert folder.stat().st_mode & 0o777 == 0o700


def test_files_that_others_could_read_are_closed_to_them(tmp_path: Path) -> None:
    """As after a copy, or from a backup. Files of others stay as they are."""
    _store_pages(tmp_path)
    (tmp_path / "drops-1").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "learnt").unlink(missing_ok=True)
    (tmp_path / "learnt").symlink_to(tmp_path / "notes.txt")
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    shelf = open_at(tmp_path, Clock(NOW))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    shelf.close()
    assert {modes.pop("notes.txt"), modes.pop("learnt")} == {0o644}
    assert {"data.mdb", "lock.mdb", "secret", "drops", "lock", "reading"} <= set(modes)
    assert set(modes.values()) == {0o600}, modes


def test_a_path_that_is_no_text_is_a_path(tmp_path: Path) -> None:
    """With LC_ALL=C, so is each path that is not ASCII."""
    store = os.fsdecode(os.fsencode(tmp_path) + b"/k\xe4se \xff")
    pages = _store_pages(Path(store))
    assert _served(Path(store), pages) == pages


def test_a_full_disk_without_the_file_of_readers_is_one_clear_line(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """LMDB makes that file and writes to its map, which would kill the process."""
    pages = _store_pages(tmp_path)
    (tmp_path / "lock.mdb").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", _no_space)
        with pytest.raises(ConfigError, match=r"^store: .*: No space left on device$"):
            open_at(tmp_path, Clock(NOW))
    assert _served(tmp_path, pages) == pages, "there is room again"
    file = (tmp_path / "lock.mdb").stat()
    assert file.st_blocks * 512 >= file.st_size
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", _no_space)
        assert _served(tmp_path, pages) == pages, "the file has its room"
