"""Content codings of stored responses: who can read them as they are, and what decoding changes."""

import gzip

import pytest

from retter.compression.coding import (
    DECODED_BYTES_MAX,
    DECODED_BYTES_MIN,
    DECODED_TIMES_MAX,
    acceptable,
    coding_to_decode,
    decoded_bytes_max,
    decoded_form,
    is_encoded,
    plain_body,
    readable,
    shown_decoded,
)
from retter.http.message import RequestHead
from retter.http.request_parser import RequestParser
from retter.store.record import StoredResponse

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
PAGE = b"<p>hello</p>" * 100


def request(accept_encoding: bytes | None) -> RequestHead:
    parser = RequestParser(fields_max=9, target_bytes_max=99, instance=b"me", trusted=False)
    line = b"" if accept_encoding is None else b"Accept-Encoding: %b\r\n" % accept_encoding
    return parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n")


def stored(
    coding: bytes, lines: bytes = b"", etag: bytes = b"", body: bytes = PAGE
) -> StoredResponse:
    head = HEAD + (b"Content-Encoding: %b\r\n" % coding if coding else b"") + lines
    return StoredResponse(
        200, head, body, coding, etag, b"", 0.0, 0.0, False, False, 60.0, b"", (), b"", 0, 1000
    )


@pytest.mark.parametrize(
    ("coding", "accepts", "as_it_is", "decoded"),
    [
        (b"", None, True, True),
        (b"gzip", None, False, True),  # no field: it is not known what the client can read
        (b"gzip", b"gzip", True, True),
        (b"gzip", b"gzip;q=0", False, True),
        (b"x-gzip", b"gzip", True, True),  # RFC 9110 section 8.4.1.3
        (b"gzip", b"br", False, True),
        (b"compress", b"gzip", False, False),  # is not decoded here
        (b"compress", b"compress", True, True),
        (b"gzip, br", b"gzip", False, False),  # nor are two
        (b"gzip, br", b"gzip, br", True, True),
    ],
)
def test_who_can_read_a_coding(
    coding: bytes, accepts: bytes | None, as_it_is: bool, decoded: bool
) -> None:
    assert acceptable(stored(coding), request(accepts)) is as_it_is
    assert readable(stored(coding), request(accepts)) is decoded


def test_no_transform_forbids_decoding() -> None:
    """RFC 9111 section 5.2.2.6, wherever in the head it stands."""
    lines = b"Cache-Control: max-age=5\r\ncache-control: No-Transform\r\n"
    kept = stored(b"gzip", lines)
    assert not readable(kept, request(None))
    assert readable(kept, request(b"gzip"))


@pytest.mark.parametrize(
    ("size", "most"),
    [
        (0, DECODED_BYTES_MIN),
        (DECODED_BYTES_MIN // DECODED_TIMES_MAX, DECODED_BYTES_MIN),
        (10_000, 10_000 * DECODED_TIMES_MAX),
        (2 * DECODED_BYTES_MAX, DECODED_BYTES_MAX),
    ],
)
def test_how_much_a_body_may_decode_to(size: int, most: int) -> None:
    assert decoded_bytes_max(bytes(size)) == most


def test_a_body_without_its_coding() -> None:
    packed = gzip.compress(PAGE)
    assert plain_body(packed, b"gzip", len(PAGE)) == PAGE
    assert plain_body(packed, b"gzip", len(PAGE) - 1) is None, "more than is allowed"
    assert plain_body(packed[:-9], b"gzip", len(PAGE)) is None, "cut off"
    assert plain_body(packed + packed, b"gzip", 2 * len(PAGE), 1) is None, "two members"
    assert plain_body(packed + packed, b"gzip", 2 * len(PAGE), 2) == PAGE + PAGE
    assert plain_body(PAGE, b"identity", 1) == PAGE, "there is nothing to decode"
    assert plain_body(packed, b"gzip, gzip", len(PAGE)) is None


def test_which_coding_is_taken_off() -> None:
    assert coding_to_decode(b"X-GZIP") == b"gzip"
    assert coding_to_decode(b"gzip, identity") == b"gzip"
    assert [coding_to_decode(coding) for coding in (b"", b"identity", b"nonsense")] == [b""] * 3
    assert is_encoded(b"compress")
    # What is no coding says nothing about the body.
    assert not any(is_encoded(coding) for coding in (b"", b"identity", b"nonsense"))


def test_what_was_true_of_the_encoded_bytes_goes() -> None:
    lines = b'Content-MD5: x\r\nDigest: y\r\nRepr-Digest: z\r\nContent-Digest: a\r\nETag: "v"\r\n'
    kept = stored(b"gzip", lines + b"X-Kept: 1\r\n", b'"v"')
    form = decoded_form(kept, PAGE)
    assert form.body == PAGE
    assert form.head == HEAD + b'ETag: W/"v"\r\nX-Kept: 1\r\nVary: Accept-Encoding\r\n'
    shown = shown_decoded(kept, form)
    assert (shown.head, shown.body, shown.content_coding) == (form.head, PAGE, b"")
    assert (shown.etag, shown.stored_at, shown.age_max_s) == (b'W/"v"', 0.0, 60.0)


def test_a_weak_etag_and_a_vary_stay_as_they_are() -> None:
    lines = b'ETag: W/"v"\r\nVary: Accept-Encoding, Cookie\r\n'
    form = decoded_form(stored(b"gzip", lines, b'W/"v"'), PAGE)
    assert form.head == HEAD + lines
