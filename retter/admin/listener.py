"""The admin listener of one proxy: its connections, requests and event streams."""

import asyncio
import socket
from json import dumps
from math import inf
from typing import TYPE_CHECKING

from retter.admin.auth import Guard, read_token
from retter.admin.chart import Chart
from retter.admin.controls import Controls
from retter.admin.incidents import Incident
from retter.admin.message import AdminError, AdminRequest, Answer, EventStream, error_answer
from retter.admin.transitions import TransitionHistory
from retter.admin.watch import Watch
from retter.breaker import Transition
from retter.config.units import ListenAddress
from retter.net.sockets import close_server
from retter.proxy.proxy import Proxy

# The modules that a connection needs are imported with the first one: most of the time there is
# none.
if TYPE_CHECKING:
    from retter.admin.api import Api
    from retter.admin.archive import Archive
    from retter.admin.connection import AdminConnection

CONNECTIONS_MAX = 64  # some operators, a scraper and health checks; each costs 100 KB at most
LISTENERS_MAX = 16  # pages that are open at the same time

# The time before a browser connects again after the stream was lost, in milliseconds.
_RETRY = b"retry: 2000\n\n"


def event_bytes(name: str, value: object) -> bytes:
    """Return an event in the form of an event stream (HTML standard, server-sent events)."""
    return f"event: {name}\ndata: {dumps(value)}\n\n".encode()


class Admin:
    """One admin listener, with its connections and figures.

    Raises:
        ConfigError: The token cannot be read.
    """

    def __init__(self, proxy: Proxy, address: ListenAddress) -> None:
        self.proxy = proxy
        self.address = address
        services = self.services = proxy.services
        self.loop = services.loop
        self.controls = Controls(services)
        self.transitions = TransitionHistory()
        self.watch = Watch(services, proxy.ticker, self.controls)
        self.transitions.follow(self.watch.clock)
        self.chart = Chart()
        self.archive: Archive | None = None  # beside the store on disk
        if services.disk is not None:
            from retter.admin import archive

            found = archive.Archive(
                services.disk, self.chart, self.watch.incidents, self.loop.time()
            )
            found.restore()
            self.archive = found
            self.watch.on_incident_over.append(self._incident_is_over)
        self._api: Api | None = None
        self._guard = Guard(address, read_token(services.settings))
        self._connections: set[AdminConnection] = set()
        self._listeners: dict[AdminConnection, None] = {}
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        proxy.ticker.on_second.append(self._on_second)
        proxy.on_transition.append(self._on_transition)

    async def listen(self, listener: socket.socket) -> None:
        """Serve clients on this socket."""
        self._listener = listener

        def connection() -> "AdminConnection":
            from retter.admin.connection import AdminConnection

            return AdminConnection(self)

        if listener.family == socket.AF_UNIX:
            self._server = await self.loop.create_unix_server(connection, sock=listener)
        else:
            self._server = await self.loop.create_server(connection, sock=listener)

    def elsewhere(self, listener: socket.socket) -> bool:
        """Whether this is another port than the wanted one, because that is in use."""
        wanted = self.address.port
        return listener.family != socket.AF_UNIX and wanted not in (0, listener.getsockname()[1])

    @property
    def api(self) -> "Api":
        """Return the handlers of requests."""
        if self._api is None:
            from retter.admin.api import Api

            self._api = Api(self.services, self.watch, self.chart, self.transitions, self.controls)
        return self._api

    @property
    def listener(self) -> socket.socket | None:
        """Return the listening socket."""
        return self._listener

    async def stop_accepting(self) -> None:
        """Close the listener; connections stay open."""
        server, self._server = self._server, None
        listener, self._listener = self._listener, None
        if server is not None and listener is not None:
            await close_server(server, listener)
        elif listener is not None:
            listener.close()

    def close(self) -> None:
        """Close everything at once, and stop watching."""
        if self._listener is not None:  # stop_accepting has not been called
            if self._server is not None:
                self._server.close()
            self._listener.close()
        self.proxy.ticker.on_second.remove(self._on_second)
        self.proxy.on_transition.remove(self._on_transition)
        for connection in list(self._connections):
            connection.close()
        if self.archive is not None:
            self.archive.save()

    # -- for the connections --------------------------------------------------------------------

    def accept(self, connection: "AdminConnection") -> bool:
        """Admit a new connection; False if there are too many.

        The connection that has waited longest for its client is closed in favour of the new one.
        So silent connections cannot keep an operator out, however many there are.
        """
        if len(self._connections) >= CONNECTIONS_MAX:
            longest = min(self._connections, key=lambda one: one.waits_since())
            if longest.waits_since() == inf:
                return False
            self.lost(longest)  # at once: the loop calls connection_lost only in its next round
            longest.close()
        self._connections.add(connection)
        return True

    def lost(self, connection: "AdminConnection") -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        self._listeners.pop(connection, None)

    def answer(self, request: AdminRequest) -> Answer:
        """Answer a request; never raises."""
        try:
            self._guard.check(request)
            answer = self.api.handler(request)(request)
            if isinstance(answer, EventStream) and len(self._listeners) >= LISTENERS_MAX:
                raise AdminError(
                    503, f"{LISTENERS_MAX} clients receive events already", ("Retry-After", "10")
                )
        except AdminError as error:
            return error_answer(error)
        except Exception as error:  # noqa: BLE001 - logged, and the client is answered
            # A fault of RETTER itself: it is logged with its traceback, and the client gets a 500.
            self.loop.call_exception_handler(
                {
                    "message": f"no answer to {request.method} {request.path!r}",
                    "exception": error,
                }
            )
            return error_answer(AdminError(500, "a fault of RETTER itself: the log describes it"))
        if request.method == "POST":
            self._tell("state", self.api.state_document())  # a POST may have changed it
        return answer

    # -- events -----------------------------------------------------------------------------------

    def begins_to_listen(self, connection: "AdminConnection") -> None:
        """Send the present state to a connection, and every event from now on."""
        self._listeners[connection] = None
        connection.tell(_RETRY + event_bytes("state", self.api.state_document()))

    def _tell(self, name: str, value: object) -> None:
        event = event_bytes(name, value)
        for listener in list(self._listeners):
            listener.tell(event)

    def _on_transition(self, transition: Transition) -> None:
        self.chart.entered(transition.after)
        event = self.transitions.record(transition, self.services.breaker.snapshot(transition.at))
        self._tell("transition", event)

    def _incident_is_over(self, _: Incident) -> None:
        if self.archive is not None:
            self.archive.save_soon(self.loop.time())

    def _on_second(self, now: float) -> None:
        self.controls.sweep(now)
        self.watch.on_second(now)
        history = self.watch.history
        self.chart.add(
            history.last_second(),
            history.latency_ms()["p99"],
            self.services.breaker.circuit.state,
        )
        if self.archive is not None:
            self.archive.tick(now)
        if self._listeners:
            self._tell("state", self.api.state_document())
        for connection in list(self._connections):
            connection.sweep(now)
