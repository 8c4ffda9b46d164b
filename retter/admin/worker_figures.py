"""The figures of each of several workers, in the memory that all of them share.

A worker writes its figures once a second, as JSON, into its own part of the memory. The first
worker answers the operators, and adds those of all others. A part outlives its process: the next
process at that place begins with the counts of the one before, so no sum ever falls.

    serial (8)  length (4)  checksum (4)  JSON

Figures are written alternately to the first and the second half of the part. The checksum shows
whether they are complete. So the previous figures stay while new ones are written, even if the
worker is killed meanwhile.
"""

import json
from struct import Struct
from typing import Any, Final
from zlib import crc32

from retter.base.shared_memory import SharedMemory

_head = Struct("<qII")

# A worker that has not written for this long has ended, or hangs: its gauges do not count.
PRESENT_S: Final = 3.0

Figures = dict[str, Any]


class Board:
    """The figures of all workers, as one of them sees them.

    Attributes:
        before: The counts of earlier processes at this place; empty if there were none.
    """

    def __init__(self, shared: SharedMemory, place: int) -> None:
        self._parts = shared.figures
        self._place = place
        self._known: dict[int, tuple[int, Figures]] = {}  # by place: serial and figures
        self.before = self._read(place)
        self._serial = self._known[place][0] if self.before else 0

    def write(self, figures: Figures) -> bool:
        """Write the figures of this worker; return False if they are too large."""
        data = json.dumps(figures).encode()
        part = self._half(self._place, self._serial + 1)
        if _head.size + len(data) > part.nbytes:
            return False
        self._serial += 1
        part[_head.size : _head.size + len(data)] = data
        _head.pack_into(part, 0, self._serial, len(data), crc32(data))
        return True

    def others(self) -> dict[int, Figures]:
        """Return the figures of all other workers that have any, by place."""
        found = {
            place: self._read(place) for place in range(len(self._parts)) if place != self._place
        }
        return {place: figures for place, figures in found.items() if figures}

    def present(self, now: float) -> dict[int, Figures]:
        """Return those of the other workers that are alive."""
        return {
            place: figures
            for place, figures in self.others().items()
            if now - figures["at"] < PRESENT_S
        }

    def _half(self, place: int, serial: int) -> memoryview:
        """Return where the figures with this serial number are."""
        part = self._parts[place]
        size = part.nbytes // 2
        return part[size:] if serial & 1 else part[:size]

    def _read(self, place: int) -> Figures:
        serial, known = self._known.get(place, (0, Figures()))
        halves = [self._half(place, number) for number in (0, 1)]
        halves.sort(key=lambda half: _head.unpack_from(half)[0], reverse=True)
        for half in halves:
            found, length, checksum = _head.unpack_from(half)
            if found <= serial:
                return known
            data = bytes(half[_head.size : _head.size + length])
            if crc32(data) == checksum:
                figures: Figures = json.loads(data)
                self._known[place] = found, figures
                return figures
        return known
