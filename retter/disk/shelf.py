"""The disk behind the store, as the event loop sees it: nothing here waits for a disk.

An entry that was used lately is read at once, because its pages are in memory. All others are read
in a thread, because reading a page from an SD card would block every client for 5 to 20 ms. Another
thread writes, in batches (write_behind.py). If the disk fails, RETTER continues with the memory
alone and logs it.
"""

import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from retter.base.counters import Histogram
from retter.config.settings import ConfigError, Settings
from retter.disk.database import (
    Damaged,
    Database,
    Done,
    Foreign,
    Full,
    no_failpoint,
    table_key,
)
from retter.disk.folder import LOOP, READER, WRITER, Folder
from retter.disk.journal import Journal
from retter.store.key_table import KeyTable
from retter.store.packing import with_bodies
from retter.store.write_behind import Batch, Found, Removals, WriteBehind

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

# A page that was read within this time is still in memory, unless the machine is far too small.
RECENT_S: Final = 600.0

# How long a request waits for the thread. After that, the request counts as having no stored
# response. So do all others, without waiting, until that read has finished.
READ_WAIT_S: Final = 1.0
# Requests that wait for the thread at a time: a disk that hangs must not block all clients.
READS_MAX: Final = 256

# The time between two searches for readers whose processes were killed, and for old entries.
SWEEP_EVERY_S: Final = 3600.0

# Uses that are remembered for the next commit. Further ones are not counted.
TOUCHED_MAX: Final = 4096

# Upper bounds of the histogram of the time that a read blocked the loop, in seconds.
HELD_S: Final = (0.00001, 0.00002, 0.00005, 0.0001, 0.0005, 0.001, 0.005)

# Time for the last writes when the process ends.
CLOSE_S: Final = 10.0

Ask = Callable[[dict[bytes, Found]], None]


class Threads(Protocol):
    """The interface for work outside the event loop."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do a job; `done` is called on the loop with its result or the exception."""
        ...

    def close(self) -> None:
        """Wait until all jobs are done; `done` is not called any more."""
        ...


class Thread:
    """One thread, started with the first job."""

    def __init__(self, loop: "asyncio.AbstractEventLoop", name: str) -> None:
        self._loop = loop
        self._name = name
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Do a job; `done` is called on the loop with its result or the exception."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor

            self._executor = ThreadPoolExecutor(1, self._name)
        try:
            future = self._executor.submit(job)
        except RuntimeError as error:  # no memory for a thread
            self._loop.call_soon(done, error)
            return
        future.add_done_callback(lambda future: self._hand_over(future, done))

    def _hand_over(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        if not self._closed:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._done, future, done)

    def _done(self, future: Future[Any], done: Callable[[Any], None]) -> None:
        if not self._closed and not future.cancelled():
            error = future.exception()
            done(future.result() if error is None else error)

    def close(self) -> None:
        """Wait until all jobs are done; `done` is not called any more."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)


class DiskShelf:
    """The disk behind one store.

    Attributes:
        secret: The key for the hashes of owners.
        behind: The changes that are not written yet.
        lent: Whether another process takes over.
        trouble: Why RETTER uses the memory alone; "" if it uses the disk.
        set_aside: Why the database was set aside at the start; "" if it was not.
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
        self._journal = journal
        self._reader = reader
        self._writer = writer
        self._clock = clock
        self._wall = wall
        self._failpoint = failpoint
        self.max_stale_s = settings.max_stale_s
        self.secret = b""
        self.set_aside = ""
        self.trouble = ""
        self.lent = False  # to the process that takes over
        self._table = KeyTable()
        self._table_complete = False
        self._gone_meanwhile: set[int] | None = set()  # keys removed while the table is being made
        self.behind = WriteBehind(self, personal=settings.store_private == "on")
        self._began = clock()
        self._touched: dict[bytes, None] = {}
        self._last_key: tuple[bytes, bytes] = (b"", b"")  # a key and its slot key
        self._waiting: dict[int, tuple[float, Ask]] = {}  # requests, and when their wait began
        self._overdue: set[int] = set()  # reads that did not finish in time
        self._asked = 0
        self._sweep_at = self._began + SWEEP_EVERY_S
        self._closed = False
        # Figures:
        self.commits = 0
        self.commit_failures = 0
        self.last_failure = ""  # the reason of the last commit that failed
        self.written = 0
        self.not_written = 0
        self.evicted = 0
        self.damaged = 0
        self.reads = 0
        self.reads_in_thread = 0
        self.reads_late = 0
        self.journal_failures = 0
        self.stale_readers = 0
        self.held = Histogram(HELD_S)
        self.held_s_max = 0.0

    # -- for the store

    def knows(self, key: bytes) -> bool:
        """Return whether an entry may be stored under a key."""
        if self.trouble:
            return False
        return not self._table_complete or self._table.get(self._table_key(key)) >= 0

    def _slot_key(self, key: bytes) -> bytes:
        if self._last_key[0] != key:  # usually used twice in a row
            self._last_key = key, self._database.slot_key(key)
        return self._last_key[1]

    def _table_key(self, key: bytes) -> int:
        return table_key(self._slot_key(key))

    def _minute(self) -> int:
        return int((self._clock() - self._began) // 60) + 1  # 0 means never

    def _is_recent(self, note: int) -> bool:
        return note > 0 and note * 60.0 + RECENT_S >= self._clock() - self._began

    def read(self, key: bytes, now: float) -> Found | None:
        """Return the entry of a key if it was used lately; `load` reads other entries."""
        if self.trouble:
            return None
        note = self._table.get(self._table_key(key))
        if note < 0 or not self._is_recent(note):
            return None
        if note != self._minute():
            self._used(key)
        begun = time.perf_counter()
        try:
            found = self._read(key, LOOP, now)
        except (Damaged, OSError) as error:
            self._cannot_read(key, error, now)
            return None
        self._count_held(time.perf_counter() - begun)
        self.reads += 1
        return found

    def _count_held(self, took_s: float) -> None:
        self.held_s_max = max(self.held_s_max, took_s)
        self.held.add(took_s)

    def _read(self, key: bytes, who: int, now: float) -> Found | None:
        packed_key = self._slot_key(key) if who == LOOP else self._database.slot_key(key)
        self._folder.enter(who)
        try:
            found = self._database.read(packed_key, now, self._wall(), self.max_stale_s, key)
        finally:
            self._folder.leave(who)
        if found is None or found[0].key != key:
            return None  # another key has the same hash
        slot = with_bodies(*found, now)
        return Found(slot, found[0].marks) if slot else None

    def _cannot_read(self, key: bytes, error: Exception, now: float) -> None:
        if isinstance(error, Damaged):
            self.damaged += 1
            self.behind.changed(key, (), (), now)  # the next commit removes it
        else:
            why = str(error)
            if isinstance(error, OSError):
                why = f"it cannot be read: {error.strerror}"
            self._stop_using_disk(why)

    def _stop_using_disk(self, why: str) -> None:
        """Use the memory alone from now on, because the disk is not reliable any more."""
        if not self.trouble:
            self.trouble = why
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
            self.journal_failures += 1
        self._failpoint("noted")

    # -- reading in the thread

    def is_slow(self, key: bytes) -> bool:
        """Return whether a key may have an entry that takes long to read."""
        if self.trouble:
            return False
        note = self._table.get(self._table_key(key))
        if note < 0:
            return not self._table_complete
        return not self._is_recent(note)

    def load(self, keys: list[bytes], asks: Ask) -> bool:
        """Read keys in the thread; `asks` is called with the entries found.

        After READ_WAIT_S it is called without any.

        Returns:
            False if too many requests wait already, or an earlier read is overdue.
        """
        if self._overdue or len(self._waiting) >= READS_MAX:
            self.reads_late += 1
            return False
        self._asked += 1
        number = self._asked
        self._waiting[number] = (self._clock(), asks)
        self._reader.submit(
            lambda: self._read_all(keys), lambda result: self._loaded(number, keys, result)
        )
        return True

    def _read_all(self, keys: list[bytes]) -> dict[bytes, Found | Exception | None]:
        found: dict[bytes, Found | Exception | None] = {}
        for key in keys:
            try:
                found[key] = self._read(key, READER, self._clock())
            except (Damaged, OSError) as error:
                found[key] = error
        return found

    def _loaded(self, number: int, keys: list[bytes], result: Any) -> None:
        waits = self._waiting.pop(number, None)
        self._overdue.discard(number)
        found: dict[bytes, Found] = {}
        now = self._clock()
        if isinstance(result, dict):
            read = cast("dict[bytes, Found | Exception | None]", result)
            for key in keys:
                one = read[key]
                if isinstance(one, Exception):
                    self._cannot_read(key, one, now)
                elif one is not None:
                    self.reads_in_thread += 1
                    self._used(key)
                    passed = self.behind.checked(key, one)
                    if passed is not None:
                        found[key] = passed
        if waits is not None:
            waits[1](found)

    def _used(self, key: bytes) -> None:
        number = self._table_key(key)
        if self._table.get(number) >= 0:
            self._table.set(number, self._minute())
        if len(self._touched) < TOUCHED_MAX:
            self._touched[self._slot_key(key)] = None

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
        if not isinstance(result, KeyTable):
            self._stop_using_disk(f"it cannot be read: {result}")
            return
        gone, self._gone_meanwhile = self._gone_meanwhile, None
        if gone is None:
            return  # all entries have been removed meanwhile
        # The changes during this second are few, compared with the entries in the list.
        for number in gone:
            result.discard(number)
        for number, note in self._table.items():
            result.set(number, note)
        self._table = result
        self._table_complete = True

    def tick(self, now: float) -> None:
        """Start the writes that are due, and end waits that are too long. Called on every tick."""
        if self._waiting:
            self._answer_late(now)
        if self.behind.is_due(now) and not self.trouble:
            self._commit()
        if now >= self._sweep_at and not self.lent:
            self._sweep_at = now + SWEEP_EVERY_S
            self._writer.submit(self._sweep, self._swept)

    def _answer_late(self, now: float) -> None:
        for number, (since, asks) in list(self._waiting.items()):
            if now - since < READ_WAIT_S:
                break
            del self._waiting[number]
            self._overdue.add(number)
            self.reads_late += 1
            asks({})

    def _commit(self) -> None:
        batch = self.behind.take(self._clock())
        if batch is None:
            return
        touched, self._touched = list(self._touched), {}
        now, wall = self._clock(), self._wall()
        self._writer.submit(
            lambda: self._write(batch, touched, now, wall),
            lambda result: self._committed(batch, result),
        )

    def _write(self, batch: Batch, touched: list[bytes], now: float, wall: float) -> Done:
        self._folder.enter(WRITER)
        try:
            return self._database.commit(batch, touched, now, wall)
        finally:
            self._folder.leave(WRITER)

    def _committed(self, batch: Batch, result: Any) -> None:
        if not isinstance(result, Done):
            self._commit_failed(result)
            return
        self.commits += 1
        self.written += result.written
        self.not_written += result.not_written
        self.evicted += result.evicted
        if result.everything:
            self._table.clear()
            if self._gone_meanwhile is not None:
                self._table_complete, self._gone_meanwhile = True, None
        minute = self._minute()
        if not result.not_written:
            for key, waits in batch.slots.items():
                number = table_key(self._database.slot_key(key))
                if waits.slot:
                    self._table.set(number, minute)
        for number in result.removed:
            self._table.discard(number)
            if self._gone_meanwhile is not None:
                self._gone_meanwhile.add(number)
        if self.behind.done() and not self.lent:
            self._failpoint("done")
            with contextlib.suppress(OSError):
                self._journal.clear()
            self._failpoint("cleared")

    def _commit_failed(self, error: Any) -> None:
        self.commit_failures += 1
        self.behind.failed(self._clock())
        if not isinstance(error, (OSError, Full, MemoryError)):
            self._stop_using_disk(f"it cannot be written: {error}")
            raise error
        self.last_failure = str(getattr(error, "strerror", "") or "no room in the map")

    def _sweep(self) -> tuple[int, list[int]]:
        readers = self._database.check_readers()
        self._folder.enter(WRITER)
        try:
            return readers, self._database.delete_older(
                self._clock(), self._wall(), self.max_stale_s
            )
        finally:
            self._folder.leave(WRITER)

    def _swept(self, result: Any) -> None:
        if isinstance(result, tuple):
            readers, removed = cast("tuple[int, list[int]]", result)
            self.stale_readers += readers
            for number in removed:
                self._table.discard(number)

    # -- the end

    def flush(self) -> None:
        """Write all changes and wait for their end; the event loop is blocked meanwhile."""
        while not self.behind.is_clean and not self.trouble:
            batch = self.behind.take(self._clock())
            if batch is None:
                return
            try:
                result: Any = self._write(batch, list(self._touched), self._clock(), self._wall())
            except (OSError, Full) as error:
                self._commit_failed(error)
                return
            self._committed(batch, result)

    def close(self) -> None:
        """Write all changes and close the database."""
        if self._closed:
            return
        for thread in (self._reader, self._writer):
            thread.close()
        # The batch in the thread is done or has failed. Writing it once more does no harm.
        self.behind.failed(self._clock())
        with contextlib.suppress(Exception):  # removals are in the journal
            self.flush()
        self._closed = True
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
        """Write a note with the next commit."""
        self._writer.submit(lambda: self._database.set_note(name, value), lambda _: None)

    def wall(self) -> float:
        """Return the time of day, seconds since the epoch."""
        return self._wall()

    def read_file(self, name: str, bytes_max: int) -> bytes:
        """Return the content of a file; empty if it does not exist or cannot be read."""
        return self._folder.read(name, bytes_max)

    def write_soon(self, name: str, data: bytes) -> None:
        """Write a file of the folder in the thread, if it can be written."""
        if not self.lent:
            self._writer.submit(lambda: self._folder.write(name, data), lambda _: None)

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
        self.lent = self.behind.closed = True

    def take_back(self) -> None:
        """Use the folder alone again: the successor has ended. It may have changed the folder.

        Raises:
            OSError: The journal cannot be read any more.
        """
        if self.lent:
            journal = Journal(self._folder.at("drops"))
            self._journal.close()
            self._journal = journal
            self.behind.begin_with(journal.read())
            self.lent = self.behind.closed = False

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
        behind, database = self.behind, self._database
        return {
            "entries": database.entries,
            "bytes_used": max(0, database.bytes_used),
            "bytes_max": database.bytes_max,
            "dirty": behind.keys_waiting,
            "dirty_bytes": behind.bytes_waiting,
            "commits": self.commits,
            "commit_failures": self.commit_failures,
            "written": self.written,
            "not_written": self.not_written + behind.not_kept,
            "evicted": self.evicted,
            "damaged": self.damaged,
            "set_aside": int(bool(self.set_aside)),
            "reads": self.reads,
            "reads_in_thread": self.reads_in_thread,
            "reads_late": self.reads_late,
            "journal_failures": self.journal_failures,
            "stale_readers": self.stale_readers,
            "held_s_max": self.held_s_max,
            "index_bytes": self._table.bytes_used,
            "file_bytes": 0 if self._closed else database.file_bytes,
            "trouble": self.trouble,
        }


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
        return _open(folder, settings, reader, writer, clock, wall, failpoint)
    except OSError as error:
        folder.close()
        raise ConfigError(f"store: {settings.store}: {error.strerror}") from None
    except ConfigError:
        folder.close()
        raise


def _open(
    folder: Folder,
    settings: Settings,
    reader: Threads,
    writer: Threads,
    clock: Callable[[], float],
    wall: Callable[[], float],
    failpoint: Callable[[str], None],
) -> DiskShelf:
    if why := folder.read("broken", 1000):
        folder.set_aside(why.decode("utf-8", "replace"))
        with contextlib.suppress(OSError):
            folder.remove("broken")
    folder.check_file()
    secret, is_new = folder.secret()
    database = _database(folder, settings, failpoint)
    try:
        journal = Journal(folder.at("drops"))
    except OSError:
        database.close()
        raise
    shelf = DiskShelf(folder, database, journal, settings, reader, writer, clock, wall, failpoint)
    shelf.secret = secret
    shelf.set_aside = folder.set_aside_reason
    removals = journal.read()
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
                f"{shelf.last_failure}"
            )
    return shelf


def _database(folder: Folder, settings: Settings, failpoint: Callable[[str], None]) -> Database:
    for _ in range(2):
        folder.enter(LOOP)
        try:
            database = Database(folder.path, settings.store_disk_bytes, failpoint)
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
