"""The folder of the store of several workers: prepared by their supervisor, opened by each of them.

drops-N  removals of the worker at place N since its last commit (journal.py)
"""

import contextlib
import os
import time
from collections.abc import Callable
from typing import Final

from retter.base.shared_memory import places_of
from retter.base.worker_place import WorkerPlace
from retter.config.settings import ConfigError, Settings
from retter.disk.database import Database
from retter.disk.environment import READERS_MAX, Damaged
from retter.disk.folder import LOOP, Folder, cannot_use, file_system
from retter.disk.journal import Journal
from retter.disk.news import News
from retter.disk.opening import OF_WORKERS, open_in
from retter.disk.shared_shelf import SharedShelf
from retter.disk.threads import Threads

# File systems without a disk: no read takes long.
IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))


def readers_max(workers: int) -> int:
    """Return how many threads may read at the same time: three of each process."""
    return READERS_MAX + 3 * places_of(workers)


class _NoThread:
    """The supervisor has no thread, and needs none."""

    def submit(self, job: Callable[[], object], done: Callable[[object], None]) -> None:
        raise AssertionError("the supervisor writes at once")

    def close(self) -> None:
        """Do nothing."""


def prepare(
    settings: Settings,
    workers: int,
    on_set_aside: Callable[[str], None] = lambda why: None,
    on_drops_damaged: Callable[[], None] = lambda: None,
) -> int:
    """Make the folder of `settings.store` ready for workers; return the descriptor of its lock.

    Removals that an earlier RETTER has not committed are made now. The database is closed
    again: it must not be open in a process that forks.

    Args:
        on_set_aside: Called with the reason if a broken database was set aside.
        on_drops_damaged: Called if everything was removed, because removals could not be read.

    Raises:
        ConfigError: The folder cannot be used.
    """
    folder = Folder(settings.store, settings.store_disk_bytes)
    lock_fd = os.dup(folder.lock_fd)
    os.set_inheritable(lock_fd, False)
    thread = _NoThread()
    try:
        shelf = open_in(
            folder, settings, thread, thread, time.monotonic, readers_max=readers_max(workers)
        )
    except OSError as error:
        folder.close()
        os.close(lock_fd)
        raise cannot_use(settings.store, error) from None
    except ConfigError:
        folder.close()
        os.close(lock_fd)
        raise
    shelf.close()
    if shelf.set_aside:
        on_set_aside(shelf.set_aside)
    if shelf.drops_damaged:
        on_drops_damaged()
    return lock_fd


def open_shared(
    settings: Settings,
    place: WorkerPlace,
    reader: Threads,
    writer: Threads,
    clock: Callable[[], float],
    *,
    faults: bool = False,
) -> SharedShelf:
    """Open the database in a worker, and commit the removals of an earlier process at its place.

    Raises:
        ConfigError: The folder cannot be used.
    """
    news = News(place.shared, place.place)
    folder = Folder(
        settings.store,
        settings.store_disk_bytes,
        lock_fd=os.dup(place.store_lock_fd),
        faults=faults,
        place=place.place,
    )
    with contextlib.ExitStack() as opened:
        opened.callback(folder.close)
        try:
            secret, _ = folder.secret()
            folder.enter(LOOP)
            database = Database(
                folder.path,
                settings.store_disk_bytes,
                readers_max=readers_max(place.workers),
                map_bytes_min=folder.map_bytes() if place.store_is_lent else 0,
            )
            database.check_readers()  # of processes at this place that were killed
            folder.leave(LOOP)
            opened.callback(database.close)
            journal = Journal(folder.at(f"{OF_WORKERS}{place.place}"))
        except Damaged as error:
            raise ConfigError(f"store: {settings.store}: {error}") from None
        except OSError as error:
            raise cannot_use(settings.store, error) from None
        shelf = SharedShelf(
            folder, database, journal, settings, reader, writer, clock, news,
            leads=place.leads, in_memory=file_system(folder.path) in IN_MEMORY,
        )  # fmt: skip
        opened.pop_all()
    shelf.secret = secret
    if place.leads:  # one of them tells it
        shelf.set_aside = place.store_set_aside
    removals = journal.read()
    shelf.drops_damaged = journal.is_damaged
    removals.add(news.own)
    if removals:
        shelf.behind.begin_with(removals)
        shelf.flush()
    return shelf
