"""Answers are taken from the application as it gives them, while slow clients drain them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.buffers import BufferBudget
from retter.breaker import Mode
from retter.proxy.backlog import WRITE_BYTES, Backlog
from tests.support.harness import FakePeer, FakeProxy, body_of, get, reply, status_of
from tests.support.tracing import untraced

KIB = 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PIECE = b"x" * 100 * KIB
EXPECTING = (
    b"POST /large HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n"
    b"Expect: 100-continue\r\n\r\n"
)


def used(proxy: FakeProxy) -> int:
    return proxy.services.buffers.used


def in_flight(proxy: FakeProxy) -> int:
    return proxy.services.breaker.snapshot(proxy.loop.now).in_flight


def slow(proxy: FakeProxy, octets: int, path: str = "/large") -> FakePeer:
    """A client that takes nothing of an answer that has begun."""
    client = proxy.client(get(path))
    proxy.upstream.sends(HEAD % octets + PIECE)
    client.blocks()
    return client


# -- the application is free ----------------------------------------------------------------------


def test_a_slow_client_does_not_keep_the_application() -> None:
    proxy = FakeProxy()
    client = slow(proxy, 1000 * KIB)
    for _ in range(9):
        assert in_flight(proxy) == 1
        assert proxy.upstream.transport.reading
        proxy.upstream.sends(PIECE)
    assert in_flight(proxy) == 0, "the answer is whole, if not at its client"
    assert proxy.services.pool.idle == 1
    assert used(proxy) > 800 * KIB
    client.sends(get("/next"))
    proxy.advance(1)
    assert len(proxy.upstreams) == 1 and b"/next" not in proxy.upstream.received(), "in order"
    client.unblocks()
    assert used(proxy) == 0
    assert body_of(client.received()) == b"x" * 1000 * KIB
    assert b"GET /next" in proxy.upstream.received()
    proxy.upstream.sends(reply(b"next"))
    assert body_of(client.received()) == b"next"
    proxy.assert_at_rest()


def test_a_full_backlog_stops_the_application_until_the_client_has_taken_it() -> None:
    proxy = FakeProxy(buffer_answer_bytes=300 * KIB)
    client = slow(proxy, 1000 * KIB)
    for _ in range(2):
        proxy.upstream.sends(PIECE)
        assert proxy.upstream.transport.reading
    proxy.upstream.sends(PIECE)
    assert not proxy.upstream.transport.reading
    assert used(proxy) <= 300 * KIB
    client.unblocks()
    assert proxy.upstream.transport.reading
    for _ in range(6):
        proxy.upstream.sends(PIECE)
    assert body_of(client.received()) == b"x" * 1000 * KIB
    proxy.assert_at_rest()


@pytest.mark.parametrize("settings", [{"buffer_answer_bytes": 0}, {"buffer_memory_bytes": 0}])
def test_without_memory_the_application_waits_for_the_client(settings: dict[str, Any]) -> None:
    proxy = FakeProxy(**settings)
    client = slow(proxy, 1000 * KIB)
    assert not proxy.upstream.transport.reading
    client.unblocks()
    assert proxy.upstream.transport.reading


def test_when_memory_is_short_each_has_less() -> None:
    proxy = FakeProxy(buffer_memory_bytes=1000 * KIB)
    clients = [slow(proxy, 1000 * KIB, f"/{n}") for n in range(3)]
    for upstream in proxy.upstreams:
        while upstream.transport.reading:
            upstream.sends(b"x" * KIB)
    assert used(proxy) <= 1000 * KIB
    for client in clients:
        client.resets()
    for upstream in proxy.upstreams:
        upstream.resets()
    proxy.settle()
    proxy.assert_at_rest()


@pytest.mark.parametrize("path", ["/poll", "/events", "/socket"])
def test_streams_and_tunnels_wait_for_their_clients(path: str) -> None:
    proxy = FakeProxy(stream_paths=("/poll",))
    if path == "/poll":
        client = proxy.client(get(path))
        proxy.upstream.sends(CHUNKED)
    elif path == "/events":
        client = proxy.client(get(path))
        proxy.upstream.sends(CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n")
    else:
        headers = {"Connection": "upgrade", "Upgrade": "websocket"}
        client = proxy.client(get(path, headers=headers))
        proxy.upstream.sends(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n")
    client.blocks()
    assert not proxy.upstream.transport.reading
    client.unblocks()
    assert proxy.upstream.transport.reading
    client.resets()
    proxy.settle()
    proxy.assert_at_rest()


def test_what_is_flushed_goes_out_at_once() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/events"))
    proxy.upstream.sends(CHUNKED[:-2] + b"Content-Type: text/event-stream\r\n\r\n")
    client.received()
    for n in range(3):
        proxy.upstream.sends(b"1\r\n%d\r\n" % n)
        assert client.received() == b"1\r\n%d\r\n" % n


def test_a_client_that_does_not_read_even_a_100_gets_no_more_than_its_buffer_holds() -> None:
    """The buffer was full before the request had begun: its answer stops with the first piece."""
    proxy = FakeProxy()
    client = proxy.client()
    client.blocks_at_next_write()
    client.sends(EXPECTING)
    assert client.received() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sends(b"x=y")
    upstream = proxy.upstream
    upstream.sends(HEAD % (1000 * KIB) + PIECE)
    assert not upstream.transport.reading
    client.unblocks()
    assert upstream.transport.reading
    for _ in range(9):
        upstream.sends(PIECE)
    assert body_of(client.received()) == b"x" * 1000 * KIB
    proxy.assert_at_rest()


def test_a_client_that_reads_again_while_it_waits_for_a_place_has_no_time_limit_yet() -> None:
    """The one for the application's first byte begins when the request is sent."""
    proxy = FakeProxy(max_in_flight=1, queue_wait_s=60, upstream_timeout_s=9)
    other = proxy.client(get("/o"))
    client = proxy.client()
    client.blocks_at_next_write()
    client.sends(EXPECTING.replace(b"POST", b"GET"))
    client.sends(b"x=y")
    client.unblocks()
    proxy.advance(8.5)
    proxy.auto_accept = False
    proxy.upstream.sends(reply(b"well", headers={"Connection": "close"}))
    assert status_of(other.received()) == 200
    assert proxy.dialled
    proxy.advance(1)
    assert client.received() == b"HTTP/1.1 100 Continue\r\n\r\n"
    proxy.accept()
    proxy.upstream.sends(reply(b"well"))
    assert body_of(client.received()) == b"well"
    proxy.assert_at_rest()


# -- its end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_that_leaves_gives_its_memory_back(whole: bool) -> None:
    proxy = FakeProxy()
    client = slow(proxy, 200 * KIB if whole else 900 * KIB)
    proxy.upstream.sends(PIECE)
    assert used(proxy)
    client.resets()
    assert used(proxy) == 0
    proxy.upstream.sends(b"x" * 700 * KIB)
    proxy.settle()
    proxy.assert_at_rest()


def test_an_answer_that_is_cut_gives_its_memory_back() -> None:
    proxy = FakeProxy()
    client = slow(proxy, 900 * KIB)
    proxy.upstream.resets()
    assert client.transport.aborted
    proxy.settle()
    proxy.assert_at_rest()


def test_an_answer_that_ends_its_connection_is_sent_first() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/large", version="1.0"))
    proxy.upstream.sends(HEAD % (200 * KIB) + PIECE)
    client.blocks()
    proxy.upstream.sends(PIECE)
    assert not client.transport.aborted and client.transport.eof_written
    assert len(body_of(client.received())) == 200 * KIB
    assert used(proxy)
    client.unblocks()
    assert used(proxy) == 0
    proxy.advance(10)
    proxy.assert_at_rest()


def test_a_client_that_takes_nothing_is_dropped_while_the_answer_grows() -> None:
    proxy = FakeProxy(write_timeout_s=5)
    client = slow(proxy, 900 * KIB)
    for _ in range(4):
        proxy.advance(1)
        proxy.upstream.sends(PIECE)
        assert not client.closed
    proxy.advance(2.5)
    assert client.transport.aborted
    assert used(proxy) == 0


def test_a_client_that_takes_nothing_is_dropped_whatever_it_sends() -> None:
    """Its body comes, and is answered: the time that it has for taking it runs on all the same."""
    proxy = FakeProxy(write_timeout_s=5)
    client = proxy.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    client.blocks()
    proxy.advance(2)
    client.sends(b"def")
    proxy.upstream.sends(reply(b"done"))
    proxy.advance(2)
    assert not client.closed
    proxy.advance(2.5)
    assert client.transport.aborted


def test_a_client_that_takes_nothing_of_a_stored_answer_is_dropped() -> None:
    proxy = FakeProxy(write_timeout_s=5, circuit="open")
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
    proxy.client(get())
    proxy.upstream.sends(reply(b"good"))
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client = proxy.client()
    write = client.transport.write

    def write_and_block(data: Any) -> None:
        write(data)
        client.blocks()

    client.transport.write = write_and_block  # type: ignore[method-assign]
    client.sends(get())
    assert body_of(client.received()) == b"good"
    proxy.advance(7)
    assert client.transport.aborted


def test_a_client_that_takes_some_is_not_dropped_while_the_answer_grows() -> None:
    proxy = FakeProxy(write_timeout_s=5)
    client = slow(proxy, 900 * KIB)
    for _ in range(8):
        proxy.advance(2)
        proxy.upstream.sends(PIECE)
        client.transport.unsent -= KIB
    assert not client.closed
    client.unblocks()
    proxy.advance(1)
    assert len(body_of(client.received())) == 900 * KIB
    proxy.assert_at_rest()


def test_the_time_that_the_client_takes_is_not_the_applications() -> None:
    """A full backlog may stand for long; only a client that takes nothing at all is dropped."""
    proxy = FakeProxy(buffer_answer_bytes=KIB, upstream_body_timeout_s=3, write_timeout_s=50)
    client = slow(proxy, 900 * KIB)
    proxy.upstream.sends(PIECE)
    assert not proxy.upstream.transport.reading
    proxy.advance(20)
    assert not client.closed
    client.unblocks()
    proxy.advance(4)
    assert client.transport.aborted, "now it is the application that is silent"


# -- the budget, whatever happens -----------------------------------------------------------------


def test_a_backlog_counts_what_is_more_than_any_connection_may_have() -> None:
    budget = BufferBudget(1000)
    backlog = Backlog(budget, 100)
    assert backlog.reserve(90, 200) and budget.used == 0
    assert backlog.reserve(250, 200) and budget.used == 150
    assert backlog.reserve(200, 200) and budget.used == 150
    assert not backlog.reserve(301, 200) and budget.used == 150
    assert backlog.full
    backlog.release()
    backlog.release()
    assert budget.used == 0


def test_small_writes_take_more_than_their_octets() -> None:
    proxy = FakeProxy(buffer_answer_bytes=100 * WRITE_BYTES)
    client = proxy.client(get())
    proxy.upstream.sends(CHUNKED)
    client.blocks()
    writes = 0
    while proxy.upstream.transport.reading:
        proxy.upstream.sends(b"1\r\nx\r\n")
        writes += 1
    assert 90 < writes <= 100
    client.unblocks()
    assert used(proxy) == 0


EVENTS = st.sampled_from(
    ["ask", "post", "body", "answer", "piece", "end", "block", "unblock", "leave", "fail", "wait",
     "pieces", "refuse"]
)  # fmt: skip


@untraced
@given(
    events=st.lists(st.tuples(EVENTS, st.integers(0, 3)), max_size=60),
    memory=st.sampled_from([0, 3000, 300 * KIB, 16 << 20]),
)
def test_what_is_taken_is_given_back_on_every_path(
    events: list[tuple[str, int]], memory: int
) -> None:
    proxy = FakeProxy(
        buffer_memory_bytes=memory,
        write_timeout_s=3,
        body_idle_timeout_s=2,
        upstream_timeout_s=3,
        upstream_timeout_unsafe_s=3,
        upstream_body_timeout_s=2,
        connect_hold_s=0,
        buffer_request_bytes=2000,
    )
    clients = [proxy.client() for _ in range(4)]
    for event, n in events:
        client = clients[n] = clients[n] if not clients[n].closed else proxy.client()
        upstream = proxy.upstreams[-1 - n % len(proxy.upstreams)] if proxy.upstreams else None
        transport = client.transport
        if event == "ask":
            client.sends(get(f"/{n}"))
        elif event == "post":
            client.sends(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\n\r\n")
        elif event == "body" and transport.reading:
            client.sends(b"b" * 1000)
        elif event == "block" and not transport.stalled and not client.closed:
            client.blocks()
        elif event == "unblock" and transport.stalled and not client.closed:
            client.unblocks()
        elif event == "leave":
            client.resets()
        elif event == "wait":
            proxy.advance(1 + n)
        elif event == "refuse":
            proxy.auto_accept = not proxy.auto_accept
            while proxy.dialled:
                proxy.refuse()
        elif upstream is not None and upstream.transport.reading:
            if event == "answer":
                upstream.sends(CHUNKED)
            elif event == "piece":
                upstream.sends(b"3e8\r\n" + b"c" * 1000 + b"\r\n")
            elif event == "pieces":
                upstream.sends(b"19000\r\n" + PIECE + b"\r\n")
            elif event == "end":
                upstream.sends(b"0\r\n\r\n")
            elif event == "fail":
                upstream.resets()
        proxy.settle()
        assert 0 <= used(proxy) <= memory
    proxy.auto_accept = False
    while proxy.dialled:
        proxy.refuse()
    for client in clients:
        client.resets()
    proxy.advance(20)
    while proxy.dialled:
        proxy.refuse()
    proxy.advance(20)
    proxy.assert_at_rest()


def test_a_refused_request_takes_nothing() -> None:
    proxy = FakeProxy(connect_hold_s=0)
    proxy.auto_accept = False
    client = proxy.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
    client.sends(b"body")
    assert used(proxy) == 4
    proxy.refuse()
    assert status_of(client.received()) == 502
    proxy.assert_at_rest()
