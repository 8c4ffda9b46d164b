"""The server of the shop: its connections (h11), and its port, which may be closed by a knob.

One connection works on one request at a time. If its client has left, the response is made all the
same, and counted.
"""

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import unquote

import h11

from retter.demo.database import Result
from retter.demo.knobs import Condition, Knobs
from retter.demo.messages import EventStream, Page, Reply, Request
from retter.demo.shop import Shop
from retter.net.supervision import start_task

BODY_BYTES_MAX: Final = 64 * 1024  # the forms are some hundred bytes
HEAD_BYTES_MAX: Final = 16 * 1024
CONNECTIONS_MAX: Final = 20_000  # further ones are closed. 20 times overload needs some 7,000
PHRASES: Final = {int(status): status.phrase.encode() for status in HTTPStatus}
ACCEPT_BACKLOG: Final = 4096  # Linux cuts it to net.core.somaxconn, 4096 since 5.4


class Clock:
    """The wall clock, with the Date field made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._date = b""

    def now_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def date(self) -> bytes:
        """Return now as an HTTP date (RFC 9110 section 5.6.7)."""
        second = int(time.time())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode()
        return self._date


class ShopConnection(asyncio.Protocol):
    """One client's connection. With `bypass_only` it serves knobs and figures, no shop."""

    def __init__(self, server: "ShopServer", *, bypass_only: bool = False) -> None:
        self._server = server
        self.bypass_only = bypass_only
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        self._transport: asyncio.Transport | None = None  # None: the client has left
        self._head: h11.Request | None = None
        self._body = b""
        self._busy = False
        self._blocked = False

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many."""
        # A cast: the transports of uvloop are of no class of asyncio.
        self._transport = cast(asyncio.Transport, transport)
        if not self._server.joined(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client has left."""
        self._transport = None
        self._server.left(self)

    def data_received(self, data: bytes) -> None:
        """Read bytes of one or more requests."""
        self._h11.receive_data(data)
        if not self._busy:
            self._read_events()

    def eof_received(self) -> bool:
        """Treat a client that has closed its sending side as one that has left."""
        return False

    def pause_writing(self) -> None:
        """Skip events for a client that does not read them."""
        self._blocked = True

    def resume_writing(self) -> None:
        """Send events again."""
        self._blocked = False

    def abort(self) -> None:
        """Reset the connection, as if the process was killed."""
        if self._transport is not None:
            self._transport.abort()

    # One request

    def _read_events(self) -> None:
        try:
            while not self._busy and self._transport is not None:
                event = self._h11.next_event()
                if event is h11.NEED_DATA or event is h11.PAUSED:
                    return
                self._take(event)
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, str(error))

    def _take(self, event: Any) -> None:
        match event:
            case h11.Request():
                self._head, self._body = event, b""
                self._answer_expectation()
            case h11.Data():
                self._body += event.data
                if len(self._body) > BODY_BYTES_MAX:
                    raise h11.RemoteProtocolError("body too large", error_status_hint=413)
            case h11.EndOfMessage():
                assert self._head is not None
                self._busy = True
                self._begin(_request_of(self._head, self._body))
            case _:  # ConnectionClosed
                self._close()

    def _answer_expectation(self) -> None:
        if self._h11.they_are_waiting_for_100_continue:
            interim = h11.InformationalResponse(status_code=100, headers=[])
            self._write(self._h11.send(interim) or b"")

    def _begin(self, request: Request) -> None:
        shop = self._server.shop
        page = shop.bypass(request)
        if page is not None:
            self._finish(page.make(), counted=False)
        elif self.bypass_only:
            self._finish(Reply(b"Only knobs and figures are here.\n", 404), counted=False)
        else:
            self._work(request, shop.page(request))

    def _work(self, request: Request, page: Page) -> None:
        shop = self._server.shop
        if request.method in ("GET", "HEAD"):
            shop.served.gets += 1
        else:
            shop.served.posts += 1

        def done(result: Result) -> None:
            made = page.make() if result is Result.DONE else shop.failed(request, result)
            self._finish(made)

        if page.queries:
            shop.database.submit(request.path, page.queries, done)
        else:
            done(Result.DONE)

    def _finish(self, made: Reply | EventStream, *, counted: bool = True) -> None:
        gone = self._transport is None
        if counted:
            served = self._server.shop.served
            served.answered += 1
            served.answered_gone += gone
        if gone:
            return
        if isinstance(made, EventStream):
            self._send_head(
                200, [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-store")]
            )
            self._next_event(made, 1)
        else:
            self._send(made)
            self._next_request()

    def _send(self, reply: Reply) -> None:
        fields = [*reply.fields, (b"Content-Length", b"%d" % len(reply.body))]
        if reply.status == 304:
            fields.pop()
        if reply.content_type:
            fields.append((b"Content-Type", reply.content_type))
        assert self._head is not None
        body = b"" if self._head.method == b"HEAD" or reply.status == 304 else reply.body
        head = self._head_bytes(reply.status, fields)
        if body:
            head += self._h11.send(h11.Data(data=body)) or b""
        self._write(head + (self._h11.send(h11.EndOfMessage()) or b""))

    def _next_request(self) -> None:
        if self._h11.our_state is h11.MUST_CLOSE:
            self._close()
        elif self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._busy = False
            self._read_more()

    def _read_more(self) -> None:
        # In the next round of the loop: a thousand pipelined requests must not nest a thousand
        # calls.
        if self._h11.trailing_data[0]:
            asyncio.get_running_loop().call_soon(self._read_events)

    def _next_event(self, stream: EventStream, number: int) -> None:
        if self._transport is None:
            return
        if not self._blocked:
            self._write(self._h11.send(h11.Data(data=stream.event(number))) or b"")
        if number < stream.events_max:
            loop = asyncio.get_running_loop()
            loop.call_later(stream.interval_s, self._next_event, stream, number + 1)
        else:
            self._write(self._h11.send(h11.EndOfMessage()) or b"")
            self._next_request()

    # Bytes out

    def _head_bytes(self, status: int, fields: list[tuple[bytes, bytes]]) -> bytes:
        clock = self._server.clock
        fields.append((b"Date", clock.date()))
        fields.append((b"Server", b"retter-demo"))
        # The wall clock when the response was made. With it, a load generator on the same machine
        # distinguishes fresh responses from stored ones, with any proxy in between.
        fields.append((b"X-Gen", b"%d" % clock.now_ms()))
        head = h11.Response(status_code=status, headers=fields, reason=PHRASES.get(status, b""))
        return self._h11.send(head) or b""

    def _send_head(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self._write(self._head_bytes(status, fields))

    def _refuse(self, status: int, text: str) -> None:
        body = text.encode("utf-8", "replace") + b"\n"
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(
                self._head_bytes(
                    status, [(b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
                )
                + (self._h11.send(h11.Data(data=body)) or b"")
            )
        self._close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _request_of(head: h11.Request, body: bytes) -> Request:
    path, _, query = head.target.decode("latin-1").partition("?")
    return Request(
        method=head.method.decode("latin-1"),
        path=unquote(path) if "%" in path else path,
        query=query,
        fields=dict(head.headers),
        body=body,
    )


class ShopServer:
    """The port of the shop, and optionally one for the knobs, which works while it is dead."""

    def __init__(self, shop: Shop, clock: Clock) -> None:
        self.shop = shop
        self.clock = clock
        shop.on_turn = self.turn
        self._connections: set[ShopConnection] = set()
        self._listener: asyncio.Server | None = None
        self._control: asyncio.Server | None = None
        self._address: tuple[str, int] = ("", 0)
        self._change: asyncio.Task[None] | None = None
        self._dead_until: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen on an address and return the port. Raises OSError if that fails."""
        self._listener = await self._listen(host, port, bypass_only=False)
        self._address = host, self._listener.sockets[0].getsockname()[1]
        return self._address[1]

    async def start_control(self, host: str, port: int) -> int:
        """Serve knobs and figures on this address too, even while the shop is dead."""
        self._control = await self._listen(host, port, bypass_only=True)
        return int(self._control.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close everything."""
        self._cancel_revival()
        if self._change is not None:
            await asyncio.wait([self._change])
        for listener in (self._listener, self._control):
            if listener is not None:
                listener.close()
        self._reset_all()

    def turn(self, knobs: Knobs) -> None:
        """Use these knobs, and close or open the port if the shop dies or is revived."""
        was = self.shop.database.knobs.condition
        self._cancel_revival()
        self.shop.database.turn(knobs)
        if knobs.condition is Condition.DEAD:
            loop = asyncio.get_running_loop()
            self._dead_until = loop.call_later(knobs.dead_for_s, self._revive)
        if (was is Condition.DEAD) is not (knobs.condition is Condition.DEAD):
            self._after_changes(self._die if knobs.condition is Condition.DEAD else self._open)

    def joined(self, connection: ShopConnection) -> bool:
        """Add a connection; False if there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= CONNECTIONS_MAX

    def left(self, connection: ShopConnection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    async def _listen(self, host: str, port: int, *, bypass_only: bool) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: ShopConnection(self, bypass_only=bypass_only),
            host,
            port,
            backlog=ACCEPT_BACKLOG,
        )

    def _after_changes(self, change: Callable[[], Any]) -> None:
        # One change after the other: a port that is closed and opened at once must end open.
        before = self._change

        async def make_change() -> None:
            if before is not None:
                await asyncio.wait([before])
            await change()

        loop = asyncio.get_running_loop()
        self._change = start_task(loop, make_change(), "changing what is listened on")

    async def _die(self) -> None:
        # The response to the request that changed the knob is sent first.
        await asyncio.sleep(0.05)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.shop.database.die()
        self._reset_all(but_control=True)

    async def _open(self) -> None:
        if self._listener is None:
            self._listener = await self._listen(*self._address, bypass_only=False)

    def _revive(self) -> None:
        self.turn(self.shop.database.knobs.changed({"condition": "healthy"}))

    def _cancel_revival(self) -> None:
        if self._dead_until is not None:
            self._dead_until.cancel()
            self._dead_until = None

    def _reset_all(self, *, but_control: bool = False) -> None:
        for connection in tuple(self._connections):
            if not (but_control and connection.bypass_only):
                connection.abort()
