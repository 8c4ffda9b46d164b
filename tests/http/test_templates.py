"""The short way through a head and h11's way come to the same, whatever the lines are."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from retter.base.errors import DownstreamError, UpstreamMalformed
from retter.http.content_coding import Eligibility
from retter.http.message import RequestHead, ResponseHead
from retter.http.request_parser import LATEST_MAX, LATEST_OF_KIND_MAX, RequestParser
from retter.http.response_parser import ResponseParser, parse_response
from retter.http.templates import (
    FORM_BYTES_MAX,
    LAST_LINE,
    OWN_REQUEST_FIELDS,
    FormMemo,
    form_cutter,
)
from tests.support.compiled import attributes
from tests.support.memos import everything_seen

TEXT = st.text(st.sampled_from('ab:;,= \t\x00\x0b\x7f\x85\xa0\xff"-_/'), max_size=6)
NAMES = st.sampled_from(
    ["Host", "X", "Connection", "Content-Length", "Transfer-Encoding", "Upgrade", "Expect", "Via",
     "TE", "X-Forwarded-For", "x_forwarded_for", "Set-Cookie", "Range", "Content-Type", "Vary",
     "Cookie", "cookie", "Referer", "User-Agent", "Date", "Authorization", "ETag", "Close",
     "Keep-Alive"]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(["a", "close", "keep-alive", "0", "5", "chunked", "websocket", "upgrade",
                     "text/event-stream", "1.1 retter (me)", "x, close", "trailers"]),
    TEXT,
)  # fmt: skip
LINES = st.one_of(
    st.builds(lambda name, value: f"{name}: {value}", NAMES, VALUES),
    st.builds(lambda name, value: f"{name}:{value}", NAMES, VALUES),
    TEXT,
)
REQUEST_LINES = st.sampled_from(
    [
        "GET / HTTP/1.1",
        "GET /a?b HTTP/1.1",
        "POST / HTTP/1.0",
        "get * HTTP/1.1",
        "GET /\xff HTTP/1.1",
        "GET http://b/ HTTP/1.1",
        "TRACE / HTTP/1.1",
        "GET /#a HTTP/1.1",
        "GET / HTTP/3.0",
        "G T / HTTP/1.1",
    ]
)
STATUS_LINES = st.sampled_from(
    ["HTTP/1.1 200 OK", "HTTP/1.1 204 X", "HTTP/1.1 304 Y", "HTTP/1.0 200 OK", "HTTP/1.1 200",
     "HTTP/1.1 599 \xff", "HTTP/1.1 103 H", "HTTP/1.1 999 x", "HTTP/2.0 200 OK"]
)  # fmt: skip
ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"])


def _head(line: str, host: bool, fields: list[str], end: str) -> bytes:
    lines = [line, *(["Host: a"] if host else []), *fields]
    return (end.join(lines) + "\r\n\r\n").encode("latin-1")


def _request(parser: RequestParser, head: bytes, *, by_h11: bool) -> object:
    try:
        parsed = parser.parse_by_h11(head) if by_h11 else parser.parse(head)
    except DownstreamError:
        return "refused"  # of several faults either may name another first
    return [getattr(parsed, name) for name in attributes(RequestHead)]


def _response(parser: ResponseParser | None, head: bytes) -> object:
    try:
        parsed = parser.parse(head) if parser is not None else parse_response(head)
    except UpstreamMalformed:
        return "refused"
    return [getattr(parsed, name) for name in attributes(ResponseHead)]


@settings(max_examples=300, deadline=None)
@example("GET / HTTP/1.1", True, ["Connection: close", "Close: x"], "\r\n")
@example("GET / HTTP/1.1", True, ["keep-alive: x", "connection: keep-alive"], "\r\n")
@given(line=REQUEST_LINES, host=st.booleans(), fields=st.lists(LINES, max_size=5), end=ENDS)
def test_requests(line: str, host: bool, fields: list[str], end: str) -> None:
    parser = RequestParser(fields_max=5, target_bytes_max=50, instance=b"me", trusted=False)
    head = _head(line, host, fields, end)
    first = _request(parser, head, by_h11=False)
    assert first == _request(parser, head, by_h11=True)
    for _ in range(2):
        assert first == _request(parser, head, by_h11=False), "with the form remembered"


@settings(max_examples=300, deadline=None)
@example("HTTP/1.1 200 OK", ["Content-Length: 1", "Connection: close", "Close: x"], "\r\n")
@example("HTTP/1.1 200 OK", ["Content-Length: 1", "close: x", "connection: Close"], "\r\n")
@given(line=STATUS_LINES, fields=st.lists(LINES, max_size=5), end=ENDS)
def test_responses(line: str, fields: list[str], end: str) -> None:
    parser = ResponseParser()
    head = _head(line, False, fields, end)
    first = _response(parser, head)
    assert first == _response(None, head)
    for _ in range(2):
        assert first == _response(parser, head), "with the form remembered"


# One parser for all examples, which knows a form from its first time on: so heads share forms.
SHARED_LINES = st.builds(
    lambda name, value, before, after: f"{name}:{before}{value}{after}",
    st.sampled_from(
        ["Cookie", "cookie", "COOKIE", "Content-Length", "Authorization", "X-Forwarded-For",
         "Accept-Encoding", "Connection", "If-None-Match", "Referer", "Host", "X-Forwarded-Host",
         "Set-Cookie", "ETag", "Date", "Content-Type", "Vary", "Cache-Control"]
    ),
    st.sampled_from(["", "a", "5", "05", "5, 5", "500", "\xff", "a\tb", "close", "x, cookie", "*",
                     "br, gzip", "text/html", "no-transform", "Accept-Encoding", "a: b"]),
    st.sampled_from([" ", " ", " ", "", "  ", "\t"]),
    st.sampled_from(["", "", "", " ", "\t"]),
)  # fmt: skip


def _eager(parser: RequestParser | ResponseParser) -> None:
    assert parser._forms is not None
    parser._forms._seen = everything_seen()


@settings(max_examples=100, deadline=None)
@given(
    trusted=st.booleans(),
    heads=st.lists(st.tuples(REQUEST_LINES, st.lists(SHARED_LINES, max_size=4)), max_size=8),
)
def test_requests_that_share_forms(trusted: bool, heads: list[tuple[str, list[str]]]) -> None:
    parser = RequestParser(
        fields_max=5,
        target_bytes_max=50,
        instance=b"me",
        trusted=trusted,
        is_identity_field=lambda name: name in (b"cookie", b"authorization"),
    )
    _eager(parser)
    for line, fields in [*heads, *heads]:
        head = _head(line, True, fields, "\r\n")
        assert _request(parser, head, by_h11=False) == _request(parser, head, by_h11=True)


@settings(max_examples=100, deadline=None)
@given(heads=st.lists(st.tuples(STATUS_LINES, st.lists(SHARED_LINES, max_size=4)), max_size=8))
def test_responses_that_share_forms(heads: list[tuple[str, list[str]]]) -> None:
    eligibility = Eligibility(lambda media_type: media_type == b"text/html", 300)
    parser, long_way = ResponseParser(eligibility=eligibility), ResponseParser(0, 0, eligibility)
    _eager(parser)
    for line, fields in [*heads, *heads]:
        head = _head(line, False, fields, "\r\n")
        assert _response(parser, head) == _response(long_way, head)


PIECES = st.lists(
    st.sampled_from(
        ["\r\n", "\r", "\n", "Cookie", "Referer", ":", ": ", " ", "x", "Cookie: x", "\r\nCookie: ",
         "\r\nReferer: y", "\r\nHost: a", "\x00", "\t"]
    ),
    max_size=9,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(one=PIECES, other=PIECES)
def test_equal_forms_differ_in_what_is_filled_in_alone(one: list[str], other: list[str]) -> None:
    cut = form_cutter(OWN_REQUEST_FIELDS)
    forms = []
    for text in (one, other):
        lines = b"\r\n" + "".join(text).encode("latin-1") + b"\r\n"
        pieces = cut(lines)
        assert b"".join(pieces) == lines
        del pieces[2::3]
        forms.append(pieces)
    assert (b"".join(forms[0]) == b"".join(forms[1])) == (forms[0] == forms[1])


def test_an_empty_value_is_not_taken_for_one_taken_out() -> None:
    parser = RequestParser(fields_max=5, target_bytes_max=50, instance=b"me", trusted=False)
    for _ in range(3):
        for cookie in ("Cookie: a", "Cookie: ", "Cookie:", "Cookie:  a", "Cookie: a "):
            head = _head("GET / HTTP/1.1", True, [cookie, "Referer: "], "\r\n")
            assert _request(parser, head, by_h11=False) == _request(parser, head, by_h11=True)


def test_the_memo_of_forms_is_bounded() -> None:
    memo: FormMemo[int] = FormMemo(10_000)
    for n in range(100):
        memo.put(b"line %d" % n, n)
    assert 5 < len(memo) < 25
    assert memo.get(b"line 0") is None
    memo.put(b"x" * (FORM_BYTES_MAX + 1), 1)
    assert b"x" * (FORM_BYTES_MAX + 1) not in memo.young
    small: FormMemo[int] = FormMemo(100)
    small.put(b"x", 1)
    assert len(small) == 0


def test_an_older_form_that_is_asked_for_is_young_again() -> None:
    memo: FormMemo[int] = FormMemo(10_000)
    memo.put(b"kept", 7)
    for n in range(15):
        memo.put(b"line %d" % n, n)
        if b"kept" not in memo.young:
            assert memo.get(b"kept") == 7
    assert memo.young[b"kept"] == 7


# Of one kind: as many lines, and the same third field.
ALIKE = (
    b"GET /%d HTTP/1.1\r\nHost: a\r\nDNT: 1\r\nAccept: */*\r\nCookie: a=%d\r\nReferer: /\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nDNT: 1\r\nAccept: */*\r\nReferer: /%d\r\nCookie: a=1\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: b\r\nDNT: 1\r\nAccept: */*\r\nCookie: a=%d\r\nReferer: /\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nDNT: 0\r\nAccept: */*\r\nCookie: a=%d\r\nReferer: /\r\n\r\n",
    b"GET /%d HTTP/1.1\r\nHost: a\r\nDNT: 1\r\nAccept: */*\r\nX-Token: a=%d\r\nAge: 1\r\n\r\n",
)


def _latest_forms(parser: RequestParser) -> int:
    return sum(len(forms) for forms in parser._latest.values())


def test_forms_of_one_kind_are_told_apart() -> None:
    parser = RequestParser(fields_max=9, target_bytes_max=50, instance=b"me", trusted=False)
    for number in range(4):
        for one in ALIKE:
            head = one % (number, number)
            known, by_h11 = [_request(parser, head, by_h11=which) for which in (False, True)]
            assert known == by_h11
    assert len(parser._latest) < len(ALIKE)
    assert _latest_forms(parser) >= len(ALIKE)


def test_a_line_tells_a_form_from_the_others_of_its_kind() -> None:
    parser = RequestParser(fields_max=9, target_bytes_max=50, instance=b"me", trusted=False)
    for one in ALIKE:
        parser.parse(one % (1, 1))
    assert parser._told.keys() == parser._latest.keys()
    without = 0
    for kind, told in parser._told.items():
        assert {form for _, _, form in told} == set(parser._latest[kind])
        without_line = [(at, line) == LAST_LINE for at, line, _ in told]
        assert without_line == sorted(without_line), "they are looked at last"
        without += sum(without_line)
        for at, line, form in told:
            if (at, line) != LAST_LINE:
                assert form.outline.constant[at] == line
                others = [other for _, _, other in told if other is not form]
                assert all(other.outline.constant.get(at) != line for other in others)
    assert without < len(ALIKE)


def test_forms_at_hand_are_bounded() -> None:
    parser = RequestParser(fields_max=9, target_bytes_max=50, instance=b"me", trusted=False)
    for number in range(3 * LATEST_MAX):
        kind = b"Accept: %d\r\n" % (number // LATEST_MAX)
        head = b"GET / HTTP/1.1\r\nHost: a\r\nDNT: 1\r\n%bX-A: %d\r\n\r\n" % (kind, number)
        parser.parse(head)
        assert max(len(forms) for forms in parser._latest.values()) <= LATEST_OF_KIND_MAX
    for number in range(3 * LATEST_MAX):
        parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\nDNT: 1\r\nAccept: a/%d\r\n\r\n" % number)
        assert _latest_forms(parser) == parser._latest_count <= LATEST_MAX
    assert _latest_forms(parser)
    long = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: %b\r\n\r\n" % (b"x" * FORM_BYTES_MAX)
    kinds = len(parser._latest)
    assert parser.parse(long).first(b"x-long")
    assert len(parser._latest) == kinds, "it has the values of one visitor"


def test_a_short_request_line_has_no_form() -> None:
    """Whatever is cut from it, compiled too: such a head goes to h11, which refuses it."""
    parser = RequestParser(fields_max=9, target_bytes_max=50, instance=b"me", trusted=False)
    rest = b"\r\nHost: a\r\nDNT: 1\r\n\r\n"
    parser.parse(b"GET / HTTP/1.1" + rest)
    assert parser._told
    for method in (b"GET", b"GxT", b"PUT"):
        line = method + b" / HTTP/1.1"
        for size in range(len(line)):
            head = line[:size] + rest
            assert parser.parse_plain(head) is None
            with pytest.raises(DownstreamError):
                parser.parse(head)
