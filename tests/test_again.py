"""Which failures of the check run are given a second chance, and what becomes of it."""

from os import environ
from pathlib import Path
from subprocess import PIPE, STDOUT, run
from sys import executable

import pytest

from tests.again import Outcome, plain

ROOT = Path(__file__).parents[1]
FAILED = pytest.ExitCode.TESTS_FAILED
LIFE, TLS = "tests/real/test_life.py::test_a", "tests/real/test_tls.py::test_b[x]"


def outcome(*failed: str, code: int = FAILED, more: int = 0, broken: bool = False) -> Outcome:
    count = len(failed)
    return Outcome(code, dict.fromkeys(failed), count, broken, count + more)


@pytest.mark.parametrize(("found", "may"), [
    (outcome(LIFE), True),
    (outcome(LIFE, TLS, f"{LIFE}[2]"), True),
    (outcome(LIFE, TLS, f"{LIFE}[2]", f"{LIFE}[3]"), False),  # too many
    (outcome("tests/store/test_store.py::test_c"), False),  # owns no socket
    (outcome(LIFE, "tests/store/test_store.py::test_c"), False),
    (outcome("tests/realm/test_d.py::test_e"), False),
    (outcome(LIFE, more=1), False),  # the coverage is below the bar as well
    (outcome(more=1), False),  # it alone is
    (outcome(LIFE, broken=True), False),  # a process died, or a file was not collected
    (outcome(LIFE, code=pytest.ExitCode.INTERRUPTED), False),
    (outcome(LIFE, code=pytest.ExitCode.INTERNAL_ERROR), False),
    (outcome(code=pytest.ExitCode.OK), False),  # nothing to run
])  # fmt: skip
def test_few_failures_with_real_sockets_are_run_again(found: Outcome, may: bool) -> None:
    assert found.may_run_again is may


@pytest.mark.parametrize(("reported", "name"), [
    ("tests/real/test_x.py::test_a@dashboard", "tests/real/test_x.py::test_a"),
    ("tests/real/test_x.py::test_a[1-b]@dashboard", "tests/real/test_x.py::test_a[1-b]"),
    ("tests/real/test_x.py::test_a[me@here]", "tests/real/test_x.py::test_a[me@here]"),
    ("tests/real/test_x.py::test_a", "tests/real/test_x.py::test_a"),
])  # fmt: skip
def test_the_name_of_a_test_has_no_group(reported: str, name: str) -> None:
    assert plain(reported) == name


# A suite of its own: `flaky` fails at its first run, `firm` at each, `torn` in its teardown too.
SUITE = """
import os, pathlib, pytest

@pytest.fixture
def falls():
    yield
    assert False

@pytest.mark.xdist_group("group")
def test_flaky():
    mark = pathlib.Path("was-here")
    was = mark.exists()
    mark.touch()
    assert was
def test_firm(): assert False
def test_torn(falls): assert False
def test_dies(): os._exit(3)
"""
TEST = "tests/real/test_it.py::test"
SIDE_BY_SIDE = ("-n", "1", "--dist", "loadgroup")
COVERED = ("-p", "pytest_cov.plugin", "--cov=unused", "--cov-fail-under=95")


@pytest.mark.parametrize(("chosen", "more", "code", "words"), [
    ("flaky", SIDE_BY_SIDE, 0, [f"UNSTEADY: {TEST}_flaky failed once, passed alone"]),
    ("not dies", (), 1, [
        f"UNSTEADY: {TEST}_flaky failed once, passed alone", f"FAILED twice: {TEST}_firm",
        f"FAILED twice: {TEST}_torn",
    ]),
    ("dies", SIDE_BY_SIDE, 1, []),
    ("flaky", COVERED, 1, []),
])  # fmt: skip
def test_what_passes_alone_is_named_and_what_does_not_fails(
    tmp_path: Path, chosen: str, more: tuple[str, ...], code: int, words: list[str]
) -> None:
    (tmp_path / "tests/real").mkdir(parents=True)
    (tmp_path / "tests/real/test_it.py").write_text(SUITE)
    (tmp_path / "unused.py").write_text("one = 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = run(
        [executable, ROOT / "tests/again.py", "-q", "-k", chosen, *more],
        cwd=tmp_path,
        # The plugins that these runs need, and none of the others that are installed.
        env=environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist.plugin"},
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    told = [
        line for line in done.stdout.splitlines() if line.startswith(("UNSTEADY", "FAILED twice"))
    ]
    assert told == words, done.stdout
