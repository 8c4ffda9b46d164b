"""The answer to a request from a stored response: conditional.py, and coding.py."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.compression.coding import (
    DECODED_BYTES_MAX,
    DECODED_BYTES_MIN,
    acceptable,
    decoded_bytes_max,
    decoded_form,
    plain_body,
    readable,
    shown_decoded,
)
from retter.http.content_coding import accepts_coding
from retter.http.message import RequestHead
from retter.store.conditional import answer
from retter.store.record import StoredResponse
from tests.support.heads import request_head as request

D0 = b"Sun, 06 Nov 1994 08:49:37 GMT"
D1 = b"Sun, 06 Nov 1994 08:49:38 GMT"
D60 = b"Sun, 06 Nov 1994 08:50:37 GMT"
BODY = b"0123456789"


def stored(
    *,
    status: int = 200,
    etag: bytes = b'"a"',
    last_modified: bytes = D0,
    date: bytes = D60,
    body: bytes = BODY,
    coding: bytes = b"",
    more: bytes = b"",
) -> StoredResponse:
    head = b"HTTP/1.1 %d Fine\r\nContent-Type: text/plain\r\nCache-Control: max-age=1\r\n" % status
    for name, value in (
        (b"ETag", etag),
        (b"Last-Modified", last_modified),
        (b"Date", date),
        (b"Content-Encoding", coding),
    ):
        if value:
            head += name + b": " + value + b"\r\n"
    return StoredResponse(
        status=status,
        head=head + more,
        body=body,
        content_coding=coding,
        etag=etag,
        last_modified=last_modified,
        stored_at=0.0,
        age_s=0.0,
        superseded=False,
        no_store=False,
        age_max_s=1e9,
        variant_key=b"",
        vary_names=(),
        vary=b"",
        received_age_s=0,
        entry_bytes=0,
    )


def status_for(response: StoredResponse, *fields: tuple[bytes, bytes]) -> int:
    return answer(request(*fields), response).status


def fields_of(head: bytes) -> dict[bytes, bytes]:
    assert head.endswith(b"\r\n")
    lines = head.split(b"\r\n")[1:-1]
    return {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in lines}


# -- The whole


def test_without_conditions_the_whole() -> None:
    found = answer(request(), stored())
    assert found.status == 200
    assert found.head == stored().head + b"Content-Length: 10\r\n"
    assert found.body is BODY


def test_no_content_has_no_length() -> None:
    found = answer(request(), stored(status=204, body=b""))
    assert (found.status, found.head, found.body) == (204, stored(status=204).head, b"")


@pytest.mark.parametrize("status", [201, 203, 301, 302])
def test_only_a_200_is_answered_in_parts_or_as_not_modified(status: int) -> None:
    asked = request((b"if-none-match", b"*"), (b"range", b"bytes=0-1"))
    found = answer(asked, stored(status=status))
    assert found.status == status
    assert found.head == stored(status=status).head + b"Content-Length: 10\r\n"


def test_if_match_and_if_unmodified_since_are_the_origins_business() -> None:
    assert status_for(stored(), (b"if-match", b'"x"'), (b"if-unmodified-since", b"x")) == 200


# -- 304 (RFC 9110 sections 13.1.2, 13.1.3, 13.2.2)


@pytest.mark.parametrize(
    ("etag", "value", "status"),
    [
        (b'"a"', b'"a"', 304),
        (b'"a"', b'W/"a"', 304),
        (b'W/"a"', b'"a"', 304),
        (b'W/"a"', b'W/"a"', 304),
        (b'"a"', b'"b"', 200),
        (b'"a"', b'"b", "a"', 304),
        (b'"a"', b'"b","c" , W/"a"', 304),
        (b'"a"', b',, "a" ,', 304),
        (b'"a"', b"*", 304),
        (b"", b"*", 304),
        (b"", b'"a"', 200),
        (b'"a,b"', b'"x", "a,b"', 304),
        (b'"a"', b'"x,"a"', 200),
        (b'"a"', b"a", 200),
        (b'"a"', b'"a" "b"', 200),
        (b'"a"', b'w/"a"', 200),
        (b'"a"', b"", 200),
        (b'"a"', b'"A"', 200),
        (b'"a"', b'"b", *', 200),
        (b'""', b'""', 304),
        (b'"\xe9"', b'"\xe9"', 304),
        (b"a", b'"a"', 200),
        (b'"a"', b'"a', 200),
    ],
)
def test_if_none_match(etag: bytes, value: bytes, status: int) -> None:
    assert status_for(stored(etag=etag), (b"if-none-match", value)) == status


def test_if_none_match_over_several_lines_is_one_list() -> None:
    lines = ((b"if-none-match", b'"b"'), (b"if-none-match", b'"a"'))
    assert status_for(stored(), *lines) == 304


@pytest.mark.parametrize(
    ("last_modified", "date", "value", "status"),
    [
        (D1, D60, D1, 304),
        (D1, D60, D60, 304),
        (D1, D60, D0, 200),
        (D1, D60, b"", 200),
        (D1, D60, b"yesterday", 200),
        (D1, D60, b"Sunday, 06-Nov-94 08:49:38 GMT", 304),
        (b"", D1, D1, 304),
        (b"", D1, D0, 200),
        (b"", b"", D1, 200),
        (b"odd", D0, D1, 200),
        (b"odd", D0, b"odd", 304),
    ],
)
def test_if_modified_since(last_modified: bytes, date: bytes, value: bytes, status: int) -> None:
    response = stored(last_modified=last_modified, date=date)
    assert status_for(response, (b"if-modified-since", value)) == status


def test_if_none_match_decides_over_if_modified_since() -> None:
    since = (b"if-modified-since", D60)
    assert status_for(stored(), since, (b"if-none-match", b'"x"')) == 200
    assert status_for(stored(), (b"if-modified-since", b""), (b"if-none-match", b'"a"')) == 304


def test_a_condition_decides_before_a_range() -> None:
    byte_range = (b"range", b"bytes=0-1")
    assert status_for(stored(), byte_range, (b"if-none-match", b'"a"')) == 304
    assert status_for(stored(), byte_range, (b"if-none-match", b'"b"')) == 206


def test_what_a_304_says() -> None:
    more = (
        b"Vary: Accept\r\nContent-Language: de\r\nAccept-Ranges: bytes\r\n"
        b"content-digest: x\r\nVia: 1.1 retter\r\n"
    )
    found = answer(request((b"if-none-match", b"*")), stored(more=more, coding=b"gzip"))
    assert found.head.startswith(b"HTTP/1.1 304 Not Modified\r\n")
    assert found.body == b""
    assert set(fields_of(found.head)) == {b"cache-control", b"etag", b"date", b"vary", b"via"}


def test_a_304_without_an_etag_says_when_it_was_changed() -> None:
    found = answer(request((b"if-modified-since", D0)), stored(etag=b""))
    assert fields_of(found.head)[b"last-modified"] == D0


# -- Ranges (RFC 9110 sections 14.1.1, 14.1.2, 14.2)


@pytest.mark.parametrize(
    ("value", "content_range", "part"),
    [
        (b"bytes=0-0", b"bytes 0-0/10", b"0"),
        (b"bytes=2-4", b"bytes 2-4/10", b"234"),
        (b"bytes=2-", b"bytes 2-9/10", b"23456789"),
        (b"bytes=9-", b"bytes 9-9/10", b"9"),
        (b"bytes=0-99", b"bytes 0-9/10", BODY),
        (b"bytes=-3", b"bytes 7-9/10", b"789"),
        (b"bytes=-99", b"bytes 0-9/10", BODY),
        (b"BYTES=0-1", b"bytes 0-1/10", b"01"),
        (b"bytes= 0-1 ", b"bytes 0-1/10", b"01"),
        (b"bytes=0-999999999999999999", b"bytes 0-9/10", BODY),
    ],
)
def test_a_satisfiable_range(value: bytes, content_range: bytes, part: bytes) -> None:
    found = answer(request((b"range", value)), stored(more=b"Content-MD5: x\r\n"))
    fields = fields_of(found.head)
    assert found.head.startswith(b"HTTP/1.1 206 Partial Content\r\n")
    assert (found.status, found.body) == (206, part)
    assert fields[b"content-range"] == content_range
    assert fields[b"content-length"] == b"%d" % len(part)
    assert fields[b"etag"] == b'"a"'
    assert b"content-md5" not in fields


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"bytes=10-", BODY),
        (b"bytes=10-20", BODY),
        (b"bytes=-0", BODY),
        (b"bytes=0-", b""),
        (b"bytes=0-0", b""),
        (b"bytes=999999999999999999-", BODY),
    ],
)
def test_an_unsatisfiable_range(value: bytes, body: bytes) -> None:
    found = answer(request((b"range", value)), stored(body=body))
    fields = fields_of(found.head)
    assert found.head.startswith(b"HTTP/1.1 416 Range Not Satisfiable\r\n")
    assert (found.status, found.body) == (416, b"")
    assert fields[b"content-range"] == b"bytes */%d" % len(body)
    assert fields[b"content-length"] == b"0"
    assert not {b"etag", b"last-modified", b"content-type"} & set(fields)


@pytest.mark.parametrize(
    "value",
    [
        b"bytes=0-1,3-4",
        b"bytes=0-1, 30-40",
        b"items=0-1",
        b"bytes=4-2",
        b"bytes=a-b",
        b"bytes=-",
        b"bytes=",
        b"bytes",
        b"",
        b"bytes=1",
        b"bytes=--1",
        b"bytes=0-1-2",
        b"bytes =0-1",
        b"bytes=1000000000000000000-",
        b"bytes=0x0-1",
        b"bytes=+0-1",
    ],
)
def test_a_range_that_is_not_followed_gets_the_whole(value: bytes) -> None:
    found = answer(request((b"range", value)), stored())
    assert (found.status, found.body) == (200, BODY)


def test_the_last_bytes_of_nothing_are_the_whole() -> None:
    """Satisfiable by the RFC's definition, but no Content-Range could say so."""
    assert status_for(stored(body=b""), (b"range", b"bytes=-5")) == 200


def test_two_range_fields_get_the_whole() -> None:
    assert status_for(stored(), (b"range", b"bytes=0-1"), (b"range", b"bytes=0-1")) == 200


@pytest.mark.parametrize(
    ("etag", "last_modified", "date", "value", "status"),
    [
        (b'"a"', D0, D60, b'"a"', 206),
        (b'"a"', D0, D60, b'"b"', 200),
        (b'"a"', D0, D60, b'W/"a"', 200),
        (b'W/"a"', D0, D60, b'W/"a"', 200),
        (b"", D0, D60, b'"a"', 200),
        (b'"a"', D0, D60, D0, 206),
        (b'"a"', D0, D1, D0, 206),
        (b'"a"', D0, D0, D0, 200),
        (b'"a"', D0, b"", D0, 200),
        (b'"a"', D0, D60, D1, 200),
        (b'"a"', b"odd", D60, b"odd", 200),
        (b"", b"", D60, b"", 200),
        (b'"a"', D0, D60, b"*", 200),
    ],
)
def test_if_range(
    etag: bytes, last_modified: bytes, date: bytes, value: bytes, status: int
) -> None:
    response = stored(etag=etag, last_modified=last_modified, date=date)
    assert status_for(response, (b"range", b"bytes=0-1"), (b"if-range", value)) == status
    assert status_for(response, (b"if-range", value)) == 200


# -- Whatever comes


CONDITIONS = st.sampled_from(
    [b"range", b"if-range", b"if-none-match", b"if-modified-since", b"accept-encoding"]
)
VALUES = st.binary(max_size=30) | st.text('bytes=-0129,"W/a* gzip;q.', max_size=30).map(str.encode)


@given(fields=st.lists(st.tuples(CONDITIONS, VALUES), max_size=5), body=st.binary(max_size=20))
def test_any_request_gets_a_whole_message(fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    found = answer(request(*fields), stored(body=body))
    said = fields_of(found.head)
    assert found.head.startswith(b"HTTP/1.1 %d " % found.status)
    match found.status:
        case 200:
            assert found.body == body
        case 206:
            first, last = said[b"content-range"][6:].split(b"/")[0].split(b"-")
            assert found.body == body[int(first) : int(last) + 1] != b""
        case 304 | 416:
            assert found.body == b""
        case status:
            raise AssertionError(status)
    assert (b"content-length" in said) == (found.status != 304)
    assert said.get(b"content-length", b"0") == b"%d" % len(found.body)


# -- Codings (RFC 9110 section 12.5.3)


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        (b"gzip", True),
        (b"GZIP;q=0.5, br", True),
        (b"x-gzip", True),
        (b"br, gzip ; q=1.0", True),
        (b"gzip;q=0", False),
        (b"gzip;q=0.000", False),
        (b"gzip;q=0.001", True),
        (b"*", True),
        (b"*;q=0", False),
        (b"gzip;q=0, *", False),
        (b"*;q=0, gzip", True),
        (b"br", False),
        (b"", False),
        (b"identity", False),
        (b"gzip;q=2", False),
        (b"gzip;level=1", False),
        (b"gzip gzip", False),
        (b";q=1", False),
    ],
)
def test_accept_encoding(value: bytes, accepted: bool) -> None:
    asked = request((b"accept-encoding", value))
    assert accepts_coding(asked, b"gzip") is accepted
    assert accepts_coding(asked, b"x-gzip") is accepted


def decodable(
    response: StoredResponse, asked: RequestHead, bytes_max: int = 1000
) -> StoredResponse | None:
    """Return what this client is shown, however long that takes."""
    if acceptable(response, asked):
        return response
    if not readable(response, asked):
        return None
    body = plain_body(response.body, response.content_coding, bytes_max)
    return None if body is None else shown_decoded(response, decoded_form(response, body))


def raw_deflate(data: bytes) -> bytes:
    squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeezer.compress(data) + squeezer.flush()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", gzip.compress(BODY)),
        (b"x-gzip", gzip.compress(BODY)),
        (b"gzip", gzip.compress(BODY[:4]) + gzip.compress(BODY[4:])),
        (b"deflate", zlib.compress(BODY)),
        (b"deflate", raw_deflate(BODY)),
        (b"identity, gzip", gzip.compress(BODY)),
    ],
    ids=["gzip", "x-gzip", "gzip members", "deflate", "raw deflate", "identity, gzip"],
)
def test_a_client_that_cannot_decode_gets_it_decoded(coding: bytes, body: bytes) -> None:
    response = stored(coding=coding, body=body, more=b"Repr-Digest: x\r\nContent-MD5: y\r\n")
    found = decodable(response, request())
    assert found is not None
    assert (found.body, found.content_coding, found.etag) == (BODY, b"", b'W/"a"')
    fields = fields_of(found.head)
    assert fields[b"etag"] == b'W/"a"'
    assert not {b"content-encoding", b"repr-digest", b"content-md5"} & set(fields)
    assert fields[b"content-type"] == b"text/plain"
    for asked in (request((b"accept-encoding", b"gzip, deflate")),):
        assert decodable(response, asked) is response


def test_what_needs_no_decoding_is_given_as_it_is() -> None:
    for coding in (b"", b"identity"):
        response = stored(coding=coding)
        assert decodable(response, request()) is response
    both = stored(coding=b"br, gzip")
    assert decodable(both, request((b"accept-encoding", b"br, gzip"))) is both


@pytest.mark.parametrize("etag", [b"", b'W/"a"'])
def test_a_weak_tag_stays_as_it_is(etag: bytes) -> None:
    found = decodable(stored(coding=b"gzip", body=gzip.compress(BODY), etag=etag), request())
    assert found is not None
    assert found.etag == etag


@pytest.mark.parametrize(
    "response",
    [
        stored(coding=b"br"),
        stored(coding=b"br, gzip"),
        stored(coding=b"gzip", body=b"no gzip"),
        stored(coding=b"gzip", body=gzip.compress(BODY)[:-4]),
        stored(coding=b"deflate", body=b"\xff"),
        stored(coding=b"gzip", body=gzip.compress(BODY) + b"rest"),
        stored(
            coding=b"gzip", body=gzip.compress(BODY), more=b"cache-control: x, No-Transform\r\n"
        ),
    ],
)
def test_what_cannot_be_decoded_is_a_miss(response: StoredResponse) -> None:
    assert decodable(response, request()) is None


def test_decoding_is_bounded() -> None:
    bomb = gzip.compress(bytes(1000))
    assert decodable(stored(coding=b"gzip", body=bomb), request(), 999) is None
    whole = decodable(stored(coding=b"gzip", body=bomb), request(), 1000)
    assert whole is not None
    assert whole.body == bytes(1000)
    twice = stored(coding=b"gzip", body=bomb + bomb)
    assert decodable(twice, request(), 1999) is None
    assert decodable(twice, request(), 2000) is not None


@given(body=st.binary(max_size=60), coding=st.sampled_from([b"gzip", b"deflate", b"br"]))
def test_any_body_is_decoded_or_a_miss(body: bytes, coding: bytes) -> None:
    found = decodable(stored(coding=coding, body=body), request(), 1000)
    assert found is None or len(found.body) <= 1000


@pytest.mark.parametrize(
    ("encoded", "allowed"),
    [
        (0, DECODED_BYTES_MIN),
        (4096, DECODED_BYTES_MIN),
        (4097, 16 * 4097),
        (1024 * 1024, DECODED_BYTES_MAX),
        (100 * 1024 * 1024, DECODED_BYTES_MAX),
    ],
)
def test_what_a_body_may_decode_to(encoded: int, allowed: int) -> None:
    assert decoded_bytes_max(bytes(encoded)) == allowed
