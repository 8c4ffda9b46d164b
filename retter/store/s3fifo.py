"""Which key goes first when there is no room: S3-FIFO, so that a crawl washes nothing out.

Most of what a crawler asks for is asked for once and never again. Under "least recently used" each
such page pushes out one that visitors read. Here a new key is on *probation* first, in a queue that
has a tenth of the budget; it moves to the *main* queue if it has been asked for again by the time
it is at the head, and goes if not. What goes leaves a *ghost*, its hash, which lets it into the
main queue at once when it returns. The main queue is a clock: what has been asked for since the
hand last passed stays for another round.

A hit writes one key into a dictionary and moves nothing. That is cheaper than "least recently used"
and keeps more: Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction",
SOSP 2023. Theirs counts hits up to three; one bit is enough here (benchmarks/eviction.md).

Keys are bytes, sizes are octets; what is stored under a key is the caller's (accounting.py).
"""

from array import array
from collections import OrderedDict
from typing import Final

# Of the budget. The paper found a tenth good for nearly all of its 6,594 traces.
PROBATION_SHARE: Final = 10

# The hands' steps in one search. Each step takes back what one request has set, so that many in
# one search are rare: when a store is full for the first time and all of it has been asked for
# again. 0.2 ms; after them the head of the main queue goes, one key in 513 of those.
STEPS_MAX: Final = 512

# A ghost for each KiB of the budget, 4 octets each: 0.4 % of it, beside it. Evictions of twenty
# seconds at a thousand a second in 16 MiB, and at least a few pages in a very small store.
BYTES_PER_GHOST: Final = 1024
GHOSTS_MIN: Final = 256
GHOSTS_MAX: Final = 1 << 18  # 256 MiB have them

# A fingerprint is 32 bits of the hash that do not tell its place.
_PLACE_BITS: Final = 18
_FINGERPRINT: Final = (1 << 32) - 1


class Ghosts:
    """The hashes of keys that went lately: a table in which a new one takes the place of another.

    Its place and 32 more bits of the hash are compared, so one new key in 4,000 million is taken
    for one that has been here. Python's hash of bytes has the process's own secret (siphash).
    """

    __slots__ = ("_mask", "_table")

    def __init__(self, bytes_max: int) -> None:
        wanted = min(GHOSTS_MAX, max(GHOSTS_MIN, bytes_max // BYTES_PER_GHOST))
        self._mask = (1 << (wanted - 1).bit_length()) - 1  # a power of two
        self._table: array[int] | None = None  # made when the first one comes

    def __len__(self) -> int:
        return self._mask + 1

    def add(self, key: bytes) -> None:
        """Remember a key, in place of whichever was there."""
        if self._table is None:
            self._table = array("I", bytes(4 * (self._mask + 1)))
        hashed = hash(key)
        # 0 is nothing.
        self._table[hashed & self._mask] = hashed >> _PLACE_BITS & _FINGERPRINT or 1

    def take(self, key: bytes) -> bool:
        """Return whether a key is remembered, and forget it."""
        table = self._table
        if table is None:
            return False
        hashed = hash(key)
        place = hashed & self._mask
        if table[place] != (hashed >> _PLACE_BITS & _FINGERPRINT or 1):
            return False
        table[place] = 0
        return True


class EvictionQueues:
    """The order in which keys go.

    All but `next_to_go` takes constant time, and that does on average.
    """

    __slots__ = ("asked", "ghosts", "main", "probation", "probation_bytes")

    def __init__(self, bytes_max: int) -> None:
        # Asked for again, since they came or since the main queue's hand has passed. Whoever finds
        # a key writes it here: `asked[key] = None`.
        self.asked: dict[bytes, None] = {}
        self.probation: OrderedDict[bytes, int] = OrderedDict()  # oldest first, with their sizes
        self.probation_bytes = 0
        self.main: OrderedDict[bytes, None] = OrderedDict()
        self.ghosts = Ghosts(bytes_max)

    def add(self, key: bytes, size: int) -> None:
        """Take a key that something has been stored under, anew or again.

        Args:
            size: Of all that is stored under it now.
        """
        probation = self.probation
        if key in probation:
            self.probation_bytes += size - probation[key]
            probation[key] = size  # it keeps its place
            self.asked[key] = None
        elif key in self.main:
            self.asked[key] = None
        elif self.ghosts.take(key):
            self.main[key] = None
        else:
            probation[key] = size
            self.probation_bytes += size

    def grow(self, key: bytes, size: int) -> None:
        """Take that so much more is stored under a key, or less."""
        if key in self.probation:
            self.probation[key] += size
            self.probation_bytes += size

    def remove(self, key: bytes) -> None:
        """Forget a key that nothing is stored under any more."""
        if key in self.probation:
            self.probation_bytes -= self.probation.pop(key)
        else:
            del self.main[key]
        if key in self.asked:
            del self.asked[key]

    def next_to_go(self, bytes_max: int) -> bytes:
        """Return the key that is to make room; there must be one.

        A key that room is made for is added afterwards, so it is never what goes.

        Args:
            bytes_max: The budget.
        """
        probation, main, asked = self.probation, self.main, self.asked
        share = bytes_max // PROBATION_SHARE
        for _ in range(STEPS_MAX):
            if probation and (self.probation_bytes > share or not main):
                key = next(iter(probation))
                if key not in asked:
                    return key
                self.probation_bytes -= probation.pop(key)
                main[key] = None
                del asked[key]
            else:
                key = next(iter(main))
                if key not in asked:
                    return key
                del asked[key]
                main.move_to_end(key)
        return next(iter(main))
