"""The disk behind the store of one of several workers, which all write to one database.

No worker has a list of all keys, since others change it. So each asks the database whether a key
is there. That takes 2 us, since the tree of the keys is small and stays in memory.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from typing import Any, Final

from retter.config.settings import Settings
from retter.disk.change import in_turns, table_key
from retter.disk.database import Database, Done
from retter.disk.folder import WRITER, Folder
from retter.disk.given import Given
from retter.disk.journal import Journal
from retter.disk.known_keys import ABSENT, FAST, SLOW, KnownKeys
from retter.disk.news import News
from retter.disk.page_answers import PageAnswers, Wanted
from retter.disk.page_list import Listing, PageList, Source
from retter.disk.purge_answers import PurgeAnswers
from retter.disk.shared_behind import SharedBehind
from retter.disk.shelf import DiskShelf
from retter.disk.threads import Threads
from retter.store.packing import UnpackedSlot
from retter.store.purge_count import PurgeCount
from retter.store.write_behind import WAITING_BYTES_MIN, WAITING_SHARE, Batch, Slot

# Keys whose last read is remembered. 12 octets each.
NOTES_MAX: Final = 100_000

# In memory nothing wears. So the others know a page that was stored for the first time this much
# later, and not five seconds later: until then the application may die. A commit takes 0.2 ms.
NEW_EVERY_S: Final = 0.2


class SharedKeys(KnownKeys):
    """The keys in a shared database, and which of them this worker has read lately.

    Args:
        in_memory: The database is in a file system in memory: no read of it takes long.
    """

    def __init__(self, now: float, database: Database, *, in_memory: bool) -> None:
        super().__init__(now)
        self._database = database
        self._in_memory = in_memory
        self.is_complete = True

    def where(self, slot_key: bytes, now: float) -> int:
        """Return whether a key is on disk, and how long a read of it may take."""
        if super().where(slot_key, now) == FAST:
            return FAST
        try:
            if not self._database.has(slot_key):
                return ABSENT
        except OSError:
            return ABSENT  # the next read says why
        return FAST if self._in_memory else SLOW

    def used(self, slot_key: bytes, now: float) -> None:
        """Note that a key was read."""
        if not self._in_memory:
            self._make_room()
            self._table.set(table_key(slot_key), self._minute(now))

    def committed(self, done: Done, written: Iterable[bytes], now: float) -> None:
        """Take over the changes of a commit of this worker."""
        self._make_room()
        super().committed(done, () if self._in_memory else written, now)

    def _make_room(self) -> None:
        if len(self._table) >= NOTES_MAX:
            self._table.clear()


class SharedShelf(DiskShelf):
    """The shared database, as one worker sees it.

    Args:
        leads: This worker does what only one of them should do.
        in_memory: The folder is in a file system in memory.
    """

    def __init__(
        self,
        folder: Folder,
        database: Database,
        journal: Journal,
        settings: Settings,
        reader: Threads,
        writer: Threads,
        clock: Callable[[], float],
        news: News,
        *,
        wall: Callable[[], float] = time.time,
        leads: bool = True,
        in_memory: bool = False,
    ) -> None:
        super().__init__(folder, database, journal, settings, reader, writer, clock, wall)
        self.news = news
        self._keys = SharedKeys(clock(), database, in_memory=in_memory)
        self.hot = self._keys.hot
        self._absent_max = 0  # another worker may store it at any time
        self.behind = self.shared_behind = SharedBehind(
            self,
            news,
            personal=settings.store_private == "on",
            bytes_max=max(WAITING_BYTES_MIN, settings.store_memory_bytes // WAITING_SHARE),
        )
        if in_memory:
            self.behind.new_every_s = NEW_EVERY_S
        database.still_valid = self.shared_behind.still_valid
        database.joins = True
        if not leads:
            self._sweep_at = inf
        self._given = Given(news.shared, news.place)
        self._answers = PurgeAnswers(news.shared, news.place)
        self.shared_behind.on_dropped = self._answer
        self._pages = PageList(
            Source(
                database,
                writer,
                clock,
                self.wall,
                lambda: self.max_stale_s,
                self._near,
                self.shared_behind.checked,
                lambda: not self.trouble,
                self._reading,
            ),
            PageAnswers(news.shared, news.place),
            news.place,
        )

    def start(self) -> None:
        """Do nothing: there is no list of keys to make."""

    def _read_slot(self, key: bytes, slot_key: bytes, now: float) -> UnpackedSlot | None:
        found = super()._read_slot(key, slot_key, now)
        if found is None:
            return None
        return found._replace(variants=self._given.known(key, found.variants))

    def _write(
        self,
        batch: Batch,
        touched: list[bytes],
        now: float,
        wall: float,
        notes: dict[str, object],
    ) -> Done:
        self._given.note(batch.slots)
        return super()._write(batch, touched, now, wall, notes)

    def _committed(self, batch: Batch, notes: dict[str, object], result: Any) -> None:
        super()._committed(batch, notes, result)
        if isinstance(result, Done):
            for key in result.kept:
                self.shared_behind.give_way(key)

    def tick(self, now: float) -> None:
        """Look for news, and do what `DiskShelf.tick` does."""
        self.shared_behind.tick(now)
        if self.behind.gathers:
            self.behind.gathers = self._answers.gather(self._clock())
        self._pages.tick()
        super().tick(now)

    def stats(self) -> dict[str, Any]:
        """Return all figures; the amounts are those of all workers."""
        stats = super().stats()
        if not (self.trouble or self._closed):
            with suppress(OSError):
                entries, octets = self._database.amounts()
                stats["entries"], stats["bytes_used"] = entries, max(0, octets)
        return stats

    # -- counting what a purge drops

    def count(
        self, keys: list[bytes], purge: Callable[[], object], done: Callable[[int, bool], None]
    ) -> PurgeCount:
        """Purge, and count the pages also near the other workers; see `DiskShelf.count`."""
        readers = self._answers.readers(self._clock())
        count = super().count(keys, purge, done)
        self._answers.ask(count, readers, self._clock())
        self.behind.gathers = self._answers.gather(self._clock())
        return count

    def _answer(self, place: int, number: int, keys: list[bytes]) -> None:
        """Tell the worker that counts a purge what only this one had. Commits come before."""
        self._writer.submit(
            lambda: self._answers.answer(place, number, self._alone(keys)), lambda _: None
        )

    def _alone(self, keys: list[bytes]) -> set[bytes]:
        """Return the slot keys that are not in the database."""
        slot_keys = {self._database.slot_key(key) for key in in_turns(keys)}
        if self.trouble:
            return slot_keys
        return {one for one in in_turns(slot_keys) if not self._has(one)}

    def _has(self, slot_key: bytes) -> bool:
        try:
            return self._database.has(slot_key)
        except OSError:
            return False

    # -- listing what all workers have

    def list_pages(
        self, wanted: Wanted, skip: int, rows_max: int, done: Callable[[Listing], None]
    ) -> None:
        """List stored pages of all workers; see `PageList.ask`."""
        self._pages.ask(wanted, skip, rows_max, done)

    def _near(self) -> tuple[list[bytes], Callable[[bytes], Slot]]:
        """Return the keys near this worker, and what gives the variants of one, in any thread."""
        self.news.look(self._clock())  # else what others have just removed would be near
        near = self.shared_behind.near()
        waits = {key: slot for key, slot in self.behind.waiting().items() if key not in near}

        def slot_of(key: bytes) -> Slot:
            return near.get(key) or waits.get(key, ())

        return [*near, *waits], slot_of

    def _reading(self, read: Callable[[], Any]) -> Any:
        self._folder.enter(WRITER)
        try:
            return read()
        finally:
            self._folder.leave(WRITER)
