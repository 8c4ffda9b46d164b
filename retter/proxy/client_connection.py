"""One client connection: bytes in, requests out, answers back in order.

It knows framing, pipelining and the client's time limits, and nothing of what becomes of a
request: `exchange.begin` decides that. One request is worked on at a time; what the client sends
meanwhile stays in the buffer, up to a limit, and then in the socket.
"""

import asyncio
import socket
import struct
from enum import Enum, auto
from typing import cast

from retter.base.errors import BadRequest, DownstreamError, RequestTimeout, RequestTooLarge
from retter.base.reason import Reason
from retter.breaker import Kind
from retter.http.forwarding import ForwardingFields, peer_name
from retter.http.framing_rules import check_request_head
from retter.http.memo import HeadMemo
from retter.http.message import Framing, RequestHead
from retter.http.read_buffer import ReadBuffer, end_of_head
from retter.net.transports import close_sending
from retter.proxy.backlog import Backlog
from retter.proxy.exchange import begin
from retter.proxy.half_close import PROBE, needs_probe
from retter.proxy.interfaces import Client, TunnelClientSide, Work
from retter.proxy.lingering import LINGER_SILENCE_S, Leftover
from retter.proxy.local_answers import unanswered
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.responses import Persistence
from retter.proxy.services import Services
from retter.proxy.slices import SlicedBody, copies

_FOREVER = float("inf")

# struct linger: on, 0 s. What is not sent yet is dropped, and the peer is told (tcp(7), SO_LINGER).
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)
_NO_BODY = Framing.NONE
_KEEP = Persistence.KEEP
_KEEP_HTTP10 = Persistence.KEEP_HTTP10

# Below this a head and a body are joined into one write; above it the copy costs more than the
# second buffer (measured: equal at 64 KiB, 32 us dearer at 1 MiB).
JOIN_BYTES_MAX = 64 * 1024

# What a client may send ahead of the answer it waits for, before we stop reading: pipelined heads,
# or a body that the application does not take yet.
READ_AHEAD_BYTES_MAX = 64 * 1024

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_CR = 13

# Empty lines before a request line that are forgiven (RFC 9112 section 2.2), in octets.
_LEADING_BYTES_MAX = 16


class Phase(Enum):
    """How far a client connection has come."""

    OPEN = auto()  # requests are received and answered
    BODY = auto()  # the present request's body is received
    DECODING = auto()  # a stored response is decoded for the present request
    TUNNEL = auto()  # bytes go both ways after a 101
    LINGERING = auto()  # after the last answer: what is still sent is dropped (lingering.py)
    CLOSED = auto()


# Looked up once, as in exchange.py.
_OPEN = Phase.OPEN
_BODY = Phase.BODY
_DECODING = Phase.DECODING
_LINGERING = Phase.LINGERING
_CLOSED = Phase.CLOSED


def request_body(services: Services, parsed: ParsedRequest, client: int) -> RequestBody:
    """Make the reader of a request's body; on `--stream-paths` it keeps and waits for none.

    Args:
        client: A number for who sends it; 0 if that is not known.
    """
    settings, log = services.settings, services.access_log
    return RequestBody(
        parsed,
        settings.request_body_bytes_max,
        settings.body_idle_timeout_s,
        0 if parsed.stream else settings.body_min_rate_bytes,
        services.buffers,
        0 if parsed.stream else settings.buffer_request_bytes,
        log.clock() if log is not None else 0.0,
        client,
    )


class DownstreamConnection(Client):
    """A server-side HTTP/1.1 connection: an asyncio.Protocol in all but its base class.

    With that base the compiler could not lay its attributes out (setup.py).

    Args:
        proto: b"http" or b"https": what the client has used.
        peer: The client's address as a PROXY protocol header tells it; None: the connection's.
    """

    __slots__ = (
        "_backlog",
        "_buffer",
        "_busy",
        "_close",
        "_eof",
        "_exchange",
        "_leftover",
        "_loop",
        "_memo",
        "_paused",
        "_peer_in_header",
        "_phase",
        "_probed",
        "_proto",
        "_requests",
        "_services",
        "_traffic",
        "_transport",
        "_tunnel",
        "_unsent",
        "body",
        "bucket",
        "deadline",
        "forwarding",
        "peer",
    )  # fmt: skip

    def __init__(self, services: Services, proto: bytes = b"http", peer: str | None = None) -> None:
        self._services = services
        self._loop = services.loop
        self._proto = proto
        self._transport: asyncio.Transport | None = None
        self._memo: HeadMemo[ParsedRequest]
        self._buffer: ReadBuffer | None = None  # never empty
        self._exchange: Work | None = None
        self.body: RequestBody | None = None  # of the present request, until it has all come
        self._busy = False  # inside the loop over requests
        self._close = False  # after the present answer
        self._phase = _OPEN
        self._eof = False  # the client has closed its sending side
        self._probed = False  # and got the first octet of its answer for that
        self._leftover: Leftover | None = None  # what comes while lingering
        self._tunnel: TunnelClientSide | None = None  # takes what comes in place of the exchange
        self._paused = False  # reading
        self._backlog: Backlog | None = None  # while the client does not keep up
        self._unsent = 0  # octets, if it has taken nothing since last seen
        self._requests = 0
        self.deadline = _FOREVER
        self.bucket = -1
        self._peer_in_header = peer
        self._traffic = services.counters.traffic
        self.peer = ""
        self.forwarding: ForwardingFields  # set when the peer is known

    # -- what the exchange asks for ---------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write to the client."""
        if self._phase is not _CLOSED and self._transport is not None:
            if self._probed:
                data = self._after_probe(data)
            self._traffic[1] += len(data)
            if self._backlog is None:
                self._transport.write(data)
            else:
                self._write_on(self._transport, self._backlog, data)

    def write_message(self, head: bytes, body: bytes) -> None:
        """Write a head and a body in one system call."""
        if self._phase is _CLOSED or self._transport is None:
            return
        if self._backlog is not None:
            self.write(head + body)
            return
        if self._probed:
            head = self._after_probe(head)
        if len(body) <= JOIN_BYTES_MAX:
            message = head + body
            self._traffic[1] += len(message)
            self._transport.write(message)
        else:
            self._traffic[1] += len(head) + len(body)
            self._transport.writelines((head, body))

    def write_stored(self, head: bytes, body: bytes | memoryview) -> None:
        """Write a large stored response so that what the client has not taken is no copy of it."""
        transport = self._transport
        if self._phase is _CLOSED or transport is None:
            return
        if self._probed:
            head = self._after_probe(head)
        self._traffic[1] += len(head) + len(body)
        if self._backlog is None and not copies(transport):
            transport.writelines((head, body))
            return
        slices = SlicedBody(transport, head, body)
        self._transport = cast("asyncio.Transport", slices)
        self._write_slices(slices)

    def _write_slices(self, slices: SlicedBody) -> bool:
        """Write as much of a stored body as the client takes; whether that was all of it."""
        while self._backlog is None and not slices.transport.is_closing():
            if not slices.write_on():
                self._transport = slices.transport
                slices.finish()
                return True
        return False

    def _write_on(self, transport: asyncio.Transport, backlog: Backlog, data: bytes) -> None:
        """Write what adds to the backlog."""
        transport.write(data)
        self._unsent += len(data)
        backlog.writes += 1
        if not backlog.full:
            self._hold_backlog(transport, backlog)

    def _hold_backlog(self, transport: asyncio.Transport, backlog: Backlog) -> None:
        """Read the application on, or stop it, as the backlog allows."""
        exchange = self._exchange
        bytes_max = 0
        if exchange is not None and not (exchange.stream or exchange.event_stream):
            bytes_max = self._services.settings.buffer_answer_bytes
        if backlog.hold(transport.get_write_buffer_size(), bytes_max):
            return
        if exchange is not None:
            exchange.downstream_blocked()
        elif self._tunnel is not None:
            self._tunnel.downstream_blocked()

    def begin_answer(self, request: RequestHead) -> Persistence:
        """Decide whether the connection persists after this answer, whose head is about to go."""
        if not request.keep_alive or self._close or self._services.draining:
            self._close = True
            return Persistence.CLOSE
        return _KEEP if request.http11 else _KEEP_HTTP10

    def _after_probe(self, data: bytes) -> bytes:
        """Return what is left of an answer whose first octet has been sent ahead."""
        assert data.startswith(PROBE), "all answers begin with it"
        self._probed = False
        return data[len(PROBE) :]

    def close_after_answer(self) -> None:
        """The present answer is the connection's last."""
        self._close = True

    def pause_body(self) -> None:
        """Stop reading: the application does not take the body."""
        if not self._paused and self._phase is not _CLOSED and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            if self._backlog is None:  # else its time to take what is written goes on running
                self.deadline = _FOREVER

    def resume_body(self) -> None:
        """Read again."""
        if self._paused and self._phase is not _CLOSED and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
            if self.body is not None:
                self._await_body(self.body, self._loop.time())

    def hand_over(self, work: Work) -> None:
        """Another works on the request from here on."""
        self._exchange = work

    def exchange_done(self, now: float) -> None:
        """The answer is complete: on to the next request, or close."""
        self._exchange = None
        if self._phase is _CLOSED:
            return
        if self._phase is _DECODING:
            self._phase = _OPEN
        if self._close or self.body is not None:
            self._end()
            return
        if self._backlog is None:  # else it has still to take what is written
            self.deadline = now + self._services.settings.keep_alive_s
        if self._paused or self._buffer is not None:
            self._go_on(now)

    def begin_again(self, parsed: ParsedRequest, now: float) -> None:
        """What is stored for a request without a body has been read: decide about it."""
        self._phase = _OPEN
        exchange = self._exchange = begin(self._services, self, parsed, now, looked=True)
        if exchange is not None:
            if self._eof and self._transport is not None:
                self._services.clients.half_closed.add(self, self._transport)
        elif not self._awaits_form():
            self.exchange_done(now)

    def _awaits_form(self) -> bool:
        return self._phase is _DECODING

    def await_form(self) -> None:
        """The answer comes when a stored response is read, or decoded; no requests until then."""
        self._exchange = None
        self._phase = _DECODING
        self.deadline = _FOREVER

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""
        return self._phase is _CLOSED

    def _go_on(self, now: float) -> None:
        """Read on, beginning with what was read ahead."""
        self.resume_body()
        if self._buffer is not None and not self._busy:
            self._receive_requests(*self._take_buffer(self._buffer), now)

    def _take_buffer(self, buffer: ReadBuffer) -> tuple[bytes, int]:
        self._buffer = None
        return buffer.taken()

    def begin_tunnel(self, tunnel: TunnelClientSide, now: float) -> None:
        """Hand all that comes from here on to the tunnel."""
        self._exchange = None
        self._tunnel = tunnel
        self._phase = Phase.TUNNEL
        if self._backlog is None:
            self.deadline = _FOREVER
        self.resume_body()  # before the write, which may pause it at once
        if self._buffer is not None:
            data, at = self._take_buffer(self._buffer)
            tunnel.client_data(data[at:], now)

    def write_eof(self) -> None:
        """Close our direction of the tunnel, or all of it where TLS knows no half."""
        if self._phase is not _CLOSED and self._transport is not None:
            if self._transport.can_write_eof():
                close_sending(self._transport)
            else:
                self._transport.close()

    def close(self) -> None:
        """Close when everything written has been sent."""
        self._exchange = self._tunnel = self.body = None
        if self._phase is not _CLOSED and self._transport is not None:
            self._phase = _CLOSED
            self._limit_writing(self._transport, self._loop.time())
            self._transport.close()

    def abort(self) -> None:
        """Close at once; what the client has got so far is all there is."""
        self._exchange = self._tunnel = self.body = None
        self._phase = _CLOSED
        if self._transport is not None:
            self._transport.abort()

    def cut_off(self, *, reset: bool) -> None:
        """Close in the middle of an answer; `reset` if nothing else tells that it is cut."""
        if reset and self._transport is not None:
            sock = self._transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self.abort()

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self._exchange is None and self._buffer is None and self._phase is _OPEN

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds).

        That is for it to ask, to send a body, to take an answer, or to close after its last one.
        Infinity while the client has done its part.
        """
        settings = self._services.settings
        if self._phase is _LINGERING and self._backlog is None:
            return self.deadline - LINGER_SILENCE_S
        if not (self._phase is _OPEN or self._phase is _BODY):
            return _FOREVER
        if self._backlog is not None:
            return _FOREVER if self._takes_something() else self.deadline - settings.write_timeout_s
        if self.body is not None:
            answered = self._exchange is not None and self._exchange.answer_begun
            return _FOREVER if self._paused or answered else self.body.waits_since
        if self._exchange is not None:
            return _FOREVER
        if self._buffer is not None or not self._requests:
            return self.deadline - settings.head_timeout_s
        return self.deadline - settings.keep_alive_s

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        services = self._services
        transport = self._transport = cast("asyncio.Transport", transport)  # uvloop's is none
        told = self._peer_in_header
        self.peer = peer_name(transport.get_extra_info("peername")) if told is None else told
        if not services.clients.accept(self):
            self.abort()
            return
        transport.set_write_buffer_limits(services.settings.write_buffer_bytes_max)
        now = self._loop.time()
        self.forwarding = services.peers.forwarding_fields(self.peer, self._proto)
        self._memo = services.heads.request_memos[self.forwarding.trusted, self._proto]
        self.deadline = now + services.settings.head_timeout_s
        services.clients.wheel.watch(self, now)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        self._traffic[0] += len(data)
        if self._exchange is None:
            parsed = self._memo.young.get(data)
            if (
                parsed is not None
                and self._phase is _OPEN
                and parsed.head.framing is _NO_BODY
                and self._backlog is None
                and self._buffer is None
            ):
                # A known head and nothing else: what `_receive_requests` would come to, without
                # looking for the end of the head (saves 0.7 of 4 us when the store answers).
                self._begin(parsed, now)
                return
            if self._phase is _OPEN:
                if self._buffer is None:
                    self._receive_requests(data, 0, now)
                else:
                    self._receive_more(self._buffer, data, now)
            elif self._phase is _LINGERING and self._transport is not None:
                self._linger_on(self._transport, data)
            elif self._tunnel is not None:
                self._tunnel.client_data(data, now)
            elif self.body is not None:
                self._receive_body(self.body, data, now)
            elif self._phase is _DECODING:
                self._read_ahead(data)
        elif self.body is not None:
            self._receive_body(self.body, data, now)
        else:
            self._read_ahead(data)

    def eof_received(self) -> bool:
        assert self._transport is not None
        if not self._transport.can_write_eof():
            return False  # over TLS both sides are closed together
        # A client may close its sending side and wait for its answer (RFC 9112 section 9.6).
        if self._tunnel is not None:
            self._tunnel.client_eof(self._loop.time())
            return True
        if self._exchange is not None and self._exchange.event_stream:
            return False  # nobody says no more and listens on: a page has been closed
        if isinstance(self._transport, SlicedBody):
            self._eof = True  # what is stored for it is still written
            self._close = self._close or not self._buffer
            return True
        if self.body is not None or (self._exchange is None and self._phase is not _DECODING):
            return False  # nothing to wait for: the transport closes
        self._eof = True
        self._close = self._close or self._buffer is None  # what was pipelined is answered first
        if self._exchange is None:
            return True  # the answer comes in a moment
        if not self._exchange.answer_begun and needs_probe(self._transport):
            self.write(PROBE)
            self._probed = True
        self._services.clients.half_closed.add(self, self._transport)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _CLOSED
        self._services.clients.lost(self)
        self._end_backlog()
        exchange, self._exchange = self._exchange, None
        tunnel, self._tunnel = self._tunnel, None
        body, self.body = self.body, None
        self._tell_gone(exchange, tunnel, body, self._loop.time())

    def pause_writing(self) -> None:
        services, transport = self._services, self._transport
        assert transport is not None, "it is what has called us"
        # A trusted proxy speaks for many.
        client = 0 if self.forwarding.trusted else self.forwarding.number
        backlog = self._backlog = Backlog(
            services.buffers, services.settings.write_buffer_bytes_max, client
        )
        self._limit_writing(transport, self._loop.time())
        self._hold_backlog(transport, backlog)

    def resume_writing(self) -> None:
        full = self._end_backlog()
        now = self._loop.time()
        transport = self._transport
        if isinstance(transport, SlicedBody) and not self._write_slices(transport):
            return
        if self._exchange is not None:
            self.deadline = _FOREVER
            if self.body is not None:
                self._await_body(self.body, now)
            if full:
                self._exchange.downstream_writable()
        elif self._tunnel is not None:
            self.deadline = _FOREVER
            self._tunnel.downstream_writable()
        elif self.body is not None:
            self._await_body(self.body, now)
        elif self._phase is _LINGERING:
            self.deadline = now + LINGER_SILENCE_S
            self._services.clients.wheel.watch(self, now)
            if self._eof:
                self.close()
        elif self._phase is _OPEN:
            if self._close:  # its sending side has been closed meanwhile
                self._end()
                return
            self.deadline = now + self._services.settings.keep_alive_s
            self._go_on(now)

    def _end_backlog(self) -> bool:
        """Give the backlog's memory back; return whether the application waits for its end."""
        backlog, self._backlog = self._backlog, None
        if backlog is None:
            return False
        backlog.release()
        return backlog.full

    # -- requests -------------------------------------------------------------------------------

    def _receive_more(self, buffer: ReadBuffer, data: bytes, now: float) -> None:
        """Take what follows part of a head: perhaps not all of the rest."""
        buffer.add(data)
        if (
            buffer.has_heads()
            or len(buffer) > self._services.settings.head_bytes_max
            or buffer.begins_with_line_end
        ):
            self._receive_requests(*self._take_buffer(buffer), now)
            return
        try:
            buffer.check(check_request_head)
        except DownstreamError as error:
            self._refuse(error)

    def _receive_requests(self, data: bytes, at: int, now: float) -> None:
        """Take the requests that begin there in data, until one has to be waited for."""
        self._busy = True
        end = len(data)
        ahead = 0  # requests that others followed at once
        try:
            while at < end and self._exchange is None and self._phase is _OPEN:
                if self._backlog is not None:
                    self._read_ahead(data, at)  # no more answers before these are read
                    self.pause_body()
                    break
                if ahead and ahead >= self._services.settings.pipeline_max:
                    self._let_others_go_first(data, at)
                    break
                at = self._receive_request(data, at, now)
                ahead += 1
        except DownstreamError as error:
            self._refuse(error)
        finally:
            self._busy = False

    def _let_others_go_first(self, data: bytes, at: int) -> None:
        """Go on in the loop's next round: many small requests would hold all clients up."""
        self._read_ahead(data, at)
        self.pause_body()
        self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        # If it is blocked or closed by now, whatever ends that goes on, or nobody has to.
        if self._exchange is None and self._backlog is None and self._phase is _OPEN:
            self._go_on(self._loop.time())

    def _receive_request(self, data: bytes, at: int, now: float) -> int:
        """Take the request that begins there in data; return where what is still to do begins."""
        services, last = self._services, len(data)
        end = data.find(b"\r\n\r\n", at) + 4
        if end < 4 or end - at > services.settings.head_bytes_max or data[at] == _CR:
            at, end = self._unusual_head(data, at, now)
            if not end:
                return last
        head_bytes = data[at:end]
        parsed = self._memo.get(head_bytes)
        if parsed is None:
            trusted = self.forwarding.trusted
            parsed = services.heads.parse(
                head_bytes, trusted, self._memo, self._proto, self.forwarding
            )
        if self._eof and end == last:
            self._close = True  # the last one that the client has sent
        head = parsed.head
        if head.framing is _NO_BODY:
            self._begin(parsed, now)
        elif head.framing is Framing.LENGTH:
            body_at, end = end, min(last, end + head.content_length)
            self._begin_with_body(parsed, data[body_at:end], now)
        else:
            # What follows a chunked body is found out with its end.
            end = last - len(self._begin_with_body(parsed, data[end:], now))
        if end < last and (self._exchange is not None or self._phase is _DECODING):
            self._read_ahead(data, end)
            return last
        return end

    def _begin(self, parsed: ParsedRequest, now: float) -> None:
        """Begin a request without a body."""
        services = self._services
        self._count_request()
        self.deadline = _FOREVER
        self._exchange = begin(services, self, parsed, now)
        if self._exchange is None and self._phase is not _DECODING:
            if self._close:
                self._end()
            elif self._backlog is None:
                self.deadline = now + services.settings.keep_alive_s

    def _unusual_head(self, data: bytes, at: int, now: float) -> tuple[int, int]:
        """Handle an incomplete or an oversized head and leading empty lines.

        Returns:
            Where the head begins and ends in data; 0 for its end if the rest of it is waited for.
        """
        begin = at
        while data.startswith(b"\r\n", begin):
            begin += 2
            if begin - at > _LEADING_BYTES_MAX:
                raise BadRequest("nothing but empty lines")
        head_bytes_max = self._services.settings.head_bytes_max
        end = end_of_head(data, head_bytes_max, check_request_head, begin)
        if end:
            return begin, end
        if begin < len(data):
            # The clock of a head starts with its first byte and is not set back by more of them.
            self._wait_until(now + self._services.settings.head_timeout_s, now)
        if begin < len(data) and data[begin] != _CR:
            self._buffer = ReadBuffer(data, begin, checked=True)
        else:
            self._buffer = ReadBuffer(data, at)  # empty lines are counted on
            self._wait_until(now + self._services.settings.keep_alive_s, now)
        if self._eof:
            self._end()  # the rest of it will never come
        return begin, 0

    def _wait_until(self, deadline: float, now: float) -> None:
        """Wait no longer than that: there may be no deadline, or a later one."""
        self.deadline = min(self.deadline, deadline)
        self._services.clients.wheel.watch(self, now)

    def _count_request(self) -> None:
        self._services.counters.requests += 1
        self._requests += 1
        if self._requests == self._services.settings.requests_per_connection_max:
            self._close = True

    # -- request bodies -------------------------------------------------------------------------

    def _begin_with_body(self, parsed: ParsedRequest, rest: bytes, now: float) -> bytes:
        """Begin a request with a body; return what follows it."""
        services, head = self._services, parsed.head
        bytes_max = services.settings.request_body_bytes_max
        if bytes_max and head.content_length > bytes_max:
            raise RequestTooLarge("the request body is too large")
        self._count_request()
        self.deadline = _FOREVER
        who = self.forwarding
        client = services.peers.client_of(who, parsed) if who.trusted else who.number
        body = self.body = request_body(services, parsed, client)
        self._phase = _BODY
        if not body.buffered:
            self._begin_exchange(body, now)
        if rest and self._awaits(body):
            self._receive_body(body, rest, now)
        if self._awaits(body):
            if head.expect_continue and body.buffered and not body.continued:
                body.continued = True
                self.write(CONTINUE)
            self._await_body(body, now)
            if self._eof:
                self.disconnect(now)  # the rest of it will never come
            return b""
        if self._exchange is not None or self._buffer is None:
            return b""
        data, at = self._take_buffer(self._buffer)
        return data[at:]

    def _begin_exchange(self, body: RequestBody, now: float) -> None:
        """Begin what becomes of a request whose body is complete, or is passed on as it comes."""
        services = self._services
        exchange = self._exchange = begin(services, self, body.parsed, now, body)
        if exchange is None:
            if self._close or not body.complete:
                # The rest of a body cannot be told from a next request's bytes.
                self._end()
            elif self._backlog is None:
                self.deadline = now + services.settings.keep_alive_s
        elif not body.complete and body.keeps_some and not exchange.connected:
            self.pause_body()  # until the exchange can take it

    def _awaits(self, body: RequestBody) -> bool:
        return self.body is body

    def _await_body(self, body: RequestBody, now: float) -> None:
        """Await a body, or the rest of one that could not be read for a time."""
        body.start_clock(now)
        self._await_piece(body, now)

    def _await_piece(self, body: RequestBody, now: float) -> None:
        if self._paused:
            return
        deadline = body.next_deadline(now)
        if self._backlog is None:  # else it has its time to take what is written
            self.deadline = deadline
            self._services.clients.wheel.watch(self, now)

    def _receive_body(self, body: RequestBody, data: bytes, now: float) -> None:
        try:
            piece = body.feed(data)
        except DownstreamError as error:
            self._fail_body(body, error, now)
            return
        if body.complete:
            self.body = None
            self._phase = _OPEN
            if self._backlog is None:
                self.deadline = _FOREVER
        else:
            self._await_piece(body, now)
        if self._exchange is None:
            if not body.keep(piece) or body.complete:
                self._begin_exchange(body, now)
        elif piece or body.complete:
            self._exchange.request_data(piece, now)
        if rest := body.rest:
            if self._exchange is not None or (self._busy and self._phase is _OPEN):
                self._read_ahead(rest)
            elif self._phase is _OPEN:
                self._receive_requests(rest, 0, now)

    def _fail_body(self, body: RequestBody, error: DownstreamError, now: float) -> None:
        """The request ends in the middle of its body."""
        exchange, self._exchange = self._exchange, None
        self.body = None
        if exchange is None:
            is_get = body.parsed.kind is Kind.GET
            self._services.counters.count_own(is_get, error.reason, error.status)
            unanswered(self._services, self, body, error.status, error.reason)
            self._tell_mistake(error)
        elif exchange.answer_begun:
            exchange.downstream_gone(now)
            self.abort()
        else:
            exchange.client_failed(error, now)
            self._tell_mistake(error)

    def _read_ahead(self, data: bytes, begin: int = 0) -> None:
        """Keep what came before its turn: all that begins there in data."""
        buffer = self._buffer
        if buffer is None:
            buffer = self._buffer = ReadBuffer(data, begin)
        else:
            buffer.add(data[begin:])
        if len(buffer) > READ_AHEAD_BYTES_MAX or buffer.has_heads(
            self._services.settings.pipeline_max
        ):
            self.pause_body()

    # -- the end ----------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Called by the wheel when the deadline has passed."""
        if self._backlog is not None or not (self._phase is _OPEN or self._phase is _BODY):
            if not self._takes_on(now):
                self.disconnect(now)
        elif self.body is not None:
            self.deadline = self.body.extended_deadline(now)
            if self.deadline:
                self._services.clients.wheel.watch(self, now)
            else:
                error = RequestTimeout("the request body comes too slowly")
                self._fail_body(self.body, error, now)
        elif self._buffer is not None:
            self._refuse(RequestTimeout("the request head took too long"))
        else:
            self.close()

    def _limit_writing(self, transport: asyncio.Transport, now: float) -> None:
        """Give the client time to take some of what is written."""
        self._unsent = transport.get_write_buffer_size()
        self.deadline = now + self._services.settings.write_timeout_s
        self._services.clients.wheel.watch(self, now)

    def _takes_on(self, now: float) -> bool:
        """Whether the client has taken some of it: then it has the same time once more."""
        if self._transport is None or not self._takes_something():
            return False
        self._limit_writing(self._transport, now)
        return True

    def _takes_something(self) -> bool:
        """Whether the client has taken some of what is written since its time has begun."""
        transport = self._transport
        return transport is not None and 0 < transport.get_write_buffer_size() < self._unsent

    def disconnect(self, now: float) -> None:
        """Close at once in the middle of an exchange or a tunnel, which is told so."""
        exchange, tunnel, body = self._exchange, self._tunnel, self.body
        self.abort()
        self._tell_gone(exchange, tunnel, body, now)

    def _tell_gone(
        self,
        exchange: Work | None,
        tunnel: TunnelClientSide | None,
        body: RequestBody | None,
        now: float,
    ) -> None:
        """Tell whoever worked for the client; a body that nobody has begun with is forgotten."""
        if exchange is not None:
            exchange.downstream_gone(now)
        elif tunnel is not None:
            tunnel.client_gone(now)
        elif body is not None:
            self._services.counters.clients_gone += 1
            unanswered(self._services, self, body, 0, Reason.CLIENT_GONE)

    def _refuse(self, error: DownstreamError) -> None:
        """Answer what could not be read as a request, and close."""
        services = self._services
        services.counters.count_own(None, error.reason, error.status)
        if services.access_log is not None:
            services.access_log.add(
                self.peer, None, None, error.status, "retter", error.reason, 0.0
            )
        self._tell_mistake(error)

    def _tell_mistake(self, error: DownstreamError) -> None:
        """Say what is the client's own mistake, and close."""
        services = self._services
        services.counters.client_errors[error.reason] += 1
        self._close = True
        self.write(
            services.answers.error(
                None, error.status, error.reason, Persistence.CLOSE,
                date=services.http_date(), detail=str(error),
            )
        )  # fmt: skip
        self._end(sending=True)

    def _end(self, sending: bool = False) -> None:
        """Close after the last answer, without cutting it off while the client still sends.

        Args:
            sending: It may do so, although no body is waited for.
        """
        sending = sending or self.body is not None
        self._buffer = None
        self.body = None
        if self._phase is _CLOSED or self._transport is None:
            return
        now = self._loop.time()
        self._phase = _LINGERING
        self._limit_writing(self._transport, now)
        if not self._unsent:  # else lingering begins when the client has taken its answer
            self.deadline = now + LINGER_SILENCE_S
            self._services.clients.wheel.watch(self, now)
        self.resume_body()
        if self._transport.can_write_eof() and not self._eof:
            close_sending(self._transport)
        elif self._eof or not sending:
            self.close()
        # Else it is TLS, which has no half to close: the client ends it when it has its answer.

    def _linger_on(self, transport: asyncio.Transport, data: bytes) -> None:
        """Drop what a client sends after its last answer, for a time."""
        now = self._loop.time()
        leftover = self._leftover
        if leftover is None:
            leftover = self._leftover = Leftover(now)
        if not leftover.drop(len(data)):
            self.abort()
            return
        if not transport.get_write_buffer_size():  # else it has its time to take the answer
            self.deadline = leftover.deadline(now)
            self._services.clients.wheel.watch(self, now)
        on = self._services.clients.linger_pace.may_read_on(self, leftover, len(data))
        if not (on or self._paused):
            self._paused = True
            transport.pause_reading()

    def read_on(self) -> None:
        """Go on with dropping."""
        self.resume_body()
