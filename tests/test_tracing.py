"""Tests that coverage does not look at: nothing of them is traced, and all that comes after is."""

import sys
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import pytest_runtest_call
from tests.support.tracing import untraced


@untraced
def test_no_line_of_such_a_test_is_traced() -> None:
    assert sys.gettrace() is None


@pytest.mark.parametrize("marked", [True, False])
def test_the_tracer_comes_back_when_the_test_is_over(marked: bool) -> None:
    def trace(frame: FrameType, event: str, argument: object) -> None:
        pass

    mark = untraced.mark if marked else None
    item = SimpleNamespace(get_closest_marker={"untraced": mark}.get)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call = pytest_runtest_call(cast(Any, item))
        next(call)
        during = sys.gettrace()
        next(call, None)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert during is (None if marked else trace)
    assert after is trace
