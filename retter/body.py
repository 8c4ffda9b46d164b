"""Message bodies: counted when framed by length, decoded here when chunked.

A body of known length is only counted. A chunked one is read by a small state machine that takes
exactly the grammar of RFC 9112 section 7.1 (strict.py says where h11 takes more), and it is chunked
anew for the other side, so that nobody behind us ever sees how the sender cut it. h11 would copy
each octet twice and be cheaper nowhere; tests/test_body.py holds the two together.
"""

from enum import Enum, auto
from typing import Final

from retter.lines import field_of
from retter.strict import chunk_size_of, kept_trailers, line_fault, trailer_fault

LAST_CHUNK: Final = b"0\r\n\r\n"

# A chunk's size line. 16 digits are the size; what extensions there are in practice (a signature)
# stays well under this.
CHUNK_LINE_BYTES_MAX: Final = 1024

# Trailer sections carry a checksum or a status. Half of what h11 takes for a whole head.
TRAILER_BYTES_MAX: Final = 8 * 1024


class BodyMalformed(Exception):
    """The chunked framing is broken; the side that reads maps it to its own error."""


class _Expected(Enum):
    """What the next octets of a chunked body have to be."""

    SIZE = auto()           # a chunk's size line
    DATA = auto()           # octets of the chunk
    CRLF = auto()           # the end of the chunk
    TRAILERS = auto()       # field lines and the empty line
    NOTHING = auto()        # the body is complete


_SIZE, _DATA, _CRLF, _TRAILERS, _NOTHING = _Expected


class ChunkedDecoder:
    """Decodes one chunked body, fed in any pieces (RFC 9112 section 7.1.3)."""

    __slots__ = ("_buffer", "_expected", "_left", "trailers")

    def __init__(self) -> None:
        self._buffer = b""                  # an incomplete line; at the end, what follows the body
        self._expected = _SIZE
        self._left = 0                      # octets of the present chunk still to come
        self.trailers: list[tuple[bytes, bytes]] = []

    @property
    def complete(self) -> bool:
        """Whether the end of the body has been read."""
        return self._expected is _NOTHING

    def feed(self, data: bytes) -> bytes:
        """Take received bytes and return the body octets in them.

        Raises:
            BodyMalformed: The framing is broken.
        """
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        pieces: list[bytes] = []
        at, end = 0, len(data)
        while at < end:
            if self._expected is _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                taken = len(piece)
                if not self._left:
                    self._expected = _CRLF
            elif self._expected is _NOTHING:
                taken = 0
            else:
                taken = self._take_line(data, at)
            if not taken:
                self._buffer = data[at:]
                break
            at += taken
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def rest(self) -> bytes:
        """Return the bytes received after the end of the body."""
        return self._buffer

    def _take_line(self, data: bytes, at: int) -> int:
        """Take the framing at this place; return its octets, or 0 if it is incomplete."""
        if self._expected is _SIZE:
            return self._take_size(data, at)
        if self._expected is _TRAILERS:
            return self._take_trailers(data, at)
        found = data[at : at + 2]
        if not b"\r\n".startswith(found):
            raise BodyMalformed("a chunk that is longer than its size")
        if len(found) < 2:
            return 0
        self._expected = _SIZE
        return 2

    def _take_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + CHUNK_LINE_BYTES_MAX + 2)
        if end < 0:
            if len(data) - at > CHUNK_LINE_BYTES_MAX + 1 or line_fault(data[at:]):
                raise BodyMalformed("a malformed chunk size")
            return 0
        size = chunk_size_of(data[at:end])
        if size is None:
            raise BodyMalformed("a malformed chunk size")
        self._left = size
        self._expected = _DATA if size else _TRAILERS
        return end + 2 - at

    def _take_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._expected = _NOTHING
            return 2
        end = data.find(b"\r\n\r\n", at, at + TRAILER_BYTES_MAX)
        section = data[at : end + 2] if end >= 0 else data[at:]
        if fault := line_fault(section):
            raise BodyMalformed(f"{fault} in the trailers")
        if end < 0:
            if len(section) >= TRAILER_BYTES_MAX:
                raise BodyMalformed("trailers that are too large")
            return 0
        self.trailers = _parse_trailers(section)
        self._expected = _NOTHING
        return end + 4 - at


def _parse_trailers(section: bytes) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = []
    for line in section[:-2].split(b"\r\n"):
        field = field_of(line)
        if field is None:
            raise BodyMalformed("a malformed trailer field")
        fields.append(field)
    if fault := trailer_fault(fields):
        raise BodyMalformed(fault)
    return kept_trailers(fields)


def chunk(data: bytes) -> bytes:
    """Return data as one chunk; b"" for b"", which would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the end of a chunked body with its trailer fields (RFC 9112 section 7.1.2)."""
    if not trailers:
        return LAST_CHUNK
    lines = b"".join([b"%b: %b\r\n" % field for field in trailers])
    return b"0\r\n" + lines + b"\r\n"
