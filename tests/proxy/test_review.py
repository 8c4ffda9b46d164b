"""What once went wrong at the seams: each test holds one rule that was broken."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from retter.breaker import Mode
from retter.compression import coding
from tests.proxy.test_exchange import POST, warmed
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    FakeTransport,
    body_of,
    field,
    get,
    reply,
    status_of,
)

UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nabc"
HANDSHAKE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"


def blocks_at_the_next_write(peer: FakePeer) -> None:
    """Call pause_writing inside the write, as a transport does whose buffer is full."""
    transport: Any = peer.transport
    write: Callable[[bytes], None] = transport.write

    def write_and_block(data: bytes) -> None:
        transport.write = write
        write(data)
        peer.blocks()

    transport.write = write_and_block


def idle_proxy(**settings: object) -> FakeProxy:
    """A proxy with one idle connection to the application and nothing stored."""
    proxy = FakeProxy(**settings)
    proxy.client(get("/first", headers={"Range": "bytes=0-"}))
    proxy.upstream.sends(reply(b"x"))
    assert proxy.proxy.pool.idle == 1
    return proxy


# -- backpressure ---------------------------------------------------------------------------------


def test_a_client_stays_paused_if_the_first_write_fills_the_application() -> None:
    """What is sent at once may block the application at once: the client must not go on then."""
    proxy = idle_proxy(buffer_request_bytes=0)
    blocks_at_the_next_write(proxy.upstream)
    client = proxy.client(UPLOAD)
    assert not client.transport.reading
    proxy.upstream.unblocks()
    assert client.transport.reading


def test_a_client_stays_paused_if_its_waiting_body_fills_the_application() -> None:
    """The same when the body had to wait for the connection."""
    proxy = FakeProxy(buffer_request_bytes=0)
    proxy.auto_accept = False
    client = proxy.client(UPLOAD)
    assert not client.transport.reading
    pool: Any = proxy.proxy.pool
    connection: Any = pool.made()
    peer = FakePeer(FakeTransport(connection))
    connection.connection_made(peer.transport)
    blocks_at_the_next_write(peer)
    proxy.dialled.pop().upstream_ready(connection, proxy.loop.now)
    assert not client.transport.reading
    peer.unblocks()
    assert client.transport.reading


def test_what_was_read_ahead_of_a_tunnel_may_fill_it() -> None:
    """A client whose bytes fill the tunnel at once stays paused."""
    proxy = FakeProxy()
    client = proxy.client(HANDSHAKE)
    client.sends(b"x" * 70_000)
    assert not client.transport.reading
    blocks_at_the_next_write(proxy.upstream)
    proxy.upstream.sends(SWITCHING)
    assert not client.transport.reading
    proxy.upstream.unblocks()
    assert client.transport.reading


def test_a_stored_answer_that_blocks_its_client_stops_no_application() -> None:
    """What the client has still to read of it keeps nobody waiting for the application."""
    proxy = warmed(patience_closed_s=1, patience_max_s=1, upstream_timeout_s=20)
    client = proxy.client(get())
    blocks_at_the_next_write(client)
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
    blocks_at_the_next_write(client)
    error = reply(b"error", status="500 Oops")
    proxy.upstream.sends(error[:-2])
    assert body_of(client.received()) == b"good"
    assert proxy.upstream.transport.reading
    proxy.upstream.sends(error[-2:])
    assert proxy.proxy.pool.idle == 1
    client.unblocks()
    proxy.assert_at_rest()


# -- time limits ----------------------------------------------------------------------------------


def test_a_body_that_stops_after_the_connection_was_dialled_times_out() -> None:
    """A client that was paused and reads again has its time limit again."""
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=3)
    proxy.auto_accept = False
    client = proxy.client(UPLOAD)
    proxy.accept()
    proxy.advance(6)
    assert status_of(client.received()) == 408
    proxy.settle()
    proxy.assert_at_rest()


def test_a_body_that_stops_after_the_application_was_blocked_times_out() -> None:
    """The same after a pause because the application did not read."""
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=3)
    client = proxy.client(UPLOAD)
    proxy.upstream.blocks()
    proxy.advance(6)
    assert client.received() == b"", "it is not the client who is late"
    proxy.upstream.unblocks()
    proxy.advance(6)
    assert status_of(client.received()) == 408
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


def test_an_upload_that_stops_after_an_interim_answer_times_out() -> None:
    """A client that was late with reading has its time limit for writing again, and it alone."""
    proxy = FakeProxy(buffer_request_bytes=0, body_idle_timeout_s=30, upstream_timeout_s=3)
    client = proxy.client(UPLOAD)
    proxy.upstream.sends(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.blocks()
    client.unblocks()
    client.received()
    proxy.advance(25)
    assert client.received() == b""
    proxy.advance(10)
    assert status_of(client.received()) == 408
    proxy.assert_at_rest()


def test_the_last_answer_of_a_connection_is_not_cut_off_for_a_slow_reader() -> None:
    """Lingering begins when the answer has been taken, which may last as long as it goes on."""
    proxy = FakeProxy(write_timeout_s=10)
    client = proxy.client(get(headers={"Connection": "close"}))
    client.transport.unsent = 900_000
    proxy.upstream.sends(reply(b"x" * 900_000))
    for _ in range(3):
        proxy.advance(9)
        assert not client.transport.aborted
        client.transport.unsent -= 1
    proxy.advance(30)
    assert client.transport.aborted, "it has stopped reading"


def test_a_slow_reader_that_has_taken_its_last_answer_does_not_linger_long() -> None:
    """The last octets are given their time, then the connection ends."""
    proxy = FakeProxy(write_timeout_s=10)
    client = proxy.client(get(headers={"Connection": "close"}))
    client.transport.unsent = 900_000
    proxy.upstream.sends(reply(b"x" * 900_000))
    client.blocks()
    client.transport.unsent = 0
    client.unblocks()
    proxy.advance(4)
    assert client.transport.aborted


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


def test_a_held_retry_is_not_timed_out_by_its_first_attempt() -> None:
    """A request that is dialled anew has the time limits of dialling and holding alone."""
    proxy = idle_proxy(upstream_timeout_s=1, connect_hold_s=3)
    client = proxy.client(get("/2"))
    proxy.auto_accept = False
    proxy.upstream.resets()
    proxy.refuse()
    proxy.advance(1.5)
    assert client.received() == b""
    assert proxy.proxy.pool.held == 1


# -- connections and exchanges --------------------------------------------------------------------


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


def test_a_connection_that_the_application_has_ended_is_given_to_nobody() -> None:
    """Not even before its loss is reported: a POST that goes there cannot be sent again."""
    proxy = idle_proxy()
    assert not proxy.upstream.protocol.eof_received()
    client = proxy.client(POST)
    assert len(proxy.upstreams) == 2
    proxy.upstream.sends(reply(b"sold"))
    assert body_of(client.received()) == b"sold"


def test_a_connection_lost_before_it_is_known_is_not_kept() -> None:
    """An idle connection that is closed could never be swept out again."""
    proxy = FakeProxy()
    pool: Any = proxy.proxy.pool

    async def connect_and_lose() -> Any:
        connection = pool.made()
        transport = FakeTransport(connection)
        connection.connection_made(transport)
        transport.lose()
        return connection

    pool._connect = connect_and_lose
    redial = pool._redial_once()  # for an exchange whose client has left in the meantime
    with pytest.raises(StopIteration):
        redial.send(None)
    assert pool.idle == pool.open == 0


def test_nothing_is_dialled_after_closing() -> None:
    """Closing everything does not look like a lost connection that is worth a retry."""
    proxy = idle_proxy()
    proxy.client(get())
    proxy.proxy.close()
    proxy.settle()
    assert proxy.proxy.pool.dials == 1
    assert proxy.proxy.pool.open == 0


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


# -- what the store and the breaker learn ---------------------------------------------------------


def test_no_response_over_the_limit_is_stored_whatever_way_it_comes() -> None:
    """A head that is known well and a body that came with it make no exception."""
    proxy = FakeProxy(store_object_bytes_max=10)
    client = proxy.client()
    for _ in range(4):
        client.sends(get())
        proxy.upstream.sends(reply(b"x" * 11))
    assert proxy.proxy.store.stats()["entries"] == 0
    proxy.assert_at_rest()


def test_clients_that_leave_a_handshake_say_nothing_about_the_application() -> None:
    """A 101 that nobody waits for any more is no fault of the application."""
    proxy = FakeProxy()
    for _ in range(6):
        client = proxy.client(HANDSHAKE)
        client.resets()
        proxy.upstream.sends(SWITCHING)
        assert proxy.upstream.closed
    proxy.assert_at_rest()
    assert proxy.proxy.breaker.snapshot(proxy.loop.now).failures == 0


def test_nothing_is_decoded_for_a_request_that_is_forwarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client without Accept-Encoding costs a healthy application's proxy no milliseconds."""
    decoded: list[bytes] = []
    decode = coding.decoded

    def note(body: bytes, *how: Any) -> bytes | None:
        decoded.append(body)
        return decode(body, *how)

    monkeypatch.setattr(coding, "decoded", note)
    packed = reply(gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
    proxy = FakeProxy()
    client = proxy.client(get(headers={"Accept-Encoding": "gzip"}))
    proxy.upstream.sends(packed)
    client.sends(get())
    proxy.upstream.sends(packed)
    assert decoded == []
    client.received()
    proxy.proxy.breaker.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    assert body_of(client.received()) == b"hello"
    assert len(decoded) == 1
    client.sends(get(headers={"Accept-Encoding": "gzip"}))
    assert body_of(client.received()) == body_of(packed)
    assert len(decoded) == 1


@pytest.mark.parametrize(
    "headers", [{"Content-Encoding": "compress"}, {"Content-Encoding": "gzip, br"},
                {"Content-Encoding": "gzip", "Cache-Control": "no-transform"}]
)  # fmt: skip
def test_what_a_client_cannot_read_is_nothing_to_shed_it_with(headers: dict[str, str]) -> None:
    """Without a stored response that it can read it is forwarded, or waits for its turn."""
    proxy = FakeProxy()
    client = proxy.client(get(headers={"Accept-Encoding": "gzip, br, compress"}))
    proxy.upstream.sends(reply(gzip.compress(b"hello"), headers=headers))
    client.received()
    proxy.proxy.breaker.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    proxy.upstream.sends(reply(b"plain"))
    assert body_of(client.received()) == b"plain"


# -- what the client is told ----------------------------------------------------------------------


def test_a_refused_request_with_a_body_is_told_that_the_connection_ends() -> None:
    """The body is not read, so no next request can follow: the 503 says so."""
    proxy = FakeProxy(buffer_request_bytes=0, max_in_flight=1, queue_wait_s=1.0)
    proxy.client(get("/slow"))
    client = proxy.client(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    proxy.advance(1.2)
    answer = client.received()
    assert status_of(answer) == 503
    assert field(answer, "connection") == "close"
    assert client.closed
