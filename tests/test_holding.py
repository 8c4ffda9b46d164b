"""Answers held back until they are whole, and what a failure half way does then."""

import pytest

from tests.harness import FakeProxy, body_of, field, get, reply, status_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def warmed(**settings: object) -> FakeProxy:
    proxy = FakeProxy(**settings)
    proxy.client(get())
    proxy.upstream.sends(reply(b"good"))
    return proxy


@pytest.mark.parametrize(
    "pieces", [(HEAD, b"hello", b"world"), (CHUNKED, b"a\r\nhelloworld\r\n", b"0\r\n\r\n")]
)
def test_a_held_answer_is_sent_when_it_is_whole(pieces: tuple[bytes, ...]) -> None:
    proxy = warmed()
    client = proxy.client(get())
    for piece in pieces[:-1]:
        proxy.upstream.sends(piece)
    assert client.received() == b"", "a stored response stands by until it is whole"
    proxy.upstream.sends(pieces[-1])
    answer = client.received()
    assert status_of(answer) == 200
    assert b"helloworld" in body_of(answer)
    assert field(answer, "x-retter") == "backend"
    proxy.assert_at_rest()


def test_a_held_answer_that_takes_too_long_is_streamed() -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(HEAD + b"hello")
    proxy.advance(0.4)
    assert body_of(client.received()) == b"hello"
    proxy.upstream.sends(b"world")
    assert client.received() == b"world"
    proxy.assert_at_rest()


def test_a_held_answer_that_is_too_large_is_streamed() -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(CHUNKED)
    for _ in range(5):
        proxy.upstream.sends(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
    assert len(client.received()) > 0x4000
    proxy.upstream.sends(b"0\r\n\r\n")
    assert client.received().endswith(b"0\r\n\r\n")
    proxy.assert_at_rest()


def test_a_held_answer_that_breaks_off_is_replaced() -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(HEAD + b"hello")
    proxy.upstream.resets()
    answer = client.received()
    assert body_of(answer) == b"good"
    assert field(answer, "cache-status") == "retter; hit; detail=upstream-reset"
    assert not client.closed
    proxy.assert_at_rest()
