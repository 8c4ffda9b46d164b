"""Messages that must pass unchanged in both directions: octets, order, letters, repetitions.

A `Request` says which lines and body the application gets for what a client sends; an `Answer` what
a client gets for what the application sends. Our own fields are left out of both.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

EVERY_METHOD = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"PROPFIND", b"PROPPATCH",
    b"MKCOL", b"COPY", b"MOVE", b"LOCK", b"UNLOCK", b"REPORT", b"SEARCH", b"PURGE", b"LINK",
    b"QUERY", b"x",
]  # fmt: skip


@dataclass(frozen=True)
class Request:
    name: str
    line: bytes
    lines: bytes = b""
    body: bytes = b""
    gets: bytes | None = None  # fields that the application gets; None: as sent
    line_gets: bytes | None = None
    peer: str = "192.0.2.7"


@dataclass(frozen=True)
class Answer:
    name: str
    sends: bytes
    gets: bytes | None = None  # None: as sent
    request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    ends: bool = False  # the application closes after it
    closed: bool = False  # and so do we, to the client


def _requests() -> Iterator[Request]:
    for method in EVERY_METHOD:
        yield Request(f"method {method.decode()}", method + b" / HTTP/1.1")
        yield Request(
            f"method {method.decode()} with a body",
            method + b" /x HTTP/1.1",
            b"Content-Length: 3\r\n",
            b"\x00\r\n",
        )
    for target in (
        b"/?", b"/?a&&b=&=c", b"/%41%2F%2f%00%zz", b"/a//b/./../c", b"/;p=1/x;q", b"/~u/!$&'()*+,;=:@",
        b"/" + b"u" * 8191, b"/?" + b"q=%20&" * 1300, b"/a?b?c", b"/[]{}|\\^`\"<>",
    ):  # fmt: skip
        yield Request(
            f"target {target[:30].decode()!r} of {len(target)}", b"GET " + target + b" HTTP/1.1"
        )
    yield Request(
        "the order and letters of fields",
        b"GET / HTTP/1.1",
        b"zZ: 1\r\nAa: 2\r\nZz: 3\r\nAA: 4\r\n",
    )
    yield Request(
        "repeated fields", b"GET / HTTP/1.1", b"Accept: a\r\nX: 1\r\nAccept: b\r\nX: 1\r\n"
    )
    yield Request(
        "cookies in several lines", b"GET / HTTP/1.1", b"Cookie: a=1; b=2\r\nCookie: c=3\r\n"
    )
    yield Request(
        "32 KiB of cookies", b"GET / HTTP/1.1", b"Cookie: " + b"c=" + b"x" * 32_766 + b"\r\n"
    )
    yield Request(
        "many cookies",
        b"GET / HTTP/1.1",
        b"Cookie: " + b"; ".join([b"c%d=v" % n for n in range(900)]) + b"\r\n",
    )
    yield Request(
        "octets 0x80 to 0xff in a value",
        b"GET / HTTP/1.1",
        b"X: " + bytes(range(128, 256)) + b"\r\n",
    )
    yield Request(
        "every visible octet in a value",
        b"GET / HTTP/1.1",
        b"X: " + bytes(range(33, 127)) + b"\r\n",
    )
    yield Request("tabs and spaces inside a value", b"GET / HTTP/1.1", b"X: a \t  b\r\n")
    yield Request(
        "white space around a value",
        b"GET / HTTP/1.1",
        b"X:\t y \t\r\nZ:w\r\n",
        gets=b"X: y\r\nZ: w\r\n",
    )
    yield Request("an empty value", b"GET / HTTP/1.1", b"X: \r\n")
    yield Request("every octet of a name", b"GET / HTTP/1.1", b"!#$%&'*+-.^_`|~09azAZ: x\r\n")
    yield Request(
        "conditions and ranges",
        b"GET / HTTP/1.1",
        b'If-None-Match: "a", W/"b"\r\nRange: bytes=0-1,5-\r\nIf-Range: "a"\r\n',
    )
    yield Request(
        "credentials", b"GET / HTTP/1.1", b"Authorization: Basic eA==\r\nProxy-Authorization: x\r\n"
    )
    yield Request(
        "no-cache is the client's to ask",
        b"GET / HTTP/1.1",
        b"Cache-Control: no-cache\r\nPragma: no-cache\r\n",
    )
    yield Request(
        "an Accept-Encoding",
        b"GET / HTTP/1.1",
        b"Accept-Encoding: deflate,GZip;Q=0.500 , identity;q=0\r\n",
    )
    yield Request(
        "an Accept-Encoding, without what cannot be decoded",
        b"GET / HTTP/1.1",
        b"Accept-Encoding: gzip;q=0, compress, *;q=0.1\r\n",
        gets=b"Accept-Encoding: gzip;q=0\r\n",
    )
    yield Request(
        "an expectation", b"PUT / HTTP/1.1", b"Expect: 100-continue\r\nContent-Length: 1\r\n", b"x"
    )
    yield Request("the Via of others", b"GET / HTTP/1.1", b"Via: 1.0 fred, 1.1 retter (other)\r\n")
    yield Request(
        "a body of every octet", b"POST / HTTP/1.1", b"Content-Length: 256\r\n", bytes(range(256))
    )
    yield Request(
        "a body that looks like a head",
        b"POST / HTTP/1.1",
        b"Content-Length: 25\r\n",
        b"GET /x HTTP/1.1\r\nHost:\r\n\r",
    )
    chunked = b"Transfer-Encoding: chunked\r\n"
    yield Request("chunks", b"POST / HTTP/1.1", chunked, b"3\r\nabc\r\n0\r\n\r\n")
    yield Request("no chunks", b"POST / HTTP/1.1", chunked, b"0\r\n\r\n")
    yield Request(
        "trailers",
        b"POST / HTTP/1.1",
        b"Trailer: X-Sum\r\n" + chunked,
        b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nx-SUM: \xff\r\n\r\n",
    )
    yield Request(
        "a client that takes trailers", b"GET / HTTP/1.1", b"TE: trailers\r\nConnection: TE\r\n"
    )
    yield Request("HTTP/1.0", b"GET / HTTP/1.0", b"X: y\r\n", line_gets=b"GET / HTTP/1.1")
    yield Request(
        "a body in HTTP/1.0",
        b"POST / HTTP/1.0",
        b"Content-Length: 1\r\n",
        b"x",
        line_gets=b"POST / HTTP/1.1",
    )
    yield Request(
        "what Connection names ends here",
        b"GET / HTTP/1.1",
        b"X: 1\r\nConnection: x, y\r\nY: 2\r\nZ: 3\r\n",
        gets=b"Z: 3\r\n",
    )
    yield Request(
        "what is protected does not",
        b"GET / HTTP/1.1",
        b"Cookie: a=b\r\nConnection: cookie, authorization, content-type\r\nContent-Type: x\r\n",
        gets=b"Cookie: a=b\r\nContent-Type: x\r\n",
    )
    yield Request(
        "hop-by-hop fields end here",
        b"GET / HTTP/1.1",
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nConnection: keep-alive\r\n",
        gets=b"",
    )


def _length(lines: bytes, body: bytes = b"hello", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
OLD_KEPT = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


# Where there is none, RETTER writes one (tests/proxy/test_undated.py).
_STATUS_LINE = re.compile(rb"(HTTP/1\.[01] [2-5][0-9][0-9][^\r]*\r\n)")


def _dated(row: Answer) -> Answer:
    if b"Date: " in row.sends:
        return row
    by = rb"\1Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
    gets = None if row.gets is None else _STATUS_LINE.sub(by, row.gets)
    return replace(row, sends=_STATUS_LINE.sub(by, row.sends), gets=gets)


def _answers() -> Iterator[Answer]:
    for status in (b"200 OK", b"201 Created", b"202 Go on", b"203 N", b"206 Partial", b"301 Moved", b"302 Found",
                   b"307 T", b"400 Bad", b"401 Who", b"404 Not here", b"410 Gone", b"418 I'm a teapot",
                   b"429 Slow", b"500 Oops", b"501 N", b"502 B", b"503 Busy", b"504 T", b"599 \xe4\xf6",
                   b"200 "):  # fmt: skip
        yield Answer(f"status {status.decode('latin-1')}", _length(b"", status=status))
    yield Answer(
        "no reason at all",
        _length(b"").replace(b"200 OK", b"200"),
        _length(b"").replace(b"200 OK", b"200 "),
    )
    yield Answer(
        "several Set-Cookie",
        _length(b"Set-Cookie: a=1; Path=/\r\nX: 1\r\nset-cookie: b=2, c\r\nSet-Cookie: a=3\r\n"),
    )
    yield Answer("the order and letters of fields", _length(b"zZ: 1\r\nAa: 2\r\nZz: 3\r\n"))
    yield Answer("octets 0x80 to 0xff", _length(b"X: " + bytes(range(128, 256)) + b"\r\n"))
    yield Answer("an encoded body", _length(b"Content-Encoding: gzip\r\n", b"\x1f\x8b\x00\xff"))
    yield Answer("a redirection", _length(b"Location: http://a/%41?b#c\r\n", b"", b"302 Found"))
    yield Answer(
        "a challenge", _length(b'WWW-Authenticate: Basic realm="x"\r\nWWW-Authenticate: Digest\r\n')
    )
    yield Answer(
        "caching directives",
        _length(b'Cache-Control: no-store\r\nETag: W/"x"\r\nVary: *\r\nAge: 5\r\nExpires: 0\r\n'),
    )
    yield Answer("the Via of others", _length(b"Via: 1.0 fred\r\n"))
    yield Answer("a Server and a Date of its own", _length(b"Server: x\r\nDate: yesterday\r\n"))
    yield Answer("an empty body", _length(b"", b""))
    yield Answer("every octet", _length(b"", bytes(range(256))))
    yield Answer("204", b"HTTP/1.1 204 None\r\nX: y\r\n\r\n")
    yield Answer("304", b'HTTP/1.1 304 Same\r\nETag: "a"\r\nContent-Length: 500\r\n\r\n')
    yield Answer("a HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", request=HEAD)
    chunked = b"HTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield Answer("a HEAD of chunks", chunked, b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n", request=HEAD)
    yield Answer("chunks", chunked + CHUNKS)
    yield Answer("no chunks", chunked + b"0\r\n\r\n")
    yield Answer("trailers", chunked + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n")
    yield Answer(
        "chunks for HTTP/1.0",
        chunked + CHUNKS,
        b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\nhello",
        request=OLD_KEPT,
        closed=True,
    )
    yield Answer(
        "trailers for HTTP/1.0",
        chunked + b"5\r\nhello\r\n0\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\nConnection: close\r\n\r\nhello",
        request=OLD,
        closed=True,
    )
    yield Answer(
        "a length for HTTP/1.0",
        _length(b""),
        _length(b"").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        request=OLD,
        closed=True,
    )
    yield Answer(
        "a length for HTTP/1.0 that is kept alive",
        _length(b""),
        _length(b"").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
        request=OLD_KEPT,
    )
    old = _length(b"").replace(b"HTTP/1.1", b"HTTP/1.0")
    yield Answer("HTTP/1.0 from the application", old, _length(b""), ends=True)
    yield Answer(
        "HTTP/1.0 until the end",
        b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nhello",
        chunked + CHUNKS,
        ends=True,
    )
    yield Answer(
        "HTTP/1.1 until the end",
        b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello",
        chunked + CHUNKS,
        ends=True,
    )
    yield Answer(
        "HTTP/1.0 until the end for HTTP/1.0",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
        request=OLD,
        ends=True,
        closed=True,
    )
    yield Answer("100", b"HTTP/1.1 100 Continue\r\n\r\n" + _length(b""))
    yield Answer(
        "102 and 103",
        b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 E\r\nLink: </a>\r\nLink: </b>\r\n\r\n" + _length(b""),
    )
    yield Answer(
        "103 for HTTP/1.0",
        b"HTTP/1.1 103 E\r\nLink: </a>\r\n\r\n" + _length(b""),
        _length(b"").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        request=OLD,
        closed=True,
    )
    yield Answer(
        "what Connection names ends here",
        _length(b"X: 1\r\nConnection: x\r\nZ: 3\r\n"),
        _length(b"Z: 3\r\n"),
    )
    yield Answer(
        "hop-by-hop fields end here",
        _length(b"Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n"),
        _length(b""),
    )
    yield Answer(
        "what is protected does not",
        _length(b"Set-Cookie: a=b\r\nConnection: set-cookie, content-length\r\n"),
        _length(b"Set-Cookie: a=b\r\n"),
    )


REQUESTS: list[Request] = list(_requests())
ANSWERS: list[Answer] = [_dated(row) for row in _answers()]
