"""Messages that repeat something, as much of it as the limits let through, from either side.

Each kind is a function of how many octets it is to have; a limit may make it less. The names of
fields are found in the source, so that one which is looked into tomorrow is tried tomorrow.
"""

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import retter
from retter.base.limits import COOKIES_MAX, LIST_MEMBERS_MAX, PARAMETERS_MAX

HEAD_BYTES_MAX = 64 * 1024
TARGET_BYTES_MAX = 16 * 1024 - 40
FIELDS_MAX = 128

Make = Callable[[int], bytes]

FILLINGS: tuple[bytes, ...] = (
    b" ", b"\t", b",", b", ", b"a,", b"a, b;q=0.1,", b";", b"a=b;", b'a="b",', b'"', b'"a",',
    b'W/"a",', b"\\", b'"\\', b"0", b"0-1,", b"%41", b"ab", b"\xff", b"1.2.3.4,", b"127.0.0.1, ",
    b"::1,", b"proto=http,", b"gzip,", b"no-cache=a,", b"../", b"-", b":", b"{", b"a=b; ",
)  # fmt: skip
# What comes before and after: a list that begins well, and one whose end does not fit.
FRAMES: tuple[tuple[bytes, bytes], ...] = ((b"gzip", b"x"), (b"", b""), (b'"', b"x"))

_FIELD_NAME = re.compile(rb"[a-z][a-z0-9]*(?:-[a-z0-9]+)*:?")
_MAY_HAVE_ONE = re.compile(r'br?"[a-z]')  # most files have none, and are not parsed


@cache
def field_names() -> list[bytes]:
    """Return the lower-case words that the package compares names with, fields among them."""
    found: set[bytes] = set()
    for path in Path(retter.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if _MAY_HAVE_ONE.search(text) is None:
            continue
        for node in ast.walk(ast.parse(text)):
            looked_for: list[ast.AST] = []
            if isinstance(node, ast.Compare):
                looked_for = [node.left, *node.comparators]
            elif isinstance(node, ast.Call) and (
                (isinstance(node.func, ast.Attribute) and node.func.attr in ("first", "combined"))
                or (isinstance(node.func, ast.Name) and node.func.id == "frozenset")
            ):
                looked_for = list(node.args)
            for one in looked_for:
                for constant in ast.walk(one):
                    value = getattr(constant, "value", None)
                    if isinstance(value, bytes) and _FIELD_NAME.fullmatch(value):
                        found.add(value.removesuffix(b":"))
    return sorted(found)


def lists(octets: int) -> Iterator[bytes]:
    """Return values of that many octets, of all kinds of members."""
    for number, filling in enumerate(FILLINGS):
        for start, end in {FRAMES[0], FRAMES[1 + number % 2]}:
            yield start + filling * ((octets - len(start) - len(end)) // len(filling)) + end


_DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"


def request(
    lines: bytes = b"", target: bytes = b"/", method: bytes = b"GET", body: bytes = b""
) -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: shop.example\r\n%b\r\n%b" % (method, target, lines, body)


def response(lines: bytes = b"", body: bytes = b"hello", status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %b\r\n%b%b%b\r\n%b" % (status, _DATE, length, lines, body)


def joined(make: Callable[[int], bytes], octets: int, most: int = 1_000_000) -> bytes:
    """Return one piece after the other, numbered, up to so many octets and pieces."""
    pieces: list[bytes] = []
    size = 0
    while size < octets and len(pieces) < most:
        piece = make(len(pieces))
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _target(filling: Callable[[int], bytes], start: bytes = b"/?") -> Make:
    return lambda octets: request(target=start + joined(filling, min(octets, TARGET_BYTES_MAX)))


def _cookie(filling: Callable[[int], bytes]) -> Make:
    return lambda octets: request(b"Cookie: " + joined(filling, octets) + b"\r\n")


def _fields(line: Callable[[int, int], bytes], most: int = FIELDS_MAX - 2) -> Make:
    return lambda octets: request(joined(lambda n: line(n, octets // most), octets, most))


def _chunked(body: Callable[[int], bytes]) -> Make:
    return lambda octets: request(
        b"Transfer-Encoding: chunked\r\n", method=b"POST", body=joined(body, octets)
    )


_SESSION = b"PHPSESSID=0123456789abcdef0123456789abcdef"


def _at_most(start: bytes, member: Callable[[int, int], bytes], most: int) -> Make:
    """Return a field with as many members as are looked at, each as long as there is room for."""
    return lambda octets: request(
        start + joined(lambda n: member(n, octets // most - 24), octets, most) + b"a\r\n"
    )


REQUESTS: dict[str, Make] = {
    "all cookies that are read": _at_most(
        b"Cookie: ", lambda n, size: b"n%d%b=%b; " % (n, b"a" * (size // 2), b"b" * (size // 2)),
        COOKIES_MAX - 1,
    ),
    "all commas in cookies": _at_most(
        b"Cookie: ", lambda n, size: b"%08d%b=%b, " % (n, b"a" * (size // 2), b"b" * (size // 2)),
        COOKIES_MAX,
    ),
    "all parameters that are read": lambda octets: request(
        target=b"/?" + joined(
            lambda n: b"n%d%%5b=%b&" % (n, b"a" * 18), min(octets, TARGET_BYTES_MAX),
            PARAMETERS_MAX - 1,
        )
    ),
    **{
        f"all members of {name.decode()} that are read": _at_most(
            name + b": ",
            lambda n, size: b"%d%b=%b ," % (n, b"a" * (size // 2), b"0" * (size // 2)),
            LIST_MEMBERS_MAX - 1,
        )
        for name in (b"Accept-Encoding", b"Cache-Control", b"Connection", b"Upgrade", b"TE",
                     b"Forwarded", b"Authorization", b"X-Forwarded-For")
    },
    "all tags that are read": _at_most(
        b"If-None-Match: ", lambda n, size: b'W/"%d%b" ,' % (n, b"a" * size), LIST_MEMBERS_MAX - 1
    ),
    "new cookies": _cookie(lambda n: b"n%d=1; " % n),
    "short cookies": _cookie(lambda n: b"a;"),
    "empty cookies": _cookie(lambda n: b";"),
    "cookies with odd quotes": _cookie(lambda n: b'a=";'),
    "sessions": _cookie(lambda n: b"SESS%d=0123456789abcdef0123456789abcdef; " % n),
    "one session again and again": _cookie(lambda n: _SESSION + b"; "),
    "cookies that look like sessions": _cookie(lambda n: b"n%060d_session=1; " % n),
    "credentials in cookies": _cookie(lambda n: b"my_token_%d=1; " % n),
    "cookies in a cookie": _cookie(lambda n: b"n%d=1," % n),
    "equals signs in a cookie": _cookie(lambda n: b"= "),
    "quoted equals signs in a cookie": _cookie(lambda n: b'="'),
    "sessions in a cookie": _cookie(lambda n: b"SESS%d=%032d," % (n, n)),
    "ignorable cookies": _cookie(lambda n: b"_ga_%d=1; " % n),
    "a long name of a cookie": lambda octets: request(
        b"Cookie: " + b"mp_" * (octets // 3) + b"=1\r\n"
    ),
    "a long cookie": lambda octets: request(b"Cookie: " + _SESSION + b"a" * octets + b"\r\n"),
    "lines of cookies": _fields(
        lambda n, size: b"Cookie: " + b"a%d=b;" % n * (size // 7) + b"\r\n"
    ),
    "new parameters": _target(lambda n: b"a%d&" % n),
    "one parameter again and again": _target(lambda n: b"a&"),
    "empty parameters": _target(lambda n: b"&"),
    "parameters by semicolons": _target(lambda n: b"a%d;" % n),
    "parameters of the path": _target(lambda n: b"a%d;" % n, b"/"),
    "parameters of segments": _target(lambda n: b"a;b%d/" % n, b"/"),
    "encoded parameters": _target(lambda n: b"%%41%%%02x%d&" % (n % 256, n)),
    "an encoded parameter": _target(lambda n: b"%41"),
    "plus signs": _target(lambda n: b"+"),
    "sessions in the URL": _target(lambda n: b"PHPSESSID%d=1&" % n),
    "parts of nonces in the URL": _target(lambda n: b"srf&"),
    "nonces in the URL": _target(lambda n: b"nonc%d=nonce&" % n),
    "logouts in the URL": _target(lambda n: b"logou&"),
    "equals signs in the target": _target(lambda n: b"a="),
    "question marks": _target(lambda n: b"?"),
    "segments": _target(lambda n: b"/a", b"/"),
    "slashes": _target(lambda n: b"/", b"/"),
    "slashes after a logout": _target(lambda n: b"/", b"/xlogout"),
    "an encoded path": _target(lambda n: b"%2f%2E", b"/"),
    "dots and slashes": _target(lambda n: b"../", b"/"),
    "a path of hexadecimal segments": _target(lambda n: b"%08x/" % n, b"/"),
    "wildcards' letters": _target(lambda n: b"aab", b"/aa"),
    "a URL as a target": _target(lambda n: b"a", b"http://shop.example/"),
    "a host as a target": _target(lambda n: b"a", b"http://"),
    "a host and a fragment": lambda octets: request(
        target=b"http://" + b"a" * min(octets, TARGET_BYTES_MAX) + b"#"
    ),
    "a long target": lambda octets: request(target=b"/" + b"a" * octets),
    "spaces in the target": lambda octets: request(target=b"/" + b" " * octets),
    "a long method": lambda octets: request(method=b"G" * octets),
    "a long host": lambda octets: request().replace(b"shop.example", b"a" * octets),
    "a long port": lambda octets: request().replace(b"shop.example", b"a:" + b"1" * octets),
    "new fields": _fields(lambda n, size: b"X-%d: " % n + b"a" * (size - 8) + b"\r\n"),
    "short fields": _fields(lambda n, size: b"a:b\r\n"),
    "fields that identify": _fields(lambda n, size: b"X-Key-%d:%b\r\n" % (n, b"a" * (size - 12))),
    "fields that separate": _fields(lambda n, size: b"X-Pjax: " + b"a" * (size - 10) + b"\r\n"),
    "request ids": _fields(lambda n, size: b"X-Request-Id: " + b"a" * (size - 16) + b"\r\n"),
    "far too many fields": lambda octets: request(b"a:b\r\n" * (octets // 5)),
    "far too many judged fields": lambda octets: request(b"Via: a\r\n" * (octets // 8)),
    "lines of lists": _fields(lambda n, size: b"Connection: " + b"a," * (size // 3) + b"\r\n"),
    "lines of codings": _fields(
        lambda n, size: b"Accept-Encoding: " + b"a," * (size // 3) + b"\r\n"
    ),
    "blanks before an odd end": lambda octets: request(b"X: " + b" " * octets + b"\x7f\r\n"),
    "a long name of a field": lambda octets: request(b"X" * octets + b": a\r\n"),
    "a line without a colon": lambda octets: request(b"X" * octets + b"\r\n"),
    "colons": lambda octets: request(b"X" + b":" * octets + b"\r\n"),
    "line feeds": lambda octets: request(b"a:b\n" * (octets // 4)),
    "carriage returns": lambda octets: request(b"X: " + b"\r" * octets + b"\r\n"),
    "folded lines": lambda octets: request(b"X: a" + b"\r\n b" * (octets // 4) + b"\r\n"),
    "a head that does not end": lambda octets: request(b"X: " + b" " * octets)[:-2],
    "empty lines": lambda octets: b"\r\n" * (octets // 2),
    "lengths": _fields(lambda n, size: b"Content-Length: 1\r\n"),
    "chunks of an octet": _chunked(lambda n: b"1\r\na\r\n"),
    "chunks of two sizes": _chunked(lambda n: (b"1\r\na\r\n", b"2\r\nab\r\n")[n % 2]),
    "chunks of an octet, spelt otherwise": _chunked(lambda n: b"%0*d\r\na\r\n" % (n % 9 + 1, 1)),
    "chunks of line ends": _chunked(lambda n: b"2\r\n\r\n\r\n"),
    "chunks of 16 octets": _chunked(lambda n: b"10\r\n0123456789abcdef\r\n"),
    "extensions": _chunked(lambda n: b"1;a%d=b\r\na\r\n" % n),
    "long extensions": _chunked(lambda n: b"1" + b";a" * 500 + b"\r\na\r\n"),
    "quoted extensions": _chunked(lambda n: b'1;a="' + b"\\a" * 450 + b'"\r\na\r\n'),
    "extensions that do not fit": _chunked(lambda n: b"1;a" + b" " * 900 + b"x\r\na\r\n"),
    "trailers": lambda octets: request(
        b"Transfer-Encoding: chunked\r\n", method=b"POST",
        body=b"0\r\n" + b"a:b\r\n" * (min(octets, 8000) // 5) + b"\r\n",
    ),
    "a long trailer": lambda octets: request(
        b"Transfer-Encoding: chunked\r\n", method=b"POST",
        body=b"0\r\na:" + b" " * min(octets, 8000) + b"b\r\n\r\n",
    ),
}  # fmt: skip
"""What one request may have in it; with what follows its head."""

STREAMS: dict[str, Callable[[int], bytes]] = {
    "small requests": lambda n: b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" % (n % 7),
    "HEAD": lambda n: request(method=b"HEAD"),
    "GETs with a body": lambda n: request(b"Content-Length: 1\r\n", body=b"a"),
    "GETs with a chunked body": lambda n: request(
        b"Transfer-Encoding: chunked\r\n", body=b"1\r\na\r\n0\r\n\r\n"
    ),
    "POSTs": lambda n: request(b"Content-Length: 1\r\n", method=b"POST", body=b"a"),
    "requests after empty lines": lambda n: b"\r\n\r\n" + request(),
}
"""Requests that come all at once, one by one."""


def _set_cookies(attributes: Callable[[int], bytes], most: int = FIELDS_MAX - 3) -> Make:
    def make(octets: int) -> bytes:
        return response(
            joined(lambda n: b"Set-Cookie: " + attributes(octets // most) + b"\r\n", octets, most)
        )

    return make


RESPONSES: dict[str, Make] = {
    "a long reason": lambda octets: response(status=b"200 " + b"a" * octets),
    "new fields": lambda octets: response(
        joined(lambda n: b"X-%d: %b\r\n" % (n, b"a" * (octets // 130)), octets, FIELDS_MAX - 3)
    ),
    "far too many fields": lambda octets: response(b"a:b\r\n" * (octets // 5)),
    "blanks before an odd end": lambda octets: response(b"X: " + b" " * octets + b"\x7f\r\n"),
    "a head that does not end": lambda octets: response(b"X: " + b" " * octets)[:-7],
    "line feeds": lambda octets: response(b"a:b\n" * (octets // 4)),
    "names in Vary": lambda octets: response(
        b"Vary: " + joined(lambda n: b"a%d," % n, octets) + b"\r\n"
    ),
    "sessions set": _set_cookies(lambda size: _SESSION + b"; a" * (size // 4)),
    "attributes": _set_cookies(lambda size: _SESSION + b"; a" * (size // 3), 1),
    "a long session set": _set_cookies(lambda size: b"PHPSESSID=" + b"a1" * (size // 2), 1),
    "percent signs in a cookie set": _set_cookies(lambda size: b"a=" + b"%" * size, 1),
    "cookies set": _set_cookies(lambda size: b"a=b" * (size // 3)),
    "parts of a cookie in the page": lambda octets: response(
        b"Set-Cookie: PHPSESSID=" + b"aaaaaaa1" * 500 + b"\r\n", b"aaaaaaa1 " * (octets // 9)
    ),
    "less of a cookie in the page": lambda octets: response(
        b"Set-Cookie: a=" + b"aaaaaaaa" * 500 + b"\r\n", b"aaaaaaaa " * 63 + b"<" * octets
    ),
    "a session begun with a page of half forms": lambda octets: response(
        b"Set-Cookie: " + _SESSION + b"\r\n", b"Method = 'pos csr name='_toke" * (octets // 28)
    ),
    "chunks of an octet": lambda octets: (
        b"HTTP/1.1 200 OK\r\n" + _DATE + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"1\r\na\r\n" * (octets // 6) + b"0\r\n\r\n"
    ),
    "extensions": lambda octets: (
        b"HTTP/1.1 200 OK\r\n" + _DATE + b"Transfer-Encoding: chunked\r\n\r\n"
        + joined(lambda n: b"1;a%d\r\na\r\n" % n, octets) + b"0\r\n\r\n"
    ),
    "interim answers": lambda octets: (
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" * (octets // 35) + response()
    ),
}  # fmt: skip
"""What an application may answer to a GET."""
