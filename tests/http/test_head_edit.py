"""Edits of serialised heads: what is named changes, and every other octet stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.http.head_edit import (
    differ_only_in_times,
    fields_of,
    updated,
    values_of,
    with_start_line,
    with_times_of,
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


def test_the_times_of_another_head() -> None:
    head = b"X\r\nDate: 1\r\nA: b\r\nexpires: 2\r\n"
    later = b"X\r\nDate: 3\r\nA: b\r\nexpires: 4\r\n"
    assert differ_only_in_times(head, later)
    assert with_times_of(b"Y\r\nDate: 1\r\nC: d\r\nexpires: 2\r\nE: f\r\n", later) == (
        b"Y\r\nDate: 3\r\nC: d\r\nexpires: 4\r\nE: f\r\n"
    )
    assert with_times_of(b"Y\r\n", later) == b"Y\r\n"


@given(head=heads, other=heads)
def test_heads_without_times_differ_if_they_are_not_equal(head: bytes, other: bytes) -> None:
    assert differ_only_in_times(head, other) == (head == other)


@pytest.mark.parametrize(
    "other",
    [b"X\r\nDate: 1\r\nB: bb\r\n", b"X\r\nDated: 2\r\nB: b\r\n", b"X\r\nB: b\r\nDate: 2\r\n"],
)
def test_heads_that_differ_in_more_than_times(other: bytes) -> None:
    assert not differ_only_in_times(b"X\r\nDate: 1\r\nB: b\r\n", other)


def test_values_and_fields_are_stripped() -> None:
    assert values_of(HEAD, b"vary:") == [b"a", b"b"]
    assert values_of(HEAD, b"age:") == [b"7"]
    assert values_of(HEAD, b"date:") == []
    assert fields_of(HEAD) == ((b"etag", b'"1"'), (b"vary", b"a"), (b"age", b"7"), (b"vary", b"b"))
