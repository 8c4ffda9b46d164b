"""`--store-policy rfc9111` against RFC 9111, rule by rule.

The questions are those of http-tests/cache-tests; the answers are a parachute's: while the
application is well it answers every request itself, so the store is looked at in its two uses, with
the circuit forced open and with an application that fails. A rule says what the application
answered, what is asked afterwards, and whether the stored answer may be used.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from retter.breaker import Mode
from tests.support.harness import DATE, FakeProxy, body_of, field, reply, status_of

DAY_S = 24 * 3600
NOW = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
IN_A_MINUTE = b"Expires: Sun, 06 Nov 1994 08:50:37 GMT\r\n"
UNDATED = b"X-Undated: 1\r\n"  # an answer with this field has no Date
LATER = DATE.replace("Sun, 06", "Mon, 07")  # what the clock shows when it is received
BODY = b"0123456789"


@dataclass(frozen=True)
class Rule:
    section: str  # of RFC 9111, if it names no other
    says: str
    answer: bytes = b""  # fields
    reused: bool = True
    status: str = "200 OK"
    asks: bytes = b""  # fields of the first request
    again: bytes | None = None  # of the second; None: the same
    target: bytes = b"/"
    again_target: bytes | None = None
    method: bytes = b"GET"
    again_method: bytes = b"GET"
    wait_s: int = 0  # before the second request
    between: tuple[tuple[bytes, bytes], ...] = ()  # requests and their answers
    gets: int = 200  # the second request, if the stored answer is used
    body: bytes = BODY
    has: tuple[str, ...] = ()  # fields of that answer, "Name: value"
    lacks: tuple[str, ...] = ()
    cut: bool = False  # the answer did not arrive whole


def _cc(directives: str) -> bytes:
    return f"Cache-Control: {directives}\r\n".encode()


def _request(method: bytes, target: bytes, fields: bytes = b"") -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"


def _unsafe(
    method: bytes = b"POST", target: bytes = b"/", status: str = "200 OK", fields: bytes = b""
) -> tuple[tuple[bytes, bytes], ...]:
    return ((_request(method, target), _reply(status, fields, b"done")),)


def _reply(status: str, fields: bytes, body: bytes) -> bytes:
    dated = not (b"Date: " in fields or fields == UNDATED)
    head, end, rest = reply(body, status=status, dated=dated).partition(b"\r\n\r\n")
    return head + b"\r\n" + fields + end[2:] + rest


def _storing() -> Iterator[Rule]:
    yield Rule("3", "an answer to GET may be stored")
    for method in (b"POST", b"PUT", b"PATCH", b"OPTIONS", b"QUERY"):
        yield Rule("3", f"an answer to {method.decode()} is not", method=method, reused=False)
        yield Rule(
            "3", f"no stored answer is one to {method.decode()}", again_method=method, reused=False
        )
    for status in ("200 OK", "203 N", "300 Choices", "301 Moved", "308 Moved"):
        yield Rule("3", f"{status} may be", status=status, gets=int(status[:3]))
    for status in ("201 Created", "202 Accepted", "302 Found", "303 See", "307 Temporary"):
        yield Rule("3", f"{status} is not without being told so", status=status, reused=False)
        yield Rule(
            "3", f"{status} with max-age is", _cc("max-age=60"), status=status, gets=int(status[:3])
        )
    for status in ("206 Partial", "400 Bad", "404 No", "410 Gone", "500 Oops", "503 Busy"):
        yield Rule("3", f"{status} never is", _cc("max-age=60"), reused=False, status=status)
    yield Rule("3", "nor is one that was cut off", cut=True, reused=False)
    yield Rule("3", "Expires tells so, too", NOW + IN_A_MINUTE, status="302 Found", gets=302)
    for directives in ("no-store", "NO-STORE", "max-age=60, no-store", "no-store=1", 'no-store="x"',
                       "no-store, must-understand", ",, no-store ,"):  # fmt: skip
        yield Rule("5.2.2.5", f"{directives}: never stored", _cc(directives), reused=False)
    yield Rule(
        "5.2.2.5",
        "no-store in a line of its own",
        _cc("max-age=60") + _cc("no-store"),
        reused=False,
    )
    for directives in ("private", "Private", 'private="Set-Cookie"', "max-age=60,private"):
        yield Rule("5.2.2.7", f"{directives}: not in a shared store", _cc(directives), reused=False)
    for directives in ("no-cache", "no-Cache", 'no-cache="X"', "no-cache, max-age=60"):
        yield Rule("5.2.2.4", f"{directives}: not without asking", _cc(directives), reused=False)
    yield Rule(
        "5.2.1.5",
        "no-store in a request: its answer is not stored",
        asks=_cc("no-store"),
        again=b"",
        reused=False,
    )
    auth = b"Authorization: Basic eA==\r\n"
    yield Rule("3.5", "an answer to a request with Authorization is not", asks=auth, reused=False)
    yield Rule("3.5", "not with max-age either", _cc("max-age=60"), reused=False, asks=auth)
    for directives in ("public", "must-revalidate, max-age=60", "s-maxage=60"):
        yield Rule("3.5", f"with {directives} it is", _cc(directives), asks=auth)
        yield Rule(
            "3.5",
            f"with {directives} it is, but here never for somebody else",
            _cc(directives),
            asks=auth,
            again=b"Authorization: other\r\n",
            reused=False,
        )
    for broken in ("max-age=60;no-store", 'x="', "=", "max-age=60 no-store"):
        yield Rule("4.2.1", f"what cannot be read forbids: {broken}", _cc(broken), reused=False)


def _age() -> Iterator[Rule]:
    yield Rule(
        "RFC 9110, 6.6.1",
        "an answer without Date gets that of its receipt",
        UNDATED,
        wait_s=30,
        has=(f"Date: {LATER}",),
    )
    yield Rule("5.1", "a stored answer tells its Age", wait_s=30, has=("Age: 30",))
    yield Rule("5.1", "at once, too", has=("Age: 0",))
    yield Rule(
        "4.2.3",
        "which goes on from the one received",
        b"Age: 100\r\n",
        wait_s=30,
        has=("Age: 130",),
    )
    yield Rule("5.1", "of which the first counts", b"Age: 100, 7\r\n", has=("Age: 100",))
    for value in (b"-5", b"x", b"1.5", b""):
        yield Rule(
            "5.1",
            f"one that is no number does not: {value.decode()!r}",
            b"Age: " + value + b"\r\n",
            wait_s=5,
            has=("Age: 5",),
        )
    yield Rule(
        "4.2.4", "a stale answer may be used when nothing forbids it", _cc("max-age=1"), wait_s=100
    )
    for directives in ("must-revalidate", "proxy-revalidate", "s-maxage=10"):
        cc = _cc("max-age=10, " + directives)
        yield Rule("4.2.4", f"{directives}: fresh, it is used", cc, wait_s=9)
        yield Rule("4.2.4", f"{directives}: stale, it is not", cc, wait_s=11, reused=False)
    yield Rule(
        "4.2.1",
        "s-maxage comes before max-age",
        _cc("max-age=99, s-maxage=5"),
        wait_s=6,
        reused=False,
    )
    yield Rule(
        "4.2.1",
        "of two max-age the smaller counts",
        _cc("max-age=99, max-age=5, must-revalidate"),
        wait_s=6,
        reused=False,
    )
    yield Rule(
        "4.2.1",
        "max-age comes before Expires",
        NOW + IN_A_MINUTE + _cc("max-age=5, must-revalidate"),
        wait_s=6,
        reused=False,
    )
    yield Rule(
        "5.3", "Expires counts from Date", NOW + IN_A_MINUTE + _cc("must-revalidate"), wait_s=59
    )
    yield Rule(
        "5.3", "and no longer", NOW + IN_A_MINUTE + _cc("must-revalidate"), wait_s=61, reused=False
    )
    for value in (b"0", b"-1", b"Sun, 06 Nov 1994", b"tomorrow"):
        yield Rule(
            "5.3",
            f"Expires: {value.decode()} is the past",
            NOW + b"Expires: " + value + b"\r\n" + _cc("must-revalidate"),
            wait_s=1,
            reused=False,
        )
    yield Rule(
        "4.2.3",
        "the Age received counts for freshness",
        b"Age: 8\r\n" + _cc("max-age=10, must-revalidate"),
        wait_s=3,
        reused=False,
    )
    yield Rule(
        "RFC 5861, 4",
        "stale-if-error allows so much",
        _cc("max-age=10, stale-if-error=20"),
        wait_s=29,
    )
    yield Rule(
        "RFC 5861, 4", "and no more", _cc("max-age=10, stale-if-error=20"), wait_s=31, reused=False
    )
    yield Rule(
        "RFC 5861, 4",
        "must-revalidate comes before it",
        _cc("max-age=10, stale-if-error=20, must-revalidate"),
        wait_s=11,
        reused=False,
    )
    yield Rule("4.2.4", "nothing is older than the operator allows", wait_s=DAY_S + 1, reused=False)


def _vary() -> Iterator[Rule]:
    vary = b"Vary: Accept-Language\r\n"
    german, french = b"Accept-Language: de\r\n", b"Accept-Language: fr\r\n"
    yield Rule("4.1", "the field that Vary names is the same", vary, asks=german)
    yield Rule("4.1", "it is another", vary, asks=german, again=french, reused=False)
    yield Rule("4.1", "it is gone", vary, asks=german, again=b"", reused=False)
    yield Rule("4.1", "it has come", vary, again=german, reused=False)
    yield Rule(
        "4.1",
        "names have no case",
        b"vary: ACCEPT-language\r\n",
        asks=german,
        again=french,
        reused=False,
    )
    yield Rule(
        "4.1",
        "one of several is another",
        b"Vary: Accept, Accept-Language\r\n",
        asks=german,
        again=french,
        reused=False,
    )
    yield Rule(
        "4.1",
        "in several lines",
        b"Vary: Accept\r\n" + vary,
        asks=german,
        again=french,
        reused=False,
    )
    yield Rule(
        "4.1", "another field is not looked at", vary, asks=german, again=german + b"Accept: x\r\n"
    )
    for value in (b"*", b"Accept, *", b"*, Accept"):
        yield Rule(
            "4.1",
            f"Vary: {value.decode()} never matches",
            b"Vary: " + value + b"\r\n",
            reused=False,
        )
    cookies = b"Vary: Cookie\r\n"
    yield Rule("4.1", "a cookie has come", cookies, again=b"Cookie: a=b\r\n", reused=False)
    yield Rule(
        "4.1",
        "a cookie is another",
        cookies,
        asks=b"Cookie: a=1\r\n",
        again=b"Cookie: a=2\r\n",
        reused=False,
    )
    yield Rule(
        "4.1",
        "a cookie is another, though it identifies nobody",
        cookies,
        asks=b"Cookie: _ga=1\r\n",
        again=b"Cookie: _ga=2\r\n",
        reused=False,
    )
    yield Rule(
        "4.1",
        "a coding that the client takes is no other answer",
        b"Vary: Accept-Encoding\r\n",
        asks=b"Accept-Encoding: gzip\r\n",
        again=b"",
    )
    both = (
        (_request(b"GET", b"/", french), _reply("200 OK", vary, b"en francais")),
        (_request(b"GET", b"/", b"Accept-Language: en\r\n"), _reply("200 OK", vary, b"in English")),
    )
    yield Rule("4.1", "of several the right one is chosen", vary, asks=german, between=both)


def _keys() -> Iterator[Rule]:
    yield Rule("2", "another query is another page", again_target=b"/?x", reused=False)
    yield Rule("2", "so is an empty query", again_target=b"/?", reused=False)
    yield Rule("2", "and another path", target=b"/a", again_target=b"/A", reused=False)
    yield Rule("2", "and another way to write it", target=b"/a", again_target=b"/%61", reused=False)
    yield Rule("2", "a page with a query is one, too", target=b"/?a=b")
    yield Rule("2", "the absolute form is the same page", again_target=b"http://a/")
    yield Rule("2", "of another host it is not", again_target=b"http://b/", reused=False)
    yield Rule(
        "3",
        "the latest answer is used",
        between=((_request(b"GET", b"/"), _reply("200 OK", b"", b"9876543210")),),
        body=b"9876543210",
    )
    yield Rule(
        "3",
        "an error does not replace it",
        between=((_request(b"GET", b"/"), _reply("400 No", b"", b"nothing")),),
    )
    for status in ("404 No", "410 Gone", "401 Who", "403 No"):
        yield Rule(
            "4.3.3",
            f"what is refused afterwards ({status[:3]}) is not used any more",
            between=((_request(b"GET", b"/"), _reply(status, b"", b"nothing")),),
            reused=False,
        )


def _fields() -> Iterator[Rule]:
    yield Rule(
        "3.1",
        "end-to-end fields are stored",
        b"X-Odd: 1\r\nContent-Type: a/b\r\n",
        has=("X-Odd: 1", "Content-Type: a/b"),
    )
    yield Rule(
        "3.1",
        "what concerns the connection is not",
        b"Keep-Alive: timeout=5\r\nProxy-Connection: x\r\n",
        lacks=("Keep-Alive", "Proxy-Connection"),
    )
    yield Rule(
        "3.1",
        "what Connection names is not",
        b"X-Hop: 1\r\nConnection: X-Hop\r\n",
        lacks=("X-Hop",),
    )
    yield Rule(
        "7.3", "a Set-Cookie is not given to others", b"Set-Cookie: a=b\r\n", lacks=("Set-Cookie",)
    )
    yield Rule(
        "5.2.3",
        "Cache-Control is passed on",
        _cc("max-age=60, x=y"),
        has=("Cache-Control: max-age=60, x=y",),
    )
    yield Rule("RFC 9211, 2", "Cache-Status tells that it was stored")


def _conditions() -> Iterator[Rule]:
    etag = b'ETag: "a"\r\n'
    dated = b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

    def none_match(value: bytes) -> bytes:
        return b"If-None-Match: " + value + b"\r\n"

    for value in (b'"a"', b'W/"a"', b'"x", "a"', b"*"):
        yield Rule(
            "4.3.2",
            f"If-None-Match: {value.decode()} of it: 304",
            etag,
            again=none_match(value),
            gets=304,
            body=b"",
            has=('ETag: "a"',),
            lacks=("Content-Length",),
        )
    for value in (b'"b"', b'"A"', b"a", b'"x", "y"'):
        yield Rule(
            "4.3.2",
            f"If-None-Match: {value.decode()} of another: 200",
            etag,
            again=none_match(value),
        )
    yield Rule(
        "4.3.2",
        "a weak one compares weakly",
        b'ETag: W/"a"\r\n',
        again=none_match(b'"a"'),
        gets=304,
        body=b"",
    )
    for date, gets in ((b"Sun, 06 Nov 1994 08:49:37 GMT", 304), (b"Sun, 06 Nov 1994 08:49:38 GMT", 304),
                       (b"Sun, 06 Nov 1994 08:49:36 GMT", 200), (b"yesterday", 200)):  # fmt: skip
        yield Rule(
            "4.3.2",
            f"If-Modified-Since: {date.decode()}: {gets}",
            dated,
            again=b"If-Modified-Since: " + date + b"\r\n",
            gets=gets,
            body=b"" if gets == 304 else BODY,
        )
    yield Rule(
        "RFC 9110, 13.2.2",
        "If-None-Match comes before If-Modified-Since",
        etag + dated,
        again=none_match(b'"b"') + b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
    )
    fresh = ((_request(b"GET", b"/", none_match(b'"a"')),
              b'HTTP/1.1 304 Same\r\nETag: "a"\r\nX-New: 1\r\n\r\n'),)  # fmt: skip
    yield Rule(
        "4.3.4",
        "a 304 renews what it validates",
        etag + b"Age: 50\r\nX-Old: 1\r\n",
        between=fresh,
        has=("X-New: 1", "X-Old: 1", "Age: 0"),
    )
    other = ((_request(b"GET", b"/", none_match(b'"b"')),
              b'HTTP/1.1 304 Same\r\nETag: "b"\r\nX-New: 1\r\n\r\n'),)  # fmt: skip
    yield Rule("4.3.4", "and nothing else", etag, between=other, lacks=("X-New",))
    forbidding = ((_request(b"GET", b"/", none_match(b'"a"')),
                   b'HTTP/1.1 304 Same\r\nETag: "a"\r\nCache-Control: no-store\r\n\r\n'),)  # fmt: skip
    yield Rule("4.3.4", "a 304 may forbid what was allowed", etag, between=forbidding, reused=False)
    shorter = ((_request(b"GET", b"/", none_match(b'"a"')),
                b'HTTP/1.1 304 Same\r\nETag: "a"\r\nCache-Control: max-age=5, must-revalidate\r\n\r\n'),)  # fmt: skip
    yield Rule(
        "3.2",
        "or only for so long",
        etag + _cc("max-age=60"),
        between=shorter,
        wait_s=6,
        reused=False,
    )


def _ranges() -> Iterator[Rule]:
    for value, part, where in (
        ("bytes=2-4", b"234", "bytes 2-4/10"), ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"), ("bytes=8-99", b"89", "bytes 8-9/10"),
    ):  # fmt: skip
        yield Rule(
            "RFC 9110, 14.2",
            f"Range: {value} of a stored whole",
            again=f"Range: {value}\r\n".encode(),
            gets=206,
            body=part,
            has=(f"Content-Range: {where}",),
        )
    yield Rule(
        "RFC 9110, 15.5.17",
        "a range behind the end: 416",
        again=b"Range: bytes=10-\r\n",
        gets=416,
        body=b"",
        has=("Content-Range: bytes */10",),
    )
    for value in ("bytes=4-2", "lines=1-2", "bytes=x", "bytes 1-2"):
        yield Rule(
            "RFC 9110, 14.2", f"Range: {value} is passed over", again=f"Range: {value}\r\n".encode()
        )
    etag = b'ETag: "a"\r\n'
    yield Rule(
        "RFC 9110, 13.1.5",
        "If-Range holds",
        etag,
        gets=206,
        body=b"01",
        again=b'Range: bytes=0-1\r\nIf-Range: "a"\r\n',
    )
    for value in ('"b"', 'W/"a"'):
        yield Rule(
            "RFC 9110, 13.1.5",
            f"If-Range: {value} does not",
            etag,
            again=f"Range: bytes=0-1\r\nIf-Range: {value}\r\n".encode(),
        )
    yield Rule("3.3", "an answer to a range is no whole", asks=b"Range: bytes=0-1\r\n", again=b"",
               status="206 Partial", answer=b"Content-Range: bytes 0-9/99\r\n", reused=False)  # fmt: skip


def _invalidation() -> Iterator[Rule]:
    for method in (b"POST", b"PUT", b"DELETE", b"PATCH", b"MOVE", b"UNHEARD-OF"):
        yield Rule(
            "4.4",
            f"{method.decode()} invalidates its target",
            _cc("max-age=60"),
            between=_unsafe(method),
            reused=False,
        )
    for method in (b"OPTIONS", b"HEAD"):
        between = ((_request(method, b"/"), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),)
        yield Rule("4.4", f"{method.decode()} does not", between=between)
    for status in ("400 Bad", "404 No", "500 Oops", "503 Busy"):
        yield Rule("4.4", f"an error does not: {status}", between=_unsafe(status=status))
    for status in ("201 Created", "303 See"):
        yield Rule("4.4", f"{status} does", between=_unsafe(status=status), reused=False)
    yield Rule("4.4", "not that of another page", between=_unsafe(target=b"/other"))
    for name in ("Location", "Content-Location"):
        for place in ("/", "http://a/", "../"):
            yield Rule(
                "4.4",
                f"{name}: {place} is invalidated, too",
                reused=False,
                between=_unsafe(target=b"/x/y", fields=f"{name}: {place}\r\n".encode()),
            )
        yield Rule(
            "4.4",
            f"not the {name} of another host",
            between=_unsafe(target=b"/x", fields=f"{name}: http://b/\r\n".encode()),
        )
    again = ((_request(b"GET", b"/"), _reply("200 OK", b"", BODY)),)
    yield Rule("4.4", "what is asked for afterwards counts again", between=_unsafe() + again)


RULES: list[Rule] = [
    *_storing(), *_keys(), *_age(), *_vary(), *_fields(), *_conditions(), *_ranges(),
    *_invalidation(),
]  # fmt: skip

WAYS = ("the circuit is open", "the application fails")
OOPS = reply(b"oops", status="500 Oops")


def carry_out(rule: Rule, way: str) -> list[str]:
    """Return what RETTER does otherwise."""
    proxy = FakeProxy(store_policy="rfc9111", max_stale_s=float(DAY_S), pool_idle_s=9e5)
    client = proxy.client()

    def exchange(request: bytes, answer: bytes) -> bytes:
        nonlocal client
        proxy.loop.now += 0.001  # each is asked after the one before
        proxy.date = LATER if b"X-Undated" in answer else DATE
        if client.closed:
            client = proxy.client()
        client.received()
        client.sends(request)
        if proxy.upstreams and proxy.upstream.received():
            proxy.upstream.sends(answer)
        return client.received()

    first = _reply(rule.status, rule.answer, BODY)
    if rule.cut:
        client.sends(_request(rule.method, rule.target, rule.asks))
        proxy.upstream.sends(first[:-1])
        proxy.upstream.resets()
    else:
        exchange(_request(rule.method, rule.target, rule.asks), first)
    for request, answer in rule.between:
        exchange(request, answer)
    proxy.loop.now += rule.wait_s
    if way == WAYS[0]:
        proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    asks = rule.asks if rule.again is None else rule.again
    got = exchange(_request(rule.again_method, rule.again_target or rule.target, asks), OOPS)
    return list(_faults(rule, got))


def _faults(rule: Rule, got: bytes) -> Iterator[str]:
    used = field(got, "x-retter") == "cache"
    if used is not rule.reused:
        yield "the stored answer is used" if used else "the stored answer is not used"
        return
    if not used:
        return
    if status_of(got) != rule.gets:
        yield f"{status_of(got)}, not {rule.gets}"
    if rule.gets != 416 and body_of(got) != rule.body:
        yield f"another body: {body_of(got)!r}"
    for line in rule.has:
        name, _, value = line.partition(": ")
        if field(got, name) != value:
            yield f"{name} is {field(got, name)!r}, not {value!r}"
    for name in rule.lacks:
        if field(got, name) is not None:
            yield f"{name} is there"
    if field(got, "age") is None and rule.gets == 200:
        yield "no Age"
    if "retter; hit" not in (field(got, "cache-status") or ""):
        yield "no Cache-Status"
