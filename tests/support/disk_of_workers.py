"""Two workers of one process with one store on a disk: LMDB cannot be opened twice in a process."""

import os
from pathlib import Path
from typing import Any

import pytest

from retter.base.shared_memory import SharedMemory, bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.disk import shared_opening
from retter.disk.database import Database
from retter.disk.shared_behind import follow
from retter.disk.shared_opening import open_shared, prepare
from retter.http.message import RequestHead
from retter.store.rules import StoreRules
from retter.store.shared_store import SharedStore
from tests.support.disk import Clock, Immediately, disk_settings
from tests.support.stores import SECRET, who

TICK_S = 0.05


class OneOfTwo:
    """A database that is open once in this process, as one of its two users sees it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.still_valid: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def commit(self, *what: Any) -> Any:
        self._database.still_valid, self._database.joins = self.still_valid, True
        return self._database.commit(*what)

    def close(self) -> None:
        """Whoever has opened it closes it."""


class Crew:
    """Two workers with one store, in this process."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.shared: SharedMemory = divided(memoryview(bytearray(bytes_for(2))), 2)
        self.settings = disk_settings(path)
        self.lock_fd = prepare(self.settings, 2)
        self.database = Database(str(path), self.settings.store_disk_bytes)
        monkeypatch.setattr(shared_opening, "Database", lambda *_, **__: OneOfTwo(self.database))
        self.workers = [Worker(self, place) for place in range(2)]
        self.beat()

    def beat(self) -> None:
        for worker in self.workers:
            self.shared.beat(worker.place, self.clock.now)

    def tick(self, *places: int, count: int = 3) -> None:
        for _ in range(count):
            self.clock.now += TICK_S
            for place in places or (0, 1):
                self.workers[place].shelf.tick(self.clock.now)

    def close(self) -> None:
        for worker in self.workers:
            worker.shelf.close()
        self.database.close()
        os.close(self.lock_fd)


class Worker:
    """A worker."""

    def __init__(self, crew: Crew, place: int) -> None:
        where = WorkerPlace(place, 2, place, crew.shared, crew.lock_fd)
        self.place, self.clock = place, crew.clock
        self.writer = Immediately()
        self.shelf = open_shared(
            crew.settings, where, Immediately(), self.writer, crew.clock.monotonic
        )
        self.shelf._wall = crew.clock.wall
        self.store = SharedStore(StoreRules(secret=SECRET), self.shelf.news)
        self.store.put_behind(self.shelf.behind)
        follow(self.store, self.shelf.news, self.shelf.shared_behind)

    def has(self, asked: RequestHead) -> bool:
        return self.store.find(who(asked), asked, self.clock.now) is not None
