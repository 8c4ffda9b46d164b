"""What coverage looks at: tests with their fixtures, but for those that say otherwise."""

import sys
import threading
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import TRACERS, pytest_collection, pytest_runtest_call, pytest_runtestloop
from tests.support.tracing import (
    CASES_MAX,
    EXAMPLES_MAX,
    NOTHING,
    Tracers,
    trace_first,
    traced_by,
    tracers,
    untraced,
)


def trace(frame: FrameType, event: str, argument: object) -> None:
    pass


TRACED: Tracers = (trace, trace)


@untraced
def test_no_line_of_such_a_test_is_traced() -> None:
    assert tracers() == NOTHING
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(sys.gettrace()))
    thread.start()
    thread.join()
    assert found == [None]


@pytest.mark.parametrize("marked", [True, False])
def test_the_others_are_traced_and_nothing_is_between_them(marked: bool) -> None:
    mark = untraced.mark if marked else None
    stash = pytest.Stash()
    config = SimpleNamespace(stash=stash)
    item = SimpleNamespace(get_closest_marker={"untraced": mark}.get, config=config)
    with traced_by(TRACED):
        loop = pytest_runtestloop(cast(Any, SimpleNamespace(config=config)))
        next(loop)
        between = tracers()
        call = pytest_runtest_call(cast(Any, item))
        next(call)
        during = tracers()
        next(call, None)
        between_again = tracers()
        next(loop, None)
        after = tracers()
    assert stash[TRACERS] == TRACED
    assert between == between_again == NOTHING
    assert during == (NOTHING if marked else TRACED)
    assert after == TRACED


def test_the_search_for_the_tests_is_not_traced() -> None:
    with traced_by(TRACED):
        search = pytest_collection()
        next(search)
        during = tracers()
        next(search, None)
        after = tracers()
    assert during == NOTHING
    assert after == TRACED


def test_the_first_calls_are_traced() -> None:
    def which(word: str) -> tuple[str, Tracers]:
        return word, tracers()

    with traced_by(NOTHING):
        first = trace_first(which, lambda: TRACED, calls_max=2)
        found = [first("a"), first(word="b"), first("c")]
    assert found == [("a", TRACED), ("b", TRACED), ("c", NOTHING)]


@given(st.integers())
@settings(max_examples=EXAMPLES_MAX + 5, database=None)
def test_the_first_examples_are_traced(one: int) -> None:
    seen.append(tracers())
    if len(seen) > EXAMPLES_MAX:
        assert seen[-1] == NOTHING


seen: list[Tracers] = []


@pytest.mark.parametrize("case", range(CASES_MAX + 2))
def test_the_last_of_many_cases_are_not_traced(case: int, request: pytest.FixtureRequest) -> None:
    marked = request.node.get_closest_marker("untraced") is not None
    assert marked == (case >= CASES_MAX)
