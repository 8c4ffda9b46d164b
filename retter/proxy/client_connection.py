"""One client connection: it receives bytes and returns responses in order.

The connection implements the time limits of the client and the ways in which a connection ends.
ClientRequests (client_requests.py) reads the requests, ClientWriter (client_writer.py) writes the
responses, and `exchange.begin` decides how each request is handled.
"""

import asyncio
import socket
import struct
from typing import Final, cast

from retter.base.errors import DownstreamError, RequestTimeout
from retter.base.reason import Reason
from retter.http.forwarding import peer_name
from retter.http.memo import HeadMemo
from retter.http.message import Framing, RequestHead, refused_head
from retter.net.supervision import report
from retter.net.transports import close_sending
from retter.proxy.backlog import Backlog
from retter.proxy.client_requests import (
    LOOKED_UP_BYTES_MAX,
    ClientRequests,
    ConnectionPhase,
    Requester,
)
from retter.proxy.client_writer import ClientWriter
from retter.proxy.exchange import begin
from retter.proxy.half_close import needs_probe
from retter.proxy.interfaces import Client, TunnelClientSide, Work
from retter.proxy.lingering import LINGER_SILENCE_S, Leftover
from retter.proxy.local_answers import unanswered
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.responses import Persistence
from retter.proxy.services import Services

_FOREVER: Final = float("inf")

# struct linger: on, 0 s. Unsent bytes are dropped, and the peer gets a RST (tcp(7), SO_LINGER).
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)
_NO_BODY: Final = Framing.NONE
_KEEP: Final = Persistence.KEEP
_KEEP_HTTP10: Final = Persistence.KEEP_HTTP10

# Looked up once, as in exchange.py.
_OPEN: Final = ConnectionPhase.OPEN
_BODY: Final = ConnectionPhase.BODY
_DECODING: Final = ConnectionPhase.DECODING
_LINGERING: Final = ConnectionPhase.LINGERING
_CLOSED: Final = ConnectionPhase.CLOSED


def _answer_to(services: Services, error: DownstreamError) -> bytes:
    """Return the answer to bytes that are no valid request."""
    date = services.http_date()
    return services.answers.error(
        None, error.status, error.reason, Persistence.CLOSE, date=date, detail=str(error)
    )


def tell_gone(
    services: Services,
    client: Client,
    exchange: Work | None,
    tunnel: TunnelClientSide | None,
    body: RequestBody | None,
    now: float,
) -> None:
    """Tell the exchange or the tunnel that its client has left; drop a body that had none yet."""
    if exchange is not None:
        exchange.downstream_gone(now)
    elif tunnel is not None:
        tunnel.client_gone(now)
    elif body is not None:
        services.counters.clients_gone += 1
        unanswered(services, client, body, 0, Reason.CLIENT_GONE)


class DownstreamConnection(Requester):
    """A server-side HTTP/1.1 connection.

    It implements asyncio.Protocol without deriving from it: with that base class the compiler could
    not lay out its attributes (setup.py).

    Args:
        proto: The scheme that the client used: b"http" or b"https".
        peer: The client's address from a PROXY protocol header; None: the connection's address.
    """

    __slots__ = (
        "_leftover",
        "_loop",
        "_memo",
        "_peer_in_header",
        "_proto",
        "_redirects",
        "_services",
        "_tunnel",
        "bucket",
        "forwarding",
        "out",
        "peer",
        "requests",
    )

    def __init__(self, services: Services, proto: bytes = b"http", peer: str | None = None) -> None:
        self._services = services
        self._loop = services.loop
        self._proto = proto
        self._peer_in_header = peer
        self._redirects = False  # not all requests begin an exchange (redirect.py)
        self.phase = _OPEN
        # The base classes have the types of some of these. If one were repeated, a compiled class
        # would show the attribute to the garbage collector twice, and no cycle would ever be freed.
        self.work = None
        self.body = None
        self._tunnel: TunnelClientSide | None = None  # receives the bytes instead of `work`
        self._leftover: Leftover | None = None  # the data received while lingering
        self.last = False
        self.sends_no_more = False
        self.paused = False
        self.waiting = None
        self.deadline = _FOREVER
        self.bucket = -1
        self.peer = ""
        # Set when the connection is made, like `out` and `forwarding`.
        self.requests: ClientRequests
        self._memo: HeadMemo[ParsedRequest]

    # -- called by the work -----------------------------------------------------------------

    def begin_answer(self, request: RequestHead) -> Persistence:
        """Decide whether the connection persists; called just before a response head is written."""
        if (
            not request.form.keep_alive
            or self.last
            # Requests that were read are answered, so that a pipelining client loses none.
            or (self._services.draining and self.requests.buffer is None)
        ):
            self.last = True
            return Persistence.CLOSE
        return _KEEP if request.form.http11 else _KEEP_HTTP10

    def close_after_answer(self) -> None:
        """Make the present response the last one of the connection."""
        self.last = True

    def pause_body(self) -> None:
        """Stop reading: the application does not accept more of the body."""
        if not self.paused and self.phase is not _CLOSED:
            self.paused = True
            self.out.transport.pause_reading()
            if self.out.backlog is None:  # else the write timeout continues
                self.deadline = _FOREVER

    def resume_body(self) -> None:
        """Resume reading."""
        if self.paused and self.phase is not _CLOSED:
            self.paused = False
            self.out.transport.resume_reading()
            if self.body is not None:
                self.requests.await_body(self, self.body, self._loop.time())

    def hand_over(self, work: Work) -> None:
        """Pass the rest of the request's work to another object."""
        self.work = work

    def exchange_done(self, now: float) -> None:
        """The response is complete: continue with the next request, or close."""
        if self.work is None and self.phase is not _DECODING:
            return  # a fault has ended the exchange within `begin`, and its caller continues
        self.work = None
        if self.phase is not _OPEN:
            if self.phase is _CLOSED:
                return
            if self.phase is _DECODING:
                self.phase = _OPEN
        if self.last or self.body is not None:
            self.end()
            return
        if self.out.backlog is None:  # else the write timeout applies
            self.deadline = now + self._services.keep_alive_s
        if self.paused or self.requests.buffer is not None:
            self.go_on(now)

    def begin_again(self, parsed: ParsedRequest, now: float) -> None:
        """Decide about a request without a body, now that the disk has been read for it."""
        self.phase = _OPEN
        try:
            work = self.work = begin(self._services, self, parsed, now, looked=True)
        except Exception:
            self.abort()  # nobody else would end its wait
            raise
        if work is not None:
            if self.sends_no_more:
                self._services.clients.half_closed.add(self, self.out.transport)
        elif self._is_open():
            self.phase = _DECODING  # it has waited until now
            self.exchange_done(now)

    def _is_open(self) -> bool:
        return self.phase is _OPEN

    def await_form(self) -> None:
        """Begin no request until a stored response has been read or decoded for this one."""
        self.work = None
        self.phase = _DECODING
        if self.out.backlog is None:  # else the write timeout applies
            self.deadline = _FOREVER

    @property
    def gone(self) -> bool:
        """Whether the connection is closed."""
        return self.phase is _CLOSED

    def go_on(self, now: float) -> None:
        """Continue to read, beginning with the bytes that were read ahead.

        If a request among them cannot begin, for lack of memory or by a fault of our own, this
        connection alone ends: the caller may serve another client.
        """
        try:
            self.resume_body()
            self.requests.go_on(self, now)
        except Exception as error:  # noqa: BLE001 - reported to the loop
            report(self._loop, "a request that was read ahead could not begin", error)
            self.disconnect(now)

    def begin_tunnel(self, tunnel: TunnelClientSide, now: float) -> None:
        """Pass all bytes received from now on to the tunnel."""
        self.work = None
        self._tunnel = tunnel
        self.phase = ConnectionPhase.TUNNEL
        if self.out.backlog is None:
            self.deadline = _FOREVER
        self.resume_body()  # before the write, which may pause reading again at once
        if data := self.requests.take_rest(self):
            tunnel.client_data(data, now)
        if self.sends_no_more:
            tunnel.client_eof(now)  # it came before the 101

    def close(self) -> None:
        """Close when all written bytes have been sent."""
        self.work = self._tunnel = self.body = None
        if self.phase is not _CLOSED:
            self.out.flush()
            self.phase = _CLOSED
            self.out.open = False
            self._limit_writing(self._loop.time())
            self.out.transport.close()

    def abort(self) -> None:
        """Close at once and drop the bytes that are not yet sent."""
        self.out.flush()  # whole answers are as good as sent
        self.work = self._tunnel = self.body = None
        self.phase = _CLOSED
        self.out.open = False
        self.out.transport.abort()

    def close_midway(self, *, reset: bool) -> None:
        """Close in the middle of a response; `reset` if nothing else shows that it is truncated."""
        if reset:
            sock = self.out.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        self.abort()

    @property
    def group(self) -> str:
        """What this connection counts for: the client's address or network."""
        return self.forwarding.group

    @property
    def idle(self) -> bool:
        """Whether no request is being received or answered."""
        return self.work is None and self.requests.buffer is None and self.phase is _OPEN

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds); infinity: it does not.

        It waits for a request, for a body, for the client to read, or for its close at the end.
        """
        settings = self._services.settings
        if self.phase is _LINGERING and self.out.backlog is None:
            return self.deadline - LINGER_SILENCE_S
        if not (self.phase is _OPEN or self.phase is _BODY):
            return _FOREVER
        if self.out.backlog is not None:
            takes = self.out.takes_something()
            return _FOREVER if takes else self.deadline - settings.write_timeout_s
        if self.body is not None:
            answered = self.work is not None and self.work.answer_begun
            return _FOREVER if self.paused or answered else self.body.waits_since
        if self.work is not None:
            return _FOREVER
        if self.requests.buffer is not None or not self.requests.count:
            return self.deadline - settings.head_timeout_s
        return self.deadline - settings.keep_alive_s

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        services = self._services
        transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self.out = ClientWriter(transport, services.counters, services.write_batch)
        named = self._peer_in_header
        self.peer = peer_name(transport.get_extra_info("peername")) if named is None else named
        self.forwarding = services.peers.forwarding_fields(self.peer, self._proto)
        if not services.clients.accept(self):
            self.abort()
            return
        transport.set_write_buffer_limits(services.settings.write_buffer_bytes_max)
        now = self._loop.time()
        self.peer = self.forwarding.peer  # equal, and the same object for all of this address
        self._memo = services.heads.request_memos[self.forwarding.trusted, self._proto]
        self.requests = self._make_requests(self._memo)
        self.deadline = now + services.settings.head_timeout_s
        self.watch(now)

    def _make_requests(self, memo: HeadMemo[ParsedRequest]) -> ClientRequests:
        return ClientRequests(self._services, memo, self._proto)

    def watch(self, now: float) -> None:
        self._services.clients.wheel.watch(self, now)

    def data_received(self, data: bytes) -> None:
        now, size = self._loop.time(), len(data)
        services = self._services
        services.counters.received += size
        if self.work is None:
            memo = self._memo
            if data == memo.last:
                parsed = memo.last_value
            elif size <= LOOKED_UP_BYTES_MAX:
                parsed = memo.young.get(data)
                if parsed is not None:
                    memo.last, memo.last_value = data, parsed
            else:
                parsed = None
            phase = self.phase  # not `self.phase`: mypy would take it for still true below
            if phase is _OPEN:
                if self.out.waiting:
                    self.out.flush()  # who does not read begins nothing else
                requests = self.requests
                # A known head and nothing else begins at once: the end of the head is not searched
                # for (saves 0.7 of 4 us for a response from the store).
                if (
                    parsed is None
                    or parsed.head.form.framing is not _NO_BODY
                    or self.out.backlog is not None
                    or requests.buffer is not None
                ):
                    parsed = requests.receive(self, data, parsed, now)
                    if parsed is None:
                        return
                if self._redirects:
                    requests.begin(self, parsed, now)
                    return
                # `requests.begin` without a call, which saves another 0.05 us.
                services.counters.requests += 1
                count = requests.count = requests.count + 1
                if count == services.requests_per_connection_max:
                    self.last = True
                self.deadline = _FOREVER
                work = self.work = begin(services, self, parsed, now)
                if work is None and self.phase is not _DECODING:
                    if self.last:
                        self.end()
                    elif self.out.backlog is None:
                        self.deadline = now + services.keep_alive_s
            elif self.phase is _LINGERING:
                self._linger_on(data)
            elif self._tunnel is not None:
                self._tunnel.client_data(data, now)
            elif self.body is not None:
                self.requests.receive_body(self, self.body, data, now)
            elif self.phase is _DECODING:
                self.requests.read_ahead(self, data)
        elif self.body is not None:
            self.requests.receive_body(self, self.body, data, now)
        else:
            self.requests.read_ahead(self, data)

    def eof_received(self) -> bool:
        transport = self.out.transport
        self.out.flush()  # the event loop may close the transport
        if not transport.can_write_eof():
            return False  # over TLS both directions are closed together
        # A client may close its sending direction and wait for its response (RFC 9112 section 9.6).
        if self._tunnel is not None:
            self._tunnel.client_eof(self._loop.time())
            return True
        if self.work is not None and self.work.event_stream and self.work.answer_begun:
            return False  # a half-close is unlikely here: the user has closed the page
        if self.out.writes_slices:
            self.sends_no_more = True  # the stored response is still written
            self.last = self.last or self.requests.buffer is None
            return True
        if self.body is not None and self.work is not None and self.work.answer_begun:
            # It stops an upload that was answered early, and reads on.
            self.body.stopped = True
            self.body, self.phase = None, _OPEN
            if self.out.backlog is None:
                self.deadline = _FOREVER
        if self.body is not None or (self.work is None and self.phase is not _DECODING):
            return False  # nothing to wait for: the transport closes
        self.sends_no_more = True
        # Pipelined requests are answered first.
        self.last = self.last or self.requests.buffer is None
        if self.work is None:
            return True  # the response follows when it is read or decoded
        if not self.work.answer_begun and needs_probe(transport):
            self.out.probe()
        self._services.clients.half_closed.add(self, transport)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.phase = _CLOSED
        self._services.clients.lost(self)
        self.out.open = False
        self.out.end_backlog()
        if self.waiting is not None:
            self.requests.drop_buffer(self)
        exchange, self.work = self.work, None
        tunnel, self._tunnel = self._tunnel, None
        body, self.body = self.body, None
        tell_gone(self._services, self, exchange, tunnel, body, self._loop.time())

    def pause_writing(self) -> None:
        services = self._services
        # A trusted proxy forwards the requests of many clients.
        client = 0 if self.forwarding.trusted else self.forwarding.number
        backlog = Backlog(services.buffers, services.settings.write_buffer_bytes_max, client)
        self.out.begin_backlog(backlog, self)
        self._limit_writing(self._loop.time())
        self.backlog_grows()

    def backlog_grows(self) -> None:
        """Stop reading from the application if the backlog is full.

        It may have been full before this work had a connection to the application, or had begun.
        """
        backlog, work = self.out.backlog, self.work
        assert backlog is not None, "it is what has grown"
        bytes_max = 0
        if work is not None and not (work.stream or work.event_stream):
            bytes_max = self._services.settings.buffer_answer_bytes
        if backlog.reserve(self.out.transport.get_write_buffer_size(), bytes_max):
            return
        if work is not None:
            work.downstream_blocked()
        elif self._tunnel is not None:
            self._tunnel.downstream_blocked()

    def resume_writing(self) -> None:
        full = self.out.end_backlog()
        now = self._loop.time()
        if not self.out.write_slices():
            return
        if self.work is not None:
            self.deadline = _FOREVER
            if self.body is not None:
                self.requests.await_body(self, self.body, now)
            if full:
                self.work.downstream_writable()
        elif self._tunnel is not None:
            self.deadline = _FOREVER
            self._tunnel.downstream_writable()
        elif self.body is not None:
            self.requests.await_body(self, self.body, now)
        elif self.phase is _DECODING:
            self.deadline = _FOREVER  # as in `await_form`
        elif self.phase is _LINGERING:
            self.deadline = now + LINGER_SILENCE_S
            self.watch(now)
            if self.sends_no_more:
                self.close()
        elif self.phase is _OPEN:
            if self.last:  # the client has closed its sending direction meanwhile
                self.end()
                return
            self.deadline = now + self._services.keep_alive_s
            self.go_on(now)

    # -- the end ----------------------------------------------------------------------------------

    def on_deadline(self, now: float) -> None:
        """Act on a deadline that has passed; called by the wheel."""
        if self.out.backlog is not None or not (self.phase is _OPEN or self.phase is _BODY):
            if self.out.takes_something():
                self._limit_writing(now)  # the client reads: start the time limit again
            else:
                self.disconnect(now)
        elif self.body is not None:
            self.deadline = self.body.extended_deadline(now)
            if self.deadline:
                self.watch(now)
            else:
                error = RequestTimeout("the request body comes too slowly")
                self.requests.fail_body(self, self.body, error, now)
        elif self.requests.buffer is not None:
            self.refuse(RequestTimeout("the request head took too long"))
        else:
            self.close()

    def _limit_writing(self, now: float) -> bool:
        """Set the time limit for the client to read; return whether any bytes are unsent."""
        self.deadline = now + self._services.settings.write_timeout_s
        self.watch(now)
        return self.out.note_unsent()

    def disconnect(self, now: float) -> None:
        """Close at once in the middle of an exchange or a tunnel, and notify it."""
        exchange, tunnel, body = self.work, self._tunnel, self.body
        self.abort()
        tell_gone(self._services, self, exchange, tunnel, body, now)

    def refuse(self, error: DownstreamError) -> None:
        """Answer bytes that are no valid request with an error, and close."""
        services = self._services
        services.counters.count_own(None, error.reason, error.status)
        if services.access_log is not None:
            request = None if error.request_line is None else refused_head(*error.request_line)
            services.access_log.add(
                self.peer, request, None, error.status, "retter", error.reason, 0.0
            )
        self.refuse_rest(error)

    def refuse_rest(self, error: DownstreamError) -> None:
        """Answer with an error that the client has caused, and close."""
        services = self._services
        services.counters.client_errors[error.reason] += 1
        self.last = True
        self.out.write(_answer_to(services, error))
        self.end(sending=True)

    def end(self, sending: bool = False) -> None:
        sending = sending or self.body is not None
        self.requests.drop_buffer(self)
        self.body = None
        if self.phase is _CLOSED:
            return
        self.out.flush()
        now, transport = self._loop.time(), self.out.transport
        self.phase = _LINGERING
        if not self._limit_writing(now):  # else lingering begins when the response is sent
            self.deadline = now + LINGER_SILENCE_S
            self.watch(now)
        self.resume_body()
        if transport.can_write_eof() and not self.sends_no_more:
            close_sending(transport)
        elif self.sends_no_more or not sending:
            self.close()
        # Else this is TLS, which cannot be half-closed: the client closes after its response.

    def _linger_on(self, data: bytes) -> None:
        """Drop the data that a client sends after its last response, for a limited time."""
        now, transport = self._loop.time(), self.out.transport
        leftover = self._leftover
        if leftover is None:
            leftover = self._leftover = Leftover(now)
        if not leftover.drop(len(data)):
            self.abort()
            return
        if not transport.get_write_buffer_size():  # else the write timeout applies
            self.deadline = leftover.deadline(now)
            self.watch(now)
        on = self._services.clients.linger_pace.may_read_on(self, leftover, len(data))
        if not (on or self.paused):
            self.paused = True
            transport.pause_reading()

    def read_on(self) -> None:
        """Continue to read and drop data."""
        self.resume_body()
