"""Refused messages, rule by rule: heads, Host, lengths, chunk lines, trailers, shadowing names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.errors import BadRequest, Unsupported, UpstreamMalformed
from retter.http.framing_rules import (
    check_request_head,
    check_response_head,
    chunk_size_of,
    host_is_valid,
    kept_trailers,
    length_fault,
    length_is_valid,
    line_fault,
    request_framing,
    response_framing,
    shadows,
    trailer_fault,
)
from retter.http.message import Framing

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"X: plain\r\n", None),
        (b"X: tab\there\r\n", None),
        (b"X: \x80\xff\r\n", None),
        (b"X: y\n", "a line ends in a bare LF"),
        (b"X: y\rZ: 1\r\n", "a bare CR"),
        (b"X: y\r\r\n", "a bare CR"),
        (b"X: y\r\n folded\r\n", "a folded field line"),
        (b"X: y\r\n\tfolded\r\n", "a folded field line"),
        *[(b"X: %c\r\n" % octet, "a control character") for octet in range(32)
          if octet not in (9, 10, 13)],
        (b"X: \x7f\r\n", "a control character"),
    ],
)  # fmt: skip
def test_lines(line: bytes, fault: str | None) -> None:
    assert line_fault(HEAD + line + b"\r\n") == fault
    if fault is None:
        check_request_head(HEAD + line)
        check_response_head(HEAD + line)
    else:
        with pytest.raises(BadRequest, match=fault):
            check_request_head(HEAD + line)
        with pytest.raises(UpstreamMalformed, match=fault):
            check_response_head(HEAD + line)


@given(st.integers(0, len(HEAD)))
def test_the_beginning_of_a_plain_head_has_no_fault(cut: int) -> None:
    """A CR at the very end may be followed by its LF in the next segment."""
    assert line_fault(HEAD[:cut]) is None


@pytest.mark.parametrize(
    "host",
    [b"", b"a", b"shop.example", b"shop.example:80", b"a:", b"127.0.0.1:1", b"[::1]", b"[::1]:8080",
     b"xn--bcher-kva.example", b"a_b", b"A%20b"],
)  # fmt: skip
def test_hosts_that_are_taken(host: bytes) -> None:
    assert host_is_valid(host)


@pytest.mark.parametrize(
    "host",
    [b"a b", b"a,b", b"user@a", b"a/b", b"a?b", b"a#b", b"a:b", b"a:123456", b"a:-1", b"[::1",
     b"::1",
     b"[::1]x", b"a\\b", b"\xe4", b"a\n", b"<a>", b'"a"', b"x" * 256],
)  # fmt: skip
def test_hosts_that_are_refused(host: bytes) -> None:
    assert not host_is_valid(host)


@pytest.mark.parametrize(
    "value",
    [b"", b"+1", b"-1", b"1 ", b" 1", b"1,1", b"1_0", b"0x1", b"1.0", b"1e3", b"\xb2", b"1\n",
     b"9" * 19],
)  # fmt: skip
def test_lengths_that_are_refused(value: bytes) -> None:
    assert not length_is_valid(value)


def test_lengths_that_are_taken() -> None:
    assert all(length_is_valid(value) for value in (b"0", b"00", b"7", b"9" * 18))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (b"", None),
        (b"Content-Length: 1\r\n", None),
        (b"content-LENGTH:\t1 \t\r\n", None),
        (b"X-Content-Length: x\r\n", None),
        (b"Content-Length: 1\r\nContent-Length: 1\r\n", "more than one Content-Length"),
        (b"Content-Length: 1\r\nX: y\r\ncontent-length: 2\r\n", "more than one Content-Length"),
        (b"Content-Length: 1, 1\r\n", "a malformed Content-Length"),
        (b"Content-Length:\r\n", "a malformed Content-Length"),
    ],
)
def test_length_lines_of_a_whole_head(lines: bytes, fault: str | None) -> None:
    assert length_fault(HEAD + lines + b"\r\n") == fault


Fields = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("fields", "http11", "expected"),
    [
        ([], True, (Framing.NONE, 0)),
        ([(b"content-length", b"0")], True, (Framing.NONE, 0)),
        ([(b"content-length", b"5")], True, (Framing.LENGTH, 5)),
        ([(b"content-length", b"5")], False, (Framing.LENGTH, 5)),
        ([(b"transfer-encoding", b"Chunked")], True, (Framing.CHUNKED, 0)),
        ([(b"transfer-encoding", b"chunked")], False, 400),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"5")], True, 400),
        ([(b"transfer-encoding", b"identity"), (b"content-length", b"5")], True, 400),
        ([(b"transfer-encoding", b"gzip, chunked")], True, 501),
        ([(b"transfer-encoding", b"")], True, 501),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], True, 501),
        ([(b"content-length", b"5"), (b"content-length", b"5")], True, 400),
        ([(b"content-length", b"-5")], True, 400),
    ],
)
def test_how_a_request_is_framed(
    fields: Fields, http11: bool, expected: tuple[Framing, int] | int
) -> None:
    if isinstance(expected, int):
        with pytest.raises(BadRequest if expected == 400 else Unsupported) as caught:
            request_framing(fields, http11)
        assert caught.value.status == expected
    else:
        assert request_framing(fields, http11) == expected


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (200, [], (Framing.CLOSE, 0)),
        (200, [(b"content-length", b"0")], (Framing.LENGTH, 0)),
        (200, [(b"transfer-encoding", b"chunked")], (Framing.CHUNKED, 0)),
        (204, [(b"content-length", b"5")], (Framing.NONE, 0)),
        (304, [(b"content-length", b"5")], (Framing.NONE, 0)),
        (103, [], (Framing.NONE, 0)),
        (200, [(b"content-length", b"5"), (b"content-length", b"6")], None),
        (204, [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")], None),
        (200, [(b"transfer-encoding", b"gzip")], None),
    ],
)
def test_how_a_response_is_framed(
    status: int, fields: Fields, expected: tuple[Framing, int] | None
) -> None:
    if expected is None:
        with pytest.raises(UpstreamMalformed):
            response_framing(status, fields, http11=True)
    else:
        assert response_framing(status, fields, http11=True) == expected


@pytest.mark.parametrize(
    ("line", "size"),
    [
        (b"0", 0), (b"000", 0), (b"5", 5), (b"fF", 255), (b"0" * 15 + b"a", 10),
        (b"7" + b"f" * 15, 2**63 - 1), (b"5;a", 5), (b"5;a=b;c=\"d;\\\"e\"", 5),
        (b"5; a = b ;c", 5),        (b"5;a=\"\xff\"", 5),
        (b"", None), (b"5 ;a", None),
        (b" 5", None), (b"5 ", None), (b"+5", None), (b"-5", None), (b"0x5", None),
        (b"5_0", None), (b"g", None), (b"8" + b"0" * 15, None), (b"0" * 16 + b"5", None),
        (b"5;", None), (b"5;;", None), (b"5;a=", None), (b"5;a\rb", None), (b"5;a\nb", None),
        (b"5;a\x00", None), (b"5;a=\"b", None), (b"5,5", None), (b"5;a b", None), (b"5\t", None),
        (b"\xb2", None), (b"5;a=\"b\"c", None), (b"5 5", None),
    ],
)  # fmt: skip
def test_chunk_lines(line: bytes, size: int | None) -> None:
    assert chunk_size_of(line) == size


def test_a_chunk_line_of_the_greatest_length_is_judged_at_once() -> None:
    """The grammar has nested repetitions: no line may make the search run away."""
    assert chunk_size_of(b"5" + b" ;a=b" * 200 + b"\x00") is None
    assert chunk_size_of(b"5" + b"; " * 500) is None
    assert chunk_size_of(b"5" + b" " * 1000 + b"x") is None
    assert chunk_size_of(b'5;a="' + b"\\\\" * 500) is None


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"transfer-encoding", b"HOST", b"Content_Length"]
)
def test_trailers_that_frame_or_route_are_an_attack(name: bytes) -> None:
    assert trailer_fault([(b"X-Sum", b"1"), (name, b"1")]) is not None
    assert trailer_fault([(b"X-Sum", b"1")]) is None


def test_trailers_that_control_or_authenticate_end_here() -> None:
    passed = [(b"X-Sum", b"1"), (b"grpc-status", b"0"), (b"ETag", b'"1"'), (b"X_odd", b"2")]
    dropped = [
        (name, b"x")
        for name in (b"Cookie", b"Set-Cookie", b"AUTHORIZATION", b"Content-Type", b"Connection",
                     b"X-Forwarded-For", b"X_Forwarded_For", b"Via", b"If-Match", b"X-Real-IP",
                     b"Cache-Control", b"Trailer", b"X-Retter")
    ]  # fmt: skip
    assert kept_trailers(passed + dropped) == passed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"x_forwarded_for", True), (b"x_forwarded-for", True), (b"x_forwarded_prefix", True),
        (b"content_length", True), (b"transfer_encoding", True), (b"x_real_ip", True),
        (b"x-forwarded-for", False), (b"x_custom", False), (b"_host", False), (b"user_agent",
        False),
    ],
)  # fmt: skip
def test_names_that_would_be_taken_for_others(name: bytes, expected: bool) -> None:
    assert shadows(name) is expected
