"""The body of one request, as it comes from the client: its framing, its size and its pace.

Made for a request that has a body, and only for such a one. A request whose body has not come holds
no place and no connection to the application, so the body is kept here until it is whole, or as
much of it as may be kept. No I/O: the connection says when bytes arrive and what time it is.
"""

from retter.base.buffers import BufferBudget, add_piece
from retter.base.errors import BadRequest, RequestTooLarge
from retter.http.chunked import BodyMalformed, ChunkedDecoder, chunk, last_chunk
from retter.http.message import Framing
from retter.proxy.request import ParsedRequest

Trailers = list[tuple[bytes, bytes]]

_FOREVER = float("inf")


class RequestBody:
    """Reads and keeps one body (RFC 9112 section 6).

    Args:
        parsed: The request.
        bytes_max: 413 beyond that; 0: no limit. A length that is announced has been checked.
        idle_s: Seconds that the client may take for the next piece.
        min_rate_bytes: Octets a second that have to come within `idle_s`, on average; 0: any.
        budget: The memory that it may wait in, together with others.
        buffer_bytes_max: Octets of that it may take; 0: it is passed on as it comes.
        began_at: When the request came, by the access log's clock.
    """

    # What most bodies never change stands on the class, as in Exchange.
    _decoder: ChunkedDecoder | None = None
    _silent_until = _FOREVER  # the next piece has to come by then
    _window_until = _FOREVER  # and by then what the rate asks for
    _window_octets = 0
    _taken = 0  # octets of the budget
    _sent = False  # octets of it went to the application
    trailers: Trailers = []  # noqa: RUF012 - replaced, never changed
    complete = False
    continued = False  # its client has been told to go on, by us
    rest = b""  # received after its end

    def __init__(
        self,
        parsed: ParsedRequest,
        bytes_max: int,
        idle_s: float,
        min_rate_bytes: int,
        budget: BufferBudget,
        buffer_bytes_max: int,
        began_at: float,
        client: int = 0,
    ) -> None:
        self.parsed = parsed
        if parsed.head.framing is Framing.CHUNKED:
            self._decoder = ChunkedDecoder()
        self._left = parsed.head.content_length  # octets of a LENGTH body still to come
        self._octets_left = bytes_max or -1  # that a CHUNKED body may still have; -1: any
        self._idle_s = idle_s
        self._wanted = min_rate_bytes * idle_s  # octets in a window
        self._budget = budget
        self._client = client
        self._buffer_bytes_max = buffer_bytes_max
        self._kept: list[bytes] = []
        self.began_at = began_at

    # -- from the client ------------------------------------------------------------------------

    @property
    def buffered(self) -> bool:
        """Whether it is kept before anything of the request goes to the application."""
        head = self.parsed.head
        if head.expect_continue and head.content_length > self._buffer_bytes_max:
            return False  # the application may want to refuse it before it is sent
        return self._buffer_bytes_max > 0 and self._budget.bytes_max > 0

    def feed(self, data: bytes) -> bytes:
        """Take received bytes and return the body octets in them.

        Raises:
            BadRequest: The framing is broken.
            RequestTooLarge: It is larger than `bytes_max`.
        """
        self._window_octets += len(data)
        decoder = self._decoder
        if decoder is None:
            body, self.rest = data[: self._left], data[self._left :]
            self._left -= len(body)
            self.complete = not self._left
            return body
        try:
            body = decoder.feed(data)
        except BodyMalformed as error:
            raise BadRequest(str(error)) from error
        if self._octets_left >= 0:
            self._octets_left -= len(body)
            if self._octets_left < 0:
                raise RequestTooLarge("the request body is too large")
        if decoder.complete:
            self.complete = True
            self.trailers = decoder.trailers
            self.rest = decoder.rest()
        return body

    # -- its pace -------------------------------------------------------------------------------

    def start_clock(self, now: float) -> None:
        """Begin to wait for it, or for the rest of it after it could not be read for a time."""
        self._window_until = now + self._idle_s if self._wanted else _FOREVER
        self._window_octets = 0

    def next_deadline(self, now: float) -> float:
        """Wait for the next piece from now on; return until when."""
        self._silent_until = now + self._idle_s
        return min(self._silent_until, self._window_until)

    def extended_deadline(self, now: float) -> float:
        """Return the next deadline if it has come fast enough until this one, else 0."""
        if now >= self._silent_until or self._window_octets < self._wanted:
            return 0.0
        self.start_clock(now)
        return min(self._silent_until, self._window_until)

    @property
    def waits_since(self) -> float:
        """When the last piece came, or the connection began to wait (monotonic seconds)."""
        return self._silent_until - self._idle_s

    # -- kept -----------------------------------------------------------------------------------

    @property
    def keeps_some(self) -> bool:
        """Whether there is something for `take`."""
        return bool(self._kept)

    def keep(self, data: bytes) -> bool:
        """Keep a piece until `take`; False if no more may come until then.

        A piece that the budget has no room for is kept all the same: it has been read.
        """
        add_piece(self._kept, data)
        if not self._budget.take(self._taken, len(data), self._buffer_bytes_max, self._client):
            return False
        self._taken += len(data)
        return True

    def release(self) -> None:
        """Forget what is kept: it is not wanted any more."""
        if self._kept:
            self._kept = []
            self._budget.give_back(self._taken, self._client)
            self._taken = 0

    # -- to the application ---------------------------------------------------------------------

    def take(self, *, again: bool) -> bytes:
        """Return what is kept, framed for the application; with its end if it is complete.

        Args:
            again: Keep a complete body until `release`, to take it once more.
        """
        data = b"".join(self._kept)
        if again and self.complete and not self._sent:
            self._kept = [data]
        else:
            self.release()
        return self.framed(data)

    def framed(self, data: bytes) -> bytes:
        """Frame the next octets for the application; with the body's end if it is complete."""
        if data:
            self._sent = True
        if self._decoder is None:
            return data
        return chunk(data) + last_chunk(self.trailers) if self.complete else chunk(data)

    def at_hand(self) -> bool:
        """Whether it can be sent from its beginning, again or for the first time."""
        return bool(self._kept) or not self._sent
