"""The folder of a store: whose it is, who may look in, and what else may lie there."""

import os
from errno import EISDIR, ELOOP, ENOENT
from pathlib import Path
from typing import Any

import lmdb
import pytest

from retter.config.settings import ConfigError
from retter.disk.folder import cannot_use, file_system
from retter.disk.inspection import used_by
from retter.disk.opening import open_shelf
from retter.store.write_behind import Found, Purge
from tests.disk.pages import NOW, batch, child, no_space, served_from, store_pages
from tests.support.disk import Clock, Immediately, disk_settings, open_at


def test_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    (tmp_path / "sub").mkdir()
    pages = store_pages(tmp_path)
    assert served_from(tmp_path, pages) == pages
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
from tests.disk.pages import NOW, WALL, batch
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
        store_pages(tmp_path / "store")
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


@pytest.mark.parametrize("number", [28, 30, 13])
def test_a_disk_that_cannot_be_written_at_the_start_is_one_line(
    tmp_path: Path, monkeypatch: Any, number: int
) -> None:
    """No space, read-only, not allowed: RETTER does not start as if it would keep anything."""
    store_pages(tmp_path)
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
    store_pages(tmp_path)
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
    store_pages(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, _: not os.fsdecode(path).endswith(name))
    denied = PermissionError(13, os.strerror(13))
    assert str(cannot_use(str(tmp_path), denied)) == f"store: {tmp_path}/{name}: Permission denied"


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
@pytest.mark.parametrize("target", ["itself", "nowhere", "folder"])
def test_a_file_of_the_database_that_cannot_be_opened_is_no_damage(
    tmp_path: Path, name: str, target: str
) -> None:
    """The database is not set aside for it: it may be whole, and nothing else would say why."""
    store = tmp_path / "store"
    pages = store_pages(store)
    file, kept = store / name, tmp_path / "kept"
    file.rename(kept)
    if target == "folder":
        file.mkdir()
    else:
        file.symlink_to(file if target == "itself" else tmp_path / "away" / "file")
    with pytest.raises(ConfigError) as refused:
        open_at(store, Clock(NOW))
    why = {"itself": ELOOP, "nowhere": ENOENT, "folder": EISDIR}[target]
    where = {str(store / name), str(store.resolve() / name)}
    assert str(refused.value) in {f"store: {one}: {os.strerror(why)}" for one in where}
    assert not list(tmp_path.glob("store.broken-*"))

    file.rmdir() if target == "folder" else file.unlink()
    kept.rename(file)
    assert served_from(store, pages) == pages


LIMITED = """
import resource, sys
from tests.disk.pages import NOW
from tests.support.disk import Clock, open_at
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
open_at(sys.argv[1], Clock(NOW), store_disk_bytes=1 << 30)
"""


def test_too_little_address_space_does_not_cost_the_database(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pages = store_pages(store)
    refused = child(LIMITED, str(store))
    assert refused.stderr.splitlines()[-1].endswith(
        f"store: {store}: Cannot allocate memory; it needs twice --store-disk of address space "
        "(ulimit -v)"
    )
    assert not list(tmp_path.glob("store.broken-*"))
    assert served_from(store, pages) == pages


def test_a_folder_that_cannot_be_made_is_named_alone(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as refused:
        open_at(tmp_path / "file" / "store", Clock())
    assert str(refused.value) == f"store: {tmp_path}/file/store: Not a directory"


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
    store_pages(tmp_path)
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
    pages = store_pages(Path(store))
    assert served_from(Path(store), pages) == pages


def test_a_full_disk_without_the_file_of_readers_is_one_clear_line(
    tmp_path: Path, monkeypatch: Any
) -> None:
    """LMDB makes that file and writes to its map, which would kill the process."""
    pages = store_pages(tmp_path)
    (tmp_path / "lock.mdb").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_space)
        with pytest.raises(ConfigError, match=r"^store: .*: No space left on device$"):
            open_at(tmp_path, Clock(NOW))
    assert served_from(tmp_path, pages) == pages, "there is room again"
    file = (tmp_path / "lock.mdb").stat()
    assert file.st_blocks * 512 >= file.st_size
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", no_space)
        assert served_from(tmp_path, pages) == pages, "the file has its room"
