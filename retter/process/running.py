"""Start and stop: signals, draining, successors, and RETTER inside another program."""

import asyncio
import contextlib
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from retter._version import VERSION
from retter.breaker import Mode, Transition
from retter.config.reload import Reload, reloaded
from retter.config.settings import ADMIN_DEFAULT, ConfigError, Settings
from retter.config.units import ListenAddress, parse_listen
from retter.net import systemd
from retter.net.certificates import Certificates
from retter.net.handover import Inheritance, Successor
from retter.net.sockets import (
    BACKLOG,
    ListenError,
    close_server,
    is_everywhere,
    listen_on,
    listen_privately_on,
    read_what_has_come,
    unlink,
    url_of,
)
from retter.net.supervision import start_task
from retter.process.disk_log import DiskLog
from retter.process.hint_log import HintLog
from retter.process.loop_errors import LoopFaults, end_out_of_memory
from retter.process.minute_summary import Digest
from retter.process.transition_log import TransitionLog
from retter.process.upstream_watch import Absence
from retter.process.withdrawal_log import WithdrawalLog
from retter.proxy.lasting import open_disk
from retter.proxy.proxy import Proxy
from retter.proxy.proxy_protocol import ProxiedConnection
from retter.proxy.redirect import RedirectingConnection
from retter.proxy.sampling import client_connection_class
from retter.proxy.tls import TLSConnection
from retter.telemetry.build import is_compiled
from retter.telemetry.line_writer import CLOSE_S
from retter.telemetry.log import configure as configure_log
from retter.telemetry.log import flush as flush_log
from retter.telemetry.log import format_in_use as log_format
from retter.telemetry.log import get_logger

if TYPE_CHECKING:
    from retter.admin.listener import Admin

# Fewer where descriptors are few: all of them may be accepted in one round of the loop, and the
# connections that make room for them are closed in the next.
BACKLOG_SHARE = 1 / 4
BACKLOG_MIN = 16

# Of the descriptors that the system grants, this share is for clients; the rest is for connections
# to the application, listeners and logs. Clients wait by the thousand, while the breaker keeps what
# is in flight at the application small.
CLIENTS_SHARE = 0.75

# Descriptors for everything else: listeners, the loop's own, logs, resolving names.
DESCRIPTORS_KEPT = 32

DRAIN_POLL_S = 0.05

# A second signal is impatience only if it comes later than that. One wish to stop may well arrive
# twice: a terminal's Ctrl-C and `kill -- -GROUP` reach us and also our parent, who passes it on.
SAME_SIGNAL_S = 1.0

# For a successor to serve: it takes half a second, and a minute on a machine that swaps.
SUCCESSOR_S = 60.0

Reread = Callable[[], Settings]

log = get_logger()


def descriptor_limit() -> int:
    """Return RLIMIT_NOFILE as it is now."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft >= 0 else sys.maxsize


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE as far as it goes and return it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft if soft >= 0 else sys.maxsize


class RunningProxy:
    """A RETTER that is serving; made by `running`.

    Attributes:
        addresses: What it listens on, as URLs (`http://127.0.0.1:8089`) or `unix:PATH`.
        admin_address: What the admin listener listens on, in the same form; "" without one.
    """

    def __init__(self, proxy: Proxy, inheritance: Inheritance | None = None) -> None:
        self._proxy = proxy
        self._services = proxy.services
        self._inheritance = inheritance
        self._handed_over = False
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
        """Whether one of the addresses is every interface of this machine."""
        return any(is_everywhere(listener) for listener in self._sockets)

    @property
    def state(self) -> str:
        """The circuit's state: CLOSED, LIMITING, OPEN or HALF-OPEN."""
        return self._services.breaker.state.value

    def stats(self) -> dict[str, Any]:
        """Return all figures; those that count what is in flight are zero when nothing is."""
        return self._proxy.stats()

    def set_circuit(self, mode: str) -> None:
        """Force the circuit: "auto", "open", "closed" or "observe".

        Raises:
            ValueError: It is none of these.
        """
        self._services.breaker.set_mode(self._services.loop.time(), Mode(mode))

    def reload(self, wanted: Settings) -> Reload:
        """Apply the wanted settings that may change, and reopen files.

        Returns:
            What has changed, and what waits for the next start.

        Raises:
            ConfigError: A file cannot be read or written; then nothing has changed.
        """
        new = reloaded(self._services.settings, wanted)
        certificates = Certificates(new.settings) if self._certificates is not None else None
        self._proxy.apply(new.settings)
        if certificates is not None:
            self._certificates = certificates
        return new

    def on_second(self, callback: Callable[[float], None]) -> None:
        """Have somebody told the loop's time once a second."""
        self._proxy.ticker.on_second.append(callback)

    async def _listen(self, *, by_itself: bool) -> None:
        services = self._services
        loop = services.loop
        addresses = [parse_listen(text) for text in services.settings.listen]
        if any(address.tls for address in addresses):
            self._certificates = Certificates(services.settings)
        # extend takes them one by one, so that those before a failure are closed in the end
        self._sockets.extend(self._socket(address) for address in addresses)
        # All that may fail comes before the first client is accepted: a successor that cannot serve
        # leaves them all to the process before it.
        for_operators = self._open_for_operators(by_itself=by_itself)
        limit = descriptor_limit()
        backlog = min(BACKLOG, max(BACKLOG_MIN, int(limit * BACKLOG_SHARE)))
        services.clients.descriptors_max = max(1, limit - DESCRIPTORS_KEPT - backlog)
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

    def _socket(self, address: ListenAddress) -> socket.socket:
        inherited = self._inheritance.take(address) if self._inheritance is not None else None
        return inherited if inherited is not None else listen_on(address)

    def hand_over(self) -> Successor:
        """Start a process that takes over the listening sockets.

        Raises:
            OSError: It cannot be started.
        """
        assert self._inheritance is not None, "only a whole program can be started again"
        admin = self._admin.listener if self._admin is not None else None
        listeners = [*self._sockets, admin] if admin is not None else self._sockets
        services = self._proxy.services
        store_fd = -1
        if services.disk is not None:
            store_fd = services.disk.lock_fd
            if services.learnt is not None:
                services.learnt.save()
            services.disk.lend()
        return self._inheritance.start_successor(listeners, log_format(), store_fd)

    def not_handed_over(self) -> None:
        """There is no successor: all goes on as before."""
        disk = self._proxy.services.disk
        if disk is not None:
            disk.take_back()

    def handed_over(self) -> None:
        """The successor serves: the sockets belong to it from now on."""
        self._handed_over = True

    def _open_for_operators(self, *, by_itself: bool) -> socket.socket | None:
        """Return the address of the admin listener, or None."""
        where = self._services.settings.admin
        if where == "auto":
            where = ADMIN_DEFAULT if by_itself else "off"
        if where in ("off", ""):
            return None
        from retter.admin.listener import Admin

        address = parse_listen(where)
        self._admin = Admin(self._proxy, address)
        try:
            inherited = self._inheritance.take(address) if self._inheritance is not None else None
            listener = inherited if inherited is not None else listen_privately_on(address)
        except ListenError as error:
            if self._services.settings.admin != "auto":
                raise
            self._admin.close()
            self._admin = None
            log.warning("no-admin", error=str(error), advice="choose another address with --admin")
            return None
        self.admin_address = url_of(listener)
        return listener

    def _connection_maker(self, address: ListenAddress) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of a connection that comes in on this address."""
        services = self._services

        def plain(peer: str | None = None) -> asyncio.Protocol:
            if services.settings.https_redirect:
                return cast("asyncio.Protocol", RedirectingConnection(services, peer=peer))
            return cast("asyncio.Protocol", client_connection_class(services)(services, peer=peer))

        def secure(peer: str | None = None) -> asyncio.Protocol:
            connection = client_connection_class(services)(services, b"https", peer)
            return cast("asyncio.Protocol", connection)

        def secured(peer: str | None = None) -> asyncio.Protocol:
            assert self._certificates is not None, "read before anything listens"
            return TLSConnection(services, self._certificates.context, secure, peer)

        connection = secured if address.tls else plain

        def proxied() -> asyncio.Protocol:
            return ProxiedConnection(services, connection)

        return proxied if address.proxy else connection

    async def _drain(self) -> None:
        """Stop accepting and let running requests finish, for `drain_s` at most."""
        services = self._services
        services.draining = (
            True  # before a socket is closed: all who look at the one know the other
        )
        if self._handed_over and self._admin is not None:
            await self._admin.stop_accepting()
        await self._stop_accepting()
        now = services.loop.time()
        until = now + services.settings.drain_s
        while True:
            await read_what_has_come()
            self._proxy.drain(now)
            if not services.clients.connections or now >= until:
                break
            await asyncio.sleep(DRAIN_POLL_S)
            now = services.loop.time()

    async def _stop_accepting(self) -> None:
        # Unlinked first, and once: a closed socket does not know its path any more, and the next
        # process may listen there while this one drains.
        for listener in self._sockets:
            self._unlink(listener)
        for server, listener in zip(self._servers, self._sockets, strict=False):
            await close_server(server, listener)
        for listener in self._sockets:  # a failed start leaves some without a server
            listener.close()
        self._servers.clear()
        self._sockets.clear()

    def _unlink(self, listener: socket.socket) -> None:
        """Remove the path of a socket, unless another process goes on with it."""
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
            # Who embeds RETTER may be cancelled again and again until it has ended.
            for server in self._servers:
                server.close()
            for listener in self._sockets:
                listener.close()
            if self._admin is not None:
                self._admin.close()
            self._proxy.close()


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    on_transition: Callable[[Transition], None] | None = None,
    *,
    by_itself: bool = False,
    inheritance: Inheritance | None = None,
) -> AsyncGenerator[RunningProxy, None]:
    """Run RETTER on the present event loop until the block is left.

    Leaving the block closes everything at once; nothing is drained.

    Args:
        settings: At least `upstream`; `listen=("127.0.0.1:0",)` takes any free port.
        on_transition: Told of every change of the circuit's state, on the loop: be quick.
        by_itself: It is the whole program, so `admin="auto"` means a listener.
        inheritance: Sockets that this process has been given at its start.

    Raises:
        ListenError: An address cannot be listened on.
        ConfigError: A setting is wrong.
    """
    loop = asyncio.get_running_loop()
    lock_fd = inheritance.store_fd if inheritance is not None else -1
    disk = open_disk(settings, loop, lock_fd=lock_fd, faults=by_itself)
    try:
        proxy = Proxy(settings, loop, on_transition, disk=disk)
    except BaseException:
        if disk is not None:
            disk.close()
        raise
    running_proxy = RunningProxy(proxy, inheritance)
    try:
        await running_proxy._listen(by_itself=by_itself)
        yield running_proxy
    finally:
        await running_proxy._close()
        await asyncio.sleep(0)  # aborted transports report their end in the loop's next round


class Program:
    """Signals of the whole program.

    SIGTERM and SIGINT drain and stop, SIGHUP reloads the configuration, SIGUSR2 starts a successor
    that takes over.
    """

    def __init__(self, proxy: RunningProxy, reread: Reread) -> None:
        self._proxy = proxy
        self._reread = reread
        self._loop = asyncio.get_running_loop()
        self._asked_at = math.inf
        self._reload_asked = False
        self._too_late: asyncio.TimerHandle | None = None  # for the successor
        self._successor: Successor | None = None
        self._stopping = asyncio.Event()
        self.pid_after = 0  # of who has taken over
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        self._loop.add_signal_handler(signal.SIGUSR2, self._on_take_over)

    async def run(self) -> None:
        """Return when it is time to drain."""
        await self._stopping.wait()
        if self._successor is not None and self._too_late is not None:
            self._too_late.cancel()
            self._loop.remove_reader(self._successor.ready_fd)
            self._successor.end()

    def _on_stop(self) -> None:
        now = self._loop.time()
        if now - self._asked_at > SAME_SIGNAL_S:
            log.warning("stopped", drained=False)
            os._exit(1)  # the second signal means now
        self._asked_at = min(self._asked_at, now)
        self._stopping.set()

    def _on_hangup(self) -> None:
        # A storm of them is one wish: each reload reads all files, and nobody is served meanwhile.
        if not self._reload_asked:
            self._reload_asked = True
            self._loop.call_soon(self._on_reload)

    def _on_reload(self) -> None:
        self._reload_asked = False
        systemd.notify_reloading()
        try:
            new = self._proxy.reload(_fit_descriptors(self._reread()))
        except ConfigError as error:
            log.error("reload-failed", error=str(error), advice="nothing has changed")
        else:
            configure_log(new.settings.log_format, new.settings.log_level)
            log.info("reloaded", changed=new.changed)
            if new.restart:
                log.warning("needs-restart", settings=new.restart)
        systemd.notify("READY=1")

    def _on_take_over(self) -> None:
        if self._successor is not None or self._stopping.is_set():
            return
        try:
            self._successor = self._proxy.hand_over()
        except OSError as error:
            self._proxy.not_handed_over()
            log.error("takeover-failed", error=error.strerror, advice="nothing has changed")
            return
        log.info("takeover", successor=self._successor.pid)
        self._loop.add_reader(self._successor.ready_fd, self._on_successor)
        self._too_late = self._loop.call_later(SUCCESSOR_S, self._on_too_late)

    def _on_too_late(self) -> None:
        """Stop waiting for a successor that neither serves nor ends; another may be started."""
        assert self._successor is not None, "else the timer is cancelled"
        log.warning(
            "takeover-late", successor=self._successor.pid, advice="the successor is stopped"
        )
        self._successor.kill()  # then it has ended, and _on_successor is told

    def _on_successor(self) -> None:
        successor, self._successor = self._successor, None
        assert successor is not None and self._too_late is not None
        self._too_late.cancel()
        self._loop.remove_reader(successor.ready_fd)
        if not successor.serves():
            self._proxy.not_handed_over()
            log.error(
                "takeover-failed", exit_code=successor.exit_code(), advice="nothing has changed"
            )
            return
        self._proxy.handed_over()
        self.pid_after = successor.pid
        self._asked_at = self._loop.time()
        self._stopping.set()


def _tell_manager(proxy: RunningProxy) -> None:
    """Report to systemd once a second: the watchdog and the circuit's state."""
    watchdog = systemd.watchdog_wanted()
    reported = ""

    def on_second(_: float) -> None:
        nonlocal reported
        lines = ["WATCHDOG=1"] if watchdog else []
        if proxy.state != reported:
            reported = proxy.state
            lines.append(f"STATUS=circuit {reported}")
        if lines:
            systemd.notify(*lines)

    proxy.on_second(on_second)


# Objects made and not yet freed before a collection: some milliseconds of traffic, and less than
# a millisecond to look through.
GC_YOUNG_MAX = 10_000


# Freed memory up to twice as much stays with the process. A body of 1 MiB on its way is that large.
KEPT_BLOCK_BYTES = 4 * 1024 * 1024


def _keep_freed_memory() -> None:
    """Let the C library give freed memory back to the system only where it is much.

    Else each large body on its way is memory fetched, cleared and given back by the kernel: three
    times the price of passing it on (measured: 1,700 us for 1 MiB, with this 500). glibc learns
    from the largest block freed so far what is worth giving back (mallopt(3), M_MMAP_THRESHOLD);
    this one is never touched, so it takes no memory. To other C libraries it says nothing.
    """
    block = bytes(KEPT_BLOCK_BYTES)
    del block


def _give_back_freed_memory() -> None:
    """Give what starting has used and freed back to the system (malloc_trim(3)): 1.3 MB.

    It lies between what stays, so glibc keeps it unless it is asked. Other C libraries have no
    such function, and some builds of Python no ctypes, which takes 0.4 MB itself.
    """
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).malloc_trim(0)


async def _serve(settings: Settings, reread: Reread) -> int:
    loop = asyncio.get_running_loop()
    inheritance = Inheritance()
    transitions = TransitionLog()
    async with running(
        settings, transitions.on_transition, by_itself=True, inheritance=inheritance
    ) as proxy:
        faults = LoopFaults(proxy._services, proxy._proxy.ticker)
        loop.set_exception_handler(faults)
        # What has been made so far stays: no collection need look at it again, and with many
        # connections each pause is that much shorter.
        gc.collect()
        gc.freeze()
        # A request makes nothing that only a collection could free, so the young are looked at
        # less often: a fortieth of the time of heads never seen before goes there otherwise.
        gc.set_threshold(GC_YOUNG_MAX, 20, 20)
        _give_back_freed_memory()
        _keep_freed_memory()
        program = Program(proxy, reread)
        if rest := inheritance.close_rest():
            log.warning("unused-sockets", listen=rest, advice="no --listen address matches them")
        # `--listen :80` reads http://127.0.0.1:80 there, as if only this machine were let in.
        open_to = {"open_to": "every interface"} if proxy.everywhere else {}
        compiled = {"compiled": True} if is_compiled() else {}
        log.info(
            "serving", listen=proxy.addresses, upstream=settings.upstream, version=VERSION,
            pid=os.getpid(), admin=proxy.admin_address or "off", **compiled, **open_to,
        )  # fmt: skip
        inheritance.serving()
        systemd.notify("READY=1", "STATUS=serving")
        if os.environ.get("NOTIFY_SOCKET"):
            _tell_manager(proxy)
        proxy.on_second(Digest(proxy._services).on_second)
        proxy.on_second(faults.on_second)
        proxy.on_second(transitions.on_second)
        proxy.on_second(lambda _: flush_log())
        proxy.on_second(Absence(proxy._services).on_second)
        proxy.on_second(WithdrawalLog(proxy._services).on_second)
        proxy.on_second(DiskLog(proxy._proxy.services).on_second)
        proxy.on_second(HintLog(proxy._services).on_second)
        probe = start_task(loop, proxy._services.pool.probe(), "trying the application's address")
        await program.run()
        probe.cancel()
        if program.pid_after:
            systemd.notify(f"MAINPID={program.pid_after}")
        else:
            systemd.notify("STOPPING=1", "STATUS=draining")
        log.info("draining", connections=proxy.stats()["connections"]["open"])
        await proxy._drain()
        transitions.flush()
        log.info("stopped", drained=True)
    return 0


def _fit_descriptors(settings: Settings) -> Settings:
    """Lower connections_max to what the descriptors allow, and say so."""
    limit = raise_descriptor_limit()
    connections_max = int(limit * CLIENTS_SHARE)
    if settings.connections_max <= connections_max:
        return settings
    log.warning(
        "fewer-connections", connections_max=connections_max, descriptors=limit,
        advice="raise `ulimit -Hn` (LimitNOFILE= in a systemd unit)",
    )  # fmt: skip
    return replace(settings, connections_max=connections_max)


def run_on_loop(main: Coroutine[Any, Any, int], event_loop: str) -> int:
    """Run on uvloop, or on asyncio's own loop where that was asked for or uvloop is missing."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if event_loop != "asyncio":
        try:
            import uvloop
        except ImportError:
            if event_loop == "uvloop":
                raise
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def run(settings: Settings, reread: Reread | None = None) -> int:
    """Serve until a signal ends it.

    Args:
        reread: Reads the configuration again, for SIGHUP; raises ConfigError if it is wrong.

    Returns:
        The exit code: 0 after draining, 1 if an address cannot be listened on.
    """
    settings = _fit_descriptors(settings)
    try:
        return run_on_loop(_serve(settings, reread or (lambda: settings)), settings.event_loop)
    except ListenError as error:
        log.error("cannot-start", error=str(error))
        return 1
    except MemoryError:  # the loop itself cannot go on
        end_out_of_memory()
    finally:
        flush_log(CLOSE_S)
