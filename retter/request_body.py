"""The body of one request, as it comes from the client: its framing, its size and its pace.

Made for a request that has a body, and only for such a one. What comes before there is a connection
to the application is kept here. No I/O: the connection says when bytes arrive and what time it is.
"""

from retter.body import BodyMalformed, ChunkedDecoder, chunk, last_chunk
from retter.errors import BadRequest, RequestTooLarge
from retter.message import Framing, RequestHead

_FOREVER = float("inf")


class RequestBody:
    """Reads one body (RFC 9112 section 6).

    Args:
        bytes_max: 413 beyond that; 0: no limit. A length that is announced has been checked.
        idle_s: Seconds that the client may take for the next piece.
        min_rate_bytes: Octets a second that have to come within `idle_s`, on average; 0: any.
    """

    __slots__ = (
        "_decoder", "_idle_s", "_kept", "_left", "_octets_left", "_silent_until", "_wanted",
        "_window_octets", "_window_until", "complete", "rest", "sent", "trailers",
    )  # fmt: skip

    def __init__(
        self, head: RequestHead, bytes_max: int, idle_s: float, min_rate_bytes: int
    ) -> None:
        self._decoder: ChunkedDecoder | None = None
        if head.framing is Framing.CHUNKED:
            self._decoder = ChunkedDecoder()
        self._left = head.content_length            # octets of a LENGTH body still to come
        self._octets_left = bytes_max or -1         # that a CHUNKED body may still have; -1: any
        self._idle_s = idle_s
        self._wanted = min_rate_bytes * idle_s      # octets in a window
        self._silent_until = _FOREVER               # the next piece has to come by then
        self._window_until = _FOREVER               # and by then what the rate asks for
        self._window_octets = 0
        self._kept: list[bytes] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.rest = b""         # received after its end
        self.sent = False       # octets of it went to the application

    # -- from the client ------------------------------------------------------------------------

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

    # -- to the application ---------------------------------------------------------------------

    def keep(self, data: bytes) -> None:
        """Keep a piece until `take`."""
        self._kept.append(data)

    def take(self) -> bytes:
        """Return what was kept, framed for the application; with its end if it is complete."""
        data, self._kept = b"".join(self._kept), []
        return self.framed(data)

    def framed(self, data: bytes) -> bytes:
        """Frame the next octets for the application; with the body's end if it is complete."""
        if data:
            self.sent = True
        if self._decoder is None:
            return data
        return chunk(data) + last_chunk(self.trailers) if self.complete else chunk(data)
