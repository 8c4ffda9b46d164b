"""The client connection's own rules: limits, deadlines, backpressure, lingering, keep-alive."""

import gc
import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.breaker.constants import HELD_MAX
from retter.proxy.backlog import WAITING_BYTES_MAX
from retter.proxy.client_requests import READ_AHEAD_BYTES_MAX, WAITING_FREE_BYTES
from retter.proxy.lingering import LINGER_SILENCE_S
from tests.support.harness import (
    FakeProxy,
    body_of,
    field,
    get,
    reply,
    split_at,
    status_of,
)
from tests.support.tracing import untraced

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def counted(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


def warmed(**settings: Any) -> FakeProxy:
    """A proxy with a stored response to GET /, which its open circuit answers with."""
    proxy = FakeProxy(circuit="open", **settings)
    proxy.client(get())
    proxy.upstream.sends(reply(b"good"))
    return proxy


# -- limits -----------------------------------------------------------------------------------

OTHER = ("198.51.100.9", 50000)
LARGE = b"X-Large: " + b"a" * 60_000


def test_slow_heads_of_one_client_take_no_more_memory_than_its_share() -> None:
    """With the limit of a single head alone, its 400 connections would take 24 MB."""
    proxy = FakeProxy()
    slow = [proxy.client(get()[:-2] + LARGE) for _ in range(400)]
    answers = [one.received() for one in slow]
    assert {status_of(answer) for answer in answers if answer} == {431}
    assert answers.count(b"") < 200
    assert proxy.services.waiting.used <= WAITING_BYTES_MAX / 2
    visitor = proxy.client(get()[:-2] + LARGE[:8000], OTHER)
    visitor.sends(b"\r\n\r\n")
    proxy.upstream.sends(reply(b"ok"))
    assert status_of(visitor.received()) == 200
    for one, answer in zip(slow, answers, strict=True):
        if not answer:
            one.sends(b"\r\n\r\n")
            proxy.upstream.sends(reply(b"ok"))
            assert status_of(one.received()) == 200
    assert proxy.services.waiting.used == 0


def test_a_head_that_comes_in_small_pieces_is_counted_too() -> None:
    proxy = FakeProxy()
    proxy.services.waiting.bytes_max = 8 * 40_000
    client = proxy.client(get()[:-2])
    for _ in range(4):
        client.sends(LARGE[:10_000])
    assert proxy.services.waiting.used == 40_000 + len(get()) - 2 - WAITING_FREE_BYTES
    client.ends()
    proxy.assert_at_rest()


def test_requests_that_are_read_ahead_take_no_more_memory_than_their_share() -> None:
    proxy = FakeProxy()
    ahead = b"".join([get(f"/{number}")[:-2] + LARGE + b"\r\n\r\n" for number in range(4)])
    clients = [proxy.client(get("/first") + ahead) for _ in range(100)]
    left = [one for one in clients if not one.closed]
    assert 0 < len(left) < len(clients), "the others were disconnected"
    assert proxy.services.waiting.used <= WAITING_BYTES_MAX / 2
    visitor = proxy.client(get("/visitor") + get("/next"), OTHER)
    assert not visitor.closed
    for one in [*left, visitor]:
        one.resets()
    assert proxy.services.waiting.used == 0


def test_a_body_over_the_limit_is_refused_before_it_comes() -> None:
    proxy = FakeProxy(request_body_bytes_max=10)
    client = proxy.client(counted(11))
    assert status_of(client.received()) == 413
    assert client.closed
    assert not proxy.upstreams


@pytest.mark.parametrize("cut", [False, True])
def test_a_chunked_body_over_the_limit_is_refused_when_it_gets_there(cut: bool) -> None:
    proxy = FakeProxy(buffer_request_bytes=0, request_body_bytes_max=10)
    client = proxy.client(CHUNKED + (b"6\r\nabcdef\r\n" if cut else b""))
    client.sends(b"6\r\nghijkl\r\n" if cut else b"b\r\nabcdefghijk\r\n")
    assert status_of(client.received()) == 413
    assert proxy.upstream.transport.aborted
    assert b"0\r\n\r\n" not in proxy.upstream.received()
    proxy.settle()
    proxy.assert_at_rest()


def test_a_body_at_the_limit_passes() -> None:
    proxy = FakeProxy(request_body_bytes_max=10)
    for request in (counted(10) + b"x" * 10, CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n"):
        client = proxy.client(request)
        proxy.upstream.sends(reply(b"ok"))
        assert status_of(client.received()) == 200


def test_a_connection_has_so_many_requests() -> None:
    proxy = FakeProxy(requests_per_connection_max=2)
    client = proxy.client(get("/1") + get("/2") + get("/3"))
    proxy.upstream.sends(reply(b"1"))
    assert field(client.received(), "connection") is None
    proxy.upstream.sends(reply(b"2"))
    assert field(client.received(), "connection") == "close"
    assert client.closed
    assert proxy.upstream.received().count(b"GET ") == 2
    proxy.settle()
    proxy.assert_at_rest()


def test_nothing_is_answered_after_the_last_answer_from_the_store() -> None:
    proxy = warmed()
    client = proxy.client(get(headers={"Connection": "close"}) + get())
    assert client.received().count(b"HTTP/1.1 ") == 1
    assert client.closed


def test_a_known_head_alone_and_the_last_of_its_connection() -> None:
    """The short way closes as the long one does."""
    proxy = warmed()
    for _ in range(3):
        client = proxy.client(get(headers={"Connection": "close"}))
        assert field(client.received(), "connection") == "close"
        assert client.closed


# -- reading ahead ----------------------------------------------------------------------------


def test_what_is_sent_ahead_is_bounded() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1"))
    next_one = get("/n", headers={"X": "y" * 10_000})
    while client.transport.reading:
        client.sends(next_one)
    assert len(client.protocol.requests.buffer) <= READ_AHEAD_BYTES_MAX + len(next_one)
    for _ in range(3):
        proxy.upstream.sends(reply(b"1"))
    assert client.transport.reading, "there is room again"


def test_a_body_that_the_application_does_not_take_stays_with_the_client() -> None:
    proxy = FakeProxy(buffer_request_bytes=0)
    client = proxy.client(counted(1000) + b"x")
    proxy.upstream.blocks()
    assert not client.transport.reading
    client.resets()
    proxy.settle()
    proxy.assert_at_rest()


def test_a_body_at_once_and_requests_behind_it() -> None:
    proxy = FakeProxy()
    client = proxy.client(counted(2) + b"ok" + get("/2") + counted(2) + b"ok" + get("/4"))
    for n in range(4):
        proxy.upstream.sends(reply(b"%d" % n))
    assert client.received().count(b"HTTP/1.1 200") == 4
    proxy.assert_at_rest()


# -- deadlines --------------------------------------------------------------------------------


def test_a_slow_reader_that_is_given_up_leaves_nothing_behind() -> None:
    proxy = FakeProxy(buffer_answer_bytes=0, write_timeout_s=5)
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 1000)
    client.blocks()
    assert not proxy.upstream.transport.reading
    proxy.advance(7.2)
    assert client.transport.aborted
    assert proxy.upstream.transport.reading, "read on for the store, but not for ever"
    for _ in range(3):
        proxy.upstream.sends(b"x" * 1_000_000)
    proxy.settle()
    proxy.assert_at_rest()


def test_a_slow_reader_of_a_tunnel_that_is_given_up_leaves_nothing_behind() -> None:
    proxy = FakeProxy(write_timeout_s=5)
    client = proxy.client(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    proxy.upstream.sends(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\nhello")
    client.blocks()
    proxy.advance(7.2)
    assert client.transport.aborted
    proxy.settle()
    proxy.assert_at_rest()


def test_a_reader_that_wakes_up_in_time_goes_on() -> None:
    proxy = FakeProxy(write_timeout_s=5, keep_alive_s=5)
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"x" * 100))
    client.blocks()
    proxy.advance(3)
    client.unblocks()
    proxy.advance(4)
    assert not client.closed, "the time allowed to write is over; keep-alive has begun anew"
    proxy.advance(3.2)
    assert client.closed


def test_a_client_that_reads_nothing_of_its_last_answer_is_cut_off() -> None:
    proxy = FakeProxy(write_timeout_s=3)
    client = proxy.client(get(headers={"Connection": "close"}))
    client.blocks()
    proxy.upstream.sends(reply(b"x"))
    proxy.advance(6)
    assert client.transport.aborted


def test_a_client_that_takes_nothing_gains_no_time_by_asking_for_more() -> None:
    proxy = FakeProxy(write_timeout_s=3)
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"x"))
    client.blocks()
    client.sends(get("/more"))
    assert not client.transport.reading
    proxy.advance(4.2)
    assert client.transport.aborted
    proxy.assert_at_rest()


@pytest.mark.parametrize("piece", [b"x", b"x" * 50])
def test_nor_by_sending_a_body(piece: bytes) -> None:
    """Not piece by piece, nor with the last one."""
    proxy = FakeProxy(write_timeout_s=3, buffer_request_bytes=0)
    client = proxy.client(get() + counted(50))
    client.transport.unsent = 1000
    proxy.upstream.sends(reply(b"x"))
    client.blocks()
    for _ in range(6):
        client.sends(piece)
        proxy.advance(1)
    assert client.transport.aborted
    proxy.upstream.sends(reply(b"what has come whole is finished"))
    proxy.settle()
    proxy.assert_at_rest()


def test_empty_lines_alone_are_no_request() -> None:
    proxy = FakeProxy(keep_alive_s=3, head_timeout_s=3)
    client = proxy.client(b"\r\n")
    proxy.advance(6)
    assert client.closed
    proxy.assert_at_rest()


def test_a_body_may_take_long_if_it_keeps_coming() -> None:
    proxy = FakeProxy(body_idle_timeout_s=3, body_min_rate_bytes=0)
    client = proxy.client(counted(5))
    for _ in range(5):
        proxy.advance(2)
        client.sends(b"x")
    proxy.upstream.sends(reply(b"ok"))
    assert status_of(client.received()) == 200


BODIES: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "length": (counted(100_000), lambda octets: b"x" * octets),
    "chunked": (CHUNKED, lambda octets: b"%x\r\n%b\r\n" % (octets, b"x" * octets)),
}


@pytest.mark.parametrize("framing", BODIES)
def test_a_body_that_comes_too_slowly_ends(framing: str) -> None:
    head, piece = BODIES[framing]
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=10, body_min_rate_bytes=100)
    client = proxy.client(head + piece(5000))  # which does for the first ten seconds
    for _ in range(10):
        proxy.advance(1)
        client.sends(piece(70))
    assert not client.closed
    for _ in range(11):
        proxy.advance(1)
        client.sends(piece(70))  # and this does not for the next ten
    assert status_of(client.received()) == 408
    assert proxy.upstream.transport.aborted
    proxy.settle()
    proxy.assert_at_rest()
    assert proxy.proxy.stats()["client_errors"] == {"client-timeout": 1}


@pytest.mark.parametrize("framing", BODIES)
def test_a_body_that_comes_fast_enough_may_take_for_ever(framing: str) -> None:
    head, piece = BODIES[framing]
    proxy = FakeProxy(body_idle_timeout_s=10, body_min_rate_bytes=100)
    client = proxy.client(head)
    for _ in range(100):
        proxy.advance(1)
        client.sends(piece(110))
    assert not client.closed
    client.resets()
    proxy.settle()
    proxy.assert_at_rest()


def test_no_credit_is_saved_for_a_silence() -> None:
    proxy = FakeProxy(body_idle_timeout_s=10, body_min_rate_bytes=100)
    client = proxy.client(counted(100_000) + b"x" * 50_000)
    proxy.advance(9)
    assert not client.closed
    proxy.advance(3)
    assert status_of(client.received()) == 408


def test_the_time_that_the_application_takes_is_not_the_clients() -> None:
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=10, body_min_rate_bytes=100)
    client = proxy.client(counted(100_000) + b"x" * 100)
    proxy.upstream.blocks()
    proxy.advance(30)
    assert not client.closed and not client.transport.reading
    proxy.upstream.unblocks()
    proxy.advance(9)
    assert not client.closed
    proxy.advance(3)
    assert status_of(client.received()) == 408


def test_long_polls_may_send_as_slowly_as_they_like() -> None:
    proxy = FakeProxy(body_idle_timeout_s=10, body_min_rate_bytes=100, stream_paths="/feed")
    client = proxy.client(CHUNKED.replace(b" / ", b" /feed "))
    for _ in range(30):
        proxy.advance(5)
        client.sends(b"1\r\nx\r\n")
    assert not client.closed


def test_a_second_body_has_a_window_of_its_own() -> None:
    proxy = FakeProxy(body_idle_timeout_s=10, body_min_rate_bytes=100)
    client = proxy.client(counted(2000) + b"x" * 1000)
    proxy.advance(8)
    client.sends(b"x" * 1000)
    proxy.upstream.sends(reply(b"ok"))
    client.sends(counted(2000) + b"x")
    proxy.advance(5)  # the first one's window would have ended
    client.sends(b"x" * 1999)
    proxy.upstream.sends(reply(b"ok"))
    assert client.received().count(b"HTTP/1.1 200 OK") == 2


# -- pipelining -------------------------------------------------------------------------------


def test_so_many_are_answered_before_others_have_their_turn() -> None:
    proxy = warmed(pipeline_max=3)
    client = proxy.client(get() * 7)
    for turn in (3, 3, 1):
        assert client.received().count(b"good") == turn
        assert client.transport.reading is (turn == 1)
        proxy.settle()
    client.sends(get())
    assert client.received().count(b"good") == 1


def test_nobody_reads_on_when_so_many_wait_for_the_application() -> None:
    proxy = FakeProxy(pipeline_max=3)
    client = proxy.client(get("/0"))
    for number in range(1, 4):
        assert client.transport.reading
        client.sends(get(f"/{number}"))
    assert not client.transport.reading
    for number in range(4):
        assert proxy.upstream.received().startswith(b"GET /%d " % number)
        proxy.upstream.sends(reply(b"<%d>" % number))
        assert client.received().endswith(b"<%d>" % number)
        proxy.settle()
    assert client.transport.reading
    proxy.assert_at_rest()


@pytest.mark.parametrize("end", ["reset", "closed by us", "last", "blocked", "bad"])
def test_a_connection_that_ends_between_turns(end: str) -> None:
    proxy = warmed(pipeline_max=2, requests_per_connection_max=2 if end == "last" else 0)
    client = proxy.client(get() * 2 + (b"bad\r\n\r\n" if end == "bad" else get() * 3))
    assert client.received().count(b"good") == 2
    if end == "reset":
        client.resets()
    elif end == "closed by us":
        proxy.proxy.close()
    elif end == "blocked":
        client.blocks()
        proxy.settle()
        assert client.received() == b""
        client.unblocks()
        proxy.settle()
        proxy.settle()
        assert client.received().count(b"good") == 3
        return
    proxy.settle()
    proxy.settle()
    assert (status_of(client.received()) == 400) if end == "bad" else client.received() == b""
    assert client.closed
    proxy.assert_at_rest()


# -- slow readers -----------------------------------------------------------------------------


def test_the_write_buffer_has_its_limit() -> None:
    proxy = FakeProxy(write_buffer_bytes_max=2048)
    assert proxy.client().transport.high_water == 2048


def test_a_slow_reader_takes_no_place_from_others() -> None:
    """After the first byte, what is left is between the two of them."""
    proxy = FakeProxy(buffer_answer_bytes=0, max_in_flight=1, limit_start=1)
    slow = proxy.client(get("/large"))
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 70_000)
    slow.blocks()
    assert not proxy.upstream.transport.reading, "no more is read than is taken"
    other = proxy.client(get("/other"))
    proxy.advance(0.1)
    assert len(proxy.upstreams) == 1, "there is one place, and it is taken"
    for _ in range(5):  # it takes a little now and then
        slow.unblocks()
        slow.blocks()
        proxy.advance(0.1)
    assert len(proxy.upstreams) == 2
    proxy.upstream.sends(reply(b"ok"))
    assert body_of(other.received()) == b"ok"
    slow.resets()
    proxy.settle()
    for upstream in proxy.upstreams:
        upstream.resets()
    proxy.settle()
    proxy.assert_at_rest()


# -- bodies again -----------------------------------------------------------------------------


def test_a_body_that_stops_after_the_answer_has_begun_cuts_it() -> None:
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=3)
    client = proxy.client(counted(5))
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    proxy.advance(6)
    assert client.transport.aborted
    proxy.settle()
    proxy.assert_at_rest()


def test_a_tunnel_that_the_client_half_closes() -> None:
    proxy = FakeProxy()
    client = proxy.client(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly"
    )
    proxy.upstream.received()
    proxy.upstream.sends(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n")
    assert proxy.upstream.received() == b"early"
    client.ends()
    assert proxy.upstream.transport.eof_written


def test_an_event_stream_ends_with_its_readers_connection() -> None:
    """A half-closed client waits for an answer; one that listens to a stream has left."""
    proxy = FakeProxy()
    client = proxy.client(get("/events"))
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    client.ends()
    proxy.settle()
    assert client.transport.closing and proxy.upstream.transport.aborted
    proxy.assert_at_rest()


def test_over_the_number_of_connections_nothing_is_kept() -> None:
    proxy = FakeProxy(connections_max=1)
    first = proxy.client(get())
    assert proxy.client().transport.aborted
    first.resets()
    assert not proxy.client().transport.aborted
    assert proxy.proxy.stats()["connections"]["refused"] == 1


# -- any bytes --------------------------------------------------------------------------------

CLIENT_PIECES = st.one_of(
    st.sampled_from(
        [get(), get("/x", version="1.0"), counted(3), b"abc", CHUNKED, b"3\r\nabc\r\n",
         b"0\r\n\r\n",
         b"\r\n", b"\n", b"GET", b" / ", b"Host: a\r\n", b"Content-Length: 9\r\n", b"\r\n\r\n",
         b"\x00",
         b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n",
         get(headers={"Connection": "Upgrade", "Upgrade": "websocket"})]
    ),
    st.binary(max_size=20),
)  # fmt: skip
UPSTREAM_PIECES = st.one_of(
    st.sampled_from(
        [reply(b"hello"), reply(b""), reply(b"no", status="500 Oops"), b"HTTP/1.1 200 OK\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
         b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\n\r\n", b"HTTP/1.1 103 E\r\n\r\n", b"HTTP/1.1 ",
         b"HTTP/1.1 204 N\r\n\r\n", b"\r\n\r\n",
         b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"]
    ),
    st.binary(max_size=20),
)  # fmt: skip
EVENTS = st.one_of(
    st.tuples(st.just("client"), CLIENT_PIECES),
    st.tuples(st.just("upstream"), UPSTREAM_PIECES),
    st.tuples(
        st.sampled_from(["client ends", "client resets", "upstream ends", "upstream resets",
                         "client blocks", "upstream blocks", "wait"]),
        st.just(b""),
    ),
)  # fmt: skip


@untraced
@settings(max_examples=300, deadline=None)
@given(events=st.lists(EVENTS, max_size=25), hold=st.booleans())
def test_any_bytes_from_either_side_end_in_a_reply_or_a_close(
    events: list[tuple[str, bytes]], hold: bool
) -> None:
    """Never an exception, never a hang, and afterwards nothing is left over."""
    proxy = FakeProxy(
        head_timeout_s=2,
        body_idle_timeout_s=2,
        keep_alive_s=2,
        write_timeout_s=2,
        upstream_timeout_s=2,
        upstream_body_timeout_s=2,
        connect_hold_s=0,
    )
    if hold:  # a stored response stands by
        proxy.client(get())
        proxy.upstream.sends(reply(b"good"))
    client = proxy.client()
    blocked = {"client": False, "upstream": False}
    ended = False  # a socket reports nothing after its end
    for what, data in events:
        if what == "client" and client.transport.reading and not ended:
            client.sends(data)
        elif what == "upstream" and proxy.upstreams and proxy.upstream.transport.reading:
            proxy.upstream.sends(data)
        elif what == "client ends":
            ended = True
            client.ends()
        elif what == "client resets":
            client.resets()
        elif what == "upstream ends" and proxy.upstreams:
            proxy.upstream.ends()
        elif what == "upstream resets" and proxy.upstreams:
            proxy.upstream.resets()
        elif what == "client blocks" and not client.transport.closing:
            (client.unblocks if blocked["client"] else client.blocks)()
            blocked["client"] = not blocked["client"]
        elif what == "wait":
            proxy.advance(0.7)
    streams = proxy.proxy.stats()["streams"]
    client.resets()
    proxy.settle()
    proxy.advance(8)
    assert client.transport.closing
    assert proxy.proxy.stats()["streams"] <= streams
    for peer in proxy.upstreams:
        peer.resets()
    proxy.settle()
    proxy.assert_at_rest()
    client = proxy.client(get("/next"))
    proxy.upstream.sends(reply(b"next"))
    assert body_of(client.received()) == b"next"


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_two_clients_bytes_are_never_mixed(seed: int) -> None:
    """Requests of several clients in any interleaving: each gets its own answers, in order."""
    random = Random(seed)
    proxy = FakeProxy()
    clients = [proxy.client() for _ in range(3)]
    queues: list[list[bytes]] = []
    for n in range(3):
        sends = b"".join([get(f"/{n}/{i}") for i in range(3)])
        queues.append(split_at(sends, random.sample(range(1, len(sends)), 4)))
    for _ in range(1000):
        n = random.randrange(3)
        if queues[n]:
            clients[n].sends(queues[n].pop(0))
        for peer in random.sample(proxy.upstreams, min(1, len(proxy.upstreams))):
            if request := peer.received():
                answer = reply(b"<" + request.split(b" ")[1] + b">")
                for piece in split_at(answer, [random.randrange(1, len(answer))]):
                    peer.sends(piece)
    for n, client in enumerate(clients):
        answers = client.received().split(b"HTTP/1.1 200 OK")[1:]
        assert [body_of(answer) for answer in answers] == [b"</%d/%d>" % (n, i) for i in range(3)]
    proxy.assert_at_rest()


# -- no connection stays for ever -----------------------------------------------------------------


@pytest.mark.parametrize("tail", [b"", b"\r", b"\r\n", b"\r\n\r\n", b"GET"])
def test_what_follows_many_requests_leaves_no_connection_without_a_deadline(tail: bytes) -> None:
    proxy = warmed()
    client = proxy.client(get() * proxy.services.settings.pipeline_max + tail)
    proxy.settle()
    assert client.received().count(b"HTTP/1.1 200 ") == proxy.services.settings.pipeline_max
    proxy.advance(proxy.services.settings.keep_alive_s + LINGER_SILENCE_S + 5)
    proxy.settle()
    assert client.closed
    assert client.transport.protocol not in proxy.services.clients.connections


def test_what_follows_a_refused_last_request_leaves_no_connection_without_a_deadline() -> None:
    proxy = FakeProxy()
    proxy.services.breaker.circuit.pause(proxy.loop.now, proxy.loop.now + 3600)
    for _ in range(HELD_MAX):
        proxy.client(counted(0))
    last = CHUNKED.replace(b"Host: a", b"Host: a\r\nConnection: close")
    client = proxy.client(last + b"3\r\nabc\r\n0\r\n\r\n" + get() * 100)
    assert status_of(client.received()) == 503
    proxy.advance(LINGER_SILENCE_S + 3)
    assert client.transport.protocol not in proxy.services.clients.connections


def test_a_slow_reader_that_goes_on_reading_is_not_given_up() -> None:
    """Only a client that takes no byte for so long is."""
    proxy = FakeProxy(write_timeout_s=10)
    client = proxy.client(get())
    client.transport.unsent = 900_000
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 1000)
    client.blocks()
    for _ in range(3):
        proxy.advance(9)
        assert not client.transport.aborted
        client.transport.unsent -= 1
    proxy.advance(30)
    assert client.transport.aborted
    proxy.settle()
    assert proxy.upstream.transport.reading


# -- memory -----------------------------------------------------------------------------------


def test_connections_that_refer_to_each_other_are_freed() -> None:
    """An event loop usually breaks such a cycle itself. The garbage collector must be able to.

    It could not while compiled classes showed it an attribute twice.
    """
    proxy = FakeProxy()
    for request in (get("/a"), counted(3) + b"abc", counted(3) + b"ab", CHUNKED + b"3\r\nabc\r\n"):
        proxy.client(request)
        proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    left = [weakref.ref(peer.transport) for peer in [*proxy.clients, *proxy.upstreams]]
    del proxy
    gc.collect()
    assert [transport() for transport in left] == [None] * len(left)
