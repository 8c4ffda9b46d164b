"""The workers of one box (`--workers`), each of which talks to the server of `--shared`.

To the server each worker is a box, and all are counted as one. What one of them removes, the others
know at once (disk/news.py), but the server does not until that worker has told it. Until then the
others pass over what they read there and should be gone.

A change of another box is heard by each worker. The first one applies it for all. The others would
else undo what was stored since.
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

# What a worker that has been dead for so long could not tell, the first worker tells.
DEAD_S: Final = 5.0

# Changes of others that are remembered one by one until they are told. More are put together.
PENDING_MAX: Final = 512

_place = Struct(">QQ")
_COUNT_BITS: Final = 16
_COUNT_MAX: Final = (1 << _COUNT_BITS) - 1


def number_of(place: bytes) -> int:
    """Return a place in the order of changes as one number, or that of a place shortly before."""
    milliseconds, count = _place.unpack(place)
    number = milliseconds << _COUNT_BITS | min(count, _COUNT_MAX)
    return number if number < 1 << 63 else 0


def place_at(number: int) -> bytes:
    """Return the place with this number."""
    return _place.pack(number >> _COUNT_BITS, number & _COUNT_MAX)


class Siblings:
    """What one worker knows of the others.

    Attributes:
        untold: What others have removed, and the server may not know.
        own: What an earlier process at this place has removed, and not told.
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
            removals = Removals(personal=True) if messages is None else merged(messages)
            if at == self._place:
                self.own = removals
            elif removals:
                self._read(at, reader.position, removals)
        news.on_read = self._read

    # -- what this worker tells

    @property
    def position(self) -> int:
        """Up to where this worker has told the other workers what it removed."""
        return self._news.position

    def told(self, position: int) -> None:
        """Note that the server knows what this worker has removed until this position."""
        self._shared.told[self._place] = position

    # -- what others have removed

    def look(self, now: float) -> None:
        """Apply what others have removed since the last look."""
        self._news.look(now)

    def _read(self, place: int, until: int, removals: Removals) -> None:
        self._pending.append(Pending(place, until, removals))
        self.untold.add(removals)
        if len(self._pending) > PENDING_MAX:
            self._put_together()

    def _put_together(self) -> None:
        """Remember the changes of each worker as one, which is told when the last of them is."""
        by_place: dict[int, Pending] = {}
        for one in self._pending:
            whole = by_place.setdefault(one.place, Pending(one.place, one.until, Removals()))
            whole.until = one.until
            whole.removals.add(one.removals)
        self._pending = list(by_place.values())

    def tick(self, now: float) -> Removals:
        """Forget what is told; return what this worker has to tell in place of a dead one."""
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
        """Return whether another worker has applied a change; a look brings it to this one."""
        digest, applied = _digest(place, message), self._shared.applied
        return applied[digest % len(applied)] == digest

    def applied(self, place: bytes, message: Message) -> None:
        """Note that all workers have a change."""
        digest, applied = _digest(place, message), self._shared.applied
        applied[digest % len(applied)] = digest


def _digest(place: bytes, message: Message) -> int:
    digest = blake2b(place + message.packed(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)
