"""Clients that have closed their sending side: do they still listen?

A client that has left (`close`) and a client that only sends no more (`shutdown`) both send a FIN.
RFC 9112 section 9.6 lets a client do the second and wait for its answer. nginx treats both as gone,
so a waiting client gets nothing. HAProxy waits for both, so a client that has left occupies its
place until there is an answer.

They react differently to an octet: a client that has left resets the connection. Every answer
begins with the same octet, so it can be sent as soon as the FIN has come, and the rest of the
answer follows when there is one. This octet is no message of its own: a client that reads sees an
answer whose first packet is short.
"""

import select
import socket
from itertools import islice
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncio import Transport

# The first octet of every answer (RFC 9112 section 4: HTTP-version).
PROBE = b"H"

# The event loop does not watch a socket that has reached its end, so each is polled, for 1 us. This
# many are polled in one tick, and the others in the next.
LOOKS_MAX = 256


def has_left(transport: "Transport") -> bool:
    """Whether the other side has closed its socket, and not only one half of it."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return False
    poll = select.poll()
    # Only the events that are always reported: POLLHUP (both directions are closed) and POLLERR.
    poll.register(sock.fileno(), 0)
    return bool(poll.poll(0))


def needs_probe(transport: "Transport") -> bool:
    """Whether only a reset shows that the client has left. A Unix socket shows it otherwise."""
    sock = transport.get_extra_info("socket")
    return sock is None or sock.family != socket.AF_UNIX


class HalfClosedClient(Protocol):
    """A client connection."""

    def disconnect(self, now: float) -> None:
        """Close at once: the client has left."""
        ...


class HalfClosed:
    """The connections whose clients have closed their sending side."""

    __slots__ = ("_transports",)

    def __init__(self) -> None:
        # The one that was polled longest ago first.
        self._transports: dict[HalfClosedClient, Transport] = {}

    def __len__(self) -> int:
        return len(self._transports)

    def add(self, client: HalfClosedClient, transport: "Transport") -> None:
        """Watch a client from now on."""
        self._transports[client] = transport

    def forget(self, client: HalfClosedClient) -> None:
        """Stop watching a client whose connection has ended."""
        self._transports.pop(client, None)

    def look(self, now: float) -> None:
        """Disconnect the clients that have left. Call it every tick."""
        for client in list(islice(self._transports, LOOKS_MAX)):
            transport = self._transports.pop(client)
            if has_left(transport):
                client.disconnect(now)
            else:
                self._transports[client] = transport
