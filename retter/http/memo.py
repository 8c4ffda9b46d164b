"""A memo of the meaning of exact bytes: a bounded map. A hit costs one look-up and no bookkeeping.

It remembers heads, single lines and Cookie values. The key consists of all the bytes from which the
value was made, so a memo only changes the cost and never the result.
"""

from array import array
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

# Places for hashes of keys that were offered once: 32 KB for each memo, and a second of traffic.
# They are an array: in a list of numbers, to read a place that was not read lately takes two waits
# for memory instead of one, and five times as much of it (0.3 us for a new head and its cookies).
SEEN_MAX: Final = 4096
_PLACES: Final = SEEN_MAX - 1  # a power of two less one: the bits of a hash that are a place


class Memo(Generic[Value]):
    """A bounded map from bytes to their meaning.

    There are two dicts. When the young one is full, it becomes the old one, and entries that are
    requested again move back to the young one. That is nearly least-recently-used. The hot path
    reads `young` directly, and calls a method only after a miss.

    Args:
        bytes_max: Octets that keys and values together may take.
        cost_per_byte: The cost of an entry for each octet of its key, including that octet.
        entry_bytes: The additional cost of an entry.
        key_bytes_max: Longer keys are not remembered.
    """

    __slots__ = (
        "_bytes", "_bytes_max", "_cost_per_byte", "_entry_bytes", "_key_bytes_max", "_seen", "hits",
        "misses", "old", "young",
    )  # fmt: skip

    def __init__(
        self, bytes_max: int, *, cost_per_byte: int, entry_bytes: int, key_bytes_max: int
    ) -> None:
        self._bytes_max = bytes_max // 2
        self._cost_per_byte = cost_per_byte
        self._entry_bytes = entry_bytes
        self._key_bytes_max = key_bytes_max
        self._bytes = 0
        self.young: dict[bytes, Value] = {}
        self.old: dict[bytes, Value] = {}
        self._seen: array[int] | None = None  # a table, made when it is first needed
        self.hits = 0
        self.misses = 0

    def get(self, key: bytes) -> Value | None:
        """Return the meaning of these bytes, or None if it is not remembered."""
        known = self.young.get(key)
        if known is not None:
            self.hits += 1
            return known
        return self.get_old(key)

    def get_old(self, key: bytes) -> Value | None:
        """Do the same as `get` for bytes that are not in `young`."""
        known = self.old.pop(key, None)
        if known is not None:
            self.hits += 1
            self.put(key, known)
            return known
        self.misses += 1
        return None

    def put(self, key: bytes, value: Value) -> None:
        """Remember the meaning of these bytes."""
        cost = len(key) * self._cost_per_byte + self._entry_bytes
        if cost > self._bytes_max or len(key) > self._key_bytes_max:
            return
        if self._bytes + cost > self._bytes_max:
            self.old, self.young, self._bytes = self.young, {}, 0
        self.young[key] = value
        self._bytes += cost

    def offer(self, key: bytes, value: Value, other_key: bytes | None = None) -> None:
        """Remember the meaning of these bytes if they have been offered before.

        Args:
            other_key: Other bytes with that meaning, which are remembered with these.

        Most keys with their own cookie, query or address never come again. If they were kept, they
        would evict the keys that do. If two keys have the same hash, one of them is only remembered
        a little earlier. If they have the same place, the later one is noted (a table takes 1,500
        instructions of the processor, a set 3,800).
        """
        seen = self._seen  # `came_before`, inlined: each new head comes here, and its cookies
        if seen is None:
            seen = self._seen = array("q", bytes(8 * SEEN_MAX))
        mark = hash(key)
        place = mark & _PLACES
        if seen[place] == mark:
            self.put(key, value)
            if other_key is not None:
                self.put(other_key, value)
        else:
            seen[place] = mark

    def came_before(self, key: bytes) -> bool:
        """Note that a key was offered; return whether that was noted before."""
        seen = self._seen
        if seen is None:
            seen = self._seen = array("q", bytes(8 * SEEN_MAX))
        mark = hash(key)
        place = mark & _PLACES
        if seen[place] == mark:
            return True
        seen[place] = mark
        return False

    @property
    def bytes_max(self) -> int:
        """Octets that keys and values together may take."""
        return 2 * self._bytes_max

    def resize(self, bytes_max: int) -> None:
        """Change the bound. If it is smaller now, later entries evict the excess."""
        self._bytes_max = bytes_max // 2

    def clear(self) -> None:
        """Forget everything."""
        self.young.clear()
        self.old.clear()
        self._seen = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.young) + len(self.old)


# The size of an entry without its key, for each byte of the head: the field tuples and the
# rewritten bytes. Counted with sys.getsizeof over browser heads: 4.5 to 6 bytes for each byte.
HEAD_COST_PER_BYTE: Final = 6
HEAD_ENTRY_BYTES: Final = 500


class HeadMemo(Memo[Value]):
    """A bounded map from exact head bytes to the parsed head.

    The hot path compares a head with the one that was found last, before it looks into `young`: in
    a rush on one page all answers have the same head, and clients that poll send the same one again
    and again. It need not be hashed then: 2,250 of 31,900 instructions of the processor for an
    answer from the store, 4,550 of 70,300 for a forwarded one, which has two heads.

    Attributes:
        last: The head that was found last; b"": none.
        last_value: Its meaning.
    """

    __slots__ = ("last", "last_value")

    def __init__(self, bytes_max: int) -> None:
        self.last = b""
        self.last_value: Value | None = None
        super().__init__(
            bytes_max,
            cost_per_byte=HEAD_COST_PER_BYTE,
            entry_bytes=HEAD_ENTRY_BYTES,
            key_bytes_max=bytes_max,
        )

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.last, self.last_value = b"", None


Head = TypeVar("Head")
Fact = TypeVar("Fact")

# Heads with a note. A note may keep its head alive, which takes some 3 KB.
HEADS_NOTED_MAX: Final = 256


class HeadNotes(Generic[Head, Fact]):
    """Notes about shared heads: facts that follow from a head, since a head never changes.

    The key is the identity of the head object, which is kept as long as the note. If there are too
    many notes, all are forgotten and computed again. The hot path reads `known` directly.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[Head, Fact] = {}

    def note(self, head: Head, fact: Fact) -> Fact:
        """Remember a fact about a head, and return it."""
        if len(self.known) >= HEADS_NOTED_MAX:
            self.known.clear()
        self.known[head] = fact
        return fact
