"""The proxy that one writes first: h11 parses and writes every message on both sides.

It is correct for what the benchmark sends, has callbacks instead of tasks and a pool, and does
nothing of what a circuit breaker does.
"""

import asyncio
from typing import Final, cast

import h11

from benchmarks.perf.floors.common import addresses, run

HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"te", b"upgrade", b"trailer"})


def end_to_end(message: h11.Request | h11.Response) -> list[tuple[bytes, bytes]]:
    """Return the fields that are passed on."""
    return [(name, value) for name, value in message.headers if name not in HOP_BY_HOP]


class Client(asyncio.Protocol):
    """A client connection."""

    application_port = 0

    def __init__(self) -> None:
        self._http = h11.Connection(h11.SERVER)
        self._transport: asyncio.Transport | None = None
        self._upstream: Upstream | None = None
        self._waiting: list[h11.Event] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse, and forward what is complete."""
        self._http.receive_data(data)
        self._read_events()

    def _read_events(self) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._start(event)
            elif isinstance(event, (h11.Data, h11.EndOfMessage)):
                self._forward(event)
            else:
                return

    def _start(self, request: h11.Request) -> None:
        forwarded = h11.Request(
            method=request.method, target=request.target, headers=end_to_end(request)
        )
        if POOL:
            self._upstream = POOL.pop()
            self._upstream.serve(self)
            self._upstream.send(forwarded)
            return
        self._waiting = [forwarded]
        dial = asyncio.get_running_loop().create_connection(
            lambda: Upstream(self), "127.0.0.1", self.application_port
        )
        DIALS.add(task := asyncio.ensure_future(dial))
        task.add_done_callback(DIALS.discard)

    def _forward(self, event: h11.Event) -> None:
        if self._upstream is None:
            self._waiting.append(event)
        else:
            self._upstream.send(event)

    def dialled(self, upstream: "Upstream") -> None:
        """Send what has waited."""
        self._upstream = upstream
        for event in self._waiting:
            upstream.send(event)
        self._waiting = []

    def answer(self, event: h11.Event) -> None:
        """Write a part of the answer."""
        if self._transport is None:
            return
        if isinstance(event, h11.Response):
            event = h11.Response(status_code=event.status_code, headers=end_to_end(event))
        if data := self._http.send(event):
            self._transport.write(data)
        if not isinstance(event, h11.EndOfMessage):
            return
        self._upstream = None
        if self._http.our_state is h11.MUST_CLOSE:
            self._transport.close()
        else:
            self._http.start_next_cycle()
            self._read_events()

    def upstream_gone(self) -> None:
        """Close: half an answer cannot be mended."""
        self._upstream = None
        if self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the upstream connection of an exchange that has not ended."""
        self._transport = None
        if self._upstream is not None:
            self._upstream.drop()


class Upstream(asyncio.Protocol):
    """A connection to the application."""

    def __init__(self, client: Client) -> None:
        self._http = h11.Connection(h11.CLIENT)
        self._client: Client | None = client
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the client that had it dialled."""
        self._transport = cast(asyncio.Transport, transport)
        if self._client is not None:
            self._client.dialled(self)

    def serve(self, client: Client) -> None:
        """Begin another exchange."""
        self._client = client

    def send(self, event: h11.Event) -> None:
        """Write a part of the request."""
        if self._transport is not None and (data := self._http.send(event)):
            self._transport.write(data)

    def drop(self) -> None:
        """Close for good."""
        self._client = None
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Parse and pass on; back to the pool at the end."""
        self._http.receive_data(data)
        while self._client is not None:
            event = self._http.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.EndOfMessage):
                client, self._client = self._client, None
                if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
                    self._http.start_next_cycle()
                    POOL.append(self)
                client.answer(event)
            elif isinstance(event, (h11.Response, h11.Data)):
                self._client.answer(event)
            else:
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool or tell the client."""
        self._transport = None
        if self in POOL:
            POOL.remove(self)
        if self._client is not None:
            self._client.upstream_gone()


POOL: list[Upstream] = []
DIALS: set[asyncio.Task[object]] = set()


def main() -> None:
    """Serve."""
    arguments = addresses().parse_args()
    Client.application_port = arguments.application
    run(arguments.listen, Client)


if __name__ == "__main__":
    main()
