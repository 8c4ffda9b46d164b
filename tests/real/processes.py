"""Programs that the tests start, wait for and end by their own id."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]

# No test waits for so long when all is well; it is what a machine under load may need at worst.
DEADLINE_S = 30.0
POLL_S = 0.02

# Test processes side by side whose ports are kept apart (`pytest -n`).
WORKERS_MAX = 8

# What the interpreter, asyncio and uvloop write when something went wrong that nobody caught.
COMPLAINTS = (
    "Traceback", "Exception in callback", "Exception ignored", "never retrieved", "never awaited",
    "ResourceWarning", "Fatal error", "Unhandled exception",
)  # fmt: skip

Found = TypeVar("Found")


def eventually(
    attempt: Callable[[], Found | None], what: str, deadline_s: float = DEADLINE_S
) -> Found:
    """Call until the result is true, and return it."""
    until = time.monotonic() + deadline_s
    while not (found := attempt()):
        assert time.monotonic() < until, f"in vain: {what}"
        time.sleep(POLL_S)
    return found


def free_port() -> int:
    """Return a port that nobody listens on, outside the range of ports for outgoing connections.

    A program that is to come back on its port must find it free: no connection of somebody else
    may have been given the same number in the meantime. Test processes that run side by side
    choose from ranges of their own, and one that runs alone, beside them, from the last.
    """
    alone = f"gw{WORKERS_MAX - 1}"
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", alone).removeprefix("gw"))
    first = 20_000 + worker % WORKERS_MAX * (12_000 // WORKERS_MAX)
    while True:
        port = random.randrange(first, first + 12_000 // WORKERS_MAX)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(DEADLINE_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end_accepting(listener: socket.socket, thread: threading.Thread) -> None:
    """Close a listener on which a thread accepts until there is an OSError.

    Closing alone does not wake the thread. It would stay in accept() with the number of the
    descriptor, and go on with the listener of another test that gets the same number.
    """
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    listener.close()


def connected(path: Path) -> socket.socket | None:
    """Return a connection to a Unix socket; None until its owner listens.

    The path of a socket is there from `bind` on; connections are accepted from `listen` on.
    """
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(DEADLINE_S)
    try:
        client.connect(str(path))
    except OSError:
        client.close()
        return None
    return client


class Program:
    """A process with all of its children, and what it has written."""

    close_fds = True

    def __init__(
        self, command: Sequence[str], environment: dict[str, str] | None = None, cwd: Path = ROOT
    ) -> None:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("RETTER_") and not name.lower().endswith("_proxy")
        }
        # A session of its own: the workers of a server can be ended with it, and only they.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=inherited | (environment or {}),
            start_new_session=True,
            text=True,
            errors="backslashreplace",
            close_fds=self.close_fds,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_for_line(self, wanted: Callable[[str], bool]) -> str:
        """Wait until it has written such a line."""

        def look() -> str | None:
            found = next((line for line in list(self.lines) if wanted(line)), None)
            assert found is not None or self.alive, f"it ended:\n{self.output}"
            return found

        found = eventually(look, f"a line from {self.process.args!r}")
        assert found is not None
        return found

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Send a signal to the process and to its children."""
        os.killpg(self.process.pid, number)

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code

    def kill(self) -> None:
        """End it and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            self.signal_all(signal.SIGKILL)
        self.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


# RETTER, which does not tell that this machine holds it up. It would tell that in place of the
# situation that a test waits for, and for as long as the machine is busy.
UNHURRIED = """
import sys
from retter.admin import situation
from retter.cli import main
situation.LAG_S = float("inf")
sys.exit(main())
"""


class RetterProgram(Program):
    """`python -m retter`, serving."""

    start: Sequence[str] = ("-m", "retter")

    def __init__(self, *arguments: str, listen: str = "127.0.0.1:0", descriptors: int = 0) -> None:
        # Those that run at the same time would want the same admin port.
        admin = () if "--admin" in arguments else ("--admin", "off")
        limited = ["sh", "-c", 'ulimit -n "$0"; exec "$@"', str(descriptors)] if descriptors else []
        super().__init__(
            [*limited, sys.executable, "-W", "default::ResourceWarning", *self.start,
             "--listen", listen, "--log-format", "json", *admin, *arguments],
        )  # fmt: skip

    def records(self) -> list[dict[str, Any]]:
        """Return the records that it has logged."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    @property
    def addresses(self) -> list[str]:
        """Return the addresses on which it listens, as soon as it does."""
        line = self.wait_for_line(lambda line: '"serving"' in line)
        addresses: list[str] = json.loads(line)["listen"]
        return addresses

    @property
    def port(self) -> int:
        return int(self.addresses[0].rpartition(":")[2])

    def complaints(self) -> list[str]:
        return [line for line in self.lines if any(word in line for word in COMPLAINTS)]

    def stop(self) -> int:
        """Ask it to end, and return the exit code."""
        if self.alive:
            self.signal(signal.SIGTERM)
        return self.wait()

    def memory_bytes(self, name: str) -> int:
        """Return a figure of /proc/PID/status: VmRSS, or VmHWM (its peak)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} in /proc/{self.pid}/status")

    def forget_peak(self) -> None:
        """Set VmHWM back to VmRSS (proc(5), clear_refs)."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class UnhurriedRetter(RetterProgram):
    """The same, for tests that look at the situation which it tells."""

    start = ("-c", UNHURRIED)


class ApplicationProgram(Program):
    """tests/real/application.py, on a free port or where it was before."""

    def __init__(self, address: str = "", pem: str = "") -> None:
        self.address = address or str(free_port())
        words = [self.address, pem] if pem else [self.address]
        super().__init__([sys.executable, "-m", "tests.real.application", *words])
        self.wait_for_line(lambda line: line == "ready")

    @property
    def port(self) -> int:
        return int(self.address)

    @property
    def upstream(self) -> str:
        return self.address if self.address.startswith("unix:") else f"127.0.0.1:{self.address}"
