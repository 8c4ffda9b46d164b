"""The corpus carried out: what the application saw, what the client got, and that life goes on."""

import re

import pytest

from retter.heads import HeadMemo
from tests.corpus.requests import CUT_OFF, REFUSED, TAKEN, CutOff, Refused, Taken
from tests.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of

OURS = re.compile(rb"(?:X-Forwarded-(?:For|Host|Proto)|X-Real-IP): [^\r\n]*\r\n|Via: 1.1 retter [^\r\n]*\r\n")


def make_proxy(memo: bool, **settings: object) -> FakeProxy:
    proxy = FakeProxy(**settings)
    if not memo:
        for trusted in proxy.proxy._memos:
            proxy.proxy._memos[trusted] = HeadMemo(0)
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
    names = [row.name for row in (*REFUSED, *CUT_OFF, *TAKEN)]
    assert len(set(names)) == len(names)
    assert len(REFUSED) + len(CUT_OFF) >= 250


@named(REFUSED)
def test_refused(row: Refused) -> None:
    for cut in ("whole", "cut"):
        for memo in (True, False):
            proxy = make_proxy(memo)
            client = proxy.client()
            for piece in pieces(row.sends, cut):
                client.sends(piece)
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
    for cut in ("whole", "cut"):
        proxy = make_proxy(cut == "whole")
        client = proxy.client()
        for piece in pieces(row.sends, cut):
            client.sends(piece)
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


def unchunked(data: bytes) -> list[bytes]:
    """Chunks of a body that has not come to its end."""
    chunks: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        assert int(size, 16) > 0, "the last chunk must not be there"
        chunks.append(data[: int(size, 16)])
        data = data[int(size, 16) + 2 :]
    return chunks


@named(TAKEN)
def test_taken(row: Taken) -> None:
    for cut in ("whole", "cut"):
        for memo in (True, False):
            proxy = make_proxy(memo)
            client = proxy.client()
            for piece in pieces(row.sends, cut):
                client.sends(piece)
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


def rejoined(request: bytes) -> bytes:
    """The request with its chunks joined: how we cut a body is nobody's business."""
    head, _, body = request.partition(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked" not in head:
        return request
    data, rest = b"", body
    while not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        data += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return head + b"\r\n\r\n" + chunk + rest
