"""RETTER that serves: its listening sockets, draining and closing. The public way to embed it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any, cast

from retter.breaker import Mode, Transition
from retter.config.reload import Reload, reloaded
from retter.config.settings import ADMIN_DEFAULT, ConfigError, Settings
from retter.config.units import ListenAddress, parse_listen
from retter.net.handover import Inheritance, Successor
from retter.net.sockets import (
    ListenError,
    apart_from,
    close_server,
    is_everywhere,
    listen_on,
    listen_privately_on,
    read_what_has_come,
    unlink,
    url_of,
)
from retter.process.descriptors import DESCRIPTORS_KEPT, accept_backlog, descriptor_limit
from retter.proxy.lasting import keep_rules, open_disk
from retter.proxy.proxy import DRAIN_IDLE_S, Proxy
from retter.proxy.sampling import client_connection_class
from retter.telemetry.log import format_in_use as log_format
from retter.telemetry.log import get_logger

# Modules that few processes need are imported where they are needed: they take memory.
if TYPE_CHECKING:
    from retter.admin.listener import Admin
    from retter.admin.watch import Watch
    from retter.base.worker_place import WorkerPlace
    from retter.net.certificates import Certificates
    from retter.proxy.secrets import Secrets
    from retter.proxy.state_giver import Giver
    from retter.proxy.state_link import StateLink
    from retter.proxy.state_taker import Taker

DRAIN_POLL_S = 0.05

# Ports that are tried for the admin listener if none was named: RETTERs that run side by side.
ADMIN_TRIES = 10

log = get_logger()


class RunningProxy:
    """A RETTER that serves. `running` makes it.

    Attributes:
        addresses: The addresses it listens on: URLs (`http://127.0.0.1:8089`) or `unix:PATH`.
        admin_address: The address of the admin listener, in the same form; "" without one.
    """

    def __init__(self, proxy: Proxy, inheritance: Inheritance | None = None) -> None:
        self._proxy = proxy
        self._services = proxy.services
        self._inheritance = inheritance
        self._handed_over = False
        self._giver: Giver | None = None  # sends the state to the process that takes over
        self._taker: Taker | None = None  # receives the state of the process before
        self._servers: list[asyncio.Server] = []
        self._sockets: list[socket.socket] = []
        self._certificates: Certificates | None = None
        self.addresses: list[str] = []
        self.admin_address = ""
        self._admin: Admin | None = None

    @property
    def address(self) -> str:
        """The first of the addresses."""
        return self.addresses[0]

    @property
    def everywhere(self) -> bool:
        """Whether it listens on every interface of this machine."""
        return any(is_everywhere(listener) for listener in self._sockets)

    @property
    def state(self) -> str:
        """The circuit's state: CLOSED, LIMITING, OPEN or HALF-OPEN."""
        return self._services.breaker.circuit.state.value

    def stats(self) -> dict[str, Any]:
        """Return all figures by name; gauges of what is in flight are 0 when RETTER is idle."""
        return self._proxy.stats()

    def set_circuit(self, mode: str) -> None:
        """Force the circuit: "auto", "open", "closed" or "observe".

        Raises:
            ValueError: It is none of these.
        """
        self._services.breaker.circuit.set_mode(self._services.loop.time(), Mode(mode))

    def reload(self, wanted: Settings) -> Reload:
        """Apply the wanted settings that may change, and reopen files.

        Returns:
            The changed settings, and those that need a restart.

        Raises:
            ConfigError: A file cannot be read or written; then nothing has changed.
        """
        new = reloaded(self._services.settings, wanted)
        certificates = None
        if self._certificates is not None:
            from retter.net.certificates import Certificates

            certificates = Certificates(new.settings)
        self._proxy.apply(new.settings)
        if certificates is not None:
            self._certificates = certificates
        return new

    def watch(self) -> "Watch":
        """Return the watch of the situation: the admin listener's, or a new one."""
        if self._admin is not None:
            return self._admin.watch
        from retter.admin.controls import Controls
        from retter.admin.watch import Watch

        watch = Watch(self._services, self._proxy.ticker, Controls(self._services))
        self.on_second(watch.on_second)
        return watch

    def tell_figures(
        self, watch: "Watch", *, leads: bool, metrics: bool
    ) -> Callable[[float], None]:
        """Write this worker's figures for the other workers; the leading worker adds them up.

        Returns:
            A function that writes them at once, and not only once a second.
        """
        from retter.admin.transitions import TransitionHistory
        from retter.admin.workers import tell_figures

        if self._admin is not None:
            return tell_figures(
                self._proxy, watch, self._admin.transitions, leads=leads, api=self._admin.api
            )
        transitions, breaker = TransitionHistory(), self._services.breaker
        transitions.follow(watch.clock)

        def on_transition(transition: Transition) -> None:
            transitions.record(transition, breaker.snapshot(transition.at))

        self._proxy.on_transition.append(on_transition)
        return tell_figures(self._proxy, watch, transitions, leads=leads, metrics=metrics)

    def on_second(self, callback: Callable[[float], None]) -> None:
        """Call `callback` once a second with the loop's time (monotonic seconds)."""
        self._proxy.ticker.on_second.append(callback)

    async def _listen(self, *, by_itself: bool) -> None:
        services = self._services
        loop = services.loop
        addresses = [parse_listen(text) for text in services.settings.listen]
        if any(address.tls for address in addresses):
            from retter.net.certificates import Certificates

            self._certificates = Certificates(services.settings)
        # extend() adds them one by one, so that those opened before a failure are closed at the end
        self._sockets.extend(self._socket(address) for address in addresses)
        # Everything that may fail comes before the first accepted client: a successor that cannot
        # serve leaves all clients to the process before it.
        for_operators = self._open_for_operators(by_itself=by_itself)
        limit = descriptor_limit()
        backlog = accept_backlog(limit)
        services.clients.descriptors_max = max(1, limit - DESCRIPTORS_KEPT - backlog)
        await self._take_over()
        for listener, address in zip(self._sockets, addresses, strict=True):
            connection = self._connection_maker(address)
            self.addresses.append(url_of(listener, address.tls))
            if listener.family == socket.AF_UNIX:
                server = await loop.create_unix_server(connection, sock=listener, backlog=backlog)
            else:
                server = await loop.create_server(connection, sock=listener, backlog=backlog)
            self._servers.append(server)
        self._proxy.ticker.start()
        if self._admin is not None and for_operators is not None:
            await self._admin.listen(for_operators)

    async def _take_over(self) -> None:
        """Take over the state of the process before, if there is one and its state can be read."""
        begun, taker = self._services.loop.time(), self._taker
        if taker is not None:
            await taker.load()
            if taker.trouble:
                _log_cold(taker.trouble)
                return
            took_s = round(self._services.loop.time() - begun, 3)
            log.info("taken-over", entries=taker.entries, circuit=self.state, took_s=took_s)

    def _socket(self, address: ListenAddress) -> socket.socket:
        inherited = self._inheritance_of(address)
        return inherited if inherited is not None else listen_on(address)

    def hand_over(self) -> Successor:
        """Start a process that takes over the listening sockets.

        Raises:
            OSError: It cannot be started.
        """
        from retter.proxy.state_giver import Giver, make_memory
        from retter.proxy.state_link import StateLink

        assert self._inheritance is not None, "only the whole program has a successor"
        admin = self._admin.listener if self._admin is not None else None
        listeners = [*self._sockets, admin] if admin is not None else self._sockets
        services = self._proxy.services
        store_fd = -1
        if services.disk is not None:
            store_fd = services.disk.lock_fd
            if services.learnt is not None:
                services.learnt.save(services.loop.time())
            if self._admin is not None and self._admin.archive is not None:
                self._admin.archive.save()
            services.disk.lend()
        ours, its = socket.socketpair()
        with its:
            memory_fd = make_memory()
            self._giver = Giver(services, StateLink(ours), memory_fd)
            return self._inheritance.start_successor(
                listeners, log_format(), store_fd, its.fileno(), memory_fd
            )

    def not_handed_over(self) -> None:
        """Go on as before: the successor could not serve."""
        if self._giver is not None:
            self._giver.close()
            self._giver = None
        services = self._services
        if services.disk is not None:
            services.disk.take_back()
            # The successor may have noted its own.
            keep_rules(services.disk, services.owner_rules, services.settings.store_policy)

    def has_taken_over(self) -> None:
        """Tell the process before, if there is one, that this one serves."""
        assert self._inheritance is not None, "only the whole program takes over"
        if self._services.disk is not None:
            self._services.disk.claim()
        self._inheritance.serving()

    def handed_over(self) -> None:
        """The successor serves: the sockets belong to it from now on."""
        self._handed_over = self._services.handed_over = True
        if self._services.far is not None and self._services.place is None:
            self._services.far.leave()  # several workers go on side by side with the next ones

    def _open_for_operators(self, *, by_itself: bool) -> socket.socket | None:
        """Return the listening socket of the admin listener, or None."""
        where = self._services.settings.admin
        if where == "auto":
            where = ADMIN_DEFAULT if by_itself else "off"
        if where in ("off", ""):
            return None
        from retter.admin.listener import Admin

        address = parse_listen(where)
        admin = self._admin = Admin(self._proxy, address)
        try:
            listener = self._operators_socket(address)
        except ListenError as error:
            if self._services.settings.admin != "auto":
                raise
            admin.close()
            self._admin = None
            log.warning("no-admin", error=str(error), advice="choose another address with --admin")
            return None
        self.admin_address = url_of(listener)
        if admin.elsewhere(listener):
            log.warning(
                "admin-elsewhere",
                wanted=where,
                admin=self.admin_address,
                advice=f"retter status --admin {self.admin_address.removeprefix('http://')}",
            )
        return listener

    def _operators_socket(self, address: ListenAddress) -> socket.socket:
        """Return the admin listener's socket; with `auto`, on the next port if that one is in use.

        So a second RETTER on one machine has a dashboard too.
        """
        ports = range(address.port, address.port + ADMIN_TRIES)
        if self._services.settings.admin != "auto":
            ports = range(address.port, address.port + 1)
        wanted = [replace(address, port=port) for port in ports]
        if self._services.settings.admin == "auto":
            wanted = apart_from(self._services.settings.upstream, wanted)
        for one in wanted:
            if (inherited := self._inheritance_of(one)) is not None:
                return inherited
        first: ListenError | None = None
        for one in wanted:
            try:
                return listen_privately_on(one)
            except ListenError as error:
                first = first or error
        assert first is not None, "at least one address was tried"
        raise first

    def _inheritance_of(self, address: ListenAddress) -> socket.socket | None:
        return self._inheritance.take(address) if self._inheritance is not None else None

    def _connection_maker(self, address: ListenAddress) -> Callable[[], asyncio.Protocol]:
        """Return the factory of protocols for connections that this address accepts."""
        services = self._services

        def plain(peer: str | None = None) -> asyncio.Protocol:
            if services.settings.https_redirect:
                from retter.proxy.redirect import RedirectingConnection

                return cast("asyncio.Protocol", RedirectingConnection(services, peer=peer))
            return cast("asyncio.Protocol", client_connection_class(services)(services, peer=peer))

        def secure(peer: str | None = None) -> asyncio.Protocol:
            connection = client_connection_class(services)(services, b"https", peer)
            return cast("asyncio.Protocol", connection)

        def secured(peer: str | None = None) -> asyncio.Protocol:
            from retter.proxy.tls import TLSConnection

            assert self._certificates is not None, "read before anything listens"
            return TLSConnection(services, self._certificates.context, secure, peer)

        connection = secured if address.tls else plain

        def proxied() -> asyncio.Protocol:
            from retter.proxy.proxy_protocol import ProxiedConnection

            return ProxiedConnection(services, connection)

        return proxied if address.proxy else connection

    async def _drain(self) -> None:
        """Stop accepting and let running requests finish, for `drain_s` at most."""
        services = self._services
        services.draining = True  # before any socket is closed: others look at this flag alone
        if self._handed_over and self._admin is not None:
            await self._admin.stop_accepting()
        await self._stop_accepting()
        now = services.loop.time()
        until = now + services.settings.drain_s
        while True:
            await read_what_has_come()
            ends = now >= until
            # If a successor serves, the end of this process is not urgent. So it waits for the
            # next request of each client.
            self._proxy.drain(now, inf if self._handed_over and not ends else DRAIN_IDLE_S)
            if not services.clients.connections or ends:
                break
            await asyncio.sleep(DRAIN_POLL_S)
            now = services.loop.time()

    async def _stop_accepting(self) -> None:
        # The paths are removed first, and once: a closed socket does not know its path any more,
        # and the next process may listen there while this one drains.
        for listener in self._sockets:
            self._unlink(listener)
        for server, listener in zip(self._servers, self._sockets, strict=False):
            await close_server(server, listener)
        for listener in self._sockets:  # a failed start leaves some without a server
            listener.close()
        self._servers.clear()
        self._sockets.clear()

    def _unlink(self, listener: socket.socket) -> None:
        """Remove the path of a socket, unless another process still uses it."""
        kept = self._inheritance is not None and self._inheritance.is_kept(listener)
        if not kept and not self._handed_over:
            unlink(listener)

    async def _close(self) -> None:
        if self._admin is not None and self._admin.listener is not None:
            self._unlink(self._admin.listener)
        try:
            await self._stop_accepting()
            if self._admin is not None:
                await self._admin.stop_accepting()
        finally:
            # A task that embeds RETTER may be cancelled several times before this is done.
            for server in self._servers:
                server.close()
            for listener in self._sockets:
                listener.close()
            if self._admin is not None:
                self._admin.close()
            if self._giver is not None:
                self._giver.finish()
            if self._taker is not None:
                self._taker.close()
            self._proxy.close()


def _link_to_predecessor(
    inheritance: Inheritance | None,
) -> "tuple[StateLink | None, Secrets | None]":
    """Return the link to the process before this one, and its secrets."""
    if inheritance is None or inheritance.state is None:
        return None, None
    from retter.proxy.state_link import StateLink
    from retter.proxy.state_taker import read_secrets

    link = StateLink(inheritance.state)
    try:
        return link, read_secrets(link)
    except ValueError as error:
        link.close()
        _log_cold(str(error))
        return None, None


def _log_cold(why: str) -> None:
    log.warning(
        "takeover-cold", error=why, advice="the process before this one could not tell what it knew"
    )


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    on_transition: Callable[[Transition], None] | None = None,
    *,
    by_itself: bool = False,
    inheritance: Inheritance | None = None,
    place: "WorkerPlace | None" = None,
    secrets: "Secrets | None" = None,
) -> AsyncGenerator[RunningProxy, None]:
    """Run RETTER on the present event loop until the block is left.

    Leaving the block closes everything at once; nothing is drained.

    Args:
        settings: At least `upstream`; `listen=("127.0.0.1:0",)` takes any free port.
        on_transition: Called on the loop for every change of the circuit's state; it must be quick.
        by_itself: RETTER is the whole program, so `admin="auto"` means a listener.
        inheritance: Sockets that this process received at its start.
        place: The place of this process among several workers.
        secrets: The secrets of all these workers.

    Raises:
        ListenError: An address cannot be listened on.
        ConfigError: A setting is wrong.
    """
    if settings.workers != 1:
        raise ConfigError("workers: RETTER inside another program is one process")
    loop = asyncio.get_running_loop()
    lock_fd = inheritance.store_fd if inheritance is not None else -1
    disk = open_disk(settings, loop, lock_fd=lock_fd, faults=by_itself, place=place)
    link, inherited_secrets = _link_to_predecessor(inheritance)
    secrets = secrets or inherited_secrets
    try:
        far = None
        if settings.shared:
            from retter.proxy.sharing import open_far

            far = open_far(settings, loop)
        proxy = Proxy(
            settings,
            loop,
            on_transition,
            disk=disk,
            secrets=secrets,
            place=place,
            far=far,
        )
    except BaseException:
        if disk is not None:
            disk.close()
        raise
    running_proxy = RunningProxy(proxy, inheritance)
    if inheritance is not None and link is not None and inherited_secrets is not None:
        from retter.proxy.state_taker import Taker

        running_proxy._taker = Taker(proxy.services, link, inheritance.memory_fd, inherited_secrets)
    try:
        await running_proxy._listen(by_itself=by_itself)
        yield running_proxy
    finally:
        await running_proxy._close()
        await asyncio.sleep(0)  # aborted transports report their end in the loop's next round
