"""Failures of an exchange: the application fails, the client leaves or makes mistakes."""

import pytest

from retter.proxy.ticker import TICK_S
from tests.support.exchanges import POST, warmed
from tests.support.harness import FakeProxy, body_of, field, get, reply, status_of


def test_a_reused_connection_that_dies_before_an_answer_is_retried_once() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1"))
    proxy.upstream.sends(reply(b"1"))
    client.sends(get("/2"))
    proxy.upstreams[0].resets()
    assert len(proxy.upstreams) == 2
    assert proxy.upstream.received().startswith(b"GET /2 ")
    proxy.upstream.sends(reply(b"2"))
    assert client.received().endswith(b"2")
    assert proxy.services.counters.retries == 1
    proxy.assert_at_rest()


def test_a_post_is_never_sent_twice() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1"))
    proxy.upstream.sends(reply(b"1"))
    client.received()
    client.sends(POST)
    proxy.upstream.resets()
    assert len(proxy.upstreams) == 1
    assert status_of(client.received()) == 502
    proxy.assert_at_rest()


def test_a_fresh_connection_that_dies_is_not_retried() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.resets()
    assert status_of(client.received()) == 502
    assert len(proxy.upstreams) == 1
    proxy.assert_at_rest()


def test_a_refused_connection_with_a_stored_response_is_answered_at_once() -> None:
    proxy = warmed()
    proxy.upstream.resets()
    proxy.auto_accept = False
    client = proxy.client(get())
    proxy.refuse()
    answer = client.received()
    assert body_of(answer) == b"good"
    assert field(answer, "cache-status") == "retter; hit; detail=connect-refused"
    proxy.assert_at_rest()


def test_a_refused_connection_without_one_is_held() -> None:
    proxy = FakeProxy(connect_hold_s=2)
    proxy.auto_accept = False
    client = proxy.client(POST)
    proxy.refuse()
    assert client.received() == b""
    assert proxy.services.pool.held == 1
    client.resets()
    assert proxy.services.pool.held == 0
    proxy.assert_at_rest()


def test_a_connection_that_is_not_accepted_is_a_gateway_timeout() -> None:
    proxy = FakeProxy()
    proxy.auto_accept = False
    client = proxy.client(get())
    proxy.time_out_dial()
    assert status_of(client.received()) == 504
    proxy.assert_at_rest()


@pytest.mark.parametrize(
    ("method", "unsafe_s", "wait_s"),
    [
        (b"GET", 60, 3),
        (b"HEAD", 60, 3),
        (b"OPTIONS", 60, 3),
        (b"POST", 7, 7),
        (b"PUT", 7, 7),
        (b"PATCH", 7, 7),
        (b"DELETE", 7, 7),
        (b"REPORT", 7, 7),
        (b"POST", 0, 3),
        (b"POST", 2, 3),
    ],
)
def test_no_answer_in_time_is_a_gateway_timeout(
    method: bytes, unsafe_s: float, wait_s: float
) -> None:
    """A request that changes something gets more time, since a repetition may do it twice."""
    proxy = FakeProxy(upstream_timeout_s=3, upstream_timeout_unsafe_s=unsafe_s)
    client = proxy.client(method + POST.removeprefix(b"POST"))
    proxy.advance(wait_s - 0.1)
    assert client.received() == b""
    proxy.advance(0.2)
    assert status_of(client.received()) == 504
    assert proxy.upstream.closed
    assert not client.closed
    proxy.assert_at_rest()


@pytest.mark.parametrize("reset", [True, False])
def test_what_changes_something_is_finished_when_its_client_has_left(reset: bool) -> None:
    proxy = FakeProxy()
    client = proxy.client(POST)
    upstream = proxy.upstream
    client.resets() if reset else client.ends()
    proxy.advance(50)
    assert not upstream.closed
    upstream.sends(reply(b"done"))
    proxy.settle()
    assert proxy.services.pool.idle == 1
    proxy.assert_at_rest()


def test_a_silence_inside_the_answer_cuts_it_visibly() -> None:
    proxy = FakeProxy(upstream_body_timeout_s=3)
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    proxy.advance(3.2)
    assert client.transport.aborted
    proxy.assert_at_rest()


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"HTTP/1.1 200 OK\nContent-Length: 1\n\nx",
        b"HTTP/1.1 103 x\r\n\r\n" * 20,
    ],
)
def test_a_bad_answer_is_a_bad_gateway(answer: bytes) -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(answer)
    received = client.received()
    while received.startswith(b"HTTP/1.1 103"):
        received = body_of(received)
    assert status_of(received) == 502
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_bytes_after_an_answer_poison_the_connection() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"one") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert body_of(client.received()) == b"one"
    assert proxy.upstream.closed
    client.sends(get())
    assert len(proxy.upstreams) == 2
    proxy.upstream.sends(reply(b"two"))
    assert body_of(client.received()) == b"two"


def test_bytes_on_an_idle_connection_close_it() -> None:
    proxy = FakeProxy()
    proxy.client(get())
    proxy.upstream.sends(reply(b"one"))
    proxy.upstream.sends(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert proxy.upstream.closed
    assert proxy.services.pool.idle == 0


def test_a_client_that_leaves_lets_a_get_come_to_its_end() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    client.resets()
    assert proxy.proxy.stats()["exchanges"] == 1, "its place stays taken"
    proxy.upstream.sends(reply(b"for the store"))
    proxy.assert_at_rest()
    assert proxy.services.store.stats()["entries"] == 1


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_request() -> None:
    proxy = FakeProxy(buffer_request_bytes=0)
    client = proxy.client(POST[:-3])
    client.resets()
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_a_client_that_leaves_while_connecting() -> None:
    proxy = FakeProxy()
    proxy.auto_accept = False
    client = proxy.client(get())
    client.resets()
    proxy.accept()
    assert proxy.services.pool.idle == 1, "the connection is kept for the next one"
    proxy.assert_at_rest()


def test_a_half_closed_client_gets_its_answer() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    client.ends()
    assert not client.closed
    proxy.upstream.sends(reply(b"x"))
    assert body_of(client.received()) == b"x"
    assert client.closed
    proxy.settle()
    proxy.assert_at_rest()


# -- a client's own mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: coffee\r\n\r\n", 417),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 100000 + b"\r\n\r\n", 431),
    ],
)
def test_a_bad_request_is_answered_and_never_forwarded(request_bytes: bytes, status: int) -> None:
    proxy = FakeProxy()
    client = proxy.client(request_bytes)
    answer = client.received()
    assert status_of(answer) == status
    assert field(answer, "connection") == "close"
    reason = "unsupported" if status in (405, 501, 505) else "bad-request"
    assert field(answer, "cache-status") == f"retter; fwd=miss; detail={reason}"
    assert client.closed
    assert not proxy.upstreams
    client.sends(get())
    assert client.received() == b""
    proxy.advance(3.2)
    assert client.transport.aborted


def test_a_slow_head_times_out() -> None:
    proxy = FakeProxy(head_timeout_s=3)
    client = proxy.client(b"GET / HT")
    for _ in range(4):
        proxy.advance(1)
        client.sends(b"x")  # a trickle does not set the clock back
    proxy.advance(1)
    assert status_of(client.received()) == 408


def test_a_slow_body_times_out() -> None:
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=3)
    client = proxy.client(POST[:-3])
    proxy.advance(5)
    assert status_of(client.received()) == 408
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_an_idle_connection_is_closed() -> None:
    proxy = FakeProxy(keep_alive_s=5, head_timeout_s=3)
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"x"))
    client.received()
    proxy.advance(4)
    assert not client.closed
    proxy.advance(3)
    assert client.closed
    assert client.received() == b""


def test_a_loop_is_seen() -> None:
    proxy = FakeProxy()
    proxy.client(get())
    via = field(proxy.upstream.received(), "via")
    client = proxy.client(get(headers={"Via": f"1.0 other, {via}"}))
    assert status_of(client.received()) == 508


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n",
    ],
)
def test_a_body_that_comes_late_and_never_should_have_meets_nobody(answer: bytes) -> None:
    proxy = FakeProxy()
    head = get().replace(b"GET", b"GET" if b"304" in answer else b"HEAD")
    client = proxy.client(head)
    broken = proxy.upstream
    broken.sends(answer)
    assert status_of(client.received()) in (200, 304)
    client.sends(get("/next"))
    assert proxy.upstream is not broken, "it is not used again at once"
    broken.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
    assert broken.transport.aborted
    proxy.upstream.sends(reply(b"right"))
    assert body_of(client.received()) == b"right"
    proxy.assert_at_rest()


def test_after_head_a_connection_is_used_again_when_nothing_has_come() -> None:
    proxy = FakeProxy()
    client = proxy.client(get().replace(b"GET", b"HEAD"))
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
    proxy.assert_at_rest()
    proxy.advance(0.2)
    client.sends(get("/next"))
    assert len(proxy.upstreams) == 1


def test_a_tunnel_that_the_application_does_not_read_is_not_kept_for_ever() -> None:
    proxy = FakeProxy()
    client = proxy.client(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    proxy.upstream.sends(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n")
    client.sends(b"last words")
    proxy.upstream.transport.unsent = 10
    client.resets()
    assert proxy.upstream.transport.closing and not proxy.upstream.transport.aborted
    for _ in range(round(11 / TICK_S)):  # without its end being told: it hangs in the buffer
        proxy.loop.now += TICK_S
        proxy.proxy.ticker.tick(proxy.loop.now)
    assert proxy.upstream.transport.aborted
    proxy.settle()
    proxy.assert_at_rest()


def test_too_many_connections() -> None:
    proxy = FakeProxy(connections_max=2)
    first, second = proxy.client(get("/1")), proxy.client(get("/2"))
    assert proxy.client().transport.aborted
    assert not first.closed and not second.closed


def test_draining_closes_what_is_idle_and_finishes_what_is_not() -> None:
    proxy = FakeProxy()
    idle = proxy.client()
    busy = proxy.client(get())
    proxy.advance(1.1)
    proxy.proxy.drain(proxy.loop.now)
    assert idle.closed
    assert not busy.closed
    proxy.upstream.sends(reply(b"last"))
    answer = busy.received()
    assert body_of(answer) == b"last"
    assert field(answer, "connection") == "close"
    assert busy.closed


def test_too_many_connections_of_one_address() -> None:
    proxy = FakeProxy(connections_per_address_max=1)
    first = proxy.client()
    assert proxy.client().transport.aborted
    assert not proxy.client(peername=("192.0.2.8", 1)).transport.aborted
    first.resets()
    assert not proxy.client().transport.aborted
