"""Changes of the store that are not on disk yet, in the order in which they must be written.

The store in memory (the near store) is authoritative. The disk is updated in batches: first the
removals (`Removals`), then the slots in their present state. Until a batch is on disk, a look-up
behind the near store also considers the changes that are not written yet. So a removed entry is
never found on disk again.

This module does no I/O. The caller takes the next batch, writes it, and reports success or failure.
`now` is monotonic seconds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, NamedTuple, Protocol, cast

from retter.store.packing import may_be_kept
from retter.store.policy import key_parts
from retter.store.purge_count import PurgeCount
from retter.store.purging import matches
from retter.store.record import BODY, HEAD, NO_STORE, SUPERSEDED, Record

# An SD card wears with each write and each block. So a batch is written only after this time, or
# with this size.
COMMIT_EVERY_S: Final = 5.0
COMMIT_BYTES: Final = 1024 * 1024
COMMIT_KEYS: Final = 2048  # to go through them takes half a millisecond

# If more of the entries on disk change, batches are larger and later, and an entry that changes
# twice is written once. An SD card writes 10 to 20 MiB/s at best and wears, and each page costs
# 20 us of CPU. New entries do not wait for this, and nothing waits if the memory for waiting
# changes is nearly full.
WRITTEN_BYTES_PER_S: Final = 4 * 1024 * 1024

# The delay after a batch that could not be written.
RETRY_S: Final = 5.0

# If the disk is too slow, waiting changes take at most this memory, or a quarter of the budget of
# the near store, which mostly holds the same bytes. Further stored entries are not written, and the
# entries that they replace are removed from the disk.
WAITING_BYTES_MIN: Final = 8 * 1024 * 1024
WAITING_SHARE: Final = 4
WAITING_KEYS_MAX: Final = 4 * COMMIT_KEYS

# If there are more removals than this while the disk cannot be written, all personal entries, or
# all entries, are removed. So too much may be removed, but never too little.
REMOVALS_MAX: Final = 16_384

# The same for purges of an operator: a look-up compares its key with each of them, 0.5 us.
PURGES_MAX: Final = 256

# The cost of a slot without its heads and bodies: names, numbers, dictionary entries.
SLOT_OVERHEAD_BYTES: Final = 300

Slot = tuple[Record, ...]


class Purge(NamedTuple):
    """A purge by an operator. All given conditions must match, as in `Invalidation.purge`."""

    url: bytes | None
    prefix: bytes | None
    owner: bytes | None

    def fits(self, key: bytes) -> bool:
        """Return whether a key is dropped."""
        return matches(key, self.url, self.prefix, self.owner)


@dataclass(slots=True)
class Removals:
    """Entries that must be removed from the disk, or marked as superseded there."""

    everything: bool = False
    personal: bool = False  # all entries of owners
    owners: set[bytes] = field(default_factory=set[bytes])
    marks: set[int] = field(default_factory=set[int])  # sessions (marks.py): all owners with one
    keys: set[bytes] = field(default_factory=set[bytes])
    purges: list[Purge] = field(default_factory=list[Purge])
    superseded: set[bytes] = field(default_factory=set[bytes])  # keys

    def __bool__(self) -> bool:
        return bool(
            self.everything
            or self.personal
            or self.owners
            or self.marks
            or self.keys
            or self.purges
            or self.superseded
        )

    @property
    def superseded_alone(self) -> bool:
        """Whether nothing is to be removed."""
        return not (
            self.keys
            or self.owners
            or self.marks
            or self.purges
            or self.everything
            or self.personal
        )

    def take(self, key: bytes, marks: Iterable[int] = ()) -> bool:
        """Return whether a slot must be removed."""
        if not self:
            return False
        owner, _ = key_parts(key)
        return (
            self.everything
            or (self.personal and bool(owner))
            or owner in self.owners
            or key in self.keys
            or not self.marks.isdisjoint(marks)
            or any(purge.fits(key) for purge in self.purges)
        )

    def add(self, later: "Removals") -> None:
        """Add later removals to these."""
        if not self.everything and later.superseded_alone:  # a form: nearly always
            self.superseded |= later.superseded
            if len(self.keys) + len(self.superseded) <= REMOVALS_MAX:
                return
        self.everything = self.everything or later.everything
        self.personal = self.personal or later.personal
        self.owners |= later.owners
        self.marks |= later.marks
        self.keys |= later.keys
        self.purges += [one for one in later.purges if one not in self.purges]
        self.superseded |= later.superseded
        if len(self.owners) + len(self.marks) > REMOVALS_MAX:
            self.personal = True
            self.owners, self.marks = set(), set()
        if len(self.keys) + len(self.superseded) > REMOVALS_MAX:
            self.everything = True
        if len(self.purges) > PURGES_MAX:
            self.everything = True
        if self.everything:
            self.keys, self.superseded, self.purges = set(), set(), []


class Written(NamedTuple):
    """A slot to be written. If it has no variants, it is removed from the disk."""

    slot: Slot
    marks: tuple[int, ...]
    size: int = SLOT_OVERHEAD_BYTES  # in memory, octets
    new: bool = False  # nothing was known under its key when it was first stored
    whole: bool = False  # it replaces all variants on disk, also those that are not known here


class Batch(NamedTuple):
    """Changes that are written together: first the removals, then the slots."""

    removals: Removals
    slots: dict[bytes, Written]
    counts: tuple["Counted", ...] = ()  # purges among the removals whose pages are counted


class Counted(NamedTuple):
    """A purge whose pages are counted, and what it removes from the disk."""

    pages: PurgeCount
    removals: Removals


class Found(NamedTuple):
    """A slot found behind the near store, and the marks of its owner."""

    slot: Slot
    marks: tuple[int, ...]
    often: bool = True  # it is read so often, or is of such a kind, that it belongs into memory


as_found = cast(
    "Callable[[tuple[Slot, tuple[int, ...], bool]], Found]",
    partial(tuple.__new__, Found),  # pyright: ignore[reportUnknownMemberType]
)


class Shelf(Protocol):
    """The disk behind the near store."""

    def read(self, key: bytes, now: float) -> Found | None:
        """Return the slot of a key; None if there is none, or if reading it might take long."""
        ...

    def knows(self, key: bytes) -> bool:
        """Return whether something may be stored under a key."""
        ...

    def note(self, removals: Removals) -> None:
        """Record the removals at once, so that they are not lost if the process is killed now."""
        ...


def marked_superseded(slot: Slot) -> Slot:
    """Return a slot with all variants superseded."""
    return tuple([(*one[:SUPERSEDED], True, *one[SUPERSEDED + 1 :]) for one in slot])


def _size(slot: Slot) -> int:
    if len(slot) == 1:
        return SLOT_OVERHEAD_BYTES + len(slot[0][BODY]) + len(slot[0][HEAD])
    return SLOT_OVERHEAD_BYTES + sum([len(one[BODY]) + len(one[HEAD]) for one in slot])


class WriteBehind:
    """Remembers changes of the near store until they are on disk.

    Args:
        personal: Also keep the entries of owners (`--store-private`).
        bytes_max: The memory that waiting changes may take.
    """

    def __init__(
        self, shelf: Shelf, *, personal: bool = True, bytes_max: int = WAITING_BYTES_MIN
    ) -> None:
        self._shelf = shelf
        self._bytes_max = bytes_max
        self.personal = personal
        self.closed = False  # only removals are accepted
        # While nothing waits, a look-up need not consider it. True only if that is certain.
        self._is_quiet = personal
        self._slots: dict[bytes, Written] = {}
        self._removals = Removals()
        self._removing = False  # there are some
        self._under_way: Batch | None = None
        self._since = 0.0  # the time of the oldest waiting change
        self._new_since = inf  # the time of the oldest one whose key the disk does not have
        self.new_every_s = COMMIT_EVERY_S  # how long such a one may wait
        self._not_before = 0.0
        self._has_failed = False  # the last batch
        self._paced_until = 0.0  # only for entries that are written once more
        self._bytes_new = 0  # of waiting entries whose keys the disk does not have
        self.bytes_waiting = 0
        self.not_kept = 0  # changes that were dropped because the disk was too slow
        self.removed = 0  # removals so far, so that a reader of an entry can see if there were more
        self._counting: Counted | None = None  # the purge that is being made
        self._counts: list[Counted] = []  # of purges that are not written
        self.gathers = False  # no batch yet: other workers tell what they have dropped

    # -- changes

    def changed(
        self, key: bytes, slot: Slot, marks: tuple[int, ...], now: float, whole: bool = False
    ) -> None:
        """Note the present slot of a key; an empty one means that the key is removed.

        Args:
            whole: A variant has been removed, and not replaced.
        """
        self._is_quiet = False
        if not slot:
            self.removed += 1
        if (self.closed and slot) or (not self.personal and key.startswith(b"@")):
            return
        new = False
        for record in slot:
            if record[NO_STORE]:  # memory only; what it replaced is removed from disk
                slot, whole = tuple([one for one in slot if may_be_kept(one)]), True
                break
        slots = self._slots
        if not slots:
            self._since = now
        before = slots.get(key)
        size = _size(slot)
        if before is not None:
            self.bytes_waiting -= before.size
            new, whole = before.new, before.whole or whole
        elif slot and not self._shelf.knows(key):
            new = True
            if now < self._new_since:
                self._new_since = now
            self._bytes_new += size
        waiting = self.bytes_waiting + size
        if waiting > self._bytes_max or len(slots) >= WAITING_KEYS_MAX:
            self.not_kept += 1
            if before is None and len(slots) >= WAITING_KEYS_MAX:
                # There is no room even for this key, so its entry on disk is removed.
                self._take_back(Removals(keys={key}), now)
                return
            waiting += SLOT_OVERHEAD_BYTES - size
            slot, size = (), SLOT_OVERHEAD_BYTES
        slots[key] = Written(slot, marks, size, new, whole)
        self.bytes_waiting = waiting

    def withdrawn(self, key: bytes, now: float) -> None:
        """Note at once that the application has withdrawn the page of a key."""
        self._take_back(Removals(keys={key}), now)

    def supersede(self, key: bytes, now: float) -> None:
        """Note that an unsafe method has invalidated the entries of a key."""
        if not self.may_have(key):
            return
        waits = self._slots.get(key)
        if waits is not None:
            self._slots[key] = waits._replace(slot=marked_superseded(waits.slot))
        self._take_back(Removals(superseded={key}), now)

    def drop_owners(self, owners: Iterable[bytes], marks: Iterable[int], now: float) -> None:
        """Remove all entries of these owners, because a session has begun or ended."""
        if self.personal:
            removals = Removals(owners=set(owners), marks=set(marks))
            if self._counting is not None:
                self._count(removals)
            self._take_back(removals, now)

    def drop_personal(self, now: float) -> None:
        """Remove the entries of all owners: which sessions have ended is not known one by one."""
        if self.personal:
            self._take_back(Removals(personal=True), now)

    def purge(self, purge: Purge, now: float) -> None:
        """Remove the entries that match the purge of an operator."""
        everything = purge == Purge(None, None, None)
        removals = Removals(everything=True) if everything else Removals(purges=[purge])
        if self._counting is not None:
            self._count(removals)
        self._take_back(removals, now)

    def _take_back(self, removals: Removals, now: float) -> None:
        self.removed += 1
        if not self._slots and not self._removing:
            self._since = now
        self._shelf.note(removals)
        # A key is found in one step. For owners and purges, all waiting slots are searched.
        keys = removals.keys or removals.superseded or self._slots
        for key in keys:
            waits = self._slots.get(key)
            if waits is not None and waits.slot and removals.take(key, waits.marks):
                self.bytes_waiting -= waits.size - SLOT_OVERHEAD_BYTES
                self._slots[key] = Written((), ())
        self.begin_with(removals)

    def begin_count(self, count: PurgeCount) -> None:
        """Count what is removed until `end_count`."""
        self._counting = Counted(count, Removals())

    def _count(self, removals: Removals) -> None:
        """Count what is about to be removed; what waits may be nowhere else."""
        counting = self._counting
        assert counting is not None, "the caller has looked"
        counting.removals.add(removals)
        counting.pages.keys += [
            key
            for key, waits in self._slots.items()
            if waits.slot and removals.take(key, waits.marks)
        ]

    def end_count(self) -> None:
        """Count the pages with the next batch."""
        if self._counting is not None:
            self._counts.append(self._counting)
            self._counting = None

    def forget(self, key: bytes) -> None:
        """Forget the change of a key that waits to be written."""
        waits = self._slots.pop(key, None)
        if waits is not None:
            self.bytes_waiting -= waits.size

    @property
    def is_all_removed(self) -> bool:
        """Whether all removals are on disk."""
        batch = self._under_way
        return not self._removing and (batch is None or not batch.removals)

    def begin_with(self, removals: Removals) -> None:
        """Add the removals of before the restart that may not be on disk yet."""
        self._is_quiet = False
        self._removals.add(removals)
        self._removing = bool(self._removals)

    def all_removals(self) -> Removals:
        """Return all removals that may not be on disk yet."""
        removals = Removals()
        if self._under_way is not None:
            removals.add(self._under_way.removals)
        removals.add(self._removals)
        return removals

    def forget_bodies(self) -> None:
        """Drop the waiting entries, on disk too."""
        self.not_kept += len(self._slots)
        self._slots = {key: Written((), ()) for key in self._slots}
        self.bytes_waiting = SLOT_OVERHEAD_BYTES * len(self._slots)

    def close(self) -> None:
        """Accept only removals from now on: another process stores, perhaps by other rules.

        What waits is written at once. What cannot be written now is dropped, on disk too: by the
        next attempt, the other process has perhaps removed all that was stored by these rules.
        """
        self.closed = True
        if self._has_failed:
            self.forget_bodies()

    def may_have(self, key: bytes) -> bool:
        """Return whether the disk has, or will have, an entry for a key."""
        return (
            key in self._slots
            or (self._under_way is not None and key in self._under_way.slots)
            or self._shelf.knows(key)
        )

    # -- look-ups behind the near store

    def fetch(self, key: bytes, now: float) -> Found | None:
        """Return the slot of a key that the near store does not have, if that takes no wait."""
        if self._is_quiet:
            return self._shelf.read(key, now)
        if not self.personal and key.startswith(b"@"):
            return None
        batch = self._under_way
        if self._slots or batch is not None:
            waits = self._slots.get(key)
            if waits is not None:
                return Found(waits.slot, waits.marks) if waits.slot else None
            under_way = batch.slots.get(key) if batch is not None else None
            if under_way is not None:
                return self._passed(key, Found(under_way.slot, under_way.marks))
        found = self._shelf.read(key, now)
        if found is None or not (self._removing or batch is not None):
            return found
        return self.checked(key, found)

    def checked(self, key: bytes, found: Found) -> Found | None:
        """Return a slot that was read from disk, unless it was removed meanwhile."""
        if key in self._slots:
            return None  # it has changed during the read
        batch = self._under_way
        if batch is not None:
            if key in batch.slots or batch.removals.take(key, found.marks):
                return None
            if key in batch.removals.superseded:
                found = Found(marked_superseded(found.slot), found.marks)
        return self._passed(key, found)

    def _passed(self, key: bytes, found: Found) -> Found | None:
        removals = self._removals
        if not found.slot or removals.take(key, found.marks):
            return None
        if key in removals.superseded:
            return Found(marked_superseded(found.slot), found.marks)
        return found

    # -- batches

    @property
    def keys_waiting(self) -> int:
        """The number of keys whose change is not on disk."""
        return len(self._slots) + (len(self._under_way.slots) if self._under_way else 0)

    def waiting(self) -> dict[bytes, Slot]:
        """Return the entries that are not on disk yet, by key."""
        found = {key: waits.slot for key, waits in self._slots.items() if waits.slot}
        batch = self._under_way
        for key, waits in () if batch is None else batch.slots.items():
            if waits.slot and key not in self._slots:
                passed = self._passed(key, Found(waits.slot, waits.marks))
                if passed is not None:
                    found[key] = passed.slot
        return found

    @property
    def is_clean(self) -> bool:
        """Whether all changes are on disk."""
        return not self._slots and not self._removing and self._under_way is None

    def is_due(self, now: float) -> bool:
        """Return whether a batch must be written now. Removals do not wait."""
        if self._under_way is not None or now < self._not_before or self.gathers:
            return False
        if self._removing or self._counts or (self.closed and self._slots):
            return True
        is_paced = (
            now < self._paced_until
            and self._bytes_new < COMMIT_BYTES
            and self.bytes_waiting < self._bytes_max - COMMIT_BYTES
        )
        if not self._slots or is_paced:
            return False
        return (
            now >= self._since + COMMIT_EVERY_S
            or now >= self._new_since + self.new_every_s
            or self.bytes_waiting >= COMMIT_BYTES
            or len(self._slots) >= COMMIT_KEYS
        )

    def take(self, now: float) -> Batch | None:
        """Return all waiting changes as a batch; None if there are none, or a batch is under way.

        The batch is under way until `done` or `failed` is called.
        """
        if self._under_way is not None or not (self._slots or self._removing or self._counts):
            return None
        self._paced_until = now + self.bytes_waiting / WRITTEN_BYTES_PER_S
        batch = self._under_way = Batch(self._removals, self._slots, tuple(self._counts))
        self._removals, self._removing, self._counts = Removals(), False, []
        self._slots, self.bytes_waiting = {}, 0
        self._bytes_new, self._new_since = 0, inf
        return batch

    def done(self) -> bool:
        """Note that the batch is on disk; return whether all removals are on disk now."""
        self._under_way, self._has_failed = None, False
        self._is_quiet = self.personal and not (self._slots or self._removing)
        return not self._removing

    def failed(self, now: float) -> None:
        """Note that the batch could not be written: it is retried, with the later changes."""
        batch, self._under_way = self._under_way, None
        if batch is None:
            return
        self._has_failed = True
        slots = dict(batch.slots)
        for key, waits in batch.slots.items():
            if not waits.slot:
                continue
            passed = self._passed(key, Found(waits.slot, waits.marks))
            if passed is None:
                slots[key] = Written((), ())
            else:
                slots[key] = waits._replace(slot=passed.slot)
        slots.update(self._slots)
        removals = batch.removals
        removals.add(self._removals)
        self._counts = [*batch.counts, *self._counts]
        self._slots, self._removals, self._removing = slots, removals, bool(removals)
        self.bytes_waiting = sum([waits.size for waits in slots.values()])
        if self.closed or self.bytes_waiting > self._bytes_max:
            self.forget_bodies()
        self._since, self._not_before = now, now + RETRY_S
