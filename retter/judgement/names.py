"""The names of routes, so that the leader knows those that only other workers have.

An event identifies a route by its number. Each worker writes the names behind its numbers into its
slot.
"""

from struct import Struct
from typing import Final
from zlib import crc32

from retter.judgement.memory import NAME_BYTES, NAMES_MAX, Memory

_HEAD: Final = Struct("=qHHI")  # number, length, nothing, check sum of the name
_NAME_MAX: Final = NAME_BYTES - _HEAD.size


class Names:
    """The names that one worker has written."""

    __slots__ = ("_at", "_next", "_octets")

    def __init__(self, memory: Memory, index: int) -> None:
        self._octets = memory.octets
        self._at = memory.slots[index].names_at
        self._next = 0

    def write(self, number: int, name: bytes) -> None:
        """Write a name over the oldest one, unless it is too long."""
        if len(name) > _NAME_MAX:
            return
        begin = self._at + self._next % NAMES_MAX * NAME_BYTES
        self._next += 1
        record = _HEAD.pack(number, len(name), 0, crc32(name)) + name
        self._octets[begin : begin + len(record)] = record


def name_of(memory: Memory, number: int) -> bytes | None:
    """Return the name of a route's number, if any worker has written it.

    This reads all names, so it is for numbers that were never seen before.
    """
    for slot in memory.slots:
        for begin in range(slot.names_at, slot.names_at + NAMES_MAX * NAME_BYTES, NAME_BYTES):
            record = bytes(memory.octets[begin : begin + NAME_BYTES])
            its_number, length, _, check = _HEAD.unpack_from(record)
            if its_number == number:
                name = record[_HEAD.size : _HEAD.size + length]
                if crc32(name) == check:
                    return name
    return None
