"""Connections to the application that belong to one client, since they know who it is.

NTLM and Negotiate authenticate a connection, not a request (RFC 4559 section 6): after the
handshake the application takes whatever comes over it for that person's. So from the first sign of
one, in either direction, the connection is that client's alone, is never pooled, and is closed with
the client's own. Nothing that comes over it is stored.
"""

from typing import Final, Generic, Protocol, TypeVar

# Anybody may name such a scheme, and each connection may hold a process of the application without
# a place of the breaker. So idle ones above this number are closed, longest idle first: as many as
# the pool keeps by default (--pool-size). Their clients authenticate again.
IDLE_MAX: Final = 64
# ... but not before so long: the next step of a handshake is on its way.
SURPLUS_S: Final = 1.0
# And any after so long: somebody who reads a page needs none.
IDLE_S: Final = 60.0


class Bindable(Protocol):
    """The part of a connection to the application that is used here."""

    bound: bool
    idle_since: float

    @property
    def closed(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    def has_unread(self) -> bool: ...
    def unbind(self) -> None: ...


Connection = TypeVar("Connection", bound=Bindable)


class BoundConnections(Generic[Connection]):
    """Which client has which connection.

    A client is known by its connection and by its address: a proxy in front sends the requests of
    many over one.
    """

    __slots__ = ("clients",)

    def __init__(self) -> None:
        # Looked at with every request, so reached in one step. Empty where nobody has one.
        self.clients: dict[object, dict[str, Connection]] = {}

    def __len__(self) -> int:
        return sum([len(connections) for connections in self.clients.values()])

    def bind(self, client: object | None, address: str, connection: Connection) -> None:
        """Give a connection to a client; None is one that has left."""
        connection.bound = True
        if client is None:
            connection.unbind()
            return
        connections = self.clients.setdefault(client, {})
        before = connections.get(address)
        if before is not None and before is not connection:
            before.unbind()
        connections[address] = connection

    def take(self, client: object, address: str, *, look: bool) -> Connection | None:
        """Return the client's connection if it can be used now.

        `look` as in ConnectionPool.acquire.
        """
        connection = self.clients.get(client, {}).get(address)
        if connection is None or not connection.ready or (look and connection.has_unread()):
            return None
        return connection

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long, and forget what is closed: once a second."""
        idle: list[Connection] = []
        for client, connections in list(self.clients.items()):
            for address, connection in list(connections.items()):
                if connection.closed:
                    del connections[address]
                elif connection.ready:
                    idle.append(connection)
            if not connections:
                del self.clients[client]
        idle.sort(key=lambda connection: connection.idle_since)
        for place, connection in enumerate(idle, IDLE_MAX - len(idle)):
            idle_s = now - connection.idle_since
            if idle_s >= (SURPLUS_S if place < 0 else IDLE_S):
                connection.unbind()

    def lost(self, client: object) -> None:
        """The client's connection is closed."""
        for connection in self.clients.pop(client, {}).values():
            connection.unbind()
