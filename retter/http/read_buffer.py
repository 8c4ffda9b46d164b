"""Received octets that are not used yet: a part of a head, or several requests.

A peer may send one octet at a time, or very many small requests at once. So octets that have been
searched are not searched again, and the rest is not copied for each request that is taken out.
"""

from collections.abc import Callable
from typing import Final

from retter.base.errors import BadRequest

_END_OF_HEAD: Final = b"\r\n\r\n"
# This many checked octets are checked again with the next ones: the longest fault has three octets.
_OVERLAP: Final = 2
_CR, _LF = b"\r\n"


class ReadBuffer:
    """Collects octets, and knows whether they contain the end of a head.

    Args:
        data: The first octets.
        begin: The index of the first unused octet in them.
        checked: Their lines have been checked.
    """

    __slots__ = ("_begin", "_checked", "_heads", "_octets", "_searched")

    def __init__(self, data: bytes, begin: int = 0, *, checked: bool = False) -> None:
        self._octets: bytes | bytearray = data  # a bytearray as soon as more octets arrive
        self._begin = begin
        self._searched = begin  # ends of heads have been counted up to here
        self._heads = 0  # the number of those ends
        self._checked = len(data) if checked else begin

    def __len__(self) -> int:
        return len(self._octets) - self._begin

    @property
    def memory_bytes(self) -> int:
        """The memory that it holds: the octets that were used already are freed with the rest."""
        return len(self._octets)

    def add(self, data: bytes) -> None:
        """Append octets."""
        octets = self._octets
        if isinstance(octets, bytes):
            begin, self._begin = self._begin, 0
            self._searched -= begin
            self._checked -= begin
            octets = self._octets = bytearray(memoryview(octets)[begin:])
        octets += data

    def has_heads(self, least: int = 1) -> bool:
        """Return whether the buffer contains the ends of this many heads."""
        while self._heads < least:
            end = self._octets.find(_END_OF_HEAD, self._searched)
            if end < 0:
                self._searched = max(self._searched, len(self._octets) - len(_END_OF_HEAD) + 1)
                return False
            self._heads += 1
            self._searched = end + len(_END_OF_HEAD)
        return True

    @property
    def begins_with_line_end(self) -> bool:
        """Whether no head has begun yet, only an empty line or a part of one."""
        return len(self) > 0 and self._octets[self._begin] == _CR

    def check(self, check: Callable[[bytes], None]) -> None:
        """Call `check` with the octets since its last call; it raises for faulty lines.

        A fault is at most three octets long, and is found wherever the octets were split.
        """
        octets, start = self._octets, max(self._begin, self._checked - _OVERLAP)
        if start > self._begin and octets[start] == _LF:
            start -= 1  # whether a line feed is bare depends on the octet before it
        check(bytes(octets[start:]))
        self._checked = len(octets)

    def taken(self) -> tuple[bytes, int]:
        """Return the bytes, and the index of the first unused octet in them."""
        octets = self._octets
        return (octets if isinstance(octets, bytes) else bytes(octets)), self._begin


def end_of_head(
    buffer: bytes, bytes_max: int, check: Callable[[bytes], None], begin: int = 0
) -> int:
    """Return the end of the head that begins there in the buffer, or 0 while it is incomplete.

    A fault is reported at once. So a peer that ends lines with a bare LF gets a 400, instead of
    waiting for the end of a head that never ends.

    Raises:
        DownstreamError: (or whatever `check` raises) The lines are malformed.
        BadRequest: 431, more than bytes_max octets.
    """
    end = buffer.find(b"\r\n\r\n", begin) + 4
    if end > 3:
        if end - begin > bytes_max:
            raise BadRequest("the request head is too large", 431)
        return end
    if len(buffer) - begin > bytes_max:
        raise BadRequest("the request head is too large", 431)
    check(buffer[begin:])
    return 0
