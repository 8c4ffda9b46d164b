"""A client connection that begins with a PROXY protocol header (`--listen :80,proxy`).

It waits for the header, and then another protocol takes its place on the same transport: the
client's connection, which is told who the client is and costs nothing more for it.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from retter.errors import BadRequest
from retter.proxyprotocol import ProxyHeaderMalformed, parse_proxy_header

if TYPE_CHECKING:
    from retter.proxy import Proxy


class ProxiedConnection(asyncio.Protocol):
    """Reads the header and hands the transport over.

    Args:
        make_connection: Makes what comes next, given the client's address as in
            `ProxyHeader.client`.
    """

    __slots__ = ("_buffer", "_make_connection", "_proxy", "_transport", "bucket", "deadline")

    peer = ""               # not known yet, so it counts for nobody's address
    idle = True

    def __init__(
        self, proxy: "Proxy", make_connection: Callable[[str | None], asyncio.Protocol]
    ) -> None:
        self._proxy = proxy
        self._make_connection = make_connection
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self.deadline = float("inf")
        self.bucket = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        proxy = self._proxy
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if not proxy.accept(self):
            self.abort()
            return
        now = proxy.loop.time()
        self.deadline = now + proxy.settings.head_timeout_s
        proxy.wheel.watch(self, now)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._buffer += data
        try:
            header = parse_proxy_header(self._buffer)
        except ProxyHeaderMalformed:
            self._proxy.counters.client_errors[BadRequest.reason] += 1
            self.abort()  # the specification allows no answer
            return
        if header is None:
            return
        rest = self._buffer[header.length :]
        self._proxy.withdraw(self)
        connection = self._make_connection(header.client)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if rest and not transport.is_closing():
            connection.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._proxy.lost(self)

    def waits_since(self) -> float:
        """Return when it was accepted."""
        return self.deadline - self._proxy.settings.head_timeout_s

    def on_deadline(self, now: float) -> None:
        """Called by the wheel when the deadline has passed."""
        self.abort()

    def give_up(self, now: float) -> None:
        """Close at once."""
        self.abort()

    def close(self) -> None:
        """Close: nothing has been written."""
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
