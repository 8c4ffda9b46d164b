"""The link between a process and its successor: checked frames over a pair of sockets.

Both ends serve clients meanwhile, so sending never blocks: bytes that the other end does not
receive at once wait in a buffer.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Final

from retter.base.frames import PREAMBLE, BadFrame, FrameReader, FrameWriter, after_preamble

READ_BYTES: Final = 256 * 1024

# Bytes that the other end has not received yet. Above this number, stored responses are left out.
# The other process then has older responses, but no wrong ones.
WAITING_BYTES_MAX: Final = 8 * 1024 * 1024


class Kind(IntEnum):
    """The kind of a frame."""

    SECRETS = 1
    RULES = 2  # the rules used for storing, and the application's address
    PIECE = 3  # of a body
    SLOT = 4
    REMOVALS = 5
    SESSIONS = 6
    END = 7  # the end of the snapshot: its number of frames
    WANT = 8  # the successor is ready for the snapshot
    SEALED = 9  # the snapshot is complete: its length
    LOADED = 10  # the successor has read it
    DEMAND = 11
    SPENT = 12
    CIRCUIT = 13
    REPORT = 14


class StateLink:
    """One end of the link.

    Attributes:
        on_frame: Called with each frame; a ValueError or BadFrame from it ends the link.
        on_end: Called once, with the reason why the link has ended; "" if the other end closed it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer = FrameWriter()
        self._reader = FrameReader()
        self._begun = False  # the other end's preamble has been read
        self._queue: deque[tuple[int, bytes]] = deque()  # frames not yet passed to on_frame
        self._takes = False
        self._head = b""
        self._out = bytearray(PREAMBLE)
        self.on_frame: Callable[[int, bytes], None] = lambda kind, payload: None
        self.on_end: Callable[[str], None] = lambda reason: None

    @property
    def is_full(self) -> bool:
        """Whether too many bytes wait because the other end does not keep up."""
        return len(self._out) > WAITING_BYTES_MAX

    @property
    def is_open(self) -> bool:
        """Whether this end is still open."""
        return self._sock.fileno() >= 0

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame."""
        if not self.is_open:
            return
        waits = bool(self._out)
        self._out += self._writer.frame(kind, payload)
        if self._loop is not None and not waits:
            self._write()

    def read_first(self, timeout_s: float) -> tuple[int, bytes]:
        """Wait for the first frame, before there is an event loop.

        Raises:
            OSError: The frame does not come in time, or the other end is closed.
            BadFrame: The frame does not verify.
        """
        self._sock.settimeout(timeout_s)
        while not self._queue:
            data = self._sock.recv(READ_BYTES)
            if not data:
                raise OSError("the other process has closed it")
            self._queue += self._frames(data)
        return self._queue.popleft()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Read and write on the event loop from now on."""
        self._loop = loop
        self._sock.setblocking(False)
        self.read_on()
        self._write()

    def stop_reading(self) -> None:
        """Stop reading: later bytes stay in the socket, and read frames in the queue."""
        self._takes = False
        if self._loop is not None and self.is_open:
            self._loop.remove_reader(self._sock)

    def read_on(self) -> None:
        """Pass on the queued frames, and resume reading."""
        self._takes = True
        self._hand_on()
        if self._loop is not None and self.is_open and self._takes:
            self._loop.add_reader(self._sock, self._on_readable)

    def flush(self, timeout_s: float) -> None:
        """Block until all bytes are sent, or until the time limit."""
        if self.is_open and self._out:
            self._sock.settimeout(timeout_s)
            with suppress(OSError):
                self._sock.sendall(self._out)
            self._out.clear()

    def close(self) -> None:
        """Close this end; `on_end` is not called."""
        if not self.is_open:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
        self._sock.close()

    def _end(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self.on_end(reason)

    def _frames(self, data: bytes) -> list[tuple[int, bytes]]:
        if not self._begun:
            self._head += data
            if len(self._head) < len(PREAMBLE):
                return []
            data = self._head[after_preamble(self._head) :]
            self._begun = True
        return self._reader.feed(data)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(str(error.strerror))
            return
        if not data:
            self._end("")
            return
        try:
            self._queue += self._frames(data)
        except BadFrame as error:
            self._end(str(error))
            return
        self._hand_on()

    def _hand_on(self) -> None:
        while self._takes and self._queue and self.is_open:
            kind, payload = self._queue.popleft()
            try:
                self.on_frame(kind, payload)
            except (BadFrame, ValueError) as error:
                self._end(str(error))

    def _write(self) -> None:
        loop = self._loop
        if loop is None or not self.is_open:
            return
        sent = 0
        try:
            if self._out:
                with memoryview(self._out) as view:
                    sent = self._sock.send(view[:READ_BYTES])
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._out.clear()  # the next read reports the error
            loop.remove_writer(self._sock)
            return
        del self._out[:sent]
        if self._out:
            loop.add_writer(self._sock, self._write)
        else:
            with suppress(OSError, ValueError):
                loop.remove_writer(self._sock)
