"""One write transaction of the database: writes and removes entries, and counts them."""

import time
from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import Any, Final, cast
from zlib import crc32 as _crc32

from retter.disk.environment import PAGE_BYTES, Trees, figure
from retter.disk.joining import unknown_variants, without_torsos
from retter.store.owner import OWNER_BYTES
from retter.store.packing import (
    KEY_BYTES,
    Packed,
    PackedVariant,
    bodies_of_packed,
    body_hash,
    body_name,
    is_everyones,
    key_of_packed,
    pack,
    pack_body,
    slot_key,
    superseded,
    unpack,
    variants_of_packed,
    with_variants,
)
from retter.store.record import BODY
from retter.store.write_behind import Counted, Removals, Slot, Written


def _fastest_checksum() -> Callable[[bytes | memoryview], int]:
    try:
        from isal import isal_zlib  # ten times as fast: 4 us for 64 KiB instead of 40
    except ImportError:
        return _crc32
    return cast("Callable[[bytes | memoryview], int]", isal_zlib.crc32)  # pyright: ignore


crc32: Final = _fastest_checksum()

_INLINE_BYTES_MAX: Final = 2000  # LMDB stores larger values on separate pages

# Entries that are looked at before other threads may run.
TURN_ENTRIES: Final = 64

# Names of bodies with one checksum and one length that are tried before a hash is computed. Two
# such bodies are rare, unless somebody makes them.
NAMES_TRIED_MAX: Final = 4

_HASH_END: Final = OWNER_BYTES + 8  # of the octets that a table key is made of
from_bytes: Final = int.from_bytes

use_struct: Final = Struct("<II")  # step, cost
count_struct: Final = Struct("<I")
_mark = Struct("<q")


def table_key(packed_key: bytes) -> int:
    """Return the 64 bits that represent a slot key in a KeyTable."""
    return from_bytes(packed_key[:8]) ^ from_bytes(packed_key[OWNER_BYTES:_HASH_END])


def cost_of(size: int) -> int:
    """Return the approximate octets that a value takes in the file."""
    if size > _INLINE_BYTES_MAX:
        return -(-(size + 16) // PAGE_BYTES) * PAGE_BYTES + 64
    return size * 3 // 2 + 64  # pages of a tree are two thirds full


_USE_COST: Final = cost_of(KEY_BYTES + use_struct.size)


class Change:
    """The changes of one transaction.

    Args:
        txn: The transaction. The caller commits it after `save_figures`.
        joins: Several workers write to the database (joining.py).

    Attributes:
        step: The time of the last use of what is written, in coarse steps.
        removed: The table keys of entries that were removed and not written again.
        bytes_used: The octets of all entries.
        entries: The number of all entries.
        kept: Keys whose entries of another worker stay.
    """

    __slots__ = (
        "_before", "_joins", "_site_key", "_trees", "_txn", "bytes_used", "entries", "kept",
        "removed", "step",
    )  # fmt: skip

    def __init__(
        self, txn: Any, trees: Trees, site_key: bytes, step: int = 0, *, joins: bool = False
    ) -> None:
        self._joins = joins
        self._txn = txn
        self._trees = trees
        self._site_key = site_key
        self.step = step
        # Another process may have written.
        self.bytes_used = figure(txn, trees.meta, b"bytes")
        self.entries = figure(txn, trees.meta, b"entries")
        self._before = self.bytes_used, self.entries
        self.removed: set[int] = set()
        self.kept: list[bytes] = []

    def save_figures(self) -> None:
        """Write the number of entries and their octets.

        A removal that finds nothing writes nothing at all, so no disk is waited for.
        """
        if (self.bytes_used, self.entries) == self._before:
            return
        meta = self._trees.meta
        self._txn.put(b"bytes", b"%d" % max(0, self.bytes_used), db=meta)
        self._txn.put(b"entries", b"%d" % max(0, self.entries), db=meta)

    # -- writing

    def write(self, key: bytes, waits: Written, now: float, wall: float) -> bool:
        """Write a slot; return False if there is nothing to write, and nothing remains."""
        packed_key = slot_key(key, self._site_key)
        old = self._txn.get(packed_key, None, self._trees.records)
        before = [] if old is None else bodies_of_packed(old)
        slot, others = waits.slot, []
        if self._joins and slot and old is not None and not waits.whole:
            others = variants_of_packed(old, now, wall)
            slot = without_torsos(waits, others)
            if len(slot) < len(waits.slot):
                self.kept.append(key)
                if not slot:
                    return False
        packed = pack(key, slot, waits.marks, now, wall, lambda body: self._hold(body, before))
        if others and packed.data:
            packed = self._joined(packed, slot, others, before)
        if not packed.data:
            if old is not None:
                self._delete(packed_key, old)
            return False
        if old is not None:
            self._stop_counting(old, before)
        self.put(packed_key, packed, waits.marks, is_new=old is None)
        if self.removed:
            self.removed.discard(table_key(packed_key))
        return True

    def _joined(
        self,
        packed: Packed,
        slot: Slot,
        others: list[PackedVariant],
        before: list[tuple[bytes, int]],
    ) -> Packed:
        """Return a packed slot with the variants that another worker has stored under its key."""
        unknown = unknown_variants(slot, [name for name, _ in packed.bodies], others)
        if not unknown:
            return packed
        for one in unknown:
            body = one.record[BODY], one.body_bytes
            if body in before:
                before.remove(body)
            else:
                self.count_use(body[0])  # the slot has another variant with this body
        return packed._replace(data=with_variants(packed.data, unknown))

    def put(
        self, packed_key: bytes, packed: Packed, marks: tuple[int, ...], *, is_new: bool = True
    ) -> None:
        """Write a packed slot, whose bodies are there."""
        txn, trees = self._txn, self._trees
        self.entries += is_new
        if marks and not is_everyones(packed_key):
            owner = packed_key[:OWNER_BYTES]
            for mark in marks:
                txn.put(_mark.pack(mark), owner, db=trees.marks, dupdata=True)
        txn.put(packed_key, packed.data, db=trees.records)
        cost = cost_of(len(packed.data)) + _USE_COST
        self.bytes_used += cost
        # Only the octets that no other entry shares: about as many as its eviction would free.
        for _, body in packed.bodies:
            cost += cost_of(len(body))
        use = use_struct.pack(self.step, min(cost, 2**32 - 1))
        if is_new or txn.get(packed_key, None, trees.used) != use:  # one page less to write
            txn.put(packed_key, use, db=trees.used)

    def _hold(self, body: bytes, before: list[tuple[bytes, int]]) -> bytes:
        """Store a body, or count one more record that refers to it; return its name.

        Args:
            before: The bodies of the record that is replaced. If this is one of them, it is taken
                from the list, and its count stays.
        """
        checksum, bodies = crc32(body), self._trees.bodies
        packed = pack_body(body, checksum)
        for number in range(NAMES_TRIED_MAX):
            name = body_name(body, checksum, number)
            if not self._txn.put(name, packed, db=bodies, overwrite=False):
                if self._txn.get(name, None, bodies) != packed:
                    continue  # another body has this checksum and length
                if (name, len(body)) in before:
                    before.remove((name, len(body)))
                else:
                    self.count_use(name)
            else:
                self.bytes_used += cost_of(len(packed))
            return name
        return self.hold_as(body_hash(body, self._site_key), packed)

    def hold_as(self, name: bytes, packed: bytes) -> bytes:
        """Store a packed body under a name that no other body has."""
        if self._txn.put(name, packed, db=self._trees.bodies, overwrite=False):
            self.bytes_used += cost_of(len(packed))
        else:
            self.count_use(name)
        return name

    def count_use(self, name: bytes) -> None:
        """Count one more record that refers to a body. A body with one record has no count."""
        uses = self._txn.get(name, None, self._trees.uses)
        count = 1 if uses is None else count_struct.unpack(uses)[0]
        self._txn.put(name, count_struct.pack(count + 1), db=self._trees.uses)

    def touch(self, packed_key: bytes) -> None:
        """Note that an entry has been used."""
        use = self._txn.get(packed_key, None, self._trees.used)
        if use is not None and use_struct.unpack(use)[0] != self.step:
            use = use_struct.pack(self.step, use_struct.unpack(use)[1])
            self._txn.put(packed_key, use, db=self._trees.used)

    # -- removing

    def delete_key(self, packed_key: bytes) -> None:
        """Delete a slot if it is there."""
        data = self._txn.get(packed_key, None, self._trees.records)
        if data is not None:
            self._delete(packed_key, data)

    def forget_use(self, packed_key: bytes) -> None:
        """Delete the last use of a slot that may not be there any more."""
        self._txn.delete(packed_key, db=self._trees.used)

    def remove(self, removals: Removals) -> None:
        """Remove entries, or mark them as superseded."""
        txn, trees = self._txn, self._trees
        if removals.everything:
            for db in trees[1:]:
                txn.drop(db, delete=False)
            self.bytes_used = self.entries = 0
            return
        owners = set(removals.owners)
        for mark in removals.marks:
            with txn.cursor(trees.marks) as cursor:
                if cursor.set_key(_mark.pack(mark)):
                    owners.update(cursor.iternext_dup())
        for owner in owners:
            self._delete_all(owner)
        if removals.personal:
            self._delete_all(b"", personal=True)
        for key in removals.keys:
            self.delete_key(slot_key(key, self._site_key))
        for key in removals.superseded:
            self._supersede(slot_key(key, self._site_key))
        if removals.purges:
            self._purge(removals)

    def _supersede(self, packed_key: bytes) -> None:
        data = self._txn.get(packed_key, None, self._trees.records)
        if data is None:
            return
        if marked := superseded(data):
            self._txn.put(packed_key, marked, db=self._trees.records)
        else:
            self._delete(packed_key, data)

    def _stop_counting(self, data: bytes, bodies: Iterable[tuple[bytes, int]]) -> None:
        """Stop counting a record that is removed or replaced, and these of its bodies."""
        txn, trees = self._txn, self._trees
        self.bytes_used -= cost_of(len(data)) + _USE_COST
        # The bodies of a damaged record are not known. Compacting removes them.
        for name, length in bodies:
            uses = txn.get(name, None, trees.uses)
            count = 1 if uses is None else count_struct.unpack(uses)[0]
            if count > 2:
                txn.put(name, count_struct.pack(count - 1), db=trees.uses)
            elif count > 1:
                txn.delete(name, db=trees.uses)
            elif txn.delete(name, db=trees.bodies):
                self.bytes_used -= cost_of(length + 4)

    def _delete(self, packed_key: bytes, data: bytes) -> None:
        txn, trees = self._txn, self._trees
        self._stop_counting(data, bodies_of_packed(data))
        txn.delete(packed_key, db=trees.records)
        txn.delete(packed_key, db=trees.used)
        self.entries -= 1
        self.removed.add(table_key(packed_key))
        if is_everyones(packed_key):
            return
        unpacked = unpack(data, 0.0, 0.0, 0.0)
        if unpacked is None or not unpacked.marks:
            return
        owner = packed_key[:OWNER_BYTES]
        with txn.cursor(trees.records) as cursor:
            if cursor.set_range(owner) and cursor.key().startswith(owner):
                return
        for mark in unpacked.marks:
            txn.delete(_mark.pack(mark), owner, db=trees.marks)

    def _delete_all(self, owner: bytes, *, personal: bool = False) -> None:
        """Delete the entries of one owner, or (`personal`) all entries that are not public."""
        keys: list[bytes] = []
        with self._txn.cursor(self._trees.records) as cursor:
            more = cursor.set_range(bytes(OWNER_BYTES - 1) + b"\1" if personal else owner)
            while more and (personal or cursor.key().startswith(owner)):
                keys.append(cursor.key())
                more = cursor.next()
        for key in keys:
            self.delete_key(key)

    def _purge(self, removals: Removals) -> None:
        keys: list[bytes] = []
        with self._txn.cursor(self._trees.records) as cursor:
            for packed_key, data in in_turns(cursor):
                key = key_of_packed(data)
                if not key or any(purge.fits(key) for purge in removals.purges):
                    keys.append(packed_key)
        for packed_key in in_turns(keys):
            self.delete_key(packed_key)

    def counted(self, counted: Counted) -> int:
        """Remove what a purge removes; return how many slots there were, here or in memory."""
        pages, used = counted.pages, self._trees.used
        near = set(pages.others)
        near.update([slot_key(key, self._site_key) for key in in_turns(pages.keys)])
        alone = sum([self._txn.get(key, None, used) is None for key in in_turns(near)])
        before = self.entries
        self.remove(counted.removals)
        return max(0, before - self.entries) + alone


def in_turns(values: Iterable[Any]) -> Iterator[Any]:
    """Yield values; other threads may run from time to time."""
    for number, value in enumerate(values):
        if not number % TURN_ENTRIES:
            time.sleep(0)
        yield value
