"""One connection to the admin listener: HTTP/1.1 by h11, one small request at a time.

There is no timer and no task: the listener checks all its connections once a second, and each
handler answers at once, or when a thread is done. A client that receives events gets them as they
come. One that does not read them misses some, and is disconnected if it reads nothing for WRITE_S.
"""

import asyncio
from math import inf
from typing import Protocol, cast

import h11

from retter.admin.message import (
    AdminAnswer,
    AdminError,
    AdminRequest,
    Answer,
    EventStream,
    LaterAnswer,
    error_answer,
)
from retter.http.framing_rules import fault_of, has_control
from retter.proxy.services import Services

HEAD_BYTES_MAX = 32 * 1024  # the query may contain the cookies of a request to be explained
BODY_BYTES_MAX = 64 * 1024  # a form may contain the whole head of such a request
REQUEST_S = 5.0  # from the start of a connection, or the first byte of a request, to the last byte
IDLE_S = 75.0  # between requests
WAIT_S = 10.0  # for an answer that comes later; whoever gives it has a time limit of its own
WRITE_S = 20.0  # a client that reads nothing for this long is disconnected
EVENTS_BYTES_MAX = 64 * 1024  # that one client has not read yet: ten seconds of events

# Fields of every response. Figures are never cached, nor shown inside a page of another site.
_FIELDS = (
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
_STRICT_POLICY = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")

_FRAMING = {b"content-length", b"transfer-encoding"}


class Listener(Protocol):
    """The part of the listener that a connection uses."""

    services: Services
    loop: asyncio.AbstractEventLoop

    def accept(self, connection: "AdminConnection") -> bool: ...
    def lost(self, connection: "AdminConnection") -> None: ...
    def answer(self, request: AdminRequest) -> Answer: ...
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
        self._after_cr = False  # whether the last received octet was a CR
        self.listens = False  # receives events
        self._waits = False  # for the answer to its request, which comes later
        self._since = self._loop.time()  # the time of the last event
        self.deadline = self._loop.time() + REQUEST_S

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=EVENTS_BYTES_MAX)
        if not self._admin.accept(self):
            self._transport.abort()

    def waits_since(self) -> float:
        """Return since when it waits for its client (monotonic seconds).

        Nearly all requests are answered at once, so each connection waits for its client: to send
        a request, to send the rest of it, or to read the response. Infinity if it receives events,
        or if its answer comes later.
        """
        return inf if self.listens or self._waits else self._since

    def data_received(self, data: bytes) -> None:
        if self.listens or self._transport is None or self._transport.is_closing():
            return  # a client that receives events has nothing to send
        if self._h11.our_state is h11.IDLE and not self._h11.trailing_data[0]:
            # More bytes of the same request do not extend its time.
            self._since = self._loop.time()
            self.deadline = self._since + REQUEST_S
        if not self._is_plain(data):
            self._refuse(AdminError(400, "not HTTP/1.1: a control character"))
            return
        self._h11.receive_data(data)
        self._receive()

    def _is_plain(self, data: bytes) -> bool:
        """Return whether there are no control characters except line ends.

        h11 would backtrack over a line that contains others, for seconds if it is long. Neither
        forms nor JSON contain any.
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
            self._transport.pause_reading()  # no more requests before the responses are read

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
            fault = f"not HTTP/1.1: {fault_of(error)}"
            self._refuse(AdminError(error.error_status_hint or 400, fault))

    def _receive_requests(self) -> None:
        while not (self.listens or self._blocked):
            event = self._h11.next_event()
            if isinstance(event, h11.Request):
                self._request = event
                self._body, self._body_bytes = [], 0
                if _FRAMING.issubset(name for name, _ in event.headers):
                    # RFC 9112 section 6.1. h11 would ignore the length, and keep the connection.
                    self._refuse(AdminError(400, "both Transfer-Encoding and Content-Length"))
                    return
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
        elif isinstance(answer, LaterAnswer):
            self._wait_for(answer)
        else:
            self._send(answer)

    def _wait_for(self, later: LaterAnswer) -> None:
        assert self._transport is not None
        self._waits, self.deadline = True, self._loop.time() + WAIT_S
        self._transport.pause_reading()  # no more requests before it is there
        later.then(self._send_later)

    def _send_later(self, answer: AdminAnswer) -> None:
        self._waits = False
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.resume_reading()
        self._send(answer)
        if self._h11.our_state is h11.DONE:
            self._h11.start_next_cycle()
            self._receive()

    def _refuse(self, error: AdminError) -> None:
        """Answer a request that cannot be read further, and close."""
        transport = self._transport
        assert transport is not None
        if self._h11.our_state is h11.IDLE:
            self._request = None  # the last request's method must not count here
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
        if not self._blocked:  # otherwise the client's time to read is running
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
        """Send an event, unless the client has not read the last ones yet."""
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
