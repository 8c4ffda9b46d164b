"""A whole proxy without a socket: bytes in, bytes out, the clock by hand.

`FakeProxy` wires the real Proxy, connections, exchanges, breaker and store to transports that
remember what was written. Time moves only with `advance`, in ticks like the real one's.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import pairwise
from math import inf
from typing import Any

from retter.base.errors import ConnectRefused, ConnectTimeout, UpstreamError
from retter.config.settings import Settings
from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.client_requests import ConnectionPhase
from retter.proxy.pool import ConnectionPool, Dialler
from retter.proxy.proxy import Proxy
from retter.proxy.proxy_protocol import ProxiedConnection
from retter.proxy.secrets import Secrets
from retter.proxy.ticker import TICK_S
from retter.proxy.upstream_connection import UpstreamConnection

# What the wall clock shows, until a test sets it, and what an application's answer is dated.
DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
_DATE_LINE = b"Date: %b\r\n" % DATE.encode()


class FakeLoop:
    """A clock, and nothing that runs by itself."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.reported: list[Exception] = []
        self.takes_reports = False  # of our own faults: a test is about them

    def time(self) -> float:
        return self.now

    def call_later(self, *_: object) -> Any:
        raise AssertionError("nothing here may set a timer")

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self.soon.append((callback, args))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A fault of ours: the test has failed, unless it is about that."""
        self.reported.append(context["exception"])
        if not self.takes_reports:
            raise context["exception"]

    def next_round(self) -> None:
        """Call what is to be called soon."""
        soon, self.soon = self.soon, []
        for callback, args in soon:
            callback(*args)


class FakeTransport(asyncio.Transport):
    """Remembers what was written; ends when told to."""

    def __init__(self, protocol: Any, peername: object = ("192.0.2.7", 50000)) -> None:
        self._extra: dict[str, Any] = {"peername": peername}
        super().__init__(self._extra)
        self.protocol: Any = protocol  # asyncio.Protocol, or what is as good
        self.buffer = b""  # everything written
        self.writes = 0
        self.taken = 0  # of it, read by the test
        self.eof_written = False
        self.closing = False
        self.aborted = False
        self.reading = True
        self.high_water: int | None = None
        self.stalled = False  # the peer takes nothing
        self.unsent = 0  # in the write buffer, while it does not, or as told by the test
        self._lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.eof_written, "written after end of file"
        if not self.closing:
            self.writes += 1
            self.buffer += bytes(data)
            self.unsent += len(data) * self.stalled

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_water = high

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert callable(getattr(protocol, "data_received", None))
        self.protocol = protocol

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def lose(self, exc: Exception | None = None) -> None:
        """What the loop does in its next round after close, abort or the peer's end."""
        if not self._lost:
            self._lost = self.closing = True
            self.protocol.connection_lost(exc)


class FakePeer:
    """The far end of one connection of the proxy."""

    def __init__(self, transport: FakeTransport) -> None:
        self.transport = transport

    @property
    def protocol(self) -> Any:
        return self.transport.protocol

    def sends(self, data: bytes) -> None:
        """Deliver bytes to the proxy, unless the connection has ended."""
        if not self.transport.closing:
            self.protocol.data_received(data)
        self._settle()

    def ends(self) -> None:
        """Close our sending side."""
        if not self.transport.closing and not self.protocol.eof_received():
            self.transport.close()
        self._settle()

    def resets(self) -> None:
        """Tear the connection down."""
        self.transport.lose(ConnectionResetError("reset by the test"))

    def received(self) -> bytes:
        """Return what the proxy has written since the last call, without lines of the usual DATE.

        Every answer has one, so they would only make what a test expects longer. Any other Date is
        left as it is; tests of the field itself set one, or look at `written`.
        """
        return self.written().replace(_DATE_LINE, b"")

    def written(self) -> bytes:
        """Return all that the proxy has written since the last call."""
        transport = self.transport
        new = transport.buffer[transport.taken :]
        transport.taken = len(transport.buffer)
        return new

    @property
    def closed(self) -> bool:
        """Whether the proxy has closed the connection, or its sending side."""
        return self.transport.closing or self.transport.eof_written

    def blocks(self) -> None:
        """Stop reading: the proxy's write buffer fills up."""
        self.transport.stalled = True
        self.transport.unsent = (self.transport.high_water or 0) + 1
        self.protocol.pause_writing()

    def blocks_at_next_write(self) -> None:
        """Let the next write fill the buffer: a transport calls pause_writing inside of it."""
        transport: Any = self.transport
        write: Callable[[bytes], None] = transport.write

        def write_and_block(data: bytes) -> None:
            transport.write = write
            write(data)
            self.blocks()

        transport.write = write_and_block

    def unblocks(self) -> None:
        """Read again."""
        self.transport.stalled = False
        self.transport.unsent = 0
        self.protocol.resume_writing()

    def _settle(self) -> None:
        if self.transport.closing:
            self.transport.lose()


class FakePool(ConnectionPool):
    """Dials nothing: the test decides what becomes of each attempt."""

    proxy: "FakeProxy"

    def _dial_soon(self, exchange: Dialler) -> None:
        self.dials += 1
        self.proxy.dialled.append(exchange)
        if self.proxy.auto_accept:
            self.proxy.accept()

    def _redial_soon(self) -> None:
        pass

    def made(self) -> UpstreamConnection:
        connection = self._make_connection(self)
        self._connections.add(connection)
        self.contacts += 1
        self.fault = ""
        return connection


class FakeWorkers:
    """A thread that works when the test lets it."""

    def __init__(self) -> None:
        self._jobs: list[tuple[Callable[[], bytes], Callable[[bytes | None], None]]] = []
        self.waiting = 0  # a test may say more than there are
        self.done = 0
        self.closed = False

    def submit(self, job: Callable[[], bytes], done: Callable[[bytes | None], None]) -> None:
        self._jobs.append((job, done))
        self.waiting += 1

    def work(self, *, fail: bool = False) -> int:
        """Do all that waits, and what comes of it; return how much that was."""
        worked = 0
        while self._jobs:
            job, done = self._jobs.pop(0)
            self.waiting -= 1
            worked += 1
            done(None if fail else job())
        self.done += worked
        return worked

    def close(self) -> None:
        self.closed = True


class FakeProxy:
    """One proxy, any number of clients and upstream connections."""

    def __init__(
        self,
        made: Settings | None = None,
        disk: Any = None,
        own_loop: FakeLoop | None = None,
        secrets: Secrets | None = None,
        far: Any = None,
        place: Any = None,
        messages_max: int = 1,  # each is written at once, so that a test sees it; else `next_round`
        **settings: Any,
    ) -> None:
        self.loop = own_loop or FakeLoop()
        self.auto_accept = True
        self.dialled: list[Dialler] = []
        self.upstreams: list[FakePeer] = []
        self.clients: list[FakePeer] = []
        self.transitions: list[Any] = []
        self.date = DATE
        settings.setdefault("upstream", "127.0.0.1:8080")
        loop: Any = self.loop
        self.proxy = Proxy(
            made or Settings(**settings),
            loop,
            self.transitions.append,
            FakePool,
            self.loop.time,
            disk,
            secrets,
            place=place,
            far=far,
        )
        services = self.services = self.proxy.services
        services.http_date = lambda: self.date
        services.write_batch.messages_max = messages_max
        pool: Any = services.pool
        pool.proxy = self
        self.workers = services.compression.workers = FakeWorkers()
        services.decoding.workers = services.keeper.workers = self.workers

    # -- the client's side ------------------------------------------------------------------

    def client(
        self,
        sends: bytes = b"",
        peername: object = ("192.0.2.7", 50000),
        *,
        proxied: bool = False,
    ) -> FakePeer:
        """Connect a client, or a balancer that sends a PROXY header first, and let it send."""

        def make(peer: str | None = None) -> Any:
            return DownstreamConnection(self.services, peer=peer)

        connection = ProxiedConnection(self.services, make) if proxied else make()
        transport = FakeTransport(connection, peername)
        connection.connection_made(transport)
        peer = FakePeer(transport)
        self.clients.append(peer)
        if sends:
            peer.sends(sends)
        return peer

    # -- the application's side -------------------------------------------------------------

    def accept(self) -> FakePeer:
        """Accept the oldest connection attempt."""
        exchange = self.dialled.pop(0)
        pool: Any = self.services.pool
        connection = pool.made()
        transport = FakeTransport(connection)
        connection.connection_made(transport)
        peer = FakePeer(transport)
        self.upstreams.append(peer)
        pool._hand_over(connection, exchange)
        return peer

    def refuse(self, error: UpstreamError | None = None) -> None:
        """Refuse the oldest connection attempt."""
        error = error or ConnectRefused("refused")
        self.services.pool.fault = str(error)
        self.dialled.pop(0).connect_failed(error, self.loop.now)

    def time_out_dial(self) -> None:
        """Let the oldest connection attempt time out."""
        self.refuse(ConnectTimeout("not accepted"))

    @property
    def upstream(self) -> FakePeer:
        """The upstream connection opened last."""
        return self.upstreams[-1]

    # -- time -------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        end = self.loop.now + seconds
        while self.loop.now < end - 1e-9:
            self.loop.now = min(end, self.loop.now + TICK_S)
            self.proxy.ticker.tick(self.loop.now)
            while self.services.clients.expire(self.loop.now):
                pass
            self.settle()

    def settle(self) -> None:
        """Let the loop's next round come: closed transports report their end."""
        self.loop.next_round()
        for peer in [*self.clients, *self.upstreams]:
            peer._settle()

    # -- what must hold when nothing is going on ------------------------------------------------

    def assert_at_rest(self) -> None:
        """Nothing is in flight, waiting or leaked."""
        stats = self.proxy.stats()
        assert stats["exchanges"] == stats["streams"] == 0, stats
        assert self.services.breaker.waiting == 0
        assert stats["upstream"]["open"] == stats["upstream"]["idle"], stats["upstream"]
        assert stats["upstream"]["held"] == 0
        assert stats["buffers"]["bytes"] == 0, "what was taken has been given back"
        assert self.services.waiting.used == 0
        for client in self.clients:
            connection = client.transport.protocol
            if not (client.transport.closing or isinstance(connection, ProxiedConnection)):
                assert connection.work is None, "a client whose next request would have no answer"
                if connection.phase is not ConnectionPhase.DECODING:  # its own wait is over soon
                    assert connection.deadline < inf, "a client that is waited for without end"


def proxy_with_idle_connection(**settings: Any) -> FakeProxy:
    """Return a proxy with one idle connection to the application and nothing stored."""
    proxy = FakeProxy(**settings)
    proxy.client(get("/first", headers={"Range": "bytes=0-"}))
    proxy.upstream.sends(reply(b"x"))
    assert proxy.services.pool.idle == 1
    return proxy


def split_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut data at these places."""
    places = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places) if a != b]


def body_of(message: bytes) -> bytes:
    """Return what follows the first head."""
    return message.partition(b"\r\n\r\n")[2]


def status_of(message: bytes) -> int:
    """Return the status of an answer."""
    return int(message.split(b" ", 2)[1])


def field(message: bytes, name: str) -> str | None:
    """Return a field of the first head, or None."""
    for line in message.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]:
        field_name, _, value = line.partition(b":")
        if field_name.decode().lower() == name.lower():
            return value.strip().decode("latin-1")
    return None


def get(path: str = "/", *, headers: dict[str, str] | None = None, version: str = "1.1") -> bytes:
    """Return a GET as a browser would send it."""
    fields = {"Host": "shop.example", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET {path} HTTP/{version}\r\n{lines}\r\n".encode("latin-1")


def reply(
    body: bytes = b"hello",
    *,
    status: str = "200 OK",
    headers: dict[str, str] | None = None,
    dated: bool = True,
) -> bytes:
    """Return an application's answer with a Content-Length and, if `dated` and not given, DATE."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    if dated:
        fields = {"Date": DATE, **fields}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body


Step = Callable[[FakeProxy], None]
