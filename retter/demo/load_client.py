"""One client connection of the load generator: one request at a time.

It reads only the status, X-Retter, X-Gen and the framing, to find the end of a response (RFC 9112
section 6.3). It trusts the server: it measures servers of its user, at a few microseconds for a
response.
"""

import asyncio
import re
from typing import Final, Protocol, cast

HEAD_BYTES_MAX: Final = 64 * 1024
_FIELDS: Final = re.compile(
    rb"\r\n(content-length|transfer-encoding|connection|x-retter|x-gen):[ \t]*([^\r\n]*)",
    re.IGNORECASE,
)
_UNTIL_CLOSE: Final = -1
_CHUNKED: Final = -2


class Shot:
    """One request, to be sent at `intended` (monotonic seconds), and its result."""

    __slots__ = ("connection", "done", "error", "intended", "made_ms", "post", "retried",
                 "sent", "source", "status", "target", "wire")  # fmt: skip

    def __init__(self, intended: float, target: int, post: bool, wire: bytes) -> None:
        self.intended = intended
        self.target = target
        self.post = post
        self.wire = wire
        self.sent = 0.0
        self.connection: ClientConnection | None = None
        self.done = False
        self.retried = False
        self.status = 0  # 0: no response
        self.source = ""  # X-Retter: backend, cache, or nothing
        self.made_ms = 0  # X-Gen: the wall clock at the application; 0: not sent
        self.error = ""


class Shooter(Protocol):
    """The callbacks of a connection to the generator."""

    def connection_free(self, connection: "ClientConnection") -> None:
        """The response is complete and the connection may be used again."""
        ...

    def connection_over(self, connection: "ClientConnection", shot: Shot | None) -> None:
        """The connection has ended; `shot` has no response."""
        ...

    def answered(self, shot: Shot) -> None:
        """The response is complete."""
        ...


class ClientConnection(asyncio.Protocol):
    """A keep-alive connection with at most one request on it."""

    __slots__ = ("_buffer", "_in_body", "_keep", "_left", "_owner", "_read_any", "_transport",
                 "idle_since", "shot", "uses")  # fmt: skip

    def __init__(self, owner: Shooter) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._in_body = False
        self._left = 0  # octets of the body still to come, _UNTIL_CLOSE or _CHUNKED
        self._keep = True
        self._read_any = False
        self.shot: Shot | None = None
        self.uses = 0
        self.idle_since = 0.0

    def send(self, shot: Shot) -> None:
        """Send a request. `answered` is called with the response."""
        assert self._transport is not None and self.shot is None
        self.shot = shot
        shot.connection = self
        self.uses += 1
        self._read_any = False
        self._transport.write(shot.wire)

    def close(self) -> None:
        """Close the connection, as a browser does when its user leaves; report nothing more."""
        self.shot = None
        if self._transport is not None:
            self._transport.close()

    @property
    def reused_and_unanswered(self) -> bool:
        """Whether it had an earlier request, and no byte of this response has arrived."""
        return self.uses > 1 and not self._read_any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # A cast: the transports of uvloop are of no class of asyncio.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end. It is also the end of a response without a length."""
        shot, self._transport = self.shot, None
        if shot is not None and self._in_body and self._left == _UNTIL_CLOSE and exc is None:
            self.shot = None
            self._owner.answered(shot)
            shot = None
        self._owner.connection_over(self, shot)

    def data_received(self, data: bytes) -> None:
        """Read a piece of the response."""
        if self.shot is None:
            # The request was given up, or nobody asked: this connection cannot be used any more.
            self.close()
            return
        self._read_any = True
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        if not self._in_body:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                if len(data) > HEAD_BYTES_MAX:
                    self._broken()
                return
            try:
                self._read_head(data[: end + 2])
            except ValueError:
                self._broken()
                return
            data = data[end + 4 :]
            if not self._in_body:  # an interim answer (1xx)
                if data:
                    self.data_received(data)
                return
        self._read_body(data)

    def _read_head(self, head: bytes) -> None:
        shot = self.shot
        assert shot is not None
        status = int(head[9:12])
        if 100 <= status < 200:
            return
        shot.status = status
        self._in_body = True
        self._keep = head.startswith(b"HTTP/1.1")
        self._left = _UNTIL_CLOSE
        for name, value in _FIELDS.findall(head):
            match name.lower():
                case b"content-length":
                    self._left = int(value)
                case b"transfer-encoding":
                    self._left = _CHUNKED
                case b"x-gen":
                    shot.made_ms = int(value)
                case b"x-retter":
                    shot.source = value.decode("latin-1")
                case _:
                    self._keep = self._keep and value.lower() != b"close"
        if status in (204, 304):
            self._left = 0

    def _read_body(self, data: bytes) -> None:
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                self._broken()
            elif self._left == 0:
                self._complete()
        elif self._left == _CHUNKED:
            self._read_chunks(data)

    def _read_chunks(self, data: bytes) -> None:
        position = 0
        while (line_end := data.find(b"\r\n", position)) >= 0:
            try:
                size = int(data[position:line_end].partition(b";")[0], 16)
            except ValueError:
                self._broken()
                return
            if size == 0:
                # Trailers are not supported: without them, the message ends with one empty line.
                if data[line_end + 2 : line_end + 4] == b"\r\n":
                    self._complete()
                    return
                break
            if len(data) < line_end + size + 4:
                break
            position = line_end + size + 4
        self._buffer = data[position:]

    def _complete(self) -> None:
        shot = self.shot
        assert shot is not None
        self.shot = None
        self._in_body = False
        self._owner.answered(shot)
        if self._keep:
            self._owner.connection_free(self)
        else:
            self.close()

    def _broken(self) -> None:
        self._in_body = False  # so its end is not the end of a response
        if self._transport is not None:
            self._transport.abort()
