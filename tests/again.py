"""Run the tests, and the few that failed on a shared machine once more, each alone.

    python -m tests.again [arguments of pytest]

Only tests in tests/real/ are run again, which use real sockets, browsers and processes, and only if
at most three failed. A test that then passes is named in a line that begins with UNSTEADY. It is a
defect all the same: the test, or what it tests, has to be mended.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

# More than a busy machine explains: with so many failures, something is broken.
FAILED_MAX = 3
REAL = "tests/real/"


@dataclass(eq=False)
class Outcome:
    """The results of a run of pytest, collected by a plugin."""

    code: int = 0
    failed: dict[str, None] = field(default_factory=dict[str, None])  # each test once, in order
    failures: int = 0  # with both a test's and its teardown's
    broken: bool = False  # a file could not be collected, or a process of pytest's died
    counted: int = 0  # what pytest itself counts, a coverage below the bar among it

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.failed:
            return
        self.failures += 1
        self.failed[plain(report.nodeid)] = None
        # xdist reports a test whose process died with another word.
        self.broken = self.broken or report.when not in ("setup", "call", "teardown")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.broken = self.broken or report.failed

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self.counted = session.testsfailed

    @property
    def may_run_again(self) -> bool:
        """Whether the tests that failed are the only trouble, few, and of the unsteady kind."""
        return (
            self.code == pytest.ExitCode.TESTS_FAILED
            and not self.broken
            and self.counted == self.failures
            and 0 < len(self.failed) <= FAILED_MAX
            and all(test.startswith(REAL) for test in self.failed)
        )


def plain(test: str) -> str:
    """Return a test's name without the group that xdist (`--dist loadgroup`) appends to it."""
    at = test.rfind("@")
    return test[:at] if at > test.rfind("]") else test


def passes_alone(test: str) -> bool:
    """Run one test in a process of its own, with nothing beside it and no bar of coverage."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", test]
    return subprocess.run(command, check=False).returncode == 0


def main(arguments: Sequence[str]) -> int:
    outcome = Outcome()
    outcome.code = int(pytest.main([*arguments], plugins=[outcome]))
    if not outcome.may_run_again:
        return outcome.code
    print("\nOnce more, each alone:", *outcome.failed, flush=True)
    passed = {test: passes_alone(test) for test in outcome.failed}
    for test, well in passed.items():
        print(f"UNSTEADY: {test} failed once, passed alone" if well else f"FAILED twice: {test}")
    return 0 if all(passed.values()) else outcome.code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
