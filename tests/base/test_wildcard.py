"""Names with wildcards: the same as a regular expression would say, in linear time."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.wildcard import name_matcher
from tests.support.work import cpu_s_of

PATTERNS = st.lists(st.text("ab*", max_size=7).map(str.encode), max_size=4)
NAMES = st.text("abc\n", max_size=9).map(str.encode)


def test_patterns() -> None:
    match = name_matcher((b"a*c", b"x.y", b"z"))
    assert match(b"abbc")
    assert match(b"ac")
    assert match(b"x.y")
    assert match(b"z")
    assert not match(b"xay")
    assert not match(b"abbcd")
    assert not match(b"")
    assert not match(b"a")
    assert not name_matcher(())(b"a")


@given(PATTERNS, NAMES)
def test_as_a_regular_expression(patterns: list[bytes], name: bytes) -> None:
    """`*` is any text, also none, and nothing else is special."""
    choices = [re.escape(pattern).replace(rb"\*", b".*") for pattern in patterns]
    wanted = any(re.fullmatch(choice, name, re.DOTALL) for choice in choices)
    assert name_matcher(patterns)(name) is wanted


@pytest.mark.parametrize(
    "patterns",
    [
        (b"*a*a*a*b",),
        (b"a*" * 30 + b"b",),
        (b"*_session", b"mp_*_mixpanel", b"*aaaa*"),
    ],
)
def test_long_names(patterns: tuple[bytes, ...]) -> None:
    """Three wildcards in a regular expression would take hours for this name."""
    match = name_matcher(patterns)
    assert cpu_s_of(lambda: match(b"a" * 65_536), enough_s=0.002) < 0.005
