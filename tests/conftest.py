"""Fixtures for all tests."""

import functools
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.tracing import (
    CASES_MAX,
    NOTHING,
    Tracers,
    import_package,
    trace_first,
    traced_by,
    tracers,
)

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
    # It takes seconds of the processor's time, and shorter tests find most of what it finds.
    config.addinivalue_line("markers", "release: `make test` leaves it out, RELEASE=1 does not")


# What coverage traces with, if it does.
TRACERS = pytest.StashKey[Tracers]()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Trace the import of the package, and not the search for the tests."""
    found = tracers()
    if found != NOTHING:
        import_package()
    with traced_by(NOTHING):
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Trace the first cases of each test, and the first examples, and not Hypothesis itself."""
    cases: Counter[str] = Counter()
    for item in items:
        name = item.nodeid.partition("[")[0]
        cases[name] += 1
        marked = item.get_closest_marker("untraced") is not None
        made_up = getattr(getattr(item, "obj", None), "hypothesis", None)
        if made_up is not None and not marked and cases[name] == 1:
            wanted = functools.partial(config.stash.get, TRACERS, NOTHING)
            made_up.inner_test = trace_first(made_up.inner_test, wanted)
        if made_up is not None or cases[name] > CASES_MAX:
            item.add_marker("untraced")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Let nothing be traced between the tests."""
    session.config.stash[TRACERS] = tracers()
    with traced_by(NOTHING):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with traced_by(tracers_of(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with traced_by(tracers_of(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with traced_by(tracers_of(item)):
        return (yield)


def tracers_of(item: pytest.Item) -> Tracers:
    """Return what traces a test: nothing, if it says so."""
    marked = item.get_closest_marker("untraced") is not None
    return NOTHING if marked else item.config.stash.get(TRACERS, NOTHING)
