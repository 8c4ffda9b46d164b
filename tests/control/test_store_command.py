"""`retter store`: what it says of a folder, and what it does with it."""

import errno
import faulthandler
import fcntl
import gzip
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import lmdb
import pytest

from retter.config.settings import ConfigError
from retter.control import store_command
from retter.control.store_command import main, main_guarded
from retter.store.policy import identify
from tests.disk.test_failpoints import put
from tests.support.disk import Clock, Lasting, open_at
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, request

PAGES = {b"/": b"<h1>home</h1>", b"/products": b"<h1>all</h1>", b"/old": b"<h1>old</h1>"}


class Now(Clock):
    """A clock whose wall is the real one, since the command looks at that."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_offset = 0.0

    def wall(self) -> float:
        return time.time() + self.wall_offset


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with three public pages, one of them a day old, and a private one."""
    path = tmp_path / "store"
    clock = Now()
    clock.wall_offset = -7200.0
    lasting = Lasting(path, clock)
    put(lasting, b"/old", PAGES[b"/old"])
    lasting.disk.flush()
    clock.wall_offset = 0.0
    put(lasting, b"/", PAGES[b"/"])
    put(lasting, b"/products", PAGES[b"/products"])
    put(lasting, b"/mine", b"of alice" * 1000, ALICE)
    lasting.disk.close()
    return path


def run(capsys: Any, *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    return code, capsys.readouterr().out


def said(capsys: Any, *arguments: str) -> Any:
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def urls(text: str) -> list[str]:
    return [line.split()[-1] for line in text.splitlines()[1:]]


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as refused:
        main(arguments)
    return str(refused.value)


# -- info


def test_info_says_how_much_is_there_and_for_whom(store: Path, capsys: Any) -> None:
    found = said(capsys, "info", "--store", str(store))
    assert (found["urls"], found["everyones"], found["private"]) == (4, 3, 1)
    assert (found["bodies"], found["process"], found["learnt_age_s"]) == (4, 0, None)
    assert found["bytes_max"] == 4 << 20
    assert 0 < found["bytes"] <= found["file_bytes"]
    code, text = run(capsys, "info", "--store", str(store))
    assert code == 0 and "pages    4: 3 everyone's, 1 private\n" in text
    assert max(map(len, text.replace(str(store), "/store").splitlines())) <= 80
    assert "used by  no process\n" in text


def test_info_names_who_uses_it_and_what_was_set_aside(store: Path, capsys: Any) -> None:
    aside = store.parent / "store.broken-20260101T000000"
    aside.mkdir()
    (aside / "data.mdb").write_bytes(bytes(5000))
    (store / "learnt").write_bytes(b"{}")
    fd = os.open(store / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        _, text = run(capsys, "info", "--store", str(store))
        assert "compact: a RETTER uses" in refusal("compact", "--store", str(store))
    finally:
        os.close(fd)
    assert f"used by    process {os.getpid()}\n" in text
    assert f"set aside  {aside}, 4.9 KiB" in text
    assert "written 0 s ago" in text


def test_the_folder_may_be_named_by_a_variable(store: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("RETTER_STORE", str(store))
    assert said(capsys, "info")["urls"] == 4


# -- verify


def test_verify_reads_all_of_it(store: Path, capsys: Any) -> None:
    assert run(capsys, "verify", "--store", str(store)) == (
        0,
        "4 responses read\nno damage was found\n",
    )


def test_verify_names_what_is_damaged_and_compact_removes_it(store: Path, capsys: Any) -> None:
    data = (store / "data.mdb").read_bytes()
    (store / "data.mdb").write_bytes(data.replace(b"of alice", b"of bobby"))
    code, text = run(capsys, "verify", "--store", str(store))
    assert code == 1
    assert text.startswith("4 responses read\ndamaged: a.b/mine\n")
    assert "retter store compact" in text
    assert run(capsys, "compact", "--store", str(store))[0] == 0
    assert run(capsys, "verify", "--store", str(store)) == (
        0,
        "3 responses read\nno damage was found\n",
    )


def test_verify_counts_what_belongs_to_nothing(store: Path, capsys: Any) -> None:
    with lmdb.open(str(store), max_dbs=8) as env:
        bodies, uses, meta = (env.open_db(name) for name in (b"bodies", b"uses", b"meta"))
        with env.begin(write=True) as txn:
            txn.put(b"n" * 16, b"body", db=bodies)
            txn.put(b"n" * 16, b"\1\0\0\0", db=uses)
            txn.put(b"entries", b"17", db=meta)
    code, text = run(capsys, "verify", "--store", str(store))
    assert code == 1
    assert "1 bodies that no response refers to\nthe counts do not agree" in text
    run(capsys, "compact", "--store", str(store))
    assert run(capsys, "verify", "--store", str(store))[0] == 0


def test_a_file_that_is_cut_off_is_damage_and_says_what_to_do(store: Path, capsys: Any) -> None:
    os.truncate(store / "data.mdb", 5 * 4096)
    assert main(["verify", "--store", str(store)]) == 1
    error = capsys.readouterr().err
    assert "the database is damaged: it is cut off: 20480 of" in error
    assert "move data.mdb away" in error
    assert (store / "data.mdb").stat().st_size == 5 * 4096, "nothing is changed"


def test_a_page_that_kills_who_reads_it_is_damage_too(
    store: Path, capfd: Any, monkeypatch: Any
) -> None:
    def dies(_: object) -> None:
        faulthandler.disable()  # of the test itself, which would write a traceback
        os.kill(os.getpid(), signal.SIGBUS)

    monkeypatch.setattr(store_command, "main", dies)
    assert main_guarded(["verify", "--store", str(store)]) == 1
    error = capfd.readouterr().err
    assert error.startswith("retter: store: the database is damaged: reading it ended with SIGBUS")


def test_what_the_guarded_one_says_and_returns_is_passed_on(store: Path, capfd: Any) -> None:
    assert main_guarded(["verify", "--store", str(store)]) == 0
    assert "4 responses read" in capfd.readouterr().out
    assert main_guarded(["verify", "--store", "/nowhere"]) == 2
    assert "retter: store: /nowhere: there is no store" in capfd.readouterr().err
    assert main_guarded(["--help"]) == 0


@pytest.mark.parametrize("action", ["info", "verify", "list"])
def test_an_output_that_takes_nothing_is_one_line(
    store: Path, capfd: Any, monkeypatch: Any, action: str
) -> None:
    with open("/dev/full", "w") as full:
        for output in (full, None):
            monkeypatch.setattr(sys, "stdout", output)
            assert main_guarded([action, "--store", str(store)]) == 1
    monkeypatch.undo()
    assert capfd.readouterr().err == (
        "retter: standard output: No space left on device\n"
        "retter: standard output: Bad file descriptor\n"
    )


# -- list


def test_list_is_a_table_of_all(store: Path, capsys: Any) -> None:
    code, text = run(capsys, "list", "--store", str(store), "--sort", "url")
    assert code == 0
    assert urls(text) == ["a.b/", "a.b/mine", "a.b/old", "a.b/products"]
    assert text.splitlines()[2].split()[:1] == ["200"]
    assert " 7.8 KiB  private   a.b/mine" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (["--prefix", "/"], ["/", "/mine", "/old", "/products"]),
        (["--prefix", "/pro"], ["/products"]),
        (["--prefix", "http://A.B/mine"], ["/mine"]),
        (["--prefix", "http://other.example/"], []),
        (["--owner", "private"], ["/mine"]),
        (["--owner", "everyone", "--prefix", "/m"], []),
        (["--older", "1h"], ["/old"]),
        (["--younger", "1h", "--owner", "everyone"], ["/", "/products"]),
        (["--larger", "1KiB"], ["/mine"]),
        (["--smaller", "1KiB", "--older", "1h"], ["/old"]),
    ],
)
def test_list_goes_by_its_filters(
    store: Path, capsys: Any, filters: list[str], found: list[str]
) -> None:
    listed = said(capsys, "list", "--store", str(store), "--sort", "url", *filters)
    assert [one["url"] for one in listed] == [f"a.b{path}" for path in found]


def test_list_sorts_and_says_what_it_knows(store: Path, capsys: Any) -> None:
    listed = said(capsys, "list", "--store", str(store), "--sort", "size")
    assert listed[0]["url"] == "a.b/mine"
    assert listed[0] | {"age_s": 0} == {
        "url": "a.b/mine",
        "owner": "private",
        "status": 200,
        "age_s": 0,
        "bytes": 8000,
        "coding": "",
        "vary": [],
        "superseded": False,
    }
    by_age = said(capsys, "list", "--store", str(store), "--sort", "age")
    assert by_age[-1]["url"] == "a.b/old" and by_age[-1]["age_s"] >= 7200.0
    assert main(["list", "--store", str(store), "--prefix", "/none"]) == 0
    assert "no stored response matches" in capsys.readouterr().err


# -- export


def test_export_writes_everyones_pages_and_nobodys_own(
    store: Path, tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "site"
    code, text = run(capsys, "export", str(folder), "--store", str(store))
    assert code == 0 and text.startswith(f"3 pages in {folder}")
    assert {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    } == {
        "a.b/index.html": PAGES[b"/"],
        "a.b/products/index.html": PAGES[b"/products"],
        "a.b/old/index.html": PAGES[b"/old"],
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {(one["url"], one["file"]) for one in manifest} == {
        ("a.b/", "a.b/index.html"),
        ("a.b/products", "a.b/products/index.html"),
        ("a.b/old", "a.b/old/index.html"),
    }
    everything = b"".join([path.read_bytes() for path in folder.rglob("*") if path.is_file()])
    assert b"alice" not in everything and b"mine" not in everything


def test_export_decodes_and_says_what_it_left_out(tmp_path: Path, capsys: Any) -> None:
    lasting = Lasting(tmp_path / "store", Now())

    def add(path: bytes, body: bytes, *fields: tuple[bytes, bytes], **how: Any) -> None:
        lasting.clock.now += 1.0
        asked, now = request(target=path), lasting.clock.now
        status = how.pop("status", 200)
        head = response((b"content-type", b"text/css"), *fields, status=status)
        identity = identify(asked, lasting.rules)
        assert lasting.store.put(identity, asked, head, body, now, now, **how)

    add(b"/z.css", gzip.compress(b"b{}"), (b"content-encoding", b"gzip"))
    add(b"/odd.css", b"?", (b"content-encoding", b"compress"))
    add(b"/moved", b"", (b"location", b"/"), status=301)
    add(b"/form.css", b"token for one", incomplete=True)
    add(b"/file.x", b"a file")
    add(b"/file.x/under.css", b"u{}")
    lasting.disk.close()
    folder = tmp_path / "site"
    found = said(capsys, "export", str(folder), "--store", str(tmp_path / "store"))
    assert (folder / "a.b/z.css").read_bytes() == b"b{}"
    left = {one["url"]: one["why"] for one in found["left_out"]}
    clash = left.keys() & {"a.b/file.x", "a.b/file.x/under.css"}
    assert len(clash) == 1 and "another page" in left.pop(clash.pop())
    assert left.keys() == {"a.b/odd.css", "a.b/moved", "a.b/form.css"}
    assert not [path for path in folder.rglob("*") if path.name == "form.css"]
    assert found["pages"] == 2


def test_export_wants_an_empty_folder(store: Path, tmp_path: Path) -> None:
    assert "is not empty" in refusal("export", str(tmp_path), "--store", str(store))
    file = tmp_path / "file"
    file.write_text("")
    assert "File exists" in refusal("export", str(file), "--store", str(store))


# -- compact


def test_compact_keeps_what_is_served_and_frees_the_rest(store: Path, capsys: Any) -> None:
    lasting = Lasting(store, Now())
    for number in range(60):
        put(lasting, b"/gone/%d" % number, os.urandom(12_000))
    lasting.disk.flush()
    lasting.store.invalidation.purge(prefix=b"/gone", now=lasting.clock.now)
    lasting.disk.set_note("rules", {"kept": True})
    lasting.disk.close()
    key = lasting.disk.site_key
    done = said(capsys, "compact", "--store", str(store))
    assert done["bytes_after"] < done["bytes_before"] / 3
    assert (store / "data.mdb").stat().st_mode & 0o777 == 0o600
    assert not (store / "compact.new").exists()
    again = Lasting(store, Now())
    assert again.disk.site_key == key and again.disk.note_of("rules") == {"kept": True}
    assert again.disk.stats()["entries"] == 4
    identity = identify(request(ALICE, target=b"/mine"), again.rules)
    again.look(identity)
    found = again.store.lookup(identity, request(ALICE, target=b"/mine"), again.clock.now)
    assert found is not None and found.body == b"of alice" * 1000
    again.store.invalidation.drop_owner(b"another-owner-16", again.clock.now, identity.marks)
    again.disk.flush()
    assert again.disk.stats()["entries"] == 3, "her marks have come with it"
    again.disk.close()


def test_compact_drops_what_is_too_old(store: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("RETTER_MAX_STALE", "1h")
    _, text = run(capsys, "compact", "--store", str(store))
    assert "3 pages kept, 1 removed" in text


def test_compact_that_finds_no_room_changes_nothing(
    store: Path, capsys: Any, monkeypatch: Any
) -> None:
    before = (store / "data.mdb").read_bytes()

    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retter.disk.database.Database.copy_to", full)
    with pytest.raises(ConfigError, match="No space left on device; nothing has"):
        main(["compact", "--store", str(store)])
    assert (store / "data.mdb").read_bytes() == before
    assert not (store / "compact.new").exists()


# -- asked wrongly


def test_mistakes_are_one_line_that_says_what_to_do(store: Path, tmp_path: Path) -> None:
    assert "which one? Add --store" in refusal("info")
    assert "there is no store; name" in refusal("info", "--store", str(tmp_path / "no"))
    assert "arguments are required: ACTION (info, verify, list, export, compact)" in refusal()
    assert "is not a duration" in refusal("list", "--older", "x", "--store", str(store))
    assert "is not a size" in refusal("list", "--larger", "x", "--store", str(store))
    assert "it is not clear" in refusal("list", "--prefix", "page", "--store", str(store))
    other = tmp_path / "other"
    with lmdb.open(str(other), max_dbs=2) as env, env.begin(write=True) as txn:
        txn.put(b"theirs", b"data")
    assert "of another program" in refusal("info", "--store", str(other))


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "; the list of readers (lock.mdb) needs a few KiB"), (errno.EIO, "")],
)
def test_a_disk_that_is_full_or_broken_is_no_matter_of_who_asks(
    store: Path, monkeypatch: Any, number: int, advice: str
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    (store / "lock.mdb").unlink()
    monkeypatch.setattr(os, "posix_fallocate", refused)
    with pytest.raises(ConfigError) as refusal:
        main(["info", "--store", str(store)])
    assert str(refusal.value) == f"store: {store}: {os.strerror(number)}{advice}"


def test_a_store_of_a_later_version_is_not_read(store: Path, capsys: Any) -> None:
    with lmdb.open(str(store), max_dbs=8) as env:
        db = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"version", b"99", db=db)
    assert main(["list", "--store", str(store)]) == 1
    assert "its format is version 99" in capsys.readouterr().err


def test_looking_does_not_disturb_who_writes(store: Path, capsys: Any) -> None:
    """In the middle of a walk no transaction is open, so pages come back meanwhile."""
    from retter.disk import inspection

    with inspection.opened(str(store)) as database:
        walk = inspection.listed(database, inspection.Filter(), 0.0)
        next(walk)
        assert len(database._env.readers().splitlines()) <= 2
        assert " - " not in database._env.readers()
    open_at(store, Now()).close()
