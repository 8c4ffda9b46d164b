"""Applications that send a body after an answer that has none: nobody else may get it.

Bytes on an idle connection close it. What this is about is a connection that somebody else has
taken again before they came.
"""

import os
from collections.abc import Iterator

import pytest

from retter.proxy.pool import REST_IF_NEEDED_S, REST_S
from tests.support.harness import FakePeer, FakeProxy, body_of, get, reply, status_of

BODILESS = [b"HTTP/1.1 204 No Content\r\n\r\n", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n']
FORGED = reply(b"forged")
LATE = [b"late", b"late\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"HTTP/1.1 nonsense\r\n\r\n", FORGED]
POST = b"POST /b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n"


class Socket:
    """The socket under a connection: whether something is to be read is all that is asked."""

    def __init__(self) -> None:
        self._its, self._ours = os.pipe()

    def fileno(self) -> int:
        return self._its

    def gets(self, data: bytes) -> None:
        os.write(self._ours, data)

    def close(self) -> None:
        os.close(self._its)
        os.close(self._ours)


@pytest.fixture
def sock() -> Iterator[Socket]:
    made = Socket()
    yield made
    made.close()


def answered(proxy: FakeProxy, answer: bytes) -> FakePeer:
    """Let one visitor have that answer, and return the application's side of the connection."""
    client = proxy.client(get("/a"))
    proxy.upstream.sends(answer)
    assert status_of(client.received()) == int(answer[9:12])
    return proxy.upstream


@pytest.mark.parametrize("answer", BODILESS)
@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("request_", [get("/b"), POST])
def test_the_next_visitor_at_once_is_given_another_connection(
    answer: bytes, late: bytes, request_: bytes
) -> None:
    proxy = FakeProxy()
    first = answered(proxy, answer)
    client = proxy.client(request_)
    first.sends(late)
    assert first.closed
    assert client.received() == b""
    proxy.upstream.sends(reply(b"right"))
    assert body_of(client.received()) == b"right"
    proxy.assert_at_rest()


@pytest.mark.parametrize("answer", BODILESS)
@pytest.mark.parametrize("late", LATE)
def test_what_has_come_but_was_not_read_yet_is_seen(
    answer: bytes, late: bytes, sock: Socket
) -> None:
    proxy = FakeProxy()
    first = answered(proxy, answer)
    first.transport._extra["socket"] = sock
    proxy.loop.now += 2 * REST_IF_NEEDED_S
    sock.gets(late)
    client = proxy.client(get("/b"))
    assert first.closed
    proxy.upstream.sends(reply(b"right"))
    assert body_of(client.received()) == b"right"
    proxy.assert_at_rest()


@pytest.mark.parametrize("answer", BODILESS)
@pytest.mark.parametrize("late", [one for one in LATE if one not in (FORGED, b"\r\n")])
def test_what_comes_later_and_is_no_answer_costs_one_more_try(
    answer: bytes, late: bytes, sock: Socket
) -> None:
    proxy = FakeProxy()
    first = answered(proxy, answer)
    first.transport._extra["socket"] = sock
    proxy.loop.now += 2 * REST_IF_NEEDED_S
    client = proxy.client(get("/b"))
    assert len(proxy.upstreams) == 1, "nothing has come: it is used"
    first.sends(late)
    if not first.closed:
        first.sends(reply(b"of a request that was cut off"))
    assert first.closed
    assert len(proxy.upstreams) == 2
    proxy.upstream.sends(reply(b"right"))
    assert body_of(client.received()) == b"right"
    assert proxy.services.counters.retries == 1
    proxy.assert_at_rest()


def test_what_may_not_be_sent_twice_is_not(sock: Socket) -> None:
    proxy = FakeProxy()
    first = answered(proxy, BODILESS[0])
    first.transport._extra["socket"] = sock
    proxy.loop.now += 2 * REST_IF_NEEDED_S
    client = proxy.client(POST)
    first.sends(b"late\r\n\r\n")
    assert status_of(client.received()) == 502
    assert len(proxy.upstreams) == 1
    proxy.assert_at_rest()


def test_an_answer_that_is_malformed_is_no_late_body() -> None:
    """On a connection that has carried bodies alone, nothing is asked for twice."""
    proxy = FakeProxy()
    first = answered(proxy, reply())
    client = proxy.client(get("/b"))
    first.sends(b"nonsense\r\n\r\n")
    assert status_of(client.received()) == 502
    assert len(proxy.upstreams) == 1


def test_a_site_of_304_needs_no_crowd_of_connections() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    for _ in range(200):
        client.sends(get("/a"))
        busy = [peer for peer in proxy.upstreams if peer.received()]
        assert len(busy) == 1
        proxy.loop.now += 0.001
        busy[0].sends(BODILESS[1])
        assert status_of(client.received()) == 304
    assert len(proxy.upstreams) <= 2 + REST_IF_NEEDED_S / 0.001


def test_it_is_as_good_as_any_after_its_rest() -> None:
    proxy = FakeProxy()
    first = answered(proxy, BODILESS[1])
    proxy.advance(REST_S + 0.05)
    client = proxy.client(get("/b"))
    first.sends(reply(b"right"))
    assert body_of(client.received()) == b"right"
    assert len(proxy.upstreams) == 1
