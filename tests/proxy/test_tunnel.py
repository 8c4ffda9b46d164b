"""Tunnels after a 101: bytes in both directions, backpressure, what the breaker learns."""

from tests.support.harness import (
    FakeProxy,
)

HANDSHAKE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_what_was_read_ahead_of_a_tunnel_may_fill_it() -> None:
    """A client whose bytes fill the tunnel at once stays paused."""
    proxy = FakeProxy()
    client = proxy.client(HANDSHAKE)
    client.sends(b"x" * 70_000)
    assert not client.transport.reading
    proxy.upstream.blocks_at_next_write()
    proxy.upstream.sends(SWITCHING)
    assert not client.transport.reading
    proxy.upstream.unblocks()
    assert client.transport.reading


def test_clients_that_leave_a_handshake_say_nothing_about_the_application() -> None:
    """A 101 that nobody waits for any more is no fault of the application."""
    proxy = FakeProxy()
    for _ in range(6):
        client = proxy.client(HANDSHAKE)
        client.resets()
        proxy.upstream.sends(SWITCHING)
        assert proxy.upstream.closed
    proxy.assert_at_rest()
    assert proxy.services.breaker.snapshot(proxy.loop.now).failures == 0


def test_a_client_may_have_closed_its_sending_side_before_the_101() -> None:
    """The application gets what was sent ahead and its end, and may still answer."""
    proxy = FakeProxy()
    client = proxy.client(HANDSHAKE)
    client.sends(b"ahead")
    client.ends()
    upstream = proxy.upstream
    upstream.received()
    upstream.sends(SWITCHING)
    assert upstream.received() == b"ahead"
    assert upstream.transport.eof_written
    upstream.sends(b"answer")
    assert client.received().endswith(b"\r\n\r\nanswer")
    upstream.ends()
    proxy.settle()
    assert client.closed
    proxy.assert_at_rest()
