"""The corpus carried out: what the application saw, what the client got, and that life goes on."""

from typing import Any

import pytest

from tests.corpus import fidelity
from tests.corpus.misbehaviours import CUT, MISBEHAVIOURS, Misbehaviour, Then
from tests.corpus.reading import (
    OUR_ANSWER_FIELDS,
    OURS,
    body_at_client,
    rejoined,
    sorted_last,
    unchunked,
    without_informational,
)
from tests.corpus.requests import CUT_OFF, REFUSED, TAKEN, CutOff, Refused, Taken
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of
from tests.support.memos import set_memos


def make_proxy(memo: bool, **settings: Any) -> FakeProxy:
    proxy = FakeProxy(**settings)
    set_memos(proxy.proxy, "eager" if memo else "off")
    return proxy


def pieces(data: bytes, cut: str) -> list[bytes]:
    """The bytes whole, or one by one where that makes a difference and is quick."""
    if cut == "whole":
        return [data]
    if len(data) > 3000:
        return [data[i : i + 997] for i in range(0, len(data), 997)]
    return [data[i : i + 1] for i in range(len(data))]


def assert_next_request_works(proxy: FakeProxy, client: FakePeer | None = None) -> None:
    """A new connection is served by the application, and afterwards nothing is left over."""
    client = client or proxy.client()
    client.received()
    client.sends(get("/next"))
    assert b"GET /next HTTP/1.1\r\n" in proxy.upstream.received()
    proxy.upstream.sends(reply(b"next"))
    answer = client.received()
    assert (status_of(answer), body_of(answer)) == (200, b"next")
    proxy.settle()
    proxy.assert_at_rest()
    proxy.advance(3.2)
    assert all(peer.transport.closing for peer in proxy.clients if peer.transport.eof_written)


def named(rows: list[Refused] | list[CutOff] | list[Taken]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def test_the_corpus_is_large_and_every_row_has_a_name_of_its_own() -> None:
    rows: tuple[Refused | CutOff | Taken, ...] = (*REFUSED, *CUT_OFF, *TAKEN)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert len(REFUSED) + len(CUT_OFF) >= 250
    names = [row.name for row in MISBEHAVIOURS]
    assert len(set(names)) == len(names)
    assert len(names) >= 120


def client_that_sends(proxy: FakeProxy, data: bytes, cut: str) -> FakePeer:
    client = proxy.client()
    for piece in pieces(data, cut):
        client.sends(piece)
    return client


@named(REFUSED)
def test_refused(row: Refused) -> None:
    for cut in ("whole", "cut"):
        for memo in (True, False):
            proxy = make_proxy(memo)
            client = client_that_sends(proxy, row.sends, cut)
            answer = client.received()
            assert status_of(answer) == row.status, answer
            assert field(answer, "connection") == "close"
            assert len(body_of(answer)) == int(field(answer, "content-length") or 0), "one answer"
            assert client.closed
            assert not proxy.upstreams, "nothing reached the application"
            client.sends(get())
            assert client.received() == b"", "and nothing more is read"
            assert not proxy.upstreams
    assert_next_request_works(proxy)


@named(CUT_OFF)
def test_cut_off(row: CutOff) -> None:
    """No faulty part of a body that is streamed reaches the application."""
    for cut in ("whole", "cut"):
        proxy = make_proxy(cut == "whole", buffer_memory_bytes=0)
        client = client_that_sends(proxy, row.sends, cut)
        if row.ends:
            client.ends()
        answer = client.received()
        if row.status is None:
            assert answer == b""
        else:
            assert status_of(answer) == row.status
            assert field(answer, "connection") == "close"
        assert client.closed
        reached = proxy.upstream.received()
        assert reached.startswith(b"POST / HTTP/1.1\r\n")
        chunked = b"\r\nTransfer-Encoding: chunked\r\n" in reached
        body = b"".join(unchunked(body_of(reached))) if chunked else body_of(reached)
        assert row.good.startswith(body)
        assert proxy.upstream.transport.aborted, "it never saw the end"
        assert len(proxy.upstreams) == 1
    assert_next_request_works(proxy)


@named(CUT_OFF)
def test_cut_off_while_it_is_buffered(row: CutOff) -> None:
    """A body that never comes to its end never reaches the application."""
    for cut in ("whole", "cut"):
        proxy = make_proxy(cut == "whole")
        client = client_that_sends(proxy, row.sends, cut)
        if row.ends:
            client.ends()
        answer = client.received()
        assert answer == b"" if row.status is None else status_of(answer) == row.status
        assert client.closed
        assert not proxy.upstreams
    assert_next_request_works(proxy)


@named(TAKEN)
def test_taken(row: Taken) -> None:
    for cut in ("whole", "cut"):
        for memo in (True, False):
            proxy = make_proxy(memo)
            client = client_that_sends(proxy, row.sends, cut)
            received = b""
            for expected in row.reached:
                reached = OURS.sub(b"", proxy.upstream.received())
                assert rejoined(reached) == expected
                proxy.upstream.sends(reply(b"ok"))
                received += client.received()
            assert proxy.upstream.received() == b"", "not a byte more"
            assert len(proxy.upstreams) == 1, "one after the other, on one connection"
            answers = row.answers or len(row.reached)
            assert received.count(b"HTTP/1.1 ") == answers
            assert received.count(b"HTTP/1.1 200 OK\r\n") == len(row.reached)
            assert client.closed is row.closed
    assert_next_request_works(proxy)


# -- the application's side -----------------------------------------------------------------------

# The answer has to begin after 3 s at the latest, and may be silent for 2 s.
LIMITS_S = {"upstream_timeout_s": 3.0, "upstream_body_timeout_s": 2.0, "connect_hold_s": 0.0}


@pytest.mark.parametrize("row", MISBEHAVIOURS, ids=[row.name for row in MISBEHAVIOURS])
def test_misbehaviour(row: Misbehaviour) -> None:
    for memo in (True, False):
        proxy = make_proxy(memo, buffer_memory_bytes=0, **LIMITS_S)
        client = proxy.client(row.request)
        upstream = proxy.upstream
        request = upstream.received()
        assert request.startswith(row.request.partition(b"\r\n")[0])
        for piece in row.sends:
            upstream.sends(piece)
            if row.pause_s:
                proxy.advance(row.pause_s)
        _end(proxy, upstream, row.then)
        informational, answer = without_informational(client.received())
        assert informational == row.informational
        if row.outcome == CUT:
            assert client.transport.aborted, "a cut answer looks like one"
            assert status_of(answer) == 200
        else:
            assert status_of(answer) == row.outcome
            assert not client.transport.aborted
            assert client.closed is row.client_closed
            assert (field(answer, "connection") == "close") is row.client_closed
        if row.outcome < 500:
            assert body_at_client(answer) == row.body
        proxy.settle()
        proxy.assert_at_rest()
        if row.late:
            upstream.sends(row.late)
        assert upstream.closed is not row.reused
        assert_next_request_works(proxy, None if client.closed else client)
        assert (len(proxy.upstreams) == 1) is row.reused
        assert proxy.services.counters.retries == 0


def _end(proxy: FakeProxy, upstream: FakePeer, then: Then) -> None:
    if then is Then.CLOSE:
        upstream.ends()
    elif then is Then.RESET:
        upstream.resets()
    elif then is Then.SILENCE:
        proxy.advance(3.2)
    proxy.settle()


# -- what passes unchanged ------------------------------------------------------------------------


@pytest.mark.parametrize("row", fidelity.REQUESTS, ids=[row.name for row in fidelity.REQUESTS])
def test_a_request_passes_unchanged(row: fidelity.Request) -> None:
    sends = row.line + b"\r\nHost: a\r\n" + row.lines + b"\r\n" + row.body
    gets = row.lines if row.gets is None else row.gets
    for cut in ("whole", "cut"):
        # An expectation is met by RETTER, and not passed on, if the body comes later than the head.
        memory = 0 if b"Expect" in row.lines else 16 << 20
        proxy = make_proxy(cut == "whole", buffer_memory_bytes=memory)
        client = proxy.client()
        for piece in pieces(sends, cut):
            client.sends(piece)
        reached = rejoined(OURS.sub(b"", proxy.upstream.received()))
        line, _, rest = reached.partition(b"\r\n")
        assert line == (row.line_gets or row.line)
        head, _, body = rest.partition(b"\r\n\r\n")
        # What frames the body and the connection is written anew, behind the other fields.
        anew = (b"Transfer-Encoding: ", b"TE: ", b"Connection: ")
        assert sorted_last(head + b"\r\n", anew) == sorted_last(b"Host: a\r\n" + gets, anew)
        assert body == row.body
        proxy.upstream.sends(reply(b"" if row.line.startswith(b"HEAD") else b"ok"))
        assert status_of(client.received()) == 200
    assert_next_request_works(proxy)


@pytest.mark.parametrize("row", fidelity.ANSWERS, ids=[row.name for row in fidelity.ANSWERS])
def test_an_answer_passes_unchanged(row: fidelity.Answer) -> None:
    for memo in (True, False):
        proxy = make_proxy(memo)
        client = proxy.client(row.request)
        proxy.upstream.sends(row.sends)
        if row.ends:
            proxy.upstream.ends()
        answer = OUR_ANSWER_FIELDS.sub(b"", client.received())
        expected = row.sends if row.gets is None else row.gets
        if b"Transfer-Encoding: chunked" in expected:
            head, _, body = answer.partition(b"\r\n\r\n")
            joined = rejoined(head + b"\r\n\r\n" + body)
            assert joined == expected
        else:
            assert answer == expected
        assert client.closed is row.closed
        assert proxy.upstream.closed is row.ends
    assert_next_request_works(proxy, None if row.closed else client)


def test_a_client_that_closes_its_sending_side_gets_all_its_answers() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1") + get("/2") + get("/3")[:-1])
    client.ends()
    for body in (b"one", b"two"):
        assert not client.closed
        proxy.upstream.sends(reply(body))
    received = client.received()
    assert received.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert client.closed, "the third never came to its end"
    assert_next_request_works(proxy)


def test_the_last_answer_to_a_half_closed_client_says_close() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1") + get("/2"))
    client.ends()
    proxy.upstream.sends(reply(b"one"))
    assert field(client.received(), "connection") is None
    proxy.upstream.sends(reply(b"two"))
    assert field(client.received(), "connection") == "close"
    assert client.closed
    assert_next_request_works(proxy)


def test_a_half_closed_client_whose_pipelined_body_is_incomplete_is_closed() -> None:
    proxy = FakeProxy()
    client = proxy.client(get("/1") + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
    client.ends()
    proxy.upstream.sends(reply(b"one"))
    assert client.closed
    proxy.settle()
    proxy.assert_at_rest()
