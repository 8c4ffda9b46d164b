"""Malformed and ambiguous requests: what is refused, what is cut off, what is taken and how.

- `Refused`: answered with this status, closed, and not a byte of it reached the application.
- `CutOff`: the head was fine and reached the application, the body is not. The application never
  sees the end of it: its connection is closed in the middle, and the client is told why.
- `Taken`: legal but odd. The application gets exactly these bytes, framed by us.
"""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Refused:
    name: str
    sends: bytes
    status: int = 400


@dataclass(frozen=True)
class CutOff:
    name: str
    sends: bytes
    good: bytes = b""  # the application may get a beginning of this body, and no more
    status: int | None = 400  # None: closed without an answer, for the client has left
    ends: bool = False  # the client closes its sending side afterwards


@dataclass(frozen=True)
class Taken:
    name: str
    sends: bytes
    reached: tuple[bytes, ...]  # each request as the application gets it, without our own fields
    answers: int | None = None  # how many the client gets, if not one for each
    closed: bool = False  # afterwards


def _shown(data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode()
    return text if len(text) <= 40 else f"{text[:40]}...({len(data)})"


HOST = b"Host: a\r\n"
END = b"\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def _get(lines: bytes = b"", line: bytes = b"GET / HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + lines + END


def _post(lines: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + lines + END + body


# -- the request line (RFC 9112 section 3) ------------------------------------------------------

BAD_METHODS = [
    b"", b"G@T", b"(GET)", b"G:T", b'"GET"', b"GET,", b"{GET}", b"G\xc3\x89T", b"G/T", b"[GET]",
    b"G=T", b"G?T", b"<GET>", b"G;T", b"\\GET", b"G\x00T", b"G\x7fT", b"GET\t", b"\tGET", b" GET",
]  # fmt: skip

BAD_VERSIONS = [
    b"", b"HTTP", b"HTTP/", b"HTTP/1", b"HTTP/1.", b"HTTP/.1", b"HTTP/1.10", b"HTTP/01.1",
    b"http/1.1", b"Http/1.1", b"HTTP/1.1 ", b"HTTP /1.1", b"HTTP/ 1.1", b"HTTPS/1.1", b"HTTP/1,1",
    b"HTTP/+1.1", b"HTTP/-1.1", b"HTTP/1.1.1", b"HTP/1.1", b"HTTP/1.x", b"HTTP-1.1", b"HTTP/0x1.1",
    b"HTTP/1.1\x00", b"HTTP/1.1;", b"HTTP/\xc2\xb9.1", b"HTTP/1.1 HTTP/1.1", b"ICY/1.1",
]  # fmt: skip
OTHER_MAJORS = [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/3.0", b"HTTP/9.9", b"HTTP/0.0"]

BAD_TARGETS = [
    b"", b"x", b"a:80", b"http:", b"http:/", b"http://", b"http:///", b"http:///x", b"ftp://a/",
    b"file:///etc/passwd", b"/a b", b"/\x00", b"/\x7f", b"/\x01", b"/\xe4", b"/\xc3\xa4", b"/#",
    b"/a#b", b"http://a/#f", b"*", b"**", b"*/", b"http://u@a/", b"http://u:p@a/", b"http://a b/",
    b"http:/a", b"javascript:x", b"http://a:b/", b"http://[::1/", b"?x", b"\\x", b"/a\tb",
    b"http://a:123456/", b"http://a\\b/", b"http://a,b/", b"://a/", b"http//a/", b"#", b"%2f",
    b"ws://a/", b"http://?x", b"http://<a>/",
]  # fmt: skip

BAD_SEPARATORS = [b"  ", b"\t", b"\x0b", b"\x0c", b"\r", b"\x00", b"\xa0", b"\xc2\xa0", b" \t"]


def _request_lines() -> Iterator[Refused]:
    for method in BAD_METHODS:
        yield Refused(f"method {_shown(method)!r}", _get(line=method + b" / HTTP/1.1"))
    for version in BAD_VERSIONS:
        yield Refused(f"version {_shown(version)!r}", _get(line=b"GET / " + version))
    for version in OTHER_MAJORS:
        yield Refused(f"version {_shown(version)!r}", _get(line=b"GET / " + version), 505)
    for target in BAD_TARGETS:
        yield Refused(f"target {_shown(target)!r}", _get(line=b"GET " + target + b" HTTP/1.1"))
    for separator in BAD_SEPARATORS:
        yield Refused(
            f"{_shown(separator)!r} after the method", _get(line=b"GET" + separator + b"/ HTTP/1.1")
        )
        yield Refused(
            f"{_shown(separator)!r} after the target", _get(line=b"GET /" + separator + b"HTTP/1.1")
        )
    yield Refused("no target and no version", b"GET\r\n" + HOST + END)
    yield Refused("HTTP/0.9", b"GET /\r\n\r\n")
    yield Refused("CONNECT", _get(line=b"CONNECT a:1 HTTP/1.1"), 405)
    yield Refused("CONNECT to a path", _get(line=b"CONNECT / HTTP/1.1"), 405)
    yield Refused("connect in lower case is another method", _get(line=b"connect a:1 HTTP/1.1"))
    yield Refused("TRACE", _get(line=b"TRACE / HTTP/1.1"), 405)
    yield Refused("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
    yield Refused("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    yield Refused("an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    yield Refused("SMTP", b"EHLO a\r\n\r\n")
    yield Refused(
        "PROXY protocol that nobody asked for", b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n" + _get()
    )


# -- line ends and folding (RFC 9112 sections 2.2 and 5.2) -----------------------------------------


def _line_ends() -> Iterator[Refused]:
    for end, shown in ((b"\n", "LF"), (b"\r", "CR"), (b"\r\r\n", "CR CR LF"), (b"\n\r", "LF CR")):
        yield Refused(f"{shown} after the request line", b"GET / HTTP/1.1" + end + HOST + END)
        yield Refused(f"{shown} after a field", _get(b"X: y" + end + b"Z: 1\r\n"))
        yield Refused(f"{shown} after Host", b"GET / HTTP/1.1\r\nHost: a" + end + b"X: y\r\n\r\n")
        yield Refused(
            f"{shown} hides a length", _post(b"X: y" + end + b"Content-Length: 5\r\n", b"hello")
        )
    yield Refused("LF alone ends every line", _get().replace(b"\r\n", b"\n"))
    yield Refused("LF LF ends the head", b"GET / HTTP/1.1\r\nHost: a\n\nX: y\r\n\r\n")
    yield Refused("LF CRLF ends the head", b"GET / HTTP/1.1\r\nHost: a\n\r\n\r\n")
    yield Refused("a bare CR in a value", _get(b"X: y\rz\r\n"))
    yield Refused("a bare CR before the colon", _get(b"X\r: y\r\n"))
    for start in (
        b"\n",
        b"\r\r\n",
        b"\n\n",
        b" \r\n",
        b"\t",
        b"\x00",
        b"\r\n\n",
        b"\r\n \r\n",
        b"\xef\xbb\xbf",
    ):
        yield Refused(f"{_shown(start)!r} before the request line", start + _get())
    yield Refused("nothing but empty lines", b"\r\n" * 20)
    for fold in (b"\r\n ", b"\r\n\t", b"\r\n  \t"):
        name = _shown(fold)
        yield Refused(f"a field folded by {name!r}", _get(b"X: y" + fold + b"z\r\n"))
        yield Refused(
            f"the first line folded by {name!r}", b"GET /" + fold + b"HTTP/1.1\r\n" + HOST + END
        )
        yield Refused(
            f"a fold {name!r} before the first field", b"GET / HTTP/1.1" + fold + b"Host: a\r\n\r\n"
        )
        yield Refused(f"Host folded by {name!r}", b"GET / HTTP/1.1\r\nHost:" + fold + b"a\r\n\r\n")
        yield Refused(
            f"Transfer-Encoding folded by {name!r}",
            _post(b"Transfer-Encoding:" + fold + b"chunked\r\n", b"0\r\n\r\n"),
        )
        yield Refused(
            f"Content-Length folded by {name!r}",
            _post(b"Content-Length:" + fold + b"5\r\n", b"hello"),
        )


# -- field names and values (RFC 9110 section 5) ----------------------------------------------------

NOT_IN_NAMES = b' "(),/;<=>?@[\\]{}\x00\x01\x08\x0b\x0c\x1f\x7f\x80\xa0\xe4\xff'
NOT_IN_VALUES = bytes(octet for octet in (*range(32), 127) if octet not in (9, 10, 13))


def _fields() -> Iterator[Refused]:
    for octet in NOT_IN_NAMES:
        yield Refused(f"octet {octet:#04x} in a field name", _get(b"X%cY: 1\r\n" % octet))
    for octet in NOT_IN_VALUES:
        yield Refused(f"octet {octet:#04x} in a field value", _get(b"X: a%cb\r\n" % octet))
    for name in (b"X", b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Cookie"):
        for space in (b" ", b"\t"):
            yield Refused(
                f"{_shown(space)!r} between {name.decode()} and its colon",
                _get(name + space + b": 1\r\n"),
            )
    yield Refused("a field without a name", _get(b": x\r\n"))
    yield Refused("a field without a colon", _get(b"X\r\n"))
    yield Refused("a request line among the fields", _get(b"GET /x HTTP/1.1\r\n"))
    yield Refused("too many fields", _get(b"X: y\r\n" * 200), 431)
    yield Refused("a field that is too large", _get(b"X: " + b"y" * 70_000 + b"\r\n"), 431)
    yield Refused("a field name that is too large", _get(b"X" * 70_000 + b": y\r\n"), 431)
    yield Refused("a head without an end", b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000, 431)
    yield Refused("a request line without an end", b"GET /" + b"y" * 70_000, 431)
    yield Refused(
        "a target that is too long", _get(line=b"GET /" + b"x" * 20_000 + b" HTTP/1.1"), 414
    )


# -- Host (RFC 9112 section 3.2) ---------------------------------------------------------------------

BAD_HOSTS = [
    b"a b", b"a,b", b"a, a", b"u@a", b"u:p@a", b"a/b", b"/", b"a?b", b"a#b", b"a:b", b"a:123456",
    b"a:-1", b"[::1", b"::1", b"[::1]x", b"a\\b", b"\xe4", b"<a>", b'"a"', b"a:80:80", b"http://a",
    b"{a}", b"a|b", b"a^b", b"x" * 256,
]  # fmt: skip


def _hosts() -> Iterator[Refused]:
    for host in BAD_HOSTS:
        yield Refused(f"Host {_shown(host)!r}", b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    yield Refused("no Host", b"GET / HTTP/1.1\r\n\r\n")
    yield Refused("no Host beside an absolute target", b"GET http://a/ HTTP/1.1\r\n\r\n")
    yield Refused("Host twice, equal", _get(HOST))
    yield Refused("Host twice, different", _get(b"Host: b\r\n"))
    yield Refused("Host twice, in other letters", _get(b"hOST: b\r\n"))
    yield Refused("Host twice in HTTP/1.0", _get(HOST, b"GET / HTTP/1.0"))
    yield Refused("Host twice beside an absolute target", _get(HOST, b"GET http://a/ HTTP/1.1"))
    yield Refused(
        "a bad Host beside an absolute target",
        b"GET http://a/ HTTP/1.1\r\nHost: b\r\nHost: c\r\n\r\n",
    )


# -- lengths (RFC 9110 section 8.6, RFC 9112 section 6) -----------------------------------------------

BAD_LENGTHS = [
    b"", b"+5", b"-5", b"-0", b"5,", b",5", b"5, 5", b"5,5", b"5,6", b"0x5", b"5_0", b"5.0", b"5e0",
    b"five", b"5 5", b"5;", b"'5'", b'"5"', b"\xb2", b"5\xa0", b"9" * 19, b"9" * 40, b"5 chunked",
    b"0 5", b"5h", b"NaN", b"inf", b"--5", b"5-", b"0b101", b"0o5", b"5\x0b", b"05", b"010", b"00",
    b"\xef\xbc\x95", b"5\x00", b"\x0c5", b"5,chunked", b"1e1", b"5 ,", b"5;5", b"(5)",
]  # fmt: skip

BAD_CODINGS = [
    b"", b"identity", b"gzip", b"deflate", b"br", b"x", b"chunked, chunked", b"chunked,chunked",
    b"chunked,", b",chunked", b"chunked;q=1", b"chunked;", b"xchunked", b"chunkedx", b'"chunked"',
    b"'chunked'", b"chunked identity", b"gzip, chunked", b"chunked, gzip", b"chunked, identity",
    b"identity, chunked", b"chu nked", b"chunk", b"chunked\xa0", b"\xffchunked", b"chunked=1",
    b"gzip;chunked", b"[chunked]", b"chunked\tchunked", b"chunked,,", b"chunked, x", b"trailers",
    b"chunked; x", b"x-chunked", b"CHUNKED1",
]  # fmt: skip
CONTROL_CODINGS = [b"\x0bchunked", b"chunked\x0c", b"chunked\x00", b"\x00", b"chun\x01ked"]

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: 5\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


def _lengths() -> Iterator[Refused]:
    for value in BAD_LENGTHS:
        yield Refused(
            f"Content-Length {_shown(value)!r}",
            _post(b"Content-Length: " + value + b"\r\n", b"hello"),
        )
    for value in BAD_CODINGS:
        yield Refused(
            f"Transfer-Encoding {_shown(value)!r}",
            _post(b"Transfer-Encoding: " + value + b"\r\n", CHUNKS),
            501,
        )
    for value in CONTROL_CODINGS:
        yield Refused(
            f"Transfer-Encoding {_shown(value)!r}",
            _post(b"Transfer-Encoding: " + value + b"\r\n", CHUNKS),
        )
    for line in (
        b"POST / HTTP/1.1",
        b"POST / HTTP/1.0",
        b"POST http://a/ HTTP/1.1",
        b"GET / HTTP/1.1",
    ):
        for twice, shown in (
            (LENGTH + LENGTH, "equal"),
            (LENGTH + b"Content-Length: 6\r\n", "different"),
            (LENGTH + b"X: y\r\ncontent-length:5\r\n", "in other letters"),
            (b"Content-Length: 0\r\n" + LENGTH, "the first zero"),
            (LENGTH + b"Content-Length: 0\r\n", "the second zero"),
            (b"Content-Length: 5, 5\r\n", "as a list"),
        ):
            yield Refused(
                f"{line.decode()}: Content-Length twice, {shown}",
                line + b"\r\n" + HOST + twice + END + b"hello",
            )
        for both, shown in (
            (LENGTH + CHUNKED, "CL.TE"),
            (CHUNKED + LENGTH, "TE.CL"),
            (b"Content-Length: 0\r\n" + CHUNKED, "0.TE"),
            (LENGTH + b"transfer-encoding:\tChunked\r\n", "CL.TE with a tab"),
        ):
            yield Refused(
                f"{line.decode()}: {shown}",
                line + b"\r\n" + HOST + both + END + CHUNKS + SMUGGLED,
            )
    yield Refused(
        "CL.TE, the coding unknown", _post(LENGTH + b"Transfer-Encoding: x\r\n", b"hello")
    )
    yield Refused("TE.TE, equal", _post(CHUNKED + CHUNKED, CHUNKS), 501)
    yield Refused(
        "TE.TE, identity first", _post(b"Transfer-Encoding: identity\r\n" + CHUNKED, CHUNKS), 501
    )
    yield Refused(
        "TE.TE, identity last", _post(CHUNKED + b"Transfer-Encoding: identity\r\n", CHUNKS), 501
    )
    yield Refused(
        "TE.TE, an empty one last", _post(CHUNKED + b"Transfer-Encoding:\r\n", CHUNKS), 501
    )
    yield Refused("TE.TE, cow", _post(CHUNKED + b"Transfer-encoding: cow\r\n", CHUNKS), 501)
    yield Refused("Transfer-Encoding in HTTP/1.0", b"POST / HTTP/1.0\r\n" + CHUNKED + END + CHUNKS)
    yield Refused(
        "Transfer-Encoding in HTTP/1.0 that is kept alive",
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\n" + CHUNKED + END + CHUNKS + SMUGGLED,
    )
    yield Refused(
        "Transfer-Encoding on GET in HTTP/1.0", b"GET / HTTP/1.0\r\n" + CHUNKED + END + CHUNKS
    )


# -- expectations and what else a head can ask (RFC 9110 section 10.1.1) ------------------------------


def _expectations() -> Iterator[Refused]:
    for value in (
        b"",
        b"x",
        b"100-continue, x",
        b"x 100-continue",
        b"100-continue;q=1",
        b"200-ok",
        b"100",
    ):
        yield Refused(
            f"Expect {_shown(value)!r}",
            _post(b"Expect: " + value + b"\r\n" + LENGTH, b"hello"),
            417,
        )
    yield Refused("Expect twice", _post(b"Expect: 100-continue\r\n" * 2 + LENGTH, b"hello"), 417)


REFUSED: list[Refused] = [
    *_request_lines(), *_line_ends(), *_fields(), *_hosts(), *_lengths(), *_expectations(),
]  # fmt: skip


# -- bodies that go wrong (RFC 9112 section 7.1) --------------------------------------------------------

BAD_SIZES = [
    b"", b"g", b"0x5", b"+5", b"-5", b"5 ", b" 5", b"5\t", b"5;", b"5,", b"5_", b"0" * 16 + b"5",
    b"f" * 16, b"8" + b"0" * 15, b"1" + b"0" * 16, b"5\n", b"5\r", b"5;\x00", b"5;a\rb", b"5;a\nb",
    b'5;a="', b";a", b"5.0", b"5 5", b"5;a b", b"\xef\xbc\x95", b"5;a=", b"5;;", b"'5'", b"five",
    b"5;" + b"a" * 2000, b"\x00", b"5\x0b", b'5;a="x\r\ny"', b"5;a=b c", b'5;a="b"c', b"5;\xffa=1",
    b"5\x85", b"5=", b"5:a", b"0o5", b"5;a=b;", b"5#",
]  # fmt: skip

BAD_CHUNKS = {
    "a chunk longer than its size": (b"3\r\nabcd\r\n0\r\n\r\n", b"abc"),
    "a chunk shorter than its size": (b"5\r\nabc\r\n0\r\n\r\n", b"abc\r\n"),
    "LF after a chunk": (b"3\r\nabc\n0\r\n\r\n", b"abc"),
    "CR after a chunk": (b"3\r\nabc\r0\r\n\r\n", b"abc"),
    "nothing after a chunk": (b"3\r\nabc0\r\n\r\n", b"abc"),
    "LF CR after a chunk": (b"3\r\nabc\n\r0\r\n\r\n", b"abc"),
    "LF after the last chunk": (b"0\n\r\n", b""),
    "LF at the very end": (b"0\r\n\n", b""),
    "CR CR at the very end": (b"0\r\n\r\r\n\r\n", b""),
    "a space at the very end": (b"0\r\n \r\n\r\n", b""),
}

BAD_TRAILERS = {
    "Content-Length": b"Content-Length: 5\r\n",
    "Transfer-Encoding": b"transfer-encoding: chunked\r\n",
    "Host": b"Host: evil\r\n",
    "Content_Length": b"Content_Length: 5\r\n",
    "a fold": b"X: y\r\n z\r\n",
    "a bare LF": b"X: y\nZ: 1\r\n",
    "a bare CR": b"X: y\rZ: 1\r\n",
    "a control character": b"X: \x00\r\n",
    "no colon": b"X\r\n",
    "no name": b": x\r\n",
    "a space before the colon": b"X : y\r\n",
    "a space before the name": b" X: y\r\n",
    "too much": b"X: " + b"y" * 9000 + b"\r\n",
    "a smuggled request": SMUGGLED[:-2],
    "Transfer.Encoding": b"Transfer.Encoding: chunked\r\n",
    "a NUL in a name": b"X\x00: y\r\n",
    "octet 0x80 in a name": b"X\x80: y\r\n",
}


def _bodies() -> Iterator[CutOff]:
    first = b"3\r\nabc\r\n"
    for size in BAD_SIZES:
        yield CutOff(
            f"chunk size {_shown(size)!r}",
            _post(CHUNKED, first + size + b"\r\nhello\r\n0\r\n\r\n"),
            b"abc",
        )
    for name, (body, good) in BAD_CHUNKS.items():
        yield CutOff(name, _post(CHUNKED, first + body), b"abc" + good)
    for name, lines in BAD_TRAILERS.items():
        yield CutOff(
            f"trailers with {name}", _post(CHUNKED, first + b"0\r\n" + lines + END), b"abc"
        )
    yield CutOff("a length that is not reached", _post(LENGTH, b"hell"), b"hell", None, ends=True)
    yield CutOff("a length of which nothing comes", _post(LENGTH), b"", None, ends=True)
    yield CutOff("chunks without a last one", _post(CHUNKED, first), b"abc", None, ends=True)
    yield CutOff("half a chunk", _post(CHUNKED, b"5\r\nhe"), b"he", None, ends=True)
    yield CutOff("half a chunk size", _post(CHUNKED, b"5"), b"", None, ends=True)
    yield CutOff("half a last chunk", _post(CHUNKED, first + b"0\r\n"), b"abc", None, ends=True)
    yield CutOff(
        "half a trailer", _post(CHUNKED, first + b"0\r\nX: y\r\n"), b"abc", None, ends=True
    )


CUT_OFF: list[CutOff] = list(_bodies())


# -- odd, and taken ------------------------------------------------------------------------------------


def _plain(
    line: bytes = b"GET / HTTP/1.1", lines: bytes = b"", host: bytes = b"a", body: bytes = b""
) -> bytes:
    return line + b"\r\nHost: " + host + b"\r\n" + lines + END + body


def _taken() -> Iterator[Taken]:
    for method in (b"get", b"trace", b"PROPFIND", b"M-SEARCH", b"!#$%&'*+.^_`|~", b"PRI", b"1"):
        line = method + b" / HTTP/1.1"
        yield Taken(f"method {method.decode()}", _get(line=line), (_plain(line),))
    yield Taken("HTTP/1.2 is HTTP/1.1", _get(line=b"GET / HTTP/1.2"), (_plain(),))
    yield Taken("empty lines before the request line", b"\r\n\r\n" + _get(), (_plain(),))
    yield Taken(
        "an empty line after a body",
        _post(LENGTH, b"hello\r\n") + _get(),
        (_plain(b"POST / HTTP/1.1", LENGTH, body=b"hello"), _plain()),
    )
    for target, path, host in (
        (b"http://b/x?y", b"/x?y", b"b"), (b"HTTP://B:80", b"/", b"B:80"), (b"https://b?q", b"/?q", b"b"),
        (b"http://b//x", b"//x", b"b"),
    ):  # fmt: skip
        yield Taken(
            f"absolute form {target.decode()} that disagrees with Host",
            _get(line=b"GET " + target + b" HTTP/1.1"),
            (_plain(b"GET " + path + b" HTTP/1.1", host=host),),
        )
    for path in (b"//", b"//evil.example/x", b"/../x", b"/%2e%2e/x", b"/?", b"/??", b"/;a", b"/\\x", b"/%00",
                 b"/%", b"/http://c/", b"/x?http://c/", b"/|^`{}\"<>"):  # fmt: skip
        line = b"GET " + path + b" HTTP/1.1"
        yield Taken(f"path {_shown(path)}", _get(line=line), (_plain(line),))
    yield Taken(
        "CL.0: a body with GET stays a body",
        _get(b"Content-Length: %d\r\n" % len(SMUGGLED)) + SMUGGLED,
        (_plain(lines=b"Content-Length: %d\r\n" % len(SMUGGLED), body=SMUGGLED),),
    )
    chunked = b"%x\r\n" % len(SMUGGLED) + SMUGGLED + b"\r\n0\r\n\r\n"
    yield Taken(
        "a request inside a chunk stays a body",
        _post(CHUNKED, chunked),
        (_plain(b"POST / HTTP/1.1", CHUNKED, body=chunked),),
    )
    yield Taken(
        "a length of 0 and a next request",
        _post(b"Content-Length: 0\r\n", SMUGGLED),
        (_plain(b"POST / HTTP/1.1", b"Content-Length: 0\r\n"), SMUGGLED),
    )
    yield Taken(
        "no length: what follows is a request",
        _post(b"", SMUGGLED),
        (_plain(b"POST / HTTP/1.1"), SMUGGLED),
    )
    yield Taken(
        "chunks, cut and extended as one likes, are one body",
        _post(CHUNKED, b'0002;a=b\r\nhe\r\n3;c\r\nllo\r\n000;d="e"\r\n\r\n') + SMUGGLED,
        (_plain(b"POST / HTTP/1.1", CHUNKED, body=CHUNKS), SMUGGLED),
    )
    for name in (b"Content_Length: 5", b"Transfer_Encoding: chunked", b"X_Forwarded_For: 6.6.6.6",
                 b"X-Forwarded_Proto: https", b"x_real_ip: 6.6.6.6", b"X-Forwarded-For: 6.6.6.6",
                 b"X-Forwarded-Host: evil", b"Forwarded: for=6.6.6.6", b"X-Real-IP: 6.6.6.6",
                 b"Content.Length: 5", b"X.Forwarded.For: 6.6.6.6", b"X!Real!IP: 6", b"TRANSFER~ENCODING: chunked",
                 b"X-Forwarded|Host: evil", b"Proxy: http://evil/", b"PROXY: evil", b"Via_: 1\r\nConnection: via_",
                 b"HOST.: x\r\nConnection: host.", b"Connection: Keep-Alive", b"TE: gzip\r\nConnection: TE",
                 b"Proxy-Connection: close", b"Keep-Alive: 300", b"HOST_: x\r\nConnection: host_"):  # fmt: skip
        yield Taken(
            f"{name.decode()} does not reach the application", _get(name + b"\r\n"), (_plain(),)
        )
    for name in (b"X-Content-Length: 5", b"X-Transfer-Encoding: chunked", b"Content-Length-X: 5", b"X_Mine: 1",
                 b"Max-Forwards: 0", b"Proxy-Authorization: x", b"Content-Encoding: chunked"):  # fmt: skip
        yield Taken(
            f"{name.decode()} is a field like others",
            _get(name + b"\r\n"),
            (_plain(lines=name + b"\r\n"),),
        )
    for protected in (
        b"Host",
        b"Cookie",
        b"Authorization",
        b"Content-Length",
        b"Content-Type",
        b"Via",
        b"Expect",
    ):
        line = {
            b"Host": b"",
            b"Via": b"Via: 1.1 x\r\n",
            b"Content-Length": b"Content-Length: 0\r\n",
            b"Expect": b"Expect: 100-continue\r\n",
        }.get(protected, protected + b": x\r\n")
        yield Taken(
            f"Connection: {protected.decode()} removes nothing",
            _get(b"Connection: " + protected + b"\r\n" + line),
            (_plain(lines=line),),
        )
    yield Taken(
        "Connection names a field twice over",
        _get(b"Connection: a, A\r\nConnection: ,b,\r\na: 1\r\nB: 2\r\n"),
        (_plain(),),
    )
    for offer in (b"h2c", b"H2C, h2c", b"HTTP/2.0", b"TLS/1.0"):
        yield Taken(
            f"Upgrade: {offer.decode()} is not offered on",
            _get(
                b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\nUpgrade: "
                + offer
                + b"\r\n"
            ),
            (_plain(),),
        )
    yield Taken("Upgrade without Connection", _get(b"Upgrade: websocket\r\n"), (_plain(),))
    yield Taken(
        "nothing is answered after Connection: close",
        _get(b"Connection: close\r\n") + SMUGGLED,
        (_plain(),),
        closed=True,
    )
    for lines in (b"Connection: CLOSE\r\n", b"Connection:close\t\r\n", b"Connection: keep-alive, close\r\n",
                  b"Connection: keep-alive\r\nConnection: close\r\n", b"Connection: ,, close ,\r\n",
                  b"connection: x\r\nCONNECTION: Close\r\n"):  # fmt: skip
        yield Taken(
            f"nothing is answered after {_shown(lines)}",
            _get(lines) + SMUGGLED,
            (_plain(),),
            closed=True,
        )
    for lines in (b"Connection: clo se\r\n", b'Connection: "close"\r\n', b"Connection: closed\r\n",
                  b"Connection:\r\n", b"Proxy-Connection: close\r\n", b"Connection: close;x\r\n"):  # fmt: skip
        yield Taken(f"no close: {_shown(lines)}", _get(lines) + SMUGGLED, (_plain(), SMUGGLED))
    yield Taken(
        "HTTP/1.0 that is kept alive",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" + SMUGGLED,
        (_plain(), SMUGGLED),
    )
    for line in (b"OPTIONS * HTTP/1.1", b"OPTIONS http://a HTTP/1.1"):
        yield Taken(
            f"{line.decode()} asks for the server itself",
            _get(line=line),
            (_plain(b"OPTIONS * HTTP/1.1"),),
        )
    for named in (b"Transfer-Encoding", b"transfer-encoding, close"):
        yield Taken(
            f"Connection: {named.decode()} takes no framing away",
            _post(b"Connection: " + named + b"\r\n" + CHUNKED, CHUNKS),
            (_plain(b"POST / HTTP/1.1", CHUNKED, body=CHUNKS),),
            closed=b"close" in named,
        )
    yield Taken(
        "Connection: Content-Length takes no framing away",
        _post(b"Connection: Content-Length\r\n" + LENGTH, b"hello") + SMUGGLED,
        (_plain(b"POST / HTTP/1.1", LENGTH, body=b"hello"), SMUGGLED),
    )
    for value in (b"Chunked", b"\tchunked \t", b"CHUNKED"):
        yield Taken(
            f"Transfer-Encoding {_shown(value)!r} is chunked",
            _post(b"Transfer-Encoding: " + value + b"\r\n", CHUNKS) + SMUGGLED,
            (_plain(b"POST / HTTP/1.1", CHUNKED, body=CHUNKS), SMUGGLED),
        )
    yield Taken(
        "an upgrade that is refused: what follows is a request",
        _get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + SMUGGLED,
        (_plain(lines=b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), SMUGGLED),
    )
    yield Taken(
        "an upgrade with a body",
        _post(b"Connection: Upgrade\r\nUpgrade: x\r\n" + LENGTH, b"hello") + SMUGGLED,
        (
            _plain(
                b"POST / HTTP/1.1", LENGTH + b"Connection: Upgrade\r\nUpgrade: x\r\n", body=b"hello"
            ),
            SMUGGLED,
        ),
    )
    yield Taken(
        "sixteen zeros are the last chunk",
        _post(CHUNKED, b"0" * 16 + b"\r\n\r\n") + SMUGGLED,
        (_plain(b"POST / HTTP/1.1", CHUNKED, body=b"0\r\n\r\n"), SMUGGLED),
    )
    yield Taken(
        "a trailer that announces itself changes nothing",
        _post(b"Trailer: Content-Length\r\n" + CHUNKED, CHUNKS) + SMUGGLED,
        (
            _plain(b"POST / HTTP/1.1", b"Trailer: Content-Length\r\n" + CHUNKED, body=CHUNKS),
            SMUGGLED,
        ),
    )
    yield Taken(
        "nothing is answered after HTTP/1.0",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n" + SMUGGLED,
        (_plain(),),
        closed=True,
    )
    yield Taken(
        "garbage behind a request is refused in its turn",
        _get() + b"garbage\r\n\r\n",
        (_plain(),),
        answers=2,
        closed=True,
    )
    yield Taken(
        "garbage behind a body is refused in its turn",
        _post(LENGTH, b"hello" + b"\x00garbage\r\n\r\n"),
        (_plain(b"POST / HTTP/1.1", LENGTH, body=b"hello"),),
        answers=2,
        closed=True,
    )
    yield Taken(
        "garbage behind chunks is refused in its turn",
        _post(CHUNKED, CHUNKS + b"0\r\n\r\n"),
        (_plain(b"POST / HTTP/1.1", CHUNKED, body=CHUNKS),),
        answers=2,
        closed=True,
    )
    yield Taken(
        "trailers that may not be are left out",
        _post(CHUNKED, b"0\r\nX-Sum: 1\r\nCookie: x\r\nX-Forwarded-For: 6\r\n\r\n"),
        (_plain(b"POST / HTTP/1.1", CHUNKED, body=b"0\r\nX-Sum: 1\r\n\r\n"),),
    )


TAKEN: list[Taken] = list(_taken())
