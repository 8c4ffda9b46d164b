"""One connection to the application: it reads bytes and passes on heads and pieces of bodies.

A connection carries one exchange at a time. It knows message framing, but not the store, the
circuit breaker or retries. It passes responses to a `ResponseSink`. A connection whose response
ended cleanly is returned to the pool *before* the last piece is passed on, so that a pipelined next
request finds it there.
"""

import asyncio
import contextlib
import os
import select
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

from retter.base.errors import BadRequest, UpstreamError, UpstreamMalformed, UpstreamReset
from retter.http.binding_schemes import names_binding_scheme
from retter.http.chunked import BodyMalformed, ChunkedDecoder
from retter.http.framing_rules import check_response_head
from retter.http.memo import HeadMemo
from retter.http.message import Framing, ResponseHead
from retter.http.read_buffer import ReadBuffer, end_of_head
from retter.http.response_parser import ResponseParser, dated
from retter.net.transports import close_sending
from retter.net.write_batch import WriteBatch
from retter.proxy.idle_connections import IdleConnections

Trailers = list[tuple[bytes, bytes]]

# Maximum number of 1xx responses before the final one. A client asks for one 100 at most; 103 may
# come a few times. An application that sends more is broken, and each 1xx costs work here.
INFORMATIONAL_MAX: Final = 16

# Read from a connection that was reset: 1 MiB at most, more than a refusal has, in less than 1 ms.
LAST_READ_BYTES: Final = 64 * 1024
LAST_READS_MAX: Final = 16


def _declares_body(head: ResponseHead) -> bool:
    """Return whether the fields declare a body, even if this response must not have one."""
    return head.framing in (Framing.CHUNKED, Framing.CLOSE) or bool(
        head.first(b"content-length") or head.first(b"transfer-encoding")
    )


class Owner(Protocol):
    """The part of the pool that an UpstreamConnection uses."""

    @property
    def ready(self) -> "IdleConnections[UpstreamConnection]": ...
    def rest(self, connection: "UpstreamConnection", now: float, *, if_needed: bool) -> None: ...
    def flush(self, connection: "UpstreamConnection") -> None: ...
    def forget(self, connection: "UpstreamConnection") -> None: ...


class ResponseSink(Protocol):
    """The part of an exchange that an UpstreamConnection uses until the head has arrived."""

    def response_whole(self, head: ResponseHead, body: bytes, now: float) -> None: ...
    def response_informational(self, head: ResponseHead) -> None: ...
    def response_head(
        self, head: ResponseHead, body: bytes, complete: bool, trailers: Trailers, now: float
    ) -> None: ...
    def upgraded(self, head: ResponseHead, data: bytes, now: float) -> None: ...
    def upstream_failed(self, error: UpstreamError, now: float) -> None: ...
    def upstream_blocked(self) -> None: ...
    def upstream_writable(self) -> None: ...
    def broken(self, now: float) -> None: ...


class BodySink(Protocol):
    """The receiver of the response after its head (`hand_over`)."""

    def response_data(
        self, data: bytes, complete: bool, trailers: Trailers, now: float
    ) -> None: ...
    def upstream_failed(self, error: UpstreamError, now: float) -> None: ...
    def upstream_blocked(self) -> None: ...
    def upstream_writable(self) -> None: ...
    def broken(self, now: float) -> None: ...


class TunnelSink(Protocol):
    """The part of a tunnel that its UpstreamConnection uses."""

    def upstream_data(self, data: bytes, now: float) -> None: ...
    def upstream_eof(self, now: float) -> None: ...
    def upstream_failed(self, error: UpstreamError, now: float) -> None: ...
    def upstream_blocked(self) -> None: ...
    def upstream_writable(self) -> None: ...


class UpstreamConnection:
    """A client-side HTTP/1.1 connection, reusable while its responses end cleanly.

    It implements asyncio.Protocol without deriving from it, like DownstreamConnection.

    Args:
        http_date: Returns the current time as a Date field value, for responses that have no Date.
    """

    __slots__ = (
        "_batch",
        "_bodiless",
        "_buffer",
        "_decoder",
        "_framing",
        "_head_bytes_max",
        "_http_date",
        "_informational",
        "_keep_alive",
        "_left",
        "_left_alone",
        "_loop",
        "_memo",
        "_method",
        "_parser",
        "_paused",
        "_poll",
        "_pool",
        "_ready",
        "_sink",
        "_transport",
        "_tunnel",
        "_waiting",
        "answered",
        "bound",
        "closed",
        "idle_since",
        "made_at",
        "request_complete",
        "reused",
    )

    def __init__(
        self,
        pool: Owner,
        loop: asyncio.AbstractEventLoop,
        memo: HeadMemo[ResponseHead],
        parser: ResponseParser,
        head_bytes_max: int,
        http_date: Callable[[], str],
        batch: WriteBatch,
    ) -> None:
        self._parser = parser
        self._batch = batch
        self._waiting = b""  # a request that is not written yet
        self._http_date = http_date
        self._pool = pool
        self._ready = pool.ready
        self._loop = loop
        self._memo = memo
        self._head_bytes_max = head_bytes_max
        self._transport: asyncio.Transport | None = None
        self._sink: ResponseSink | None = None
        self._buffer: ReadBuffer | None = None  # part of a head
        self._framing: Framing | None = None  # None: a head is awaited
        self._left = 0  # octets of a LENGTH body not yet received
        self._decoder: ChunkedDecoder | None = None
        self._keep_alive = False
        self._informational = 0
        self._method = b""
        self._tunnel: TunnelSink | None = None  # receives the bytes instead of the sink
        self._paused = False
        self._poll: select.poll | None = None  # tells whether bytes wait in the socket
        self._bodiless = False  # has carried a response without a body
        self._left_alone = False  # bound, and its client has left
        self.bound = False  # reserved for one client: never pooled
        self.closed = False
        self.reused = False  # has carried an exchange before
        self.answered = False  # bytes of the present response have arrived
        self.request_complete = False  # set by the exchange when it sends its last byte
        self.idle_since = 0.0  # monotonic seconds
        self.made_at = 0.0  # monotonic seconds

    # -- called by the exchange -------------------------------------------------------------

    def send(self, sink: ResponseSink, method: bytes, data: bytes, *, waits: bool = False) -> None:
        """Begin an exchange: write the request's head and the part of its body that is there.

        Args:
            waits: The request is whole, and may wait for those of others (write_batch.py). The
                application may close the connection meanwhile, so this is for a request that may
                be sent again (RFC 9110 section 9.2.2). Any other is written as long as the
                connection is known to be open. So is the first one of a connection: an application
                that is full may answer before it has read it.
        """
        assert self._sink is None and self._transport is not None, "one exchange at a time"
        self._sink = sink
        self._method = method
        self._informational = 0
        self.answered = False
        if waits and self.reused and self._batch.gathers:
            self._waiting = data
            self._batch.add(self)
        else:
            self._transport.write(data)

    def write_waiting(self) -> None:
        """Write the request that waits, if there is one."""
        data, self._waiting = self._waiting, b""
        if data and self._transport is not None and not self.closed:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether the connection is lost or is being closed."""
        return self._transport is None or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Write more bytes of the request's body or of the tunnel."""
        self.write_waiting()
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    def write_eof(self) -> None:
        """Close the sending direction of a tunnel; over TLS, which cannot, close both."""
        if self._transport is not None and not self.closed:
            if self._transport.can_write_eof():
                close_sending(self._transport)
            else:
                self._transport.close()

    def pause_reading(self) -> None:
        """Stop reading until resume_reading: the client does not keep up."""
        # Do not pause without an exchange: if the last piece of a response blocks its client, the
        # connection is already in the pool, where it must read.
        if (self._sink is None and self._tunnel is None) or self._paused or self.closed:
            return
        if self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo pause_reading."""
        if self._paused and self._transport is not None and not self.closed:
            self._paused = False
            self._transport.resume_reading()

    def has_unread(self) -> bool:
        """Return whether the socket has unread bytes or EOF."""
        poll = self._poll
        if poll is None:
            assert self._transport is not None
            sock = self._transport.get_extra_info("socket")
            if sock is None:
                return False
            # Kept, because each form asks: 0.5 of 1.0 us.
            poll = self._poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def hand_over(self, sink: BodySink) -> None:
        """Pass the rest of the response to another sink; called while the head is processed."""
        if self._sink is not None:  # else the response is complete
            self._sink = cast("ResponseSink", sink)  # no further head follows

    def begin_tunnel(self, tunnel: TunnelSink) -> None:
        """Pass all bytes received from now on to the tunnel."""
        self._sink = None
        self._tunnel = tunnel

    def end_tunnel(self) -> None:
        """Close; the client's last bytes are still delivered."""
        self._tunnel = None
        if not self.closed and self._transport is not None:
            self.closed = True
            self._pool.forget(self)
            if self._transport.get_write_buffer_size():
                self._pool.flush(self)
            self._transport.close()

    @property
    def ready(self) -> bool:
        """Whether the connection is open and has no exchange."""
        return not self.closed and self._sink is None

    def unbind(self) -> None:
        """Close after the present exchange: the bound client has left or has another connection."""
        self._left_alone = True
        if self._sink is None:
            self.close()

    def discard(self) -> None:
        """Abort the exchange before its end: the connection cannot be reused."""
        self._sink = None
        self._tunnel = None
        self.close()

    def close(self) -> None:
        """Close at once, without notice to the exchange."""
        if not self.closed:
            self.closed = True
            self._pool.forget(self)
            if self._transport is not None:
                self._transport.abort()

    def abort(self) -> None:
        """Close at once and drop the bytes that are not yet delivered."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self.made_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            if self._tunnel is not None:
                self._tunnel.upstream_data(data, self._loop.time())
            else:
                self.close()  # bytes without a request: later bytes cannot be trusted
            return
        now = self._loop.time()
        if self._waiting:
            # Nor are these its response: it has not been sent. It may be, on another connection.
            self._fail(UpstreamReset("bytes before the request"), now)
            return
        self.answered = True
        try:
            if self._framing is None and self._buffer is None:
                memo = self._memo
                last = memo.last
                if last and data.startswith(last):
                    # A head ends with its first empty line, so this is all of it: its end is not
                    # searched for, and it is neither cut out nor hashed.
                    head, end = memo.last_value, len(last)
                else:
                    end = data.find(b"\r\n\r\n") + 4
                    last = data[:end]
                    head = memo.young.get(last)
                    if head is not None:
                        memo.last, memo.last_value = last, head
                if (
                    head is not None
                    and head.plain
                    and head.content_length == len(data) - end
                    and self._method != b"HEAD"
                ):
                    # A known head and the whole body: a short form of `_receive_head`, and for the
                    # usual connection of `_end_exchange`.
                    if (
                        head.keep_alive
                        and self.request_complete
                        and not (self.closed or self.bound or self._paused)
                    ):
                        self._sink = None
                        self.reused = True
                        ready = self._ready
                        if ready.keeps:  # its `put`, without the call
                            self.idle_since = now
                            ready.stack.append(self)
                        else:
                            self.close()
                    else:
                        self._keep_alive = head.keep_alive
                        self._end_exchange(now)
                    sink.response_whole(head, data[end:], now)
                    return
            if self._framing is None:
                self._receive_head(sink, data, now)
            else:
                self._receive_body(cast("BodySink", sink), data, now)
        except UpstreamError as error:
            self._fail(error, now)
        except Exception:
            # An internal error, or a lack of memory. The event loop reports it and closes this
            # connection. It must not have the exchange any more.
            if self._sink is sink:
                self._sink = None
            sink.broken(now)
            raise

    def eof_received(self) -> bool:
        if self._tunnel is not None:
            self._tunnel.upstream_eof(self._loop.time())
            # The other direction may stay open, but not over TLS.
            return self._transport is not None and self._transport.can_write_eof()
        if self._sink is None:
            self.close()  # now, not in connection_lost: no exchange may get it meanwhile
        elif self._framing is Framing.CLOSE and self._end_is_authentic():
            sink, now = cast("BodySink", self._sink), self._loop.time()
            try:
                self._finish(sink, b"", [], now)
            except Exception:  # as in data_received
                sink.broken(now)
                raise
        return False

    def _end_is_authentic(self) -> bool:
        """Return whether the application itself has ended the connection.

        Over TLS, an EOF without close_notify may come from an attacker on the path (RFC 9112
        section 9.8). asyncio calls `eof_received` in both cases, uvloop only after a close_notify.
        """
        assert self._transport is not None
        secured: ssl.SSLObject | None = self._transport.get_extra_info("ssl_object")
        if secured is None:
            return True
        try:
            return not secured.read(1)
        except ssl.SSLZeroReturnError:
            return True
        except ssl.SSLError:  # SSLWantReadError: no close_notify has come
            return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.forget(self)
        if exc is not None and self._sink is not None and not self._waiting:
            self._read_what_is_left()
        self._waiting = b""
        sink, self._sink = self._sink, None
        tunnel, self._tunnel = self._tunnel, None
        now = self._loop.time()
        if tunnel is not None:
            tunnel.upstream_failed(UpstreamReset("closed"), now)
        if sink is None:
            return
        plain = self._transport is None or self._transport.can_write_eof()
        # Over TLS, only eof_received reports a valid end.
        try:
            if self._framing is Framing.CLOSE and exc is None and plain:
                cast("BodySink", sink).response_data(b"", True, [], now)
            else:
                sink.upstream_failed(UpstreamReset("closed before the answer was complete"), now)
        except Exception:  # as in data_received
            sink.broken(now)
            raise

    def _read_what_is_left(self) -> None:
        """Read what the application sent before it reset the connection.

        An application that refuses an upload answers, and closes while more of it arrives. A write
        then fails, and the event loop reports that at once, before it reads the answer. It closes
        the socket after this call. Over TLS, nothing that is left can be read.
        """
        transport = self._transport
        if transport is None or not transport.can_write_eof():
            return
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        with contextlib.suppress(OSError):
            for _ in range(LAST_READS_MAX):
                data = os.read(sock.fileno(), LAST_READ_BYTES)
                if not data or self._sink is None:
                    return
                self.data_received(data)

    def pause_writing(self) -> None:
        if self._sink is not None:
            self._sink.upstream_blocked()
        elif self._tunnel is not None:
            self._tunnel.upstream_blocked()

    def resume_writing(self) -> None:
        if self._sink is not None:
            self._sink.upstream_writable()
        elif self._tunnel is not None:
            self._tunnel.upstream_writable()

    # -- the response -------------------------------------------------------------------------

    def _receive_head(self, sink: ResponseSink, data: bytes, now: float) -> None:
        if self._buffer is not None:
            data = self._with_buffer(self._buffer, data)
            if not data:
                return
        end = self._end_of_head(data)
        if not end:
            self._buffer = ReadBuffer(data, checked=True)
            return
        head_bytes = data[:end]
        head = self._memo.get(head_bytes)
        if head is None:
            head = self._parser.parse(head_bytes)
            self._memo.offer(head_bytes, head)
        if head.status < 200:
            self._receive_informational(sink, head, data[end:], now)
            return
        if head.undated:
            head = dated(head, self._http_date().encode())
        self._keep_alive = head.keep_alive
        if head.status == 401 and names_binding_scheme(head.fields, b"www-authenticate"):
            self.bound = True
        framing = head.framing if self._method != b"HEAD" else Framing.NONE
        extra = len(data) - end
        if framing is Framing.LENGTH and extra < head.content_length:
            self._framing = framing
            self._left = head.content_length - extra
            sink.response_head(head, data[end:], False, [], now)
        elif framing is Framing.LENGTH or framing is Framing.NONE:
            length = head.content_length if framing is Framing.LENGTH else 0
            if extra > length:
                self._keep_alive = False  # bytes after the end: never reuse
            self._end_exchange(now, head if framing is Framing.NONE else None)
            sink.response_head(head, data[end : end + length], True, [], now)
        elif framing is Framing.CHUNKED:
            self._framing = framing
            self._decoder = ChunkedDecoder(padded=True)
            self._receive_chunked_head(sink, head, data[end:], now)
        else:
            self._framing = framing
            sink.response_head(head, data[end:], False, [], now)

    def _receive_chunked_head(
        self, sink: ResponseSink, head: ResponseHead, data: bytes, now: float
    ) -> None:
        body = self._decode(data)
        decoder = self._decoder
        assert decoder is not None
        if decoder.complete:
            self._end_exchange(now)
        sink.response_head(head, body, decoder.complete, decoder.trailers, now)

    def _with_buffer(self, buffer: ReadBuffer, data: bytes) -> bytes:
        """Return all received bytes if they hold a head or exceed the limit; else b""."""
        buffer.add(data)
        if buffer.has_heads() or len(buffer) > self._head_bytes_max:
            self._buffer = None
            return buffer.taken()[0]
        buffer.check(check_response_head)
        return b""

    def _end_of_head(self, data: bytes) -> int:
        try:
            return end_of_head(data, self._head_bytes_max, check_response_head)
        except BadRequest as error:
            raise UpstreamMalformed("the response head is too large") from error

    def _receive_informational(
        self, sink: ResponseSink, head: ResponseHead, rest: bytes, now: float
    ) -> None:
        self._informational += 1
        if self._informational > INFORMATIONAL_MAX:
            raise UpstreamMalformed("too many 1xx answers")
        if head.status == 101:
            sink.upgraded(head, rest, now)
            return
        sink.response_informational(head)
        if rest and self._sink is sink:
            self._receive_head(sink, rest, now)

    def _receive_body(self, sink: BodySink, data: bytes, now: float) -> None:
        if self._framing is Framing.LENGTH:
            left = self._left - len(data)
            if left > 0:
                self._left = left
                sink.response_data(data, False, [], now)
                return
            if left < 0:
                self._keep_alive = False
                data = data[: self._left]
            self._finish(sink, data, [], now)
        elif self._framing is Framing.CHUNKED:
            self._receive_chunked(sink, data, now)
        else:
            sink.response_data(data, False, [], now)

    def _receive_chunked(self, sink: BodySink, data: bytes, now: float) -> None:
        body = self._decode(data)
        decoder = self._decoder
        assert decoder is not None
        if decoder.complete:
            self._finish(sink, body, decoder.trailers, now)
        elif body:
            sink.response_data(body, False, [], now)

    def _decode(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        try:
            body = decoder.feed(data) if data else b""
        except BodyMalformed as error:
            raise UpstreamMalformed(str(error)) from error
        if decoder.complete and decoder.rest():
            self._keep_alive = False  # bytes after the end: never reuse
        return body

    def _finish(self, sink: BodySink, data: bytes, trailers: Trailers, now: float) -> None:
        self._end_exchange(now)
        sink.response_data(data, True, trailers, now)

    def _end_exchange(self, now: float, bodiless: ResponseHead | None = None) -> None:
        """The response is complete: return the connection to the pool, or close it.

        `bodiless` is the head of a response that must not have a body. A broken application sends
        a body nevertheless, so the connection is not reused at once.
        """
        self._sink = None
        self._framing = None
        self._decoder = None
        if self._keep_alive and self.request_complete and not (self.closed or self._left_alone):
            if self._paused:
                self.resume_reading()  # a pooled connection must read
            self.reused = True
            if self.bound:
                self.idle_since = now
            elif bodiless is None:
                self._ready.put(self, now)
            else:
                self._bodiless = True
                self._pool.rest(self, now, if_needed=not _declares_body(bodiless))
        else:
            self.close()

    def _fail(self, error: UpstreamError, now: float) -> None:
        sink, self._sink = self._sink, None
        self.close()
        if self._bodiless and self._framing is None and not self._informational:
            # These bytes are probably the body of the response before this one. The response to
            # the present request will never be read, so the request is retried where allowed.
            self.answered = False
            error = UpstreamReset("bytes of the answer before this one")
        if sink is not None:
            try:
                sink.upstream_failed(error, now)
            except Exception:  # as in data_received
                sink.broken(now)
                raise
