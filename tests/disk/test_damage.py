"""What is damaged on the disk, and what each damage costs."""

import gc
import os
import signal
from pathlib import Path
from random import Random

import lmdb
import pytest

from retter.disk.folder import LOOP, Folder
from retter.disk.journal import Journal
from retter.disk.shared_opening import prepare
from retter.store.write_behind import Removals
from tests.disk.pages import NOW, child, served_from, store_pages
from tests.support.disk import Clock, disk_settings, open_at


def test_rot_in_a_body_costs_that_page(tmp_path: Path) -> None:
    pages = store_pages(tmp_path)
    data = (tmp_path / "data.mdb").read_bytes()
    at = data.index(b"7 7 7 7 ")
    (tmp_path / "data.mdb").write_bytes(data[:at] + b"X" + data[at + 1 :])
    served = served_from(tmp_path, pages)
    assert served == {page: body for page, body in pages.items() if page != "/7"}
    shelf = open_at(tmp_path, Clock(NOW))
    assert shelf.stats()["entries"] == len(pages) - 1, "it is removed"
    shelf.close()


def test_rot_in_many_pages_takes_no_place_of_a_reader(tmp_path: Path) -> None:
    """There are 32 places, and the garbage collector may come late or never."""
    pages = store_pages(tmp_path, 40)
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
from tests.disk.pages import served_from
pages = {f"/{n}": b"%d " % n * 3000 for n in range(20)}
for folder in sys.argv[1:]:
    for _ in range(3):
        if pid := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            continue
        served = served_from(Path(folder), pages)
        os._exit(any(pages[page] != body for page, body in served.items()))
"""


def test_rot_anywhere_is_never_served(tmp_path: Path) -> None:
    """Flipped bits all over the file: a page is whole or it is not there, and nothing loops.

    Each opens it in a process of its own, which may die of it once and no third time.
    """
    store_pages(tmp_path / "store")
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
    pages = store_pages(store)
    data = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data[: int(share * len(data))])
    assert served_from(store, pages) == {}
    broken = list(tmp_path.glob("store.broken-*/data.mdb"))
    assert len(broken) == bool(share), "an empty file is nothing to keep"
    assert store_pages(store) == served_from(store, pages), "and a new one is begun"


def test_one_broken_database_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for turn in range(3):
        pages = store_pages(store)
        (tmp_path / f"store.broken-2026010{turn}T000000").mkdir()
        (store / "data.mdb").write_bytes(b"no database" * 1000)
        served_from(store, pages)
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
    shelf._database.check_length = lambda: None  # a disk that cannot read a page, not a short file
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
    store_pages(store)
    assert child(DIES, str(store), "bus").returncode == -signal.SIGBUS
    # The file is as long as its header says: nothing but the marker tells.
    os.truncate(store / "data.mdb", 10_000_000)
    shelf = open_at(store, Clock(NOW))
    assert shelf.set_aside == "a process died while it read the database"
    assert shelf.stats()["entries"] == 0
    shelf.close()
    assert open_at(store, Clock(NOW)).set_aside == "", "said once"


CUT_OFF = """
import os, sys
from tests.disk.pages import NOW
from tests.support.disk import Clock, open_at
clock = Clock(NOW)
shelf = open_at(sys.argv[1], clock)
shelf.load([b"*a.b/1"], lambda found: None)
assert shelf.read(b"*a.b/1", NOW), "it is read at once from now on"
os.truncate(sys.argv[1] + "/data.mdb", 8192)
if sys.argv[2] == "tick":
    shelf.tick(NOW)
    assert shelf.read(b"*a.b/1", NOW) is None
elif sys.argv[2] == "write":
    shelf.behind.drop_personal(NOW)
    shelf.flush()
    shelf.tick(NOW)
for number in range(2, 20):
    shelf.load([b"*a.b/%d" % number], lambda found: found and sys.exit("from where?"))
print(shelf.trouble)
shelf.close()
"""


@pytest.mark.parametrize("first", ["tick", "read", "write"])
def test_a_file_that_is_cut_off_while_it_is_used_does_not_kill(tmp_path: Path, first: str) -> None:
    """It is left; the next start sets it aside."""
    store = tmp_path / "store"
    store_pages(store)
    done = child(CUT_OFF, str(store), first)
    assert done.stdout == "it cannot be read: somebody has cut it off\n", (done.returncode, done)
    assert done.returncode == 0
    shelf = open_at(store, Clock(NOW))
    assert shelf.set_aside == "it cannot be read: somebody has cut it off"
    shelf.close()


def test_a_process_that_was_killed_while_it_read_costs_nothing(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pages = store_pages(store)
    assert child(DIES, str(store), "kill").returncode == -signal.SIGKILL
    assert (store / "reading").read_bytes()[0] == 1, "it was inside"
    assert served_from(store, pages) == pages
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
    store_pages(store)
    with lmdb.open(str(store), max_dbs=8) as env:
        db = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"version", b"%d" % version, db=db)
    shelf = open_at(store, Clock())
    assert shelf.set_aside == f"its format is version {version}"
    shelf.close()


def noted(file: Path, *keys: bytes) -> list[int]:
    """Note removals of keys in a journal; return where each of them begins."""
    journal = Journal(str(file))
    journal.read()
    begins = []
    for key in keys:
        begins.append(journal._end)
        journal.note(Removals(keys={key}))
    journal.close()
    return begins


def read_from(file: Path) -> tuple[Removals, bool]:
    journal = Journal(str(file))
    removals = journal.read()
    journal.close()
    return removals, journal.is_damaged


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("at", [0, 2, 4, 8, 9, 15])  # length, checksum, text
def test_a_damaged_removal_among_others_removes_everything(tmp_path: Path, at: int) -> None:
    """What it removed is not known. Nor would be what those behind it removed."""
    drops = tmp_path / "drops"
    begins = noted(drops, b"*a.b/1", b"*a.b/2", b"*a.b/3")
    flip(drops, begins[1] + at)
    removals, is_damaged = read_from(drops)
    assert is_damaged
    assert removals.everything
    assert removals.keys <= {b"*a.b/1", b"*a.b/3"}

    # What is noted after that overwrites none of them.
    noted(drops, b"*a.b/4")
    assert read_from(drops)[1]


def test_what_is_left_of_earlier_removals_is_no_damage(tmp_path: Path) -> None:
    drops = tmp_path / "drops"
    journal = Journal(str(drops))
    for turn in range(3):
        for number in range(9 - turn):
            journal.note(Removals(keys={b"*a.b/" + b"x" * (number + turn)}))
        journal.clear()
    assert read_from(drops) == (Removals(), False)
    journal.note(Removals(superseded={b"*a.b/1"}))
    assert read_from(drops) == (Removals(superseded={b"*a.b/1"}), False)

    # A journal without room begins anew, in front of what is there.
    for number in range(30):
        journal.note(Removals(keys={b"*a.b/%d/" % number + b"x" * 10_000}))
    removals, is_damaged = read_from(drops)
    assert (removals.everything, is_damaged) == (True, False)
    journal.close()


@pytest.mark.parametrize("name", ["drops", "drops-1"], ids=["alone", "of a worker"])
def test_a_damaged_removal_is_said(tmp_path: Path, name: str) -> None:
    pages = store_pages(tmp_path)
    begins = noted(tmp_path / name, b"*a.b/1", b"*a.b/2")
    flip(tmp_path / name, begins[0] + 12)
    shelf = open_at(tmp_path, Clock(NOW))
    assert shelf.drops_damaged
    assert shelf.stats()["entries"] == 0
    shelf.close()
    shelf = open_at(tmp_path, Clock(NOW))
    assert not shelf.drops_damaged, "once"
    shelf.close()
    assert served_from(tmp_path, store_pages(tmp_path)) == pages


def test_a_damaged_removal_is_said_where_there_are_workers(tmp_path: Path) -> None:
    store_pages(tmp_path)
    begins = noted(tmp_path / "drops-0", b"*a.b/1", b"*a.b/2")
    flip(tmp_path / "drops-0", begins[0] + 12)
    said: list[str] = []
    os.close(prepare(disk_settings(tmp_path), 2, said.append, lambda: said.append("damaged")))
    assert said == ["damaged"]
