"""What the store has changed and the disk does not know yet, in the order in which it must hear it.

The near store is the truth. Behind it a shelf on disk follows in batches: first what is taken back
(`Removals`), then the slots as they are now. Until a batch is on disk, a look behind the near store
goes by what is still to be written, so nothing that has been taken back is found there again.

Pure: it neither writes nor reads. Whoever does asks for the next batch and tells how it went.
`now` is monotonic seconds.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from retter.store.packing import may_be_kept
from retter.store.policy import key_parts
from retter.store.purging import matches
from retter.store.record import BODY, HEAD, NO_STORE, SUPERSEDED, Record

# An SD card wears by the write and by the block: so rarely, or so much at once.
COMMIT_EVERY_S: Final = 5.0
COMMIT_BYTES: Final = 1024 * 1024
COMMIT_KEYS: Final = 2048  # a walk over them takes half a millisecond

# Where more of what is on disk changes, batches are larger and later, and what has changed twice is
# written once. An SD card takes 10 to 20 MiB/s, and each page costs 45 us of CPU. What is not there
# yet does not wait, nor does anything for which there would be no memory.
WRITTEN_BYTES_PER_S: Final = 8 * 1024 * 1024

# After a batch that could not be written.
RETRY_S: Final = 5.0

# A disk that does not keep up must not cost more memory than this. What is stored beyond is not
# written, and what it replaces is removed from the disk.
WAITING_BYTES_MAX: Final = 8 * 1024 * 1024
WAITING_KEYS_MAX: Final = 4 * COMMIT_KEYS

# While the disk cannot be written: beyond so many, all that is personal is taken back, or all that
# is stored. It is too much, never too little.
REMOVALS_MAX: Final = 16_384

# Of a slot beside its heads and bodies: names, numbers, places.
SLOT_OVERHEAD_BYTES: Final = 300

Slot = tuple[Record, ...]


class Purge(NamedTuple):
    """What an operator drops: all that is given must fit, as in `ResponseStore.purge`."""

    url: bytes | None
    prefix: bytes | None
    owner: bytes | None

    def fits(self, key: bytes) -> bool:
        """Return whether a key is dropped."""
        return matches(key, self.url, self.prefix, self.owner)


@dataclass(slots=True)
class Removals:
    """What is taken back, for whatever is on disk."""

    everything: bool = False
    personal: bool = False  # all that belongs to anybody
    owners: set[bytes] = field(default_factory=set[bytes])
    marks: set[int] = field(default_factory=set[int])  # of sessions (marks.py): all owners with one
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

    def take(self, key: bytes, marks: Iterable[int] = ()) -> bool:
        """Return whether a slot is taken back."""
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
        """Take others in as well."""
        self.everything = self.everything or later.everything
        self.personal = self.personal or later.personal
        self.owners |= later.owners
        self.marks |= later.marks
        self.keys |= later.keys
        self.purges += later.purges
        self.superseded |= later.superseded
        if len(self.owners) + len(self.marks) > REMOVALS_MAX:
            self.personal = True
            self.owners, self.marks = set(), set()
        if len(self.keys) + len(self.superseded) > REMOVALS_MAX:
            self.everything = True
            self.keys, self.superseded, self.purges = set(), set(), []


class Written(NamedTuple):
    """A slot to be written: none of its variants left means that it goes."""

    slot: Slot
    marks: tuple[int, ...]


class Batch(NamedTuple):
    """What goes to disk together: the removals first, for what is there; then the slots."""

    removals: Removals
    slots: dict[bytes, Written]


class Found(NamedTuple):
    """A slot from behind the near store, and the marks of its owner."""

    slot: Slot
    marks: tuple[int, ...]


class Shelf(Protocol):
    """What is behind: a disk."""

    def read(self, key: bytes, now: float) -> Found | None:
        """Return what is stored under a key, unless reading that might take long."""
        ...

    def knows(self, key: bytes) -> bool:
        """Return whether something may be stored under a key."""
        ...

    def note(self, removals: Removals) -> None:
        """Note what is taken back, so that it is not forgotten if the process is killed now."""
        ...


def marked_superseded(slot: Slot) -> Slot:
    """Return a slot with all variants superseded."""
    return tuple([(*one[:SUPERSEDED], True, *one[SUPERSEDED + 1 :]) for one in slot])


def _size(slot: Slot) -> int:
    return SLOT_OVERHEAD_BYTES + sum([len(one[BODY]) + len(one[HEAD]) for one in slot])


class WriteBehind:
    """Remembers changes of the near store until they are on disk.

    Args:
        personal: Keep what belongs to somebody, too (`--store-private`).
    """

    def __init__(self, shelf: Shelf, *, personal: bool = True) -> None:
        self._shelf = shelf
        self.personal = personal
        self.closed = False  # nothing new is taken in, but what is taken back
        self._slots: dict[bytes, Written] = {}
        self._removals = Removals()
        self._under_way: Batch | None = None
        self._since = 0.0  # when the oldest of what waits has changed
        self._not_before = 0.0
        self._paced_until = 0.0  # for what is written once more; nothing else waits
        self._bytes_new = 0  # of what waits, under keys that the disk does not have
        self.bytes_waiting = 0
        self.not_kept = 0  # changes that were dropped, since the disk did not keep up

    # -- what changes

    def changed(self, key: bytes, slot: Slot, marks: tuple[int, ...], now: float) -> None:
        """Note what stands under a key now; nothing at all: it is gone."""
        if (self.closed and slot) or (not self.personal and key.startswith(b"@")):
            return
        for record in slot:
            if record[NO_STORE]:  # memory only; what it has replaced goes from the disk
                slot = tuple([one for one in slot if may_be_kept(one)])
                break
        if not self._slots:
            self._since = now
        before = self._slots.get(key)
        if before is not None:
            self.bytes_waiting -= _size(before.slot)
        size = _size(slot)
        if self.bytes_waiting + size > WAITING_BYTES_MAX or len(self._slots) >= WAITING_KEYS_MAX:
            self.not_kept += 1
            if before is None and len(self._slots) >= WAITING_KEYS_MAX:
                # No room even for that: what is on disk of it may not be found any more.
                self._take_back(Removals(keys={key}), now)
                return
            slot, size = (), SLOT_OVERHEAD_BYTES
        self._slots[key] = Written(slot, marks)
        self.bytes_waiting += size
        if slot and not self._shelf.knows(key):
            self._bytes_new += size

    def withdrawn(self, key: bytes, now: float) -> None:
        """The application has taken a page back: note it before anything else happens."""
        self._take_back(Removals(keys={key}), now)

    def supersede(self, key: bytes, now: float) -> None:
        """An unsafe method has changed what is stored under a key."""
        if not self.may_have(key):
            return
        waits = self._slots.get(key)
        if waits is not None:
            self._slots[key] = Written(marked_superseded(waits.slot), waits.marks)
        self._take_back(Removals(superseded={key}), now)

    def drop_owners(self, owners: Iterable[bytes], marks: Iterable[int], now: float) -> None:
        """A session has begun or ended: nothing of these owners may be found any more."""
        if self.personal:
            self._take_back(Removals(owners=set(owners), marks=set(marks)), now)

    def purge(self, purge: Purge, now: float) -> None:
        """An operator drops what fits."""
        everything = purge == Purge(None, None, None)
        self._take_back(Removals(everything=True) if everything else Removals(purges=[purge]), now)

    def _take_back(self, removals: Removals, now: float) -> None:
        if not self._slots and not self._removals:
            self._since = now
        self._shelf.note(removals)
        # A key is found in one step; owners and what an operator names are looked for.
        keys = removals.keys or removals.superseded or self._slots
        for key in keys:
            waits = self._slots.get(key)
            if waits is not None and waits.slot and removals.take(key, waits.marks):
                self.bytes_waiting -= _size(waits.slot) - SLOT_OVERHEAD_BYTES
                self._slots[key] = Written((), ())
        self._removals.add(removals)

    def begin_with(self, removals: Removals) -> None:
        """Take in what was taken back before the last end, and may not be on disk."""
        self._removals.add(removals)

    def all_removals(self) -> Removals:
        """Return all that was taken back and may not be on disk."""
        removals = Removals()
        if self._under_way is not None:
            removals.add(self._under_way.removals)
        removals.add(self._removals)
        return removals

    def forget_bodies(self) -> None:
        """Memory has run out: what waits to be written goes, from the disk as well."""
        self.not_kept += len(self._slots)
        self._slots = {key: Written((), ()) for key in self._slots}
        self.bytes_waiting = SLOT_OVERHEAD_BYTES * len(self._slots)

    def may_have(self, key: bytes) -> bool:
        """Return whether something is, or will be, on disk under a key."""
        return (
            key in self._slots
            or (self._under_way is not None and key in self._under_way.slots)
            or self._shelf.knows(key)
        )

    # -- what is found behind the near store

    def fetch(self, key: bytes, now: float) -> Found | None:
        """Return what stands under a key that the near store does not have, if that is at hand."""
        if not self.personal and key.startswith(b"@"):
            return None
        waits = self._slots.get(key)
        if waits is not None:
            return Found(*waits) if waits.slot else None
        batch = self._under_way
        under_way = batch.slots.get(key) if batch is not None else None
        if under_way is not None:
            return self._passed(key, Found(*under_way))
        found = self._shelf.read(key, now)
        return None if found is None else self.checked(key, found)

    def checked(self, key: bytes, found: Found) -> Found | None:
        """Return what was read from disk, as far as it has not been taken back since."""
        if key in self._slots:
            return None  # it has changed while it was read
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
        """Keys whose change is not on disk."""
        return len(self._slots) + (len(self._under_way.slots) if self._under_way else 0)

    @property
    def is_clean(self) -> bool:
        """Whether the disk knows everything."""
        return not self._slots and not self._removals and self._under_way is None

    def is_due(self, now: float) -> bool:
        """Return whether a batch is to be written now: what is taken back does not wait."""
        if self._under_way is not None or now < self._not_before:
            return False
        if self._removals or (self.closed and self._slots):
            return True
        is_paced = (
            now < self._paced_until
            and self._bytes_new < COMMIT_BYTES
            and self.bytes_waiting < WAITING_BYTES_MAX - COMMIT_BYTES
        )
        if not self._slots or is_paced:
            return False
        return (
            now >= self._since + COMMIT_EVERY_S
            or self.bytes_waiting >= COMMIT_BYTES
            or len(self._slots) >= COMMIT_KEYS
        )

    def take(self, now: float) -> Batch | None:
        """Return all that waits, for the disk; None if there is nothing, or a batch is under way.

        It is under way until `done` or `failed` is called.
        """
        if self._under_way is not None or not (self._slots or self._removals):
            return None
        self._paced_until = now + self.bytes_waiting / WRITTEN_BYTES_PER_S
        batch = self._under_way = Batch(self._removals, self._slots)
        self._removals, self._slots, self.bytes_waiting = Removals(), {}, 0
        self._bytes_new = 0
        return batch

    def done(self) -> bool:
        """The batch is on disk. Whether all that was taken back is on disk with it."""
        self._under_way = None
        return not self._removals

    def failed(self, now: float) -> None:
        """The batch is not on disk: all of it is tried again, with what has come since."""
        batch, self._under_way = self._under_way, None
        if batch is None:
            return
        slots = dict(batch.slots)
        for key, waits in batch.slots.items():
            if not waits.slot:
                continue
            passed = self._passed(key, Found(*waits))
            slots[key] = Written((), ()) if passed is None else Written(*passed)
        slots.update(self._slots)
        removals = batch.removals
        removals.add(self._removals)
        self._slots, self._removals = slots, removals
        self.bytes_waiting = sum([_size(waits.slot) for waits in slots.values()])
        if self.bytes_waiting > WAITING_BYTES_MAX:
            self.forget_bodies()
        self._since, self._not_before = now, now + RETRY_S
