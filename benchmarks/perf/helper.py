"""A process beside the measurement, on the load's core: it says "ready" when it has begun."""

import subprocess
import sys
from types import TracebackType
from typing import ClassVar, Self


class Helper:
    """Runs `python -m MODULE PORT ...` while it is entered."""

    module: str
    failed: ClassVar[type[Exception]]

    def __init__(self, core: int, *arguments: int) -> None:
        self._command = (
            "taskset", "-c", str(core), sys.executable, "-m", self.module, *map(str, arguments),
        )  # fmt: skip

    def __enter__(self) -> Self:
        """Start it, and wait until it has begun.

        Raises:
            self.failed: It could not begin.
        """
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if (said := self._line()) != "ready":
            self.__exit__(None, None, None)
            raise self.failed(said or f"{self.module} ended")
        return self

    def ask(self) -> str:
        """Send it an empty line and return its answer, or nothing if it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()
