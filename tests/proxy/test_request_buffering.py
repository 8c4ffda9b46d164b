"""Request bodies are kept until they are whole: a slow client holds nothing of the application."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.buffers import CLIENT_SHARE, FREE_SHARE, BufferBudget
from tests.support.harness import FakeProxy, body_of, field, get, reply, split_at, status_of

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"POST /form HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def counted(octets: int, method: str = "POST", lines: str = "") -> bytes:
    head = f"{method} /form HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {octets}\r\n\r\n"
    return head.encode()


def used(proxy: FakeProxy) -> int:
    return proxy.services.buffers.used


# -- what reaches the application, and when -------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "pieces", "body"),
    [
        (counted(9), [b"item", b"=be", b"er"], b"item=beer"),
        (CHUNKED, [b"4\r\nitem\r\n5\r", b"\n=beer\r\n0\r\n", b"X: 1\r\n\r\n"],
         b"9\r\nitem=beer\r\n0\r\nX: 1\r\n\r\n"),
        (CHUNKED, [b"0\r", b"\n", b"\r\n"], b"0\r\n\r\n"),
    ],
)  # fmt: skip
def test_a_body_is_complete_before_the_application_hears_of_it(
    head: bytes, pieces: list[bytes], body: bytes
) -> None:
    proxy = FakeProxy()
    client = proxy.client(head)
    for piece in pieces:
        assert not proxy.upstreams and not proxy.dialled
        assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0, "it holds no place"
        proxy.advance(1)
        client.sends(piece)
    assert body_of(proxy.upstream.received()) == body
    assert proxy.upstream.transport.writes == 1
    assert used(proxy) == 0
    proxy.upstream.sends(reply(b"thanks"))
    assert body_of(client.received()) == b"thanks"
    client.sends(get("/next"))
    assert b"GET /next HTTP/1.1\r\n" in proxy.upstream.received(), "on the same connections"
    proxy.upstream.sends(reply(b"next"))
    proxy.assert_at_rest()


REQUESTS = (
    counted(300) + b"x" * 300,
    CHUNKED + b"12;e=1\r\n" + b"y" * 18 + b"\r\n1\r\nz\r\n0\r\nX: 1\r\n\r\n",
    get("/page"),
)


@given(
    order=st.lists(st.integers(0, 2), min_size=1, max_size=4),
    cuts=st.sets(st.integers(1, 1200), max_size=12),
    memory=st.sampled_from([0, 100, 2000, 16 << 20]),
)
def test_read_boundaries_do_not_change_what_arrives(
    order: list[int], cuts: set[int], memory: int
) -> None:
    """However the client's bytes are cut, and whatever is kept, all arrives, and in order."""
    proxy = FakeProxy(buffer_memory_bytes=memory)
    client = proxy.client()
    sent = b"".join([REQUESTS[n] for n in order])
    for piece in split_at(sent, [c for c in cuts if c < len(sent)]):
        if client.transport.reading:
            client.sends(piece)
        else:
            client.protocol.data_received(piece)  # what the loop had read already
    arrived: list[Any] = []
    while len(arrived) < len(order):
        proxy.loop.next_round()
        message = proxy.upstream.received()
        assert message
        body = body_of(message)
        if b"chunked" in message:
            body = b"".join([line for line in body.split(b"\r\n") if line.strip(b"yz") == b""])
        arrived.append(body)
        proxy.upstream.sends(reply(b"ok"))
    expected = (b"x" * 300, b"y" * 18 + b"z", b"")
    assert arrived == [expected[n] for n in order]
    assert client.received().count(b"200 OK") == len(order)
    proxy.settle()
    proxy.assert_at_rest()


def test_a_body_larger_than_the_buffer_is_passed_on_when_it_is_full() -> None:
    proxy = FakeProxy(buffer_request_bytes=10)
    client = proxy.client(counted(30))
    client.sends(b"a" * 10)
    assert not proxy.upstreams
    assert used(proxy) == 10
    client.sends(b"b")
    assert body_of(proxy.upstream.received()) == b"a" * 10 + b"b"
    assert used(proxy) == 0
    client.sends(b"c" * 18)
    assert proxy.upstream.received() == b"c" * 18
    client.sends(b"d")
    assert proxy.upstream.received() == b"d"
    proxy.upstream.sends(reply(b"done"))
    assert body_of(client.received()) == b"done"
    proxy.assert_at_rest()


def test_a_full_buffer_waits_for_its_connection() -> None:
    proxy = FakeProxy(buffer_request_bytes=10)
    proxy.auto_accept = False
    client = proxy.client(counted(30) + b"a" * 11)
    assert not client.transport.reading, "nothing more fits"
    upstream = proxy.accept()
    assert client.transport.reading
    assert body_of(upstream.received()) == b"a" * 11
    client.sends(b"b" * 19)
    assert upstream.received() == b"b" * 19
    upstream.sends(reply(b"done"))
    proxy.assert_at_rest()


def test_on_stream_paths_nothing_is_kept() -> None:
    proxy = FakeProxy(stream_paths=("/form",))
    client = proxy.client(CHUNKED)
    assert proxy.upstream.received().endswith(b"\r\n\r\n")
    client.sends(b"2\r\nhi\r\n")
    assert proxy.upstream.received() == b"2\r\nhi\r\n"
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n")
    assert client.received().endswith(b"2\r\nyo\r\n"), "they talk at the same time"
    client.sends(b"0\r\n\r\n")
    proxy.upstream.sends(b"0\r\n\r\n")
    proxy.assert_at_rest()


def test_what_looks_like_a_request_inside_a_body_is_none() -> None:
    """The memo of heads knows these bytes; they are a body all the same."""
    proxy = FakeProxy()
    request = get("/known")
    for _ in range(3):
        proxy.client(request)
        proxy.upstream.sends(reply(b"x"))
    asked = proxy.services.counters.requests
    client = proxy.client(counted(2 * len(request)))
    client.sends(request)
    client.sends(request)
    assert proxy.services.counters.requests == asked + 1
    assert body_of(proxy.upstream.received()).count(request) == 2
    proxy.upstream.sends(reply(b"y"))
    proxy.assert_at_rest()


# -- places ---------------------------------------------------------------------------------------


def test_requests_without_their_bodies_take_no_places() -> None:
    """Neither POSTs nor GETs: others go to the application as if they were not there."""
    proxy = FakeProxy(max_in_flight=2, queue_wait_s=0.0)
    for n in range(25):
        proxy.client(b"GET /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n" % n)
        proxy.client(counted(100) + b"x")
    assert not proxy.upstreams
    for n in range(5):
        client = proxy.client(get(f"/{n}"))
        proxy.upstream.sends(reply(b"page"))
        assert body_of(client.received()) == b"page"


def test_it_is_decided_when_the_body_has_come() -> None:
    """A request that began when there were places waits its turn if there are none now."""
    proxy = FakeProxy(max_in_flight=1, queue_wait_s=1.0)
    client = proxy.client(counted(4, "GET") + b"ab")
    proxy.client(get("/slow"))
    client.sends(b"cd")
    proxy.advance(1.1)
    answer = client.received()
    assert status_of(answer) == 503
    assert field(answer, "connection") is None, "its body has been read: it may ask again"
    assert not client.closed
    proxy.upstream.sends(reply(b"slow"))
    client.sends(get("/again"))
    proxy.upstream.sends(reply(b"again"))
    assert body_of(client.received()) == b"again"
    proxy.assert_at_rest()


@pytest.mark.parametrize(
    ("request_head", "status", "settings"),
    [
        (counted(100), 413, {"request_body_bytes_max": 99}),
        (counted(100, "TRACE"), 405, {}),
        (counted(100, lines="Expect: miracles\r\n"), 417, {}),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, {}),
    ],
)
def test_what_is_refused_whatever_the_body_is_refused_at_once(
    request_head: bytes, status: int, settings: dict[str, Any]
) -> None:
    proxy = FakeProxy(**settings)
    client = proxy.client(request_head)
    assert status_of(client.received()) == status
    assert client.closed


# -- clients that stop ----------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [True, False])
def test_of_a_client_that_leaves_nothing_reaches_the_application(
    tmp_path: Path, ends: bool
) -> None:
    log = tmp_path / "access.log"
    proxy = FakeProxy(access_log=str(log))
    client = proxy.client(counted(9) + b"item")
    proxy.loop.now += 0.5
    if ends:
        client.ends()
    else:
        client.resets()
    assert not proxy.upstreams
    assert proxy.services.counters.clients_gone == 1
    proxy.advance(0.05)
    (line,) = log.read_text().splitlines()
    record = json.loads(line)
    assert (record["status"], record["reason"], record["took_ms"]) == (0, "client-gone", 500.0)
    proxy.assert_at_rest()


def test_a_body_that_stops_times_out_and_nothing_reaches_the_application(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    proxy = FakeProxy(access_log=str(log), body_idle_timeout_s=3)
    client = proxy.client(counted(9) + b"item")
    proxy.advance(2)
    client.sends(b"=")
    proxy.advance(2)
    assert client.received() == b""
    proxy.advance(2)
    answer = client.received()
    assert status_of(answer) == 408
    assert field(answer, "connection") == "close"
    assert client.closed
    assert not proxy.upstreams
    assert proxy.proxy.stats()["client_errors"] == {"client-timeout": 1}
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["status"] == 408
    proxy.settle()
    proxy.assert_at_rest()


@pytest.mark.parametrize("kept_b", [0, 16 << 20])
def test_a_body_that_drips_is_cut_off_by_its_rate(kept_b: int) -> None:
    proxy = FakeProxy(body_idle_timeout_s=10, body_min_rate_bytes=100, buffer_memory_bytes=kept_b)
    client = proxy.client(counted(100_000) + b"x" * 500)
    for _ in range(12):
        proxy.advance(1)
        client.sends(b"x")
    assert status_of(client.received()) == 408


def test_a_malformed_body_never_reaches_the_application() -> None:
    proxy = FakeProxy()
    client = proxy.client(CHUNKED + b"2\r\nhi\r\n")
    client.sends(b"nonsense\r\n")
    assert status_of(client.received()) == 400
    assert not proxy.upstreams
    proxy.settle()
    proxy.assert_at_rest()


def test_a_chunked_body_over_the_limit_never_reaches_the_application() -> None:
    proxy = FakeProxy(request_body_bytes_max=5)
    client = proxy.client(CHUNKED + b"4\r\nfour\r\n")
    client.sends(b"2\r\nhi\r\n")
    assert status_of(client.received()) == 413
    assert not proxy.upstreams
    proxy.settle()
    proxy.assert_at_rest()


def test_a_drain_waits_for_a_body_and_a_shutdown_forgets_it() -> None:
    proxy = FakeProxy()
    client = proxy.client(counted(9) + b"item")
    proxy.advance(2)
    proxy.proxy.drain(proxy.loop.now)
    client.sends(b"=beer")
    proxy.upstream.sends(reply(b"sold"))
    assert body_of(client.received()) == b"sold"
    proxy.settle()
    other = proxy.client(counted(9) + b"item")
    proxy.proxy.close()
    proxy.settle()
    assert other.closed
    proxy.assert_at_rest()


# -- Expect: 100-continue (RFC 9110 section 10.1.1) ------------------------------------------------


EXPECTS = "eXpect: 100-Continue\r\n"


@pytest.mark.parametrize(
    "head", [counted(3, lines=EXPECTS), CHUNKED[:-2] + EXPECTS.encode() + b"\r\n"]
)
def test_an_expectation_is_met_here_if_the_body_is_kept(head: bytes) -> None:
    proxy = FakeProxy()
    client = proxy.client(head)
    assert client.received() == CONTINUE
    client.sends(b"abc" if b"Length" in head else b"3\r\nabc\r\n0\r\n\r\n")
    asked = proxy.upstream.received()
    assert b"xpect" not in asked, "the application would meet it a second time"
    assert asked.startswith(b"POST /form HTTP/1.1\r\nHost: a\r\n")
    proxy.upstream.sends(reply(b"done"))
    answer = client.received()
    assert status_of(answer) == 200 and b"Continue" not in answer
    proxy.assert_at_rest()


def test_an_expectation_whose_body_has_come_needs_no_answer() -> None:
    proxy = FakeProxy()
    client = proxy.client(counted(3, lines=EXPECTS) + b"abc")
    assert client.received() == b""
    assert b"\r\neXpect: 100-Continue\r\n" in proxy.upstream.received(), "passed on as it came"


def test_an_expectation_of_a_large_body_is_the_applications_to_meet() -> None:
    """It may want to refuse the upload before it is sent."""
    proxy = FakeProxy(buffer_request_bytes=10)
    client = proxy.client(counted(11, lines=EXPECTS))
    assert client.received() == b""
    assert b"\r\neXpect: 100-Continue\r\n" in proxy.upstream.received()
    proxy.upstream.sends(reply(b"log in", status="401 Unauthorized"))
    assert status_of(client.received()) == 401


def test_http_10_expects_nothing() -> None:
    proxy = FakeProxy()
    client = proxy.client(counted(3, lines=EXPECTS).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert client.received() == b""
    client.sends(b"abc")
    assert body_of(proxy.upstream.received()) == b"abc"


# -- the budget -----------------------------------------------------------------------------------


def test_a_body_may_hold_a_share_of_what_is_free() -> None:
    budget = BufferBudget(1000)
    assert budget.take(0, 250, 9999)
    assert not budget.take(250, 1, 9999), "that body has a third of what is left"
    assert budget.take(0, 187, 9999)
    assert not budget.take(0, 30, 29), "more than one may have"
    assert budget.used == 437
    budget.give_back(437)
    assert not BufferBudget(0).take(0, 1, 9999)
    with pytest.raises(AssertionError):
        budget.give_back(1)


@given(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 3)), max_size=40), st.integers(0, 1000)
)
def test_the_budget_is_never_exceeded(asked: list[tuple[int, int]], octets: int) -> None:
    budget = BufferBudget(octets)
    held: list[tuple[int, int]] = []
    for more, client in asked:
        if budget.take(0, more, 100, client):
            held.append((more, client))
            assert more <= 100
        assert budget.used == sum(taken for taken, _ in held) <= octets
        for one in (1, 2, 3):
            theirs = sum(taken for taken, client in held if client == one)
            assert theirs <= octets // CLIENT_SHARE
    for taken, client in held:
        budget.give_back(taken, client)
    assert budget.used == 0
    assert not budget._by_client, "nothing is kept of who holds nothing"


def test_one_client_may_hold_half_whatever_it_opens() -> None:
    budget = BufferBudget(1000)
    while budget.take(0, 10, 9999, 7):
        pass
    assert budget.used == 500
    assert budget.take(0, 100, 9999, 8)
    assert budget.take(0, 10, 9999), "nobody knows whose it is"
    budget.give_back(10, 7)
    assert budget.take(0, 10, 9999, 7)


@pytest.mark.parametrize("attack", ["bodies", "answers"])
def test_one_address_leaves_memory_to_the_others(attack: str) -> None:
    proxy = FakeProxy(
        buffer_memory_bytes=100_000,
        write_buffer_bytes_max=4096,
        trusted_proxies=("10.0.0.1",),
        circuit="observe",
    )
    balancer, slow = ("10.0.0.1", 1), "X-Forwarded-For: 192.0.2.66\r\n"
    for number in range(60):
        if attack == "answers":
            client = proxy.client(get(f"/{number}"), peername=("192.0.2.66", number))
            client.blocks()
            proxy.upstream.sends(reply(b"x" * 8000)[:-1])
            client.transport.unsent = 8000
            client.protocol.resume_writing()
            client.protocol.pause_writing()
        elif number % 2:
            proxy.client(counted(9000, lines=slow) + b"a" * 4000, peername=balancer)
        else:
            proxy.client(counted(9000) + b"a" * 4000, peername=("192.0.2.66", number))
    assert 40_000 < used(proxy) <= 50_000
    before = len(proxy.upstreams)
    proxy.client(counted(9000) + b"b" * 8999, peername=("192.0.2.1", 1))
    proxy.client(
        counted(900, lines="X-Forwarded-For: 192.0.2.2\r\n") + b"b" * 899, peername=balancer
    )
    assert len(proxy.upstreams) == before, "both bodies are kept until they are whole"
    for client in [*proxy.clients]:
        client.resets()
    for upstream in [*proxy.upstreams]:
        upstream.resets()
    proxy.settle()
    proxy.assert_at_rest()


def test_who_asks_for_more_than_there_is_is_passed_on() -> None:
    proxy = FakeProxy(buffer_memory_bytes=100 * FREE_SHARE)
    large = proxy.client(counted(1000) + b"a" * 80)
    small = proxy.client(counted(50) + b"b")
    assert not proxy.upstreams
    large.sends(b"a" * 40)
    assert body_of(proxy.upstream.received()) == b"a" * 120
    assert used(proxy) == 1, "the small one still waits for its body"
    assert proxy.services.buffers.refused == 1
    small.sends(b"b" * 49)
    assert body_of(proxy.upstreams[1].received()) == b"b" * 50
    large.resets()
    proxy.upstreams[1].sends(reply(b"ok"))
    proxy.settle()
    proxy.assert_at_rest()


# -- sent again -----------------------------------------------------------------------------------


def reused(**settings: Any) -> FakeProxy:
    """A proxy with an idle connection to the application that has served before."""
    proxy = FakeProxy(**settings)
    proxy.client(get("/first", headers={"Range": "bytes=0-"}))
    proxy.upstream.sends(reply(b"x"))
    proxy.upstream.received()
    return proxy


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_idempotent_request_is_sent_again_with_its_body(method: str, chunked: bool) -> None:
    """The application closed the connection that was idle just when it was used."""
    proxy = reused()
    head = CHUNKED.replace(b"POST", method.encode()) if chunked else counted(9, method)
    client = proxy.client(head)
    client.sends(b"9\r\nitem=beer\r\n0\r\n\r\n" if chunked else b"item=beer")
    assert used(proxy) == 9
    first = proxy.upstream.received()
    proxy.upstream.resets()
    assert len(proxy.upstreams) == 2
    assert proxy.upstream.received() == first
    assert used(proxy) == 0
    proxy.upstream.sends(reply(b"stored"))
    assert body_of(client.received()) == b"stored"
    assert proxy.services.counters.retries == 1
    proxy.assert_at_rest()


def test_only_once() -> None:
    proxy = reused()
    client = proxy.client(counted(9, "PUT") + b"item=beer")
    proxy.upstream.resets()
    proxy.upstream.resets()
    assert status_of(client.received()) == 502
    proxy.assert_at_rest()


def test_a_post_that_may_have_arrived_is_not_sent_again() -> None:
    proxy = reused()
    client = proxy.client(counted(9) + b"item=beer")
    proxy.upstream.resets()
    assert status_of(client.received()) == 502
    proxy.assert_at_rest()


def test_a_post_of_which_nothing_was_sent_is_sent_again() -> None:
    """The connection is found lost by the write itself."""
    proxy = reused()
    transport = proxy.upstream.transport
    transport.write = lambda data: transport.abort()  # type: ignore[method-assign]
    client = proxy.client(counted(9) + b"item=beer")
    proxy.settle()
    assert body_of(proxy.upstream.received()) == b"item=beer"
    proxy.upstream.sends(reply(b"sold"))
    assert body_of(client.received()) == b"sold"
    proxy.assert_at_rest()


def test_a_body_that_was_passed_on_is_not_at_hand() -> None:
    proxy = reused(buffer_request_bytes=4)
    client = proxy.client(counted(9, "PUT") + b"item=")
    proxy.upstream.resets()
    assert status_of(client.received()) == 502
    proxy.settle()
    proxy.assert_at_rest()


def test_what_is_kept_to_be_sent_again_goes_with_the_first_byte_of_the_answer() -> None:
    proxy = reused()
    client = proxy.client(counted(9, "PUT") + b"item=beer")
    assert used(proxy) == 9
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
    assert used(proxy) == 0
    client.resets()
    proxy.upstream.sends(b"abc")
    proxy.assert_at_rest()


def test_a_body_in_tiny_pieces_takes_no_more_memory_than_counted() -> None:
    body = b"".join(b"%04d" % number for number in range(5000))
    proxy = FakeProxy()
    client = proxy.client(counted(len(body) + 4))
    protocol = client.transport.protocol
    tracemalloc.start()
    for at in range(0, len(body), 2):
        protocol.data_received(body[at : at + 2])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used(proxy) == len(body)
    assert held < 3 * len(body)
    client.sends(b"last")
    assert body_of(proxy.upstream.received()) == body + b"last"
    assert used(proxy) == 0
