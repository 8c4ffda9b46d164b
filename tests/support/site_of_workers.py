"""A site behind several workers: each request comes to another one than the request before.

Their database is an object here: LMDB cannot be opened twice in one process.
"""

from itertools import cycle
from typing import Any

from retter.base.shared_memory import bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.disk.news import News
from retter.disk.shared_behind import SharedBehind, follow
from retter.proxy.secrets import Secrets
from retter.proxy.ticker import TICK_S
from retter.store.shared_store import SharedStore
from retter.store.write_behind import Batch, Found, Removals, marked_superseded
from tests.support.harness import FakeLoop, FakeProxy
from tests.support.site import Application, Got, Site


class SharedDatabase:
    """The database as all workers see it: one of them writes at a time, and a write is whole."""

    def __init__(self) -> None:
        self.slots: dict[bytes, Found] = {}

    def write(self, batch: Batch) -> None:
        for key, found in list(self.slots.items()):
            if batch.removals.take(key, found.marks):
                del self.slots[key]
            elif key in batch.removals.superseded:
                self.slots[key] = Found(marked_superseded(found.slot), found.marks)
        for key, written in batch.slots.items():
            self.slots.pop(key, None)
            if written.slot:
                self.slots[key] = Found(written.slot, written.marks)

    # -- the interface of a shelf

    def read(self, key: bytes, now: float) -> Found | None:
        return self.slots.get(key)

    def knows(self, key: bytes) -> bool:
        return key in self.slots

    def note(self, removals: Removals) -> None:
        pass


class Worker(FakeProxy):
    """One of the workers; time passes for all of them.

    Attributes:
        crew: All of them.
    """

    crew: list["Worker"]

    def share(self, database: SharedDatabase) -> None:
        """Put the database of all workers behind the store."""
        store = self.services.store
        assert isinstance(store, SharedStore) and isinstance(store.news, News)
        self.database = database
        self.behind = SharedBehind(database, store.news)
        store.put_behind(self.behind)
        follow(store, store.news, self.behind)

    def commit(self) -> None:
        """Write what waits to the database."""
        batch = self.behind.take(self.loop.now)
        if batch is not None:
            self.database.write(self.behind.still_valid(batch))
            self.behind.done()

    def forget(self) -> None:
        """Drop what is near this worker: it is in the database."""
        store = self.services.store
        store.invalidation.drop_keys(list(store.shelves.slots))
        store.shelves.free_all()
        while store.shelves._hidden:
            store.free_some()

    def advance(self, seconds: float) -> None:
        end = self.loop.now + seconds
        while self.loop.now < end - 1e-9:
            self.loop.now = min(end, self.loop.now + TICK_S)
            for one in self.crew:
                one.proxy.ticker.tick(self.loop.now)
                one.settle()


class SiteOfWorkers(Site):
    """The same as `Site`. What a worker stores is in the database at once."""

    def __init__(self, application: Application, workers: int = 2, **settings: Any) -> None:
        settings.setdefault("connect_hold_s", 0.0)
        super().__init__(application, **settings)
        loop, secrets, database = FakeLoop(), Secrets(), SharedDatabase()
        self.shared = divided(memoryview(bytearray(bytes_for(workers))), workers)
        self.crew: list[Worker] = []
        for index in range(workers):
            place = WorkerPlace(index, workers, index, self.shared)
            one = Worker(own_loop=loop, secrets=secrets, place=place, **settings)
            one.share(database)
            one.crew = self.crew
            self.crew.append(one)
        self._turns = cycle(self.crew)
        self.proxy = self.crew[0]

    def ask(self, target: str = "/", **how: Any) -> Got:
        """Ask the next worker, unless `client` is connected to one."""
        if how.get("client") is None:
            self.proxy = next(self._turns)
        got = super().ask(target, **how)
        for one in self.crew:
            one.commit()
        return got

    def goes_down(self) -> None:
        """From now on nothing listens there."""
        for one in self.crew:
            self.proxy = one
            super().goes_down()
