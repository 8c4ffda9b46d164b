"""The table of the keys on disk, with a note about their recent use: twelve octets for each key.

A look-up for a key that is not stored must not cost a read of the disk. A look-up for a stored key
must know whether its disk pages are likely to be in memory. A dictionary of as many numbers takes a
hundred octets for each, which is too much for a store of a gigabyte on a machine with 256 MB.

A key is represented by 64 bits of a keyed hash. If two keys have the same hash, this costs a read
of the disk.
"""

from array import array
from collections.abc import Iterable, Iterator
from typing import Final

_FREE: Final = 0
_GONE: Final = 1  # the key was removed; a search continues with the next place
PLACES_MIN: Final = 16
# The parts grow independently. With a million keys, to enlarge one part takes 5 ms, but to enlarge
# all of them takes a second, during which no request would be answered.
PARTS: Final = 256
FILLED_AT_ONCE: Final = 256  # keys of `fill` between two yields
FULL_SHARE: Final = 2 / 3  # a fuller part grows: a hit takes 1.5 steps, a miss takes 2


class KeyTable:
    """A set of 64-bit numbers, with a small number (32 bits) for each."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts = [_Part() for _ in range(PARTS)]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def bytes_used(self) -> int:
        """The octets that the table takes."""
        return sum([part.bytes_used for part in self._parts])

    def get(self, key: int) -> int:
        """Return the note of a key, or -1 if the key is not in the table."""
        return self._parts[key >> 56].get(key)

    def set(self, key: int, note: int) -> None:
        """Add a key, or change its note."""
        self._parts[key >> 56].set(key, note)

    def discard(self, key: int) -> None:
        """Remove a key, if it is in the table."""
        self._parts[key >> 56].discard(key)

    def clear(self) -> None:
        """Remove all keys."""
        self._parts = [_Part() for _ in range(PARTS)]

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield each key with its note."""
        for part in self._parts:
            yield from part.items()

    def fill(self, keys: Iterable[int]) -> Iterator[None]:
        """Add many keys, with the note 0, to an empty table; yield from time to time.

        This takes a quarter of the time of `set`, since each part gets its final size at once. Each
        key may occur twice at most.
        """
        by_part = [array("Q") for _ in range(PARTS)]
        for number, key in enumerate(keys):
            by_part[key >> 56].append(key)
            if not number % FILLED_AT_ONCE:
                yield
        for part, keys_of_part in zip(self._parts, by_part, strict=True):
            part.fill(keys_of_part)
            yield


class _Part:
    """The keys that begin with the same octet, in one open hash table."""

    __slots__ = ("_count", "_keys", "_mask", "_notes", "_taken")

    def __init__(self) -> None:
        self._make(PLACES_MIN)

    def _make(self, places: int) -> None:
        self._keys = array("Q", bytes(8 * places))
        self._notes = array("I", bytes(4 * places))
        self._mask = places - 1
        self._count = self._taken = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes_used(self) -> int:
        return 12 * (self._mask + 1)

    def _place(self, key: int) -> int:
        """Return the place of a key, or -1."""
        keys, mask = self._keys, self._mask
        at = key & mask
        while (present := keys[at]) != _FREE:
            if present == key:
                return at
            at = (at + 1) & mask
        return -1

    def get(self, key: int) -> int:
        at = self._place(key if key > _GONE else key + 2)
        return -1 if at < 0 else self._notes[at]

    def set(self, key: int, note: int) -> None:
        key = key if key > _GONE else key + 2
        at = self._place(key)
        if at < 0:
            if self._taken >= FULL_SHARE * (self._mask + 1):
                self._grow()
            keys, mask = self._keys, self._mask
            at = key & mask
            while keys[at] > _GONE:
                at = (at + 1) & mask
            self._taken += keys[at] == _FREE
            keys[at] = key
            self._count += 1
        self._notes[at] = note

    def discard(self, key: int) -> None:
        at = self._place(key if key > _GONE else key + 2)
        if at >= 0:
            self._keys[at] = _GONE
            self._count -= 1

    def items(self) -> Iterator[tuple[int, int]]:
        for key, note in zip(self._keys, self._notes, strict=True):
            if key > _GONE:
                yield key, note

    def fill(self, keys: "array[int]") -> None:
        places = PLACES_MIN
        while len(keys) >= FULL_SHARE * places:
            places *= 2
        self._make(places)
        table, mask, count = self._keys, places - 1, 0
        for key in keys:
            key = key if key > _GONE else key + 2
            at = key & mask
            while (present := table[at]) != _FREE and present != key:
                at = (at + 1) & mask
            count += present == _FREE
            table[at] = key
        self._count = self._taken = count

    def _grow(self) -> None:
        held = [(k, note) for k, note in zip(self._keys, self._notes, strict=True) if k > _GONE]
        places = self._mask + 1
        # If most of the taken places belong to removed keys, the same size is enough.
        self._make(places * 2 if len(held) > places * FULL_SHARE / 2 else places)
        keys, notes, mask = self._keys, self._notes, self._mask
        for key, note in held:
            at = key & mask
            while keys[at] != _FREE:
                at = (at + 1) & mask
            keys[at], notes[at] = key, note
        self._count = self._taken = len(held)
