"""The sessions that several workers know, told to each other through shared memory.

A visitor's next request may come to another worker. So before a worker sends a response, it writes
into a ring what it has learnt of sessions from it: names and values that the application sets,
values that visitors share, sessions in use, and the values of rolling sessions (lineage.py). All
others read it before they look at a request head that they do not know.

A worker that was too slow, or begins late, has missed messages. It asks the others to tell names
and shared values again, and lets no value continue a lineage that another one may continue already.

Only keyed hashes and names of cookies are told. Pure: the caller provides the memory and the lock.
"""

from collections import deque
from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Final, cast

from retter.base.ring import RingReader, RingWriter
from retter.store.lineage import EARLIER_MAX, HEIRS_MAX, Facts, Place
from retter.store.owner import OWNER_BYTES, OwnerRules
from retter.store.sessions import SHARED_MAX

# The first octet of a message.
_NAME: Final = 1  # a name of session cookies
_ROLLING: Final = 2  # a name of rolling ones
_BEGUN: Final = 3  # a value, set for a visitor who did not have it
_SHARED: Final = 4  # a value that several visitors have
_KNOWN: Final = 5  # a session as it stands in a table of known_sessions.py
_VALUE: Final = 6  # a value of a rolling session
_MISSED: Final = 7  # its writer has missed messages

_TABLES: Final = ("given", "issued", "kept")

_known = Struct("<BBqd")
# kind, flags, value, parent, when it was replaced, lineage, generation, counts of what follows
_value = Struct("<BB16s16sd16sQBB")
_earlier = Struct("<16sQ")
_CONTINUED: Final = 1
_HAS_PLACE: Final = 2
_HAS_PARENT: Final = 4

# A new worker reads the last half of each ring. A place where a message begins is noted this often.
_NOTES: Final = 8

# Messages that are told again in one tick: 3 KB, so that no worker falls behind.
_AGAIN_MAX: Final = 64


class SharedSessions:
    """The sessions that one of several workers knows.

    Args:
        rings: One for each worker.
        heads: The positions up to which the rings are written.
        since: The positions from which a new worker reads the rings.
        place: The ring that this worker writes.
        rules: The rules whose observations of sessions are told from now on.
        lock: Takes a lock that one worker at a time has, or returns False; it never waits.
        unlock: Gives it back.
        forget: Called when the owners of requests may have changed.
    """

    def __init__(
        self,
        rings: tuple[memoryview, ...],
        heads: "memoryview[int]",
        since: "memoryview[int]",
        place: int,
        rules: OwnerRules,
        lock: Callable[[], bool],
        unlock: Callable[[], None],
        forget: Callable[[], None],
    ) -> None:
        self._heads = heads
        self._since = since
        self._place = place
        self._seen = rules.seen
        self._lineages = rules.lineages
        self._lock = lock
        self._unlock = unlock
        self._forget = forget
        self._ring_bytes = rings[place].nbytes
        self._writer = RingWriter(rings[place], heads, place)
        self._begins: deque[int] = deque([since[place]])
        self._applies = False
        self._is_new = False  # owners of requests may have changed
        self._seen_heads = b""
        self._is_asked = False  # another worker has missed messages
        self._again: list[bytes] = []  # messages to tell again
        own = RingReader(rings[place], heads, place, since[place])
        self._readers = [
            RingReader(ring, heads, at, since[at]) for at, ring in enumerate(rings) if at != place
        ]
        self._read([own, *self._readers])  # what was learnt before this worker began
        rules.seen.told = rules.seen.known.told = self
        rules.lineages.others = self
        if any(since):  # the beginning of a ring is not read
            self._missed()

    # -- what this worker learns

    def name(self, name: bytes) -> None:
        """Tell that the application sets sessions with this name."""
        self._tell(bytes([_NAME]) + name)

    def rolling(self, name: bytes) -> None:
        """Tell that values with this name may be replaced by others."""
        self._tell(bytes([_ROLLING]) + name)

    def begun(self, session: bytes) -> None:
        """Tell that the application has set a value for a visitor who did not have it."""
        self._tell(bytes([_BEGUN]) + session)

    def shared(self, session: bytes) -> None:
        """Tell that several visitors have a value."""
        self._tell(bytes([_SHARED]) + session)

    def known(self, mark: int, table: str, since: float) -> None:
        """Tell that a session is in a table of known sessions."""
        self._tell(_known.pack(_KNOWN, _TABLES.index(table), mark, since))

    def changed(self, value: bytes) -> None:
        """Tell the facts about a value of a rolling session."""
        facts = self._lineages.facts_of(value)
        if facts is not None:
            self._tell(packed(facts))

    def _tell(self, message: bytes) -> None:
        if self._applies or len(message) > self._writer.message_bytes_max:
            return
        begins, at = self._begins, self._writer.head
        if at - begins[-1] >= self._ring_bytes // _NOTES:
            begins.append(at)
        end = self._writer.write(message)
        while len(begins) > 1 and end - begins[0] > self._ring_bytes // 2:
            begins.popleft()
        self._since[self._place] = begins[0]

    # -- the place of a value in its lineage, which one worker decides for all

    def begin(self) -> bool:
        """Take the lock, and learn what others have decided; False: another worker has the lock.

        Call `end` after that in both cases.
        """
        alone = self._lock()
        self._look()  # the caller is about to remember an owner, which is forgotten later
        return alone

    def end(self) -> None:
        """Release the lock."""
        self._unlock()

    # -- what the others have learnt

    def look(self) -> None:
        """Learn from new messages. Call it before a request head is parsed."""
        self._look()
        if self._is_new:
            self._is_new = False
            self._forget()

    def tick(self) -> None:
        """Learn from new messages, and repeat those that others have missed. Call it every tick."""
        self.look()
        if self._is_asked and not self._again:
            self._is_asked = False
            self._again = [
                *[bytes([_NAME]) + name for name in self._seen.names],
                *[bytes([_ROLLING]) + name for name in self._lineages.names],
                *[bytes([_SHARED]) + session for session in self._seen.shared],
            ]
        if self._again:
            for message in self._again[-_AGAIN_MAX:]:
                self._tell(message)
            del self._again[-_AGAIN_MAX:]

    def _look(self) -> None:
        if self._heads.tobytes() != self._seen_heads:
            self._seen_heads = self._heads.tobytes()
            self._read(self._readers)

    def _read(self, readers: list[RingReader]) -> None:
        has_missed = False
        self._applies = True
        try:
            for reader in readers:
                messages = reader.read()
                has_missed |= messages is None
                for message in messages or ():
                    self._is_new |= self._learn(message)
        finally:
            self._applies = False
        if has_missed:
            self._missed()

    def _missed(self) -> None:
        self._lineages.missed()
        self._tell(bytes([_MISSED]))

    def _learn(self, message: bytes) -> bool:
        """Learn a message; return whether the owners of requests may have changed."""
        seen, lineages, kind, rest = self._seen, self._lineages, message[0], message[1:]
        if kind == _NAME:
            return seen.learn_name(rest)
        if kind == _ROLLING:
            is_new = rest not in lineages.names
            lineages.names.add(rest)
            return is_new
        if kind == _MISSED:
            self._is_asked = True
            return False
        try:
            if kind == _KNOWN:
                _, table, mark, since = cast("tuple[int, int, int, float]", _known.unpack(message))
                self._know(mark, _TABLES[table], since)
                return False
            if kind == _VALUE:
                facts = unpacked(message)
                # If not, two visitors have the value.
                return not lineages.learn(facts) and self._share(facts[0])
        except (StructError, IndexError):
            return False  # no message of this version
        if len(rest) != OWNER_BYTES:
            return False
        return seen.issued(rest) if kind == _BEGUN else self._share(rest)

    def _know(self, mark: int, table: str, since: float) -> None:
        known = self._seen.known
        if table == "kept":
            known.know(mark, table, since)
            return
        known.given(mark)
        if table == "issued":
            known.answered((mark,), since)

    def _share(self, session: bytes) -> bool:
        shared = self._seen.shared
        if session in shared:
            return False
        shared[session] = None
        if len(shared) > SHARED_MAX:
            del shared[next(iter(shared))]
        return True


def packed(facts: Facts) -> bytes:
    """Return the facts about a value as a message."""
    value, place, parent, continued, heirs, replaced_at = facts
    flags = _CONTINUED * continued | _HAS_PARENT * bool(parent)
    if place is None:
        place = Place(b"", 0, ())
    else:
        flags |= _HAS_PLACE
    lineage, generation, earlier = place
    earlier, heirs = earlier[:EARLIER_MAX], heirs[-HEIRS_MAX:]
    head = _value.pack(
        _VALUE, flags, value, parent, replaced_at, lineage, generation, len(earlier), len(heirs)
    )
    return b"".join([head, *[_earlier.pack(*one) for one in earlier], *heirs])


def unpacked(message: bytes) -> Facts:
    """Return the facts in a message.

    Raises:
        StructError: It is too short.
    """
    _, flags, value, parent, replaced_at, lineage, generation, earlier, heirs = _value.unpack_from(
        message
    )
    at = _value.size
    read: list[tuple[bytes, int]] = []
    for _ in range(earlier):
        owner, until = _earlier.unpack_from(message, at)
        read.append((owner, until))
        at += _earlier.size
    place = Place(lineage, generation, tuple(read)) if flags & _HAS_PLACE else None
    end = at + heirs * OWNER_BYTES
    found = [message[begin : begin + OWNER_BYTES] for begin in range(at, end, OWNER_BYTES)]
    return (
        value,
        place,
        parent if flags & _HAS_PARENT else b"",
        bool(flags & _CONTINUED),
        tuple(found),
        replaced_at,
    )
