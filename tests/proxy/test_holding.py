"""Answers held back until they are whole, and what a failure half way does then."""

from typing import Any

import pytest

from retter.breaker import State
from retter.proxy.goodness import LATELY_S
from retter.proxy.relay import HOLD_BYTES_MAX, TROUBLE_HOLD_BYTES_MAX
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def warmed(**settings: Any) -> FakeProxy:
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


def in_trouble(**settings: Any) -> FakeProxy:
    """A proxy with a stored response whose application has just failed."""
    proxy = warmed(**settings)
    proxy.services.goodness.failed(proxy.loop.now)
    return proxy


def gets_stored(client: FakePeer, detail: str) -> bool:
    answer = client.received()
    status = field(answer, "cache-status")
    return body_of(answer) == b"good" and status == f"retter; hit; detail={detail}"


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


# -- in good times: the head alone -----------------------------------------------------------------


@pytest.mark.parametrize("head", [HEAD, CHUNKED, HEAD.replace(b"10", b"1000000")])
def test_a_head_alone_is_held_until_the_body_comes(head: bytes) -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(head)
    proxy.advance(2)
    assert client.received() == b""
    proxy.upstream.sends(b"5\r\nhello\r\n" if head == CHUNKED else b"hello")
    assert b"hello" in body_of(client.received()), "and goes out at once"


def test_after_a_head_and_silence_the_stored_response_goes_out() -> None:
    proxy = warmed(patience_closed_s=3)
    client = proxy.client(get())
    proxy.upstream.sends(HEAD)
    proxy.advance(2.9)
    assert client.received() == b""
    proxy.advance(0.3)
    assert gets_stored(client, "patience")
    assert not client.closed
    proxy.upstream.sends(b"helloworld")
    proxy.assert_at_rest()
    again = proxy.client(get())
    proxy.upstream.sends(reply(b"", status="500 Oops"))
    assert body_of(again.received()) == b"helloworld", "what came late is stored"


def test_a_large_answer_is_streamed_from_its_first_octet_on() -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(HEAD.replace(b"10", b"1000000") + b"h")
    assert body_of(client.received()) == b"h"


def test_a_body_that_drips_is_no_body() -> None:
    proxy = warmed(patience_closed_s=3, upstream_body_min_rate_bytes=10)
    client = proxy.client(get())
    proxy.upstream.sends(CHUNKED + b"1\r\nx\r\n")
    for _ in range(6):
        proxy.advance(0.5)
        assert client.received() == b""
        proxy.upstream.sends(b"2\r\nxx\r\n")
    proxy.advance(0.3)
    assert gets_stored(client, "patience")


def test_a_body_that_keeps_its_rate_is_streamed() -> None:
    proxy = warmed(upstream_body_min_rate_bytes=10)
    client = proxy.client(get())
    proxy.upstream.sends(CHUNKED + b"1\r\nx\r\n")
    proxy.advance(0.4)
    assert client.received() == b""
    proxy.upstream.sends(b"4\r\nxxxx\r\n")
    assert b"xxxx" in client.received()


# -- in trouble: all of it ------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [True, False])
def test_in_trouble_half_an_answer_is_none(dies: bool) -> None:
    proxy = in_trouble(patience_closed_s=3)
    client = proxy.client(get())
    proxy.upstream.sends(HEAD + b"hello")
    proxy.advance(1)
    assert client.received() == b"", "in good times it would have begun"
    if dies:
        proxy.upstream.resets()
        assert gets_stored(client, "upstream-reset")
    else:
        proxy.advance(2.3)
        assert gets_stored(client, "patience")
        proxy.advance(120)
    proxy.settle()
    proxy.assert_at_rest()


@pytest.mark.parametrize("state", [State.LIMITING, State.OPEN, State.HALF_OPEN])
def test_in_every_state_but_closed_there_is_trouble(state: State) -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.services.breaker.circuit.state = state
    proxy.upstream.sends(HEAD + b"hello")
    proxy.services.breaker.circuit.state = State.CLOSED
    proxy.advance(0.5)
    assert client.received() == b""
    proxy.upstream.sends(b"world")
    assert body_of(client.received()) == b"helloworld"
    proxy.assert_at_rest()


def test_a_minute_after_the_last_failure_times_are_good_again() -> None:
    proxy = in_trouble()
    proxy.advance(LATELY_S + 1)
    client = proxy.client(get())
    proxy.upstream.sends(HEAD + b"hello")
    proxy.advance(0.4)
    assert body_of(client.received()) == b"hello"


@pytest.mark.parametrize("memory", [16 << 20, 0])
def test_in_trouble_a_large_answer_is_held_as_far_as_there_is_memory(memory: int) -> None:
    proxy = in_trouble(buffer_memory_bytes=memory)
    client = proxy.client(get())
    proxy.upstream.sends(HEAD.replace(b"10", b"1000000"))
    bytes_max = TROUBLE_HOLD_BYTES_MAX if memory else HOLD_BYTES_MAX
    sent = 0
    while sent + 0x4000 <= bytes_max:
        proxy.upstream.sends(b"x" * 0x4000)
        sent += 0x4000
        assert client.received() == b""
    assert proxy.services.buffers.used == bytes_max - HOLD_BYTES_MAX
    proxy.upstream.sends(b"x")
    assert len(body_of(client.received())) == sent + 1
    assert proxy.services.buffers.used == 0
    proxy.upstream.sends(b"x" * 10)
    assert len(client.received()) == 10


@pytest.mark.parametrize("how", ["leaves", "resets", "patience", "whole"])
def test_what_held_answers_take_is_given_back(how: str) -> None:
    proxy = in_trouble()
    client = proxy.client(get())
    proxy.upstream.sends(HEAD.replace(b"10", b"200000") + b"x" * 199_999)
    assert proxy.services.buffers.used
    if how == "leaves":
        client.resets()
    elif how == "resets":
        proxy.upstream.resets()
    elif how == "whole":
        proxy.upstream.sends(b"x")
    else:
        proxy.advance(6)
    assert proxy.services.buffers.used == 0


def test_a_response_that_only_hides_failures_stands_in_after_the_upstream_timeout() -> None:
    """The page has been changed since it was stored, so nobody loses patience with the new one."""
    proxy = warmed(upstream_timeout_s=7, patience_closed_s=1, patience_max_s=1)
    proxy.client(b"POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n")
    proxy.upstream.sends(reply(b"changed"))
    client = proxy.client(get())
    proxy.upstream.sends(HEAD)
    proxy.advance(6.9)
    assert client.received() == b""
    proxy.advance(0.3)
    assert gets_stored(client, "upstream-timeout")


def test_without_a_stored_response_nothing_is_held() -> None:
    proxy = FakeProxy()
    proxy.services.goodness.failed(proxy.loop.now)
    client = proxy.client(get())
    proxy.upstream.sends(HEAD)
    assert status_of(client.received()) == 200


# -- what drips on after it has begun -------------------------------------------------------------


def begun(proxy: FakeProxy) -> FakePeer:
    """An answer that is streamed, and of which nothing more comes for now."""
    client = proxy.client(get())
    proxy.upstream.sends(HEAD.replace(b"10", b"100000") + b"x" * 5000)
    assert client.received()
    return client


def drips(proxy: FakeProxy, seconds: int) -> None:
    for _ in range(seconds):
        proxy.advance(1)
        if proxy.upstream.transport.reading:
            proxy.upstream.sends(b"x")


def test_while_one_answer_stands_still_half_way_others_are_held() -> None:
    """Its client has a part of it; the time limit of a silence is a minute away."""
    proxy = warmed(patience_closed_s=3)
    client = begun(proxy)
    proxy.advance(2.9)
    assert not proxy.services.goodness.failed_lately(proxy.loop.now)
    proxy.advance(1)
    assert not client.closed, "it may go on"
    other = proxy.client(get())
    proxy.upstream.sends(HEAD + b"hello")
    proxy.advance(1)
    assert other.received() == b"", "in good times it would have begun"
    proxy.advance(2.3)
    assert gets_stored(other, "patience")
    assert not client.closed


def test_an_answer_that_its_client_does_not_read_does_not_stand_still() -> None:
    proxy = warmed(patience_closed_s=3, buffer_answer_bytes=0)
    client = begun(proxy)
    client.blocks()
    proxy.advance(10)
    assert not proxy.services.goodness.failed_lately(proxy.loop.now)
    client.unblocks()


def test_an_answer_without_a_stored_one_may_stand_still() -> None:
    proxy = FakeProxy(patience_closed_s=3)
    begun(proxy)
    proxy.advance(10)
    assert not proxy.services.goodness.failed_lately(proxy.loop.now)


DRIP: dict[str, Any] = {"upstream_body_timeout_s": 10, "upstream_body_min_rate_bytes": 100}


def test_an_answer_that_drips_on_is_cut_if_the_stored_one_can_be_had() -> None:
    proxy = warmed(**DRIP)
    client = begun(proxy)
    drips(proxy, 18)
    assert not client.closed
    drips(proxy, 4)
    assert client.transport.aborted
    assert proxy.services.counters.upstream_errors["upstream-timeout"] == 1  # type: ignore[index]
    proxy.settle()
    proxy.assert_at_rest()


def test_an_answer_that_drips_on_and_cannot_be_replaced_goes_on() -> None:
    proxy = FakeProxy(**DRIP)
    client = begun(proxy)
    drips(proxy, 60)
    assert not client.closed


def test_a_rate_of_nothing_is_no_limit() -> None:
    proxy = warmed(**DRIP | {"upstream_body_min_rate_bytes": 0})
    client = begun(proxy)
    drips(proxy, 60)
    assert not client.closed


def test_a_client_that_does_not_read_makes_no_drip() -> None:
    proxy = warmed(buffer_answer_bytes=0, **DRIP)
    client = begun(proxy)
    client.blocks()
    proxy.advance(30)
    client.unblocks()
    drips(proxy, 8)
    assert not client.closed
    drips(proxy, 4)
    assert client.transport.aborted
