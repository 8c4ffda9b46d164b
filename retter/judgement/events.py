"""Events for the leader: what the application did, in a ring in each worker's slot.

The worker writes and never waits. The leader reads every ring on its tick. If it comes too late,
the oldest events are overwritten; then their numbers are known from the words PASSED and FAILED.
"""

from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

from retter.judgement.memory import EVENT_BYTES, EVENTS_MAX, HEAD, Memory

_BODY: Final = Struct("=ddqqqiiHH")  # 52 octets; the check sum follows
_BODY_BYTES: Final = _BODY.size
_RECORD_BYTES: Final = _BODY_BYTES + 4
assert _RECORD_BYTES <= EVENT_BYTES


class Happened(IntEnum):
    """The kind of an event."""

    PASSED = 1  # a good answer
    FAILED = 2  # no answer, or a bad one
    REFUSED = 3  # the application accepts no connection
    SLOW = 4  # a GET outlived its patience
    LATE = 5  # a request in flight is late already
    PROBED = 6  # a probe of an open route was sent
    NO_PLACE = 7  # a GET arrived at the ceiling while the circuit was closed


IS_GET: Final = 1
UNCONGESTED: Final = 2
IS_JUDGED: Final = 4
IS_SLOW: Final = 8
PROBES_CIRCUIT: Final = 16
PROBES_ROUTE: Final = 32


class Event(NamedTuple):
    """One event of one request."""

    at: float  # monotonic seconds
    started_at: float
    route: int  # its number, see routes.py; 0: the one that all others share
    client: int
    rank: int  # in flight at the start, over all workers
    generation: int
    kind: int  # Happened
    flags: int


class Ring:
    """The events of one worker."""

    __slots__ = ("_at", "_head", "_octets", "_words")

    def __init__(self, memory: Memory, index: int) -> None:
        slot = memory.slots[index]
        self._octets = memory.octets
        self._words = memory.words
        self._at = slot.events_at
        self._head = slot.word + HEAD

    @property
    def head(self) -> int:
        """How many events have been written since the beginning."""
        head: int = self._words[self._head]
        return head

    def write(
        self,
        at: float,
        started_at: float,
        route: int,
        client: int,
        rank: int,
        generation: int,
        kind: int,
        flags: int,
    ) -> None:
        """Write one event; for its owner alone."""
        words = self._words
        serial = words[self._head]
        body = _BODY.pack(at, started_at, route, client, serial, rank, generation, kind, flags)
        begin = self._at + serial % EVENTS_MAX * EVENT_BYTES
        self._octets[begin : begin + _RECORD_BYTES] = body + crc32(body).to_bytes(4, "little")
        words[self._head] = serial + 1

    def read(self, since: int, most: int) -> tuple[list[Event], int, int]:
        """Return the events from number `since` on, at most `most`: the newest ones.

        Returns:
            The events, the number of the next one, and how many were lost.
        """
        head = self.head
        first = max(since, head - min(most, EVENTS_MAX))
        lost = first - since
        found: list[Event] = []
        octets = self._octets
        for serial in range(first, head):
            begin = self._at + serial % EVENTS_MAX * EVENT_BYTES
            record = bytes(octets[begin : begin + _RECORD_BYTES])
            body = record[:_BODY_BYTES]
            at, started_at, route, client, number, *rest = _BODY.unpack(body)
            if number != serial or crc32(body) != int.from_bytes(record[_BODY_BYTES:], "little"):
                if serial + EVENTS_MAX > self.head:
                    # Not visible yet: it is read next time.
                    return found, serial, lost
                lost += 1
                continue
            found.append(Event(at, started_at, route, client, *rest))
        return found, head, lost
