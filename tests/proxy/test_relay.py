"""Answers that come in pieces: backpressure, interim answers, answers that are too large."""

import tracemalloc

import pytest

from retter.breaker import Mode
from tests.support.exchanges import warmed
from tests.support.harness import (
    FakeProxy,
    body_of,
    field,
    get,
    reply,
)

EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"


def test_a_stored_answer_that_blocks_its_client_stops_no_application() -> None:
    """A stored answer that is not read yet does not occupy a place at the application."""
    proxy = warmed(patience_closed_s=1, patience_max_s=1, upstream_timeout_s=20)
    client = proxy.client(get())
    client.blocks_at_next_write()
    proxy.advance(2)
    assert body_of(client.received()) == b"good"
    assert proxy.upstream.transport.reading
    proxy.advance(20)
    assert proxy.upstream.closed
    client.unblocks()
    proxy.assert_at_rest()


def test_a_stored_answer_in_place_of_an_error_stops_no_application_either() -> None:
    """The rest of the error is read, so that the connection can be used again."""
    proxy = warmed()
    client = proxy.client(get())
    client.blocks_at_next_write()
    error = reply(b"error", status="500 Oops")
    proxy.upstream.sends(error[:-2])
    assert body_of(client.received()) == b"good"
    assert proxy.upstream.transport.reading
    proxy.upstream.sends(error[-2:])
    assert proxy.services.pool.idle == 1
    client.unblocks()
    proxy.assert_at_rest()


def test_a_client_blocked_by_an_interim_answer_gets_the_final_one() -> None:
    """The first byte is waited for as long as ever after a 103 had to wait for the client."""
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(EARLY_HINTS)
    client.blocks()
    client.unblocks()
    proxy.advance(5)
    client.received()
    proxy.upstream.sends(reply(b"hello"))
    assert body_of(client.received()) == b"hello"


def test_a_client_blocked_by_an_interim_answer_may_leave() -> None:
    """Its request is finished or given up all the same, and its place becomes free."""
    proxy = FakeProxy(upstream_timeout_s=5)
    client = proxy.client(get())
    proxy.upstream.sends(EARLY_HINTS)
    client.blocks()
    client.resets()
    assert proxy.upstream.transport.reading
    proxy.advance(6)
    proxy.assert_at_rest()


@pytest.mark.parametrize("size", [1, 7, 1000, 4999, 5000])
@pytest.mark.parametrize(
    "body",
    [
        b"a" * 5000,
        b"a" * 4999 + b"b",
        b"b" + b"a" * 4999,
        b"a" * 2500 + b"b" * 2500,
        b"a" * 4000,
        b"a" * 6000,
        b"a" * 5000 + b"b",
    ],
)
def test_what_is_stored_of_an_answer_in_pieces(body: bytes, size: int) -> None:
    """It is compared with the stored one as it comes, and copied from where they differ."""
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"a" * 5000))
    client.received()
    client.sends(get())
    answer = reply(body)
    head = answer[: -len(body)]
    for piece in [head, *[body[at : at + size] for at in range(0, len(body), size)]]:
        proxy.upstream.sends(piece)
    assert body_of(client.received()) == body
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    stored = client.received()
    assert field(stored, "x-retter") == "cache"
    assert body_of(stored) == body
    proxy.assert_at_rest()


def test_an_equal_answer_in_pieces_is_not_copied() -> None:
    """A copy and its pieces are as large as the body: for another one both are needed."""
    size, piece_size = 512 * 1024, 64 * 1024
    most: list[int] = []
    for body in (b"a" * size, b"b" * size):
        proxy = FakeProxy()
        client = proxy.client(get())
        proxy.upstream.sends(reply(b"a" * size))
        client.received()
        client.sends(get())
        answer = reply(body)
        tracemalloc.start()
        try:
            for at in range(0, len(answer), piece_size):
                proxy.upstream.sends(answer[at : at + piece_size])
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert body_of(client.received()) == body
    assert most[0] + size < most[1]


def test_an_error_that_is_too_large_leaves_the_next_request_alone() -> None:
    """A connection that is back in the pool belongs to whoever has taken it from there."""
    proxy = warmed(store_object_bytes_max=10)
    client = proxy.client(get() + get("/2"))
    proxy.upstream.sends(reply(b"e" * 20, status="500 Oops"))
    assert body_of(client.received()) == b"good"
    assert not proxy.upstream.closed
    proxy.upstream.sends(reply(b"two"))
    assert body_of(client.received()) == b"two"
    proxy.assert_at_rest()


def test_an_event_stream_for_a_client_that_has_left_ends_once() -> None:
    """However much of it came with its head."""
    proxy = FakeProxy(store_object_bytes_max=10)
    client = proxy.client(get())
    client.resets()
    proxy.upstream.sends(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n"
    )
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_no_response_over_the_limit_is_stored_whatever_way_it_comes() -> None:
    """A head that is known well and a body that came with it make no exception."""
    proxy = FakeProxy(store_object_bytes_max=10)
    client = proxy.client()
    for _ in range(4):
        client.sends(get())
        proxy.upstream.sends(reply(b"x" * 11))
    assert proxy.services.store.stats()["entries"] == 0
    proxy.assert_at_rest()
