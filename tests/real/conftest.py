"""Processes that tests start: RETTER, applications, clients. All of them end with the test."""

import contextlib
import gc
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real import wire
from tests.real.processes import ApplicationProgram, Program, RetterProgram

# Whether a test has failed since the last one began: what it had open is garbage now.
failed_before = [False]


def pytest_runtest_makereport(call: "pytest.CallInfo[None]") -> None:
    failed_before[0] = failed_before[0] or call.excinfo is not None


@pytest.fixture(autouse=True)
def connections_end_with_their_test() -> Iterator[None]:
    """An open socket that the garbage collector finds fails a test that has nothing to do with it.

    What fixtures of a module have opened before stays.
    """
    if failed_before[0]:
        failed_before[0] = False
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            vars(sys).pop(name, None)  # pytest keeps the failure there for debuggers
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    before = len(wire.opened)
    yield
    with contextlib.ExitStack() as stack:
        for connection in wire.opened[before:]:
            stack.enter_context(connection)
    del wire.opened[before:]


StartRetter = Callable[..., RetterProgram]


@pytest.fixture(scope="session")
def php() -> str:
    return need("php", "php-cli")


@pytest.fixture(scope="session")
def curl() -> str:
    return need("curl", "curl")


def need(program: str, package: str) -> str:
    """Return where a program is, or skip."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (Debian's package {package} brings it)")
    return found


@pytest.fixture(scope="session")
def gunicorn() -> str:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed (pip install gunicorn)")
    pytest.importorskip("httpbin", reason="httpbin is not installed (pip install httpbin)")
    return "gunicorn"


def retters() -> Iterator[StartRetter]:
    """Start RETTER as often as wanted; whatever it complained about fails the test."""
    started: list[RetterProgram] = []

    def start(
        *arguments: str,
        listen: str = "127.0.0.1:0",
        descriptors: int = 0,
        kind: type[RetterProgram] = RetterProgram,
    ) -> RetterProgram:
        started.append(kind(*arguments, listen=listen, descriptors=descriptors))
        return started[-1]

    yield start
    try:
        for program in started:
            program.stop()
    finally:
        for program in started:
            program.kill()
    for program in started:
        assert not program.complaints(), program.output


start_retter = pytest.fixture(retters)
start_retter_once = pytest.fixture(scope="module")(retters)


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    """Whatever is put in is ended with the test."""
    started: list[Program] = []
    yield started
    for program in started:
        program.kill()


@pytest.fixture(scope="module")
def application() -> Iterator[ApplicationProgram]:
    program = ApplicationProgram()
    yield program
    program.kill()
    assert "Traceback" not in program.output, program.output


# RETTER runs on uvloop wherever it is installed. What the other loop does differently, the tests of
# the corpus find, which always take both (`each_loop_name`).
@pytest.fixture(params=["uvloop", pytest.param("asyncio", marks=pytest.mark.release)])
def loop_name(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


@pytest.fixture(params=["uvloop", "asyncio"])
def each_loop_name(request: pytest.FixtureRequest) -> str:
    return installed(request.param)


def installed(loop: str) -> str:
    """Return the name of a loop; skip the test if it is not installed."""
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed (pip install uvloop)")
    return loop


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for a Unix socket's (108 octets)."""
    return tmp_path_factory.mktemp("s")
