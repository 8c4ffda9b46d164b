"""Heads: what they mean, what the other side gets of them, and that the memo cannot be seen."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.base.errors import (
    BadRequest,
    DownstreamError,
    LoopDetected,
    Unsupported,
    UpstreamMalformed,
)
from retter.http import request_parser
from retter.http.framing_rules import check_request_head
from retter.http.memo import HEAD_COST_PER_BYTE, HEAD_ENTRY_BYTES, SEEN_MAX, HeadMemo
from retter.http.message import Framing, RequestHead, ResponseHead, Soft
from retter.http.read_buffer import end_of_head
from retter.http.request_parser import (
    SOFT_BYTES_REMEMBERED_MAX,
    SOFTS_REMEMBERED_MAX,
    RequestParser,
)
from retter.http.response_parser import ResponseParser, parse_response
from retter.http.variants import soft_from, soft_of
from tests.support.compiled import attributes, replaces_parts
from tests.support.harness import FakeProxy, body_of, field, get, reply, split_at, status_of


def parser(*, trusted: bool = False, form_bytes_max: int = 1024 * 1024) -> RequestParser:
    return RequestParser(
        fields_max=20,
        target_bytes_max=100,
        instance=b"me",
        trusted=trusted,
        authority=b"app:8080",
        form_bytes_max=form_bytes_max,
    )


def request(*lines: str, trusted: bool = False) -> RequestHead:
    """Parse by lines, and make sure that h11 comes to the same."""
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    parsed = parser(trusted=trusted).parse(head)
    by_h11 = parser(trusted=trusted).parse_by_h11(head)
    for name in attributes(RequestHead):
        assert getattr(parsed, name) == getattr(by_h11, name), name
    return parsed


def refused(*lines: str) -> int:
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    statuses = []
    for form_bytes_max in (0, 1024):
        with pytest.raises(DownstreamError) as caught:
            parser(form_bytes_max=form_bytes_max).parse(head)
        statuses.append(caught.value.status)
    assert statuses[0] == statuses[1], "by lines and by h11 alike"
    return statuses[0]


def forwarded(head: RequestHead) -> list[str]:
    return head.forward.decode("latin-1").split("\r\n")[1:-1]


# -- requests ---------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    head = request("GET /a?b HTTP/1.1", "hOst: Shop", "X: 1", "x: \xff", "Empty:")
    assert (head.method, head.target, head.host, head.http11) == (b"GET", b"/a?b", b"Shop", True)
    assert head.fields == (
        (b"host", b"Shop"),
        (b"x", b"1"),
        (b"x", b"\xff"),
        (b"empty", b""),
    )
    assert (head.framing, head.content_length, head.keep_alive) == (Framing.NONE, 0, True)
    assert head.forward == (
        b"GET /a?b HTTP/1.1\r\nhOst: Shop\r\nX: 1\r\nx: \xff\r\nEmpty: \r\n"
        b"X-Forwarded-Host: Shop\r\n"
    )
    assert head.first(b"x") == b"1"
    assert head.first(b"y") is None
    assert head.combined(b"x") == b"1, \xff"


def test_framing_of_bodies() -> None:
    head = request("POST / HTTP/1.1", "Host: a", "Content-Length: 12")
    assert (head.framing, head.content_length) == (Framing.LENGTH, 12)
    head = request("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Trailer: X-Sum")
    assert head.framing is Framing.CHUNKED
    assert forwarded(head)[-1] == "Transfer-Encoding: chunked"
    assert "Trailer: X-Sum" in forwarded(head)
    assert request("POST / HTTP/1.1", "Host: a", "Content-Length: 0").framing is Framing.NONE


@pytest.mark.parametrize(
    ("version", "connection", "keep_alive"),
    [
        ("1.1", None, True), ("1.1", "close", False), ("1.1", "Close", False),
        ("1.1", "keep-alive, close", False), ("1.1", "x, CLOSE", False), ("1.0", None, False),
        ("1.0", "Keep-Alive", True), ("1.0", "close", False), ("1.2", None, True),
    ],
)  # fmt: skip
def test_persistence(version: str, connection: str | None, keep_alive: bool) -> None:
    lines = [f"GET / HTTP/{version}", "Host: a"]
    if connection is not None:
        lines.append(f"Connection: {connection}")
    assert request(*lines).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://b", b"/", b"b"), ("HTTP://b:8/", b"/", b"b:8"), ("https://b?x", b"/?x", b"b"),
        ("http://b//c?d#", None, None), ("http://[::1]/x", b"/x", b"[::1]"), ("/", b"/", b"a"),
        ("//x/y", b"//x/y", b"a"), ("/a?http://c", b"/a?http://c", b"a"),
        ("http:///x", None, None), ("http://u@b/", None, None), ("ftp://b/", None, None),
        ("b:80", None, None), ("*", None, None), ("x", None, None), ("/x#y", None, None),
    ],
)  # fmt: skip
def test_targets(target: str, path: bytes | None, host: bytes | None) -> None:
    lines = (f"GET {target} HTTP/1.1", "Host: a")
    if path is None:
        assert refused(*lines) == 400
    else:
        head = request(*lines)
        assert (head.target, head.host) == (path, host)
        name = head.host.decode()
        assert forwarded(head) == [f"Host: {name}", f"X-Forwarded-Host: {name}"]


def test_options_may_ask_for_the_server_itself() -> None:
    assert request("OPTIONS * HTTP/1.1", "Host: a").target == b"*"
    assert request("OPTIONS http://b HTTP/1.1", "Host: a").target == b"*"


def test_http10_needs_no_host() -> None:
    head = request("GET / HTTP/1.0")
    assert head.host == b""
    assert forwarded(head) == ["Host: app:8080"]
    head = request("GET http://b/ HTTP/1.0")
    assert forwarded(head) == ["Host: b", "X-Forwarded-Host: b"]


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (405, ["CONNECT a:1 HTTP/1.1", "Host: a"]),
        (405, ["TRACE / HTTP/1.1", "Host: a"]),
        (400, ["GET / HTTP/1.1"]),
        (400, ["GET / HTTP/1.1", "Host: a", "Host: a"]),
        (400, ["GET / HTTP/1.1", "Host: a b"]),
        (505, ["GET / HTTP/2.0", "Host: a"]),
        (417, ["GET / HTTP/1.1", "Host: a", "Expect: x"]),
        (417, ["GET / HTTP/1.1", "Host: a", "Expect: 100-continue", "Expect: 100-continue"]),
        (400, ["GET / HTTP/1.1", "Host: a", "X : y"]),
        (400, ["GET  / HTTP/1.1", "Host: a"]),
        (414, ["GET /" + "x" * 100 + " HTTP/1.1", "Host: a"]),
        (414, ["GET /" + "x" * 1000 + " HTTP/1.1", "Host: a"]),
        (431, ["GET / HTTP/1.1", "Host: a", *["X: y"] * 20]),
        (508, ["GET / HTTP/1.1", "Host: a", "Via: 1.1 retter (me)"]),
        (400, ["POST http://a/ HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 5"]),
        (400, ["POST / HTTP/1.0", "Content-Length: 5, 5"]),
    ],
)
def test_heads_that_are_refused(status: int, lines: list[str]) -> None:
    assert refused(*lines) == status


def test_limits_are_exact() -> None:
    assert request("GET /" + "x" * 99 + " HTTP/1.1", "Host: a").target == b"/" + b"x" * 99
    assert len(request("GET / HTTP/1.1", "Host: a", *["X: y"] * 19).fields) == 20


def test_expect() -> None:
    head = request("PUT / HTTP/1.1", "Host: a", "Expect: 100-Continue", "Content-Length: 1")
    assert head.expect_continue
    assert "Expect: 100-Continue" in forwarded(head)
    head = request("PUT / HTTP/1.0", "Host: a", "Expect: anything", "Content-Length: 1")
    assert not head.expect_continue
    assert "Expect: anything" not in forwarded(head)


def test_what_connection_names_ends_here_but_for_what_is_protected() -> None:
    head = request(
        "GET / HTTP/1.1",
        "Host: a",
        "Connection: close, X-Odd, host, cookie, authorization, x-forwarded-host, content-type",
        "Connection: accept-language",
        "X-Odd: 1",
        "Cookie: a=b",
        "Authorization: x",
        "Content-Type: y",
        "Keep-Alive: 5",
        "TE: gzip",
        "Proxy-Connection: z",
        "Accept-Language: fr",
    )
    assert forwarded(head) == [
        "Host: a",
        "Cookie: a=b",
        "Authorization: x",
        "Content-Type: y",
        "X-Forwarded-Host: a",
    ]
    assert head.first(b"x-odd") is None, "nor does it decide whose stored response this is"
    assert head.first(b"accept-language") is None
    assert head.first(b"cookie") == b"a=b"


def test_upgrade_is_put_back_when_it_is_meant() -> None:
    upgrade = "Upgrade: websocket"
    assert request("GET / HTTP/1.1", "Host: a", upgrade).upgrade == b""
    assert request("GET / HTTP/1.0", "Host: a", "Connection: upgrade", upgrade).upgrade == b""
    head = request("GET / HTTP/1.1", "Host: a", "Connection: x, UPGRADE", upgrade)
    assert head.upgrade == b"websocket"
    assert forwarded(head)[-2:] == ["Connection: Upgrade", "Upgrade: websocket"]
    for name in ("h2c", "H2C", "HTTP/2.0", "TLS/1.0", "h2c, h2c", ""):
        head = request("GET / HTTP/1.1", "Host: a", "Connection: upgrade", f"Upgrade: {name}")
        assert head.upgrade == b""
        assert not any(line.startswith(("Upgrade", "Connection")) for line in forwarded(head))
    head = request("GET / HTTP/1.1", "Host: a", "Connection: upgrade", "Upgrade: h2c, websocket")
    assert head.upgrade == b"websocket"


def test_a_client_that_takes_trailers_says_so() -> None:
    head = request("GET / HTTP/1.1", "Host: a", "TE: gzip;q=0.5, Trailers", "Connection: TE")
    assert forwarded(head)[-2:] == ["TE: trailers", "Connection: TE"]
    head = request(
        "GET / HTTP/1.1", "Host: a", "TE: trailers", "Connection: TE, Upgrade", "Upgrade: x"
    )
    assert forwarded(head)[-3:] == ["TE: trailers", "Connection: TE, Upgrade", "Upgrade: x"]


def test_forwarding_fields_are_believed_from_trusted_peers_only() -> None:
    lines = (
        "GET / HTTP/1.1", "Host: a", "X-Forwarded-Host: b", "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4", "X-Real-IP: 1.2.3.4", "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 444", "X_Forwarded_For: 6.6.6.6", "X_Real-IP: 6.6.6.6",
        "Content_Length: 6", "Transfer_Encoding: chunked", "X_Mine: stays",
    )  # fmt: skip
    assert forwarded(request(*lines)) == ["Host: a", "X_Mine: stays", "X-Forwarded-Host: a"]
    assert forwarded(request(*lines, trusted=True)) == [
        "Host: a",
        "X-Forwarded-Host: b",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-Port: 444",
        "X_Mine: stays",
    ]


def test_the_hard_way_raises_loops_too() -> None:
    with pytest.raises(LoopDetected):
        parser(form_bytes_max=0).parse(b"GET / HTTP/1.0\r\nVia: 1.0 x, 1.1 retter (me)\r\n\r\n")


def test_conditions_are_seen() -> None:
    assert not request("GET / HTTP/1.1", "Host: a").conditional
    for line in ("Range: bytes=0-", "If-None-Match: *", "If-Modified-Since: x"):
        assert request("GET / HTTP/1.1", "Host: a", line).conditional
        assert request("GET / HTTP/1.0", line).conditional


# -- responses --------------------------------------------------------------------------------


def response(*lines: str) -> ResponseHead:
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    by_lines, by_h11 = ResponseParser().parse(head), parse_response(head)
    for name in attributes(ResponseHead):
        assert getattr(by_lines, name) == getattr(by_h11, name), name
    return by_lines


def test_a_plain_response() -> None:
    head = response(
        "HTTP/1.1 200 All fine",
        "Content-Length: 5",
        "Set-Cookie: a=1",
        "set-cookie: b=2",
        "X: \xe4",
        "Age: 7",
        "Keep-Alive: timeout=5",
        "X-Retter: fake",
        "Connection: keep-alive",
    )
    assert (head.status, head.framing, head.content_length) == (200, Framing.LENGTH, 5)
    assert head.keep_alive
    assert not head.event_stream
    assert head.set_cookies == (b"a=1", b"b=2")
    assert head.forward == (
        b"HTTP/1.1 200 All fine\r\nContent-Length: 5\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n"
        b"X: \xe4\r\nAge: 7\r\nVia: 1.1 retter\r\n"
    )
    assert head.stored == b"HTTP/1.1 200 All fine\r\nX: \xe4\r\nVia: 1.1 retter\r\n"
    assert head.first(b"x") == b"\xe4"
    assert head.combined(b"set-cookie") == b"a=1, b=2"


@pytest.mark.parametrize(
    ("lines", "framing", "keep_alive"),
    [
        (["HTTP/1.1 200 OK"], Framing.CLOSE, False),
        (["HTTP/1.1 200"], Framing.CLOSE, False),
        (["HTTP/1.1 200 OK", "Transfer-Encoding: chunked"], Framing.CHUNKED, True),
        (["HTTP/1.1 200 OK", "Content-Length: 1", "Connection: close"], Framing.LENGTH, False),
        (["HTTP/1.1 200 OK", "Content-Length: 1", "Connection: x, close"], Framing.LENGTH, False),
        (["HTTP/1.0 200 OK", "Content-Length: 1"], Framing.LENGTH, False),
        (["HTTP/1.0 200 OK", "Content-Length: 1", "Connection: keep-alive"], Framing.LENGTH, True),
        (["HTTP/1.1 204 None"], Framing.NONE, True),
        (["HTTP/1.1 204 None", "Content-Length: 0"], Framing.NONE, True),
        (["HTTP/1.1 204 None", "Content-Length: 5"], Framing.NONE, False),
        (["HTTP/1.1 204 None", "Transfer-Encoding: chunked"], Framing.NONE, False),
        (["HTTP/1.1 304 Same", "Content-Length: 5"], Framing.NONE, True),
        (["HTTP/1.1 103 Hints", "Link: x"], Framing.NONE, True),
    ],
)
def test_how_responses_end(lines: list[str], framing: Framing, keep_alive: bool) -> None:
    head = response(*lines)
    assert (head.framing, head.keep_alive) == (framing, keep_alive)


def test_fields_that_a_response_must_not_have_are_left_out() -> None:
    head = response("HTTP/1.1 204 None", "Content-Length: 5", "Connection: X-Hop", "X-Hop: 1")
    assert head.forward == b"HTTP/1.1 204 None\r\nVia: 1.1 retter\r\n"
    head = response("HTTP/1.1 101 Switching", "Upgrade: x", "Connection: upgrade", "A: b")
    fields = b"Connection: Upgrade\r\nUpgrade: x\r\nA: b\r\n"
    assert head.forward == b"HTTP/1.1 101 Switching\r\n" + fields
    assert response("HTTP/1.1 304 Same", "Content-Length: 5").forward.count(b"Content-Length") == 1


@pytest.mark.parametrize(
    ("status", "told", "kept"),
    [
        ("426 Upgrade Required", "HTTP/3.0", "HTTP/3.0"),  # RFC 9110 section 15.5.22
        ("426 Upgrade Required", "h2c, TLS/1.0", "h2c, TLS/1.0"),
        ("200 OK", "websocket", "websocket"),  # section 7.8
        ("200 OK", "h2, h2c, websocket", "websocket"),  # what could be asked for here
        ("200 OK", "h2,h2c", ""),
        ("404 No", "TLS/1.2, x", "x"),
        ("103 Hints", "websocket", ""),
    ],
)
def test_an_answer_may_say_what_could_be_spoken(status: str, told: str, kept: str) -> None:
    lines = (f"HTTP/1.1 {status}", "A: b", f"Upgrade: {told}", "Connection: Upgrade")
    head = response(*lines, *(() if status[0] == "1" else ("Content-Length: 0",)))
    offer = f"Connection: Upgrade\r\nUpgrade: {kept}\r\n".encode()
    assert (offer in head.forward) == bool(kept)
    assert (b"pgrade:" in head.forward) == bool(kept)
    assert b"Upgrade" not in head.stored.partition(b"\r\n")[2], "it was that connection's offer"


def test_an_offer_to_upgrade_reaches_the_client_and_is_not_repeated_from_the_store() -> None:
    offer = {"Upgrade": "websocket", "Connection": "Upgrade"}
    proxy = FakeProxy()
    client = proxy.client(get("/socket"))
    proxy.upstream.sends(reply(b"", status="426 Upgrade Required", headers=offer))
    answer = client.received()
    assert (status_of(answer), field(answer, "upgrade")) == (426, "websocket")
    assert b"\r\nConnection: Upgrade\r\n" in answer and not client.closed
    client.sends(get("/page"))
    proxy.upstream.sends(reply(b"page", headers=offer))
    assert field(client.received(), "upgrade") == "websocket"
    client.sends(get("/page"))
    proxy.upstream.sends(reply(b"", status="500 Oh"))
    answer = client.received()
    assert body_of(answer) == b"page" and b"pgrade" not in answer


def test_event_streams_are_seen() -> None:
    assert response("HTTP/1.1 200 OK", "Content-Type: Text/Event-Stream;charset=x").event_stream
    assert response(
        "HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Content-Length: 1"
    ).event_stream


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.1 99 OK\r\n\r\n", b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n", b"200 OK\r\n\r\n", b"\r\n\r\n",
        b" HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n", b"HTTP/1.1 200 OK\r\nX\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", b"HTTP/1.1 200 OK\nX: y\n\r\n\r\n",
    ],
)  # fmt: skip
def test_responses_that_are_refused(head: bytes) -> None:
    for form_bytes_max in (0, 1024):
        with pytest.raises(UpstreamMalformed):
            ResponseParser(form_bytes_max).parse(head)


@pytest.mark.parametrize(
    "head",
    [
        get().replace(b" / ", b" /" + b"\xff" * 20 + b" "),
        get().replace(b"\r\n\r\n", b"\r\n" + b"\xff" * 9000 + b"\r\n\r\n"),
        get().replace(b"\r\n\r\n", b"\r\nCookie : session=secret\r\n\r\n"),
    ],
)
def test_what_is_refused_is_not_repeated_to_its_client(head: bytes) -> None:
    """The text would be four times as long as a line of control octets, and tell a secret."""
    with pytest.raises(BadRequest) as caught:
        parser().parse(head)
    assert str(caught.value) in ("illegal request line", "illegal header line")


@pytest.mark.parametrize(
    ("method", "sent", "forwarded"),
    [
        ("OPTIONS", "1", b"0"), ("OPTIONS", "10", b"9"), ("OPTIONS", "010", b"9"),
        ("OPTIONS", "9" * 90, b"999"), ("OPTIONS", "-1", b"-1"), ("OPTIONS", "x", b"x"),
        ("GET", "0", b"0"), ("GET", "7", b"7"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form_bytes_max", [0, 1024])
def test_each_hop_counts(method: str, sent: str, forwarded: bytes, form_bytes_max: int) -> None:
    """RFC 9110 section 7.6.2, for OPTIONS; TRACE is not forwarded, and others need not count."""
    head = get(headers={"Max-Forwards": sent}).replace(b"GET", method.encode(), 1)
    reads = parser(form_bytes_max=form_bytes_max)
    for _ in range(2):
        assert b"\r\nMax-Forwards: " + forwarded + b"\r\n" in reads.parse(head).forward


@pytest.mark.parametrize("target", ["/", "*"])
@pytest.mark.parametrize("hops", ["0", "000"])
def test_the_last_hop_does_not_forward(target: str, hops: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parser().parse(get(target, headers={"Max-Forwards": hops}).replace(b"GET", b"OPTIONS", 1))
    assert caught.value.status == 501


# -- the end of a head ------------------------------------------------------------------------


def test_the_end_of_a_head() -> None:
    head = get()
    for cut in range(len(head)):
        assert end_of_head(head[:cut], 1000, check_request_head) == 0
    assert end_of_head(head + b"more", 1000, check_request_head) == len(head)
    assert end_of_head(head, len(head), check_request_head) == len(head)
    for buffer in (head, head[:-1]):
        with pytest.raises(BadRequest) as caught:
            end_of_head(buffer, len(head) - 2, check_request_head)
        assert caught.value.status == 431
    with pytest.raises(BadRequest):
        end_of_head(b"GET / HTTP/1.1\n", 1000, check_request_head)


# -- the memo ---------------------------------------------------------------------------------


def test_the_memo_keeps_what_is_asked_for() -> None:
    memo: HeadMemo[int] = HeadMemo(20_000)
    memo.put(b"kept", 1)
    for n in range(200):
        assert memo.get(b"kept") == 1
        memo.put(b"%d" % n, n)
    assert memo.get(b"0") is None
    assert (memo.hits, memo.misses) == (200, 1)


def test_the_memo_takes_in_what_comes_again() -> None:
    memo: HeadMemo[int] = HeadMemo(20_000)
    memo.offer(b"head", 1)
    assert memo.get(b"head") is None
    memo.offer(b"head", 1)
    assert memo.get(b"head") == 1
    for n in range(SEEN_MAX + 10):
        memo.offer(b"once %d" % n, n)
    assert len(memo) == 1


@settings(max_examples=60, deadline=None)
@given(
    bytes_max=st.integers(0, 20_000),
    heads=st.lists(st.integers(0, 900), max_size=80),
)
def test_the_memo_is_bounded_and_never_wrong(bytes_max: int, heads: list[int]) -> None:
    """Its cost never passes the bound, and what it returns is what was put under these bytes."""
    memo: HeadMemo[int] = HeadMemo(bytes_max)
    for n in heads:
        head = b"x" * n
        assert memo.get(head) in (None, n)
        memo.put(head, n)
        entries = {**memo.old, **memo.young}
        cost = sum(len(key) * HEAD_COST_PER_BYTE + HEAD_ENTRY_BYTES for key in entries)
        assert cost <= bytes_max
        assert len(memo) * 500 <= bytes_max, "bounded in entries too"


FIELD_LINES = st.sampled_from(
    ["Host: a", "Cookie: a=b", "Cookie: PHPSESSID=1", "Accept: */*", "Connection: close", "X: \xff",
     "Connection: keep-alive, X", "Content-Length: 3", "Upgrade: websocket", "If-None-Match: *",
     "Transfer-Encoding: chunked", "X_Forwarded_For: 1", "X : y", "TE: trailers", "Expect: x"],
)  # fmt: skip
HEADS = st.builds(
    lambda line, fields: "\r\n".join([line, "Host: a", *fields, "", ""]).encode("latin-1"),
    st.sampled_from(
        ["GET / HTTP/1.1", "GET /x HTTP/1.0", "POST / HTTP/1.1", "GET http://b/ HTTP/1.1"]
    ),
    st.lists(FIELD_LINES, max_size=4),
)


@settings(max_examples=80, deadline=None)
@given(head=HEADS, data=st.data())
def test_the_memo_is_invisible(head: bytes, data: st.DataObject) -> None:
    """Same bytes in, same bytes out: without a memo, with one, and with one that is full."""
    outcomes = []
    cuts = data.draw(st.sets(st.integers(1, len(head) - 1), max_size=3))
    for bytes_max in (0, 1200, 1_000_000):
        proxy = FakeProxy()
        memos = proxy.services.heads.request_memos
        for kind in memos:
            memos[kind] = HeadMemo(bytes_max)
        proxy.services.peers.instance = b"x"
        seen = []
        for pieces in ([head], [head], split_at(head, cuts), [head]):
            client = proxy.client()
            for piece in pieces:
                client.sends(piece)
            upstream = proxy.upstream.received() if proxy.upstreams else b""
            if proxy.upstreams and not proxy.upstream.closed:
                proxy.upstream.sends(reply(b"x"))
            answer = client.received()
            seen.append((_without_via(upstream), _without_date(answer), client.closed))
        outcomes.append(seen)
        proxy.settle()
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][0] == outcomes[0][1] == outcomes[0][3], "known or not"
    assert outcomes[0][0] == outcomes[0][2], "cut or whole"


def _without_via(message: bytes) -> list[bytes]:
    return [line for line in message.split(b"\r\n") if not line.startswith(b"Via: ")]


def _without_date(message: bytes) -> list[bytes]:
    return [line for line in message.split(b"\r\n") if not line.startswith(b"Date: ")]


def test_a_head_that_is_parsed_once_is_not_parsed_again() -> None:
    proxy = FakeProxy()
    client = proxy.client()
    for n in range(4):
        client.sends(get())
        proxy.upstream.sends(reply(b"%d" % n))
        assert body_of(client.received()) == b"%d" % n
    memo = proxy.services.heads.request_memos[False, b"http"]
    assert len(memo) == 1


def test_the_head_found_last_is_forgotten_with_all_others() -> None:
    """What a head means has changed then: its cookie may be a session now."""
    proxy = FakeProxy()
    client = proxy.client()
    heads = proxy.services.heads
    memo = heads.request_memos[False, b"http"]
    for _ in range(3):
        client.sends(get())
        proxy.upstream.sends(reply(b"same"))
    assert (memo.last, heads.response_memo.last) == (get(), reply(b"same")[: -len(b"same")])
    known = memo.last_value
    heads.forget_requests()
    heads.response_memo.clear()
    assert (memo.last_value, heads.response_memo.last_value) == (None, None)
    for _ in range(3):
        client.sends(get())
        proxy.upstream.sends(reply(b"same"))
    assert memo.last_value is not None
    assert memo.last_value is not known


def test_a_head_that_begins_as_the_one_found_last() -> None:
    """In whatever pieces an answer comes, and whether it is longer or shorter than the last."""
    proxy = FakeProxy()
    client = proxy.client()
    one = reply(b"one", headers={"X-A": "1"})
    other = reply(b"other", headers={"X-A": "1", "X-B": "2"})
    for answer in [one, one, one, other, other, other, one, other]:
        for at in (None, len(answer) - 4, 40):
            client.sends(get())
            for piece in [answer] if at is None else [answer[:at], answer[at:]]:
                proxy.upstream.sends(piece)
            received = client.received()
            assert body_of(received) == body_of(answer)
            assert field(received, "x-b") == field(answer, "x-b")


def test_language_and_device_of_heads_of_one_form() -> None:
    """They are remembered from head to head: each has its own, as h11 reads it."""
    reads = parser()
    said = [
        ("de", "Mozilla/5.0 (X11)"),
        ("de", "Mozilla/5.0 Mobile"),
        ("", "curl/8"),
        ("fr-CH, en", ""),
    ]
    for language, agent in [*said, *said, said[0], said[0], said[2]]:
        lines = [
            "GET / HTTP/1.1",
            "Host: a",
            f"User-Agent: {agent}",
            f"Accept-Language: {language}",
        ]
        head = "\r\n".join([*lines, "Accept: */*", "\r\n"]).encode()
        assert soft_of(reads.parse(head)) == soft_of(parser().parse_by_h11(head))


@replaces_parts
def test_languages_and_devices_of_a_form_are_read_once_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[object] = []

    def counting(*arguments: Any) -> Soft:
        read.append(arguments)
        return soft_from(*arguments)

    monkeypatch.setattr(request_parser, "soft_from", counting)
    reads = parser()

    def ask(language: str) -> None:
        lines = ["GET / HTTP/1.1", "Host: a", f"Accept-Language: {language}", "Accept: */*"]
        head = reads.parse("\r\n".join([*lines, "\r\n"]).encode())
        assert soft_of(head)[0] == language.partition("-")[0].encode()

    for language in ["de", "fr", "en"] * 5:
        ask(language)
    assert len(read) == 3
    for number in range(SOFTS_REMEMBERED_MAX):
        ask(f"de-{number}")
    ask("fr")
    assert len(read) == 3 + SOFTS_REMEMBERED_MAX + 1, "all are forgotten if there are too many"
    long = "en-" + "x" * SOFT_BYTES_REMEMBERED_MAX
    for language in [long, "fr"] * 3:
        ask(language)
    assert read.count(read[-1]) == 3, "a long one is read each time"


def test_what_is_not_plainly_one_head() -> None:
    reads = parser()
    head = b"GET /one HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\nReferer: /\r\n\r\n"
    assert reads.parse_plain(head) is None  # its form is new
    reads.parse(head)
    parsed = reads.parse_plain(head.replace(b"/one", b"/two"))
    assert parsed is not None and parsed.target == b"/two"
    assert parsed.fields == reads.parse_by_h11(head).fields
    changes = [
        (b"b\r", b"b\n\r"), (b"b\r", b"b \r"), (b"b\r", b" b\r"), (b"b\r", b"b\0\r"),
        (b"b\r", b"b\r\n\r\nGET /three HTTP/1.1\r"), (b"/one", b"/one /two"),
        (b"/one ", b"/one\r\nX: y "), (b"/one", b"/#"), (b"/one", b"one"),
        (b"User-Agent: ", b"User-Agent:"), (b"Host: a", b"Host: c"),
    ]  # fmt: skip
    others = [head.replace(old, new) for old, new in changes]
    for other in (
        *others,
        head[:-1],
        head[:-2],
        head + b"x",
        b"\r\n" + head,
        head * 2,
        b"",
        b"\r\n",
    ):
        assert reads.parse_plain(other) is None, other


def test_a_long_target_of_a_known_form() -> None:
    reads = parser()
    head = b"GET /%b HTTP/1.1\r\nHost: a\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n"
    reads.parse(head % b"")
    with pytest.raises(BadRequest):
        reads.parse(head % (b"x" * 9000))
