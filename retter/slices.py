"""A large stored body on its way to a client, in slices of the store's own bytes.

A transport that is given a whole body keeps what the client has not taken: asyncio's as a copy
(before Python 3.12), that of TLS encrypted. Many slow readers of one page would hold as many copies
of it. So it gets the body slice by slice, the next one when the client has taken the last; until
then the rest is a view of what the store has.
"""

import asyncio
from typing import Any, Final

# The first slice is for a client that may be slow; each that is taken at once doubles the next. The
# last size costs no more than one write of all (measured at 1 MiB: 64 KiB take half as long again).
SLICE_BYTES_MIN: Final = 64 * 1024
SLICE_BYTES_MAX: Final = 256 * 1024


class SlicedBody:
    """Stands in a connection for its transport until the body has been written.

    What is written or ended meanwhile comes after the body.

    Args:
        transport: The connection's own.
        head: Written with the first slice.
        body: The whole body.
    """

    __slots__ = ("_at", "_body", "_closes", "_ends", "_more", "_size", "transport")

    def __init__(self, transport: asyncio.Transport, body: bytes | memoryview) -> None:
        self.transport = transport
        self._body = memoryview(body)
        self._at = 0
        self._size = SLICE_BYTES_MIN
        self._more: list[bytes] = []
        self._ends = self._closes = False

    def begin(self, head: bytes) -> None:
        """Write the head and the first slice."""
        self.transport.writelines((head, self._next()))

    def write_on(self) -> bool:
        """Write the next slice; whether it was one. Else all has been written."""
        if self._at < len(self._body):
            self.transport.write(self._next())
            return True
        for data in self._more:
            self.transport.write(data)
        self._more.clear()
        if self._ends:
            self.transport.write_eof()
        if self._closes:
            self.transport.close()
        return False

    def _next(self) -> memoryview:
        part = self._body[self._at : self._at + self._size]
        self._at += self._size
        self._size = min(2 * self._size, SLICE_BYTES_MAX)
        return part

    # -- asyncio.Transport, as far as a client connection needs it

    def write(self, data: bytes) -> None:
        self._more.append(data)

    def writelines(self, list_of_data: tuple[bytes, ...]) -> None:
        self._more.extend(list_of_data)

    def can_write_eof(self) -> bool:
        return self.transport.can_write_eof()

    def write_eof(self) -> None:
        self._ends = True

    def close(self) -> None:
        self._closes = True

    def abort(self) -> None:
        self.transport.abort()

    def is_closing(self) -> bool:
        return self._closes or self.transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return what is written and not taken; it moves with each slice."""
        return self.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()
