"""Opens the folder of `--store`, or makes it."""

import contextlib
import time
from collections.abc import Callable
from typing import Final

from retter.config.settings import ConfigError, Settings
from retter.disk.database import Database, no_failpoint
from retter.disk.environment import READERS_MAX, Damaged, Foreign
from retter.disk.folder import LOOP, Folder, cannot_use
from retter.disk.journal import Journal
from retter.disk.shelf import DiskShelf
from retter.disk.threads import Threads

# Journals of several workers begin with this (shared_opening.py).
OF_WORKERS: Final = "drops-"


def open_shelf(
    settings: Settings,
    reader: Threads,
    writer: Threads,
    clock: Callable[[], float],
    *,
    wall: Callable[[], float] = time.time,
    failpoint: Callable[[str], None] = no_failpoint,
    lock_fd: int = -1,
    faults: bool = False,
) -> DiskShelf:
    """Open the folder of `--store`, or make it.

    Raises:
        ConfigError: The folder cannot be used. One line says why, and what to do.
    """
    folder = Folder(settings.store, settings.store_disk_bytes, lock_fd=lock_fd, faults=faults)
    try:
        return open_in(folder, settings, reader, writer, clock, wall=wall, failpoint=failpoint)
    except OSError as error:
        folder.close()
        raise cannot_use(settings.store, error) from None
    except ConfigError:
        folder.close()
        raise


def open_in(
    folder: Folder,
    settings: Settings,
    reader: Threads,
    writer: Threads,
    clock: Callable[[], float],
    *,
    wall: Callable[[], float] = time.time,
    failpoint: Callable[[str], None] = no_failpoint,
    readers_max: int = READERS_MAX,
) -> DiskShelf:
    """Open the database of a folder that belongs to this process.

    Args:
        readers_max: The number of threads that may read at the same time.

    Raises:
        OSError: A file cannot be used.
        ConfigError: The folder cannot be used.
    """
    if why := folder.read("broken", 1000):
        folder.set_aside(why.decode("utf-8", "replace"))
        with contextlib.suppress(OSError):
            folder.remove("broken")
    folder.check_file()
    secret, is_new = folder.secret()
    database = _database(folder, settings, failpoint, readers_max)
    try:
        folder.remember_files()
        journal = Journal(folder.at("drops"))
    except OSError:
        database.close()
        raise
    shelf = DiskShelf(folder, database, journal, settings, reader, writer, clock, wall, failpoint)
    shelf.secret = secret
    shelf.set_aside = folder.set_aside_reason
    removals = journal.read()
    shelf.drops_damaged = journal.is_damaged
    for name in folder.names(OF_WORKERS):  # of an earlier run, which may not have committed them
        of_worker = Journal(folder.at(name))
        removals.add(of_worker.read())
        shelf.drops_damaged = shelf.drops_damaged or of_worker.is_damaged
        of_worker.close()
    # With a new secret, personal entries cannot be found again. With --store-private off, they must
    # not stay. In both cases they are removed.
    removals.personal = removals.personal or is_new or settings.store_private == "off"
    if removals and database.entries:
        shelf.behind.begin_with(removals)
        shelf.flush()
        if not shelf.behind.is_clean:
            shelf.close()
            raise ConfigError(
                f"store: {settings.store}: what was dropped before the last end cannot be removed: "
                f"{shelf.figures.last_failure}"
            )
    for name in folder.names(OF_WORKERS):
        folder.remove(name)
    return shelf


def _database(
    folder: Folder, settings: Settings, failpoint: Callable[[str], None], readers_max: int
) -> Database:
    for _ in range(2):
        folder.enter(LOOP)
        try:
            database = Database(
                folder.path,
                settings.store_disk_bytes,
                failpoint,
                readers_max=readers_max,
                map_bytes_min=folder.map_bytes() if folder.is_lent else 0,
            )
            database.check_readers()
        except Damaged as error:
            folder.set_aside(str(error))
        except Foreign:
            raise ConfigError(
                f"store: {settings.store} holds the database of another program; "
                "take an empty folder"
            ) from None
        else:
            return database
        finally:
            folder.leave(LOOP)
    raise ConfigError(f"store: {settings.store}: a database cannot be made there")
