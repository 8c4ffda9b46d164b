"""The workers of one box (`--workers`), each of which talks to the server of `--shared`.

To the server each worker is a box, and all are counted as one. What one of them removes, the others
know at once (disk/news.py), but the server does not until that worker has told it. Until then the
others ignore what they read there if it should have been removed.

Each worker receives the changes of other boxes. The first one to receive a change applies it for
all. If the others applied it too, they would remove responses that were stored since.
"""

from hashlib import blake2b
from struct import Struct
from typing import Final

from retter.base.ring import RingReader
from retter.base.worker_place import WorkerPlace
from retter.disk.news import News, Pending, merged
from retter.far.changes import NO_PLACE, PLACE_BYTES, Message
from retter.store.write_behind import Removals

# After a worker has told a change, a read that began before may still be under way (0.1 s), and the
# others have not heard its place in the order of changes yet (0.25 s).
KEPT_S: Final = 1.0

# If a worker has been dead for this long, the first worker tells its remaining changes.
DEAD_S: Final = 5.0

# Changes of others that are remembered one by one until they are told. Any more are merged.
PENDING_MAX: Final = 512

_place = Struct(">QQ")
_COUNT_BITS: Final = 16
_COUNT_MAX: Final = (1 << _COUNT_BITS) - 1


def number_of(place: bytes) -> int:
    """Return a place in the order of changes as one number, rounded down."""
    milliseconds, count = _place.unpack(place)
    number = milliseconds << _COUNT_BITS | min(count, _COUNT_MAX)
    return number if number < 1 << 63 else 0


def place_at(number: int) -> bytes:
    """Return the place with this number."""
    return _place.pack(number >> _COUNT_BITS, number & _COUNT_MAX)


class Siblings:
    """The changes of a box's workers that the server may not know, as one of them sees it.

    Attributes:
        untold: Removals by other workers that the server may not know.
        own: Removals by an earlier process at this place that were not told.
    """

    def __init__(self, place: WorkerPlace, news: News) -> None:
        shared = self._shared = place.shared
        self._place = place.place
        self._leads = place.leads
        self._news = news
        self._pending: list[Pending] = []
        self.untold = Removals()
        self.own = Removals()
        for at, ring in enumerate(shared.news):
            reader = RingReader(ring, shared.heads, at, shared.told[at])
            messages = reader.read()
            if messages is None:  # older ones are in a file, which its successor reads
                reader = RingReader(ring, shared.heads, at, shared.noted[at])
                messages = reader.read()
            removals = merged(messages)
            if at == self._place:
                self.own = removals
            elif removals:
                self._read(at, reader.position, removals)
        news.on_read = self._read

    # -- what this worker tells

    @property
    def position(self) -> int:
        """The position up to which this worker has told the other workers its removals."""
        return self._news.position

    def told(self, position: int) -> None:
        """Note that the server knows this worker's removals up to this position."""
        self._shared.told[self._place] = position

    def noted(self, position: int) -> None:
        """Note that its untold removals up to this position are in a file beside the store."""
        self._shared.noted[self._place] = position

    @property
    def is_to_be_noted(self) -> bool:
        """Whether the ring may soon lose what is neither told nor noted."""
        shared, here = self._shared, self._place
        safe = max(shared.told[here], shared.noted[here])
        return self.position - safe > shared.news[here].nbytes // 2

    # -- what others have removed

    def look(self, now: float) -> None:
        """Apply the removals of others since the last look."""
        self._news.look(now)

    def _read(self, place: int, until: int, removals: Removals) -> None:
        self._pending.append(Pending(place, until, removals))
        self.untold.add(removals)
        if len(self._pending) > PENDING_MAX:
            self._put_together()

    def _put_together(self) -> None:
        """Merge the changes of each worker into one; it counts as told when the last one is."""
        by_place: dict[int, Pending] = {}
        for one in self._pending:
            whole = by_place.setdefault(one.place, Pending(one.place, one.until, Removals()))
            whole.until = one.until
            whole.removals.add(one.removals)
        self._pending = list(by_place.values())

    def tick(self, now: float) -> Removals:
        """Forget told changes; return those that this worker has to tell for a dead one."""
        inherited, shared = Removals(), self._shared
        if not self._pending:
            return inherited
        kept: list[Pending] = []
        for one in self._pending:
            if one.forget_at is None and shared.told[one.place] >= one.until:
                one.forget_at = now + KEPT_S
            elif (
                one.forget_at is None and self._leads and now - shared.last_beat(one.place) > DEAD_S
            ):
                inherited.add(one.removals)
                shared.told[one.place] = one.until
            if one.forget_at is None or now < one.forget_at:
                kept.append(one)
        if len(kept) != len(self._pending):
            self._pending, self.untold = kept, Removals()
            for one in kept:
                self.untold.add(one.removals)
        return inherited

    # -- what other boxes have told

    def start_place(self) -> bytes:
        """Return the last change of other boxes that all workers have; NO_PLACE if none has."""
        heard = max(self._shared.heard)
        return place_at(heard) if heard > 0 else NO_PLACE

    def heard(self, place: bytes) -> None:
        """Note that this worker has applied all changes up to here, or that another one has."""
        if len(place) == PLACE_BYTES:
            self._shared.heard[self._place] = number_of(place)

    def was_applied(self, place: bytes, message: Message) -> bool:
        """Return whether another worker has applied a change; `look` applies it here."""
        digest, applied = _digest(place, message), self._shared.applied
        return applied[digest % len(applied)] == digest

    def applied(self, place: bytes, message: Message) -> None:
        """Note that all workers have a change."""
        digest, applied = _digest(place, message), self._shared.applied
        applied[digest % len(applied)] = digest


def _digest(place: bytes, message: Message) -> int:
    digest = blake2b(place + message.packed(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
