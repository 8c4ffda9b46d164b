"""A large stored body that is written in slices, so that a slow client does not hold a copy.

A transport that gets a whole body may copy the octets that the client has not read: that of asyncio
does before Python 3.12, and TLS encrypts them all. So many slow readers of one page would hold as
many copies. Such a transport gets the body slice by slice, each one when the client has read the
one before. Others (uvloop's) keep a reference to the stored bytes, and get everything at once.
"""

import asyncio
import sys
from typing import Any, Final

from retter.net.transports import close_sending

# As much as any connection may have unsent (`--write-buffer-max`). For 1 MiB, they take one and a
# half times as long as one write. Slices of 256 KiB would cost nothing, but hold more memory.
SLICE_BYTES: Final = 64 * 1024

ASYNCIO_COPIES = sys.version_info < (3, 12)


def copies(transport: asyncio.WriteTransport) -> bool:
    """Return whether a transport copies octets that its peer has not read."""
    # TLS has no half-close. uvloop's transports are not subclasses of asyncio's.
    return not transport.can_write_eof() or (
        ASYNCIO_COPIES and isinstance(transport, asyncio.Transport)
    )


class SlicedBody:
    """Replaces the transport of a connection until the body has been written.

    Later writes, and a close, take effect after the body.

    Args:
        transport: The connection's own transport.
        head: Written with the first slice.
        body: The whole body.
    """

    __slots__ = ("_at", "_body", "_closes", "_ends", "_head", "_more", "transport")

    def __init__(self, transport: asyncio.Transport, head: bytes, body: bytes | memoryview) -> None:
        self.transport = transport
        self._head = head
        self._body = memoryview(body)
        self._at = 0
        self._more: list[bytes] = []
        self._ends = self._closes = False

    def write_on(self) -> bool:
        """Write the next slice; False if all have been written."""
        at = self._at
        if at >= len(self._body):
            return False
        self._at += SLICE_BYTES
        part = self._body[at : self._at]
        if at:
            self.transport.write(part)
        else:
            self.transport.writelines((self._head, part))
        return True

    def finish(self) -> None:
        """Do what was postponed until after the body."""
        for data in self._more:
            self.transport.write(data)
        if self._ends:
            close_sending(self.transport)
        if self._closes:
            self.transport.close()

    # -- asyncio.Transport, as far as a client connection needs it

    def write(self, data: bytes) -> None:
        """Write this after the body."""
        self._more.append(data)

    def can_write_eof(self) -> bool:
        """Whether one direction can be closed alone."""
        return self.transport.can_write_eof()

    def write_eof(self) -> None:
        """Close our direction after the body."""
        self._ends = True

    def close(self) -> None:
        """Close after the body."""
        self._closes = True

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closes or self.transport.is_closing()

    def get_write_buffer_size(self) -> int:
        """Return the written octets that the client has not read."""
        return self.transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the transport knows."""
        return self.transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop reading."""
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self.transport.resume_reading()
