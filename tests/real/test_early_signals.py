"""SIGHUP and SIGUSR2 that come while RETTER starts."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import StartRetter
from tests.real.processes import DEADLINE_S, ApplicationProgram, RetterProgram, eventually
from tests.real.wire import fetch

# A start that gets a signal when it imports the command line, and when it imports what serves.
# A successor gets none, otherwise there would be no end of them.
SIGNALLED = """
import os, signal, sys

class Sender:
    def find_spec(self, name, path=None, target=None):
        if name in ("retter.cli", "retter.process.program", "retter.process.running"):
            os.kill(os.getpid(), signal.{name})

if "_RETTER_TAKEOVER" not in os.environ:
    sys.meta_path.insert(0, Sender())
from retter.__main__ import main
sys.exit(main())
"""


class HungUp(RetterProgram):
    start = ("-c", SIGNALLED.format(name="SIGHUP"))


class TakenOver(RetterProgram):
    start = ("-c", SIGNALLED.format(name="SIGUSR2"))


def blocked(pid: int) -> set[int]:
    """Return the signals that a process keeps back (proc(5))."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(
        next(line for line in status.splitlines() if line.startswith("SigBlk:")).split()[1], 16
    )
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from family(int(child))


def event(proxy: RetterProgram, name: str) -> dict[str, object]:
    record = eventually(
        lambda: next((one for one in proxy.records() if one["event"] == name), None), name
    )
    assert record is not None
    return record


@pytest.fixture(params=["1", "2"])
def arguments(request: pytest.FixtureRequest, application: ApplicationProgram) -> tuple[str, ...]:
    return ("--upstream", application.upstream, "--workers", request.param)


def test_a_hangup_is_a_reload_once_retter_serves(
    start_retter: StartRetter, arguments: tuple[str, ...]
) -> None:
    proxy = start_retter(*arguments, kind=HungUp)
    assert event(proxy, "reloaded")["changed"] == {}
    assert fetch(proxy.port, "GET", "/page").json["target"] == "/page"
    assert [pid for pid in family(proxy.pid) if blocked(pid)] == []
    assert [one["event"] for one in proxy.records()].count("reloaded") == 1


def test_a_takeover_begins_once_retter_serves(
    start_retter: StartRetter, arguments: tuple[str, ...]
) -> None:
    proxy = start_retter(*arguments, kind=TakenOver)
    successor = event(proxy, "takeover")["successor"]
    assert isinstance(successor, int)
    port = proxy.port
    assert proxy.process.wait(DEADLINE_S) == 0  # its successor writes on to the same pipe
    assert fetch(port, "GET", "/page").json["target"] == "/page"
    assert [pid for pid in family(successor) if blocked(pid)] == []
    proxy.signal_all(signal.SIGTERM)
