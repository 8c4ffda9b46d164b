"""A response that is forwarded in pieces, as it arrives.

It is made for a response that is not forwarded in one step (`Exchange.response_whole`). The relay
withholds the response for a time if a stored one could still replace it. It frames and compresses
the body for the client, and keeps a copy for the store.
"""

from retter.base.buffers import add_piece
from retter.breaker import Kind, Permit
from retter.compression.pipeline import BodyEncoder, EncodedSink, Trailers
from retter.http.chunked import chunk, last_chunk
from retter.http.content_coding import varies_already
from retter.http.message import Framing, ResponseHead
from retter.proxy.backlog import Backlog
from retter.proxy.client_writer import JOIN_BYTES_MAX
from retter.proxy.interfaces import Client
from retter.proxy.request import ParsedRequest
from retter.proxy.request_body import RequestBody
from retter.proxy.services import Services

# A response to a GET that has a stored response is withheld until it is whole, so that the stored
# one can still replace it. In good times, it is streamed above this size (most pages are smaller)
# and after this time (which a visitor does not notice); a head without a body is withheld for as
# long as no body arrives. In trouble, the size is larger and the time is that of the patience.
HOLD_BYTES_MAX = 64 * 1024
HOLD_S = 0.25
TROUBLE_HOLD_BYTES_MAX = 256 * 1024


NO_TRAILERS: Trailers = []

_FOREVER = float("inf")


class ResponseRelay:
    """The response of one exchange.

    Args:
        body: The request's body, if it has one.
        sink: Takes the octets from the compressing thread.
    """

    begun = False  # octets of the response were sent to the client
    body_bytes = 0  # octets of the body, as sent to the client
    first_byte_s: float | None = None  # of a response in pieces, for the access log
    discarded_bytes = 0  # octets of the body that were neither sent nor stored
    _withheld: list[bytes] | None = None  # not yet sent to the client
    _withheld_bytes = 0
    _backlog: Backlog | None = None  # the memory for it
    _backlog_bytes_max = 0  # of the budget
    _withhold_until = _FOREVER  # after this, it is streamed (monotonic seconds)
    _body_since = _FOREVER  # when its first octets arrived
    paced = False  # a lowest rate is required
    _window_until = _FOREVER  # the end of the present window for its rate
    _window_bytes = 0
    _copy: list[bytes] | None = None  # for the store
    _copied_bytes = 0
    _stored: bytes | None = None  # begins with all octets so far: they need no copy
    _whole: bytes | None = None  # the copy in one piece
    _chunked = False  # the framing for the client
    _encoder: BodyEncoder | None = None  # compresses the body

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

    def keep_copy(self, stored: bytes | None) -> None:
        """Keep a copy of the body for the store.

        Args:
            stored: The body of the stored response. While the new one is equal, it is compared and
                not copied: for 1 MiB that spares two copies of it, in memory that is in no cache.
        """
        self._copy = []
        self._stored = stored

    def drop_copy(self) -> None:
        """Drop the copy: the response is not stored."""
        self._copy = self._stored = self._whole = None

    def copy(self) -> bytes | None:
        """Return what `whole` has returned at the end of the body, if it is to be stored."""
        return self._whole

    def whole(self, data: bytes) -> bytes | None:
        """Return the whole body, which ends with this piece, if all of it was kept."""
        if self._copy is None:
            kept = self._withheld
            if not kept:
                return data if kept is not None or self._body_since == _FOREVER else None
            return b"".join([*kept, data])
        stored = self._stored
        if stored is None or not self._is_next(stored, data):
            self._whole = b"".join([*self._pieces(self._copy), data])
        elif self._copied_bytes + len(data) == len(stored):
            self._whole = stored
        else:
            self._whole = stored[: self._copied_bytes + len(data)]
        return self._whole

    def _is_next(self, stored: bytes, data: bytes) -> bool:
        """Return whether the stored body goes on with this piece, too."""
        return stored.startswith(data, self._copied_bytes)

    def _pieces(self, copy: list[bytes]) -> list[bytes]:
        """Return the copy in pieces; from now on all pieces are copied."""
        stored, self._stored = self._stored, None
        if stored is not None and self._copied_bytes:
            copy.append(stored[: self._copied_bytes])
        return copy

    def withhold(self, now: float, *, trouble: bool) -> None:
        """Withhold the response until it is whole, or too large, or may be streamed."""
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
        """Whether the response is withheld."""
        return self._withheld is not None

    def stop_withholding(self) -> bool:
        """Drop the withheld octets, if any, and return whether there were some."""
        withheld, self._withheld = self._withheld, None
        if self._backlog is not None:
            self._backlog.release()
            self._backlog = None
        return withheld is not None

    def may_be_streamed(self, now: float) -> bool:
        """Whether the response has been withheld for long enough, and more of it arrives."""
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
        """Take a piece of the body. The first comes with the head, and may be empty."""
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
            if self._whole is None and not (
                self._stored is not None and self._is_next(self._stored, data)
            ):
                add_piece(self._pieces(self._copy), data)
            self._copied_bytes += len(data)
            if self._copied_bytes > self._services.store_object_bytes_max:
                self.drop_copy()

    def release(
        self,
        client: Client,
        complete: bool = False,
        trailers: Trailers = NO_TRAILERS,
    ) -> None:
        """Send the withheld octets; from now on, the response is streamed."""
        assert self._withheld is not None, "it is not held"
        body = b"".join(self._withheld)
        self.stop_withholding()
        self._begin(client, body, complete, trailers)

    def ends_empty(self, data: bytes) -> bool:
        """Whether a response that ends with its connection, and with this piece, has no body.

        A killed application closes its connections too, and the recipient cannot distinguish the
        two cases (RFC 9112 section 8). A response that is empty on purpose has a Content-Length.
        So such a response is only forwarded if there is no stored one, and is never stored.
        """
        return self.head.framing is Framing.CLOSE and not data and self._body_since == _FOREVER

    # -- its pace ---------------------------------------------------------------------------

    def start_window(self, now: float) -> None:
        """Begin to measure the rate of the body."""
        self.paced = True
        self._window_bytes = 0
        self._window_until = now + self._services.settings.upstream_body_timeout_s

    def stop_window(self) -> None:
        """Stop measuring: the client is the slow side."""
        self._window_until = _FOREVER

    def drips(self, now: float) -> bool:
        """Whether too few octets arrived within `--upstream-body-timeout`."""
        if now < self._window_until:
            return False
        settings = self._services.settings
        wanted = settings.upstream_body_min_rate_bytes * settings.upstream_body_timeout_s
        if self._window_bytes < wanted:
            return True
        self.start_window(now)
        return False

    def ends_with_connection(self) -> bool:
        """Whether the client would treat a normal close as the end of its response.

        A cut response must be recognisable (RFC 9112 section 8). Other framings show it anyway.
        """
        if self._parsed.head.form.http11:
            return False
        return self.head.framing is not Framing.LENGTH or self._encoder is not None

    # -- to the client ----------------------------------------------------------------------

    def _begin(self, client: Client, body: bytes, complete: bool, trailers: Trailers) -> None:
        """Send the head and the first octets of the body in one write."""
        services, parsed, head = self._services, self._parsed, self.head
        request = parsed.head
        self.begun = True
        if self._request_body is not None and not self._request_body.complete:
            client.close_after_answer()  # an early response: the rest of the request is not read
        sent, extra, framing = head.forward, b"", head.framing
        if head.compressible:
            sent, body, framing = self._compressed(body, complete, trailers)
        elif head.status == 304 and request.form.conditional:
            varies = any(varies_already(name, value) for name, value in head.fields)
            sent = services.compression.weakened.shown(sent, request.forward, varies=varies)
        self.body_bytes = len(body)
        if (framing is Framing.CHUNKED or framing is Framing.CLOSE) and request.method != b"HEAD":
            if request.form.http11:
                self._chunked = True
                extra = b"Transfer-Encoding: chunked\r\n"
                body = chunk(body) + last_chunk(trailers) if complete else chunk(body)
            else:
                client.close_after_answer()  # RFC 9112 section 6.1: no chunks for HTTP/1.0
        end = services.answers.forwarded_end(parsed.kind, client.begin_answer(request))
        services.counters.count_forwarded(parsed.kind is Kind.GET, self._permit.reason, head.status)
        if complete and len(body) <= JOIN_BYTES_MAX:
            client.out.write_whole(b"".join((sent, extra, end, body)))
        else:
            client.out.write_message(sent + extra + end, body)

    def _compressed(
        self, body: bytes, complete: bool, trailers: Trailers
    ) -> tuple[bytes, bytes, Framing]:
        """Return the head and the first octets of the body, compressed if this client gains by it.

        The returned framing is the application's if nothing was changed. Otherwise it is LENGTH,
        and nothing must be added to the returned octets.
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
        """Send octets from the thread, or flushed ones. They are framed already."""
        if data:
            self.body_bytes += len(data)
            client.out.write(data)

    def is_encoding(self) -> bool:
        """Whether a piece of the body is being compressed in the thread."""
        return self._encoder is not None and self._encoder.busy

    def stop_encoding(self) -> None:
        """Drop the rest of the body."""
        if self._encoder is not None:
            self._encoder.cancel()
            self._encoder = None

    def forget_encoder(self) -> None:
        """Drop the encoder: it is done, or the thread has it and the sink need not stay alive."""
        self._encoder = None
