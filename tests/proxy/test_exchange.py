"""The way of one request through the proxy: what reaches the application, what the client gets."""

import json
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.base.counters import cells
from retter.base.reason import Reason
from retter.breaker import Mode
from retter.proxy.pool import REST_S
from retter.proxy.ticker import TICK_S
from tests.support.compiled import replaces_parts
from tests.support.exchanges import POST, warmed
from tests.support.harness import FakeProxy, body_of, field, get, reply, split_at, status_of

# -- forwarding -------------------------------------------------------------------------------


def test_a_request_reaches_the_application_with_who_the_client_is() -> None:
    proxy = FakeProxy()
    proxy.client(
        b"GET /a%20b?x=1&&y= HTTP/1.1\r\nHost: Shop.Example\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"Connection: close, x-odd, cookie\r\nX-Odd: 1\r\nCookie: a=b\r\naCcEpt: */*\r\n\r\n"
    )
    lines = proxy.upstream.received().split(b"\r\n")
    assert lines[:5] == [
        b"GET /a%20b?x=1&&y= HTTP/1.1",
        b"Host: Shop.Example",
        b"Cookie: a=b",
        b"aCcEpt: */*",
        b"X-Forwarded-Host: Shop.Example",
    ]
    assert lines[5:8] == [
        b"X-Forwarded-For: 192.0.2.7",
        b"X-Real-IP: 192.0.2.7",
        b"X-Forwarded-Proto: http",
    ]
    assert lines[8].startswith(b"Via: 1.1 retter (")
    assert lines[9:] == [b"", b""]


def test_an_answer_reaches_the_client_with_what_the_circuit_says() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(
        reply(b"hello", headers={"Set-Cookie": "a=b", "Keep-Alive": "x", "X-Retter": "fake"})
    )
    assert client.received() == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: a=b\r\nVia: 1.1 retter\r\n"
        b"X-Retter: backend\r\nX-Circuit: CLOSED\r\n\r\nhello"
    )
    proxy.assert_at_rest()


REPLIES = {
    "length": (reply(b"hello world"), b"hello world"),
    "empty": (reply(b""), b""),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 9\r\n\r\n",
        b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 9\r\n\r\n",
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "1xx first": (
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + reply(b"hello"),
        b"hello",
    ),
}


@pytest.mark.parametrize("name", REPLIES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_read_boundaries_do_not_change_the_answer(name: str, data: st.DataObject) -> None:
    """However both sides' bytes are cut, the client gets the same body and both stay usable."""
    answer, expected = REPLIES[name]
    proxy = FakeProxy()
    request = get("/1")
    cuts = data.draw(st.sets(st.integers(1, len(request) - 1), max_size=4))
    client = proxy.client()
    for piece in split_at(request, cuts):
        client.sends(piece)
    cuts = data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=6))
    for piece in split_at(answer, cuts):
        proxy.upstream.sends(piece)
    received = client.received()
    if name == "1xx first":
        assert received.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        received = body_of(received)
    body = body_of(received)
    if name == "chunked":
        assert _unchunked(body) == (b"hello world", b"X-Sum: 9\r\n")
    else:
        assert body == expected
    if name == "no content":
        proxy.advance(REST_S + TICK_S)  # a body might come all the same
    client.sends(get("/2"))
    proxy.upstream.sends(reply(b"next"))
    assert body_of(client.received()) == b"next"
    assert len(proxy.upstreams) == 1, "the connection was reused"
    proxy.assert_at_rest()


def _unchunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        if size == b"0":
            assert data.endswith(b"\r\n")
            return body, data[:-2]
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


@pytest.mark.parametrize("chunked", [False, True])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_body_streams_to_the_application(chunked: bool, data: st.DataObject) -> None:
    """However a request with a body is cut, the application gets it whole, framed as sent."""
    if chunked:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        request = head + b"4\r\nitem\r\n5\r\n=beer\r\n0\r\nX-T: 1\r\n\r\n"
    else:
        request = POST
    proxy = FakeProxy()
    client = proxy.client()
    # a pipelined next request must not be mixed up with the body
    cuts = data.draw(st.sets(st.integers(1, len(request + get()) - 1), max_size=6))
    for piece in split_at(request + get(), cuts):
        client.sends(piece)
    received = proxy.upstream.received()
    if chunked:
        assert _unchunked(body_of(received)) == (b"item=beer", b"X-T: 1\r\n")
    else:
        assert body_of(received) == b"item=beer"
    proxy.upstream.sends(reply(b"one"))
    assert proxy.upstream.received().startswith(b"GET / ")
    proxy.upstream.sends(reply(b"two"))
    one, _, two = client.received().partition(b"one")
    assert status_of(one) == 200
    assert body_of(two) == b"two"
    proxy.assert_at_rest()


def test_pipelined_requests_are_answered_in_order() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1") + get("/2") + get("/3"))
    for n in (b"1", b"2", b"3"):
        assert proxy.upstream.received().startswith(b"GET /" + n)
        proxy.upstream.sends(reply(b"answer " + n))
    assert client.received().count(b"answer") == 3
    assert len(proxy.upstreams) == 1
    proxy.assert_at_rest()


def test_expect_100_continue_is_the_applications_to_answer() -> None:
    proxy = FakeProxy(buffer_request_bytes=0)
    client = proxy.client(
        b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    )
    assert b"Expect: 100-continue\r\n" in proxy.upstream.received()
    proxy.upstream.sends(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.received() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sends(b"abc")
    assert proxy.upstream.received() == b"abc"
    proxy.upstream.sends(reply(b"done"))
    assert body_of(client.received()) == b"done"
    proxy.assert_at_rest()


def test_an_answer_before_the_body_is_complete_ends_the_connection() -> None:
    proxy = FakeProxy(buffer_request_bytes=0)
    client = proxy.client(b"PUT /f HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nabc")
    proxy.upstream.sends(reply(b"too big", status="413 Content Too Large"))
    answer = client.received()
    assert status_of(answer) == 413
    assert field(answer, "connection") == "close"
    assert client.closed
    assert proxy.upstream.closed, "the rest of the body would be taken for a request"
    client.sends(b"def")  # is dropped
    assert client.received() == b""
    client.ends()
    proxy.assert_at_rest()


def test_http10_clients() -> None:
    proxy = FakeProxy()
    client = proxy.client(b"GET / HTTP/1.0\r\n\r\n")
    assert b"\r\nHost: 127.0.0.1:8080\r\n" in proxy.upstream.received()
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    proxy.upstream.sends(b"0\r\n\r\n")
    answer = client.received()
    assert body_of(answer) == b"hi"
    assert field(answer, "transfer-encoding") is None
    assert client.closed
    client = proxy.client(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    proxy.upstream.sends(reply(b"x"))
    assert field(client.received(), "connection") == "keep-alive"
    assert not client.closed


@pytest.mark.parametrize("ending", [reply(b""), b"HTTP/1.1 304 Not Modified\r\n\r\n"])
def test_head_has_no_body(ending: bytes) -> None:
    proxy = FakeProxy()
    client = proxy.client(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    proxy.upstream.sends(ending.replace(b"Content-Length: 0", b"Content-Length: 500"))
    assert body_of(client.received()) == b""
    client.sends(get())
    assert proxy.upstream.received().endswith(b"\r\n\r\n")
    proxy.upstream.sends(reply(b"x"))
    assert body_of(client.received()) == b"x"


def test_a_close_delimited_answer_is_chunked_for_the_client() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\n\r\nhel")
    proxy.upstream.sends(b"lo")
    proxy.upstream.ends()
    answer = client.received()
    assert field(answer, "transfer-encoding") == "chunked"
    assert _unchunked(body_of(answer))[0] == b"hello"
    assert not client.closed
    proxy.assert_at_rest()


def test_a_close_delimited_answer_without_a_body_is_not_trusted() -> None:
    """A killed application ends its connections as well: the stored page is the better answer."""
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\n\r\n")
    proxy.upstream.ends()
    assert body_of(client.received()) == b"good"
    client.sends(get("/other"))
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\n\r\n")
    proxy.upstream.ends()
    answer = client.received()
    assert status_of(answer) == 200
    assert _unchunked(body_of(answer)) == (b"", b"")
    assert proxy.services.store.stats()["entries"] == 1
    proxy.assert_at_rest()


def test_upgrade_becomes_a_tunnel() -> None:
    proxy = FakeProxy()
    client = proxy.client(
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n"
    )
    request = proxy.upstream.received()
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in request
    proxy.upstream.sends(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nS1"
    )
    answer = client.received()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"Connection: Upgrade\r\n" in answer
    assert body_of(answer) == b"S1"
    client.sends(b"C1")
    assert proxy.upstream.received() == b"C1"
    assert proxy.proxy.stats()["streams"] == 1
    proxy.advance(100)
    proxy.upstream.sends(b"S2")
    assert client.received() == b"S2"
    proxy.upstream.ends()
    assert client.closed
    client.ends()
    proxy.settle()
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_a_101_that_was_not_asked_for_is_a_bad_gateway() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    assert status_of(client.received()) == 502
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_h2c_is_not_tunnelled() -> None:
    proxy = FakeProxy()
    proxy.client(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert b"pgrade" not in proxy.upstream.received()


def test_event_streams_pass_as_they_come_and_hold_no_place() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/events"))
    proxy.upstream.sends(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert status_of(client.received()) == 200
    proxy.upstream.sends(b"9\r\ndata: 1\n\n\r\n")
    assert client.received() == b"9\r\ndata: 1\n\n\r\n"
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0
    proxy.advance(300)
    assert not client.closed
    client.resets()
    proxy.settle()
    assert proxy.upstream.closed
    proxy.assert_at_rest()


def test_a_long_poll_is_outside_of_everything() -> None:
    proxy = FakeProxy(stream_paths=("/poll/*",), upstream_timeout_s=3, max_in_flight=1)
    polls = [proxy.client(get(f"/poll/{n}?since=7")) for n in range(5)]
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0
    assert proxy.proxy.stats()["streams"] == 5
    page = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"page"))
    assert body_of(page.received()) == b"page", "they take no place"
    proxy.advance(600)
    assert polls[0].received() == b"", "and nobody loses patience"
    proxy.upstreams[0].sends(reply(b"news"))
    assert body_of(polls[0].received()) == b"news"
    assert proxy.services.store.stats()["entries"] == 1, "the page alone"
    proxy.upstreams[1].sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow")
    proxy.advance(600)
    proxy.upstreams[1].sends(b" news")
    assert body_of(polls[1].received()) == b"slow news"
    for poll in polls[2:]:
        poll.resets()
    proxy.settle()
    assert proxy.upstreams[2].closed
    proxy.assert_at_rest()


def test_the_operator_names_routes() -> None:
    proxy = FakeProxy(routes=("/api/*", "/search"))
    for path, route in (
        ("/api/a/b?c", b"GET /api/*"),
        ("/search?q=x", b"GET /search"),
        ("/search/x", b"GET /search/x"),
    ):
        request = proxy.services.heads.parse(
            get(path), False, proxy.services.heads.request_memos[False, b"http"]
        )
        assert request.identity.route == route
        proxy.client(get(path))
        proxy.upstream.sends(reply(b"x"))
    proxy.assert_at_rest()


# -- backpressure --------------------------------------------------------------------------------


def test_a_slow_client_stops_the_application_and_no_longer_than_needed() -> None:
    proxy = FakeProxy(buffer_answer_bytes=0)
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 1000)
    client.blocks()
    assert not proxy.upstream.transport.reading
    client.unblocks()
    assert proxy.upstream.transport.reading
    client.blocks()
    client.resets()
    assert proxy.upstream.transport.reading, "a lost client resumes what waits for it"


def test_a_client_blocked_by_the_last_piece_stops_no_pooled_connection() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    write = client.transport.write

    def write_and_block(data: bytes | bytearray | memoryview) -> None:
        write(data)
        client.blocks()  # as a transport does when what is left passes its high-water mark

    client.transport.write = write_and_block  # type: ignore[method-assign]
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 900_000)
    assert proxy.proxy.stats()["upstream"]["idle"] == 1
    assert proxy.upstream.transport.reading


def test_a_slow_application_stops_the_client() -> None:
    proxy = FakeProxy(buffer_request_bytes=0)
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nabc")
    proxy.upstream.blocks()
    assert not client.transport.reading
    proxy.upstream.unblocks()
    assert client.transport.reading


def test_a_client_that_reads_nothing_is_given_up() -> None:
    proxy = FakeProxy(write_timeout_s=5)
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 1000)
    client.blocks()
    proxy.advance(8)
    assert client.transport.aborted


def test_a_body_waits_while_the_connection_is_dialled() -> None:
    proxy = FakeProxy(buffer_request_bytes=0)
    proxy.auto_accept = False
    client = proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
    assert not client.transport.reading
    upstream = proxy.accept()
    assert body_of(upstream.received()) == b"abc"
    assert client.transport.reading
    client.sends(b"def")
    assert upstream.received() == b"def"


def test_pipelined_answers_wait_for_a_client_that_does_not_read() -> None:
    proxy = warmed(circuit="open")
    client = proxy.client()
    client.blocks()
    client.sends(get() * 50)
    assert client.received() == b""
    client.unblocks()
    proxy.settle()
    assert client.received().count(b"good") == 50


# -- the store -------------------------------------------------------------------------------------


def test_a_stored_response_answers_when_the_circuit_is_open() -> None:
    proxy = warmed(circuit="open")
    proxy.advance(7.5)
    client = proxy.client(get())
    assert client.received() == (
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nVia: 1.1 retter\r\nContent-Length: 4\r\nAge: 7\r\n'
        b"Cache-Status: retter; hit; detail=forced-open\r\n"
        b"X-Retter: cache\r\nX-Circuit: OPEN\r\n\r\ngood"
    )
    client.sends(get(headers={"If-None-Match": 'W/"1"'}))
    answer = client.received()
    assert status_of(answer) == 304
    assert body_of(answer) == b""
    proxy.assert_at_rest()


@pytest.mark.parametrize(
    ("status", "reason"), [("500 Oops", "upstream-status"), ("503 Busy", "upstream-status")]
)
def test_an_error_of_the_application_is_answered_from_the_store(status: str, reason: str) -> None:
    proxy = warmed()
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"error", status=status))
    answer = client.received()
    assert body_of(answer) == b"good"
    assert field(answer, "cache-status") == f"retter; hit; detail={reason}"
    proxy.assert_at_rest()


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"whole head+"]
)
def test_a_reset_is_answered_from_the_store(cut: bytes) -> None:
    proxy = warmed()
    client = proxy.client(get())
    if cut == b"whole head+":
        cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"
    if cut:
        proxy.upstream.sends(cut)
    proxy.upstream.resets()
    if not cut:
        proxy.upstream.resets()  # the one retry on a fresh connection
    answer = client.received()
    assert body_of(answer) == b"good"
    assert field(answer, "cache-status") == "retter; hit; detail=upstream-reset"
    proxy.assert_at_rest()


def test_a_hung_application_is_waited_for_no_longer_than_the_patience() -> None:
    proxy = warmed(patience_closed_s=1, patience_max_s=1)
    client = proxy.client(get())
    proxy.advance(5.2)
    answer = client.received()
    assert body_of(answer) == b"good"
    assert field(answer, "cache-status") == "retter; hit; detail=patience"
    # The application's late answer refreshes the store and frees the place.
    proxy.upstream.sends(reply(b"late"))
    proxy.assert_at_rest()
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    assert body_of(client.received()) == b"late"


def test_other_methods_always_go_to_the_application() -> None:
    proxy = warmed(circuit="open")
    for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"HEAD"):
        client = proxy.client(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert proxy.upstream.received().startswith(method)
        proxy.upstream.sends(reply(b""))
        assert status_of(client.received()) == 200
    proxy.assert_at_rest()


def test_a_get_without_a_stored_response_waits_for_a_place_and_is_refused_in_the_end() -> None:
    proxy = FakeProxy(max_in_flight=1, queue_wait_s=2)
    first = proxy.client(get("/slow"))
    second = proxy.client(get("/never-seen", headers={"Accept": "text/html"}))
    third = proxy.client(get("/nor-this"))
    gone = proxy.client(get("/gone"))
    gone.resets()
    assert proxy.services.breaker.waiting == 2
    proxy.advance(1)
    proxy.upstream.sends(reply(b"slow"))
    assert body_of(first.received()) == b"slow"
    assert proxy.upstream.received().count(b"GET /never-seen ") == 1, "the next in the queue"
    proxy.advance(1.2)
    assert second.received() == b""
    answer = third.received()
    assert status_of(answer) == 503
    assert int(field(answer, "retry-after") or 0) >= 2
    assert field(answer, "cache-status") == "retter; fwd=miss; detail=queue-timeout"
    assert not third.closed
    proxy.upstream.sends(reply(b"at last"))
    assert body_of(second.received()) == b"at last"
    proxy.assert_at_rest()


def test_a_get_whose_page_was_stored_while_it_waited_does_not_ask_again() -> None:
    """Others wait, so the place is for a page that nobody has fetched. What is one's own is."""
    proxy = FakeProxy(max_in_flight=1, queue_wait_s=10)
    first = proxy.client(get("/page"))
    same = [proxy.client(get("/page")) for _ in range(3)]
    own = proxy.client(get("/page", headers={"Authorization": "Basic YTpi"}))
    other = proxy.client(get("/other"))
    proxy.upstream.received()
    proxy.upstream.sends(reply(b"page"))
    assert body_of(first.received()) == b"page"
    for client in same:
        answer = client.received()
        assert body_of(answer) == b"page"
        assert field(answer, "cache-status") == "retter; hit; detail=single-flight"
    sent = proxy.upstream.received()
    assert sent.count(b"GET ") == 1
    assert b"Authorization" in sent
    assert own.received() == other.received() == b""
    proxy.upstream.sends(reply(b"own"))
    assert body_of(own.received()) == b"own"
    proxy.upstream.sends(reply(b"other"))
    assert body_of(other.received()) == b"other"
    assert proxy.services.breaker.snapshot(proxy.loop.now).shed_stored[Reason.SINGLE_FLIGHT] == 3
    proxy.assert_at_rest()


def test_a_get_that_would_be_answered_too_late_leaves_its_place_to_the_next() -> None:
    proxy = FakeProxy(max_in_flight=1, queue_wait_s=2)
    first = proxy.client(get("/slow"))
    late = proxy.client(get("/late"))
    proxy.advance(1.0)
    early = proxy.client(get("/early"))
    proxy.advance(0.99)
    assert late.received() == b""
    proxy.upstream.sends(reply(b"slow"))
    assert body_of(first.received()) == b"slow"
    assert field(late.received(), "cache-status") == "retter; fwd=miss; detail=queue-timeout"
    assert b"GET /early " in proxy.upstream.received()
    proxy.upstream.sends(reply(b"in time"))
    assert body_of(early.received()) == b"in time"
    late.sends(get("/again"))
    assert b"GET /again " in proxy.upstream.received(), "it may ask again on the same connection"
    proxy.upstream.sends(reply(b"again"))
    assert body_of(late.received()) == b"again"
    proxy.assert_at_rest()


def test_a_change_makes_the_stored_response_old() -> None:
    """After a POST the stored page does not spare the application work, but hides its failure."""
    proxy = warmed()
    client = proxy.client(POST.replace(b"/cart", b"/"))
    proxy.upstream.sends(reply(b"changed"))
    client.received()
    client.sends(get())
    proxy.upstream.sends(reply(b"broken", status="500 Oops"))
    assert body_of(client.received()) == b"good"


@pytest.mark.parametrize(
    ("body", "coding", "location", "stored"),
    [
        (b"<a href='/p;jsessionid=0123456789ABCDEF'>", "", "", 0),
        (zlib.compress(b"<a href='/p;jsessionid=0123456789ABCDEF'>"), "deflate", "", 0),
        (b"who knows what this is", "br", "", 0),
        (b"nor this", "gzip, deflate", "", 0),
        (b"moved", "", "/start;jsessionid=0123456789ABCDEF", 0),
        (b"<a href='/p'>", "", "", 1),
        (zlib.compress(b"<a href='/p'>"), "deflate", "/start", 1),
    ],
)
def test_a_first_visit_whose_answer_names_its_new_session_is_not_everyones(
    body: bytes, coding: str, location: str, stored: int
) -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    headers = {"Set-Cookie": "JSESSIONID=0123456789ABCDEF; Path=/"}
    if coding:
        headers["Content-Encoding"] = coding
    if location:
        headers["Location"] = location
    proxy.upstream.sends(reply(body, headers=headers))
    assert body_of(client.received()) == body
    assert proxy.services.store.stats()["entries"] == stored


# -- the access log -------------------------------------------------------------------------------


def test_the_access_log_tells_each_answer_and_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    proxy = warmed(access_log=str(path), session_cookies=("PHPSESSID", "JSESSIONID"))
    cookie = {"Cookie": "PHPSESSID=topsecret0123456789abcdef"}
    client = proxy.client(get("/a?x=1", headers=cookie))
    proxy.advance(0.05)
    proxy.upstream.sends(reply(b"a"))
    client.sends(get("/a;jsessionid=topsecret?b=topsecret"))
    proxy.upstream.sends(reply(b"error", status="500 Oops"))
    client.sends(get())
    proxy.upstream.sends(reply(b"error", status="500 Oops"))
    client.sends(b"nonsense\r\n\r\n")
    gone = proxy.client(POST)
    gone.resets()
    proxy.upstream.sends(reply(b"x"))
    dead = proxy.client(POST)
    proxy.upstream.resets()
    assert status_of(dead.received()) == 502
    proxy.advance(0.05)
    text = path.read_text()
    assert "topsecret" not in text
    records = [json.loads(line) for line in text.splitlines()]
    told = [(r.get("target"), r["status"], r["source"], r["reason"]) for r in records]
    assert told == [
        ("/", 200, "backend", "admitted"),
        ("/a?x=1", 200, "backend", "admitted"),
        ("/a?(session)", 500, "backend", "admitted"),
        ("/", 200, "cache", "upstream-status"),
        (None, 400, "retter", "bad-request"),
        ("/cart", 0, "backend", "client-gone"),
        ("/cart", 502, "retter", "upstream-reset"),
    ]
    assert records[1]["took_ms"] == pytest.approx(50)
    assert records[1]["owner"] == "session"
    assert records[1]["client"] == "192.0.2.7"


@pytest.mark.parametrize(
    ("line", "field", "status", "told"),
    [
        ("TRACE /a", "X: 1", 405, ("TRACE", "/a")),
        ("CONNECT shop.example:443", "X: 1", 405, ("CONNECT", "shop.example:443")),
        ("GET /a;jsessionid=topsecret", "Expect: x", 417, ("GET", "/a?(session)")),
        ("POST /a", "Transfer-Encoding: gzip", 501, ("POST", "/a")),
        ("POST http://me:topsecret@shop.example/", "Transfer-Encoding: gzip", 501, (None, None)),
        ("GET /@me", "Expect: x", 417, ("GET", "/@me")),
        ("GET /a", "Content-Length: x", 400, (None, None)),
    ],
)
def test_the_access_log_tells_what_was_read_and_refused(
    line: str, field: str, status: int, told: tuple[str | None, str | None], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    proxy = FakeProxy(access_log=str(path))
    client = proxy.client(f"{line} HTTP/1.1\r\nHost: shop.example\r\n{field}\r\n\r\n".encode())
    assert status_of(client.received()) == status
    proxy.advance(0.05)
    record = json.loads(path.read_text())
    assert (record.get("method"), record.get("target"), record["status"]) == (*told, status)


def test_the_access_log_survives_a_full_disk_and_ends_with_the_proxy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = FakeProxy(access_log="/dev/full")
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"x"))
    proxy.advance(0.05)
    assert body_of(client.received()) == b"x"
    proxy.proxy.close()
    path = tmp_path / "access.log"
    proxy = FakeProxy(access_log=str(path))
    proxy.client(get("/last"))
    proxy.upstream.sends(reply(b"x"))
    proxy.proxy.close()
    assert '"target": "/last"' in path.read_text()
    proxy = FakeProxy(access_log="-")
    proxy.client(get("/shown"))
    proxy.upstream.sends(reply(b"x"))
    proxy.proxy.close()
    assert '"target": "/shown"' in capsys.readouterr().out


def test_a_status_that_is_none_counts_as_a_5xx() -> None:
    """RFC 9110 section 15: it is passed on, and treated as a server error."""
    proxy = FakeProxy()
    client = proxy.client()
    client.sends(get("/"))
    proxy.upstream.sends(b"HTTP/1.1 900 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert client.received().startswith(b"HTTP/1.1 900 OK\r\n")
    counts = proxy.services.counters.forwarded_get
    assert [(status_class, count) for _, status_class, count in cells(counts)] == [(5, 1)]


@replaces_parts
@pytest.mark.parametrize("request_bytes", [get("/new"), POST])
@pytest.mark.parametrize("where", ["the pool", "the exchange", "the store"])
def test_a_request_that_cannot_begin_takes_no_place(
    request_bytes: bytes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For lack of memory, for example: no other object knows the exchange yet and could end it."""

    def fail(*_: object) -> None:
        raise MemoryError

    proxy = FakeProxy()
    proxy.loop.takes_reports = True
    client = proxy.client()
    with monkeypatch.context() as patch:
        if where == "the pool":
            patch.setattr(proxy.services.pool, "_dial_soon", fail)
            client.sends(request_bytes)
            assert status_of(client.received()) == 500
            assert [type(error) for error in proxy.loop.reported] == [MemoryError]
        else:
            if where == "the exchange":
                patch.setattr("retter.proxy.exchange.Exchange.__init__", fail)
            else:  # what was read from the disk does not fit into memory
                entry = [b""] * 32

                def found(*_: object) -> list[bytes]:
                    return entry

                patch.setattr("retter.store.store.ResponseStore.find", found)
                patch.setattr("retter.store.store.ResponseStore.keep_borrowed", fail)
                patch.setattr(proxy.services.store, "borrowed", (b"", entry, 0))
            with pytest.raises(MemoryError):
                client.sends(request_bytes)
            client.transport.lose()
    proxy.assert_at_rest()
    assert proxy.services.breaker.circuit.limit.in_flight == 0
    proxy.client(get("/next"))
    proxy.upstream.sends(reply(b"fine"))
    proxy.assert_at_rest()


def test_a_client_that_takes_no_1xx_still_blocks_the_answer() -> None:
    """It was blocked before the delivery took over, which has to know it."""
    proxy = FakeProxy(buffer_answer_bytes=0)
    client = proxy.client(get())
    proxy.upstream.sends(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    client.blocks()
    upstream = proxy.upstream
    upstream.protocol.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 1
    proxy.advance(1.0)
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0, "a slow reader"
    client.unblocks()
    upstream.sends(b"world")
    assert body_of(client.received().partition(b"\r\n\r\n")[2]).endswith(b"helloworld")
    proxy.assert_at_rest()


def test_who_gets_a_stored_response_after_a_short_wait_has_not_waited_in_vain() -> None:
    """`queue-timeout` is for those that got a 503: this one was never to wait for long."""
    proxy = FakeProxy(max_in_flight=1, queue_wait_s=10)
    client = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"stored"))
    assert body_of(client.received()) == b"stored"
    slow = proxy.client(get("/slow"))
    proxy.client(get("/next"))
    client.sends(get("/page"))
    assert proxy.services.breaker.waiting == 2
    proxy.advance(1.0)
    answer = client.received()
    assert body_of(answer) == b"stored"
    assert field(answer, "cache-status") == "retter; hit; detail=limit"
    assert proxy.services.breaker.snapshot(proxy.loop.now).queue_timeouts == 0
    slow.resets()
