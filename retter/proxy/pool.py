"""Connections to the application: reused last-in first-out, dialled when there is none.

The connection used last is the one that the application has least likely closed in the meantime.
The others become idle for long and are closed. No request waits for a free slot here: only the
breaker decides how many requests may be in flight.
"""

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Callable, Generator
from math import inf
from typing import Protocol, cast

from retter.base.errors import (
    ConnectRefused,
    ConnectTimeout,
    OutOfDescriptors,
    UpstreamError,
    UpstreamTLSClosed,
    UpstreamTLSFailed,
)
from retter.config.units import UpstreamAddress
from retter.net.resolver import LOOPBACK_HOSTS, Resolver
from retter.net.supervision import report, start_task
from retter.proxy.idle_connections import IdleConnections
from retter.proxy.upstream_connection import UpstreamConnection

# The interval of connection attempts while the application restarts. One attempt serves all held
# requests. It is short enough that nobody notices, and long enough that it costs nothing.
REDIAL_INTERVAL_S = 0.1

# A connection whose last response must not have a body (HEAD, 204, 304) rests for a tick or two
# before its next use: a broken application may send a body nevertheless, and the next exchange must
# not mistake it for its own response.
REST_S = 0.1

# A shorter delay, used if there is no other connection, and the response declared no body or
# RESTING_MANY connections rest already. Without it, a site that answers 304, or HEAD, a thousand
# times a second would need a hundred more connections.
REST_IF_NEEDED_S = 0.005
RESTING_MANY = 32

# Idle connections in excess of `idle_max` are closed after this time, not at once. Otherwise, with
# more requests in flight than `idle_max`, each request would close its connection and the next one
# would open another (measured with 512 clients: 100 us per request; with this delay 40).
SURPLUS_S = 0.25

# The last bytes of a tunnel's client are delivered, unless the application does not read for this
# long. The client has left by then.
FLUSH_S = 10.0

_OUR_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# No route to this address, for example because this machine has no IPv6. The error of another
# address is then more useful.
_NO_WAY_THERE = frozenset(
    {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EHOSTUNREACH}
)

_CLOSED_IN_HANDSHAKE = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)

_FAULTS = {
    errno.ECONNREFUSED: "connection refused: nothing listens there",
    errno.ENOENT: "there is no such socket",
    errno.EACCES: "RETTER may not connect there",
    errno.EAGAIN: "its backlog is full",
}


def tls_fault(error: OSError) -> str:
    """Describe why a TLS handshake failed."""
    if isinstance(error, _CLOSED_IN_HANDSHAKE):
        return "no TLS with it: it closed the connection in the handshake"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be believed: {error.verify_message}"
    reason = str(getattr(error, "reason", "") or error)  # an event loop's own error has none
    return f"no TLS with it: {reason.lower().replace('_', ' ')}"


def connect_fault(error: OSError, tls: bool) -> str:
    """Describe why a connection attempt failed: the event loops' own texts differ and are vague."""
    if isinstance(error, ssl.SSLError) or (tls and isinstance(error, _CLOSED_IN_HANDSHAKE)):
        return tls_fault(error)
    if isinstance(error, TimeoutError) and error.errno is None:
        return "the connection was not accepted in time"
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error) or type(error).__name__
    return _FAULTS.get(error.errno) or os.strerror(error.errno)


class Dialler(Protocol):
    """The part of an exchange that the pool uses."""

    def wants_upstream(self) -> bool: ...
    def upstream_ready(self, connection: UpstreamConnection, now: float) -> None: ...
    def connect_failed(self, error: UpstreamError, now: float, *, held: bool = False) -> None: ...
    def broken(self, now: float) -> None: ...


class ConnectionPool:
    """Upstream connections of one process, for one application.

    Args:
        idle_max: Number of idle connections kept. Those in excess are closed after SURPLUS_S, the
            oldest first.
        idle_s: Seconds an idle connection is kept. It should be less than the application's own
            keep-alive time; otherwise a request may get a connection that is just being closed.
        max_age_s: Seconds after which a connection is not used for further requests.
        connect_timeout_s: Seconds until a connection attempt counts as failed, TLS included.
        tls: The TLS context for an application that is reached over https.
        tls_name: The name in the application's certificate; if empty, the address's host.

    Attributes:
        ready: The idle connections.
    """

    def __init__(
        self,
        address: UpstreamAddress,
        make_connection: Callable[["ConnectionPool"], UpstreamConnection],
        loop: asyncio.AbstractEventLoop,
        *,
        idle_max: int,
        idle_s: float,
        connect_timeout_s: float,
        max_age_s: float = inf,
        tls: ssl.SSLContext | None = None,
        tls_name: str = "",
    ) -> None:
        self._address = address
        self._make_connection = make_connection
        self._loop = loop
        self._closed = False
        self.ready: IdleConnections[UpstreamConnection] = IdleConnections()
        self._idle = self.ready.stack
        self.reconfigure(
            idle_max=idle_max,
            idle_s=idle_s,
            max_age_s=max_age_s,
            connect_timeout_s=connect_timeout_s,
            tls=tls,
            tls_name=tls_name,
        )
        # Oldest first -> whether it may be used sooner if there is no other connection.
        self._resting: dict[UpstreamConnection, bool] = {}
        self._flushing: dict[UpstreamConnection, float] = {}  # -> until (monotonic seconds)
        self._connections: set[UpstreamConnection] = set()
        self._held: dict[Dialler, float] = {}  # -> until (monotonic seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._redialling = False
        self.resolver = Resolver(address, loop)
        # Called when no file descriptor is left: returns whether one has been closed.
        self.make_room: Callable[[], bool] = lambda: False
        self.dials = 0
        self.dials_failed = 0
        self.contacts = 0  # connections made so far
        self.fault = ""  # why the last connection attempt failed; "" if it succeeded

    def reconfigure(
        self,
        *,
        idle_max: int,
        idle_s: float,
        max_age_s: float,
        connect_timeout_s: float,
        tls: ssl.SSLContext | None,
        tls_name: str,
    ) -> None:
        """Apply new settings from now on. The class docstring explains each of them."""
        self._idle_max = idle_max
        self.ready.keeps = idle_max > 0 and not self._closed
        self.ready.idle_s = idle_s
        self.ready.max_age_s = max_age_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._tls_name = (tls_name or self._address.host) if tls is not None else None

    @property
    def idle(self) -> int:
        """Connections open and unused."""
        return len(self._idle) + len(self._resting)

    @property
    def open(self) -> int:
        """Connections open, in use or not."""
        return len(self._connections)

    @property
    def dialling(self) -> int:
        """Connection attempts under way."""
        return len(self._tasks) - self._redialling

    @property
    def held(self) -> int:
        """Requests whose connection was refused, and which wait for another attempt."""
        return len(self._held)

    def acquire(
        self, exchange: Dialler, now: float, *, fresh: bool = False, look: bool = False
    ) -> None:
        """Give the exchange a connection: at once if one is idle, else when a new one is made.

        A usual exchange looks into `ready` itself before it calls this.

        Args:
            fresh: Do not use a connection that has been used before.
            look: As in `IdleConnections.take`.
        """
        connection: UpstreamConnection | None = None
        if not fresh:
            connection = self.ready.take(now, look)
            if connection is None and self._resting:
                connection = self._take_resting(now)
        if connection is not None:
            self.give(connection, exchange, now)
        else:
            self._dial_soon(exchange)

    def give(self, connection: UpstreamConnection, exchange: Dialler, now: float) -> None:
        """Give a connection that is ready to an exchange."""
        try:
            exchange.upstream_ready(connection, now)
        except Exception as error:  # noqa: BLE001 - reported to the loop
            connection.discard()
            self._break(exchange, error)

    def _break(self, exchange: Dialler, error: Exception) -> None:
        """End an exchange after an internal error or a lack of memory.

        The error is reported to the event loop and not raised, because the caller has other
        exchanges to serve.
        """
        report(self._loop, "a request could not be told of its connection", error)
        exchange.broken(self._loop.time())

    def _take_resting(self, now: float) -> UpstreamConnection | None:
        """Return a resting connection that may be used sooner and has no unread bytes."""
        while (connection := self._longest_resting(now)) is not None:
            del self._resting[connection]
            if (
                now - connection.idle_since < self.ready.idle_s
                and now - connection.made_at < self.ready.max_age_s
                and not (connection.closed or connection.has_unread())
            ):
                return connection
            connection.close()
        return None

    def _longest_resting(self, now: float) -> UpstreamConnection | None:
        # Without this limit, a thousand HEAD requests would need a thousand connections to the
        # application, and each request would search through all of them.
        are_many = len(self._resting) >= RESTING_MANY
        for connection, if_needed in self._resting.items():
            if now - connection.idle_since < REST_IF_NEEDED_S:
                break
            if if_needed or are_many:
                return connection
        return None

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """Take back a connection whose response ended cleanly."""
        self.ready.put(connection, now)

    def rest(self, connection: UpstreamConnection, now: float, *, if_needed: bool) -> None:
        """Take back a connection on which unwanted bytes may still arrive.

        `if_needed` allows its use after a shorter delay if there is no other connection.
        """
        connection.idle_since = now
        self._resting[connection] = if_needed

    def flush(self, connection: UpstreamConnection) -> None:
        """Limit the time of a closed connection that still has bytes to deliver."""
        self._flushing[connection] = self._loop.time() + FLUSH_S

    def forget(self, connection: UpstreamConnection) -> None:
        """Remove a closed connection."""
        self._connections.discard(connection)
        self._resting.pop(connection, None)
        self._flushing.pop(connection, None)
        if connection in self._idle:
            self._idle.remove(connection)

    def hold(self, exchange: Dialler, until: float) -> None:
        """Hold an exchange whose connection was refused, and dial again for it until `until`."""
        self._held[exchange] = until
        if not self._redialling:
            self._redialling = True
            self._redial_soon()

    def unhold(self, exchange: Dialler) -> bool:
        """Stop holding an exchange that needs no connection any more; False if it is not held."""
        return self._held.pop(exchange, None) is not None

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long. Call this every tick."""
        if self._resting:
            for connection in list(self._resting):
                if connection.idle_since > now - REST_S:
                    break
                del self._resting[connection]
                self.release(connection, now)
        if self._flushing:
            for connection, until in list(self._flushing.items()):
                if until <= now:
                    connection.abort()
        oldest, surplus = now - self.ready.idle_s, now - SURPLUS_S
        while self._idle and (
            self._idle[0].idle_since <= oldest
            or (len(self._idle) > self._idle_max and self._idle[0].idle_since <= surplus)
        ):
            self._idle[0].close()

    def close(self) -> None:
        """Close everything and stop dialling."""
        self._closed = True
        self.ready.keeps = False
        self.resolver.close()
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._connections):
            connection.discard()  # without notice to the exchange, which would dial again
        for connection in list(self._flushing):
            connection.abort()

    # -- dialling -----------------------------------------------------------------------------

    async def probe(self) -> None:
        """Find out whether anything listens at the address; `fault` holds the result.

        If nothing listens, the address is usually mistyped. The connection is not kept: an
        application that serves one connection at a time would wait for a request on it.
        """
        with contextlib.suppress(UpstreamError):
            (await self._connect()).close()

    def _dial_soon(self, exchange: Dialler) -> None:
        if not self._closed:
            self._spawn(self._dial(exchange))

    def _redial_soon(self) -> None:
        self._spawn(self._redial())

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = start_task(self._loop, work, "connecting to the application")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> UpstreamConnection:
        contacts = self.contacts
        try:
            connection = await self._connect_with_room()
        except OutOfDescriptors:
            raise
        except UpstreamError as error:
            if self.contacts == contacts:  # else another connection was made meanwhile
                self.fault = str(error)
            raise
        self.contacts += 1
        self.fault = ""
        return connection

    async def _connect_with_room(self) -> UpstreamConnection:
        try:
            return await self._connect_once()
        except OutOfDescriptors:
            if not self.make_room():
                raise
            await asyncio.sleep(0)  # the loop closes it in its next round
            return await self._connect_once()

    async def _connect_once(self) -> UpstreamConnection:
        self.dials += 1
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._open()
        except TimeoutError as error:
            self.dials_failed += 1
            raise ConnectTimeout(connect_fault(error, False)) from error
        except OSError as error:
            self.dials_failed += 1
            fault = connect_fault(error, self._tls is not None)
            if isinstance(error, ssl.SSLError):
                raise UpstreamTLSFailed(fault) from error
            if error.errno in _OUR_OWN_LIMITS:
                raise OutOfDescriptors(fault) from error
            if self._tls is not None and isinstance(error, _CLOSED_IN_HANDSHAKE):
                raise UpstreamTLSClosed(fault) from error
            raise ConnectRefused(fault) from error
        if not connection.closed:  # it may be lost before this coroutine resumes
            self._connections.add(connection)
        return connection

    async def _open(self) -> UpstreamConnection:
        address = self._address
        if address.kind == "unix":
            return await self._open_unix(address.path)
        return await self._open_one_of(await self.resolver.hosts(self._connect_timeout_s))

    async def _open_unix(self, path: str) -> UpstreamConnection:
        # Call connect() here: on a Unix socket it never has to wait. With a full backlog it fails
        # with EAGAIN. asyncio's event loop would take that for a connection in progress, and then
        # for an established one.
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            _, made = await self._loop.create_unix_connection(self._protocol, sock=sock)
        except BaseException:
            sock.close()
            raise
        return cast("UpstreamConnection", made)

    async def _open_tcp(self, host: str) -> UpstreamConnection:
        _, made = await self._loop.create_connection(
            self._protocol,
            host,
            self._address.port,
            ssl=self._tls,
            server_hostname=self._tls_name,
        )
        return cast("UpstreamConnection", made)

    def _protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", self._make_connection(self))

    async def _open_one_of(self, hosts: list[str]) -> UpstreamConnection:
        """Try the addresses one after the other, each with an equal share of the time left.

        Loopback addresses get all of the time left: no packet is lost on the way to them, and an
        address on which nothing listens refuses at once. If one does not answer at once, its
        backlog is full.
        """
        until = self._loop.time() + self._connect_timeout_s
        fault: OSError | None = None
        for place, host in enumerate(hosts):
            left = 1 if host in LOOPBACK_HOSTS else len(hosts) - place
            share_s = (until - self._loop.time()) / left
            try:
                async with asyncio.timeout(share_s):
                    connection = await self._open_tcp(host)
            except OSError as error:  # TimeoutError is one
                if error.errno in _OUR_OWN_LIMITS:
                    raise
                if fault is None or fault.errno in _NO_WAY_THERE:
                    fault = error  # else keep the first: that address worked last
            else:
                self.resolver.worked(host)
                return connection
        assert fault is not None, "the resolver tells at least one address"
        raise fault

    async def _dial(self, exchange: Dialler) -> None:
        with self._working_for(exchange):
            try:
                connection = await self._connect()
            except UpstreamError as error:
                exchange.connect_failed(error, self._loop.time())
                return
            self._hand_over(connection, exchange)

    @contextlib.contextmanager
    def _working_for(self, exchange: Dialler) -> Generator[None]:
        """Keep an error in one exchange from affecting the others."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - reported to the loop
            self._break(exchange, error)

    def _hand_over(self, connection: UpstreamConnection, exchange: Dialler) -> None:
        now = self._loop.time()
        if exchange.wants_upstream() and not connection.closed:
            self.give(connection, exchange, now)
        elif exchange.wants_upstream():
            exchange.connect_failed(ConnectRefused("closed as soon as it was accepted"), now)
        elif not connection.closed:
            self.release(connection, now)

    async def _redial(self) -> None:
        try:
            while self._held:
                await asyncio.sleep(REDIAL_INTERVAL_S)
                try:
                    await self._redial_once()
                except Exception as error:  # noqa: BLE001 - others wait for the next attempt
                    report(self._loop, "dialling again has failed", error)
        finally:
            self._redialling = False

    async def _redial_once(self) -> None:
        try:
            connection = await self._connect()
        except UpstreamError as error:
            now = self._loop.time()
            expired = [exchange for exchange, until in self._held.items() if until <= now]
            for exchange in expired:
                del self._held[exchange]
                with self._working_for(exchange):
                    exchange.connect_failed(error, now, held=True)
            return
        except Exception as error:  # noqa: BLE001 - reported to the loop
            broken, self._held = list(self._held), {}
            for exchange in broken:
                self._break(exchange, error)
            return
        held, self._held = list(self._held), {}
        if not held:
            if not connection.closed:
                self.release(connection, self._loop.time())
            return
        with self._working_for(held[0]):
            self._hand_over(connection, held[0])
        for exchange in held[1:]:
            with self._working_for(exchange):
                self.acquire(exchange, self._loop.time())
