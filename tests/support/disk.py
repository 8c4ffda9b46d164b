"""A store with a disk behind it, whose threads and clocks are the test's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from retter.config.settings import Settings
from retter.disk.database import no_failpoint
from retter.disk.opening import open_shelf
from retter.disk.shelf import DiskShelf
from retter.store.owner import OwnerRules
from retter.store.policy import Identity
from retter.store.store import ResponseStore, StoreRules

EPOCH = 1_700_000_000.0  # what the wall clock shows at 0 of the other


class Clock:
    """Monotonic seconds, and the wall clock, which may jump."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.wall_offset = EPOCH

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset


class Immediately:
    """A thread that is done before anybody has looked."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        try:
            result = job()
        except Exception as error:  # noqa: BLE001 - the result, as a thread's is
            result = error
        done(result)

    def finish(self, last: Callable[[], None], seconds: float) -> bool:
        last()
        return True

    def close(self) -> None:
        pass


class Later:
    """A thread that works when the test lets it."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.jobs.append((job, done))

    def work(self) -> int:
        """Do all that waits; return how much that was."""
        jobs, self.jobs = self.jobs, []
        for job, done in jobs:
            Immediately().submit(job, done)
        return len(jobs)

    def finish(self, last: Callable[[], None], seconds: float) -> bool:
        self.jobs.clear()
        last()
        return True

    def close(self) -> None:
        self.jobs.clear()


def disk_settings(path: Path | str, **changes: Any) -> Settings:
    changes.setdefault("store_disk_bytes", 4 << 20)
    return Settings(upstream="127.0.0.1:1", store=str(path), **changes)


def open_at(
    path: Path | str,
    clock: Clock,
    *,
    reader: Any = None,
    writer: Any = None,
    failpoint: Callable[[str], None] = no_failpoint,
    start: bool = True,
    **changes: Any,
) -> DiskShelf:
    """Open a shelf in a folder."""
    shelf = open_shelf(
        disk_settings(path, **changes),
        reader or Immediately(),
        writer or Immediately(),
        clock.monotonic,
        wall=clock.wall,
        failpoint=failpoint,
    )
    if start:
        shelf.start()
    return shelf


class Lasting:
    """A store with a disk behind it."""

    def __init__(self, path: Path | str, clock: Clock, memory: int = 8 << 20, **how: Any) -> None:
        self.clock = clock
        self.disk = open_at(path, clock, **how)
        self.rules = OwnerRules(secret=self.disk.secret, lasting=True, origin=b"this process")
        limits = StoreRules(
            secret=self.disk.secret,
            public_secret=self.disk.site_key,
            bytes_max=memory,
            max_stale_s=self.disk.max_stale_s,
        )
        self.store = ResponseStore(limits)
        self.store.lineages = self.rules.lineages
        self.store.put_behind(self.disk.behind)

    def forget(self) -> None:
        """Have nothing in memory, as if others had pushed all of it out."""
        self.store.invalidation.drop_keys(list(self.store.shelves.slots))
        self.store.shelves.free_all()
        while self.store.shelves._hidden:
            self.store.free_some()

    def look(self, identity: Identity) -> None:
        """Have read what a request needs, as `begin` does."""
        disk = self.disk
        keys = [key for key in self.store.awaited_keys(identity) if disk.is_slow(key)]
        if keys:
            disk.load(keys, self._promote)

    def _promote(self, found: Any) -> None:
        for key, one in found.items():
            self.store.shelves.promote(key, one)

    def tick(self) -> None:
        self.disk.tick(self.clock.now)
