"""Message bodies: counted when framed by length, decoded here when chunked.

A body of known length is only counted. A chunked one is read by a small state machine that accepts
exactly the grammar of RFC 9112 section 7.1 (framing_rules.py lists where h11 accepts more), and in
responses blanks after a chunk size. It is chunked anew for the other side, so that the recipient
never sees the sender's chunks. h11 would copy each octet twice and be cheaper nowhere;
tests/http/test_chunked.py compares the two.
"""

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from retter.base.limits import CHUNK_EXTENSIONS_BYTES_MAX, TRAILER_FIELDS_MAX
from retter.http.framing_rules import chunk_size_of, kept_trailers, line_fault, trailer_fault
from retter.http.read_buffer import ReadBuffer
from retter.http.templates import field_of

LAST_CHUNK: Final = b"0\r\n\r\n"

# The longest size line of a chunk. 16 digits are the size; the extensions that are used in practice
# (a signature) are much shorter than this.
CHUNK_LINE_BYTES_MAX: Final = 1024

# The longest size in that line.
CHUNK_SIZE_BYTES_MAX: Final = 16

# Trailer sections carry a checksum or a status. This is half of h11's limit for a whole head.
TRAILER_BYTES_MAX: Final = 8 * 1024


SMALL_CHUNK_BYTES: Final = 16
# Patterns for smaller chunks than that. There may be thousands, and each step in Python would cost
# too much. The pattern looks back at the size, since the data must have exactly that length.
_SMALL_SIZES: Final = b"|".join(
    [
        rb"(?<=%b\r\n).{%d}" % (b"[%x%X]" % (size, size) if size > 9 else b"%d" % size, size)
        for size in range(1, SMALL_CHUNK_BYTES)
    ]
)
_small_chunks: Final = re.compile(
    rb"(?:0{0,15}+[1-9a-fA-F]\r\n(?:" + _SMALL_SIZES + rb")\r\n)+", re.DOTALL
).match
_data_of_small_chunks: Final = re.compile(
    rb"0{0,15}+[1-9a-fA-F]\r\n(" + _SMALL_SIZES + rb")\r\n", re.DOTALL
).findall


class BodyMalformed(Exception):
    """The chunked framing is broken. The reading side maps this to its own error."""


class _Expected(Enum):
    """The kind of the next bytes of a chunked body."""

    SIZE = auto()  # a chunk's size line
    DATA = auto()  # octets of the chunk
    CRLF = auto()  # the end of the chunk
    TRAILERS = auto()  # field lines and the empty line
    NOTHING = auto()  # the body is complete


_SIZE, _DATA, _CRLF, _TRAILERS, _NOTHING = _Expected


class ChunkedDecoder:
    """Decodes one chunked body, which may arrive in any pieces (RFC 9112 section 7.1.3).

    Args:
        padded: Blanks may follow a chunk size. Some applications write each size with the same
            width, and every proxy and browser reads that alike. In requests it is an error.
    """

    __slots__ = ("_expected", "_extensions", "_left", "_padded", "_rest", "_waiting", "trailers")

    def __init__(self, *, padded: bool = False) -> None:
        self._padded = padded
        self._waiting: ReadBuffer | None = None  # an incomplete line, or trailers
        self._rest = b""  # the octets after the body
        self._expected = _SIZE
        self._left = 0  # octets of the present chunk that are still missing
        self._extensions = 0  # octets of such lines minus octets of data, at least 0
        self.trailers: list[tuple[bytes, bytes]] = []

    @property
    def complete(self) -> bool:
        """Whether the end of the body has been read."""
        return self._expected is _NOTHING

    def feed(self, data: bytes) -> bytes:
        """Decode received bytes, and return the body octets in them.

        Raises:
            BodyMalformed: The framing is broken.
        """
        at = 0
        if self._waiting is not None:
            self._waiting.add(data)
            if self._expected is _TRAILERS and not self._may_end(self._waiting):
                return b""
            (data, at), self._waiting = self._waiting.taken(), None
        pieces: list[bytes] = []
        end = len(data)
        while at < end:
            if self._expected is _SIZE:
                at = _take_whole_chunks(data, at, pieces)
                if at == end:
                    break
            if self._expected is _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                self._left -= len(piece)
                taken = len(piece)
                if not self._left:
                    self._expected = _CRLF
            elif self._expected is _NOTHING:
                self._rest += data[at:]
                break
            else:
                taken = self._take_line(data, at)
                if not taken:
                    self._waiting = ReadBuffer(data, at, checked=True)
                    break
            at += taken
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def rest(self) -> bytes:
        """Return the bytes received after the end of the body."""
        return self._rest

    def _may_end(self, waiting: ReadBuffer) -> bool:
        """Whether the trailers may be complete or too large; otherwise check their new lines."""
        if waiting.has_heads() or waiting.begins_with_line_end:
            return True
        if len(waiting) >= TRAILER_BYTES_MAX:
            return True
        waiting.check(_check_trailer_lines)
        return False

    def _take_line(self, data: bytes, at: int) -> int:
        """Read the framing at this place; return its length, or 0 if it is incomplete."""
        if self._expected is _SIZE:
            return self._take_size(data, at)
        if self._expected is _TRAILERS:
            return self._take_trailers(data, at)
        line_end = data[at : at + 2]
        if not b"\r\n".startswith(line_end):
            raise BodyMalformed("a chunk that is longer than its size")
        if len(line_end) < 2:
            return 0
        self._expected = _SIZE
        return 2

    def _take_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at, at + CHUNK_LINE_BYTES_MAX + 2)
        if end < 0:
            if len(data) - at > CHUNK_LINE_BYTES_MAX + 1 or line_fault(data[at:]):
                raise BodyMalformed("a malformed chunk size")
            return 0
        line = data[at:end]
        octets, alone = len(line), line.isalnum()
        if self._padded and not alone:
            line = line.rstrip(b" \t")
        size = _size_of(line) if len(line) <= CHUNK_SIZE_BYTES_MAX else chunk_size_of(line)
        if size is None:
            raise BodyMalformed("a malformed chunk size")
        if not alone:
            self._extensions = max(0, self._extensions + octets - size)
            if self._extensions > CHUNK_EXTENSIONS_BYTES_MAX:
                raise BodyMalformed("chunk extensions that are larger than the data")
        self._left = size
        self._expected = _DATA if size else _TRAILERS
        return end + 2 - at

    def _take_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._expected = _NOTHING
            return 2
        end = data.find(b"\r\n\r\n", at, at + TRAILER_BYTES_MAX)
        section = data[at : end + 2] if end >= 0 else data[at:]
        _check_trailer_lines(section)
        if end < 0:
            if len(section) >= TRAILER_BYTES_MAX:
                raise BodyMalformed("trailers that are too large")
            return 0
        self.trailers = _parse_trailers(section)
        self._expected = _NOTHING
        return end + 4 - at


# There are usually few different sizes. An attacker's lines are limited to the length of a size.
_size_of = lru_cache(1024)(chunk_size_of)


def _take_whole_chunks(data: bytes, at: int, pieces: list[bytes]) -> int:
    """Read the chunks that begin there, up to one that is not complete or not plain.

    The result is the same as with the steps of `ChunkedDecoder.feed`, in a fifth of the time.

    Returns:
        The index of the first octet that was not read.
    """
    end, find = len(data), data.find
    is_small = True  # the next chunk, perhaps
    while at < end:
        if is_small and (run := _small_chunks(data, at)) is not None:
            pieces += _data_of_small_chunks(data, at, run.end())
            at = run.end()
            is_small = False
            continue
        line_end = find(b"\r\n", at, at + CHUNK_SIZE_BYTES_MAX + 2)
        if line_end < 0:
            return at
        line = data[at:line_end]
        size = _size_of(line)
        if not size or not line.isalnum():
            return at
        after = line_end + 2 + size
        if data[after : after + 2] != b"\r\n":
            return at
        pieces.append(data[line_end + 2 : after])
        at = after + 2
        is_small = size < SMALL_CHUNK_BYTES
    return at


def _check_trailer_lines(lines: bytes) -> None:
    if fault := line_fault(lines):
        raise BodyMalformed(f"{fault} in the trailers")


def _parse_trailers(section: bytes) -> list[tuple[bytes, bytes]]:
    if section.count(b"\r\n") > TRAILER_FIELDS_MAX:
        raise BodyMalformed("too many trailer fields")
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
    """Return data as one chunk; b"" for b"", because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the end of a chunked body with its trailer fields (RFC 9112 section 7.1.2)."""
    if not trailers:
        return LAST_CHUNK
    lines = b"".join([b"%b: %b\r\n" % field for field in trailers])
    return b"0\r\n" + lines + b"\r\n"
