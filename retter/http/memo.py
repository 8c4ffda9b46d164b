"""A memo of what exact bytes mean: a bounded map whose hit costs one look-up and no bookkeeping.

Heads, single lines and Cookie values are remembered this way. A key is all the bytes that a value
was made from, so a memo changes what something costs and never what it is.
"""

from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

# Hashes of what has come once: 400 KB a memo, and some seconds of traffic.
SEEN_MAX: Final = 4096


class Memo(Generic[Value]):
    """A bounded map from bytes to what they mean.

    Two dicts take turns: a full young one becomes the old one, and what is asked for again moves
    back. That is nearly least-recently-used. The hot path looks into `young` by itself and comes
    here with what it does not find.

    Args:
        bytes_max: Octets that keys and values together may take.
        cost_per_byte: What an entry takes for each octet of its key, that one included.
        entry_bytes: What an entry takes on top.
        key_bytes_max: Longer keys are not remembered.
    """

    __slots__ = (
        "_bytes", "_bytes_max", "_cost_per_byte", "_entry_bytes", "_key_bytes_max", "_old",
        "_seen", "hits", "misses", "young",
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
        self._old: dict[bytes, Value] = {}
        self._seen: set[int] = set()
        self.hits = 0
        self.misses = 0

    def get(self, key: bytes) -> Value | None:
        """Return what these bytes mean, or None."""
        found = self.young.get(key)
        if found is not None:
            self.hits += 1
            return found
        return self.get_old(key)

    def get_old(self, key: bytes) -> Value | None:
        """Do what `get` does where these bytes have been looked for in `young` in vain."""
        found = self._old.pop(key, None)
        if found is not None:
            self.hits += 1
            self.put(key, found)
            return found
        self.misses += 1
        return None

    def put(self, key: bytes, value: Value) -> None:
        """Remember what these bytes mean."""
        cost = len(key) * self._cost_per_byte + self._entry_bytes
        if cost > self._bytes_max or len(key) > self._key_bytes_max:
            return
        if self._bytes + cost > self._bytes_max:
            self._old, self.young, self._bytes = self.young, {}, 0
        self.young[key] = value
        self._bytes += cost

    def offer(self, key: bytes, value: Value) -> None:
        """Remember what these bytes mean if they have been offered before.

        Most of what has a cookie, a query or an address of its own in it never comes again; kept,
        it would push out what does. A hash that two keys share only lets one in a little early.
        """
        seen = self._seen
        mark = hash(key)
        if mark in seen:
            self.put(key, value)
            return
        if len(seen) >= SEEN_MAX:
            seen.clear()
        seen.add(mark)

    @property
    def bytes_max(self) -> int:
        """Octets that keys and values together may take."""
        return 2 * self._bytes_max

    def resize(self, bytes_max: int) -> None:
        """Change the bound; what is over a smaller one goes with what comes next."""
        self._bytes_max = bytes_max // 2

    def clear(self) -> None:
        """Forget everything."""
        self.young.clear()
        self._old.clear()
        self._seen.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.young) + len(self._old)


# What an entry holds beside its key, per byte of head: the field tuples, the rewritten bytes.
# Counted with sys.getsizeof over browser heads: 4.5 to 6 bytes a byte.
HEAD_COST_PER_BYTE = 6
HEAD_ENTRY_BYTES = 500


class HeadMemo(Memo[Value]):
    """A bounded map from exact head bytes to what they parse to."""

    __slots__ = ()

    def __init__(self, bytes_max: int) -> None:
        super().__init__(
            bytes_max,
            cost_per_byte=HEAD_COST_PER_BYTE,
            entry_bytes=HEAD_ENTRY_BYTES,
            key_bytes_max=bytes_max,
        )


Head = TypeVar("Head")
Fact = TypeVar("Fact")

# Heads of which something is remembered beside them. Each may be kept alive for it, with some 3 KB.
HEADS_NOTED_MAX: Final = 256


class HeadNotes(Generic[Head, Fact]):
    """What follows from heads that are shared, since a head itself never changes.

    A head is known by its identity and kept as long as the note is. When there are too many, all
    are forgotten and found out again. The hot path looks into `known` by itself.
    """

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: dict[Head, Fact] = {}

    def note(self, head: Head, fact: Fact) -> Fact:
        """Remember what follows from a head, and return it."""
        if len(self.known) >= HEADS_NOTED_MAX:
            self.known.clear()
        self.known[head] = fact
        return fact
