"""Stored responses in LMDB: read one, write a batch, make room. Uses no event loop, no threads.

environment.py has the trees, change.py what a batch does to them. Several workers may have the
database open (shared_opening.py); all of them read and write it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from errno import EIO
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

import lmdb

from retter.disk.change import TURN_ENTRIES, Change, count_struct, crc32, table_key, use_struct
from retter.disk.environment import READERS_MAX, Damaged, Environment, Full, figure
from retter.disk.hot_key import HotKey
from retter.store.packing import (
    AFTER_CHECKSUM,
    Packed,
    Unpacked,
    UnpackedSlot,
    bodies_of_packed,
    is_everyones,
    pack_body,
    servable,
    slot_key,
    unpack,
    unpack_body,
    unpack_slot,
    without_future,
)
from retter.store.record import BODY
from retter.store.write_behind import Batch, Counted, Removals, Slot, Written

# Most entries, even if they are small: each needs 12 octets of memory (key_table.py).
ENTRIES_MAX: Final = 1_000_000

# Each round of eviction frees this share of the size, because a round reads all entries.
EVICTED_SHARE: Final = 0.1
EVICTED_AT_ONCE_MAX: Final = 256  # entries per transaction

COPIED_AT_ONCE_BYTES: Final = 8 * 1024 * 1024  # in memory, while compacting

STEP_S: Final = 600  # resolution of the last use

CLOCK: Final = "clock"  # the name of the note of the clock (base/steady_clock.py)

NO_NOTES: Final[Mapping[str, object]] = {}


class Done(NamedTuple):
    """The result of a commit."""

    removed: list[int]  # table keys of removed entries
    everything: bool  # all earlier entries were removed
    written: int
    not_written: int  # number of entries, for lack of room
    evicted: int
    kept: list[bytes]  # keys of the store whose entries of another worker stay (joining.py)
    counted: tuple[int, ...] = ()  # the pages of each purge that is counted


def without_purges(removals: Removals, counts: Iterable[Counted]) -> Removals:
    """Return removals without the purges that were counted: each goes through all entries."""
    counted = [purge for one in counts for purge in one.removals.purges]
    if not counted:
        return removals
    return replace(removals, purges=[one for one in removals.purges if one not in counted])


def no_failpoint(_: str) -> None:
    """Do nothing: no test is running."""


class Database(Environment):
    """The entries of one environment.

    Args:
        folder: The path of the folder with its files.
        bytes_max: The size of all entries; the file may become twice as large.
        failpoint: Called with the name of each step, for tests that stop there.
        readonly: Write nothing; another process may write meanwhile. `bytes_max` is not used.
        readers_max: The number of threads, in all processes, that may read at the same time.
        map_bytes_min: The least size of the map, because another process has one of this size.

    Attributes:
        begin_read: Begins a transaction that only reads; its values are views of the map.
        still_valid: Called when nobody else may write: returns what of a batch is to be written.
        joins: Several workers write to it (joining.py).

    Raises:
        OSError: The files cannot be made or opened.
        Damaged: This version cannot read the content.
        Foreign: The database belongs to another program.
    """

    def __init__(
        self,
        folder: str,
        bytes_max: int,
        failpoint: Callable[[str], None] = no_failpoint,
        *,
        readonly: bool = False,
        readers_max: int = READERS_MAX,
        map_bytes_min: int = 0,
    ) -> None:
        self._failpoint = failpoint
        self.still_valid: Callable[[Batch], Batch] = lambda batch: batch
        self.joins = False
        super().__init__(
            folder,
            bytes_max,
            readonly=readonly,
            readers_max=readers_max,
            map_bytes_min=map_bytes_min,
        )
        # Arguments by place: by name they cost as much again.
        self.begin_read = partial(self._env.begin, None, None, False, True)  # buffers=True

    # -- reading

    def slot_key(self, key: bytes) -> bytes:
        """Return the slot key for a key of the store."""
        return slot_key(key, self.site_key)

    def read(
        self, packed_key: bytes, now: float, wall: float, max_stale_s: float, key: bytes = b""
    ) -> UnpackedSlot | None:
        """Return a slot with its bodies, verified.

        Args:
            key: The key in the store, if it is known.

        Raises:
            Damaged: A part of the slot does not verify.
        """
        bodies, records = self._trees.bodies, self._trees.records
        try:
            with self._env.begin(buffers=True) as txn:
                get = txn.get

                def body_of(name: bytes, length: int) -> bytes | None:
                    packed = get(name, None, bodies)
                    return None if packed is None else unpack_body(packed, length, crc32)

                data = get(packed_key, None, records)
                if data is None:
                    return None
                unpacked = unpack_slot(bytes(data), now, wall, max_stale_s, body_of)
                if unpacked is None or (
                    unpacked.key != key and self.slot_key(unpacked.key) != packed_key
                ):
                    raise Damaged("a record or a body does not verify")
                return unpacked
        except lmdb.Error as error:
            raise self.read_failure(error) from None

    def read_again(self, hot: HotKey) -> Slot | None:
        """Return a slot that is remembered, its body verified; None if it has changed."""
        try:
            with self.begin_read() as txn:
                record = txn.get(hot.slot_key, None, self._trees.records)
                if record is None or bytes(record) != hot.data:
                    return None
                packed: Any = txn.get(hot.body_name, None, self._trees.bodies)  # a view
                if packed is None:
                    return None
                hot.place, hot.transaction = packed[AFTER_CHECKSUM], txn.id()
                body = hot.place.tobytes()
        except lmdb.Error as error:
            raise self.read_failure(error) from None
        return ((*hot.before, body, *hot.after),) if crc32(body) == hot.checksum else None

    def table_keys(self) -> Iterator[int]:
        """Yield the table key of each slot; other threads may run from time to time."""
        for key in self._names(self._trees.used):
            yield table_key(key)

    def _walk(self, db: Any) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values in short transactions, so that no page is held for long."""
        for some in self._pieces(db, values=True):
            yield from some

    def _names(self, db: Any) -> Iterator[bytes]:
        """Yield only keys, in the same way."""
        for some in self._pieces(db, values=False):
            yield from some

    def _pieces(self, db: Any, *, values: bool) -> Iterator[list[Any]]:
        last: bytes | None = None
        while True:
            with self._env.begin() as txn, txn.cursor(db) as cursor:
                more = cursor.first() if last is None else cursor.set_range(last)
                if more and last is not None and cursor.key() == last:
                    more = cursor.next()
                walk: Any = ()
                if more:
                    walk = cursor.iternext() if values else cursor.iternext(keys=True, values=False)
                some: list[Any] = list(islice(walk, TURN_ENTRIES))
            yield some
            if len(some) < TURN_ENTRIES:
                return
            last = some[-1][0] if values else some[-1]
            time.sleep(0)

    def packed_slots(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield each slot key with its packed slot; no transaction lasts from one to the next."""
        return self._walk(self._trees.records)

    def slot_without_bodies(
        self, packed_key: bytes, now: float, wall: float, max_stale_s: float
    ) -> Unpacked | None:
        """Return a slot without its bodies; None if it is not there, or does not verify."""
        return unpack(self._data(packed_key), now, wall, max_stale_s)

    def amounts(self) -> tuple[int, int]:
        """Return the number of slots and their octets, also of what other processes have written.

        Raises:
            OSError: They cannot be read.
        """
        try:
            with self._env.begin() as txn:
                meta = self._trees.meta
                return figure(txn, meta, b"entries"), figure(txn, meta, b"bytes")
        except lmdb.Error as error:
            raise self.read_failure(error) from None
        except Damaged as error:
            raise OSError(EIO, str(error)) from None

    def slots(self, now: float, wall: float) -> Iterator[tuple[bytes, Unpacked | None]]:
        """Yield each slot key with its slot, without bodies; None if the slot does not verify."""
        for key, data in self._walk(self._trees.records):
            unpacked = unpack(data, now, wall, float("inf"))
            yield key, None if unpacked is None or self.slot_key(unpacked.key) != key else unpacked

    def walk(self, now: float, wall: float) -> Iterator[tuple[bytes, Unpacked | None, bool]]:
        """Yield each slot key with its slot, and whether its bodies verify too."""
        for key, unpacked in self.slots(now, wall):
            if unpacked is None:
                yield key, None, False
                continue
            try:
                if self.read(key, now, wall, float("inf")) is None:
                    continue  # the process that uses the database has removed it meanwhile
            except (Damaged, OSError):
                yield key, unpacked, False
            else:
                yield key, unpacked, True

    def body_counts(self) -> Iterator[tuple[bytes, int]]:
        """Yield the name of each body, and the counted number of records that refer to it."""
        for name in self._names(self._trees.bodies):
            with self._env.begin() as txn:
                uses = txn.get(name, db=self._trees.uses)
            yield name, 1 if uses is None else count_struct.unpack(uses)[0]

    @property
    def bodies(self) -> int:
        """Number of distinct bodies."""
        with self._env.begin() as txn:
            return int(txn.stat(self._trees.bodies)["entries"])

    def has(self, packed_key: bytes) -> bool:
        """Return whether there is a slot. The tree of the uses is small, so it stays in memory."""
        try:
            with self._env.begin(buffers=True) as txn:
                return txn.get(packed_key, None, self._trees.used) is not None
        except lmdb.Error as error:
            raise self.read_failure(error) from None

    def count_everyones(self) -> int:
        """Return the number of public slots."""
        count = 0
        for key in self._names(self._trees.used):
            if not is_everyones(key):
                break  # public slots come first
            count += 1
        return count

    # -- writing

    def commit(
        self,
        batch: Batch,
        touched: list[bytes],
        now: float,
        wall: float,
        notes: Mapping[str, object] = NO_NOTES,
    ) -> Done:
        """Write a batch. Without room for it, old entries are evicted, or the batch is dropped.

        Args:
            touched: Slot keys that have been used.
            notes: Written in the same transaction.

        Raises:
            OSError: The batch could not be written (no space, a broken disk); nothing has changed.
            Full: There is not even room to remove entries.
        """
        gone: set[int] = set()
        evicted = 0
        try:
            try:
                done = self._commit(batch, touched, now, wall, notes)
            except lmdb.MapFullError:
                self._env.reader_check()
                evicted += self._evict(int(self.bytes_max * (1 - 2 * EVICTED_SHARE)), gone)
                try:
                    done = self._commit(batch, touched, now, wall, notes)
                except lmdb.MapFullError:
                    nothing = {key: Written((), ()) for key in batch.slots}
                    done = self._commit(batch._replace(slots=nothing), [], now, wall, notes)
                    done = done._replace(not_written=len(batch.slots))
                gone.difference_update(self._written_keys(batch, done))
            if self.bytes_used > self.bytes_max or self.entries > ENTRIES_MAX:
                evicted += self._evict(int(self.bytes_max * (1 - EVICTED_SHARE)), gone)
            self.keep_size()
        except lmdb.MapFullError:
            raise Full from None
        except lmdb.Error as error:
            raise self.failure(error) from None
        return done._replace(removed=[*done.removed, *gone], evicted=evicted)

    def _written_keys(self, batch: Batch, done: Done) -> set[int]:
        """Return the table keys that a commit has written."""
        if done.not_written:
            return set()
        return {table_key(self.slot_key(key)) for key, one in batch.slots.items() if one.slot}

    def _change(self, txn: Any, step: int = 0) -> Change:
        return Change(txn, self._trees, self.site_key, step, joins=self.joins)

    def _take_figures(self, change: Change) -> None:
        """Take over the figures of a transaction that has been committed."""
        self.bytes_used, self.entries = change.bytes_used, change.entries

    def _commit(
        self,
        batch: Batch,
        touched: list[bytes],
        now: float,
        wall: float,
        notes: Mapping[str, object],
    ) -> Done:
        self._failpoint("begin")
        with self._env.begin(write=True) as txn:
            self.put_notes(txn, notes)
            change = self._change(txn, int(wall // STEP_S))
            batch = self.still_valid(batch)
            counted = [change.counted(one) for one in batch.counts]
            if removals := without_purges(batch.removals, batch.counts):
                change.remove(removals)
                self._failpoint("removed")
            written = 0
            for key, waits in batch.slots.items():
                written += change.write(key, waits, now, wall)
            for packed_key in touched:
                change.touch(packed_key)
            self._failpoint("written")
            change.save_figures()
        self._take_figures(change)
        self._failpoint("committed")
        return Done(
            list(change.removed), batch.removals.everything, written, 0, 0, change.kept,
            tuple(counted),
        )  # fmt: skip

    # -- making room

    def _evict(self, bytes_wanted: int, removed: set[int]) -> int:
        """Delete the least recently used entries, until at most `bytes_wanted` octets are used."""
        wanted = self.bytes_used - bytes_wanted
        entries = self.entries - int(ENTRIES_MAX * (1 - EVICTED_SHARE))
        costs: dict[int, list[int]] = {}  # by step: octets, entries
        for _, use in self._walk(self._trees.used):
            step, cost = use_struct.unpack(use)
            of_step = costs.setdefault(step, [0, 0])
            of_step[0] += cost
            of_step[1] += 1
        last = -1
        for step in sorted(costs):
            if wanted <= 0 and entries <= 0:
                break
            wanted -= costs[step][0]
            entries -= costs[step][1]
            last = step
        evicted = octets = 0
        some: list[bytes] = []
        # No more than needed: 256 entries may be all that a small store has. If bodies that others
        # have too free less than they cost, there are twice as many in each further transaction.
        at_once = 1
        for key, use in self._walk(self._trees.used):
            step, cost = use_struct.unpack(use)
            if step > last:
                continue
            some.append(key)
            octets += cost
            if len(some) < EVICTED_AT_ONCE_MAX and (
                len(some) < at_once
                or octets < self.bytes_used - bytes_wanted
                or len(some) < self.entries - ENTRIES_MAX
            ):
                continue
            evicted += self._delete_some(some, removed)
            if self._is_small_enough(bytes_wanted):
                return evicted
            some, octets, at_once = [], 0, 2 * at_once
        return evicted + self._delete_some(some, removed)

    def _is_small_enough(self, bytes_wanted: int) -> bool:
        return self.bytes_used <= bytes_wanted and self.entries <= ENTRIES_MAX

    def _delete_some(self, keys: list[bytes], removed: set[int]) -> int:
        with self._env.begin(write=True) as txn:
            change = self._change(txn)
            for key in keys:
                change.delete_key(key)
                change.forget_use(key)
            change.save_figures()
        self._take_figures(change)
        removed |= change.removed
        return len(keys)

    def delete_older(self, now: float, wall: float, max_stale_s: float) -> set[int]:
        """Delete all entries that are too old to be served; return their table keys.

        What was stored or used in the future, because the clock was set back since, is stored or
        used now. Else it would have no age and never be evicted until the clock is there again.

        Raises:
            OSError: The disk has failed.
        """
        removed: set[int] = set()
        some: list[bytes] = []
        try:
            for key, data in self._walk(self._trees.records):
                unpacked = unpack(data, now, wall, max_stale_s)
                if unpacked is None or all(
                    one.age(now) > one.age_max_s for one in unpacked.variants
                ):
                    some.append(key)
                if len(some) >= EVICTED_AT_ONCE_MAX:
                    self._delete_some(some, removed)
                    some = []
            self._delete_some(some, removed)
            self._set_right(wall)
        except lmdb.Error as error:
            raise self.failure(error) from None
        return removed

    def _set_right(self, wall: float) -> None:
        """Have nothing stored or used in the future."""
        trees, now = self._trees, int(wall // STEP_S)
        stored = (key for key, data in self._walk(trees.records) if without_future(data, wall))
        used = (key for key, use in self._walk(trees.used) if use_struct.unpack(use)[0] > now)
        while some := list(islice(stored, EVICTED_AT_ONCE_MAX)):
            with self._env.begin(write=True) as txn:
                for key in some:
                    data = without_future(txn.get(key, b"", trees.records), wall)
                    if data:
                        txn.put(key, data, db=trees.records)
        while some := list(islice(used, EVICTED_AT_ONCE_MAX)):
            with self._env.begin(write=True) as txn:
                change = self._change(txn, now)
                for key in some:
                    change.touch(key)

    # -- compacting

    def copy_to(self, other: "Database", wall: float, max_stale_s: float) -> Iterator[int]:
        """Copy the intact entries that are not too old into an empty database; yield octets.

        Counts, sizes and marks are computed anew, so that a mistake in them is not copied.

        Raises:
            OSError: The other database could not be written.
            Full: There is no room.
        """
        with self._env.begin() as txn, txn.cursor(self._trees.meta) as cursor:
            meta = [item for item in cursor if item[0] not in (b"bytes", b"entries")]
        other.site_key = self.site_key
        steps = self._walk(self._trees.used)
        some: list[tuple[bytes, Packed, tuple[int, ...], int]] = []
        size = 0
        try:
            with other._env.begin(write=True) as txn:
                for name, value in meta:
                    txn.put(name, value, db=other._trees.meta)
            for key, use in steps:
                try:
                    one = self.read(key, 0.0, wall, max_stale_s)
                except Damaged:
                    continue
                if one is None or not servable(one.variants, 0.0):
                    continue
                data = self._data(key)
                names = [name for name, _ in bodies_of_packed(data)]
                bodies = [variant[BODY] for variant in one.variants]
                packed = Packed(data, tuple(zip(names, bodies, strict=True)))
                some.append((key, packed, one.marks, use_struct.unpack(use)[0]))
                size += len(packed.data) + sum(map(len, bodies))
                if size >= COPIED_AT_ONCE_BYTES:
                    other._put_all(some)
                    yield size
                    some, size = [], 0
            other._put_all(some)
            yield size
        except lmdb.MapFullError:
            raise Full from None
        except lmdb.Error as error:
            raise self.failure(error) from None

    def _data(self, packed_key: bytes) -> bytes:
        with self._env.begin() as txn:
            return bytes(txn.get(packed_key, db=self._trees.records) or b"")

    def _put_all(self, slots: list[tuple[bytes, Packed, tuple[int, ...], int]]) -> None:
        with self._env.begin(write=True) as txn:
            change = self._change(txn)
            for packed_key, packed, marks, step in slots:
                change.step = step
                for name, body in packed.bodies:
                    change.hold_as(name, pack_body(body, crc32(body)))
                change.put(packed_key, packed, marks)
            change.save_figures()
        self._take_figures(change)
