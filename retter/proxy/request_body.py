"""The body of one request, as it arrives from the client: its framing, its size and its pace.

It is only made for a request with a body. A request whose body has not arrived occupies no place
and no connection at the application. So the body is kept here until it is whole, as far as the
limits allow. No I/O: the connection passes received octets and the time.
"""

from typing import Final

from retter.base.buffers import BufferBudget, add_piece
from retter.base.errors import BadRequest, RequestTooLarge
from retter.http.chunked import BodyMalformed, ChunkedDecoder, chunk, last_chunk
from retter.http.message import Framing
from retter.proxy.request import ParsedRequest
from retter.store.target import body_changes_person, may_change_person

Trailers = list[tuple[bytes, bytes]]

_FOREVER: Final = float("inf")


class RequestBody:
    """Reads and keeps one body (RFC 9112 section 6).

    Args:
        parsed: The request.
        bytes_max: 413 for a larger body; 0: no limit. An announced length has been checked.
        idle_s: Seconds that the client may take for the next piece.
        min_rate_bytes: Lowest average rate over `idle_s`, in octets a second; 0: no limit.
        budget: The memory for all buffered bodies.
        buffer_bytes_max: Octets that it may take of it; 0: it is forwarded as it arrives.
        began_at: When the request came, by the access log's clock.
    """

    # Defaults that most bodies never change are attributes of the class, as in Exchange.
    _decoder: ChunkedDecoder | None = None
    _silent_until = _FOREVER  # the time limit for the next piece
    _window_until = _FOREVER  # the end of the present window for the rate
    _window_octets = 0
    _octets_left = -1  # octets that a CHUNKED body may still have; -1: any
    _taken = 0  # octets of the budget
    _sent = False  # octets were sent to the application
    trailers: Trailers = []  # noqa: RUF012 - replaced, never changed
    complete = False
    stopped = False  # its client sends no more of it, but reads the answer
    continued = False  # RETTER has sent 100 (Continue) to its client
    changes_person = False  # what was sent is a login, a logout, or has another password
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
        form = parsed.head.form
        if form.framing is Framing.CHUNKED:
            self._decoder = ChunkedDecoder()
            self._octets_left = bytes_max or -1
        self._left = form.content_length  # octets of a LENGTH body that are still missing
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
        """Whether the body is buffered before the request is forwarded."""
        head = self.parsed.head
        if head.form.expect_continue and head.content_length > self._buffer_bytes_max:
            return False  # the application may refuse it before it is sent
        return self._buffer_bytes_max > 0 and self._budget.bytes_max > 0

    def feed(self, data: bytes) -> bytes:
        """Take received bytes and return the body octets in them.

        Raises:
            BadRequest: The framing is broken.
            RequestTooLarge: It is larger than `bytes_max`.
        """
        decoder = self._decoder
        if decoder is None:
            if len(data) == self._left:  # usually nothing follows
                self._left = 0
                self.complete = True
                return data
            self._window_octets += len(data)
            body, self.rest = data[: self._left], data[self._left :]
            self._left -= len(body)
            self.complete = not self._left
            return body
        self._window_octets += len(data)
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
        """Begin to measure the pace, or again after reading was paused."""
        self._window_until = now + self._idle_s if self._wanted else _FOREVER
        self._window_octets = 0

    def next_deadline(self, now: float) -> float:
        """Return the time limit for the next piece, from now on."""
        self._silent_until = now + self._idle_s
        return min(self._silent_until, self._window_until)

    def extended_deadline(self, now: float) -> float:
        """Return the next deadline if the body was fast enough until this one, else 0."""
        if now >= self._silent_until or self._window_octets < self._wanted:
            return 0.0
        self.start_clock(now)
        return min(self._silent_until, self._window_until)

    @property
    def waits_since(self) -> float:
        """When the last piece arrived, or the wait began (monotonic seconds)."""
        return self._silent_until - self._idle_s

    # -- kept -----------------------------------------------------------------------------------

    @property
    def keeps_some(self) -> bool:
        """Whether `take` would return octets."""
        return bool(self._kept)

    def keep(self, data: bytes) -> bool:
        """Keep a piece until `take`; False if no more may be read until then.

        A piece without room in the budget is kept all the same, because it has been read.
        """
        add_piece(self._kept, data)
        if not self._budget.take(self._taken, len(data), self._buffer_bytes_max, self._client):
            return False
        self._taken += len(data)
        return True

    def release(self) -> None:
        """Drop the kept octets and return their memory."""
        if self._kept:
            self._kept = []
            self._budget.give_back(self._taken, self._client)
            self._taken = 0

    # -- to the application ---------------------------------------------------------------------

    def take(self, *, again: bool) -> bytes:
        """Return the kept octets, framed for the application; with the end if it is complete.

        Args:
            again: Keep a complete body until `release`, so that it can be taken once more.
        """
        data = b"".join(self._kept)
        if may_change_person(data):
            self.changes_person = body_changes_person(data)
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
        """Whether the body can be sent from its beginning, once more or for the first time."""
        return bool(self._kept) or not self._sent
