"""Request bodies that are passed on as they come: backpressure, time limits, what ends them."""

import json
from pathlib import Path
from typing import Any

import pytest

from retter.base.counters import cells
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    FakeTransport,
    field,
    get,
    proxy_with_idle_connection,
    status_of,
)

UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\nabc"


def test_a_client_stays_paused_if_the_first_write_fills_the_application() -> None:
    """The first write may block the application at once: then the client must stay paused."""
    proxy = proxy_with_idle_connection(buffer_request_bytes=0)
    proxy.upstream.blocks_at_next_write()
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
    pool: Any = proxy.services.pool
    connection: Any = pool.made()
    peer = FakePeer(FakeTransport(connection))
    connection.connection_made(peer.transport)
    peer.blocks_at_next_write()
    proxy.dialled.pop().upstream_ready(connection, proxy.loop.now)
    assert not client.transport.reading
    peer.unblocks()
    assert client.transport.reading


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


CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (CHUNKED + b"zz\r\n", 400),
        (CHUNKED + b"3\r\nabc\r\n", 413),
        (CHUNKED + b"1\r\n", 408),
        (b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 413),
    ],
)
def test_a_request_whose_body_is_wrong_is_one_request(
    tmp_path: Path, sent: bytes, status: int
) -> None:
    """It had two lines in the log, was told as one who left, and as one that was never read."""
    log = tmp_path / "log"
    proxy = FakeProxy(access_log=str(log), request_body_bytes_max=2, body_idle_timeout_s=1)
    client = proxy.client(sent)
    proxy.advance(5)
    assert status_of(client.received()) == status
    counters = proxy.services.counters
    assert (counters.requests, counters.clients_gone, sum(counters.own_unread)) == (1, 0, 0)
    assert [n for *_, n in cells(counters.own_other)] == [1]
    proxy.proxy.close()
    (line,) = log.read_text().splitlines()
    told = json.loads(line)
    assert (told["method"], told["target"], told["status"]) == ("POST", "/up", status)
    assert told["source"] == "retter"
