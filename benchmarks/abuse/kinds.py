"""The kinds of abuse, as the messages that a client sends over and over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

OCTETS: Final = 60_000  # of a head that a proxy takes 64 KiB of
TARGET_OCTETS: Final = 16_000  # of a target that RETTER takes 16 KiB of
ORDINARY: Final = "browser"  # what is no abuse
BURST: Final = 32  # requests at once: RETTER reads no more ahead


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind.

    Args:
        message: Of a number that is never the same, so that nothing is remembered.
        answers: That are waited for after each message.
        piece: Octets of each segment; 0 sends a message at once.
    """

    name: str
    about: str
    message: Callable[[int], bytes]
    answers: int = 1
    piece: int = 0


def joined(make: Callable[[int], bytes], octets: int) -> bytes:
    """Return pieces one after the other, numbered, up to so many octets."""
    pieces: list[bytes] = []
    size = 0
    while size < octets:
        piece = make(len(pieces))
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def request(
    number: int,
    lines: bytes = b"",
    *,
    method: bytes = b"GET",
    query: bytes = b"",
    body: bytes = b"",
) -> bytes:
    """Return a request with its number in it."""
    return b"%b /page/%d%b HTTP/1.1\r\nHost: shop.example\r\n%b\r\n%b" % (
        method,
        number,
        query,
        lines,
        body,
    )


def _field(name: bytes, value: bytes) -> Callable[[int], bytes]:
    return lambda number: request(number, b"%b: %b\r\n" % (name, value))


def _list(name: bytes, member: bytes) -> Callable[[int], bytes]:
    return _field(name, (member * (OCTETS // len(member) + 1))[:OCTETS].rstrip(b", "))


def _chunked(body: bytes) -> Callable[[int], bytes]:
    return lambda number: request(
        number, b"Transfer-Encoding: chunked\r\n", method=b"POST", body=body
    )


def _burst(one: Callable[[int], bytes]) -> Callable[[int], bytes]:
    return lambda number: b"".join([one(BURST * number + place) for place in range(BURST)])


def _new_cookies(number: int) -> bytes:
    cookies = joined(lambda place: b"n%d-%d=1; " % (number, place), OCTETS)
    return request(number, b"Cookie: " + cookies + b"\r\n")


def _new_parameters(number: int) -> bytes:
    return request(
        number, query=b"?" + joined(lambda place: b"n%d-%d&" % (number, place), TARGET_OCTETS)
    )


def _fields(number: int) -> bytes:
    return request(number, b"".join([b"X-%d: %d\r\n" % (place, number) for place in range(120)]))


_BROWSER: Final = (
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: de,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n"
)

KINDS: Final[Sequence[Kind]] = (
    Kind(ORDINARY, "a browser's GET, for comparison", lambda n: request(n, _BROWSER)),
    Kind("blanks", "60,000 blanks before an odd octet", _field(b"X", b" " * OCTETS + b"\x7f")),
    Kind("blanks-in-list", "60,000 blanks in Accept-Encoding",
         _field(b"Accept-Encoding", b"gzip" + b" " * OCTETS + b"x")),
    Kind("cookies", "60 KB of cookies with new names", _new_cookies),
    Kind("all-cookies", "as many new cookies as RETTER looks at, 192, in 3 KB",
         lambda n: request(n, b"Cookie: " + b"; ".join(
             [b"n%d-%d=1" % (n, place) for place in range(192)]) + b"\r\n")),
    Kind("empty-cookies", "60 KB of semicolons in Cookie", _list(b"Cookie", b";")),
    Kind("parameters", "16 KB of parameters with new names", _new_parameters),
    Kind("all-parameters", "as many new parameters as RETTER looks at, 512, in 7 KB",
         lambda n: request(n, query=b"?" + b"&".join(
             [b"n%d-%d" % (n, place) for place in range(511)]))),
    Kind("empty-parameters", "16 KB of ampersands in the target",
         lambda n: request(n, query=b"?" + b"&" * TARGET_OCTETS)),
    Kind("segments", "16 KB of segments of one octet in the target",
         lambda n: request(n, query=b"/a" * (TARGET_OCTETS // 2))),
    Kind("marks", "16 KB of equals signs, each behind an octet, in the target",
         lambda n: request(n, query=b"?" + b"a=" * (TARGET_OCTETS // 2))),
    Kind("codings", "60 KB of members in Accept-Encoding", _list(b"Accept-Encoding", b"a,")),
    Kind("options", "60 KB of members in Connection", _list(b"Connection", b"a,")),
    Kind("directives", "60 KB of members in Cache-Control", _list(b"Cache-Control", b"a=1,")),
    Kind("tags", "60 KB of tags in If-None-Match", _list(b"If-None-Match", b'W/"a",')),
    Kind("types", "60 KB of types in Accept", _list(b"Accept", b"a/b,")),
    Kind("ranges", "60 KB of ranges in Range", _field(b"Range", b"bytes=" + b"0-1," * 15_000)),
    Kind("forwarded", "60 KB of elements in Forwarded", _list(b"Forwarded", b"for=a;proto=b,")),
    Kind("addresses", "60 KB of addresses in X-Forwarded-For",
         _list(b"X-Forwarded-For", b"192.0.2.1, ")),
    Kind("fields", "120 new fields in each head", _fields),
    Kind("many-fields", "60 KB of fields, 12,000 of them",
         lambda n: request(n, b"a:b\r\n" * 12_000)),
    Kind("empty-lines", "60 KB of empty lines before a request",
         lambda n: b"\r\n" * (OCTETS // 2) + request(n)),
    Kind("octets", "a head of 2 KB in segments of one octet",
         lambda n: request(n, b"X: %b\r\n" % (b"a" * 2000)), piece=1),
    Kind("chunks", "10,000 chunks of one octet", _chunked(b"1\r\na\r\n" * 10_000 + b"0\r\n\r\n")),
    Kind("chunks-by-octets", "chunks of one octet in segments of one",
         _chunked(b"1\r\na\r\n" * 300 + b"0\r\n\r\n"), piece=1),
    Kind("extensions", "chunks of one octet with extensions",
         _chunked(b"1;a=b\r\na\r\n" * 6_000 + b"0\r\n\r\n")),
    Kind("trailers", "8 KB of trailer fields", _chunked(b"0\r\n" + b"a:b\r\n" * 1_600 + b"\r\n")),
    Kind("head", "HEAD, 32 at once", _burst(lambda n: request(n, method=b"HEAD")), BURST),
    Kind("bodies", "GETs with a body of one octet, 32 at once",
         _burst(lambda n: request(n, b"Content-Length: 1\r\n", body=b"a")), BURST),
    Kind("tiny", "GETs of 45 octets, 32 at once", _burst(lambda n: request(n)), BURST),
)  # fmt: skip
