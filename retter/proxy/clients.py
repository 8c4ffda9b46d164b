"""All client connections of one process: their number, their deadlines, and which are evicted."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from retter.base.counters import Counters
from retter.config.settings import Settings
from retter.net.supervision import report
from retter.proxy.bound_connections import BoundConnections
from retter.proxy.deadline_wheel import DeadlineWheel
from retter.proxy.eviction import LongestWaiting
from retter.proxy.half_close import HalfClosed
from retter.proxy.lingering import LingerPace
from retter.proxy.peers import Peers
from retter.proxy.upstream_connection import UpstreamConnection

# When there is no room, connections of a client with more than this share of all are closed
# first: a client that opens as many as it can only displaces its own. An office or a mobile network
# behind one address has fewer. A trusted proxy is exempt, because it carries many clients.
ADDRESS_SHARE = 1 / 8

# To end ten thousand connections whose deadlines pass together would block the loop for half a
# second. So only this many are ended at once (half a millisecond): 1,600 a second in all.
EXPIRED_AT_ONCE_MAX = 8


class ClientConnection(Protocol):
    """The common part of all client connections."""

    deadline: float
    bucket: int  # the wheel's

    @property
    def group(self) -> str:
        """What it counts for: an address or a network (peers.py).

        It is "" for a Unix socket, or if it is not yet known.
        """
        ...

    @property
    def idle(self) -> bool: ...
    def waits_since(self) -> float: ...
    def on_deadline(self, now: float) -> None: ...
    def disconnect(self, now: float) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class ClientRegistry:
    """Counts client connections, and ends those whose deadline has passed.

    Args:
        upstreams: Returns the number of connections to the application, open or being made.

    Attributes:
        wheel: Their deadlines.
        half_closed: Those whose clients have closed their sending side.
        linger_pace: The pace of reading after the last response.
        descriptors_max: For clients and the application together; 0: not known.
    """

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        counters: Counters,
        peers: Peers,
        bound: BoundConnections[UpstreamConnection],
        upstreams: Callable[[], int],
    ) -> None:
        self._loop = loop
        self._counters = counters
        self._peers = peers
        self._bound = bound
        self._upstreams = upstreams
        self.configure(settings)
        self.connections: set[ClientConnection] = set()
        self.per_address: dict[str, int] = {}
        self.descriptors_max = 0
        self._longest_waiting: LongestWaiting[ClientConnection] = LongestWaiting()
        self.wheel: DeadlineWheel[ClientConnection] = DeadlineWheel(loop.time())
        self.half_closed = HalfClosed()
        self.linger_pace = LingerPace()

    def configure(self, settings: Settings) -> None:
        """Follow other settings."""
        self._connections_max = settings.connections_max
        self._per_address_max = settings.connections_per_address_max

    def accept(self, connection: ClientConnection) -> bool:
        """Admit a new client connection; False if there are too many."""
        self._counters.connections += 1
        address_max = self._per_address_max
        group = connection.group
        if address_max and (not group or self._peers.trust.trusts(group)):
            address_max = 0  # a trusted proxy carries many clients
        # Counted also without a limit: a reload may set one, or end the trust in a proxy.
        counts = self.per_address
        here = counts.get(group, 0)
        if (address_max and here >= address_max) or (self._is_full() and not self.make_room()):
            self._counters.connections_refused += 1
            return False
        # Read again: the closed connection may have been of the same client.
        counts[group] = counts.get(group, 0) + 1
        self.connections.add(connection)
        return True

    def _is_full(self) -> bool:
        clients = len(self.connections)
        if clients >= self._connections_max:
            return True
        return bool(self.descriptors_max) and clients + self._upstreams() >= self.descriptors_max

    def make_room(self) -> bool:
        """Close the client connection that has waited longest for its client, if there is one."""
        now = self._loop.time()
        connection = self._longest_waiting.take(self.connections, now, self._crowd)
        while connection is not None and connection not in self.connections:
            connection = self._longest_waiting.take(self.connections, now, self._crowd)  # ended
        if connection is None:
            return False
        self._counters.connections_evicted += 1
        self.lost(connection)  # its place is free now; the loop reports it in its next round
        connection.disconnect(now)
        return True

    def _crowd(self) -> frozenset[str]:
        """Return the groups that have more connections than their share."""
        share = len(self.connections) * ADDRESS_SHARE
        return frozenset(
            [
                group
                for group, count in self.per_address.items()
                if count > share and group and not self._peers.trust.trusts(group)
            ]
        )

    def withdraw(self, connection: ClientConnection) -> None:
        """Forget a connection that is accepted again as another protocol."""
        self._counters.connections -= 1
        self.lost(connection)

    def lost(self, connection: ClientConnection) -> None:
        """Forget a closed client connection."""
        if self._bound.clients:
            self._bound.lost(connection)
        if connection in self.connections:
            self.connections.remove(connection)
            group = connection.group
            here = self.per_address.get(group, 0)
            if here > 1:
                self.per_address[group] = here - 1
            else:
                self.per_address.pop(group, None)
        self.wheel.forget(connection)
        self.half_closed.forget(connection)
        self.linger_pace.forget(connection)

    def tick(self, now: float) -> None:
        """Check half-closed connections, and continue lingering reads."""
        if self.half_closed:
            self.half_closed.look(now)
        self.linger_pace.tick()

    def expire(self, now: float) -> bool:
        """End some connections whose deadline has passed; return whether there may be more."""
        for connection in self.wheel.due(now, EXPIRED_AT_ONCE_MAX):
            try:
                connection.on_deadline(now)
            except Exception as error:  # noqa: BLE001 - the others' time is over as well
                report(self._loop, "a client connection could not be ended in time", error)
                connection.abort()
        return self.wheel.behind(now)
