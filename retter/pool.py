"""Connections to the application: reused last-in first-out, dialled when there is none.

The one used last is the one least likely to have been closed by the application in the meantime,
and lets the others grow old and go. Nothing waits for a place here: how many requests may be in
flight is the breaker's decision alone.
"""

import asyncio
import errno
import ssl
from collections.abc import Callable
from typing import Protocol

from retter.errors import (
    ConnectRefused,
    ConnectTimeout,
    OutOfDescriptors,
    UpstreamError,
    UpstreamTLSFailed,
)
from retter.units import UpstreamAddress
from retter.upstream import UpstreamConnection

# How often the held requests' one redial knocks while the application restarts: often enough that
# nobody notices, seldom enough that it costs nothing.
REDIAL_INTERVAL_S = 0.1

_OUR_OWN_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def tls_fault(error: ssl.SSLError) -> str:
    """Return what was wrong, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be believed: {error.verify_message}"
    reason = error.reason or str(error)
    return f"no TLS with it: {reason.lower().replace('_', ' ')}"


class Dialler(Protocol):
    """What the pool needs of an exchange that wants a connection."""

    def wants_upstream(self) -> bool: ...
    def upstream_ready(self, connection: UpstreamConnection, now: float) -> None: ...
    def connect_failed(self, error: UpstreamError, now: float) -> None: ...
    def hold_expired(self, error: UpstreamError, now: float) -> None: ...


class ConnectionPool:
    """Upstream connections of one process, for one application.

    Args:
        idle_max: Idle connections kept; the oldest goes first.
        idle_s: Seconds an idle connection is kept. Under the application's own keep-alive, or a
            request meets a connection that is just being closed.
        connect_timeout_s: Seconds until a connection attempt counts as failed, TLS included.
        tls: For an application that is spoken to by https.
        tls_name: Whose certificate it has to show; the address's host if empty.
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
        tls: ssl.SSLContext | None = None,
        tls_name: str = "",
    ) -> None:
        self._address = address
        self._make_connection = make_connection
        self._loop = loop
        self._idle_max = idle_max
        self._idle_s = idle_s
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._tls_name = (tls_name or address.host) if tls is not None else None
        self._idle: list[UpstreamConnection] = []        # oldest first
        self._connections: set[UpstreamConnection] = set()
        self._held: dict[Dialler, float] = {}            # -> until (monotonic seconds)
        self._tasks: set[asyncio.Task[None]] = set()
        self._redialling = False
        self._closed = False
        self.dials = 0
        self.dials_failed = 0

    @property
    def idle(self) -> int:
        """Connections open and unused."""
        return len(self._idle)

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
        """Requests that wait for a refused connection to be accepted."""
        return len(self._held)

    def acquire(self, exchange: Dialler, now: float, *, fresh: bool = False) -> None:
        """Give the exchange a connection: at once if one is idle, else when one is dialled."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.closed:
                exchange.upstream_ready(connection, now)
                return
        self._dial_soon(exchange)

    def release(self, connection: UpstreamConnection, now: float) -> None:
        """Take back a connection whose answer ended cleanly."""
        if self._closed:
            connection.close()
            return
        connection.idle_since = now
        self._idle.append(connection)
        if len(self._idle) > self._idle_max:
            self._idle[0].close()

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is closed."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def hold(self, exchange: Dialler, until: float) -> None:
        """Keep an exchange whose connection was refused, and redial for it until then."""
        self._held[exchange] = until
        if not self._redialling:
            self._redialling = True
            self._redial_soon()

    def unhold(self, exchange: Dialler) -> None:
        """The exchange does not want the connection any more."""
        self._held.pop(exchange, None)

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long. Call it now and then."""
        oldest = now - self._idle_s
        while self._idle and self._idle[0].idle_since <= oldest:
            self._idle[0].close()

    def close(self) -> None:
        """Close everything and stop dialling."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._connections):
            connection.abandon()  # an exchange that were told would dial again

    # -- dialling -----------------------------------------------------------------------------

    def _dial_soon(self, exchange: Dialler) -> None:
        if not self._closed:
            self._spawn(self._dial(exchange))

    def _redial_soon(self) -> None:
        self._spawn(self._redial())

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> UpstreamConnection:
        self.dials += 1
        address = self._address
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if address.kind == "unix":
                    _, connection = await self._loop.create_unix_connection(
                        lambda: self._make_connection(self), address.path
                    )
                else:
                    _, connection = await self._loop.create_connection(
                        lambda: self._make_connection(self), address.host, address.port,
                        ssl=self._tls, server_hostname=self._tls_name,
                    )  # fmt: skip
        except TimeoutError as error:
            self.dials_failed += 1
            raise ConnectTimeout("the connection was not accepted in time") from error
        except ssl.SSLError as error:
            self.dials_failed += 1
            raise UpstreamTLSFailed(tls_fault(error)) from error
        except OSError as error:
            self.dials_failed += 1
            if error.errno in _OUR_OWN_LIMITS:
                raise OutOfDescriptors(error.strerror or str(error)) from error
            raise ConnectRefused(error.strerror or str(error)) from error
        if not connection.closed:  # it may be lost before we are told that it was made
            self._connections.add(connection)
        return connection

    async def _dial(self, exchange: Dialler) -> None:
        try:
            connection = await self._connect()
        except UpstreamError as error:
            exchange.connect_failed(error, self._loop.time())
            return
        self._hand_over(connection, exchange)

    def _hand_over(self, connection: UpstreamConnection, exchange: Dialler) -> None:
        now = self._loop.time()
        if exchange.wants_upstream() and not connection.closed:
            exchange.upstream_ready(connection, now)
        elif exchange.wants_upstream():
            exchange.connect_failed(ConnectRefused("closed as soon as it was accepted"), now)
        elif not connection.closed:
            self.release(connection, now)

    async def _redial(self) -> None:
        try:
            while self._held:
                await asyncio.sleep(REDIAL_INTERVAL_S)
                await self._redial_once()
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
                exchange.hold_expired(error, now)
            return
        held, self._held = list(self._held), {}
        if not held:
            if not connection.closed:
                self.release(connection, self._loop.time())
            return
        self._hand_over(connection, held[0])
        for exchange in held[1:]:
            self.acquire(exchange, self._loop.time())
