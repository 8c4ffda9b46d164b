"""Edits of serialised heads: what is named changes, and every other octet stays."""

from hypothesis import given
from hypothesis import strategies as st

from retter.http.head_edit import (
    fields_of,
    updated,
    values_of,
    with_start_line,
    without_fields,
)

HEAD = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nvary:a\r\nAge: \t7 \r\nVary: b\r\n'

values = st.binary(max_size=8).map(lambda value: value.translate(None, b"\r\n"))
heads = st.lists(st.tuples(st.sampled_from([b"A", b"b", b"Bc", b"D-e"]), values)).map(
    lambda fields: b"".join([b"X\r\n", *[b"%b: %b\r\n" % field for field in fields]])
)


def test_a_field_goes_whatever_its_case_and_however_often() -> None:
    assert without_fields(HEAD, (b"vary:", b"x:")) == (
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nAge: \t7 \r\n'
    )


def test_a_field_stays_whose_name_only_begins_with_one_that_goes() -> None:
    assert without_fields(b"X\r\nDigest-Etc: 1\r\n", (b"digest:",)) == b"X\r\nDigest-Etc: 1\r\n"


def test_what_stays_can_be_replaced() -> None:
    edited = without_fields(b"X\r\nA: 1\r\nB: 2\r\n", (b"a:",), bytes.lower)
    assert edited == b"x\r\nb: 2\r\n"


@given(head=heads)
def test_nothing_named_leaves_every_octet(head: bytes) -> None:
    assert without_fields(head, (b"none:",)) == head
    assert updated(head, b"Y\r\n", frozenset()) == head
    assert with_start_line(head, b"X") == head


@given(head=heads)
def test_what_is_removed_is_gone_and_the_rest_keeps_its_order(head: bytes) -> None:
    left = fields_of(without_fields(head, (b"b:",)))
    assert left == tuple(field for field in fields_of(head) if field[0] != b"b")


def test_another_start_line() -> None:
    assert with_start_line(HEAD, b"HTTP/1.1 304 Not Modified").startswith(
        b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n'
    )


def test_newer_fields_replace_all_lines_of_theirs_but_those_that_are_kept() -> None:
    newer = b'HTTP/1.1 304 Not Modified\r\nVARY: c\r\nETag: "2"\r\nNew: x\r\n'
    assert updated(HEAD, newer, frozenset({b"etag"})) == (
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nAge: \t7 \r\nVARY: c\r\nNew: x\r\n'
    )


def test_values_and_fields_are_stripped() -> None:
    assert values_of(HEAD, b"vary:") == [b"a", b"b"]
    assert values_of(HEAD, b"age:") == [b"7"]
    assert values_of(HEAD, b"date:") == []
    assert fields_of(HEAD) == ((b"etag", b'"1"'), (b"vary", b"a"), (b"age", b"7"), (b"vary", b"b"))
