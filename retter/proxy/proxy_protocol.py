"""A client connection that begins with a PROXY protocol header (`--listen :80,proxy`).

It waits for the header. Then another protocol replaces it on the same transport: the client's
connection, which gets the client's address and has no further cost.
"""

import asyncio
from collections.abc import Callable

from retter.base.errors import BadRequest
from retter.http.proxy_header import ProxyHeaderMalformed, parse_proxy_header
from retter.proxy.handshake import Preamble
from retter.proxy.services import Services


class ProxiedConnection(Preamble):
    """Reads the header and hands the transport over."""

    __slots__ = ("_buffer",)

    group = ""  # not known yet
    idle = True

    def __init__(
        self, services: Services, make_connection: Callable[[str | None], asyncio.Protocol]
    ) -> None:
        super().__init__(services, make_connection)
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._begin(transport)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._buffer += data
        try:
            header = parse_proxy_header(self._buffer)
        except ProxyHeaderMalformed:
            self._services.counters.client_errors[BadRequest.reason] += 1
            self.abort()  # the specification allows no answer
            return
        if header is not None:
            self._hand_over(transport, header.client, self._buffer[header.length :])

    def connection_lost(self, exc: Exception | None) -> None:
        self._services.clients.lost(self)
