"""One connection to the admin listener: HTTP/1.1 by h11, one small request at a time.

No timer and no task: the listener looks at all its connections once a second, and each handler
answers at once. A client that listens for events gets them as they come; one that does not read
them misses some, and is dropped when it takes nothing for long.
"""

import asyncio
from math import inf
from typing import Protocol, cast

import h11

from retter.admin.message import AdminAnswer, AdminError, AdminRequest, EventStream, error_answer
from retter.http.framing_rules import has_control
from retter.proxy.services import Services

HEAD_BYTES_MAX = 32 * 1024  # an explained request's cookies may stand in the query
BODY_BYTES_MAX = 64 * 1024  # and a whole head of a request in a form
REQUEST_S = 5.0  # from a connection's start, or a request's first byte, to its last
IDLE_S = 75.0  # between requests
WRITE_S = 20.0  # a client that takes nothing for so long is dropped
EVENTS_BYTES_MAX = 64 * 1024  # not yet taken by one listener: ten seconds of events

# On every answer. Figures are never cached, nor shown inside another site's page.
_FIELDS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
_STRICT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")


class Listener(Protocol):
    """The part of the listener that a connection uses."""

    services: Services
    loop: asyncio.AbstractEventLoop

    def accept(self, connection: "AdminConnection") -> bool: ...
    def lost(self, connection: "AdminConnection") -> None: ...
    def answer(self, request: AdminRequest) -> AdminAnswer | EventStream: ...
    def begins_to_listen(self, connection: "AdminConnection") -> None: ...


class AdminConnection(asyncio.Protocol):
    """A server-side connection."""

    def __init__(self, admin: Listener) -> None:
        self._admin = admin
        self._loop = admin.loop
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._request: h11.Request | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._blocked = False
        self._after_cr = False  # the last octet that has come
        self.listens = False  # is told events
        self._since = self._loop.time()  # the last thing that happened
        self.deadline = self._loop.time() + REQUEST_S

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=EVENTS_BYTES_MAX)
        if not self._admin.accept(self):
            self._transport.abort()

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds).

        All that is asked is answered at once, so each connection waits for its client: to ask, to
        go on asking, or to take its answer. Infinity for one that listens for events.
        """
        return inf if self.listens else self._since

    def data_received(self, data: bytes) -> None:
        if self.listens or self._transport is None or self._transport.is_closing():
            return  # a listener has nothing more to say
        if self._h11.our_state is h11.IDLE and not self._h11.trailing_data[0]:
            # More bytes of the same request set nothing back.
            self._since = self._loop.time()
            self.deadline = self._since + REQUEST_S
        if not self._is_plain(data):
            self._refuse(AdminError(400, "not HTTP/1.1: a control character"))
            return
        self._h11.receive_data(data)
        self._receive()

    def _is_plain(self, data: bytes) -> bool:
        """Whether there are no control characters but line ends.

        h11 would go back over a line with another one, for seconds if the line is long. Neither
        forms nor JSON have any.
        """
        if self._after_cr and not data.startswith(b"\n"):
            return False
        self._after_cr = data.endswith(b"\r")
        line_ends = data.count(b"\r\n") + self._after_cr
        return data.count(b"\r") == line_ends and not has_control(data)

    def eof_received(self) -> bool:
        return False  # the transport closes

    def connection_lost(self, exc: Exception | None) -> None:
        self._admin.lost(self)

    def pause_writing(self) -> None:
        self._blocked = True
        self.deadline = self._loop.time() + WRITE_S
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()  # no more answers before these are read

    def resume_writing(self) -> None:
        self._blocked = False
        self._wait_on()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._receive()

    # -- requests -----------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            self._receive_requests()
        except h11.RemoteProtocolError as error:
            self._refuse(AdminError(error.error_status_hint or 400, f"not HTTP/1.1: {error}"))

    def _receive_requests(self) -> None:
        while not (self.listens or self._blocked):
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._request = event
                self._body, self._body_bytes = [], 0
                if self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]), b"")
            elif isinstance(event, h11.Data):
                self._body_bytes += len(event.data)
                if self._body_bytes > BODY_BYTES_MAX:
                    self._refuse(AdminError(413, f"a body has {BODY_BYTES_MAX} bytes at most"))
                    return
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._answer()
                if self._h11.our_state is not h11.DONE:
                    return
                self._h11.start_next_cycle()
            else:
                return  # NEED_DATA, PAUSED, or the end

    def _answer(self) -> None:
        request = self._request
        assert request is not None, "h11 begins a message with its head"
        path, _, query = request.target.decode("latin-1").partition("?")
        answer = self._admin.answer(
            AdminRequest(
                request.method.decode("ascii"),
                path,
                query,
                tuple(request.headers),
                b"".join(self._body),
            )
        )
        if isinstance(answer, EventStream):
            self._begin_events()
        else:
            self._send(answer)

    def _refuse(self, error: AdminError) -> None:
        """Answer what cannot be read on, and close."""
        transport = self._transport
        assert transport is not None
        if self._h11.our_state is h11.IDLE:
            self._request = None  # the last one's method says nothing about this answer
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send(error_answer(error), close=True)
        transport.close()

    def _send(self, answer: AdminAnswer, *, close: bool = False) -> None:
        fields = [("Date", self._admin.services.http_date()), ("Content-Type", answer.content_type)]
        fields += [("Content-Length", str(len(answer.body))), *_FIELDS, *answer.fields]
        if not any(name == _STRICT_POLICY[0] for name, _ in answer.fields):
            fields.append(_STRICT_POLICY)
        if close or self._admin.services.draining:
            fields.append(("Connection", "close"))
        body = b"" if self._is_head() else answer.body
        self._write(h11.Response(status_code=answer.status, headers=fields), body)
        self._write_event(h11.EndOfMessage())
        self._wait_on()
        if self._h11.our_state is h11.MUST_CLOSE and self._transport is not None:
            self._transport.close()

    def _is_head(self) -> bool:
        return self._request is not None and self._request.method == b"HEAD"

    def _wait_on(self) -> None:
        if not self._blocked:  # else the time to take what is written runs
            self._since = self._loop.time()
            self.deadline = inf if self.listens else self._since + IDLE_S

    def _write(self, head: h11.Response | h11.InformationalResponse, body: bytes) -> None:
        data = self._h11.send(head) or b""
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
        if self._transport is not None:
            self._transport.write(data)

    def _write_event(self, event: h11.Data | h11.EndOfMessage) -> None:
        data = self._h11.send(event)
        if data and self._transport is not None:
            self._transport.write(data)

    # -- events ---------------------------------------------------------------------------------

    def _begin_events(self) -> None:
        fields = [("Content-Type", "text/event-stream"), *_FIELDS, _STRICT_POLICY]
        self.listens = not self._is_head()
        self._write(h11.Response(status_code=200, headers=fields), b"")
        if self.listens:
            self._wait_on()
            self._admin.begins_to_listen(self)
        else:
            self._write_event(h11.EndOfMessage())

    def tell(self, event: bytes) -> None:
        """Send an event, unless the last ones have not been taken yet."""
        if not self._blocked and self._transport is not None and not self._transport.is_closing():
            self._write_event(h11.Data(data=event))

    # -- the end ----------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called once a second."""
        if now >= self.deadline and self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
