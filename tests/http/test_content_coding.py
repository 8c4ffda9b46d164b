"""Codings by the heads alone: who accepts what, what is asked for, what a coded head says."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.wildcard import name_matcher
from retter.http.content_coding import (
    CODINGS,
    IDENTITY,
    Eligibility,
    Negotiator,
    WeakenedTags,
    accepts_coding,
    coded_head,
    reduced_accept_encoding,
    varies_already,
    weights,
)
from retter.http.message import HeadForm, RequestHead
from tests.support.harness import FakeProxy

ALL = Negotiator(CODINGS, name_matcher((b"/account/*", b"/login")))
GZIP = Negotiator((b"gzip",))
DECODABLE = (b"gzip", b"deflate")


def request(
    *values: bytes,
    target: bytes = b"/",
    http11: bool = True,
    method: bytes = b"GET",
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> RequestHead:
    fields = (*[(b"accept-encoding", value) for value in values], *more)
    return RequestHead(method, target, HeadForm(host=b"a", http11=http11), (), fields=fields)


# -- the client


@pytest.mark.parametrize(
    ("value", "gzip", "best"),
    [
        (b"gzip", b"gzip", b"gzip"),
        (b"GZIP", b"gzip", b"gzip"),
        (b"x-gzip", b"gzip", b"gzip"),
        (b"gzip, deflate, br, zstd", b"gzip", b"zstd"),
        (b"gzip, deflate, br", b"gzip", b"gzip"),
        (b"br", b"", b"br"),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", b"gzip", b"br"),
        (b"gzip;q=0.5", b"gzip", b"gzip"),
        (b"gzip;q=0.001", b"gzip", b"gzip"),
        (b"gzip;q=0", b"", b""),
        (b"gzip;q=0.000", b"", b""),
        (b"gzip;Q=1.000 , br;q=0", b"gzip", b"gzip"),
        (b"gzip;q=0, *", b"", b"zstd"),
        (b"gzip;q=0, *;q=0", b"", b""),
        (b"*", b"gzip", b"zstd"),
        (b"*;q=0", b"", b""),
        (b"*;q=0, gzip", b"gzip", b"gzip"),
        (b"identity", b"", b""),
        (b"identity;q=0", b"", b""),
        (b"identity;q=0, gzip;q=0.1", b"gzip", b"gzip"),
        (b"identity;q=0, *", b"gzip", b"zstd"),
        (b"identity, gzip;q=0.5", b"", b""),
        (b"identity;q=0.5, gzip;q=0.5", b"gzip", b"gzip"),
        (b"identity;q=0.5, gzip;q=0.4, br", b"", b"br"),
        (b"deflate, compress", b"", b""),
        (b"", b"", b""),
        (b", ,", b"", b""),
        (b"gzip;q=2", b"", b""),
        (b"gzip;q=0.1234", b"", b""),
        (b"gzip;level=9", b"", b""),
        (b"gzip, gzip;q=0", b"gzip", b"gzip"),
        (b"gz ip", b"", b""),
    ],
)
def test_what_a_client_gets(value: bytes, gzip: bytes, best: bytes) -> None:
    assert GZIP.accepted(request(value)).forwarded == gzip
    assert ALL.accepted(request(value)).forwarded == best


def test_several_lines_are_one_list() -> None:
    assert GZIP.accepted(request(b"br", b"gzip")).forwarded == b"gzip"
    assert GZIP.accepted(request(b"identity", b"gzip;q=0.5")).forwarded == b""


def test_without_the_field_nothing_is_compressed() -> None:
    assert ALL.accepted(request()) == IDENTITY


def test_stored_bodies_come_in_the_smallest_form() -> None:
    assert ALL.accepted(request(b"gzip, br, zstd")).stored == (b"br", b"zstd", b"gzip")
    assert ALL.accepted(request(b"gzip;q=1, br;q=0.5")).stored == (b"gzip", b"br")
    assert ALL.accepted(request(b"identity")).stored == ()


def test_the_order_of_the_setting_is_the_preference() -> None:
    assert Negotiator((b"br", b"gzip")).accepted(request(b"gzip, br, zstd")).forwarded == b"br"


def test_who_is_left_out() -> None:
    assert ALL.accepted(request(b"gzip", http11=False)) == IDENTITY
    assert ALL.accepted(request(b"gzip", method=b"HEAD")) == IDENTITY
    assert ALL.accepted(request(b"gzip", more=((b"range", b"bytes=0-1"),))) == IDENTITY
    forbidden = ((b"cache-control", b"max-age=0"), (b"cache-control", b"no-transform"))
    assert ALL.accepted(request(b"gzip", more=forbidden)) == IDENTITY
    assert ALL.accepted(request(b"gzip", more=forbidden[:1])).forwarded == b"gzip"
    assert ALL.accepted(request(b"gzip", target=b"/account/1?x")) == IDENTITY
    assert ALL.accepted(request(b"gzip", target=b"/login?next=/")) == IDENTITY
    assert ALL.accepted(request(b"gzip", target=b"/logins")).forwarded == b"gzip"
    assert Negotiator(()).accepted(request(b"gzip")) == IDENTITY


def test_a_long_value_is_read_and_not_remembered() -> None:
    value = b"gzip, " + b"x" * 1000
    before = weights(b"gzip")
    assert GZIP.accepted(request(value)).forwarded == b"gzip"
    assert accepts_coding(request(value), b"gzip")
    assert weights(value) is not weights(value)
    assert weights(b"gzip") is before


@given(st.binary(max_size=40))
def test_no_value_is_too_strange(value: bytes) -> None:
    accepted = ALL.accepted(request(value))
    assert accepted.forwarded in (b"", *accepted.stored)
    for coding in accepted.stored:
        assert accepts_coding(request(value), coding)
    (reduced,) = reduced_accept_encoding([value], DECODABLE)
    # What the application may send can be decoded here, and the client has accepted it.
    for coding, weight in weights(reduced).items():
        if weight and coding != b"identity":
            assert coding in DECODABLE
            assert accepts_coding(request(value), coding)


# -- the application


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (b"gzip, deflate, br, zstd", b"gzip, deflate"),
        (b"gzip, deflate, br", b"gzip, deflate"),
        (b"deflate, gzip, br, zstd", b"deflate, gzip"),
        (b"br, gzip", b"gzip"),
        (b"br;q=1.0, gzip;q=0.8, *;q=0.1", b"gzip;q=0.8"),
        (b"br", b"identity"),
        (b"br, identity;q=0", b"identity;q=0"),
        (b"*", b"gzip"),
        (b"*;q=0.5", b"gzip;q=0.5"),
        (b"gzip;q=0, *", b"gzip;q=0"),
        (b"identity;q=0, *;q=0", b"identity;q=0, *;q=0"),
        (b"gzip;level=9", b"identity"),
        (b"gzip,, br ,", b"gzip,,"),
    ],
)
def test_the_application_is_asked_for_what_can_be_decoded(value: bytes, asked: bytes) -> None:
    (reduced,) = reduced_accept_encoding([value], DECODABLE)
    assert reduced.strip(b", ") == asked.strip(b", ")


@pytest.mark.parametrize(
    "value", [b"gzip", b"", b"identity", b"gzip;q=0.5 ,deflate", b"X-GZip", b"*;q=0", b"gzip,"]
)
def test_a_value_that_loses_nothing_keeps_its_octets(value: bytes) -> None:
    assert reduced_accept_encoding([value], DECODABLE)[0] is value


def test_what_can_be_decoded_depends_on_what_is_installed() -> None:
    value = b"gzip, deflate, br, zstd"
    assert reduced_accept_encoding([value], (*DECODABLE, b"br")) == [b"gzip, deflate, br"]


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ([b"*", b"gzip;q=0"], [b"", b"gzip;q=0"]),
        ([b"gzip;q=0", b"*"], [b"gzip;q=0", b""]),
        ([b"br", b"gzip;q=0.5"], [b"", b"gzip;q=0.5"]),
        ([b"br", b"zstd"], [b"identity", b""]),
        ([b"gzip", b"deflate"], [b"gzip", b"deflate"]),
        ([b"br, gzip", b"*;q=0"], [b"gzip", b"*;q=0"]),
        ([b"", b""], [b"", b""]),
    ],
)
def test_several_lines_are_reduced_as_one_list(lines: list[bytes], asked: list[bytes]) -> None:
    assert reduced_accept_encoding(lines, DECODABLE) == asked


@given(
    st.lists(
        st.sampled_from(
            [
                b"gzip",
                b"br",
                b"*",
                b"identity",
                b"gzip;q=0",
                b"*;q=0",
                b"br;q=0.5",
                b"identity;q=0",
                b"x y",
                b"",
                b"*;q=0.1",
                b"gzip;q=0.2",
                b"deflate",
            ]
        ),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_it_makes_no_difference_how_a_list_is_cut_into_lines(
    members: list[bytes], data: st.DataObject
) -> None:
    cuts = data.draw(st.sets(st.integers(1, len(members)), max_size=3)) | {0, len(members)}
    lines = [b",".join(members[a:b]) for a, b in pairwise(sorted(cuts))]
    (whole,) = reduced_accept_encoding([b",".join(members)], DECODABLE)
    cut = reduced_accept_encoding(lines, DECODABLE)
    assert len(cut) == len(lines)
    assert weights(b",".join(cut)) == weights(whole)


@pytest.mark.parametrize("odd", ["", "Expect: 100-continue\r\n"], ids=["by form", "by h11"])
def test_the_application_is_asked_by_all_lines_together(odd: str) -> None:
    proxy = FakeProxy()
    proxy.client(
        f"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: *\r\n{odd}"
        "Accept-Encoding: gzip;q=0\r\n\r\n".encode()
    )
    sent = proxy.upstream.received()
    lines = [one for one in sent.split(b"\r\n") if one.lower().startswith(b"accept-encoding")]
    assert [one.partition(b":")[2].strip() for one in lines] == [b"", b"gzip;q=0"]


# -- the answer

TYPES = Eligibility(name_matcher((b"text/*", b"application/*+json", b"image/svg+xml")))
HTML = (b"content-type", b"text/html")


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (b"text/html", True),
        (b"Text/HTML; charset=utf-8", True),
        (b"text/css ;x", True),
        (b"application/ld+json", True),
        (b"image/svg+xml", True),
        (b"image/png", False),
        (b"text/event-stream", False),
        (b"Text/Event-Stream;charset=utf-8", False),
        (b"", False),
        (b"application/zip", False),
        (b"text", False),
    ],
)
def test_types(value: bytes, fits: bool) -> None:
    assert TYPES.fits(value) is fits


@pytest.mark.parametrize(
    ("status", "length", "more", "eligible"),
    [
        (200, 300, (), True),
        (200, 299, (), False),
        (200, None, (), True),
        (404, 300, (), True),
        (500, 300, (), True),
        (301, 300, (), True),
        (101, 300, (), False),
        (204, None, (), False),
        (205, 300, (), False),
        (206, 300, (), False),
        (304, None, (), False),
        (200, 300, ((b"content-encoding", b"br"),), False),
        (200, 300, ((b"content-range", b"bytes 0-1/2"),), False),
        (200, 300, ((b"cache-control", b"public, No-Transform"),), False),
        (200, 300, ((b"cache-control", b'a="'),), False),
        (200, 300, ((b"cache-control", b"no-store, private"),), True),
        (200, 300, (HTML,), False),
    ],
)
def test_which_answers(
    status: int, length: int | None, more: tuple[tuple[bytes, bytes], ...], eligible: bool
) -> None:
    assert TYPES.judges(status, length, (HTML, *more)) is eligible


def test_without_a_type_an_answer_is_left_alone() -> None:
    assert not TYPES.judges(200, 300, ())


@pytest.mark.parametrize(
    ("value", "varies"),
    [
        (b"Accept-Encoding", True),
        (b"Cookie, accept-encoding", True),
        (b"*", True),
        (b"Accept-Encoding-X", False),
        (b"Cookie", False),
        (b"", False),
    ],
)
def test_a_vary_that_says_it_already(value: bytes, varies: bool) -> None:
    assert varies_already(b"vary", value) is varies
    assert not varies_already(b"x-vary", value)


def test_a_coded_head() -> None:
    head = (
        b'HTTP/1.1 200 OK\r\nETag: "a"\r\nContent-Length: 5\r\nX: 1\r\nContent-MD5: x\r\n'
        b"DIGEST: x\r\nRepr-Digest: x\r\nContent-Digest: x\r\nAccept-Ranges: bytes\r\n"
        b"Last-Modified: y\r\nVia: 1.1 retter\r\n"
    )
    made = coded_head(head)
    assert made.head == (
        b'HTTP/1.1 200 OK\r\nETag: W/"a"\r\nX: 1\r\nLast-Modified: y\r\nVia: 1.1 retter\r\n'
    )
    assert made.strong_etag == b'"a"'


@pytest.mark.parametrize("etag", [b'W/"a"', b"odd", b""])
def test_a_tag_that_is_not_strong_stays(etag: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nETag: " + etag + b"\r\n"
    assert coded_head(head) == (head, b"")


# -- tags that come back


def test_only_tags_that_were_weakened_here_are_restored() -> None:
    tags = WeakenedTags()
    tags.add(b'"a"')
    head = (
        b'GET / HTTP/1.1\r\nIF-None-match: W/"a", W/"b" , "c"\r\nX: W/"a"\r\n'
        b'If-Match: W/"a"\r\nIf-Range: W/"a"\r\n\r\n'
    )
    assert tags.restored(head) == (
        b'GET / HTTP/1.1\r\nIF-None-match: "a", W/"b" , "c"\r\nX: W/"a"\r\n'
        b'If-Match: "a"\r\nIf-Range: W/"a"\r\n\r\n'
    )
    untouched = b'GET /W/"a" HTTP/1.1\r\nIf-None-Match: W/"b"\r\n\r\n'
    assert tags.restored(untouched) == untouched


def test_tags_are_forgotten_by_turns() -> None:
    tags = WeakenedTags(tags_max=4)
    heads = {n: b'GET / HTTP/1.1\r\nIf-None-Match: W/"%d"\r\n\r\n' % n for n in range(6)}
    for n in range(6):
        tags.add(b'"%d"' % n)
    restored = [n for n, head in heads.items() if tags.restored(head) != head]
    assert restored == [2, 3, 4, 5]
