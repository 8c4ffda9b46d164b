"""News: removals from the store, which each worker tells the others through shared memory.

A worker writes a removal into its ring before it sends the response that depends on it. Each other
worker compares one number for each ring before it looks into the store, and first applies what is
new. So no worker serves what another one has removed, and no worker waits for another one.

The shared database gets a removal only from the worker that made it. Until that commit, each other
worker ignores what it reads from the database if it should have been removed (`Pending`). A worker
that starts reads the removals that are not committed yet. A worker that was killed before its
commit commits when it starts again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import Final

from retter.base.ring import RingReader, RingWriter
from retter.base.shared_memory import SharedMemory
from retter.disk.journal import packed_removals, unpacked_removals
from retter.store.write_behind import Removals

# After the commit of a removal, a thread may still hold an older view of the database. A request
# does not wait for it longer than a second (awaited_reads.py).
KEPT_S: Final = 2.0


# Begins a message that asks what its removals drop near each worker: a word and a number. All other
# messages are JSON objects.
_ASKS: Final = b"?"
_asked = Struct("<cq")

# The time between two searches for removals that may be forgotten. Each looks at all of them.
FORGET_EVERY_S: Final = 0.5


@dataclass(slots=True)
class Pending:
    """Removals of another worker that may not be in the database yet.

    Attributes:
        until: They are committed when the other worker has committed up to this position.
        forget_at: When they are forgotten, monotonic seconds; None: they are not committed.
    """

    place: int
    until: int
    removals: Removals
    forget_at: float | None = None


def _union(pending: list[Pending]) -> Removals:
    removals = Removals()
    for one in pending:
        removals.add(one.removals)
    return removals


class News:
    """The rings of all workers, as one of them sees them.

    Attributes:
        heads: The position up to which each worker has told its removals.
        seen: The octets of `heads` at the last look.
        on_read: Called before `on_removals` for each worker with new removals: its place, and the
            position up to which it had told them.
        on_removals: Called with the new removals of other workers, in order.
        on_asked: Called instead of `on_removals` with a purge that another worker counts: the
            place of that worker, the number of the purge, the removals, and now.
        on_committed: Called with removals of other workers that are in the database now.
        pending: The removals of others that may not be in the database, together.
        is_pending: Whether there are any. To ask `pending` costs more.
        own: Removals by an earlier process at this place that were not committed.
    """

    def __init__(self, shared: SharedMemory, place: int) -> None:
        self._shared = self.shared = shared
        self._place = self.place = place
        self.heads = shared.heads
        self._writer = RingWriter(shared.news[place], shared.heads, place)
        self._readers = {
            other: self._reader(other) for other in range(len(shared.news)) if other != place
        }
        self.seen = b""
        self._pending: list[Pending] = []
        self._forget_at = 0.0
        self.pending = Removals()
        self.is_pending = False
        self.own = merged(self._reader(place).read())
        self.on_read: Callable[[int, int, Removals], None] = lambda place, until, removals: None
        self.on_removals: Callable[[Removals, float], None] = lambda removals, now: None
        self.on_asked: Callable[[int, int, Removals, float], None] = (
            lambda place, number, removals, now: self.on_removals(removals, now)
        )
        self.on_committed: Callable[[Removals], None] = lambda removals: None

    def _reader(self, place: int) -> RingReader:
        shared = self._shared
        return RingReader(shared.news[place], shared.heads, place, shared.committed[place])

    # -- what this worker removes

    @property
    def message_bytes_max(self) -> int:
        """The largest message: several of them fit into a ring."""
        return self._writer.message_bytes_max

    @property
    def position(self) -> int:
        """The position up to which this worker has told its removals."""
        return self._writer.head

    def publish(self, removals: Removals) -> None:
        """Tell all others, before the response that depends on it is sent."""
        payload = packed_removals(removals)
        if len(payload) > self._writer.message_bytes_max:
            payload = packed_removals(Removals(everything=True))
        self._writer.write(payload)

    def ask(self, removals: Removals) -> int:
        """Tell all others, and ask what the removals drop near them.

        Returns:
            The number of the question; -1 if it is too long, so that nobody is asked.
        """
        number = self.position
        payload = _asked.pack(_ASKS, number) + packed_removals(removals)
        if len(payload) > self._writer.message_bytes_max:
            self.publish(removals)
            return -1
        self._writer.write(payload)
        return number

    def committed(self, position: int) -> None:
        """Note that this worker's removals up to this position are in the database."""
        self._shared.committed[self._place] = position

    # -- what others remove

    def look(self, now: float) -> None:
        """Apply the removals of others since the last look. Call it before each look-up."""
        if self.heads.tobytes() != self.seen:
            self._read(now)

    def _read(self, now: float) -> None:
        self.seen = self.heads.tobytes()
        for place, reader in self._readers.items():
            if self.heads[place] == reader.position:
                continue
            messages = reader.read()
            removals = merged(messages)
            self.on_read(place, reader.position, removals)
            self._pending.append(Pending(place, reader.position, removals))
            self.pending.add(removals)
            self.is_pending = True
            # Only these are asked about, and a form is none of them: most of the time this is all.
            some = removals.owners or removals.purges or removals.everything
            if messages is None or not some or not any(map(_asks, messages)):
                self.on_removals(removals, now)
                continue
            for message in messages:
                if _asks(message):
                    number = _asked.unpack_from(message)[1]
                    self.on_asked(place, number, _unpacked(message), now)
                else:
                    self.on_removals(_unpacked(message), now)

    def tick(self, now: float) -> None:
        """Forget removals that are in the database by now."""
        self.look(now)
        if not self._pending or now < self._forget_at:
            return
        self._forget_at = now + FORGET_EVERY_S
        committed = self._shared.committed
        kept: list[Pending] = []
        for one in self._pending:
            if one.forget_at is None and committed[one.place] >= one.until:
                one.forget_at = now + KEPT_S
            if one.forget_at is not None and now >= one.forget_at:
                self.on_committed(one.removals)
            else:
                kept.append(one)
        if len(kept) != len(self._pending):
            self._pending = kept
            self.pending = _union(kept)
            self.is_pending = bool(kept)

    # -- in the thread that writes

    def positions(self) -> dict[int, int]:
        """Return the positions up to which this worker has read the removals of others."""
        return {place: reader.position for place, reader in self._readers.items()}

    def since(self, positions: dict[int, int]) -> Removals:
        """Return the removals of others since these positions. Any thread may call it."""
        removals = Removals()
        for place, position in positions.items():
            if self.heads[place] != position:
                shared = self._shared
                reader = RingReader(shared.news[place], shared.heads, place, position)
                removals.add(merged(reader.read()))
        return removals


def merged(messages: list[bytes] | None) -> Removals:
    """Return the removals in messages; all entries are removed if some messages are missing."""
    if messages is None:
        return Removals(everything=True)
    removals = Removals()
    for message in messages:
        removals.add(_unpacked(message))
    return removals


def _asks(message: bytes) -> bool:
    return message[:1] == _ASKS


def _unpacked(message: bytes) -> Removals:
    return unpacked_removals(message[_asked.size :] if message[:1] == _ASKS else message)
