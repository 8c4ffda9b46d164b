"""Rewrites the database without free space and without old or damaged entries."""

import contextlib
import os
import shutil
from collections.abc import Callable
from typing import NamedTuple

from retter.config.settings import ConfigError
from retter.disk.database import Database
from retter.disk.environment import Damaged, Foreign, Full
from retter.disk.folder import DATA, Folder

NEW = "compact.new"


class Compacted(NamedTuple):
    """The result of compacting."""

    bytes_before: int
    bytes_after: int
    entries_before: int
    entries_after: int


def compact(
    path: str, bytes_max: int, wall: float, max_stale_s: float, on_copied: Callable[[int], None]
) -> Compacted:
    """Write a copy and replace the database by it.

    If the process is killed, the folder has either the old database or the new one.

    Args:
        bytes_max: The size of `--store-disk`. The copy has room for all entries in any case.
        on_copied: Called from time to time with the number of copied octets.

    Raises:
        ConfigError: A RETTER uses the folder, or the folder cannot be written.
        Damaged: The database cannot be read.
    """
    folder = Folder(path, 0)
    new = folder.at(NEW)
    try:
        if folder.set_aside_reason:
            raise Damaged(f"{folder.set_aside_reason}; it has been set aside")
        shutil.rmtree(new, ignore_errors=True)
        os.mkdir(new, 0o700)
        owner = os.stat(folder.at(DATA))
        before = owner.st_size
        entries = _copy(folder.path, new, max(bytes_max, before // 2), wall, max_stale_s, on_copied)
        after = os.stat(os.path.join(new, DATA)).st_size
        with contextlib.suppress(FileNotFoundError):
            os.unlink(folder.at("lock.mdb"))  # it belongs to the replaced file
        os.replace(os.path.join(new, DATA), folder.at(DATA))
        for name in (DATA, "lock", "reading"):  # RETTER could not open files that root owns
            with contextlib.suppress(OSError):
                os.chown(folder.at(name), owner.st_uid, owner.st_gid)
        _sync(folder.path)
    except (OSError, Full) as error:
        why = error.strerror if isinstance(error, OSError) else "the copy has no room"
        raise ConfigError(f"store: {path}: {why}; nothing has changed") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
        folder.close()
    return Compacted(before, after, *entries)


def _copy(
    path: str,
    new: str,
    bytes_max: int,
    wall: float,
    max_stale_s: float,
    on_copied: Callable[[int], None],
) -> tuple[int, int]:
    try:
        source = Database(path, 0, readonly=True)
    except Foreign:
        raise ConfigError(f"store: {path} holds the database of another program") from None
    target = Database(new, bytes_max)
    with contextlib.closing(source), contextlib.closing(target):
        done = 0
        for octets in source.copy_to(target, wall, max_stale_s):
            done += octets
            on_copied(done)
        target.keep_size()
        target.sync()
        return source.entries, target.entries


def _sync(path: str) -> None:
    """Make the renaming of a file permanent on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
