"""A client connection before its first request, while it waits for something else.

It waits for a PROXY protocol header (proxy_protocol.py) or a TLS handshake (tls.py). It counts as a
client connection, has the same time limit as a request's head, and may be closed at once, because
nothing has been written. Then the transport is handed over to the next protocol.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from retter.proxy.services import Services


class Preamble(asyncio.Protocol):
    """The common part of both; a subclass adds `group` and `idle` (`ClientConnection`, clients.py).

    Args:
        make_connection: Makes the next protocol. Its argument is the client's address from a PROXY
            protocol header, or None for the connection's own.
    """

    __slots__ = ("_make_connection", "_services", "_since", "_transport", "bucket", "deadline")

    group: str
    idle: bool

    def __init__(
        self, services: Services, make_connection: Callable[[str | None], asyncio.Protocol]
    ) -> None:
        self._services = services
        self._make_connection = make_connection
        self._transport: asyncio.Transport | None = None
        self._since = float("inf")  # when it was accepted
        self.deadline = float("inf")
        self.bucket = -1

    def _begin(self, transport: asyncio.BaseTransport) -> bool:
        """Count the connection and set its deadline; False if there were too many: it is closed."""
        services = self._services
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if not services.clients.accept(self):
            self.abort()
            return False
        self._since = now = services.loop.time()
        self.deadline = now + services.settings.head_timeout_s
        services.clients.wheel.watch(self, now)
        return True

    def _hand_over(
        self, transport: asyncio.Transport, peer_in_header: str | None, rest: bytes
    ) -> None:
        """Replace this protocol by the next one, which gets the octets read so far."""
        self._services.clients.withdraw(self)
        connection = self._make_connection(peer_in_header)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if rest and not transport.is_closing():
            connection.data_received(rest)

    def waits_since(self) -> float:
        """Return when it was accepted."""
        return self._since

    def on_deadline(self, now: float) -> None:
        """Called by the wheel when the deadline has passed."""
        self.abort()

    def disconnect(self, now: float) -> None:
        """Close at once."""
        self.abort()

    def close(self) -> None:
        """Close: nothing has been written."""
        self.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
