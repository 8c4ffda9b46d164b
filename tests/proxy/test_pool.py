"""The pool against a naive model, and its dialling against loops that refuse, hang and accept."""

import asyncio
import errno
import socket
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retter.base.errors import ConnectRefused, ConnectTimeout, OutOfDescriptors, UpstreamError
from retter.config.units import UpstreamAddress, parse_upstream
from retter.proxy.pool import (
    FLUSH_S,
    REST_IF_NEEDED_S,
    REST_S,
    RESTING_MANY,
    SURPLUS_S,
    ConnectionPool,
    Dialler,
)
from retter.proxy.upstream_connection import UpstreamConnection
from tests.support.harness import (
    FakeProxy,
    FakeTransport,
    get,
    proxy_with_idle_connection,
)
from tests.support.streams import take_all

IDLE_MAX = 3
IDLE_S = 2.0


class FakeConnection:
    """An upstream connection, as the pool sees it."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.pool = pool
        self.closed = False
        self.aborted = False
        self.unread = False
        self.looked_at = 0
        self.idle_since = 0.0
        self.made_at = pool._loop.time()

    def has_unread(self) -> bool:
        self.looked_at += 1
        return self.unread

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.pool.forget(self)  # type: ignore[arg-type]

    def discard(self) -> None:
        self.close()

    def abort(self) -> None:
        self.aborted = True
        self.pool.forget(self)  # type: ignore[arg-type]


class FakeExchange:
    """Takes what it is given and remembers it."""

    def __init__(self) -> None:
        self.wants = True
        self.connection: FakeConnection | None = None
        self.error: UpstreamError | None = None
        self.expired = False
        self.is_broken = False

    def broken(self, now: float) -> None:
        self.is_broken, self.wants = True, False

    def wants_upstream(self) -> bool:
        return self.wants

    def upstream_ready(self, connection: Any, now: float) -> None:
        assert self.connection is None, "one connection for one request"
        assert not connection.closed
        self.connection, self.wants = connection, False

    def connect_failed(self, error: UpstreamError, now: float, *, held: bool = False) -> None:
        self.error, self.expired, self.wants = error, held, False


class FakeLoop:
    now = 100.0

    def time(self) -> float:
        return self.now


class HandPool(ConnectionPool):
    """Dials nothing: the test says what becomes of each attempt."""

    def __init__(self, loop: FakeLoop) -> None:
        super().__init__(
            parse_upstream("127.0.0.1:1"),
            FakeConnection,  # type: ignore[arg-type]
            loop,  # type: ignore[arg-type]
            idle_max=IDLE_MAX,
            idle_s=IDLE_S,
            connect_timeout_s=1.0,
        )
        self.dialled: list[Dialler] = []
        self.redials = 0
        self.refuses = False

    def _dial_soon(self, exchange: Dialler) -> None:
        self.dialled.append(exchange)

    def _redial_soon(self) -> None:
        self.redials += 1

    async def _connect(self) -> UpstreamConnection:
        if self.refuses:
            raise ConnectRefused("refused")
        connection: Any = FakeConnection(self)
        self._connections.add(connection)
        return cast("UpstreamConnection", connection)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        with pytest.raises(StopIteration):
            work.send(None)

    def answer_dial(self, *, refuse: bool) -> None:
        self.refuses = refuse
        self.run(self._dial(self.dialled.pop(0)))

    def redial(self, *, refuse: bool) -> None:
        self.refuses = refuse
        self.run(self._redial_once())


class Pool(RuleBasedStateMachine):
    """Requests come and go, the application accepts, refuses and closes as it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeLoop()
        self.pool = HandPool(self.loop)
        self.idle: list[FakeConnection] = []  # the model, oldest first
        self.busy: list[FakeExchange] = []
        self.dialling: list[FakeExchange] = []
        self.held: dict[FakeExchange, float] = {}

    def _idle_now(self, connection: FakeConnection) -> None:
        self.idle.append(connection)

    def _has_idle(self) -> bool:
        """Whether there is one to be used: none of them is if the last one used is too old."""
        return bool(self.idle) and self.loop.now - self.idle[-1].idle_since < IDLE_S

    @rule(fresh=st.booleans())
    def acquire(self, fresh: bool) -> None:
        exchange = FakeExchange()
        self.pool.acquire(exchange, self.loop.now, fresh=fresh)
        if self._has_idle() and not fresh:
            assert exchange.connection is self.idle.pop(), "the one used last"
            self.busy.append(exchange)
        else:
            assert exchange.connection is None
            self.dialling.append(exchange)
            if not fresh:
                self.idle.clear()

    @precondition(lambda self: self.dialling)
    @rule(refuse=st.booleans(), gone=st.booleans())
    def dial_ends(self, refuse: bool, gone: bool) -> None:
        exchange = self.dialling.pop(0)
        exchange.wants = not gone
        before = {*self.pool._idle}
        self.pool.answer_dial(refuse=refuse)
        if refuse:
            assert isinstance(exchange.error, ConnectRefused)
        elif gone:
            assert exchange.connection is None
            (new,) = {*self.pool._idle} - before
            self._idle_now(new)  # type: ignore[arg-type]
        else:
            assert exchange.connection is not None
            self.busy.append(exchange)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        exchange = data.draw(st.sampled_from(self.busy))
        self.busy.remove(exchange)
        connection: Any = exchange.connection
        self.pool.release(connection, self.loop.now)
        self._idle_now(connection)

    @precondition(lambda self: self.idle)
    @rule(data=st.data())
    def application_closes_an_idle_one(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(self.idle))
        connection.close()
        self.idle.remove(connection)

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def application_closes_a_busy_one(self, data: st.DataObject) -> None:
        exchange = data.draw(st.sampled_from(self.busy))
        self.busy.remove(exchange)
        assert exchange.connection is not None
        exchange.connection.close()

    @rule(seconds=st.floats(0, 3))
    def is_held_up(self, seconds: float) -> None:
        self.loop.now += seconds

    @rule(seconds=st.floats(0, 3))
    def let_time_pass(self, seconds: float) -> None:
        self.loop.now += seconds
        self.pool.sweep(self.loop.now)
        self.idle = [c for c in self.idle if c.idle_since > self.loop.now - IDLE_S]
        while len(self.idle) > IDLE_MAX and self.idle[0].idle_since <= self.loop.now - SURPLUS_S:
            self.idle.pop(0)

    @rule(wait=st.floats(0, 3))
    def hold(self, wait: float) -> None:
        exchange = FakeExchange()
        self.pool.hold(exchange, self.loop.now + wait)
        self.held[exchange] = self.loop.now + wait

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def unhold(self, data: st.DataObject) -> None:
        exchange = data.draw(st.sampled_from(list(self.held)))
        del self.held[exchange]
        self.pool.unhold(exchange)

    @precondition(lambda self: self.held)
    @rule()
    def redial_is_refused(self) -> None:
        self.pool.redial(refuse=True)
        for exchange, until in list(self.held.items()):
            assert exchange.expired is (until <= self.loop.now)
            if exchange.expired:
                del self.held[exchange]

    @rule()
    def redial_is_accepted(self) -> None:
        before = {*self.pool._idle}
        idle = len([c for c in self.idle if self.loop.now - c.idle_since < IDLE_S])
        self.pool.redial(refuse=False)
        if not self.held:
            (new,) = {*self.pool._idle} - before
            self._idle_now(new)  # type: ignore[arg-type]
        for n, exchange in enumerate(self.held):
            if n == 0:
                assert exchange.connection is not None, "whoever has waited longest"
                self.busy.append(exchange)
            elif n <= idle:
                assert exchange.connection is self.idle.pop()
                self.busy.append(exchange)
            else:
                self.dialling.append(exchange)
                self.idle.clear()
        self.held = {}

    @invariant()
    def the_pool_is_as_the_model(self) -> None:
        assert self.pool._idle == self.idle
        assert self.pool.idle == len(self.idle)
        assert self.pool.open == len(self.idle) + len(self.busy)
        assert self.pool.held == len(self.held)
        assert self.pool.dialled == self.dialling


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_after_close_nothing_is_kept() -> None:
    pool = HandPool(FakeLoop())
    exchange = FakeExchange()
    pool.acquire(exchange, 0.0)
    pool.answer_dial(refuse=False)
    other = FakeExchange()
    pool.acquire(other, 0.0)
    pool.answer_dial(refuse=False)
    pool.release(exchange.connection, 0.0)  # type: ignore[arg-type]
    pool.close()
    assert pool.open == pool.idle == 0
    late: Any = FakeConnection(pool)
    pool.release(late, 0.0)
    assert late.closed


def test_a_connection_closed_as_soon_as_it_was_accepted_is_a_refusal() -> None:
    pool = HandPool(FakeLoop())
    exchange = FakeExchange()
    connection: Any = FakeConnection(pool)
    connection.close()
    pool._hand_over(connection, exchange)
    assert isinstance(exchange.error, ConnectRefused)
    gone = FakeExchange()
    gone.wants = False
    pool._hand_over(connection, gone)
    assert pool.idle == 0


def test_a_closed_connection_is_never_handed_out() -> None:
    pool = HandPool(FakeLoop())
    connection: Any = FakeConnection(pool)
    pool.release(connection, 0.0)
    connection.closed = True  # its end is known, and has not been told yet
    exchange = FakeExchange()
    pool.acquire(exchange, 0.0)
    assert exchange.connection is None
    assert pool.dialled == [exchange]


def test_a_connection_rests_before_it_is_used_again() -> None:
    pool = HandPool(FakeLoop())
    connection, closed = (FakeConnection(pool) for _ in range(2))
    pool.rest(connection, 1.0, if_needed=False)  # type: ignore[arg-type]
    pool.rest(closed, 1.0, if_needed=False)  # type: ignore[arg-type]
    closed.close()
    assert pool.idle == 1
    pool.acquire(FakeExchange(), 1.0)
    assert len(pool.dialled) == 1, "not yet"
    pool.sweep(1.0 + REST_S / 2)
    pool.acquire(FakeExchange(), 1.0)
    assert len(pool.dialled) == 2, "not yet"
    pool.sweep(1.0 + REST_S)
    exchange = FakeExchange()
    pool.acquire(exchange, 1.0 + REST_S)
    assert exchange.connection is connection
    assert pool.idle == 0


def test_a_short_rest_will_do_if_there_is_no_other() -> None:
    pool = HandPool(FakeLoop())
    never, chatty, old, young = connections = [FakeConnection(pool) for _ in range(4)]
    for connection in connections:
        late = 2 * REST_IF_NEEDED_S if connection is young else 0
        pool.rest(connection, 1.0 + late, if_needed=connection is not never)  # type: ignore[arg-type]
    chatty.unread = True
    exchange, other, fresh = FakeExchange(), FakeExchange(), FakeExchange()
    pool.acquire(fresh, 1.0 + 2 * REST_IF_NEEDED_S, fresh=True)
    pool.acquire(exchange, 1.0 + 2 * REST_IF_NEEDED_S)
    pool.acquire(other, 1.0 + 2 * REST_IF_NEEDED_S)
    assert exchange.connection is old
    assert (never.closed, chatty.closed, young.closed) == (False, True, False)
    assert pool.dialled == [fresh, other]
    assert pool.idle == 2


def test_where_many_rest_a_short_rest_will_do_for_all() -> None:
    """Else a crowd of HEADs would open a connection for each."""
    pool = HandPool(FakeLoop())
    connections = [FakeConnection(pool) for _ in range(RESTING_MANY)]
    for connection in connections[:-1]:
        pool.rest(connection, 1.0, if_needed=False)  # type: ignore[arg-type]
    few, many, soon = FakeExchange(), FakeExchange(), FakeExchange()
    pool.acquire(few, 1.0 + 2 * REST_IF_NEEDED_S)
    assert pool.dialled == [few]
    pool.rest(connections[-1], 1.0, if_needed=False)  # type: ignore[arg-type]
    pool.acquire(soon, 1.0 + REST_IF_NEEDED_S / 2)
    assert pool.dialled == [few, soon]
    pool.acquire(many, 1.0 + 2 * REST_IF_NEEDED_S)
    assert many.connection is connections[0]


def test_what_is_still_to_be_delivered_has_a_time_limit() -> None:
    loop = FakeLoop()
    pool = HandPool(loop)
    quick, slow, last = connections = [FakeConnection(pool) for _ in range(3)]
    for connection in connections[:2]:
        pool.flush(connection)  # type: ignore[arg-type]
    pool.forget(quick)  # type: ignore[arg-type]  # all has been delivered
    pool.sweep(loop.now + FLUSH_S - 1)
    assert not slow.aborted
    pool.sweep(loop.now + FLUSH_S)
    assert slow.aborted and not quick.aborted
    pool.flush(last)
    pool.close()
    assert last.aborted


# -- dialling, on a real loop -----------------------------------------------------------------


class Peer(asyncio.Protocol, FakeConnection):
    """A protocol that the pool can dial."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def close(self) -> None:
        super().close()
        self.transport.close()


def _idle_connection(pool: HandPool) -> FakeConnection:
    exchange = FakeExchange()
    pool.acquire(exchange, pool._loop.time())
    pool.answer_dial(refuse=False)
    assert exchange.connection is not None
    pool.release(exchange.connection, pool._loop.time())  # type: ignore[arg-type]
    return exchange.connection


def test_a_connection_that_is_too_old_is_given_no_more_requests() -> None:
    loop = FakeLoop()
    pool = HandPool(loop)
    pool.ready.max_age_s = 10.0
    connection = _idle_connection(pool)
    loop.now += 9.9
    connection.idle_since = loop.now - 0.1
    busy = FakeExchange()
    pool.acquire(busy, loop.now)
    assert busy.connection is connection
    loop.now += 5.0  # what is under way goes on
    pool.sweep(loop.now)
    assert not connection.closed
    pool.release(connection, loop.now)  # type: ignore[arg-type]
    next_one = FakeExchange()
    pool.acquire(next_one, loop.now)
    assert connection.closed and next_one.connection is None and len(pool.dialled) == 1


def test_a_connection_that_rests_is_not_used_when_it_is_too_old() -> None:
    loop = FakeLoop()
    pool = HandPool(loop)
    pool.ready.max_age_s = 10.0
    connection = _idle_connection(pool)
    pool._idle.clear()
    loop.now += 10.0
    pool.rest(connection, loop.now, if_needed=True)  # type: ignore[arg-type]
    pool.acquire(FakeExchange(), loop.now + 2 * REST_IF_NEEDED_S)
    assert connection.closed and len(pool.dialled) == 1


def test_a_look_finds_what_the_loop_has_not_told_yet() -> None:
    loop = FakeLoop()
    pool = HandPool(loop)
    first = _idle_connection(pool)
    pool._idle.clear()
    second = _idle_connection(pool)
    pool.release(first, loop.now)  # type: ignore[arg-type]
    first.unread = True
    exchange = FakeExchange()
    pool.acquire(exchange, loop.now, look=True)
    assert first.closed and exchange.connection is second
    pool.release(second, loop.now)  # type: ignore[arg-type]
    looked_at = second.looked_at
    pool.acquire(FakeExchange(), loop.now)
    assert second.looked_at == looked_at, "it costs a system call"


def dialling_pool(address: UpstreamAddress, *, connect_timeout_s: float = 5.0) -> ConnectionPool:
    return ConnectionPool(
        address,
        Peer,  # type: ignore[arg-type]
        asyncio.get_running_loop(),
        idle_max=IDLE_MAX,
        idle_s=IDLE_S,
        connect_timeout_s=connect_timeout_s,
    )


async def _settled(pool: ConnectionPool) -> None:
    while pool._tasks:
        await asyncio.wait(list(pool._tasks))
        await asyncio.sleep(0)


def test_dialling_over_tcp_and_unix(tmp_path: Any) -> None:
    async def main() -> None:
        tcp = await asyncio.start_server(take_all, "127.0.0.1", 0)
        unix = await asyncio.start_unix_server(take_all, str(tmp_path / "s"))
        port = tcp.sockets[0].getsockname()[1]
        for address in (f"127.0.0.1:{port}", f"unix:{tmp_path}/s"):
            pool = dialling_pool(parse_upstream(address))
            exchange = FakeExchange()
            pool.acquire(exchange, 0.0)
            assert pool.dialling == 1
            await _settled(pool)
            assert exchange.connection is not None
            assert (pool.dialling, pool.open, pool.dials, pool.dials_failed) == (0, 1, 1, 0)
            pool.close()
        for server in (tcp, unix):
            server.close()

    asyncio.run(main())


def test_a_refused_dial(tmp_path: Any) -> None:
    async def main() -> None:
        pool = dialling_pool(parse_upstream(f"unix:{tmp_path}/nobody"))
        exchange = FakeExchange()
        pool.acquire(exchange, 0.0)
        await _settled(pool)
        assert isinstance(exchange.error, ConnectRefused)
        assert (pool.open, pool.dials_failed) == (0, 1)

    asyncio.run(main())


def test_a_dial_that_is_never_accepted() -> None:
    async def main() -> None:
        pool = dialling_pool(parse_upstream("127.0.0.1:1"), connect_timeout_s=0.001)

        class BlackHole:
            def __init__(self) -> None:
                self.loop = asyncio.get_running_loop()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.loop, name)

            async def create_connection(self, *_: object, **__: object) -> None:
                await asyncio.Event().wait()

        black_hole: Any = BlackHole()
        pool._loop = black_hole
        exchange = FakeExchange()
        pool.acquire(exchange, 0.0)
        await _settled(pool)
        assert isinstance(exchange.error, ConnectTimeout)

    asyncio.run(main())


class NamedHosts:
    """A loop on which a name leads where the test says, and some addresses are black holes."""

    def __init__(self, hosts: list[str], black_holes: tuple[str, ...] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        self.hosts = hosts
        self.black_holes = black_holes
        self.tried: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    async def getaddrinfo(self, host: str, port: int, *, type: int) -> list[Any]:
        assert host == "app.example"
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, type, proto, "", (host, port))
            for host in self.hosts
            for proto in (socket.IPPROTO_TCP, 0)  # an address may come twice
        ]

    async def create_connection(self, make: Any, host: str, port: int, **more: Any) -> Any:
        self.tried.append(host)
        if host in self.black_holes:
            await asyncio.Event().wait()
        return await self.loop.create_connection(make, host, port, **more)


async def _dialled(pool: ConnectionPool) -> FakeExchange:
    exchange = FakeExchange()
    pool.acquire(exchange, 0.0, fresh=True)
    await _settled(pool)
    return exchange


def test_a_name_is_followed_where_it_leads() -> None:
    async def main() -> None:
        server = await asyncio.start_server(take_all, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop: Any = NamedHosts(["127.0.0.3", "127.0.0.1"])  # nobody listens on the first
        pool = dialling_pool(parse_upstream(f"app.example:{port}"))
        pool._loop = pool.resolver._loop = loop
        assert (await _dialled(pool)).connection is not None
        assert loop.tried == ["127.0.0.3", "127.0.0.1"]
        assert (await _dialled(pool)).connection is not None
        assert loop.tried[2:] == ["127.0.0.1"], "what worked last comes first"
        loop.hosts = ["127.0.0.3"]
        assert isinstance((await _dialled(pool)).error, ConnectRefused)
        loop.hosts = []
        assert isinstance((await _dialled(pool)).error, ConnectRefused)
        loop.hosts = ["127.0.0.1"]
        assert (await _dialled(pool)).connection is not None
        pool.close()
        server.close()

    asyncio.run(main())


def test_an_address_that_does_not_answer_leaves_time_for_the_next() -> None:
    async def main() -> None:
        server = await asyncio.start_server(take_all, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        loop: Any = NamedHosts(["127.0.0.3", "127.0.0.1"], black_holes=("127.0.0.3",))
        pool = dialling_pool(parse_upstream(f"app.example:{port}"), connect_timeout_s=1.0)
        pool._loop = pool.resolver._loop = loop
        assert (await _dialled(pool)).connection is not None
        loop.black_holes = ("127.0.0.1", "127.0.0.3")
        pool._connect_timeout_s = 0.01
        assert isinstance((await _dialled(pool)).error, ConnectTimeout)
        pool.close()
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize("room", [True, False])
def test_a_dial_without_a_descriptor_asks_for_one(tmp_path: Any, room: bool) -> None:
    async def main() -> None:
        server = await asyncio.start_unix_server(take_all, str(tmp_path / "s"))
        pool = dialling_pool(parse_upstream(f"unix:{tmp_path}/s"))
        asked: list[bool] = []

        class Exhausted:
            def __init__(self) -> None:
                self.loop = asyncio.get_running_loop()

            def __getattr__(self, name: str) -> Any:
                return getattr(self.loop, name)

            async def create_unix_connection(self, *args: Any, **more: Any) -> Any:
                if not asked:
                    raise OSError(errno.EMFILE, "Too many open files")
                return await self.loop.create_unix_connection(*args, **more)

        def make_room() -> bool:
            asked.append(True)
            return room

        loop: Any = Exhausted()
        pool._loop = loop
        pool.make_room = make_room
        exchange = await _dialled(pool)
        assert len(asked) == 1
        assert isinstance(exchange.error, OutOfDescriptors) is not room
        assert (exchange.connection is not None) is room
        pool.close()
        server.close()

    asyncio.run(main())


def test_held_requests_are_redialled_until_the_application_is_back(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retter.proxy.pool.REDIAL_INTERVAL_S", 0.001)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = dialling_pool(parse_upstream(f"unix:{tmp_path}/s"))
        impatient, patient = FakeExchange(), FakeExchange()
        pool.hold(impatient, loop.time())
        pool.hold(patient, loop.time() + 60)
        assert pool.dialling == 0, "a redial is no request's own"
        while not impatient.expired:  # noqa: ASYNC110 - the pool has no event for it
            await asyncio.sleep(0.001)
        assert patient.error is None
        server = await asyncio.start_unix_server(take_all, str(tmp_path / "s"))
        await _settled(pool)
        assert patient.connection is not None
        assert pool.held == 0
        another = FakeExchange()
        pool.hold(another, loop.time() + 60)
        await asyncio.sleep(0)
        pool.close()
        await _settled(pool)
        assert not pool._redialling, "closing ends the redial"
        server.close()

    asyncio.run(main())


@pytest.mark.parametrize("error", [MemoryError(), UnicodeError("label too long")])
def test_a_fault_in_dialling_leaves_nobody_waiting(error: Exception) -> None:
    class FaultyPool(ConnectionPool):
        async def _open(self) -> UpstreamConnection:
            raise error

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reported: list[object] = []
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        pool = FaultyPool(
            parse_upstream("127.0.0.1:1"),
            FakeConnection,  # type: ignore[arg-type]
            loop,
            idle_max=1,
            idle_s=1,
            connect_timeout_s=1,
        )
        exchanges = [FakeExchange() for _ in range(3)]
        pool.acquire(exchanges[0], 0)
        for exchange in exchanges[1:]:
            pool._held[exchange] = 1.0
        await pool._redial_once()
        await _settled(pool)
        assert all(exchange.is_broken for exchange in exchanges)
        assert reported == [error] * 3
        assert not pool._held
        assert not pool._tasks

    asyncio.run(main())


def test_a_held_retry_is_not_timed_out_by_its_first_attempt() -> None:
    """A request that is dialled anew has the time limits of dialling and holding alone."""
    proxy = proxy_with_idle_connection(upstream_timeout_s=1, connect_hold_s=3)
    client = proxy.client(get("/2"))
    proxy.auto_accept = False
    proxy.upstream.resets()
    proxy.refuse()
    proxy.advance(1.5)
    assert client.received() == b""
    assert proxy.services.pool.held == 1


def test_a_connection_lost_before_it_is_known_is_not_kept() -> None:
    """An idle connection that is closed could never be swept out again."""
    proxy = FakeProxy()
    pool: Any = proxy.services.pool

    async def connect_and_lose() -> Any:
        connection = pool.made()
        transport = FakeTransport(connection)
        connection.connection_made(transport)
        transport.lose()
        return connection

    pool._connect = connect_and_lose
    redial = pool._redial_once()  # for an exchange whose client has left in the meantime
    with pytest.raises(StopIteration):
        redial.send(None)
    assert pool.idle == pool.open == 0


def test_nothing_is_dialled_after_closing() -> None:
    """Closing everything does not look like a lost connection that is worth a retry."""
    proxy = proxy_with_idle_connection()
    proxy.client(get())
    proxy.proxy.close()
    proxy.settle()
    assert proxy.services.pool.dials == 1
    assert proxy.services.pool.open == 0
