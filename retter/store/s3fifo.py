"""The order of eviction: S3-FIFO, so that a crawl does not displace pages that visitors read.

A crawler requests most pages once and never again. With "least recently used", each such page
displaces one that visitors read. Here, a new key is on *probation* first, in a queue with a tenth
of the budget. If it was requested again when it reaches the head, it moves to the *main* queue;
otherwise it is evicted. An evicted key leaves a *ghost*, its hash. With a ghost, a returning key
goes to the main queue at once. The main queue is a clock: a key that was requested since the hand
passed stays for another round.

A hit writes one key into a dictionary and moves nothing. That is cheaper than "least recently used"
and keeps more: Yang, Zhang, Qiu, Yue and Rashmi, "FIFO queues are all you need for cache eviction",
SOSP 2023. Theirs counts hits up to three; one bit is enough here (benchmarks/eviction.md).

Keys are bytes and sizes are octets. accounting.py has the stored responses.
"""

from array import array
from collections import OrderedDict
from typing import Final

# The share of the budget for probation. A tenth was good for nearly all 6,594 traces of the paper.
PROBATION_SHARE: Final = 10

# Most steps of a hand in one search: 0.2 ms. Each step clears the mark of one request, so many
# steps are rare: they occur when a store is full for the first time and all keys were requested
# again. After them, the head of the main queue is evicted: one key of 513 such keys.
STEPS_MAX: Final = 512

# One ghost for each KiB of the budget, 4 octets each: 0.4 % in addition to the budget. In 16 MiB,
# these are the evictions of twenty seconds at a thousand a second.
BYTES_PER_GHOST: Final = 1024
GHOSTS_MIN: Final = 256
GHOSTS_MAX: Final = 1 << 18  # 256 MiB have them

# A fingerprint is 32 bits of the hash that are not used for the place.
_PLACE_BITS: Final = 18
_FINGERPRINT: Final = (1 << 32) - 1


class Ghosts:
    """The hashes of recently evicted keys: a table in which a new hash replaces an old one.

    The place and 32 more bits of the hash are compared, so one new key in 4,000 million is taken
    for an evicted one. Python's hash of bytes uses a secret of the process (siphash).
    """

    __slots__ = ("_mask", "_table")

    def __init__(self, bytes_max: int) -> None:
        wanted = min(GHOSTS_MAX, max(GHOSTS_MIN, bytes_max // BYTES_PER_GHOST))
        self._mask = (1 << (wanted - 1).bit_length()) - 1  # a power of two
        self._table: array[int] | None = None  # made with the first eviction

    def __len__(self) -> int:
        return self._mask + 1

    def add(self, key: bytes) -> None:
        """Remember a key, and forget the one with the same place."""
        if self._table is None:
            self._table = array("I", bytes(4 * (self._mask + 1)))
        hashed = hash(key)
        # 0 means that the place is empty.
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
    """The order in which keys are evicted.

    All methods take constant time; `next_to_go` does so on average.
    """

    __slots__ = ("asked", "ghosts", "main", "probation", "probation_bytes")

    def __init__(self, bytes_max: int) -> None:
        # Keys that were requested again since they were added, or since the main queue's hand
        # passed. A look-up that finds a key writes it here: `asked[key] = None`.
        self.asked: dict[bytes, None] = {}
        self.probation: OrderedDict[bytes, int] = OrderedDict()  # oldest first, with their sizes
        self.probation_bytes = 0
        self.main: OrderedDict[bytes, None] = OrderedDict()
        self.ghosts = Ghosts(bytes_max)

    def add(self, key: bytes, size: int) -> None:
        """Add a key with a new stored response, or update its size.

        Args:
            size: The octets of all responses under it.
        """
        probation = self.probation
        if key in probation:
            self.probation_bytes += size - probation[key]
            probation[key] = size  # it keeps its place
            self.asked[key] = None
        elif key in self.main:
            self.asked[key] = None
        else:
            self.add_new(key, size)

    def add_new(self, key: bytes, size: int) -> None:
        """Do the same for a key that is in no queue."""
        if self.ghosts.take(key):
            self.main[key] = None
        else:
            self.probation[key] = size
            self.probation_bytes += size

    def grow(self, key: bytes, size: int) -> None:
        """Change the size of a key by this much, which may be negative."""
        if key in self.probation:
            self.probation[key] += size
            self.probation_bytes += size

    def remove(self, key: bytes) -> None:
        """Forget a key without stored responses."""
        if key in self.probation:
            self.probation_bytes -= self.probation.pop(key)
        else:
            del self.main[key]
        if key in self.asked:
            del self.asked[key]

    def next_to_go(self, bytes_max: int) -> bytes:
        """Return the next key to evict; there must be one.

        A new key is added after room was made for it, so it is never the evicted one.

        Args:
            bytes_max: The budget.
        """
        probation, main, asked = self.probation, self.main, self.asked
        share = bytes_max // PROBATION_SHARE
        if probation and (self.probation_bytes > share or not main):
            key = next(iter(probation))  # the first step, nearly always the only one
            if key not in asked:
                return key
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
