"""Faults of applications, at every stage and of every kind, and what the client gets then.

A row is a request and a script for the application: bytes to send and what happens after them. What
comes of it is one of

- a status, for an answer of ours (502, 504) or a whole answer of the application's;
- CUT: the head had been passed on, and the connection to the client is cut, so that a truncated
  answer looks like one (RFC 9112 section 8).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Then(Enum):
    """The application's action after its last bytes."""

    NOTHING = "goes on"
    CLOSE = "closes"
    RESET = "resets"
    SILENCE = "falls silent"


CUT = 0

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
HALF_POST = POST[:-2]
HALF_CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass(frozen=True)
class Misbehaviour:
    name: str
    sends: tuple[bytes, ...]  # pieces, each on its own
    outcome: int  # what the client gets in the end: a status or CUT
    then: Then = Then.NOTHING
    request: bytes = GET
    body: bytes = b""  # what arrives of it at the client, unchunked
    informational: int = 0  # 1xx that pass before
    reused: bool = False  # the upstream connection serves the next request too
    pause_s: float = 0.0  # between the pieces
    client_closed: bool = False  # after the answer, by us
    late: bytes = b""  # sent when the answer is over, while nobody asks


def _shown(data: bytes) -> str:
    text = data.decode("latin-1").encode("unicode_escape").decode()
    return text if len(text) <= 40 else f"{text[:40]}...({len(data)})"


LENGTH_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE_HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

# stage -> (what has been sent, what the client has got of the body, 1xx passed, head passed)
STAGES: dict[str, tuple[tuple[bytes, ...], bytes, int, bool]] = {
    "before a byte": ((), b"", 0, False),
    "in the version": ((b"HTT",), b"", 0, False),
    "in the status line": ((b"HTTP/1.1 20",), b"", 0, False),
    "after the status line": ((b"HTTP/1.1 200 OK\r\n",), b"", 0, False),
    "in a field": ((LENGTH_HEAD[:24],), b"", 0, False),
    "before the empty line": ((LENGTH_HEAD[:-2],), b"", 0, False),
    "in the empty line": ((LENGTH_HEAD[:-1],), b"", 0, False),
    "after a 103": ((HINTS,), b"", 1, False),
    "in the head after a 103": ((HINTS + LENGTH_HEAD[:9],), b"", 1, False),
    "after the head": ((LENGTH_HEAD,), b"", 0, True),
    "in the body": ((LENGTH_HEAD + b"hello",), b"hello", 0, True),
    "before the last octet": ((LENGTH_HEAD, b"hello wor", b""), b"hello wor", 0, True),
    "after a chunked head": ((CHUNKED_HEAD,), b"", 0, True),
    "in a chunk size": ((CHUNKED_HEAD + b"5",), b"", 0, True),
    "after a chunk size": ((CHUNKED_HEAD + b"5\r\n",), b"", 0, True),
    "in a chunk": ((CHUNKED_HEAD, b"5\r\nhel"), b"hel", 0, True),
    "after a chunk": ((CHUNKED_HEAD, b"5\r\nhello\r\n"), b"hello", 0, True),
    "after the last chunk": ((CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n",), b"hello", 0, True),
    "in the trailers": ((CHUNKED_HEAD + b"5\r\nhello\r\n0\r\nX: y\r\n",), b"hello", 0, True),
}
GARBAGE = b"\x00\xffgarbage\r\n\r\n"


def _stages() -> Iterator[Misbehaviour]:
    for stage, (sends, body, informational, passed) in STAGES.items():
        sends = tuple([piece for piece in sends if piece])
        for then, status in ((Then.CLOSE, 502), (Then.RESET, 502), (Then.SILENCE, 504)):
            yield Misbehaviour(
                f"{then.value} {stage}",
                sends,
                CUT if passed else status,
                then,
                body=body,
                informational=informational,
            )
        if not passed:
            yield Misbehaviour(
                f"sends garbage {stage}", (*sends, GARBAGE), 502, informational=informational
            )
    for stage in ("in a chunk size", "after a chunk", "after the last chunk", "in the trailers"):
        sends, body, _, _ = STAGES[stage]
        yield Misbehaviour(f"sends garbage {stage}", (*sends, GARBAGE), CUT, body=body)
    yield Misbehaviour(
        "resets in a body that ends with the connection",
        (CLOSE_HEAD, b"hel"),
        CUT,
        Then.RESET,
        body=b"hel",
    )
    yield Misbehaviour(
        "falls silent in a body that ends with the connection",
        (CLOSE_HEAD, b"hel"),
        CUT,
        Then.SILENCE,
        body=b"hel",
    )
    yield Misbehaviour(
        "closes to end the body, as it may",
        (CLOSE_HEAD, b"hel", b"lo"),
        200,
        Then.CLOSE,
        body=b"hello",
    )
    yield Misbehaviour("closes to end an empty body", (CLOSE_HEAD,), 200, Then.CLOSE)
    for request, name in ((POST, "a POST"), (HALF_POST, "half a POST"), (HALF_CHUNKS, "half the chunks"),
                          (HEAD, "a HEAD"), (UPGRADE, "an upgrade")):  # fmt: skip
        for then in (Then.CLOSE, Then.RESET):
            yield Misbehaviour(
                f"{then.value} on {name}",
                (),
                502,
                then,
                request,
                client_closed=request in (HALF_POST, HALF_CHUNKS),
            )


BAD_HEADS = [
    b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/0.9 200 OK\r\n\r\n", b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 099 OK\r\n\r\n", b"HTTP/1.1 -20 OK\r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n", b"HTTP/1.1\t200 OK\r\n\r\n",
    b"http/1.1 200 OK\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"200 OK\r\n\r\n", b"ICY 200 OK\r\n\r\n",
    b" HTTP/1.1 200 OK\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"<html>oops</html>\r\n\r\n", b"SSH-2.0-OpenSSH\r\n\r\n", b"220 smtp\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nX: y\n\r\nok", b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n X: y\r\n\r\n", b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX\r\n\r\n", b"HTTP/1.1 200 OK\r\n: y\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", b"HTTP/1.1 200 O\x00K\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX Y: z\r\n\r\n", b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 +200 OK\r\n\r\n", b"HTTP/1.1 2_0 OK\r\n\r\n", b"HTTP/1.1 200\tOK\r\n\r\n",
    b"HTTP/1.1 000 OK\r\n\r\n", b"HTTP/11 200 OK\r\n\r\n", b"HTTP/1.1 \xb2\xb0\xb0 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX\x80: y\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: y\x7f\r\n\r\n",
]  # fmt: skip
BAD_FRAMINGS = [
    b"Content-Length: 2\r\nContent-Length: 2\r\n", b"Content-Length: 2\r\nContent-Length: 3\r\n",
    b"Content-Length: 2, 2\r\n", b"Content-Length: -2\r\n", b"Content-Length: +2\r\n",
    b"Content-Length: 0x2\r\n", b"Content-Length: two\r\n", b"Content-Length:\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding:\r\n",
]  # fmt: skip


def _heads() -> Iterator[Misbehaviour]:
    for head in BAD_HEADS:
        yield Misbehaviour(f"answers {_shown(head)!r}", (head,), 502)
    for lines in BAD_FRAMINGS:
        yield Misbehaviour(
            f"frames by {_shown(lines)!r}", (b"HTTP/1.1 200 OK\r\n" + lines + b"\r\nok",), 502
        )
    yield Misbehaviour(
        "chunks in HTTP/1.0",
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
        502,
    )
    yield Misbehaviour(
        "frames a 204 by two lengths",
        (b"HTTP/1.1 204 None\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",),
        502,
    )
    yield Misbehaviour(
        "a huge field", (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",), 502
    )
    yield Misbehaviour(
        "a head without an end",
        (b"HTTP/1.1 200 OK\r\n", *[b"X: " + b"y" * 9000 + b"\r\n"] * 8),
        502,
    )
    yield Misbehaviour("a status line without an end", (b"HTTP/1.1 200 " + b"O" * 70_000,), 502)


BAD_SIZES = [
    b"", b"g", b"0x2", b"+2", b"-2", b"2 3", b" 2", b"2;", b"0" * 16 + b"2", b"f" * 16, b"2\n", b"2\r",
    b"2;\x00", b"2;a\rb", b"2,2", b"2;" + b"a" * 2000,
]  # fmt: skip
BAD_TRAILERS = [
    b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b"X: y\r\n z\r\n",
    b"X: y\nZ: 1\r\n", b"X\r\n", b"X: " + b"y" * 9000 + b"\r\n",
]  # fmt: skip


def _chunks() -> Iterator[Misbehaviour]:
    first = b"3\r\nabc\r\n"
    for size in BAD_SIZES:
        yield Misbehaviour(
            f"chunk size {_shown(size)!r}",
            (CHUNKED_HEAD + first, size + b"\r\nok\r\n0\r\n\r\n"),
            CUT,
            body=b"abc",
        )
    yield Misbehaviour(
        "chunk sizes of the same width",
        (CHUNKED_HEAD + b"3   \r\nabc\r\n", b"2\t  \r\nok\r\n0   \r\n\r\n"),
        200,
        body=b"abcok",
        reused=True,
    )
    for lines in BAD_TRAILERS:
        yield Misbehaviour(
            f"trailers {_shown(lines)!r}",
            (CHUNKED_HEAD + first, b"0\r\n" + lines + b"\r\n"),
            CUT,
            body=b"abc",
        )
    yield Misbehaviour(
        "a chunk longer than its size", (CHUNKED_HEAD + first, b"1\r\nab\r\n"), CUT, body=b"abc"
    )
    yield Misbehaviour(
        "LF after a chunk", (CHUNKED_HEAD + first, b"1\r\na\n0\r\n\r\n"), CUT, body=b"abc"
    )
    yield Misbehaviour("a bad chunk with the head", (CHUNKED_HEAD + b"x\r\n",), 502)


def _informational() -> Iterator[Misbehaviour]:
    yield Misbehaviour(
        "as many 103 as may be", (HINTS * 16 + OK,), 200, body=b"ok", informational=16, reused=True
    )
    yield Misbehaviour("a flood of 103", (HINTS * 200,), 502, informational=16)
    yield Misbehaviour("a flood of 103, one by one", (HINTS,) * 20, 502, informational=16)
    yield Misbehaviour(
        "a 100 that nobody waits for",
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK,),
        200,
        body=b"ok",
        informational=1,
        reused=True,
    )
    yield Misbehaviour(
        "a 199",
        (b"HTTP/1.1 199 Hm\r\nX: y\r\n\r\n" + OK,),
        200,
        body=b"ok",
        informational=1,
        reused=True,
    )
    yield Misbehaviour(
        "a 103 with a length",
        (HINTS[:-2] + b"Content-Length: 2\r\n\r\n" + OK,),
        200,
        body=b"ok",
        informational=1,
        reused=True,
    )
    yield Misbehaviour("a 103 with a body", (HINTS + b"body" + OK,), 502, informational=1)
    switch = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    yield Misbehaviour("an unasked 101", (switch,), 502)
    yield Misbehaviour("an unasked 101 with bytes behind it", (switch + OK,), 502)
    yield Misbehaviour("an unasked 101 to a HEAD", (switch,), 502, request=HEAD)
    yield Misbehaviour("an unasked 101 to a POST", (switch,), 502, request=POST)
    yield Misbehaviour("an unasked 101 after a 103", (HINTS + switch,), 502, informational=1)
    yield Misbehaviour(
        "a 101 before the request is complete",
        (switch,),
        502,
        client_closed=True,
        request=UPGRADE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n",
    )


def _bodies_that_must_not_be() -> Iterator[Misbehaviour]:
    for status in (b"204 None", b"304 Same"):
        code = int(status[:3])
        head = b"HTTP/1.1 " + status + b"\r\n"
        yield Misbehaviour(f"{code} with a body at once", (head + b"\r\nbody",), code)
        yield Misbehaviour(
            f"{code} with chunks at once",
            (head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",),
            code,
        )
        yield Misbehaviour(
            f"{code} with a body of some length", (head + b"Content-Length: 4\r\n\r\nbody",), code
        )
        yield Misbehaviour(
            f"{code} with a body that is late", (head + b"\r\n",), code, late=b"body"
        )
    yield Misbehaviour(
        "204 that announces a body that is late",
        (b"HTTP/1.1 204 None\r\nContent-Length: 4\r\n\r\n",),
        204,
    )
    yield Misbehaviour(
        "204 that announces chunks",
        (b"HTTP/1.1 204 None\r\nTransfer-Encoding: chunked\r\n\r\n",),
        204,
    )
    for head in (LENGTH_HEAD, CHUNKED_HEAD):
        shown = "chunked" if head is CHUNKED_HEAD else "counted"
        yield Misbehaviour(
            f"a {shown} body to a HEAD", (head + b"0\r\n\r\nabcde",), 200, request=HEAD
        )
        yield Misbehaviour(
            f"a {shown} body to a HEAD, late", (head,), 200, request=HEAD, late=b"0\r\n\r\nabcde"
        )
    yield Misbehaviour(
        "a body without a length to a HEAD", (CLOSE_HEAD + b"hello",), 200, request=HEAD
    )


def _extra_bytes() -> Iterator[Misbehaviour]:
    for extra in (b"x", b"\r\n", b"\n", OK, b"\x00" * 5000, HINTS):
        yield Misbehaviour(f"{_shown(extra)!r} after the body", (OK + extra,), 200, body=b"ok")
        yield Misbehaviour(
            f"{_shown(extra)!r} after the body, late", (OK,), 200, body=b"ok", late=extra
        )
        yield Misbehaviour(
            f"{_shown(extra)!r} after the last chunk",
            (CHUNKED_HEAD + b"2\r\nok\r\n0\r\n\r\n" + extra,),
            200,
            body=b"ok",
        )
        yield Misbehaviour(
            f"{_shown(extra)!r} with the last octet", (OK[:-1], b"k" + extra), 200, body=b"ok"
        )
        yield Misbehaviour(
            f"{_shown(extra)!r} after an empty body",
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + extra,),
            200,
        )


def _early_answers() -> Iterator[Misbehaviour]:
    for request, shown in ((HALF_POST, "half a body"), (HALF_CHUNKS, "half the chunks")):
        yield Misbehaviour(
            f"a whole answer to {shown}",
            (OK,),
            200,
            request=request,
            body=b"ok",
            client_closed=True,
        )
        yield Misbehaviour(
            f"half an answer to {shown}, then closes",
            (LENGTH_HEAD + b"hello",),
            CUT,
            Then.CLOSE,
            request,
            body=b"hello",
        )
        yield Misbehaviour(
            f"half an answer to {shown}, then resets",
            (LENGTH_HEAD + b"hello",),
            CUT,
            Then.RESET,
            request,
            body=b"hello",
        )
        yield Misbehaviour(f"an answer to {shown} that ends with the connection", (CLOSE_HEAD + b"ok",), 200,
                           Then.CLOSE, request, body=b"ok", client_closed=True)  # fmt: skip
        yield Misbehaviour(
            f"garbage to {shown}", (GARBAGE,), 502, request=request, client_closed=True
        )
        yield Misbehaviour(
            f"413 and a close to {shown}",
            (b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n",),
            413,
            Then.CLOSE,
            request,
            client_closed=True,
        )


def _drip() -> Iterator[Misbehaviour]:
    yield Misbehaviour(
        "a head that drips for ever",
        tuple([b"HTTP/1.1 200 OK"[i : i + 1] for i in range(15)]),
        504,
        pause_s=0.5,
    )
    yield Misbehaviour(
        "fields that drip for ever", (b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 12), 504, pause_s=0.5
    )
    yield Misbehaviour("103s that drip for ever", (HINTS,) * 12, 504, pause_s=0.55, informational=6)
    yield Misbehaviour(
        "a body that drips in time",
        (LENGTH_HEAD, *[b"x"] * 10),
        200,
        body=b"x" * 10,
        pause_s=1.0,
        reused=True,
    )
    yield Misbehaviour(
        "chunks that drip in time",
        (CHUNKED_HEAD, *[b"1\r\nx\r\n"] * 10, b"0\r\n\r\n"),
        200,
        body=b"x" * 10,
        pause_s=1.0,
        reused=True,
    )
    yield Misbehaviour(
        "a body that drips too slowly", (LENGTH_HEAD + b"x", b"x"), CUT, body=b"x", pause_s=3.2
    )


MISBEHAVIOURS: list[Misbehaviour] = [
    *_stages(), *_heads(), *_chunks(), *_informational(), *_bodies_that_must_not_be(),
    *_extra_bytes(), *_early_answers(), *_drip(),
]  # fmt: skip
