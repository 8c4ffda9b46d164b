"""The requests of one client connection: heads and bodies are read from bytes, one by one.

One request is processed at a time. Bytes that the client sends meanwhile stay in the buffer, up to
a limit, and then in the socket. `exchange.begin` decides how each request is handled.
"""

from abc import abstractmethod
from enum import Enum, auto
from typing import Final

from retter.base.errors import BadRequest, DownstreamError, RequestTooLarge
from retter.breaker import Kind
from retter.http.framing_rules import check_request_head
from retter.http.memo import HeadMemo
from retter.http.message import Framing
from retter.http.read_buffer import ReadBuffer, end_of_head
from retter.proxy.backlog import WAITING_BYTES_MAX, Backlog
from retter.proxy.exchange import begin
from retter.proxy.interfaces import Client, Work
from retter.proxy.local_answers import unanswered
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services

_FOREVER: Final = float("inf")
_NO_BODY: Final = Framing.NONE

# Bytes that are read ahead while a client waits for a response, before reading stops: pipelined
# heads, or a body that the application does not accept yet.
READ_AHEAD_BYTES_MAX: Final = 64 * 1024

# Longer data is hardly ever a head alone. Hashing it would be wasted: 4 us for a form of 10 KiB.
LOOKED_UP_BYTES_MAX: Final = 4096

# This much of a head that is incomplete, or of requests that were read ahead, is not counted: most
# heads that are split into packets are shorter.
WAITING_FREE_BYTES: Final = 4 * 1024

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_CR: Final = 13

# Empty lines before a request line that are ignored (RFC 9112 section 2.2), in octets.
_LEADING_BYTES_MAX: Final = 16


class ConnectionPhase(Enum):
    """How far a client connection has come."""

    OPEN = auto()  # requests are received and answered
    BODY = auto()  # the present request's body is received
    DECODING = auto()  # a stored response is decoded for the present request
    TUNNEL = auto()  # bytes flow in both directions after a 101
    LINGERING = auto()  # after the last response: received data is dropped (lingering.py)
    CLOSED = auto()


# Looked up once, as in exchange.py.
_OPEN: Final = ConnectionPhase.OPEN
_BODY: Final = ConnectionPhase.BODY
_DECODING: Final = ConnectionPhase.DECODING


class Requester(Client):
    """The part of a client connection that ClientRequests uses."""

    __slots__ = (
        "body", "deadline", "last", "paused", "phase", "sends_no_more", "waiting", "work",
    )  # fmt: skip

    phase: ConnectionPhase
    deadline: float  # monotonic seconds
    work: Work | None  # for the present request
    body: RequestBody | None  # of the present request, until it is complete
    last: bool  # the connection is closed after the present response
    sends_no_more: bool  # the client has closed its sending direction
    paused: bool  # reading is paused
    waiting: Backlog | None  # the memory of octets that are not used yet

    @abstractmethod
    def watch(self, now: float) -> None:
        """Register the deadline, which is now earlier."""

    @abstractmethod
    def refuse(self, error: DownstreamError) -> None:
        """Answer bytes that are no valid request with an error, and close."""

    @abstractmethod
    def refuse_rest(self, error: DownstreamError) -> None:
        """Answer a request whose rest could not be read, and close."""

    @abstractmethod
    def end(self, sending: bool = False) -> None:
        """Close after the last response, without truncating it while the client still sends.

        Args:
            sending: The client may still send, although no body is awaited.
        """

    @abstractmethod
    def disconnect(self, now: float) -> None:
        """Close at once in the middle of an exchange or a tunnel, and notify it."""

    @abstractmethod
    def go_on(self, now: float) -> None:
        """Continue to read, beginning with the bytes that were read ahead."""


def request_body(services: Services, parsed: ParsedRequest, client: int) -> RequestBody:
    """Make the reader of a request's body.

    On `--stream-paths`, it does not buffer the body and requires no minimum rate.

    Args:
        client: The number of the client that sends the body; 0 if that is not known.
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


def _is_free(connection: Requester) -> bool:
    """Return whether no request is being worked on.

    For use after a call that may have begun one: mypy, and so compiled code, would otherwise
    believe that `work` has not changed.
    """
    return connection.work is None


class ClientRequests:
    """Processes the bytes of one connection.

    Each call passes the connection as an argument. If the two objects referred to each other, only
    the garbage collector could free them.

    Attributes:
        buffer: Part of a head, or requests that were read ahead; never empty.
        count: Number of requests that have begun.
    """

    __slots__ = ("_busy", "_kept_back", "_memo", "_proto", "_services", "buffer", "count")

    def __init__(self, services: Services, memo: HeadMemo[ParsedRequest], proto: bytes) -> None:
        self._services = services
        self._memo = memo
        self._proto = proto
        self._busy = False  # inside the loop over requests
        self._kept_back = False  # later requests wait in the buffer
        self.buffer: ReadBuffer | None = None
        self.count = 0

    # -- heads ------------------------------------------------------------------------------------

    def receive(
        self, connection: Requester, data: bytes, parsed: ParsedRequest | None, now: float
    ) -> ParsedRequest | None:
        """Process bytes while no request is in progress.

        Args:
            parsed: The parsed request, if the bytes are one known head of at most
                LOOKED_UP_BYTES_MAX.

        Returns:
            The request, if the bytes are a head without a body and nothing else: the caller begins
            it. All others have begun.
        """
        if self.buffer is not None:
            self._receive_more(connection, self.buffer, data, now)
            return None
        size = len(data)
        if (
            size > LOOKED_UP_BYTES_MAX
            or size > self._services.head_bytes_max
            or connection.out.backlog is not None
            or connection.sends_no_more
        ):
            self._receive_from(connection, data, 0, now)
            return None
        # Perhaps one head and nothing else: a short form of the loop over requests (saves 120 of
        # its 190 instructions).
        try:
            if parsed is None:
                memo = self._memo
                if data in memo.old:
                    parsed = memo.get_old(data)
                else:
                    memo.misses += 1
                    who = connection.forwarding
                    parsed = self._services.heads.parse_plain(data, memo, self._proto, who)
            if parsed is None:
                self._memo.misses -= 1  # the head is looked up again when its end is known
                self._receive_from(connection, data, 0, now)
            elif parsed.head.form.framing is _NO_BODY:
                return parsed
            else:
                self.begin_with_body(connection, parsed, b"", now)
        except DownstreamError as error:
            connection.refuse(error)
        return None

    def go_on(self, connection: Requester, now: float) -> None:
        """Continue with the bytes that were read ahead."""
        if self.buffer is not None and not self._busy:
            connection.out.flush()
            self._receive_from(connection, *self._take_buffer(connection, self.buffer), now)

    def take_rest(self, connection: Requester) -> bytes:
        """Return the bytes that were read ahead, for a tunnel."""
        if self.buffer is None:
            return b""
        data, at = self._take_buffer(connection, self.buffer)
        return data[at:]

    def _take_buffer(self, connection: Requester, buffer: ReadBuffer) -> tuple[bytes, int]:
        self.drop_buffer(connection)
        self._kept_back = False
        return buffer.taken()

    def drop_buffer(self, connection: Requester) -> None:
        """Drop the octets that wait, and return their memory."""
        self.buffer = None
        waiting, connection.waiting = connection.waiting, None
        if waiting is not None:
            waiting.release()

    def _has_room(self, connection: Requester, buffer: ReadBuffer) -> bool:
        """Take memory for the octets that wait; False if there is none left for this client."""
        octets, waiting = buffer.memory_bytes, connection.waiting
        if waiting is None:
            if octets <= WAITING_FREE_BYTES:
                return True
            who = connection.forwarding
            # A trusted proxy forwards the requests of many clients.
            number = 0 if who.trusted else who.number
            waiting = Backlog(self._services.waiting, WAITING_FREE_BYTES, number)
            connection.waiting = waiting
        return waiting.reserve(octets, WAITING_BYTES_MAX)

    def read_ahead(self, connection: Requester, data: bytes, begin: int = 0) -> None:
        """Keep the bytes of `data` from `begin` on until the present request is done."""
        buffer = self.buffer
        if buffer is None:
            buffer = self.buffer = ReadBuffer(data, begin)
        else:
            buffer.add(data[begin:])
        if not self._has_room(connection, buffer):
            connection.disconnect(self._services.loop.time())
        elif len(buffer) > READ_AHEAD_BYTES_MAX or buffer.has_heads(
            self._services.settings.pipeline_max
        ):
            connection.pause_body()

    def _receive_more(
        self, connection: Requester, buffer: ReadBuffer, data: bytes, now: float
    ) -> None:
        """Process bytes that follow part of a head; the head may still be incomplete."""
        buffer.add(data)
        if (
            buffer.has_heads()
            or len(buffer) > self._services.head_bytes_max
            or buffer.begins_with_line_end
        ):
            self._receive_from(connection, *self._take_buffer(connection, buffer), now)
            return
        try:
            buffer.check(check_request_head)
            self._require_room(connection, buffer)
        except DownstreamError as error:
            connection.refuse(error)

    def _require_room(self, connection: Requester, buffer: ReadBuffer) -> None:
        """Take memory for a part of a head.

        Raises:
            BadRequest: 431, there is none left.
        """
        if not self._has_room(connection, buffer):
            raise BadRequest("too many large request heads come at the same time", 431)

    def _receive_from(self, connection: Requester, data: bytes, at: int, now: float) -> None:
        """Process the requests in `data` from `at` on, until one has to be waited for.

        No answer waits to be written: it might find that the client does not read.
        """
        self._busy = True
        end = len(data)
        ahead = 0  # number of requests processed in this call
        try:
            while at < end and connection.work is None and connection.phase is _OPEN:
                if ahead:
                    if ahead >= self._services.settings.pipeline_max:
                        self._let_others_go_first(connection, data, at)
                        break
                    connection.out.flush()  # it may find that the client does not read
                if connection.out.backlog is not None:
                    self.read_ahead(connection, data, at)  # write no more until the client reads
                    connection.pause_body()
                    break
                at = self._receive_request(connection, data, at, now)
                ahead += 1
                if self._kept_back and _is_free(connection) and self.buffer is not None:
                    data, at = self._take_buffer(connection, self.buffer)
                    end = len(data)
        except DownstreamError as error:
            connection.refuse(error)
        finally:
            self._busy = False

    def _let_others_go_first(self, connection: Requester, data: bytes, at: int) -> None:
        """Continue in the event loop's next iteration: many small requests would delay others."""
        self.read_ahead(connection, data, at)
        connection.pause_body()
        self._services.loop.call_soon(self._next_turn, connection)

    def _next_turn(self, connection: Requester) -> None:
        # A connection that is blocked by now continues when that ends. A closed one needs nothing.
        if connection.work is None and connection.out.backlog is None and connection.phase is _OPEN:
            connection.go_on(self._services.loop.time())

    def _receive_request(self, connection: Requester, data: bytes, at: int, now: float) -> int:
        """Process the request at `at` in `data`; return the position after it."""
        services, memo, last = self._services, self._memo, len(data)
        parsed: ParsedRequest | None = None
        end = at + len(memo.last)
        if memo.last and data.startswith(memo.last, at):
            parsed = memo.last_value  # its end need not be searched for
        else:
            end = data.find(b"\r\n\r\n", at) + 4
            if end < 4 or end - at > services.head_bytes_max or data[at] == _CR:
                at, end = self._unusual_head(connection, data, at, now)
                if not end:
                    return last
            head_bytes = data[at:end]
            parsed = memo.get(head_bytes)
            if parsed is not None:
                memo.last, memo.last_value = head_bytes, parsed
        if parsed is None:
            who = connection.forwarding
            parsed = services.heads.parse(data[at:end], who.trusted, memo, self._proto, who)
        form, body_at = parsed.head.form, end
        if form.framing is Framing.LENGTH:
            end = min(last, end + form.content_length)
        if connection.sends_no_more and end == last:
            connection.last = True  # the last one that the client has sent
        if form.framing is _NO_BODY:
            if services.draining and end < last:
                # The response's persistence depends on whether further requests follow.
                self.buffer = ReadBuffer(data, end)
                self._kept_back = True
                self.begin(connection, parsed, now)
                return last
            self.begin(connection, parsed, now)
        elif form.framing is Framing.LENGTH:
            self.begin_with_body(connection, parsed, data[body_at:end], now)
        else:
            # The position after a chunked body is known only at its end.
            end = last - len(self.begin_with_body(connection, parsed, data[end:], now))
        if end < last and (connection.work is not None or connection.phase is _DECODING):
            self.read_ahead(connection, data, end)
            return last
        return end

    def begin(self, connection: Requester, parsed: ParsedRequest, now: float) -> None:
        """Begin a request without a body."""
        services = self._services
        services.counters.requests += 1  # count_request, inlined
        count = self.count = self.count + 1
        if count == services.requests_per_connection_max:
            connection.last = True
        connection.deadline = _FOREVER
        connection.work = begin(services, connection, parsed, now)
        if connection.work is None and connection.phase is not _DECODING:
            self._answered_at_once(connection, connection.last, now)

    def _answered_at_once(self, connection: Requester, last: bool, now: float) -> None:
        if last:
            connection.end()
        elif connection.out.backlog is None:
            connection.deadline = now + self._services.keep_alive_s

    def _unusual_head(
        self, connection: Requester, data: bytes, at: int, now: float
    ) -> tuple[int, int]:
        """Handle an incomplete or an oversized head and leading empty lines.

        Returns:
            The positions in `data` where the head begins and ends; the end is 0 if the head is
            incomplete.
        """
        settings = self._services.settings
        begin = at
        while data.startswith(b"\r\n", begin):
            begin += 2
            if begin - at > _LEADING_BYTES_MAX:
                raise BadRequest("nothing but empty lines")
        end = end_of_head(data, settings.head_bytes_max, check_request_head, begin)
        if end:
            return begin, end
        if begin < len(data):
            # The time limit of a head starts with its first byte. Further bytes do not extend it.
            self._wait_until(connection, now + settings.head_timeout_s, now)
        if begin < len(data) and data[begin] != _CR:
            self.buffer = ReadBuffer(data, begin, checked=True)
        else:
            self.buffer = ReadBuffer(data, at)  # keep the empty lines: they count towards the limit
            self._wait_until(connection, now + settings.keep_alive_s, now)
        self._require_room(connection, self.buffer)
        if connection.sends_no_more:
            connection.end()  # the rest will never come
        return begin, 0

    def _wait_until(self, connection: Requester, deadline: float, now: float) -> None:
        """Set the deadline, unless the present one is earlier."""
        connection.deadline = min(connection.deadline, deadline)
        connection.watch(now)

    def count_request(self, connection: Requester) -> None:
        """Count a request; at the limit of requests per connection, make it the last one."""
        self._services.counters.requests += 1
        self.count += 1
        if self.count == self._services.requests_per_connection_max:
            connection.last = True

    # -- bodies -----------------------------------------------------------------------------------

    def begin_with_body(
        self, connection: Requester, parsed: ParsedRequest, rest: bytes, now: float
    ) -> bytes:
        """Begin a request with a body; return the bytes that follow the body."""
        services, form = self._services, parsed.head.form
        bytes_max = services.settings.request_body_bytes_max
        self.count_request(connection)
        connection.deadline = _FOREVER
        who = connection.forwarding
        client = services.peers.client_of(who, parsed) if who.trusted else who.number
        body = connection.body = request_body(services, parsed, client)
        if bytes_max and form.content_length > bytes_max:
            error = RequestTooLarge("the request body is too large")
            self.fail_body(connection, body, error, now)
            return b""
        connection.phase = _BODY
        if not body.buffered:
            self._begin_exchange(connection, body, now)
        if rest and self._awaits(connection, body):
            self.receive_body(connection, body, rest, now)
        if self._awaits(connection, body):
            if form.expect_continue and body.buffered and not body.continued:
                body.continued = True
                connection.out.write(CONTINUE)
            self.await_body(connection, body, now)
            if connection.sends_no_more:
                connection.disconnect(now)  # the rest will never come
            return b""
        return self.take_rest(connection) if connection.work is None else b""

    def _awaits(self, connection: Requester, body: RequestBody) -> bool:
        # Not in place of its calls: since the assignment before them, mypy takes the body of the
        # connection for one that is there, and compiled code fails if it is not.
        return connection.body is body

    def _begin_exchange(self, connection: Requester, body: RequestBody, now: float) -> None:
        """Begin the exchange of a request whose body is complete or is forwarded as it arrives."""
        try:
            work = connection.work = begin(self._services, connection, body.parsed, now, body)
        except Exception:
            body.release()  # no exchange has it
            raise
        if work is None:
            # The rest of an unread body cannot be distinguished from the next request.
            self._answered_at_once(connection, connection.last or not body.complete, now)
        elif not body.complete and body.keeps_some and not work.connected:
            connection.pause_body()  # until the exchange has a connection

    def await_body(self, connection: Requester, body: RequestBody, now: float) -> None:
        """Wait for a body, or for the rest of a body after reading was paused."""
        body.start_clock(now)
        self._await_piece(connection, body, now)

    def _await_piece(self, connection: Requester, body: RequestBody, now: float) -> None:
        if connection.paused:
            return
        deadline = body.next_deadline(now)
        if connection.out.backlog is None:  # else the write timeout applies
            connection.deadline = deadline
            connection.watch(now)

    def receive_body(
        self, connection: Requester, body: RequestBody, data: bytes, now: float
    ) -> None:
        """Process bytes that begin with a part of a body."""
        try:
            piece = body.feed(data)
        except DownstreamError as error:
            self.fail_body(connection, body, error, now)
            return
        if body.complete:
            connection.body = None
            connection.phase = _OPEN
            if (
                connection.sends_no_more
                and body.parsed.head.form.framing is Framing.CHUNKED
                and not body.rest
            ):
                connection.last = True  # as in `_receive_request`
            if connection.out.backlog is None:
                connection.deadline = _FOREVER
        else:
            self._await_piece(connection, body, now)
        if connection.work is None:
            if not body.keep(piece) or body.complete:
                self._begin_exchange(connection, body, now)
        elif piece or body.complete:
            connection.work.request_data(piece, now)
        if rest := body.rest:
            self._receive_rest(connection, rest, now)

    def _receive_rest(self, connection: Requester, rest: bytes, now: float) -> None:
        """Process the bytes that follow a body."""
        if connection.work is not None or (self._busy and connection.phase is _OPEN):
            self.read_ahead(connection, rest)
        elif connection.phase is _OPEN:
            connection.out.flush()
            self._receive_from(connection, rest, 0, now)

    def fail_body(
        self, connection: Requester, body: RequestBody, error: DownstreamError, now: float
    ) -> None:
        """End a request whose body cannot be read to its end."""
        work, connection.work = connection.work, None
        connection.body = None
        if work is None:
            is_get = body.parsed.kind is Kind.GET
            self._services.counters.count_own(is_get, error.reason, error.status)
            unanswered(self._services, connection, body, error.status, error.reason)
            connection.refuse_rest(error)
        elif work.answer_begun:
            work.downstream_gone(now)
            connection.abort()
        else:
            work.client_failed(error, now)
            connection.refuse_rest(error)
