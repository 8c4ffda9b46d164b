"""A ring of messages in shared memory: one process writes, and all others read.

A position counts all octets that were ever written. The writer never waits. A reader that is so far
behind that messages were overwritten is told so. Each message has its position and a checksum, so a
reader never takes an old or half-written message for the next one.

    position (8)  length (4)  checksum (4)  payload (length), filled up to 8 octets

A length of `_SKIP` means that the next message is at the beginning of the ring. Pure: the memory
comes from the caller.
"""

from struct import Struct
from typing import Final
from zlib import crc32

_head = Struct("<qII")
HEAD_BYTES: Final = _head.size
_SKIP: Final = 0xFFFF_FFFF
_ALIGNED: Final = 8
# Checksums begin with it, so that new memory, all 0, is not an empty message at the beginning.
_SEED: Final = 1

# Another core may see the octets of a message later than the new head. It never takes longer than
# this many looks.
_LOOKS_MAX: Final = 1000


def _filled_up(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


class RingWriter:
    """The end of the process that writes. `ring` is a multiple of 8 octets."""

    __slots__ = ("_head", "_place", "_ring")

    def __init__(self, ring: memoryview, heads: "memoryview[int]", place: int) -> None:
        self._ring = ring
        self._head = heads
        self._place = place

    @property
    def message_bytes_max(self) -> int:
        """The largest payload."""
        return self._ring.nbytes // 4

    @property
    def head(self) -> int:
        """The position of the next message."""
        return self._head[self._place]

    def write(self, payload: bytes) -> int:
        """Write a message, and return the position behind it."""
        assert len(payload) <= self.message_bytes_max, "the caller sends less"
        ring, position = self._ring, self.head
        size = _filled_up(HEAD_BYTES + len(payload))
        at = position % ring.nbytes
        room = ring.nbytes - at
        if room < size:
            if room >= HEAD_BYTES:
                _head.pack_into(ring, at, position, _SKIP, 0)
            position, at = position + room, 0
        begin = at + HEAD_BYTES
        _head.pack_into(ring, at, position, len(payload), crc32(payload, _SEED))
        ring[begin : begin + len(payload)] = payload
        self._head[self._place] = position + size  # last: from now on others read it
        return position + size


class RingReader:
    """The end of a process that reads.

    Attributes:
        position: Of the next message.
    """

    __slots__ = ("_heads", "_place", "_ring", "position")

    def __init__(
        self, ring: memoryview, heads: "memoryview[int]", place: int, position: int
    ) -> None:
        self._ring = ring
        self._heads = heads
        self._place = place
        self.position = position

    def read(self) -> list[bytes] | None:
        """Return the new messages; None if some were overwritten. The reader is up to date then."""
        head = self._heads[self._place]
        found: list[bytes] = []
        while self.position < head:
            one = self._next()
            if one is None:
                self.position = self._heads[self._place]
                return None
            payload, self.position = one
            if payload is not None:
                found.append(payload)
        return found

    def _next(self) -> tuple[bytes | None, int] | None:
        for _ in range(_LOOKS_MAX):
            if self._heads[self._place] - self.position > self._ring.nbytes:
                return None
            one = self._look()
            if one is not None:
                return one
        return None

    def _look(self) -> tuple[bytes | None, int] | None:
        ring, position = self._ring, self.position
        at = position % ring.nbytes
        room = ring.nbytes - at
        if room < HEAD_BYTES:
            return None, position + room
        there, length, checksum = _head.unpack_from(ring, at)
        if there != position:
            return None
        if length == _SKIP:
            return None, position + room
        begin = at + HEAD_BYTES
        payload = bytes(ring[begin : begin + length])
        if len(payload) < length or crc32(payload, _SEED) != checksum:
            return None
        return payload, position + _filled_up(HEAD_BYTES + length)
