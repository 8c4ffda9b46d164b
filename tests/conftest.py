"""Fixtures for all tests."""

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test judges how fast this machine is: an example takes as long as it takes, and so does
# making one up.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")

# A shell without job control has what it starts in the background ignore SIGINT, and so would the
# programs that the tests start and send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a release is checked with: `make deb-test`, on its package, and `make tutorial-test`.
collect_ignore = [
    path
    for path, variable in {
        "deploy/test_debian.py": "RETTER_DEB",
        "docs/test_tutorial.py": "RETTER_TUTORIAL",
    }.items()
    if variable not in os.environ
]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "untraced: coverage does not look at it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Let no line of the test be traced that says so: `tests/support/tracing.py`."""
    tracer = sys.gettrace()
    if item.get_closest_marker("untraced") is None or tracer is None:
        return (yield)
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
