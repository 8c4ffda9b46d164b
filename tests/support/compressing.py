"""What the tests of compression ask for, and how they read it."""

import gzip
import random
import zlib
from typing import Any

from retter.breaker import Mode
from retter.http.chunked import ChunkedDecoder
from tests.support.harness import FakeProxy, body_of, field

HTML = {"Content-Type": "text/html; charset=utf-8"}
GZIP = {"Accept-Encoding": "gzip"}
PAGE = b"<p>A circuit breaker lets an application finish its work.</p>\n" * 40
WORDS = [b"%x" % n for n in range(5000)]

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"


def page_of(size: int, seed: int = 1) -> bytes:
    """Return something that compresses as text does."""
    chosen = random.Random(seed)
    return b" ".join(chosen.choices(WORDS, k=size // 3))[:size]


LARGE = page_of(400_000)


def make(**settings: Any) -> FakeProxy:
    settings.setdefault("compress", "gzip")
    return FakeProxy(**settings)


def unchunked(data: bytes) -> tuple[bytes, bool]:
    """Return what there is of a chunked body, and whether it is complete."""
    decoder = ChunkedDecoder()
    return decoder.feed(data), decoder.complete


def ungzipped(message: bytes) -> bytes:
    """Return the body of an answer that has to be compressed."""
    assert field(message, "Content-Encoding") == "gzip"
    body = body_of(message)
    if field(message, "Transfer-Encoding") == "chunked":
        body, complete = unchunked(body)
        assert complete
        assert field(message, "Content-Length") is None
    else:
        assert field(message, "Content-Length") == str(len(body))
    return gzip.decompress(body)


def so_far(body: bytes) -> bytes:
    """Return what a client can decode of an answer that goes on."""
    coded, complete = unchunked(body)
    assert not complete
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(coded)


def answer_to(proxy: FakeProxy, request: bytes, *pieces: bytes) -> bytes:
    client = proxy.client(request)
    for piece in pieces:
        proxy.upstream.sends(piece)
    while proxy.workers.work():
        pass
    proxy.settle()
    proxy.assert_at_rest()
    return client.received()


def open_circuit(proxy: FakeProxy) -> None:
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return body + b"0\r\n" + trailers + b"\r\n"
