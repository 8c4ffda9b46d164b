"""Floor of all that forwards: bytes go to a pooled connection and back, and none is looked at.

An answer is over when as many bytes have come back as each answer of the application has, which
whoever measures has counted before. No parsing proxy can be cheaper on the same loop.
"""

import asyncio
from typing import cast

from benchmarks.perf.floors.common import addresses, run


class Client(asyncio.Protocol):
    """A client connection; it borrows an upstream connection for each exchange."""

    application_port = 0
    answer_bytes = 0
    closes = False  # the application closes after each answer, and so do we

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._upstream: Upstream | None = None
        self._waiting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Send it on, after dialling when no connection is free."""
        if self._upstream is not None:
            self._upstream.send(data)
        elif self._waiting:
            self._waiting += data
        elif POOL:
            self._begin(POOL.pop(), data)
        else:
            self._waiting = data
            dial = asyncio.get_running_loop().create_connection(
                lambda: Upstream(self), "127.0.0.1", self.application_port
            )
            DIALS.add(task := asyncio.ensure_future(dial))
            task.add_done_callback(DIALS.discard)

    def dialled(self, upstream: "Upstream") -> None:
        """Send what has waited."""
        waiting, self._waiting = self._waiting, b""
        self._begin(upstream, waiting)

    def _begin(self, upstream: "Upstream", data: bytes) -> None:
        self._upstream = upstream
        upstream.client = self
        upstream.left = self.answer_bytes
        upstream.send(data)

    def answer(self, data: bytes, *, over: bool) -> None:
        """Pass a piece of the answer on."""
        if over:
            self._upstream = None
        if self._transport is not None:
            self._transport.write(data)
            if over and self.closes:
                self._transport.close()

    def upstream_gone(self) -> None:
        """Close as the application did."""
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
        self.client: Client | None = client
        self.left = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the client that had it dialled."""
        self._transport = cast(asyncio.Transport, transport)
        if self.client is not None:
            self.client.dialled(self)

    def send(self, data: bytes) -> None:
        """Write."""
        if self._transport is not None:
            self._transport.write(data)

    def drop(self) -> None:
        """Close for good."""
        self.client = None
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Pass it on; back to the pool when that was all."""
        client = self.client
        if client is None:
            return
        self.left -= len(data)
        over = self.left <= 0
        if over:
            self.client = None
            if not client.closes:
                POOL.append(self)
        client.answer(data, over=over)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the pool or tell the client."""
        self._transport = None
        if self in POOL:
            POOL.remove(self)
        if self.client is not None:
            self.client.upstream_gone()


POOL: list[Upstream] = []
DIALS: set[asyncio.Task[object]] = set()


def main() -> None:
    """Serve."""
    parser = addresses()
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--close", action="store_true")
    arguments = parser.parse_args()
    Client.application_port = arguments.application
    Client.answer_bytes = arguments.answer_bytes
    Client.closes = arguments.close
    run(arguments.listen, Client)


if __name__ == "__main__":
    main()
