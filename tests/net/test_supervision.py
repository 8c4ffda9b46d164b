"""Nothing of our own ends unseen, and what one request meets is kept from the others."""

import ast
import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import retter
from retter.base.errors import UpstreamError
from retter.breaker import Mode
from retter.net.supervision import start_task
from retter.net.transports import close_sending
from retter.proxy.exchange import Exchange
from retter.proxy.holders import resume
from retter.proxy.upstream_connection import UpstreamConnection
from tests.proxy.test_pool import FakeExchange, FakeLoop, HandPool
from tests.support.compiled import replaces_parts
from tests.support.harness import FakeProxy, body_of, get, reply, status_of

SOURCE = Path(retter.__file__).parent

# What starts a task, and does not say what becomes of its exception.
BARE = {"create_task", "ensure_future", "TaskGroup", "run_coroutine_threadsafe"}


def called(tree: ast.AST) -> set[str]:
    """Return the names of all functions and methods that are called."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {one.attr for one in functions if isinstance(one, ast.Attribute)}
    return names | {one.id for one in functions if isinstance(one, ast.Name)}


def test_every_task_is_started_in_one_place() -> None:
    starting = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if called(ast.parse(path.read_text(encoding="utf-8"))) & BARE
    }
    assert starting == {"net/supervision.py"}


def test_a_task_that_fails_is_told_when_it_ends() -> None:
    """Although somebody still has it, and may ask for its result one day."""
    told: list[dict[str, Any]] = []

    async def fails() -> None:
        raise ValueError("a fault")

    async def waits() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: told.append(about))
        tasks = [start_task(loop, fails(), "failing"), start_task(loop, waits(), "waiting")]
        await asyncio.wait(tasks[:1])
        await asyncio.sleep(0)
        assert [(one["message"], str(one["exception"])) for one in told] == [
            ("a task has failed: failing", "a fault"),
        ]
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert len(told) == 1, "one that is cancelled has not failed"

    asyncio.run(main())


# -- one fault, one request -----------------------------------------------------------------------


class FaultyExchange(FakeExchange):
    """One that cannot be told anything."""

    def upstream_ready(self, connection: Any, now: float) -> None:
        raise OSError(107, "a fault of ours")

    def connect_failed(self, error: UpstreamError, now: float, *, held: bool = False) -> None:
        raise OSError(107, "a fault of ours")


@pytest.fixture
def pool() -> HandPool:
    loop: Any = FakeLoop()
    loop.told = []
    loop.call_exception_handler = loop.told.append
    return HandPool(loop)


@pytest.mark.parametrize("refuse", [True, False])
def test_one_held_exchange_keeps_the_others_waiting_no_longer(pool: HandPool, refuse: bool) -> None:
    loop: Any = pool._loop
    faulty, others = FaultyExchange(), [FakeExchange(), FakeExchange()]
    for exchange in (faulty, *others):
        pool.hold(exchange, loop.now)
    pool.redial(refuse=refuse)
    assert faulty.is_broken
    assert [one["exception"].errno for one in loop.told] == [107]
    if refuse:
        assert all(other.expired for other in others)
    else:
        assert pool.dialled == others, "the connection is gone, so they get others"


@pytest.mark.parametrize("refuse", [True, False])
def test_one_dialling_exchange_that_fails_is_ended(pool: HandPool, refuse: bool) -> None:
    loop: Any = pool._loop
    faulty = FaultyExchange()
    pool.acquire(faulty, loop.now)
    pool.answer_dial(refuse=refuse)
    assert faulty.is_broken and len(loop.told) == 1


def test_dialling_again_goes_on_after_a_fault(pool: HandPool) -> None:
    """Whoever is held is told of the end of its time by nobody else."""
    loop: Any = pool._loop
    rounds: list[int] = []

    async def redial_once() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise ValueError("a fault")
        pool._held.clear()

    pool._redial_once = redial_once  # type: ignore[method-assign]
    pool.hold(FakeExchange(), loop.now)
    asyncio.run(pool._redial())
    assert len(rounds) == 2
    assert len(loop.told) == 1 and not pool._redialling


def identity_fields(proxy: FakeProxy) -> list[Exception]:
    """Take what is told of our own faults, which would else fail the test."""
    proxy.loop.takes_reports = True
    return proxy.loop.reported


def fails_for_the_first(method: Callable[..., Any]) -> Callable[..., Any]:
    seen: list[Exchange] = []

    def instead(self: Exchange, *arguments: Any) -> Any:
        if not seen:
            seen.append(self)
        if self is seen[0]:
            raise ValueError("a fault")
        return method(self, *arguments)

    return instead


@replaces_parts
@pytest.mark.parametrize("name", ["overdue", "sweep"])
def test_a_tick_goes_on_to_the_next_exchange(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The one that has met a fault is answered, and its place is free."""
    proxy = FakeProxy(patience_closed_s=1, upstream_timeout_s=2)
    told = identity_fields(proxy)
    proxy.client(get())
    proxy.upstream.sends(reply(b"good"))
    clients = [proxy.client(get()) for _ in range(2)]
    monkeypatch.setattr(Exchange, name, fails_for_the_first(getattr(Exchange, name)))
    proxy.advance(3)
    assert [body_of(client.received()) for client in clients] == [b"good"] * 2
    assert len(told) == 1
    proxy.settle()
    proxy.assert_at_rest()


def fails(*_: object) -> None:
    raise OSError("Too many open files")


def test_a_change_of_state_that_cannot_be_told_is_a_change_for_all_others() -> None:
    proxy = FakeProxy()
    told = identity_fields(proxy)
    heard: list[str] = []
    proxy.proxy.on_transition[:] = [fails, lambda transition: heard.append(transition.after.value)]
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    assert heard == ["OPEN"] and len(told) == 1


def test_what_is_due_each_second_is_done_though_another_part_fails() -> None:
    proxy = FakeProxy(head_timeout_s=1)
    told = identity_fields(proxy)
    seconds: list[float] = []
    proxy.proxy.ticker.on_second += [fails, seconds.append]
    slow = proxy.client(b"GET / HTTP/1.1\r\n")
    proxy.advance(3)
    assert len(seconds) == len(told) == 3
    assert status_of(slow.received()) == 408, "time limits are looked at"


@replaces_parts
def test_a_request_for_which_there_is_no_memory_leaves_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It counts as in flight before there is an exchange that could end it."""
    proxy = FakeProxy()
    client = proxy.client()

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Exchange, "__init__", no_memory)
    with pytest.raises(MemoryError):
        client.sends(get())
    assert proxy.services.breaker.circuit.limit.in_flight == 0
    assert not proxy.services.breaker.circuit.flight.young


@replaces_parts
def test_a_request_that_cannot_be_sent_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FakeProxy()
    told = identity_fields(proxy)
    proxy.client(get())
    proxy.upstream.sends(reply(b"good"))

    def fails(*_: object) -> None:
        raise ValueError("a fault")

    with monkeypatch.context() as patch:
        patch.setattr(UpstreamConnection, "send", fails)
        client = proxy.client(get())
    assert body_of(client.received()) == b"good"
    assert len(told) == 1
    assert proxy.upstream.closed
    proxy.settle()
    proxy.assert_at_rest()


@replaces_parts
def test_whose_turn_it_is_goes_on_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = FakeProxy(circuit="open")
    told = identity_fields(proxy)
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.AUTO)
    proxy.services.breaker.circuit.pause(proxy.loop.now, proxy.loop.now + 5)
    clients = [proxy.client(get(f"/{n}")) for n in range(2)]
    forward = Exchange.forward

    def instead(self: Exchange, now: float) -> None:
        forward(self, now)
        if not told:
            raise ValueError("a fault")

    monkeypatch.setattr(Exchange, "forward", instead)
    resume(proxy.services, proxy.loop.now)
    proxy.upstream.sends(reply(b"second"))
    assert status_of(clients[0].received()) == 500
    assert body_of(clients[1].received()) == b"second"
    assert len(told) == 1
    proxy.settle()
    proxy.assert_at_rest()


def test_the_time_of_other_clients_ends_after_a_fault() -> None:
    proxy = FakeProxy(keep_alive_s=2, head_timeout_s=2)
    told = identity_fields(proxy)
    first, second = proxy.client(b"GET"), proxy.client(b"GET")
    transport: Any = first.transport

    def write(data: bytes) -> None:
        raise ValueError("a fault")

    transport.write = write
    proxy.advance(4)
    assert first.closed and status_of(second.received()) == 408
    assert len(told) == 1


# -- a side that is closed ------------------------------------------------------------------------


async def reset_pair() -> tuple[asyncio.Transport, asyncio.Event]:
    """Return a connection of asyncio's loop that the other side has reset, and its end."""
    loop = asyncio.get_running_loop()
    lost = asyncio.Event()

    class Connection(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(Connection, *listener.getsockname())
        transport.pause_reading()  # so that the loop does not notice
        peer, _ = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    return transport, lost


def test_the_sending_side_of_a_connection_that_was_reset() -> None:
    async def main() -> None:
        transport, _ = await reset_pair()
        with pytest.raises(OSError, match="not connected"):
            transport.write_eof()  # what asyncio's loop does
        transport.abort()
        transport, lost = await reset_pair()
        close_sending(transport)
        async with asyncio.timeout(10):
            await lost.wait()

    asyncio.run(main())
