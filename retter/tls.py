"""The TLS handshake of a client connection, before it is a connection like any other.

The handshake is done on a connection that has been accepted already, not by the listener: so it is
counted against `connections_max`, has a time limit that may be changed, and takes the certificates
that are in force when it begins.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from retter.certificates import Certificates

if TYPE_CHECKING:
    from retter.proxy import Proxy

# For the client to answer our close_notify. It has its answer by then, so nothing depends on it.
SHUTDOWN_S = 2.0


class TLSGate:
    """What the TLS listeners of one process share.

    Attributes:
        failed: Handshakes that came to nothing: too slow, no TLS, no version in common.
    """

    def __init__(self, proxy: "Proxy", certificates: Certificates) -> None:
        self._proxy = proxy
        self.certificates = certificates
        self._handshakes: set[asyncio.Task[None]] = set()
        self.failed = 0

    @property
    def handshakes(self) -> int:
        """Handshakes under way."""
        return len(self._handshakes)

    def admit(self, transport: asyncio.Transport, acceptor: "TLSAcceptor") -> None:
        """Begin a handshake, unless there are as many clients as there may be."""
        proxy = self._proxy
        if self.handshakes + len(proxy.connections) >= proxy.settings.connections_max:
            proxy.counters.connections_refused += 1
            transport.abort()
            return
        transport.pause_reading()  # what the client has sent is for the handshake to read
        task = proxy.loop.create_task(self._shake_hands(transport, acceptor))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, transport: asyncio.Transport, acceptor: "TLSAcceptor") -> None:
        proxy = self._proxy
        try:
            secured = await proxy.loop.start_tls(
                transport, acceptor, self.certificates.context, server_side=True,
                ssl_handshake_timeout=proxy.settings.head_timeout_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )  # fmt: skip
        except OSError:  # ssl.SSLError and TimeoutError are such
            self.failed += 1
            transport.abort()
            return
        if secured is None or acceptor.lost:
            self.failed += 1
        else:
            acceptor.secured(secured)

    def close(self) -> None:
        """End all handshakes at once."""
        for task in list(self._handshakes):
            task.cancel()


class TLSAcceptor(asyncio.Protocol):
    """A connection until its handshake is done.

    Args:
        make_connection: Makes what speaks HTTP over it.
    """

    __slots__ = ("_early", "_gate", "_make_connection", "_transport", "lost")

    def __init__(self, gate: TLSGate, make_connection: Callable[[], asyncio.Protocol]) -> None:
        self._gate = gate
        self._make_connection = make_connection
        self._transport: asyncio.Transport | None = None
        self._early = b""      # read with the end of the handshake
        self.lost = False

    def secured(self, transport: asyncio.Transport) -> None:
        """Hand over to the connection that speaks HTTP."""
        connection = self._make_connection()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        if self._early:
            connection.data_received(self._early)

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._gate.admit(self._transport, self)

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
