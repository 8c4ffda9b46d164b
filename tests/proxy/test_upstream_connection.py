"""The connection to the application: what it hands over, when it is used again, how it ends."""

from typing import Any, cast

import pytest

from retter.base.errors import UpstreamError, UpstreamMalformed, UpstreamReset
from retter.http.memo import HeadMemo
from retter.http.message import ResponseHead
from retter.http.response_parser import ResponseParser
from retter.net.write_batch import WriteBatch
from retter.proxy.idle_connections import IdleConnections
from retter.proxy.upstream_connection import INFORMATIONAL_MAX, ResponseSink, UpstreamConnection
from tests.support.exchanges import POST
from tests.support.harness import (
    DATE,
    FakeLoop,
    FakeProxy,
    FakeTransport,
    body_of,
    get,
    proxy_with_idle_connection,
    reply,
    status_of,
)


class FakePool:
    def __init__(self) -> None:
        self.ready: IdleConnections[UpstreamConnection] = IdleConnections()
        self.released = self.ready.stack
        self.forgotten: list[UpstreamConnection] = []

    def forget(self, connection: UpstreamConnection) -> None:
        self.forgotten.append(connection)


class Sink:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.body = b""
        self.complete = False
        self.error: UpstreamError | None = None
        self.tunnelled: UpstreamConnection | None = None  # by a 101

    def response_informational(self, head: ResponseHead) -> None:
        self.events.append(str(head.status))

    def response_whole(self, head: ResponseHead, body: bytes, now: float) -> None:
        self.response_head(head, body, True, [], now)

    def response_head(
        self, head: ResponseHead, body: bytes, complete: bool, trailers: Any, now: float
    ) -> None:
        self.events.append(str(head.status))
        self.response_data(body, complete, trailers, now)

    def response_data(self, data: bytes, complete: bool, trailers: Any, now: float) -> None:
        assert not self.complete, "an answer ends once"
        self.body += data
        self.complete = complete

    def upgraded(self, head: ResponseHead, data: bytes, now: float) -> None:
        self.events.append("upgraded")
        self.body += data
        if self.tunnelled is not None:
            self.tunnelled.begin_tunnel(self)

    def upstream_data(self, data: bytes, now: float) -> None:
        self.body += data

    def upstream_eof(self, now: float) -> None:
        self.events.append("eof")

    def upstream_failed(self, error: UpstreamError, now: float) -> None:
        assert self.error is None, "a failure is told once"
        self.error = error

    def upstream_blocked(self) -> None:
        self.events.append("blocked")

    def upstream_writable(self) -> None:
        self.events.append("writable")


class Upstream:
    """A connection with everything around it faked."""

    def __init__(self, *, head_bytes_max: int = 1000) -> None:
        self.pool = FakePool()
        pool: Any = self.pool
        loop: Any = FakeLoop()
        self.connection = UpstreamConnection(
            pool, loop, HeadMemo(100_000), ResponseParser(), head_bytes_max, lambda: DATE,
            WriteBatch(loop),
        )  # fmt: skip
        self.transport = FakeTransport(self.connection)
        self.connection.connection_made(self.transport)

    def ask(self, method: bytes = b"GET", *, complete: bool = True) -> Sink:
        sink = Sink()
        self.connection.send(cast("ResponseSink", sink), method, b"request")
        self.connection.request_complete = complete
        return sink


def test_a_whole_answer_and_the_next_on_the_same_connection() -> None:
    upstream = Upstream()
    for n in range(4):  # parsed, offered again, and known from then on
        sink = upstream.ask()
        assert upstream.connection.reused is (n > 0)
        upstream.connection.data_received(reply(b"hello"))
        assert (sink.events, sink.body, sink.complete) == (["200"], b"hello", True)
        assert len(upstream.pool.released) == n + 1
    assert upstream.transport.buffer == b"request" * 4


@pytest.mark.parametrize(
    ("answer", "method", "complete"),
    [
        (reply(b"hello") + b"x", b"GET", True),
        (reply(b"hello", headers={"Connection": "close"}), b"GET", True),
        (reply(b"hello"), b"GET", False),
        (b"HTTP/1.1 204 N\r\nContent-Length: 5\r\n\r\n", b"GET", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", b"GET", True),
        (reply(b"hello"), b"HEAD", True),
    ],
)
def test_what_is_never_used_again(answer: bytes, method: bytes, complete: bool) -> None:
    for whole in (True, False):
        upstream = Upstream()
        sink = upstream.ask(method, complete=complete)
        for piece in [answer] if whole else [answer[:-1], answer[-1:]]:
            upstream.connection.data_received(piece)
        assert sink.complete
        assert upstream.connection.closed
        assert upstream.transport.aborted
        upstream.connection.data_received(b"late")
        assert sink.error is None


def test_a_body_until_the_end() -> None:
    upstream = Upstream()
    sink = upstream.ask()
    upstream.connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhel")
    upstream.connection.data_received(b"lo")
    assert upstream.connection.eof_received() is False
    upstream.connection.connection_lost(None)
    assert (sink.body, sink.complete, sink.error) == (b"hello", True, None)


def test_a_body_until_the_end_without_a_word_of_it() -> None:
    upstream = Upstream()
    sink = upstream.ask()
    upstream.connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhello")
    upstream.connection.connection_lost(None)
    assert (sink.body, sink.complete, sink.error) == (b"hello", True, None)


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1", reply(b"hello")[:-1], b"HTTP/1.1 200 OK\r\n\r\nx"]
)
def test_a_reset(sent: bytes) -> None:
    upstream = Upstream()
    sink = upstream.ask()
    if sent:
        upstream.connection.data_received(sent)
    assert upstream.connection.answered is bool(sent)
    upstream.connection.connection_lost(ConnectionResetError())
    assert isinstance(sink.error, UpstreamReset)
    assert not sink.complete
    assert upstream.pool.forgotten == [upstream.connection]
    upstream.connection.write(b"too late")
    upstream.connection.write_eof()
    upstream.connection.pause_reading()
    upstream.connection.resume_reading()
    upstream.connection.close()
    assert upstream.transport.buffer == b"request"


def test_heads_have_a_limit_and_1xx_too() -> None:
    upstream = Upstream(head_bytes_max=100)
    sink = upstream.ask()
    upstream.connection.data_received(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100)
    assert isinstance(sink.error, UpstreamMalformed)
    upstream = Upstream()
    sink = upstream.ask()
    upstream.connection.data_received(b"HTTP/1.1 103 E\r\n\r\n" * (INFORMATIONAL_MAX + 1))
    assert sink.events == ["103"] * INFORMATIONAL_MAX
    assert isinstance(sink.error, UpstreamMalformed)


def test_a_tunnel() -> None:
    upstream = Upstream()
    sink = upstream.ask()
    sink.tunnelled = upstream.connection
    upstream.connection.data_received(b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\nhel")
    upstream.connection.data_received(b"lo")
    assert (sink.events, sink.body) == (["upgraded"], b"hello")
    upstream.connection.pause_writing()
    upstream.connection.resume_writing()
    assert sink.events[1:] == ["blocked", "writable"]
    upstream.connection.write(b"more")
    upstream.connection.write_eof()
    assert upstream.transport.eof_written
    assert upstream.connection.eof_received() is True
    assert sink.events[-1] == "eof"
    upstream.connection.end_tunnel()
    assert upstream.transport.closing and not upstream.transport.aborted, "what was said is sent"
    upstream.connection.connection_lost(None)
    assert sink.error is None, "who has ended it knows"


def test_a_lost_tunnel() -> None:
    upstream = Upstream()
    sink = upstream.ask()
    sink.tunnelled = upstream.connection
    upstream.connection.data_received(b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n")
    upstream.connection.connection_lost(None)
    assert isinstance(sink.error, UpstreamReset)


def test_backpressure_is_passed_on_while_somebody_listens() -> None:
    upstream = Upstream()
    upstream.connection.pause_writing()
    upstream.connection.resume_writing()
    sink = upstream.ask(complete=False)
    upstream.connection.pause_writing()
    upstream.connection.resume_writing()
    assert sink.events == ["blocked", "writable"]


def test_a_pooled_connection_goes_back_reading() -> None:
    upstream = Upstream()
    upstream.ask()
    upstream.connection.pause_reading()
    upstream.connection.pause_reading()
    assert not upstream.transport.reading
    upstream.connection.data_received(reply(b"x"))
    assert upstream.transport.reading


def test_giving_up_is_silent() -> None:
    upstream = Upstream()
    sink = upstream.ask()
    upstream.connection.discard()
    upstream.connection.connection_lost(None)
    assert sink.error is None
    assert upstream.transport.aborted


def test_closing_before_there_is_a_transport() -> None:
    pool: Any = FakePool()
    loop: Any = FakeLoop()
    connection = UpstreamConnection(
        pool, loop, HeadMemo(0), ResponseParser(), 100, lambda: DATE, WriteBatch(loop)
    )
    connection.write(b"x")
    connection.write_eof()
    connection.pause_reading()
    connection.resume_reading()
    connection.close()
    assert connection.closed


def test_an_end_that_nobody_waits_for() -> None:
    upstream = Upstream()
    assert upstream.connection.eof_received() is False
    upstream.connection.data_received(b"HTTP/1.1 408 Timeout\r\n\r\n")
    assert upstream.connection.closed


def test_a_connection_that_the_application_has_ended_is_given_to_nobody() -> None:
    """Not even before its loss is reported: a POST that goes there cannot be sent again."""
    proxy = proxy_with_idle_connection()
    assert not proxy.upstream.protocol.eof_received()
    client = proxy.client(POST)
    assert len(proxy.upstreams) == 2
    proxy.upstream.sends(reply(b"sold"))
    assert body_of(client.received()) == b"sold"


def test_an_answer_with_too_many_fields_is_a_bad_gateway() -> None:
    """The limit on fields holds for both sides."""
    proxy = FakeProxy(head_fields_max=10)
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"", headers={f"X-{n}": "y" for n in range(8)}))
    assert status_of(client.received()) == 200
    client.sends(get("/other"))
    proxy.upstream.sends(reply(b"", headers={f"X-{n}": "y" for n in range(9)}))
    assert status_of(client.received()) == 502
    proxy.assert_at_rest()
