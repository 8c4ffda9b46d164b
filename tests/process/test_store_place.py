"""Where the store is that several workers share."""

import os
from pathlib import Path

import pytest

from retter.config.settings import ConfigError, Settings
from retter.process import store_place
from retter.process.store_place import PREFIX, StorePlace, place_of

MIB = 1 << 20


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /dev/shm."""
    monkeypatch.setattr(store_place, "MEMORY", str(tmp_path))
    return tmp_path


def test_a_named_folder_is_used_and_stays(tmp_path: Path) -> None:
    place = place_of(Settings(upstream=":1", store=str(tmp_path), store_disk_bytes=7 * MIB))
    assert place == StorePlace(str(tmp_path), 7 * MIB)
    place.remove()
    assert tmp_path.is_dir()


def test_without_a_name_it_is_in_memory_and_within_its_budget(memory: Path) -> None:
    place = place_of(Settings(upstream=":1", store_memory_bytes=64 * MIB))
    assert Path(place.path).parent == memory and place.temporary
    assert 2 * place.bytes_max == 48 * MIB, "a quarter is near the workers"
    assert os.stat(place.path).st_mode & 0o777 == 0o700
    place.remove()
    assert list(memory.iterdir()) == []


def test_a_folder_of_the_supervisor_before_is_used_again(memory: Path) -> None:
    place = place_of(Settings(upstream=":1"), "/somewhere")
    assert place.path == "/somewhere" and place.temporary
    assert list(memory.iterdir()) == []


def test_memory_that_is_too_small_is_not_used(
    memory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    place = place_of(Settings(upstream=":1", store_memory_bytes=1 << 50))
    assert Path(place.path).parent == elsewhere


def test_without_a_memory_file_system_the_temporary_folder_is_used(
    memory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(store_place, "MEMORY", str(memory / "nowhere"))
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))
    assert Path(place_of(Settings(upstream=":1")).path).parent == elsewhere


def test_what_a_killed_supervisor_left_behind_is_removed_and_nothing_else(memory: Path) -> None:
    left, other, unlocked = memory / f"{PREFIX}a", memory / "other", memory / f"{PREFIX}b"
    for folder in (left, other, unlocked):
        folder.mkdir()
    (left / "lock").write_text("1")
    (other / "lock").write_text("1")
    place = place_of(Settings(upstream=":1"))
    names = {one.name for one in memory.iterdir()}
    assert names == {"other", unlocked.name, Path(place.path).name}, "one begins just now"


def test_a_folder_that_its_supervisor_removes_meanwhile_is_no_obstacle(
    memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir
    gone = memory / f"{PREFIX}gone"
    gone.mkdir()

    def seen(folder: str) -> list[os.DirEntry[str]]:
        found = list(scandir(folder))
        gone.rmdir()
        return found

    monkeypatch.setattr(os, "scandir", seen)
    place = place_of(Settings(upstream=":1", store_memory_bytes=64 * MIB))
    monkeypatch.undo()
    assert Path(place.path).parent == memory
    place.remove()


def test_without_a_store_there_is_no_folder(memory: Path) -> None:
    settings = Settings(upstream=":1", store_memory_bytes=0, store_object_bytes_max=0)
    assert place_of(settings) == StorePlace("", 0)
    assert list(memory.iterdir()) == []


def test_without_its_package_several_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(ConfigError, match=r"retter\[store\]"):
        place_of(Settings(upstream=":1"))
