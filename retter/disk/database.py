"""Stored responses in LMDB: read one, write a batch, make room. Uses no event loop, no threads.

    records  slot key -> packed slot (packing.py)
    bodies   body hash -> checksum and body
    uses     body hash -> number of records that refer to it, if there are several; a tree of its
             own, so that a new count does not write the body again
    used     slot key -> when it was last used, in coarse steps, and what it costs
    marks    mark of a session -> its owners; a logout finds them here
    meta     format of the file, key of the hashes, rules, figures

LMDB copies a page before it changes it, so a kill or a power cut leaves the last commit intact.
This module and folder.py handle the other problems of LMDB. The map is twice as large as the
entries, because deleted pages become free late and in pieces. No transaction lasts longer than a
call. All data that is read is verified. Only one process has the file open for a long time.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from errno import EACCES, EDQUOT, EIO, ENOSPC, EPERM, EROFS
from itertools import islice
from struct import Struct
from typing import Any, Final, NamedTuple, cast
from zlib import crc32 as _crc32

import lmdb

from retter.store.owner import OWNER_BYTES
from retter.store.packing import (
    FORMAT_VERSION,
    KEY_BYTES,
    Packed,
    Unpacked,
    UnpackedSlot,
    bodies_of_packed,
    is_everyones,
    key_of_packed,
    pack,
    pack_body,
    servable,
    slot_key,
    superseded,
    unpack,
    unpack_body,
    unpack_slot,
)
from retter.store.record import BODY
from retter.store.write_behind import Batch, Removals, Written


def _fastest_checksum() -> Callable[[bytes | memoryview], int]:
    try:
        from isal import isal_zlib  # ten times as fast: 4 us for 64 KiB instead of 40
    except ImportError:
        return _crc32
    return cast("Callable[[bytes | memoryview], int]", isal_zlib.crc32)  # pyright: ignore


crc32: Final = _fastest_checksum()

FILE: Final = "data.mdb"

# Size of the map, in addition to twice the entries: trees, lists of free pages, one commit.
MAP_SPARE_BYTES: Final = 16 * 1024 * 1024

# Most entries, even if they are small: each needs 12 octets of memory (key_table.py).
ENTRIES_MAX: Final = 1_000_000

# Each round of eviction frees this share of the size, because a round reads all entries.
EVICTED_SHARE: Final = 0.1
EVICTED_AT_ONCE_MAX: Final = 256  # entries per transaction

COPIED_AT_ONCE_BYTES: Final = 8 * 1024 * 1024  # in memory, while compacting

# Entries that are read before other threads may run.
TURN_ENTRIES: Final = 64

STEP_S: Final = 600  # resolution of the last use

PAGE_BYTES: Final = 4096
HEADER_PAGES: Final = 3  # two headers, and the tree of trees
_INLINE_BYTES_MAX: Final = 2000  # LMDB stores larger values on separate pages

_HASH_END: Final = OWNER_BYTES + 8  # of the octets that a table key is made of
from_bytes: Final = int.from_bytes

_use = Struct("<II")  # step, cost
_count = Struct("<I")
_mark = Struct("<q")


class Damaged(Exception):
    """The content does not verify, or LMDB did not write it."""


class Foreign(Exception):
    """The database belongs to another program."""


class Full(Exception):
    """There is no room in the map, even after evicting."""


class Done(NamedTuple):
    """The result of a commit."""

    removed: list[int]  # table keys of removed entries
    everything: bool  # all earlier entries were removed
    written: int
    not_written: int  # number of entries, for lack of room
    evicted: int


def table_key(packed_key: bytes) -> int:
    """Return the 64 bits that represent a slot key in a KeyTable."""
    return from_bytes(packed_key[:8]) ^ from_bytes(packed_key[OWNER_BYTES:_HASH_END])


def cost_of(size: int) -> int:
    """Return the approximate octets that a value takes in the file."""
    if size > _INLINE_BYTES_MAX:
        return -(-(size + 16) // PAGE_BYTES) * PAGE_BYTES + 64
    return size * 3 // 2 + 64  # pages of a tree are two thirds full


def no_failpoint(_: str) -> None:
    """Do nothing: no test is running."""


class Database:
    """One LMDB environment.

    Args:
        folder: The path of the folder with its files.
        bytes_max: The size of all entries; the file may become twice as large.
        failpoint: Called with the name of each step, for tests that stop there.
        readonly: Write nothing; another process may write meanwhile. `bytes_max` is not used.

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
    ) -> None:
        self.bytes_max = bytes_max
        self.map_bytes = 2 * bytes_max + MAP_SPARE_BYTES
        self.readonly = readonly
        self._path = os.path.join(folder, FILE)
        self._failpoint = failpoint
        try:
            self._env = lmdb.open(
                folder,
                map_size=0 if readonly else self.map_bytes,  # 0: the size that its writer chose
                max_dbs=8,
                max_readers=32,
                mode=0o600,
                metasync=False,  # a power cut loses only the last commit, not the file
                readahead=False,  # the next page in the file is seldom needed
                meminit=False,
                readonly=readonly,
                create=not readonly,
            )
        except lmdb.Error as error:
            number, text = _errno_of(error)
            if isinstance(error, lmdb.DiskError) or number != EIO:
                raise OSError(number, text) from None
            raise Damaged(str(error)) from None
        try:
            self._open()
        except lmdb.Error as error:
            self.close()
            if isinstance(error, lmdb.DiskError):
                raise OSError(*_errno_of(error)) from None
            raise Damaged(str(error)) from None
        except (Damaged, Foreign):
            self.close()
            raise

    def _open(self) -> None:
        env, create = self._env, not self.readonly
        with env.begin() as txn:
            if (txn.stat()["entries"] or self.readonly) and txn.get(b"meta") is None:
                raise Foreign
        self._meta = env.open_db(b"meta", create=create)
        with env.begin(write=create) as txn:
            version = txn.get(b"version", db=self._meta)
            if version is None:
                if txn.stat(self._meta)["entries"] or txn.stat()["entries"] > 1 or self.readonly:
                    raise Foreign
                txn.put(b"version", b"%d" % FORMAT_VERSION, db=self._meta)
                txn.put(b"site-key", os.urandom(16), db=self._meta)
            elif version != b"%d" % FORMAT_VERSION:
                raise Damaged(f"its format is version {version.decode('latin-1')[:20]}")
            self.site_key: bytes = txn.get(b"site-key", db=self._meta) or b""
            if len(self.site_key) != 16:
                raise Damaged("the key of its hashes is missing")
            self.bytes_used = self._figure(txn, b"bytes")
            self.entries = self._figure(txn, b"entries")
        self._records = env.open_db(b"records", create=create)
        self._bodies = env.open_db(b"bodies", create=create)
        self._uses = env.open_db(b"uses", create=create)
        self._used = env.open_db(b"used", create=create)
        self._marks = env.open_db(b"marks", dupsort=True, dupfixed=True, create=create)

    def _figure(self, txn: Any, name: bytes) -> int:
        text = txn.get(name, db=self._meta, default=b"0")
        if not text.isdigit():
            raise Damaged(f"{name.decode()} is no number")
        return int(text)

    def close(self) -> None:
        """Close the database; nothing is written."""
        self._env.close()

    def check_readers(self) -> int:
        """Free the places of readers whose processes have been killed; return how many."""
        return int(self._env.reader_check())

    @property
    def file_bytes(self) -> int:
        """Size of the file in octets."""
        return int(self._env.info()["last_pgno"] + 1) * PAGE_BYTES

    @property
    def free_bytes(self) -> int:
        """Number of octets of the file that are free."""
        trees = (self._meta, self._records, self._bodies, self._uses, self._used, self._marks)
        with self._env.begin() as txn:
            stats = [txn.stat(db) for db in trees]
        taken = sum([s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"] for s in stats])
        return max(0, self.file_bytes - (taken + HEADER_PAGES) * PAGE_BYTES)

    @property
    def map_size(self) -> int:
        """The size of the map in octets, as the last writer chose it."""
        return int(self._env.info()["map_size"])

    # -- notes

    def note(self, name: str) -> Any:
        """Return the note that `set_note` wrote; None if there is none."""
        with self._env.begin() as txn:
            text = txn.get(b"note-" + name.encode(), db=self._meta)
        try:
            return None if text is None else json.loads(text)
        except ValueError:
            return None

    def set_note(self, name: str, value: object) -> None:
        """Write a note beside the entries."""
        with self._env.begin(write=True) as txn:
            txn.put(b"note-" + name.encode(), json.dumps(value).encode(), db=self._meta)

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
        bodies = self._bodies
        try:
            with self._env.begin(buffers=True) as txn:
                get = txn.get

                def body_of(name: bytes, length: int) -> bytes | None:
                    packed = get(name, None, bodies)
                    return None if packed is None else unpack_body(packed, length, crc32)

                data = get(packed_key, None, self._records)
                if data is None:
                    return None
                found = unpack_slot(bytes(data), now, wall, max_stale_s, body_of)
                if found is None or (found.key != key and self.slot_key(found.key) != packed_key):
                    raise Damaged("a record or a body does not verify")
                return found
        except lmdb.Error as error:
            raise OSError(5, str(error)) from None

    def read_again(self, packed_key: bytes, data: bytes, body: tuple[bytes, int]) -> bytes | None:
        """Return the body of a slot that was read before, verified; None if it has changed.

        Args:
            data: The packed slot, which has one variant.
            body: The name and the length of its body.
        """
        try:
            with self._env.begin(buffers=True) as txn:
                found = txn.get(packed_key, None, self._records)
                if found is None or bytes(found) != data:
                    return None
                name, length = body
                packed = txn.get(name, None, self._bodies)
                return None if packed is None else unpack_body(packed, length, crc32)
        except lmdb.Error as error:
            raise OSError(5, str(error)) from None

    def table_keys(self) -> Iterator[int]:
        """Yield the table key of each slot; other threads may run from time to time."""
        for key in self._names(self._used):
            yield from_bytes(key[:8]) ^ from_bytes(key[OWNER_BYTES:_HASH_END])

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
                found = cursor.first() if last is None else cursor.set_range(last)
                if found and last is not None and cursor.key() == last:
                    found = cursor.next()
                walk: Any = ()
                if found:
                    walk = cursor.iternext() if values else cursor.iternext(keys=True, values=False)
                some: list[Any] = list(islice(walk, TURN_ENTRIES))
            yield some
            if len(some) < TURN_ENTRIES:
                return
            last = some[-1][0] if values else some[-1]
            time.sleep(0)

    def slots(self, now: float, wall: float) -> Iterator[tuple[bytes, Unpacked | None]]:
        """Yield each slot key with its slot, without bodies; None if the slot does not verify."""
        for key, data in self._walk(self._records):
            found = unpack(data, now, wall, float("inf"))
            yield key, None if found is None or self.slot_key(found.key) != key else found

    def walk(self, now: float, wall: float) -> Iterator[tuple[bytes, Unpacked | None, bool]]:
        """Yield each slot key with its slot, and whether its bodies verify too."""
        for key, found in self.slots(now, wall):
            if found is None:
                yield key, None, False
                continue
            try:
                if self.read(key, now, wall, float("inf")) is None:
                    continue  # the process that uses the database has removed it meanwhile
            except (Damaged, OSError):
                yield key, found, False
            else:
                yield key, found, True

    def body_counts(self) -> Iterator[tuple[bytes, int]]:
        """Yield the name of each body, and the counted number of records that refer to it."""
        for name in self._names(self._bodies):
            with self._env.begin() as txn:
                uses = txn.get(name, db=self._uses)
            yield name, 1 if uses is None else _count.unpack(uses)[0]

    @property
    def bodies(self) -> int:
        """Number of distinct bodies."""
        with self._env.begin() as txn:
            return int(txn.stat(self._bodies)["entries"])

    def count_everyones(self) -> int:
        """Return the number of public slots."""
        count = 0
        for key in self._names(self._used):
            if not is_everyones(key):
                break  # public slots come first
            count += 1
        return count

    # -- writing

    def commit(self, batch: Batch, touched: list[bytes], now: float, wall: float) -> Done:
        """Write a batch. Without room for it, old entries are evicted, or the batch is dropped.

        Args:
            touched: Slot keys that have been used.

        Raises:
            OSError: The batch could not be written (no space, a broken disk); nothing has changed.
            Full: There is not even room to remove entries.
        """
        gone: list[int] = []
        evicted = 0
        try:
            try:
                done = self._commit(batch, touched, now, wall)
            except lmdb.MapFullError:
                self._env.reader_check()
                evicted += self._evict(int(self.bytes_max * (1 - 2 * EVICTED_SHARE)), gone)
                try:
                    done = self._commit(batch, touched, now, wall)
                except lmdb.MapFullError:
                    nothing = {key: Written((), ()) for key in batch.slots}
                    done = self._commit(Batch(batch.removals, nothing), [], now, wall)
                    done = done._replace(not_written=len(batch.slots))
            if self.bytes_used > self.bytes_max or self.entries > ENTRIES_MAX:
                evicted += self._evict(int(self.bytes_max * (1 - EVICTED_SHARE)), gone)
            self.keep_size()
        except lmdb.MapFullError:
            raise Full from None
        except lmdb.Error as error:
            raise OSError(*_errno_of(error)) from None
        return done._replace(removed=[*done.removed, *gone], evicted=evicted)

    def _commit(self, batch: Batch, touched: list[bytes], now: float, wall: float) -> Done:
        step = int(wall // STEP_S)
        removed: list[int] = []
        before = self.bytes_used, self.entries
        try:
            self._failpoint("begin")
            with self._env.begin(write=True) as txn:
                # The previous process or the successor may have written.
                self.bytes_used = self._figure(txn, b"bytes")
                self.entries = self._figure(txn, b"entries")
                if batch.removals:
                    self._remove(txn, batch.removals, removed)
                    self._failpoint("removed")
                written = 0
                for key, waits in batch.slots.items():
                    written += self._write(txn, key, waits, step, now, wall, removed)
                for packed_key in touched:
                    use = txn.get(packed_key, db=self._used)
                    if use is not None and _use.unpack(use)[0] != step:
                        use = _use.pack(step, _use.unpack(use)[1])
                        txn.put(packed_key, use, db=self._used)
                self._failpoint("written")
                txn.put(b"bytes", b"%d" % max(0, self.bytes_used), db=self._meta)
                txn.put(b"entries", b"%d" % max(0, self.entries), db=self._meta)
            self._failpoint("committed")
        except BaseException:
            self.bytes_used, self.entries = before
            raise
        return Done(removed, batch.removals.everything, written, 0, 0)

    def _write(
        self, txn: Any, key: bytes, waits: Written, step: int, now: float, wall: float,
        removed: list[int],
    ) -> int:  # fmt: skip
        packed_key = self.slot_key(key)
        packed = pack(key, waits.slot, waits.marks, self.site_key, now, wall)
        old = txn.get(packed_key, db=self._records)
        if not packed.data:
            if old is not None:
                self._delete(txn, packed_key, old, removed)
            return 0
        self._put(txn, packed_key, packed, waits.marks, old, step)
        return 1

    def _put(
        self, txn: Any, packed_key: bytes, packed: Packed, marks: tuple[int, ...],
        old: bytes | None, step: int,
    ) -> None:  # fmt: skip
        for name, body in packed.bodies:
            self._hold(txn, name, body)
        if old is not None:
            self._release(txn, old)
        else:
            self.entries += 1
        if not is_everyones(packed_key):
            for mark in marks:
                owner = packed_key[:OWNER_BYTES]
                txn.put(_mark.pack(mark), owner, db=self._marks, dupdata=True)
        txn.put(packed_key, packed.data, db=self._records)
        cost = cost_of(len(packed.data)) + cost_of(KEY_BYTES + _use.size)
        self.bytes_used += cost
        # Only the octets that no other entry shares: about as many as its eviction would free.
        own = sum([cost_of(len(body)) for _, body in packed.bodies])
        use = _use.pack(step, min(cost + own, 2**32 - 1))
        if old is None or txn.get(packed_key, db=self._used) != use:  # one page less to write
            txn.put(packed_key, use, db=self._used)

    def _hold(self, txn: Any, name: bytes, body: bytes) -> None:
        """Store a body, or count one more record that refers to it.

        A body with one record has no count.
        """
        if txn.put(name, pack_body(body, crc32), db=self._bodies, overwrite=False):
            self.bytes_used += cost_of(len(body) + 4)
        else:
            uses = txn.get(name, db=self._uses)
            count = 1 if uses is None else _count.unpack(uses)[0]
            txn.put(name, _count.pack(count + 1), db=self._uses)

    def _release(self, txn: Any, data: bytes) -> None:
        """Stop counting a record that is removed or replaced, and its bodies."""
        self.bytes_used -= cost_of(len(data)) + cost_of(KEY_BYTES + _use.size)
        # The bodies of a damaged record are not known. Compacting removes them.
        for name, length in bodies_of_packed(data):
            uses = txn.get(name, db=self._uses)
            count = 1 if uses is None else _count.unpack(uses)[0]
            if count > 2:
                txn.put(name, _count.pack(count - 1), db=self._uses)
            elif count > 1:
                txn.delete(name, db=self._uses)
            elif txn.delete(name, db=self._bodies):
                self.bytes_used -= cost_of(length + 4)

    def _delete(self, txn: Any, packed_key: bytes, data: bytes, removed: list[int]) -> None:
        self._release(txn, data)
        txn.delete(packed_key, db=self._records)
        txn.delete(packed_key, db=self._used)
        self.entries -= 1
        removed.append(table_key(packed_key))
        if is_everyones(packed_key):
            return
        found = unpack(data, 0.0, 0.0, 0.0)
        if found is None or not found.marks:
            return
        owner = packed_key[:OWNER_BYTES]
        with txn.cursor(self._records) as cursor:
            if cursor.set_range(owner) and cursor.key().startswith(owner):
                return
        for mark in found.marks:
            txn.delete(_mark.pack(mark), owner, db=self._marks)

    def _remove(self, txn: Any, removals: Removals, removed: list[int]) -> None:
        if removals.everything:
            for db in (self._records, self._bodies, self._uses, self._used, self._marks):
                txn.drop(db, delete=False)
            self.bytes_used = self.entries = 0
            return
        owners = set(removals.owners)
        for mark in removals.marks:
            with txn.cursor(self._marks) as cursor:
                if cursor.set_key(_mark.pack(mark)):
                    owners.update(cursor.iternext_dup())
        for owner in owners:
            self._delete_all(txn, owner, removed)
        if removals.personal:
            self._delete_all(txn, b"", removed, personal=True)
        for key in removals.keys:
            self._delete_key(txn, self.slot_key(key), removed)
        for key in removals.superseded:
            packed_key = self.slot_key(key)
            data = txn.get(packed_key, db=self._records)
            if data is None:
                continue
            if marked := superseded(data):
                txn.put(packed_key, marked, db=self._records)
            else:
                self._delete(txn, packed_key, data, removed)
        if removals.purges:
            self._purge(txn, removals, removed)

    def _delete_key(self, txn: Any, packed_key: bytes, removed: list[int]) -> None:
        data = txn.get(packed_key, db=self._records)
        if data is not None:
            self._delete(txn, packed_key, data, removed)

    def _delete_all(
        self, txn: Any, owner: bytes, removed: list[int], *, personal: bool = False
    ) -> None:
        """Delete the entries of one owner, or (`personal`) all entries that are not public."""
        keys: list[bytes] = []
        with txn.cursor(self._records) as cursor:
            found = (
                cursor.set_range(bytes(OWNER_BYTES - 1) + b"\1")
                if personal
                else (cursor.set_range(owner))
            )
            while found and (personal or cursor.key().startswith(owner)):
                keys.append(cursor.key())
                found = cursor.next()
        for key in keys:
            self._delete_key(txn, key, removed)

    def _purge(self, txn: Any, removals: Removals, removed: list[int]) -> None:
        found: list[bytes] = []
        with txn.cursor(self._records) as cursor:
            for packed_key, data in cursor:
                key = key_of_packed(data)
                if not key or any(purge.fits(key) for purge in removals.purges):
                    found.append(packed_key)
        for packed_key in found:
            self._delete_key(txn, packed_key, removed)

    # -- making room

    def _evict(self, bytes_wanted: int, removed: list[int]) -> int:
        """Delete the least recently used entries, until at most `bytes_wanted` octets are used."""
        wanted = self.bytes_used - bytes_wanted
        entries = self.entries - int(ENTRIES_MAX * (1 - EVICTED_SHARE))
        costs: dict[int, list[int]] = {}  # by step: octets, entries
        for _, use in self._walk(self._used):
            step, cost = _use.unpack(use)
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
        evicted = 0
        some: list[bytes] = []
        for key, use in self._walk(self._used):
            if _use.unpack(use)[0] <= last:
                some.append(key)
            if len(some) >= EVICTED_AT_ONCE_MAX:
                evicted += self._delete_some(some, removed)
                some = []
                if self._is_small_enough(bytes_wanted):
                    return evicted
        return evicted + self._delete_some(some, removed)

    def _is_small_enough(self, bytes_wanted: int) -> bool:
        return self.bytes_used <= bytes_wanted and self.entries <= ENTRIES_MAX

    def _delete_some(self, keys: list[bytes], removed: list[int]) -> int:
        before = self.bytes_used, self.entries
        try:
            with self._env.begin(write=True) as txn:
                for key in keys:
                    self._delete_key(txn, key, removed)
                    txn.delete(key, db=self._used)
                txn.put(b"bytes", b"%d" % max(0, self.bytes_used), db=self._meta)
                txn.put(b"entries", b"%d" % max(0, self.entries), db=self._meta)
        except BaseException:
            self.bytes_used, self.entries = before
            raise
        return len(keys)

    def delete_older(self, now: float, wall: float, max_stale_s: float) -> list[int]:
        """Delete all entries that are too old to be served; return their table keys.

        Raises:
            OSError: The disk has failed.
        """
        removed: list[int] = []
        some: list[bytes] = []
        try:
            for key, data in self._walk(self._records):
                found = unpack(data, now, wall, max_stale_s)
                if found is None or all(one.age(now) > one.age_max_s for one in found.variants):
                    some.append(key)
                if len(some) >= EVICTED_AT_ONCE_MAX:
                    self._delete_some(some, removed)
                    some = []
            self._delete_some(some, removed)
        except lmdb.Error as error:
            raise OSError(*_errno_of(error)) from None
        return removed

    def keep_size(self) -> None:
        """Extend the file to the length in its header.

        Pages at its end that were allocated and freed in one commit are never written. Without
        this, a truncated file could not be recognised.
        """
        if os.stat(self._path).st_size < self.file_bytes:
            os.truncate(self._path, self.file_bytes)

    def sync(self) -> None:
        """Wait until everything is on disk."""
        self._env.sync(True)

    def copy_to(self, other: "Database", wall: float, max_stale_s: float) -> Iterator[int]:
        """Copy the intact entries that are not too old into an empty database; yield octets.

        Counts, sizes and marks are computed anew, so that a mistake in them is not copied.

        Raises:
            OSError: The other database could not be written.
            Full: There is no room.
        """
        with self._env.begin() as txn, txn.cursor(self._meta) as cursor:
            meta = [item for item in cursor if item[0] not in (b"bytes", b"entries")]
        other.site_key = self.site_key
        steps = self._walk(self._used)
        some: list[tuple[bytes, Packed, tuple[int, ...], int]] = []
        size = 0
        try:
            with other._env.begin(write=True) as txn:
                for name, value in meta:
                    txn.put(name, value, db=other._meta)
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
                some.append((key, packed, one.marks, _use.unpack(use)[0]))
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
            raise OSError(*_errno_of(error)) from None

    def _data(self, packed_key: bytes) -> bytes:
        with self._env.begin() as txn:
            return bytes(txn.get(packed_key, db=self._records) or b"")

    def _put_all(self, slots: list[tuple[bytes, Packed, tuple[int, ...], int]]) -> None:
        with self._env.begin(write=True) as txn:
            for packed_key, packed, marks, step in slots:
                self._put(txn, packed_key, packed, marks, None, step)
            txn.put(b"bytes", b"%d" % self.bytes_used, db=self._meta)
            txn.put(b"entries", b"%d" % self.entries, db=self._meta)


def _errno_of(error: Exception) -> tuple[int, str]:
    """Return the error number and text of an LMDB error; EIO if it has no number."""
    text = str(error)
    for number in (ENOSPC, EROFS, EDQUOT, EACCES, EPERM):
        if os.strerror(number) in text:
            return number, os.strerror(number)
    return EIO, text
