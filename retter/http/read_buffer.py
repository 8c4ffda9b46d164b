"""Octets that have come on a connection before they can be used: part of a head, or whole requests.

A peer may send them one at a time, or very many small requests at once. So what has been looked at
is not looked at again with each octet that follows, and what is left is not copied for each request
that is taken.
"""

from collections.abc import Callable

from retter.base.errors import BadRequest

_END_OF_HEAD = b"\r\n\r\n"
# Of what has been checked before, so much is looked at again: the longest fault has three octets.
_OVERLAP = 2
_CR, _LF = b"\r\n"


class ReadBuffer:
    """Collects octets, and knows whether a head has ended in them.

    Args:
        data: What has come first.
        begin: Where in it that begins; what stands before has been used.
        checked: Its lines have been looked at.
    """

    __slots__ = ("_begin", "_checked", "_heads", "_octets", "_searched")

    def __init__(self, data: bytes, begin: int = 0, *, checked: bool = False) -> None:
        self._octets: bytes | bytearray = data  # a bytearray as soon as more has come
        self._begin = begin
        self._searched = begin  # up to here each end of a head has been counted
        self._heads = 0  # as many as have been
        self._checked = len(data) if checked else begin

    def __len__(self) -> int:
        return len(self._octets) - self._begin

    def add(self, data: bytes) -> None:
        """Take more."""
        octets = self._octets
        if isinstance(octets, bytes):
            begin, self._begin = self._begin, 0
            self._searched -= begin
            self._checked -= begin
            octets = self._octets = bytearray(memoryview(octets)[begin:])
        octets += data

    def has_heads(self, least: int = 1) -> bool:
        """Return whether so many heads end in it."""
        while self._heads < least:
            found = self._octets.find(_END_OF_HEAD, self._searched)
            if found < 0:
                self._searched = max(self._searched, len(self._octets) - len(_END_OF_HEAD) + 1)
                return False
            self._heads += 1
            self._searched = found + len(_END_OF_HEAD)
        return True

    @property
    def begins_with_line_end(self) -> bool:
        """Whether no head has begun yet, or none that can be told from an empty line."""
        return len(self) > 0 and self._octets[self._begin] == _CR

    def check(self, check: Callable[[bytes], None]) -> None:
        """Let `check` look for faulty lines in what has come since it did so last.

        Whatever it raises comes out here. A fault is found in any three octets in a row.
        """
        octets, start = self._octets, max(self._begin, self._checked - _OVERLAP)
        if start > self._begin and octets[start] == _LF:
            start -= 1  # a line feed is judged by what stands before it
        check(bytes(octets[start:]))
        self._checked = len(octets)

    def taken(self) -> tuple[bytes, int]:
        """Return bytes, and where in them that begins which has not been used."""
        octets = self._octets
        return (octets if isinstance(octets, bytes) else bytes(octets)), self._begin


def end_of_head(
    buffer: bytes, bytes_max: int, check: Callable[[bytes], None], begin: int = 0
) -> int:
    """Return where the head that begins there in the buffer ends, or 0 while it is incomplete.

    A fault that no further bytes can mend is reported at once, so that a peer who ends lines with
    a bare LF gets its 400 instead of waiting for a head that never ends.

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
