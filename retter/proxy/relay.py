"""An answer on its way from the application to its client, as it comes.

Made for an answer that is not passed on in one plain step (`Exchange.response_whole`). The relay
holds it back for a time where a stored response could still stand in for it, frames and compresses
what goes to the client, and keeps a copy for the store.
"""

from retter.base.buffers import add_piece
from retter.breaker import Kind, Permit
from retter.compression.pipeline import BodyEncoder, EncodedSink, Trailers
from retter.http.chunked import chunk, last_chunk
from retter.http.content_coding import varies_already
from retter.http.message import Framing, ResponseHead
from retter.proxy.backlog import Backlog
from retter.proxy.interfaces import Client
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services

# An answer to a GET that has a stored response is held back until it is whole, so that the stored
# one can still stand in for it. In good times, not beyond this size (what a page usually stays
# under) and this time (what a visitor does not notice), for then it is streamed; but its head alone
# is held for as long as no body comes. In trouble up to a larger size, for as long as the patience
# for the answer lasts.
HOLD_BYTES_MAX = 64 * 1024
HOLD_S = 0.25
TROUBLE_HOLD_BYTES_MAX = 256 * 1024


NO_TRAILERS: Trailers = []

_FOREVER = float("inf")


class ResponseRelay:
    """The answer of one exchange.

    Args:
        body: Of the request, if it has one.
        sink: Takes what comes out of the compressing thread.
    """

    begun = False  # bytes of the answer went to the client
    body_bytes = 0  # of the answer, as the client gets it
    first_byte_s: float | None = None  # of an answer in pieces, for the access log
    discarded_bytes = 0  # of the body, that went neither to client nor to store
    _withheld: list[bytes] | None = None  # not yet sent to the client
    _withheld_bytes = 0
    _backlog: Backlog | None = None  # the memory for it
    _backlog_bytes_max = 0  # of the budget
    _withhold_until = _FOREVER  # it is streamed from then on (monotonic seconds)
    _body_since = _FOREVER  # its first octets came then
    paced = False  # it has to keep a rate
    _window_until = _FOREVER  # what is streamed has to keep its rate until then
    _window_bytes = 0
    _copy: list[bytes] | None = None  # for the store
    _copied_bytes = 0
    _chunked = False  # how the client gets it
    _encoder: BodyEncoder | None = None  # compresses the body on its way

    def __init__(
        self,
        services: Services,
        parsed: ParsedRequest,
        body: RequestBody | None,
        permit: Permit,
        head: ResponseHead,
        sink: EncodedSink,
    ) -> None:
        self._services = services
        self._parsed = parsed
        self._request_body = body
        self._permit = permit
        self.head = head
        self._sink = sink

    # -- what becomes of it -----------------------------------------------------------------

    def keep_copy(self) -> None:
        """Keep a copy of the body for the store."""
        self._copy = []

    def drop_copy(self) -> None:
        """It is not to be stored."""
        self._copy = None

    def copy(self) -> list[bytes] | None:
        """Return the body in pieces, if it is to be stored."""
        return self._copy

    def whole(self, data: bytes) -> bytes | None:
        """Return the body that ends with this piece, if all of it has been kept."""
        kept = self._copy if self._copy is not None else self._withheld
        if not kept:
            return data if kept is not None or self._body_since == _FOREVER else None
        return b"".join([*kept, data])

    def withhold(self, now: float, *, trouble: bool) -> None:
        """Hold the answer back until it is whole or too large, or may be streamed."""
        self._withheld = []
        free_bytes = HOLD_BYTES_MAX
        if trouble:
            self._backlog_bytes_max = TROUBLE_HOLD_BYTES_MAX - HOLD_BYTES_MAX
        else:
            self._withhold_until = now + HOLD_S
            if self.head.content_length > HOLD_BYTES_MAX:
                free_bytes = 0  # it is streamed from its first octet on
        self._backlog = Backlog(self._services.buffers, free_bytes, self._permit.client)

    @property
    def is_withheld(self) -> bool:
        """Whether it is held back."""
        return self._withheld is not None

    def stop_withholding(self) -> bool:
        """Forget what is held: something else is sent in its place; whether there was any."""
        withheld, self._withheld = self._withheld, None
        if self._backlog is not None:
            self._backlog.release()
            self._backlog = None
        return withheld is not None

    def may_be_streamed(self, now: float) -> bool:
        """Whether what is held has been held for long enough, and comes on."""
        if self._withheld is None or now < self._withhold_until or not self._withheld_bytes:
            return False
        rate_bytes = self._services.settings.upstream_body_min_rate_bytes
        return self._withheld_bytes >= rate_bytes * (now - self._body_since)

    def take(
        self,
        client: Client | None,
        data: bytes,
        complete: bool,
        trailers: Trailers,
        now: float,
    ) -> None:
        """Take a piece of the body: the first comes with the head, and may be empty."""
        if data and self._body_since == _FOREVER:
            self._body_since = now
        self._window_bytes += len(data)
        if client is None:
            if self._copy is None:
                self.discarded_bytes += len(data)
        elif self._withheld is not None and self._backlog is not None:
            add_piece(self._withheld, data)
            self._withheld_bytes += len(data)
            if (
                complete
                or not self._backlog.reserve(self._withheld_bytes, self._backlog_bytes_max)
                or self.may_be_streamed(now)
            ):
                self.release(client, complete, trailers)
        elif self.begun:
            self._send(client, data, complete, trailers)
        else:
            self._begin(client, data, complete, trailers)
        if self._copy is not None:
            add_piece(self._copy, data)
            self._copied_bytes += len(data)
            if self._copied_bytes > self._services.settings.store_object_bytes_max:
                self._copy = None

    def release(
        self,
        client: Client,
        complete: bool = False,
        trailers: Trailers = NO_TRAILERS,
    ) -> None:
        """Send what was held back; from here on the answer is streamed."""
        assert self._withheld is not None, "it is not held"
        body = b"".join(self._withheld)
        self.stop_withholding()
        self._begin(client, body, complete, trailers)

    def ends_empty(self, data: bytes) -> bool:
        """Whether an answer that ends with its connection, and with this piece, has no body at all.

        An application that is killed ends its connections too, and RFC 9112 section 8 knows no
        way to tell. With the head alone there is doubt enough: an answer that is empty on purpose
        has a Content-Length. So it is passed on where nothing better is at hand, never stored.
        """
        return self.head.framing is Framing.CLOSE and not data and self._body_since == _FOREVER

    # -- its pace ---------------------------------------------------------------------------

    def start_window(self, now: float) -> None:
        """Begin to measure the rate at which it comes."""
        self.paced = True
        self._window_bytes = 0
        self._window_until = now + self._services.settings.upstream_body_timeout_s

    def stop_window(self) -> None:
        """It is the client that lets it wait."""
        self._window_until = _FOREVER

    def drips(self, now: float) -> bool:
        """Whether too little of it has come in the last `--upstream-body-timeout`."""
        if now < self._window_until:
            return False
        settings = self._services.settings
        wanted = settings.upstream_body_min_rate_bytes * settings.upstream_body_timeout_s
        if self._window_bytes < wanted:
            return True
        self.start_window(now)
        return False

    def ends_with_connection(self) -> bool:
        """Whether the client would take a plain close for the end of its answer.

        A cut answer must look like one (RFC 9112 section 8): other framings show it by themselves.
        """
        if self._parsed.head.http11:
            return False
        return self.head.framing is not Framing.LENGTH or self._encoder is not None

    # -- to the client ----------------------------------------------------------------------

    def _begin(self, client: Client, body: bytes, complete: bool, trailers: Trailers) -> None:
        """Send the head, with what there is of the body, in one write."""
        services, parsed, head = self._services, self._parsed, self.head
        request = parsed.head
        self.begun = True
        if self._request_body is not None and not self._request_body.complete:
            client.close_after_answer()  # an early answer: the rest of the body is not waited for
        sent, extra, framing = head.forward, b"", head.framing
        if head.compressible:
            sent, body, framing = self._compressed(body, complete, trailers)
        elif head.status == 304 and request.conditional:
            varies = any(varies_already(name, value) for name, value in head.fields)
            sent = services.compression.weakened.shown(sent, request.forward, varies=varies)
        self.body_bytes = len(body)
        if (framing is Framing.CHUNKED or framing is Framing.CLOSE) and request.method != b"HEAD":
            if request.http11:
                self._chunked = True
                extra = b"Transfer-Encoding: chunked\r\n"
                body = chunk(body) + last_chunk(trailers) if complete else chunk(body)
            else:
                client.close_after_answer()  # RFC 9112 section 6.1: no chunks for HTTP/1.0
        end = services.answers.forwarded_end(parsed.kind, client.begin_answer(request))
        services.counters.count_forwarded(parsed.kind is Kind.GET, self._permit.reason, head.status)
        client.out.write_message(sent + extra + end, body)

    def _compressed(
        self, body: bytes, complete: bool, trailers: Trailers
    ) -> tuple[bytes, bytes, Framing]:
        """Return the head and what there is of the body as this client gets them.

        The framing is that of the application where it is left as it came, else LENGTH: then
        nothing is to be added to what is returned.
        """
        compression, parsed, head = self._services.compression, self._parsed, self.head
        if complete and not trailers and (whole := compression.whole(parsed, head, body)):
            return *whole, head.framing if whole[1] is body else Framing.LENGTH
        if (begun := compression.stream(parsed, head, self._sink)) is None:
            return head.forward, body, head.framing
        sent, self._encoder = begun
        return sent, self._encoder.feed(body, complete, trailers), Framing.LENGTH

    def _send(self, client: Client, data: bytes, complete: bool, trailers: Trailers) -> None:
        if self._encoder is not None:
            data = self._encoder.feed(data, complete, trailers)
        self.body_bytes += len(data)
        if self._encoder is None and self._chunked:
            data = chunk(data) + last_chunk(trailers) if complete else chunk(data)
        if data:
            client.out.write(data)

    # -- compressing --------------------------------------------------------------------------

    def send_encoded(self, client: Client, data: bytes) -> None:
        """Send what came out of the thread, or was flushed: it is framed already."""
        if data:
            self.body_bytes += len(data)
            client.out.write(data)

    def is_encoding(self) -> bool:
        """Whether a piece of the body is in the thread."""
        return self._encoder is not None and self._encoder.busy

    def stop_encoding(self) -> None:
        """Nobody wants the rest of it."""
        if self._encoder is not None:
            self._encoder.cancel()
            self._encoder = None

    def forget_encoder(self) -> None:
        """It has done its work, or the thread has it: its sink need not be kept alive."""
        self._encoder = None
