"""What a purge has dropped near each worker, told to the worker that counts it.

The worker that makes the purge asks in its news (news.py), and commits it when all others have
answered, or after GATHER_S. So each of them still finds in the database what is there, and tells
only the pages that it alone has: those that are not committed yet, or never will be. A page that
two workers have is told by both; the one that counts puts the answers together.

    asker (8)  number (8)  flags (1), filled up to 8  slot keys (32 each)
"""

from collections.abc import Iterable
from struct import Struct
from typing import Final

from retter.base.ring import RingReader, RingWriter
from retter.base.shared_memory import SharedMemory
from retter.store.packing import KEY_BYTES
from retter.store.purge_count import PurgeCount

# A worker looks for news twenty times a second, and a thread does the rest. One that takes longer
# than this may have ended.
GATHER_S: Final = 0.5

# A worker that has not shown that it is alive for this long is not asked: it has ended, or hangs.
ALIVE_S: Final = 3.0

# Slot keys that a worker tells. As many changes wait for their commit at most
# (store/write_behind.py); of pages that are never written there may be more.
KEYS_MAX: Final = 8192

_head = Struct("<qqBxxxxxxx")
_LAST: Final = 1
_LEFT_OUT: Final = 2  # there are more pages than KEYS_MAX


class PurgeAnswers:
    """The answers of one worker, and of the others to it."""

    def __init__(self, shared: SharedMemory, place: int) -> None:
        self._shared = shared
        self._place = place
        self._writer = RingWriter(shared.answers[place], shared.answered, place)
        self._asked: list[_Asked] = []

    # -- in the thread that writes

    def answer(self, asker: int, number: int, keys: Iterable[bytes]) -> None:
        """Tell the worker at a place the slot keys that only this worker had."""
        told = list(keys)
        flags = _LAST | (_LEFT_OUT if len(told) > KEYS_MAX else 0)
        told = told[:KEYS_MAX]
        some = (self._writer.message_bytes_max - _head.size) // KEY_BYTES
        while len(told) > some:
            self._writer.write(_head.pack(asker, number, 0) + b"".join(told[:some]))
            told = told[some:]
        self._writer.write(_head.pack(asker, number, flags) + b"".join(told))

    # -- the worker that counts

    def readers(self, now: float) -> dict[int, RingReader]:
        """Begin to listen to the workers that are alive, before they are asked."""
        shared = self._shared
        return {
            place: RingReader(ring, shared.answered, place, shared.answered[place])
            for place, ring in enumerate(shared.answers)
            if place != self._place and now - shared.last_beat(place) < ALIVE_S
        }

    def ask(self, count: PurgeCount, readers: dict[int, RingReader], now: float) -> None:
        """Gather the answers of the others to a purge that they got."""
        if count.number >= 0 and readers:
            self._asked.append(_Asked(count, readers, now + GATHER_S))

    def gather(self, now: float) -> bool:
        """Read the answers that have come; return whether some are missing."""
        for one in self._asked:
            one.read(self._place)
        # A later purge does not prolong the wait of an earlier one: both are in one batch.
        if self._asked and now >= self._asked[0].until:
            for one in self._asked:
                one.count.complete = one.count.complete and not one.readers
            self._asked = []
        self._asked = [one for one in self._asked if one.readers]
        return bool(self._asked)


class _Asked:
    """A purge that others were asked about."""

    __slots__ = ("count", "readers", "until")

    def __init__(self, count: PurgeCount, readers: dict[int, RingReader], until: float) -> None:
        self.count = count
        self.readers = readers  # of those that have not answered
        self.until = until

    def read(self, place: int) -> None:
        for other, reader in list(self.readers.items()):
            messages = reader.read()
            if messages is None:  # it has written more since than its ring holds
                del self.readers[other]
                self.count.complete = False
                continue
            for message in messages:
                if self._take(message, place):
                    del self.readers[other]
                    break

    def _take(self, message: bytes, place: int) -> bool:
        """Take what a message tells; return whether it is the last one of its worker."""
        asker, number, flags = _head.unpack_from(message)
        if (asker, number) != (place, self.count.number):
            return False
        keys = message[_head.size :]
        self.count.others.update(
            [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]
        )
        self.count.complete = self.count.complete and not flags & _LEFT_OUT
        return bool(flags & _LAST)
