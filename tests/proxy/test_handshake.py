"""Connections before their first request: counted, given the time of a head, handed over."""

import asyncio
from typing import Any

from retter.proxy.handshake import Preamble
from tests.support.harness import FakePeer, FakeProxy, FakeTransport, body_of, get, reply

HEADER = b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 80\r\n"


class Greeting(Preamble):
    """Waits for one octet, then becomes what it is told to make."""

    __slots__ = ()

    group = "192.0.2.7"
    idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._begin(transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._hand_over(self._transport, "203.0.113.9", data[1:])

    def connection_lost(self, exc: Exception | None) -> None:
        self._services.clients.lost(self)


class Next(asyncio.Protocol):
    """The next protocol."""

    def __init__(self, peer_in_header: str | None, *, closes: bool = False) -> None:
        self.peer_in_header = peer_in_header
        self.closes = closes
        self.data: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.closes:
            transport.close()

    def data_received(self, data: bytes) -> None:
        self.data.append(data)


def greeted(proxy: FakeProxy, *, closes: bool = False) -> tuple[FakePeer, list[Next]]:
    made: list[Next] = []

    def make(peer_in_header: str | None) -> Next:
        made.append(Next(peer_in_header, closes=closes))
        return made[-1]

    connection = Greeting(proxy.services, make)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    peer = FakePeer(transport)
    proxy.clients.append(peer)
    return peer, made


def test_what_comes_next_is_told_the_peer_and_gets_the_rest() -> None:
    proxy = FakeProxy()
    peer, made = greeted(proxy)
    assert len(proxy.services.clients.connections) == proxy.services.counters.connections == 1
    peer.sends(b"!GET")
    (after,) = made
    assert (after.peer_in_header, after.data) == ("203.0.113.9", [b"GET"])
    assert peer.transport.protocol is after
    # What comes next is accepted again, as itself.
    assert len(proxy.services.clients.connections) == proxy.services.counters.connections == 0


def test_nothing_is_given_to_what_has_closed_already() -> None:
    peer, made = greeted(FakeProxy(), closes=True)
    peer.sends(b"!GET")
    assert made[0].data == []


def test_it_has_the_time_of_a_head() -> None:
    proxy = FakeProxy(head_timeout_s=3)
    peer, made = greeted(proxy)
    proxy.advance(2.9)
    assert not peer.closed
    proxy.advance(1.2)  # the wheel looks once a second
    assert peer.transport.aborted and not made
    assert not proxy.services.clients.connections


def test_one_that_has_become_something_else_has_no_deadline() -> None:
    proxy = FakeProxy(head_timeout_s=3)
    peer, _ = greeted(proxy)
    peer.sends(b"!")
    proxy.advance(10)
    assert not peer.closed


def test_one_too_many_is_closed_at_once() -> None:
    proxy = FakeProxy(connections_per_address_max=1)
    first, _ = greeted(proxy)
    second, _ = greeted(proxy)
    assert not first.closed
    assert second.transport.aborted
    assert proxy.services.counters.connections_refused == 1


def test_it_has_waited_since_it_was_accepted() -> None:
    """So the longest-waiting one gives way first where there is no room."""
    proxy = FakeProxy()
    peer, _ = greeted(proxy)
    waiting: Any = peer.protocol
    accepted_at = proxy.loop.now
    proxy.advance(1)
    assert waiting.waits_since() == accepted_at


def test_closing_the_proxy_closes_it() -> None:
    proxy = FakeProxy()
    peer, _ = greeted(proxy)
    proxy.proxy.close()
    assert peer.transport.aborted


def test_a_request_behind_a_proxy_header_is_forwarded_for_its_client() -> None:
    """The header and the request in one read, and the header in two."""
    for cut in (0, 10, len(HEADER)):
        proxy = FakeProxy()
        data = HEADER + get()
        client = proxy.client(proxied=True)
        for piece in filter(None, (data[:cut], data[cut:])):
            client.sends(piece)
        assert b"X-Forwarded-For: 203.0.113.9\r\n" in proxy.upstream.received()
        proxy.upstream.sends(reply(b"hello"))
        assert body_of(client.received()) == b"hello"
        assert proxy.services.counters.connections == 1
