"""Chunked bodies: every grammar rule, any cut, and h11 as a second opinion."""

from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retter.base.limits import CHUNK_EXTENSIONS_BYTES_MAX, TRAILER_FIELDS_MAX
from retter.http.chunked import (
    CHUNK_LINE_BYTES_MAX,
    TRAILER_BYTES_MAX,
    BodyMalformed,
    ChunkedDecoder,
    chunk,
    last_chunk,
)
from tests.support.compiled import counts_lines
from tests.support.harness import split_at
from tests.support.work import instructions_of


def decode(*pieces: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | None:
    """Body, trailers and what follows; None if it is refused."""
    decoder = ChunkedDecoder()
    try:
        body = b"".join([decoder.feed(piece) for piece in pieces])
    except BodyMalformed:
        return None
    assert decoder.complete, "the end was there"
    return body, decoder.trailers, decoder.rest()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"0\r\n\r\n", (b"", [], b"")),
        (b"5\r\nhello\r\n0\r\n\r\n", (b"hello", [], b"")),
        (b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\nGET /", (b"hello world", [], b"GET /")),
        (b"00a;x=y\r\n0123456789\r\n0;z\r\n\r\n", (b"0123456789", [], b"")),
        (b"2\r\n\r\n\r\n0\r\n\r\n", (b"\r\n", [], b"")),
        (b"0\r\nX-Sum: 1\r\nx-sum:  \xff \r\n\r\nrest",
         (b"", [(b"X-Sum", b"1"), (b"x-sum", b"\xff")], b"rest")),
        (b"0\r\nEmpty:\r\nCookie: a\r\n\r\n", (b"", [(b"Empty", b"")], b"")),
    ],
)  # fmt: skip
def test_well_formed_bodies(
    data: bytes, expected: tuple[bytes, list[tuple[bytes, bytes]], bytes]
) -> None:
    assert decode(data) == expected
    assert decode(*[data[i : i + 1] for i in range(len(data))]) == expected


MALFORMED = [
    b"\r\n",
    b"x\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"5\r\nhello\r0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"5;\n\r\nhello\r\n",
    b"0\r\nX: y\n\r\n\r\n",
    b"0\r\nX : y\r\n\r\n",
    b"0\r\n X: y\r\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\n\n",
    b"0\r\nX: y\r\r\n\r\n",
    b"5;" + b"a" * CHUNK_LINE_BYTES_MAX + b"\r\nhello\r\n",
    b"0\r\nX: " + b"y" * TRAILER_BYTES_MAX + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_bodies_are_refused_however_they_are_cut(data: bytes) -> None:
    assert decode(data) is None
    assert decode(*[data[i : i + 1] for i in range(len(data))]) is None


@pytest.mark.parametrize("size", [b"5 ", b"5    ", b"0005\t \t", b"5" + b" " * 40, b"5;x=y "])
def test_blanks_after_a_size_are_read_where_they_are_allowed(size: bytes) -> None:
    """Some applications write each size with the same width. All recipients read that alike."""
    data = size + b"\r\nhello\r\n0   \r\n\r\nnext"
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        decoder = ChunkedDecoder(padded=True)
        assert b"".join([decoder.feed(piece) for piece in pieces]) == b"hello"
        assert decoder.complete and decoder.rest() == b"next"
        assert decode(*pieces) is None, "not in a request"


@pytest.mark.parametrize("size", [b" 5", b" ", b"", b"5 5", b"5\x0b", b"5\x00", b"5 \n", b"5\r "])
def test_blanks_elsewhere_are_malformed_everywhere(size: bytes) -> None:
    decoder = ChunkedDecoder(padded=True)
    with pytest.raises(BodyMalformed):
        decoder.feed(size + b"\r\nhello\r\n0\r\n\r\n")


def test_blanks_are_limited_by_the_data() -> None:
    decoder = ChunkedDecoder(padded=True)
    padded = b"1" + b" " * 100 + b"\r\na\r\n"
    with pytest.raises(BodyMalformed):
        decoder.feed(padded * (CHUNK_EXTENSIONS_BYTES_MAX // 100 + 1))


def test_a_line_that_cannot_become_right_is_refused_before_it_ends() -> None:
    for data in (b"5\nhello", b"5;" + b"a" * 2000, b"0\r\nX: y\nZ", b"0\r\n" + b"X: y\r\n" * 2000):
        with pytest.raises(BodyMalformed):
            ChunkedDecoder().feed(data)


def test_nothing_is_taken_after_the_end() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"0\r\n\r\n") == b""
    assert decoder.feed(b"5\r\nhello\r\n") == b""
    assert decoder.rest() == b"5\r\nhello\r\n"


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@settings(max_examples=150, deadline=None)
@given(chunks=CHUNKS, data=st.data())
def test_what_is_chunked_is_decoded_however_it_is_cut(
    chunks: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join([chunk(piece) for piece in chunks]) + last_chunk([(b"X-Sum", b"9")]) + b"next"
    cuts = data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=8))
    expected: tuple[bytes, list[Any], bytes] = (b"".join(chunks), [(b"X-Sum", b"9")], b"next")
    assert decode(*split_at(wire, cuts)) == expected


SIZED = st.builds(
    lambda data, zeros, upper: (b"0" * zeros + (b"%X" if upper else b"%x") % len(data), data),
    st.lists(
        st.sampled_from([b"a", b"\r\n", b"1\r\nb\r\n", b"0\r\n\r\n", b"\xff"]),
        min_size=1,
        max_size=9,
    ).map(b"".join),
    st.integers(0, 14),
    st.booleans(),
)


@given(chunks=st.lists(SIZED, max_size=8), data=st.data())
def test_small_chunks_are_taken_together(
    chunks: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    """However their sizes are written, whatever is in them, and wherever they are cut."""
    wire = b"".join([b"%b\r\n%b\r\n" % one for one in chunks]) + b"0\r\n\r\n"
    cuts = data.draw(st.sets(st.integers(1, len(wire) - 1), max_size=3))
    expected: tuple[bytes, list[Any], bytes] = (b"".join([one for _, one in chunks]), [], b"")
    assert decode(*split_at(wire, cuts)) == expected
    broken = wire.replace(b"\r\n", b"\r\r\n", 1)
    assert decode(*split_at(broken, cuts)) is None


@counts_lines
@pytest.mark.parametrize("size", [1, 2, 15])
def test_a_small_chunk_takes_no_step_of_python(size: int) -> None:
    """Thousands of them in one segment cost no more than one, but for the octets themselves."""

    def cost(chunks: int) -> int:
        decoder = ChunkedDecoder()
        wire = chunk(b"a" * size) * chunks
        return instructions_of(lambda: decoder.feed(wire))

    assert cost(3000) <= cost(1) + 5


def test_extensions_are_limited_by_the_data() -> None:
    signed = b"100;chunk-signature=" + b"f" * 64 + b"\r\n" + b"a" * 256 + b"\r\n"
    end = b"0;chunk-signature=" + b"f" * 64 + b"\r\n\r\n"
    assert decode(signed * 1000 + end) is not None
    empty = b"1;" + b"a" * 100 + b"\r\nb\r\n"
    few = CHUNK_EXTENSIONS_BYTES_MAX // 101
    assert decode(empty * few + end[:1] + b"\r\n\r\n") is not None
    assert decode(empty * (few + 1) + b"0\r\n\r\n") is None
    assert decode(empty * few + signed * 20 + empty * (few // 2) + b"0\r\n\r\n") is not None


def test_trailer_fields_are_limited() -> None:
    assert decode(b"0\r\n" + b"a: b\r\n" * TRAILER_FIELDS_MAX + b"\r\n") is not None
    assert decode(b"0\r\n" + b"a: b\r\n" * (TRAILER_FIELDS_MAX + 1) + b"\r\n") is None


@counts_lines
def test_trailers_octet_by_octet() -> None:
    """An octet costs the same however many came before it."""

    def cost(octets: int) -> int:
        decoder = ChunkedDecoder()
        decoder.feed(b"0\r\nX: ")
        return instructions_of(lambda: [decoder.feed(b"y") for _ in range(octets)])

    assert cost(4000) <= 4.1 * cost(1000)


def _by_h11(data: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes] | None:
    connection = h11.Connection(h11.SERVER)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.receive_data(head + data)
    connection.next_event()
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return body, event.headers.raw_items(), connection.trailing_data[0]
            else:
                return None
    except h11.RemoteProtocolError:
        return None


PIECES = st.sampled_from(
    [b"5", b"a", b"0", b"00", b";x", b"=", b'"', b" ", b"\t", b"\r\n", b"\n", b"\r", b"hello",
     b"\x00",
     b"X: y", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"-", b"0x5"],
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=8).map(b"".join).map(lambda data: data + b"0\r\n\r\n"))
def test_what_is_taken_h11_takes_too_and_reads_the_same(data: bytes) -> None:
    """Stricter than h11 and never different: the second opinion on every body that we take."""
    decoder = ChunkedDecoder()
    try:
        body = decoder.feed(data)
    except BodyMalformed:
        return
    if decoder.complete:
        assert (body, decoder.trailers, decoder.rest()) == _by_h11(data)


@settings(max_examples=200, deadline=None)
@given(data=st.lists(PIECES, max_size=10).map(b"".join), cuts=st.data())
def test_a_verdict_does_not_depend_on_the_cuts(data: bytes, cuts: st.DataObject) -> None:
    def verdict(pieces: list[bytes]) -> object:
        decoder = ChunkedDecoder()
        body = b""
        for piece in pieces:
            try:
                body += decoder.feed(piece)
            except BodyMalformed:
                return "refused"
        return body, decoder.complete, decoder.trailers

    places = cuts.draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=6))
    assert verdict(split_at(data, places)) == verdict([data])


def test_chunks_are_written_plainly() -> None:
    assert chunk(b"") == b"", "an empty chunk would end the body"
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert last_chunk([]) == b"0\r\n\r\n"
    assert last_chunk([(b"A", b"b"), (b"C", b"")]) == b"0\r\nA: b\r\nC: \r\n\r\n"
