"""Octets in checked frames, from one process to another on the same machine.

A stream begins with `PREAMBLE`: a name and a version. Each frame after it carries its length, its
kind and a checksum, which continues the checksum of the frame before. So a frame that is changed,
missing, moved or doubled is noticed, and so is everything after it.

    checksum (4)  length (4)  kind (1)  payload (length)

Pure: it neither reads nor writes. The checksum finds faults, not attacks: nobody
but this program can write here.
"""

from struct import Struct
from typing import Final
from zlib import crc32

# 2: owners and marks are hashed in another way (store/owner.py).
VERSION: Final = 2
_NAME: Final = b"RETTER\x00\x00"
_preamble = Struct("<8sH")
PREAMBLE: Final = _preamble.pack(_NAME, VERSION)

# Checking one takes half a millisecond; what is larger is sent in pieces.
PAYLOAD_BYTES_MAX: Final = 1024 * 1024

_head = Struct("<IIB")
HEAD_BYTES: Final = _head.size
_checked_from: Final = 4  # the checksum itself is not in it


class BadFrame(Exception):
    """These octets were not written by a process of this version."""


class FrameWriter:
    """Makes the frames of one stream, in their order."""

    __slots__ = ("_checksum",)

    def __init__(self) -> None:
        self._checksum = crc32(PREAMBLE)

    def frame(self, kind: int, payload: bytes) -> bytes:
        """Return the next frame."""
        assert len(payload) <= PAYLOAD_BYTES_MAX, "it is sent in pieces"
        head = _head.pack(0, len(payload), kind)
        self._checksum = crc32(payload, crc32(head[_checked_from:], self._checksum))
        return self._checksum.to_bytes(_checked_from, "little") + head[_checked_from:] + payload


class FrameReader:
    """Reads the frames of one stream, in their order."""

    __slots__ = ("_checksum", "_rest")

    def __init__(self) -> None:
        self._checksum = crc32(PREAMBLE)
        self._rest = bytearray()  # of a stream that comes in pieces

    def next_in(self, data: memoryview, at: int) -> tuple[int, bytes, int] | None:
        """Return kind and payload of the frame that begins there, and where it ends.

        None: the rest of it is missing. After an exception, nothing more can be read.

        Raises:
            BadFrame: It does not verify.
        """
        begin = at + HEAD_BYTES
        if len(data) < begin:
            return None
        checksum, length, kind = _head.unpack_from(data, at)
        if length > PAYLOAD_BYTES_MAX:
            raise BadFrame("a frame is too long")
        end = begin + length
        if len(data) < end:
            return None
        self._checksum = crc32(data[at + _checked_from : end], self._checksum)
        if checksum != self._checksum:
            raise BadFrame("a checksum is wrong")
        return kind, bytes(data[begin:end]), end

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take the next octets of a stream; return the frames that are complete with them.

        Raises:
            BadFrame: They do not verify.
        """
        self._rest += data
        frames: list[tuple[int, bytes]] = []
        at = 0
        with memoryview(self._rest) as view:
            while (one := self.next_in(view, at)) is not None:
                kind, payload, at = one
                frames.append((kind, payload))
        del self._rest[:at]
        return frames


def after_preamble(data: bytes | memoryview) -> int:
    """Return where the first frame begins.

    Raises:
        BadFrame: The stream is no such stream, or is of another version.
    """
    if len(data) < _preamble.size:
        raise BadFrame("it is too short")
    name, version = _preamble.unpack_from(data)
    if name != _NAME:
        raise BadFrame("it is of another program")
    if version != VERSION:
        raise BadFrame(f"it has version {version}, and this process reads version {VERSION}")
    return _preamble.size
