"""The requests of one client connection: heads and bodies out of bytes, one after the other.

One request is worked on at a time; what the client sends meanwhile stays in the buffer, up to a
limit, and then in the socket. What becomes of a request is `exchange.begin`'s to decide.
"""

from abc import abstractmethod
from enum import Enum, auto

from retter.base.errors import BadRequest, DownstreamError, RequestTooLarge
from retter.breaker import Kind
from retter.http.framing_rules import check_request_head
from retter.http.memo import HeadMemo
from retter.http.message import Framing
from retter.http.read_buffer import ReadBuffer, end_of_head
from retter.proxy.exchange import begin
from retter.proxy.interfaces import Client, Work
from retter.proxy.local_answers import unanswered
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services

_FOREVER = float("inf")
_NO_BODY = Framing.NONE

# What a client may send ahead of the answer it waits for, before we stop reading: pipelined heads,
# or a body that the application does not take yet.
READ_AHEAD_BYTES_MAX = 64 * 1024

# What is longer is hardly a head alone, and would be hashed in vain: 4 us for a form of 10 KiB.
LOOKED_UP_BYTES_MAX = 4096

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


class Requester(Client):
    """A client connection as its requests know it."""

    __slots__ = ("body", "deadline", "last", "paused", "phase", "sends_no_more", "work")

    phase: Phase
    deadline: float  # monotonic seconds
    work: Work | None  # on the present request
    body: RequestBody | None  # of the present request, until it has all come
    last: bool  # the connection is closed after the present answer
    sends_no_more: bool  # the client has closed its sending side
    paused: bool  # reading

    @abstractmethod
    def watch(self, now: float) -> None:
        """The deadline has come nearer."""

    @abstractmethod
    def refuse(self, error: DownstreamError) -> None:
        """Answer what could not be read as a request, and close."""

    @abstractmethod
    def refuse_rest(self, error: DownstreamError) -> None:
        """Answer a request whose rest could not be read, and close."""

    @abstractmethod
    def end(self, sending: bool = False) -> None:
        """Close after the last answer, without cutting it off while the client still sends.

        Args:
            sending: It may do so, although no body is waited for.
        """

    @abstractmethod
    def disconnect(self, now: float) -> None:
        """Close at once in the middle of an exchange or a tunnel, which is told so."""


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


class ClientRequests:
    """Takes the bytes of one connection.

    It is told of its connection with each call: they could be freed by the garbage collector alone
    if they always knew each other.

    Attributes:
        buffer: Part of a head, or requests that came before their turn; never empty.
        count: How many requests have begun.
    """

    __slots__ = ("_busy", "_kept_back", "_memo", "_proto", "_services", "buffer", "count")

    def __init__(self, services: Services, memo: HeadMemo[ParsedRequest], proto: bytes) -> None:
        self._services = services
        self._memo = memo
        self._proto = proto
        self._busy = False  # inside the loop over requests
        self._kept_back = False  # what follows the present request waits in the buffer
        self.buffer: ReadBuffer | None = None
        self.count = 0

    # -- heads ------------------------------------------------------------------------------------

    def receive(
        self, connection: Requester, data: bytes, parsed: ParsedRequest | None, now: float
    ) -> None:
        """Take bytes while no request is worked on.

        Args:
            parsed: What they are known to be, if they are one head of LOOKED_UP_BYTES_MAX.
        """
        if self.buffer is not None:
            self._receive_more(connection, self.buffer, data, now)
            return
        end = data.find(b"\r\n\r\n") + 4
        if (
            end != len(data)
            or not 4 < end <= LOOKED_UP_BYTES_MAX
            or end > self._services.settings.head_bytes_max
            or data[0] == _CR
            or connection.out.backlog is not None
            or connection.sends_no_more
        ):
            self._receive_from(connection, data, 0, now)
            return
        # One head and nothing else: what the loop over requests comes to, without the loop (saves
        # 120 of its 190 instructions).
        try:
            memo = self._memo
            if parsed is None:
                parsed = memo.get_old(data)
            if parsed is None:
                who = connection.forwarding
                parsed = self._services.heads.parse(data, who.trusted, memo, self._proto, who)
            if parsed.head.framing is _NO_BODY:
                self.begin(connection, parsed, now)
            else:
                self.begin_with_body(connection, parsed, b"", now)
        except DownstreamError as error:
            connection.refuse(error)

    def go_on(self, connection: Requester, now: float) -> None:
        """Go on with what was read ahead."""
        if self.buffer is not None and not self._busy:
            self._receive_from(connection, *self._take_buffer(self.buffer), now)

    def take_rest(self) -> bytes:
        """Return what was read ahead: it is for a tunnel."""
        if self.buffer is None:
            return b""
        data, at = self._take_buffer(self.buffer)
        return data[at:]

    def _take_buffer(self, buffer: ReadBuffer) -> tuple[bytes, int]:
        self.buffer = None
        self._kept_back = False
        return buffer.taken()

    def read_ahead(self, connection: Requester, data: bytes, begin: int = 0) -> None:
        """Keep what came before its turn: all that begins there in data."""
        buffer = self.buffer
        if buffer is None:
            buffer = self.buffer = ReadBuffer(data, begin)
        else:
            buffer.add(data[begin:])
        if len(buffer) > READ_AHEAD_BYTES_MAX or buffer.has_heads(
            self._services.settings.pipeline_max
        ):
            connection.pause_body()

    def _receive_more(
        self, connection: Requester, buffer: ReadBuffer, data: bytes, now: float
    ) -> None:
        """Take what follows part of a head: perhaps not all of the rest."""
        buffer.add(data)
        if (
            buffer.has_heads()
            or len(buffer) > self._services.settings.head_bytes_max
            or buffer.begins_with_line_end
        ):
            self._receive_from(connection, *self._take_buffer(buffer), now)
            return
        try:
            buffer.check(check_request_head)
        except DownstreamError as error:
            connection.refuse(error)

    def _receive_from(self, connection: Requester, data: bytes, at: int, now: float) -> None:
        """Take the requests that begin there in data, until one has to be waited for."""
        self._busy = True
        end = len(data)
        ahead = 0  # requests that others followed at once
        try:
            while at < end and connection.work is None and connection.phase is _OPEN:
                if connection.out.backlog is not None:
                    self.read_ahead(connection, data, at)  # no more answers before these are read
                    connection.pause_body()
                    break
                if ahead and ahead >= self._services.settings.pipeline_max:
                    self._let_others_go_first(connection, data, at)
                    break
                at = self._receive_request(connection, data, at, now)
                ahead += 1
                if self._kept_back and connection.work is None and self.buffer is not None:
                    data, at = self._take_buffer(self.buffer)
                    end = len(data)
        except DownstreamError as error:
            connection.refuse(error)
        finally:
            self._busy = False

    def _let_others_go_first(self, connection: Requester, data: bytes, at: int) -> None:
        """Go on in the loop's next round: many small requests would hold all clients up."""
        self.read_ahead(connection, data, at)
        connection.pause_body()
        self._services.loop.call_soon(self._next_turn, connection)

    def _next_turn(self, connection: Requester) -> None:
        # If it is blocked or closed by now, whatever ends that goes on, or nobody has to.
        if connection.work is None and connection.out.backlog is None and connection.phase is _OPEN:
            connection.resume_body()
            self.go_on(connection, self._services.loop.time())

    def _receive_request(self, connection: Requester, data: bytes, at: int, now: float) -> int:
        """Take the request that begins there in data; return where what is still to do begins."""
        services, last = self._services, len(data)
        end = data.find(b"\r\n\r\n", at) + 4
        if end < 4 or end - at > services.settings.head_bytes_max or data[at] == _CR:
            at, end = self._unusual_head(connection, data, at, now)
            if not end:
                return last
        head_bytes = data[at:end]
        parsed = self._memo.get(head_bytes)
        if parsed is None:
            who = connection.forwarding
            parsed = services.heads.parse(head_bytes, who.trusted, self._memo, self._proto, who)
        if connection.sends_no_more and end == last:
            connection.last = True  # the last one that the client has sent
        head = parsed.head
        if head.framing is _NO_BODY:
            if services.draining and end < last:
                # The answer must know that more follows.
                self.buffer = ReadBuffer(data, end)
                self._kept_back = True
                self.begin(connection, parsed, now)
                return last
            self.begin(connection, parsed, now)
        elif head.framing is Framing.LENGTH:
            body_at, end = end, min(last, end + head.content_length)
            self.begin_with_body(connection, parsed, data[body_at:end], now)
        else:
            # What follows a chunked body is found out with its end.
            end = last - len(self.begin_with_body(connection, parsed, data[end:], now))
        if end < last and (connection.work is not None or connection.phase is _DECODING):
            self.read_ahead(connection, data, end)
            return last
        return end

    def begin(self, connection: Requester, parsed: ParsedRequest, now: float) -> None:
        """Begin a request without a body."""
        services = self._services
        services.counters.requests += 1  # count_request, without a call
        count = self.count = self.count + 1
        if count == services.settings.requests_per_connection_max:
            connection.last = True
        connection.deadline = _FOREVER
        connection.work = begin(services, connection, parsed, now)
        if connection.work is None and connection.phase is not _DECODING:
            self._answered_at_once(connection, connection.last, now)

    def _answered_at_once(self, connection: Requester, last: bool, now: float) -> None:
        if last:
            connection.end()
        elif connection.out.backlog is None:
            connection.deadline = now + self._services.settings.keep_alive_s

    def _unusual_head(
        self, connection: Requester, data: bytes, at: int, now: float
    ) -> tuple[int, int]:
        """Handle an incomplete or an oversized head and leading empty lines.

        Returns:
            Where the head begins and ends in data; 0 for its end if the rest of it is waited for.
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
            # The clock of a head starts with its first byte and is not set back by more of them.
            self._wait_until(connection, now + settings.head_timeout_s, now)
        if begin < len(data) and data[begin] != _CR:
            self.buffer = ReadBuffer(data, begin, checked=True)
        else:
            self.buffer = ReadBuffer(data, at)  # empty lines are counted on
            self._wait_until(connection, now + settings.keep_alive_s, now)
        if connection.sends_no_more:
            connection.end()  # the rest of it will never come
        return begin, 0

    def _wait_until(self, connection: Requester, deadline: float, now: float) -> None:
        """Wait no longer than that: there may be no deadline, or a later one."""
        connection.deadline = min(connection.deadline, deadline)
        connection.watch(now)

    def count_request(self, connection: Requester) -> None:
        """Count a request; the connection may have had as many as it may."""
        self._services.counters.requests += 1
        self.count += 1
        if self.count == self._services.settings.requests_per_connection_max:
            connection.last = True

    # -- bodies -----------------------------------------------------------------------------------

    def begin_with_body(
        self, connection: Requester, parsed: ParsedRequest, rest: bytes, now: float
    ) -> bytes:
        """Begin a request with a body; return what follows it."""
        services, head = self._services, parsed.head
        bytes_max = services.settings.request_body_bytes_max
        if bytes_max and head.content_length > bytes_max:
            raise RequestTooLarge("the request body is too large")
        self.count_request(connection)
        connection.deadline = _FOREVER
        who = connection.forwarding
        client = services.peers.client_of(who, parsed) if who.trusted else who.number
        body = connection.body = request_body(services, parsed, client)
        connection.phase = _BODY
        if not body.buffered:
            self._begin_exchange(connection, body, now)
        if rest and self._awaits(connection, body):
            self.receive_body(connection, body, rest, now)
        if self._awaits(connection, body):
            if head.expect_continue and body.buffered and not body.continued:
                body.continued = True
                connection.out.write(CONTINUE)
            self.await_body(connection, body, now)
            if connection.sends_no_more:
                connection.disconnect(now)  # the rest of it will never come
            return b""
        return self.take_rest() if connection.work is None else b""

    def _awaits(self, connection: Requester, body: RequestBody) -> bool:
        return connection.body is body

    def _begin_exchange(self, connection: Requester, body: RequestBody, now: float) -> None:
        """Begin what becomes of a request whose body is complete, or is passed on as it comes."""
        work = connection.work = begin(self._services, connection, body.parsed, now, body)
        if work is None:
            # The rest of a body cannot be told from a next request's bytes.
            self._answered_at_once(connection, connection.last or not body.complete, now)
        elif not body.complete and body.keeps_some and not work.connected:
            connection.pause_body()  # until the exchange can take it

    def await_body(self, connection: Requester, body: RequestBody, now: float) -> None:
        """Await a body, or the rest of one that could not be read for a time."""
        body.start_clock(now)
        self._await_piece(connection, body, now)

    def _await_piece(self, connection: Requester, body: RequestBody, now: float) -> None:
        if connection.paused:
            return
        deadline = body.next_deadline(now)
        if connection.out.backlog is None:  # else it has its time to take what is written
            connection.deadline = deadline
            connection.watch(now)

    def receive_body(
        self, connection: Requester, body: RequestBody, data: bytes, now: float
    ) -> None:
        """Take bytes that belong to a body, at least the first of them."""
        try:
            piece = body.feed(data)
        except DownstreamError as error:
            self.fail_body(connection, body, error, now)
            return
        if body.complete:
            connection.body = None
            connection.phase = _OPEN
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
        """Take what follows a body."""
        if connection.work is not None or (self._busy and connection.phase is _OPEN):
            self.read_ahead(connection, rest)
        elif connection.phase is _OPEN:
            self._receive_from(connection, rest, 0, now)

    def fail_body(
        self, connection: Requester, body: RequestBody, error: DownstreamError, now: float
    ) -> None:
        """The request ends in the middle of its body."""
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
