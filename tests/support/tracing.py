"""What coverage looks at.

It traces line by line, and meanwhile all Python takes three to five times as long, whosever it is.
So nothing is traced but what can come by a line of the package that no other test has come by: its
import, and tests with their fixtures. Looking for the tests is not, nor what pytest does between
them, nor case number hundred of a table, nor the hundredth example that Hypothesis makes up.
"""

import functools
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest

# Traced: cases of one test, of those that a table gives, and examples that Hypothesis makes up.
CASES_MAX = 50
EXAMPLES_MAX = 20

# A test that plays thousands of histories, or a simulated hour, takes three to four times as long
# with each line traced, and the lines that it comes by are those of shorter tests. (The mark of
# pytest-cov itself, `no_cover`, does nothing in the processes of pytest-xdist.)
untraced = pytest.mark.untraced

# Of this thread, and of those that it starts.
Tracers = tuple[Callable[..., Any] | None, Callable[..., Any] | None]

NOTHING: Tracers = (None, None)


def tracers() -> Tracers:
    """Return what traces now."""
    return sys.gettrace(), threading.gettrace()


@contextmanager
def traced_by(wanted: Tracers) -> Iterator[None]:
    """Let that trace meanwhile."""
    before = tracers()
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(wanted: Tracers) -> None:
    threading.settrace(cast(Any, wanted[1]))
    sys.settrace(wanted[0])


def import_package() -> None:
    """Import all modules of the package, but for those that run a program."""
    import retter

    for module in pkgutil.walk_packages(retter.__path__, "retter."):
        if not module.name.endswith(".__main__"):
            with suppress(ImportError):  # what it needs is not installed
                importlib.import_module(module.name)


def trace_first(
    inner: Callable[..., Any], wanted: Callable[[], Tracers], calls_max: int = EXAMPLES_MAX
) -> Callable[..., Any]:
    """Return the function with its first calls traced, and the others not."""
    calls = 0

    @functools.wraps(inner)
    def example(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        with traced_by(wanted() if calls <= calls_max else NOTHING):
            return inner(*args, **named)

    return example
