"""Connections to the application that belong to one client, because they are authenticated.

NTLM and Negotiate authenticate a connection, not a request (RFC 4559 section 6). After the
handshake, the application treats every request on it as that person's. So from the first sign of
such a handshake, in either direction, the connection belongs to that client alone. It is never
pooled, and is closed with the client's connection. No response that arrives on it is stored.
"""

from typing import Final, Generic, Protocol, TypeVar

# Any client may name such a scheme, and each connection may occupy a process of the application,
# which the breaker does not count. So idle ones above this number are closed, the longest idle
# first. The number is that of the pool by default (--pool-size). Their clients authenticate again.
IDLE_MAX: Final = 64
# ... but not before this time: the next step of a handshake may be on its way.
SURPLUS_S: Final = 1.0
# Any connection that has been idle for this long is closed: a visitor who reads needs none.
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
    """The connections of each client.

    A client is identified by its connection and its address, because a proxy in front sends the
    requests of many clients over one connection.
    """

    __slots__ = ("clients",)

    def __init__(self) -> None:
        # Every request reads this, so it is a plain attribute. Usually it is empty.
        self.clients: dict[object, dict[str, Connection]] = {}

    def __len__(self) -> int:
        return sum([len(connections) for connections in self.clients.values()])

    def bind(self, client: object | None, address: str, connection: Connection) -> None:
        """Give a connection to a client; None is a client that has left."""
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
        """Close connections that have been idle for too long, and forget closed ones."""
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
        """Close the connections of a client whose own connection is closed."""
        for connection in self.clients.pop(client, {}).values():
            connection.unbind()
