"""Clients that close their sending side: those who listen get their answer, the others are seen."""

import socket

import pytest

from retter.proxy.half_close import LOOKS_MAX, PROBE
from retter.proxy.ticker import TICK_S
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of

GONE = "clients_gone"


class Socket:
    """A connection's socket, as poll and the proxy see it."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.family = socket.AF_INET  # so that it is not asked like a Unix socket

    def fileno(self) -> int:
        return self.ours.fileno()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def with_socket(client: FakePeer) -> Socket:
    told = Socket()
    client.transport._extra["socket"] = told
    return told


def test_who_has_left_is_seen_soon_and_its_answer_is_stored() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/page"))
    told = with_socket(client)
    client.ends()
    proxy.advance(TICK_S)
    assert proxy.proxy.stats()[GONE] == 0 and not client.closed
    told.theirs.close()  # as when a reset has come back
    proxy.advance(TICK_S)
    assert proxy.proxy.stats()[GONE] == 1
    assert client.transport.aborted and not proxy.upstream.closed
    proxy.upstream.sends(reply(b"page"))
    proxy.assert_at_rest()
    told.close()
    visitor = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"", status="500 Oh"))
    assert body_of(visitor.received()) == b"page"


def test_who_has_left_does_not_wait_for_a_place() -> None:
    """A request that nobody waits for is not sent any more."""
    proxy = FakeProxy(max_in_flight=1, limit_start=1, queue_wait_s=20, patience_closed_s=30)
    first = proxy.client(get("/first"))
    client = proxy.client(get("/second"))
    assert proxy.services.breaker.waiting == 1
    told = with_socket(client)
    client.ends()
    told.theirs.close()
    proxy.advance(TICK_S)
    assert proxy.services.breaker.waiting == 0
    proxy.upstream.sends(reply(b"first"))
    assert body_of(first.received()) == b"first"
    assert len(proxy.upstreams) == 1
    told.close()
    proxy.assert_at_rest()


def test_those_that_leave_are_no_failures_of_the_application() -> None:
    """Neither those that wait for an answer nor those that stop in the middle of a body."""
    proxy = FakeProxy()
    for number in range(15):
        waits = proxy.client(get(f"/slow/{number}"))
        told = with_socket(waits)
        waits.ends()
        told.theirs.close()
        uploads = proxy.client(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        uploads.ends()
        proxy.advance(TICK_S)
        told.close()
    assert proxy.proxy.stats()[GONE] == 30
    assert proxy.services.breaker.circuit.state.value == "CLOSED"
    for upstream in proxy.upstreams:
        upstream.sends(reply(b"page"))
    visitor = proxy.client(get("/new"))
    proxy.upstream.sends(reply(b"new"))
    assert body_of(visitor.received()) == b"new"
    proxy.assert_at_rest()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("wait_s", [0.0, 1.0])
def test_who_listens_on_gets_every_octet_of_its_answer_once(version: str, wait_s: float) -> None:
    proxy = FakeProxy()
    whole = proxy.client(get("/1", version=version, headers={"Connection": "close"}))
    proxy.upstream.sends(reply(b"answer"))
    client = proxy.client(get("/2", version=version))
    told = with_socket(client)
    client.ends()
    assert client.transport.buffer == PROBE
    proxy.advance(wait_s)
    proxy.upstream.sends(reply(b"answer"))
    assert client.received() == whole.received()
    assert client.closed and proxy.proxy.stats()[GONE] == 0
    told.close()
    proxy.settle()
    proxy.assert_at_rest()


ANSWERS = {
    "informational": b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + reply(b"x"),
    "in pieces": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "large": reply(b"x" * 100_000),
    "malformed": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "an error": reply(b"x", status="500 Oh"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_whatever_the_answer_is(name: str) -> None:
    received = []
    for ends in (False, True):
        proxy = FakeProxy()
        client = proxy.client(get(headers={"Connection": "close"}))
        if ends:
            client.ends()
        for octet in (ANSWERS[name][:20], ANSWERS[name][20:]):
            proxy.upstream.sends(octet)
        received.append(client.received())
    assert received[0] == received[1] and status_of(received[0])


def test_pipelined_requests_are_all_answered() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1") + get("/2"))
    told = with_socket(client)
    client.ends()
    for body in (b"1", b"2"):
        proxy.advance(TICK_S)
        proxy.upstream.sends(reply(body))
    assert client.received().count(b"HTTP/1.1 200 ") == 2
    assert client.closed
    told.close()


def test_who_has_left_before_its_second_answer_is_seen_too() -> None:
    """The first answer has made the other side reset the connection."""
    proxy = FakeProxy()
    client = proxy.client(get("/1") + get("/2"))
    told = with_socket(client)
    client.ends()
    proxy.upstream.sends(reply(b"1"))
    told.theirs.close()
    proxy.advance(TICK_S)
    assert proxy.proxy.stats()[GONE] == 1
    told.close()


def test_who_leaves_in_the_middle_of_an_answer_is_seen() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    told = with_socket(client)
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    client.ends()
    assert PROBE not in body_of(client.received())
    told.theirs.close()
    proxy.advance(TICK_S)
    assert proxy.proxy.stats()[GONE] == 1
    told.close()


def test_a_unix_socket_tells_by_itself() -> None:
    proxy = FakeProxy()
    client = proxy.client(get(), peername="")
    told = with_socket(client)
    told.family = socket.AF_UNIX
    client.ends()
    assert client.transport.buffer == b""
    told.theirs.shutdown(socket.SHUT_WR)
    proxy.advance(1.0)
    assert not client.closed
    told.theirs.close()
    proxy.advance(TICK_S)
    assert client.transport.aborted and proxy.proxy.stats()[GONE] == 1
    told.close()


def test_however_many_there_are_a_tick_looks_at_so_many() -> None:
    proxy = FakeProxy(circuit="observe", upstream_timeout_s=60)
    clients = []
    for _ in range(2 * LOOKS_MAX + 1):
        clients.append(proxy.client(get()))
        clients[-1].ends()
    told = with_socket(clients[-1])
    told.theirs.close()
    seen = []
    for _ in range(4):
        proxy.advance(TICK_S)
        seen.append(proxy.proxy.stats()[GONE])
    assert seen == [0, 0, 1, 1]
    for client in clients:
        client.resets()
    told.close()
    assert not proxy.services.clients.half_closed


@pytest.mark.parametrize(
    "last",
    [
        b"PUT /last HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"PUT /last HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ],
)
def test_a_pipelined_request_with_a_body_may_be_the_last_one(last: bytes) -> None:
    """Its client gets the end of the connection with its answer, and not after `--keep-alive`."""
    proxy = FakeProxy()
    client = proxy.client(get("/first") + last)
    client.ends()
    proxy.upstream.sends(reply(b"first"))
    client.received()
    proxy.upstream.sends(reply(b"last"))
    answer = client.received()
    assert body_of(answer) == b"last"
    assert field(answer, "connection") == "close"
    assert client.closed
    proxy.settle()
    proxy.assert_at_rest()


def test_a_request_after_one_with_a_body_is_answered_all_the_same() -> None:
    put = b"PUT /second HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    proxy = FakeProxy()
    client = proxy.client(get("/first") + put + get("/last"))
    client.ends()
    for name in (b"first", b"second", b"last"):
        assert b" /" + name + b" " in proxy.upstream.received()
        proxy.upstream.sends(reply(name))
        assert body_of(client.received()) == name
    assert client.closed


def upload_answered_early() -> tuple[FakeProxy, FakePeer]:
    proxy = FakeProxy(buffer_request_bytes=0)
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    head = b"HTTP/1.1 413 No\r\nContent-Length: 8\r\n\r\n"
    proxy.upstream.sends(head + b"too ")
    return proxy, client


def test_who_stops_an_upload_that_was_answered_early_gets_the_whole_answer() -> None:
    proxy, client = upload_answered_early()
    told = with_socket(client)
    client.ends()
    proxy.advance(40)  # no time limit of the body applies any more
    proxy.upstream.sends(b"long")
    answer = client.received()
    assert status_of(answer) == 413 and body_of(answer) == b"too long"
    assert client.closed and proxy.proxy.stats()[GONE] == 0
    proxy.settle()
    assert proxy.upstream.closed, "the rest of the request will never come"
    told.close()
    proxy.assert_at_rest()


def test_who_leaves_an_upload_that_was_answered_early_is_seen() -> None:
    proxy, client = upload_answered_early()
    told = with_socket(client)
    client.ends()
    told.theirs.close()
    proxy.advance(TICK_S)
    assert proxy.proxy.stats()[GONE] == 1 and proxy.upstream.closed
    told.close()
    proxy.assert_at_rest()


@pytest.mark.parametrize("how", ["waits", "gives up"])
def test_an_application_that_waits_for_the_rest_of_an_upload_has_not_failed(how: str) -> None:
    """Else anybody could make it look ill: it answers as it reads, and the rest never comes."""
    proxy, client = upload_answered_early()
    client.received()
    client.ends()
    if how == "waits":
        proxy.advance(proxy.services.settings.upstream_body_timeout_s + 1)
    else:
        proxy.upstream.resets()
    stats = proxy.proxy.stats()
    assert stats["upstream_errors"] == {} and stats[GONE] == 1
    assert client.received() == b"" and client.transport.aborted
    proxy.settle()
    assert proxy.upstream.closed
    proxy.assert_at_rest()
