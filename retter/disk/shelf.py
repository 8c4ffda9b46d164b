"""The disk behind the store, as the event loop sees it: nothing here waits for a disk.

An entry that was used lately is read at once, because its pages are in memory. All others are read
in a thread (awaited_reads.py), because reading a page from an SD card would block every client for
5 to 20 ms. Another thread writes, in batches (write_behind.py). If the disk fails, RETTER continues
with the memory alone and logs it.
"""

import contextlib
import time
from collections.abc import Callable
from errno import ESTALE
from time import perf_counter
from typing import Any, Final, cast

from retter.base.counters import Histogram
from retter.base.steady_clock import SteadyClock, boot_id, since_boot
from retter.config.settings import Settings
from retter.disk.awaited_reads import Ask, AwaitedReads, Read
from retter.disk.change import crc32
from retter.disk.database import CLOCK, Database, Done, no_failpoint
from retter.disk.environment import Busy, Damaged, Full, Grown, LmdbError
from retter.disk.folder import LOOP, READER, WRITER, Folder, claim
from retter.disk.hot_key import HotKey
from retter.disk.journal import Journal
from retter.disk.known_keys import ABSENT, FAST, SLOW, KnownKeys
from retter.disk.threads import Threads
from retter.store.key_table import KeyTable
from retter.store.packing import UnpackedSlot, servable
from retter.store.purge_count import PurgeCount
from retter.store.write_behind import (
    WAITING_BYTES_MIN,
    WAITING_SHARE,
    Batch,
    Found,
    Removals,
    Slot,
    WriteBehind,
    as_found,
)

# The time between two searches for readers whose processes were killed, and for old entries.
SWEEP_EVERY_S: Final = 3600.0

# Keys that are remembered because they are not on disk, until the next commit.
ABSENT_MAX: Final = 256

# Uses that are remembered for the next commit. Further ones are not counted.
TOUCHED_MAX: Final = 4096

# How long an operator waits for the number of pages that a purge has dropped. `retter purge` waits
# five seconds for an answer.
COUNT_S: Final = 3.0

# Upper bounds of the histogram of the time that a read blocked the loop, in seconds.
HELD_S: Final = (0.00001, 0.00002, 0.00005, 0.0001, 0.0005, 0.001, 0.005)

# Times of reads that wait to be added up at the next tick; fewer wait until somebody looks.
HELD_AT_ONCE: Final = 256


class ShelfFigures:
    """The counts of one disk since the start.

    Attributes:
        last_failure: The reason of the last commit that failed.
        held: The time that reads blocked the loop.
    """

    __slots__ = (
        "commit_failures", "commits", "damaged", "evicted", "held", "held_s_max",
        "journal_failures", "last_failure", "not_written", "reads", "reads_in_thread",
        "stale_readers", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.commits = 0
        self.commit_failures = 0
        self.last_failure = ""
        self.written = 0
        self.not_written = 0
        self.evicted = 0
        self.damaged = 0
        self.reads = 0
        self.reads_in_thread = 0
        self.journal_failures = 0
        self.stale_readers = 0
        self.held = Histogram(HELD_S)
        self.held_s_max = 0.0


class DiskShelf:
    """The disk behind one store.

    Attributes:
        hot: By key: entries that were read in this minute, at once.
        secret: The key for the hashes of owners.
        behind: The changes that are not written yet.
        lent: Whether another process takes over.
        trouble: Why RETTER uses the memory alone; "" if it uses the disk.
        is_spared: In spite of that, the next start uses the database.
        set_aside: Why the database was set aside at the start; "" if it was not.
        drops_damaged: Whether removals of the process before could not be read: all was removed.
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
        wall: Callable[[], float] = time.time,
        failpoint: Callable[[str], None] = no_failpoint,
    ) -> None:
        self._folder = folder
        self._database = database
        self._begin_read = database.begin_read
        self._journal = journal
        self._writer = writer
        self._clock = clock
        self._times = SteadyClock(wall, since_boot, boot_id(), database.note(CLOCK))
        self._wall = self._times.now
        self._failpoint = failpoint
        self._max_stale_s = settings.max_stale_s
        self.secret = b""
        self.set_aside = ""
        self.drops_damaged = False
        self.trouble = ""
        self.is_spared = False
        self.lent = False  # to the process that takes over
        self._keys = KnownKeys(clock())
        self.hot = self._keys.hot
        self._reads = AwaitedReads(reader, self._read_in_thread, self._loaded)
        self.behind = WriteBehind(
            self,
            personal=settings.store_private == "on",
            bytes_max=max(WAITING_BYTES_MIN, settings.store_memory_bytes // WAITING_SHARE),
        )
        self._touched: dict[bytes, None] = {}  # slot keys
        self._notes: dict[str, object] = {}  # that may not be on disk
        self._absent: set[bytes] = set()  # keys that are not on disk
        self._absent_max = ABSENT_MAX
        self._last_key: tuple[bytes, bytes] = (b"", b"")  # a key and its slot key
        self._sweep_at = clock() + SWEEP_EVERY_S
        self._counts: list[PurgeCount] = []  # of purges, until they are told
        self._closed = False
        self._figures = ShelfFigures()
        # The times of reads that are not in the figures yet. To add up many at once takes a tenth
        # of the time that it takes one by one.
        self._held_s: list[float] = []

    # -- for the store

    def knows(self, key: bytes) -> bool:
        """Return whether an entry may be stored under a key."""
        return not self.trouble and self._where(key) != ABSENT

    def _where(self, key: bytes) -> int:
        """Return whether a key is on disk, and how long a read of it may take.

        A request asks this up to four times for a key that is not there.
        """
        if key in self._absent:
            return ABSENT
        where = self._keys.where(self._slot_key(key), self._clock())
        if where == ABSENT and self._absent_max:
            if len(self._absent) >= self._absent_max:
                self._absent.clear()
            self._absent.add(key)
        return where

    @property
    def max_stale_s(self) -> float:
        """The age up to which a response may be served, in seconds."""
        return self._max_stale_s

    @max_stale_s.setter
    def max_stale_s(self, seconds: float) -> None:
        self._max_stale_s = seconds
        self.hot.clear()

    def _slot_key(self, key: bytes) -> bytes:
        if self._last_key[0] != key:  # usually used twice in a row
            self._last_key = key, self._database.slot_key(key)
        return self._last_key[1]

    def read(self, key: bytes, now: float) -> Found | None:
        """Return the entry of a key if it was used lately; `load` reads other entries.

        Most reads find that nothing was committed since the last read of the key: then the body is
        where it was, and only that is read and verified. It is written in one piece, since each
        call would cost a tenth of it.
        """
        hot = self.hot.get(key)
        if hot is None:
            # A new page asks for several keys that are not there.
            return None if key in self._absent else self._read_anew(key, now)
        if now > hot.served_until:
            return self._read_anew(key, now)
        begun = perf_counter()
        reading = self._folder.reading
        reading[LOOP] = 1  # enter() and leave(), inlined
        try:
            txn = self._begin_read()
            try:
                body = hot.place.tobytes() if txn.id() == hot.transaction else None
            finally:
                txn.abort()
        except LmdbError:
            body = None
        finally:
            reading[LOOP] = 0
        if body is None or crc32(body) != hot.checksum:
            return self._read_anew(key, now)
        self._held_s.append(perf_counter() - begun)
        reads = hot.reads = hot.reads + 1
        return as_found(
            (((*hot.before, body, *hot.after),), hot.marks, reads == hot.copy_at and hot.copied())
        )

    def _read_anew(self, key: bytes, now: float) -> Found | None:
        hot = self.hot.get(key) or self._heated(key)
        if hot is None:
            return None
        begun = perf_counter()
        self._folder.enter(LOOP)
        try:
            slot = None
            if now <= hot.served_until:
                slot = self._database.read_again(hot)
            if slot is None:
                slot = self._read_hot(key, hot, now)
        except (Damaged, OSError) as error:
            self._cannot_read(key, error, now)
            return None
        finally:
            self._folder.leave(LOOP)
        self._held_s.append(perf_counter() - begun)
        return Found(slot, hot.marks, hot.counted()) if slot else None

    def _read_hot(self, key: bytes, hot: HotKey, now: float) -> Slot:
        unpacked = self._read_slot(key, hot.slot_key, now)
        if unpacked is None or unpacked.key != key:  # another key may have the same hash
            return ()
        hot.remember(unpacked)
        return servable(unpacked.variants, now)

    def _read_slot(self, key: bytes, slot_key: bytes, now: float) -> UnpackedSlot | None:
        """Read a slot with its bodies, on the loop or in the thread; see `Database.read`."""
        self._database.check_length()
        return self._database.read(slot_key, now, self._wall(), self._max_stale_s, key)

    @property
    def figures(self) -> ShelfFigures:
        """The counts since the start."""
        figures = self._figures
        if self._held_s:
            held_s, self._held_s = self._held_s, []
            figures.held.add_all(held_s)
            figures.held_s_max = max(figures.held_s_max, *held_s)
            figures.reads += len(held_s)
        return figures

    def _heated(self, key: bytes) -> HotKey | None:
        """Return a key with its first read in this minute; None if the read may take long."""
        if self.trouble or self._closed or self._where(key) != FAST:
            return None
        slot_key = self._slot_key(key)
        self._used(slot_key)
        return self._keys.heat(key, slot_key)

    def _used(self, slot_key: bytes) -> None:
        self._keys.used(slot_key, self._clock())
        if len(self._touched) < TOUCHED_MAX:
            self._touched[slot_key] = None

    def _cannot_read(self, key: bytes, error: Exception, now: float) -> None:
        if isinstance(error, Damaged):
            self.figures.damaged += 1
            self.behind.changed(key, (), (), now)  # the next commit removes it
        elif not isinstance(error, Busy):
            why = str(error)
            if isinstance(error, OSError):
                why = f"it cannot be read: {error.strerror}"
            self._stop_using_disk(why, spares=isinstance(error, Grown))

    def leave(self, why: str) -> None:
        """Use the memory alone from now on: another process has found the disk broken."""
        self._stop_using_disk(why)

    def _stop_using_disk(self, why: str, *, spares: bool = False) -> None:
        """Use the memory alone from now on, because the disk is not reliable any more.

        Args:
            spares: The database is whole: the next start uses it.
        """
        if not self.trouble:
            self.trouble, self.is_spared = why, spares
            self.hot.clear()
            if not spares:
                with contextlib.suppress(OSError):
                    self._folder.write("broken", why.encode())

    def note(self, removals: Removals) -> None:
        """Write removals to the journal at once, so that they survive a kill of the process."""
        self._failpoint("take back")
        if self._closed or self.lent:
            return
        try:
            self._journal.note(removals)
        except OSError:
            self.figures.journal_failures += 1
        self._failpoint("noted")

    # -- reading in the thread

    def is_slow(self, key: bytes) -> bool:
        """Return whether a key may have an entry that takes long to read."""
        return key not in self.hot and not self.trouble and self._where(key) == SLOW

    def load(self, keys: list[bytes], asks: Ask) -> bool:
        """Read keys in the thread; `asks` is called with the entries found, or after a second.

        Returns:
            False if too many requests wait already, or an earlier read is overdue.
        """
        return self._reads.load(keys, asks, self._clock())

    def _read_in_thread(self, key: bytes) -> Read:
        now, slot_key = self._clock(), self._database.slot_key(key)
        self._folder.enter(READER)
        try:
            unpacked = self._read_slot(key, slot_key, now)
        except (Damaged, OSError) as error:
            # Its traceback would hold the transaction, and so the place of a reader, until the
            # garbage collector runs.
            return error.with_traceback(None)
        finally:
            self._folder.leave(READER)
        if unpacked is None or unpacked.key != key:
            return None
        slot = servable(unpacked.variants, now)
        return Found(slot, unpacked.marks) if slot else None

    def _loaded(self, key: bytes, read: Read) -> Found | None:
        if isinstance(read, Exception):
            self._cannot_read(key, read, self._clock())
            return None
        if read is None:
            return None
        self.figures.reads_in_thread += 1
        self._used(self._slot_key(key))
        return self.behind.checked(key, read)

    # -- counting what a purge drops

    def count(
        self, keys: list[bytes], purge: Callable[[], object], done: Callable[[int, bool], None]
    ) -> PurgeCount:
        """Purge, and count the pages in memory and on disk, each once. Nothing waits for it.

        Args:
            keys: `purge` adds the keys that it drops in memory.
            done: Called with the number of pages within COUNT_S, and whether these are all; if not,
                it was at least that number.
        """
        count = PurgeCount(keys, self._clock() + COUNT_S, done)
        self.behind.begin_count(count)
        try:
            purge()
        finally:
            self.behind.end_count()
        self._counts.append(count)
        return count

    def _end_counts(self) -> None:
        """End the counts that take too long, and those that no commit will end."""
        now = self._clock()
        in_memory = bool(self.trouble) and not self.behind.gathers
        for count in self._counts:
            if now >= count.until:
                count.give_up()
            elif in_memory:
                self._count_in_memory(count)
        self._counts = [] if in_memory else [one for one in self._counts if not one.is_over]

    def _count_in_memory(self, count: PurgeCount) -> None:
        """Count the pages in memory alone: nobody is served from the disk."""
        slot_key = self._database.slot_key
        self._writer.submit(
            lambda: len(count.others.union([slot_key(key) for key in count.keys])),
            lambda result: count.finish(result) if isinstance(result, int) else count.give_up(),
        )

    # -- the clock

    def start(self) -> None:
        """List the stored keys in the thread; until it is done, every key may be stored."""
        self._writer.submit(self._list, self._listed)

    def _list(self) -> KeyTable:
        table = KeyTable()
        for _ in table.fill(self._database.table_keys()):
            time.sleep(0)  # other threads may run
        return table

    def _listed(self, result: Any) -> None:
        if isinstance(result, KeyTable):
            self._keys.listed(result)
        else:
            self._stop_using_disk(f"it cannot be read: {result}")

    def tick(self, now: float) -> None:
        """Start the writes that are due, and end waits that are too long. Called on every tick."""
        if not self.trouble:
            self._look_at_file()
        self._keys.tick(self._clock())
        if self._reads:
            self._reads.tick(now)
        if self._counts:
            self._end_counts()
        if len(self._held_s) >= HELD_AT_ONCE:
            _ = self.figures  # adds them up
        if self.behind.is_due(now) and not self.trouble:
            self._commit()
        if now >= self._sweep_at and not self.lent:
            self._sweep_at = now + SWEEP_EVERY_S
            self._writer.submit(self._sweep, self._swept)

    def _look_at_file(self) -> None:
        """Leave a file that somebody has cut off, before the next read of it kills the process."""
        try:
            self._database.check_length()
        except OSError as error:
            self._stop_using_disk(f"it cannot be read: {error.strerror}")

    def _commit(self) -> None:
        batch = self.behind.take(self._clock())
        if batch is None:
            return
        touched, self._touched = list(self._touched), {}
        now, wall, notes = self._clock(), self._wall(), self._notes_for_entries()
        self._writer.submit(
            lambda: self._write(batch, touched, now, wall, notes),
            lambda result: self._committed(batch, notes, result),
        )

    def _write(
        self,
        batch: Batch,
        touched: list[bytes],
        now: float,
        wall: float,
        notes: dict[str, object],
    ) -> Done:
        if lost := self._folder.lost():
            raise OSError(ESTALE, f"somebody has removed or replaced {lost}; restart RETTER")
        self._database.check_length()
        self._folder.enter(WRITER)
        try:
            stores = any(waits.slot for waits in batch.slots.values())
            if stores and (noted := self._times.note()) is not None:
                notes = {**notes, CLOCK: noted}
            return self._database.commit(batch, touched, now, wall, notes)
        finally:
            self._folder.leave(WRITER)

    def _committed(self, batch: Batch, notes: dict[str, object], result: Any) -> None:
        if not isinstance(result, Done):
            self._commit_failed(result)
            return
        self._noted(notes, result)
        self._absent.clear()
        figures = self.figures
        figures.commits += 1
        figures.written += result.written
        figures.not_written += result.not_written
        figures.evicted += result.evicted
        written = [key for key, waits in batch.slots.items() if waits.slot]
        if result.not_written:
            written = []
        self._keys.committed(result, map(self._database.slot_key, written), self._clock())
        for one, pages in zip(batch.counts, result.counted, strict=True):
            one.pages.finish(pages)
        if self.behind.done() and not self.lent:
            self._failpoint("done")
            with contextlib.suppress(OSError):
                self._journal.clear()
            self._failpoint("cleared")

    def _commit_failed(self, error: Any) -> None:
        self.figures.commit_failures += 1
        self.behind.failed(self._clock())
        if isinstance(error, Grown):
            self._stop_using_disk(f"it cannot be written: {error.strerror}", spares=True)
        if not isinstance(error, (OSError, Full, MemoryError)):
            self._stop_using_disk(f"it cannot be written: {error}")
            raise error
        said = str(getattr(error, "strerror", "") or "no room in the map")
        function, _, reason = said.partition(": ")  # LMDB names its function first
        self.figures.last_failure = f"{reason.lower()} ({function})" if reason else said

    def _sweep(self) -> tuple[int, set[int]]:
        readers = self._database.check_readers()
        self._folder.enter(WRITER)
        try:
            return readers, self._database.delete_older(
                self._clock(), self._wall(), self._max_stale_s
            )
        finally:
            self._folder.leave(WRITER)

    def _swept(self, result: Any) -> None:
        if isinstance(result, tuple):
            readers, removed = cast("tuple[int, set[int]]", result)
            self.figures.stale_readers += readers
            self._keys.removed(removed)

    # -- the end

    def flush(self) -> None:
        """Write all changes and wait for their end; the event loop is blocked meanwhile."""
        while not self.behind.is_clean and not self.trouble:
            batch = self.behind.take(self._clock())
            if batch is None:
                return
            notes = self._notes_for_entries()
            try:
                result: Any = self._write(
                    batch, list(self._touched), self._clock(), self._wall(), notes
                )
            except (OSError, Full) as error:
                self._commit_failed(error)
                return
            self._committed(batch, notes, result)

    def close(self) -> None:
        """Write all changes and close the database."""
        if self._closed:
            return
        self._reads.close()
        self._writer.close()
        # The batch in the thread is done or has failed. Writing it once more does no harm.
        self.behind.failed(self._clock())
        with contextlib.suppress(Exception):  # removals are in the journal
            self.flush()
        self._closed = True
        self.hot.clear()  # their places in the map
        with contextlib.suppress(OSError):
            self._database.sync()
        self._database.close()
        self._journal.close()
        self._folder.close()

    # -- notes beside the entries

    @property
    def site_key(self) -> bytes:
        """The key for the hashes of public entries."""
        return self._database.site_key

    def note_of(self, name: str) -> Any:
        """Return the note with this name; None if there is none."""
        return self._database.note(name)

    def set_note(self, name: str, value: object) -> None:
        """Write a note now, or with the next commit if that fails."""
        self._notes[name] = value
        notes = dict(self._notes)
        self._writer.submit(
            lambda: self._database.set_notes(notes), lambda result: self._noted(notes, result)
        )

    def _noted(self, notes: dict[str, object], result: object) -> None:
        if not isinstance(result, Exception):
            for name, value in notes.items():
                if self._notes.get(name) is value:
                    del self._notes[name]

    def _notes_for_entries(self) -> dict[str, object]:
        """Return the notes that must be on disk before entries that are stored now."""
        return {} if self.behind.closed else dict(self._notes)

    def wall(self) -> float:
        """Return the time of day by which ages are kept, seconds since the epoch."""
        return self._wall()

    def read_file(self, name: str, bytes_max: int) -> bytes:
        """Return the content of a file; empty if it does not exist or cannot be read."""
        return self._folder.read(name, bytes_max)

    def write_soon(
        self, name: str, data: bytes, written: Callable[[], None] = lambda: None
    ) -> None:
        """Write a file of the folder in the thread; `written` is called if it could be written."""

        def done(result: object) -> None:
            if result is None:  # else it is the error
                written()

        if not self.lent:
            self._writer.submit(lambda: self._folder.write(name, data), done)

    def write_now(self, name: str, data: bytes) -> None:
        """Write a file of the folder at once, if it can be written."""
        with contextlib.suppress(OSError):
            if not self.lent:
                self._folder.write(name, data)

    # -- another process takes over

    def lend(self) -> None:
        """Share the folder with a successor, which will use it alone later.

        Changes that wait are still written. After that, only removals are written.
        """
        self.lent = True
        self.behind.close()

    def take_back(self) -> None:
        """Use the folder alone again: the successor has ended. It may have changed the folder."""
        if not self.lent:
            return
        self.lent = self.behind.closed = False
        try:
            journal = Journal(self._folder.at("drops"))
        except OSError as error:  # somebody has removed the folder
            self._stop_using_disk(f"its journal cannot be opened: {error.strerror}")
            return
        self._journal.close()
        self._journal = journal
        self.behind.begin_with(journal.read())

    def claim(self) -> None:
        """Write who uses the folder, for `retter store`: the process before has lent it."""
        with contextlib.suppress(OSError):
            claim(self._folder.lock_fd)

    @property
    def path(self) -> str:
        """The path of the folder."""
        return self._folder.path

    @property
    def lock_fd(self) -> int:
        """The lock of the folder, for a successor."""
        return self._folder.lock_fd

    # -- looking in

    def stats(self) -> dict[str, Any]:
        """Return all figures."""
        behind, database, figures = self.behind, self._database, self.figures
        return {
            "entries": database.entries,
            "bytes_used": max(0, database.bytes_used),
            "bytes_max": database.bytes_max,
            "dirty": behind.keys_waiting,
            "dirty_bytes": behind.bytes_waiting,
            "commits": figures.commits,
            "commit_failures": figures.commit_failures,
            "written": figures.written,
            "not_written": figures.not_written + behind.not_kept,
            "evicted": figures.evicted,
            "damaged": figures.damaged,
            "set_aside": int(bool(self.set_aside)),
            "reads": figures.reads,
            "reads_in_thread": figures.reads_in_thread,
            "reads_late": self._reads.late,
            "journal_failures": figures.journal_failures,
            "stale_readers": figures.stale_readers,
            "held_s_max": figures.held_s_max,
            "index_bytes": self._keys.bytes_used,
            "file_bytes": 0 if self._closed else database.file_bytes,
            "trouble": self.trouble,
        }
