"""Two workers before one application: they count together, and one of them judges for both."""

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from retter.cli import main
from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.processes import (
    DEADLINE_S,
    ApplicationProgram,
    RetterProgram,
    eventually,
)
from tests.real.test_workers import workers_of
from tests.real.wire import fetch

PLACES = 3
CLIENTS = 24  # on two sockets: that all of them go to one happens once in eight million times


@pytest.fixture
def proxy(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str, tmp_path: Path
) -> RetterProgram:
    """Nobody waits in it: a request finds a place, or is answered 503 at once."""
    return start_retter(
        "--upstream", application.upstream, "--loop", loop_name, "--workers", "2",
        "--max-in-flight", str(PLACES), "--queue-max", "0",
        "--admin", f"unix:{tmp_path / 'admin.sock'}",
    )  # fmt: skip


class Askers:
    """Clients that ask one after the other for a page that waits at a gate."""

    def __init__(self, port: int, gate: Gate, stack: contextlib.ExitStack) -> None:
        self._port = port
        self._gate = gate
        self._stack = stack
        self.waiting: list[http.client.HTTPConnection] = []

    def ask(self) -> bool:
        """Ask once; return whether the request found a place."""
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE_S)
        self._stack.enter_context(contextlib.closing(client))
        before = self._gate.waiting()
        client.request("GET", f"/wait?gate={self._gate.name}")
        client.sock.setblocking(False)

        def rejected() -> bool:
            with contextlib.suppress(BlockingIOError):
                return bool(client.sock.recv(1, 0x02))  # MSG_PEEK
            return False

        eventually(lambda: rejected() or self._gate.waiting() > before, "it is decided about")
        client.sock.settimeout(DEADLINE_S)
        if self._gate.waiting() > before:
            self.waiting.append(client)
            return True
        assert client.getresponse().status == 503
        return False


@pytest.fixture
def gate(application: ApplicationProgram) -> Iterator[Gate]:
    gate = Gate(application, "judgement")
    yield gate
    gate.open()


def test_two_workers_have_no_more_in_flight_than_one_may_have(
    proxy: RetterProgram, gate: Gate
) -> None:
    """Whichever worker a client comes to."""
    with contextlib.ExitStack() as stack:
        askers = Askers(proxy.port, gate, stack)
        found = [askers.ask() for _ in range(CLIENTS)]
        assert found == [True] * PLACES + [False] * (CLIENTS - PLACES)
        gate.open()
        assert [client.getresponse().status for client in askers.waiting] == [200] * PLACES
    eventually(lambda: fetch(proxy.port, "GET", "/page").status == 200, "there are places again")


def test_what_a_killed_worker_had_in_flight_is_counted_no_more(
    proxy: RetterProgram, gate: Gate
) -> None:
    """All places are free again when both have been killed."""
    with contextlib.ExitStack() as stack:
        askers = Askers(proxy.port, gate, stack)
        assert [askers.ask() for _ in range(PLACES + 1)] == [True] * PLACES + [False]
        before = workers_of(proxy.pid)
        for pid in before:
            os.kill(pid, signal.SIGKILL)

        def both_follow() -> bool:
            return len([one for one in proxy.records() if one["event"] == "worker-serves"]) == 2

        eventually(both_follow, "two others serve")
        assert [askers.ask() for _ in range(PLACES + 1)] == [True] * PLACES + [False]


def states_of(proxy: RetterProgram) -> set[str | None]:
    """Return what the workers say: so many connections reach all of them."""
    answers = [fetch(proxy.port, "GET", f"/page?{number}") for number in range(CLIENTS)]
    return {answer.get("X-Circuit") for answer in answers}


def test_an_order_to_one_worker_is_obeyed_by_both(proxy: RetterProgram, tmp_path: Path) -> None:
    """And one that begins later obeys it too."""
    where = f"unix:{tmp_path / 'admin.sock'}"
    proxy.wait_for_line(lambda line: '"serving"' in line)

    assert main(["circuit", "open", "--admin", where]) == 0
    eventually(lambda: states_of(proxy) == {"OPEN"}, "both workers say so")
    os.kill(workers_of(proxy.pid)[1], signal.SIGKILL)
    proxy.wait_for_line(lambda line: '"worker-serves"' in line)
    assert states_of(proxy) == {"OPEN"}
    assert main(["circuit", "auto", "--admin", where]) == 0
    eventually(lambda: "OPEN" not in states_of(proxy), "both decide again")


def test_who_waits_in_one_worker_gets_the_place_that_another_has_left(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    """There is one place, and all clients get it in turn."""
    where = f"unix:{tmp_path / 'admin.sock'}"
    proxy = start_retter(
        "--upstream", application.upstream, "--workers", "2",
        "--max-in-flight", "1", "--queue-wait", f"{DEADLINE_S:g}s", "--admin", where,
    )  # fmt: skip
    proxy.wait_for_line(lambda line: '"serving"' in line)
    # A worker that has just started knows the others after its first tick. Orders are obeyed there.
    assert main(["circuit", "open", "--admin", where]) == 0
    eventually(lambda: states_of(proxy) == {"OPEN"}, "both have obeyed")
    assert main(["circuit", "auto", "--admin", where]) == 0
    eventually(lambda: states_of(proxy) == {"CLOSED"}, "both forward")
    gate = Gate(application, "turn")
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(CLIENTS):
            client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=DEADLINE_S)
            clients.append(stack.enter_context(contextlib.closing(client)))
            client.request("GET", f"/wait?gate={gate.name}")
        eventually(lambda: gate.waiting() == 1, "the first has the place")
        gate.open()
        assert [client.getresponse().status for client in clients] == [200] * CLIENTS
