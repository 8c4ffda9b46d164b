"""A client connection that begins with a TLS handshake (`--listen :443,tls`).

The handshake is done on a connection that has been accepted already, not by the listener: so it is
counted among the clients, has a time limit that may be changed, makes room when there is none, may
follow a PROXY protocol header, and takes the certificates that are in force when it begins.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast

from retter.http.forwarding import peer_name
from retter.net.supervision import start_task
from retter.proxy.handshake import Preamble
from retter.proxy.services import Services

# For the client to answer our close_notify. It has its answer by then, so nothing depends on it.
SHUTDOWN_S = 2.0

# The connection's own deadline comes first; this only ends what has lost its connection.
LATER_S = 5.0


class TLSConnection(Preamble):
    """Does the handshake and passes the secured transport on.

    Args:
        peer: The client's address from a PROXY protocol header; None: the connection's.
    """

    __slots__ = ("_context", "_early", "_peer_in_header", "_task", "group")

    idle = False  # nobody knows what has been read, and its time is limited

    def __init__(
        self,
        services: Services,
        context: ssl.SSLContext,
        make_connection: Callable[[str | None], asyncio.Protocol],
        peer: str | None = None,
    ) -> None:
        super().__init__(services, make_connection)
        self._context = context
        self._peer_in_header = peer
        self._task: asyncio.Task[None] | None = None
        self._early = b""  # read before the handshake, or with its end
        self.group = ""

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        named = self._peer_in_header
        peer = peer_name(transport.get_extra_info("peername")) if named is None else named
        self.group = self._services.peers.forwarding_fields(peer, b"https").group
        if self._begin(transport) and self._transport is not None:
            self._transport.pause_reading()  # what the client sends is for the handshake to read
            self._task = start_task(
                self._services.loop, self._shake_hands(self._transport), "a TLS handshake"
            )

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._services.clients.lost(self)

    # -- the handshake ------------------------------------------------------------------------

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        services = self._services
        # This runs when start_tls has put its protocol in place, and before that begins.
        services.loop.call_soon(self._pass_on, transport)
        try:
            secured = await services.loop.start_tls(
                transport,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=services.settings.head_timeout_s + LATER_S,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError:  # ssl.SSLError is one: no TLS, no version in common, no patience
            secured = None
        # uvloop returns a transport even for a connection that was aborted meanwhile.
        if secured is None or self._transport is None or transport.is_closing():
            services.counters.tls_failed += 1
            transport.abort()
            services.clients.lost(self)
            return
        self._hand_over(secured, self._peer_in_header, self._early)

    def _pass_on(self, transport: asyncio.Transport) -> None:
        """Pass the bytes that have been read already to the handshake.

        They came after a PROXY header, or because uvloop begins to read after connection_made even
        if that has paused reading. The loops' TLS protocols keep bytes that they get before they
        begin.
        """
        if transport.get_protocol() is self or not self._early:
            return  # the connection has ended, or nothing has been read
        data, self._early = self._early, b""
        protocol = cast("asyncio.BufferedProtocol", transport.get_protocol())
        view = memoryview(cast("bytearray", protocol.get_buffer(len(data))))
        view[: len(data)] = data
        protocol.buffer_updated(len(data))
