"""Faults of the server that boxes share, with connections that freeze or are reset.

Each time there are visitors, no visitor gets an error, and nothing comes back that was purged.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.real.boxes import (
    SERVERS,
    SHOP,
    Boxes,
    Load,
    RedisProgram,
    mortal_application,  # noqa: F401 - a fixture
)
from tests.real.conftest import StartRetter
from tests.real.crossing import Crossing
from tests.real.processes import ApplicationProgram, Program, free_port
from tests.real.wire import fetch
from tests.support.tracing import untraced

pytestmark = untraced

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
KEPT, PURGED = "/echo/kept", "/echo/purged"


class Fault:
    """A fault of the server, and how it ends."""

    options = ""  # of the URL
    arguments: tuple[str, ...] = ()  # of the server

    def __init__(self, name: str, folder: Path, programs: list[Program]) -> None:
        self.folder = folder
        self.programs = programs
        self.prepare()
        self.first = self.server(name, *self.arguments)

    def server(self, name: str, *arguments: str) -> RedisProgram:
        program = RedisProgram(self.folder, *arguments, name=name)
        self.programs.append(program)
        return program

    def prepare(self) -> None:
        """Before the server starts."""

    @property
    def target(self) -> int:
        """The port to which boxes connect."""
        return self.first.port

    def url(self, port: int) -> str:
        return f"redis://127.0.0.1:{port}"

    def begins(self, crossing: Crossing) -> str:
        """Let it happen; return a word of what the boxes say then, "" if they say nothing."""
        raise NotImplementedError

    def ends(self, crossing: Crossing) -> None:
        """Let the server be well again."""


class FailsOver(Fault):
    """The server is lost. Its replica is promoted, and the address leads there."""

    def prepare(self) -> None:
        self.replica_port = free_port()

    def begins(self, crossing: Crossing) -> str:
        self.second = self.server(self.first.name)
        self.second.do("REPLICAOF", "127.0.0.1", self.first.port)
        until_true(lambda: b"master_link_status:up" in self.second.text("INFO", "replication"))
        crossing.target = free_port()  # nobody is there yet
        self.first.signal(signal.SIGSTOP)
        return "closed"

    def ends(self, crossing: Crossing) -> None:
        self.second.do("REPLICAOF", "NO", "ONE")
        crossing.target = self.second.port


class FailsOverToAnEmptyOne(FailsOver):
    """The same, and the replica has nothing."""

    def begins(self, crossing: Crossing) -> str:
        self.second = self.server(self.first.name)
        crossing.target = free_port()
        self.first.signal(signal.SIGSTOP)
        return "closed"


class IsDenied(Fault):
    """Somebody takes RETTER's rights away."""

    def begins(self, crossing: Crossing) -> str:
        self.first.do("ACL", "SETUSER", "default", "-xadd", "-zadd")
        return "zadd"

    def ends(self, crossing: Crossing) -> None:
        self.first.do("ACL", "SETUSER", "default", "+@all")


class IsFull(Fault):
    """There is no room, and nothing may be evicted."""

    arguments = ("--maxmemory-policy", "noeviction")

    def begins(self, crossing: Crossing) -> str:
        self.first.do("CONFIG", "SET", "maxmemory", 1)
        return "maxmemory"

    def ends(self, crossing: Crossing) -> None:
        self.first.do("CONFIG", "SET", "maxmemory", 0)


class IsFlushed(Fault):
    """All is lost, and the connections too. For a moment nobody can connect."""

    def begins(self, crossing: Crossing) -> str:
        crossing.target = free_port()
        self.first.do("FLUSHALL")
        return "closed"

    def ends(self, crossing: Crossing) -> None:
        crossing.target = self.first.port


class ShowsAnotherCertificate(Fault):
    """The address leads to a server whose certificate is of another authority."""

    def prepare(self) -> None:
        for name in ("right", "wrong"):
            authority = trustme.CA()
            authority.cert_pem.write_to_path(self.folder / f"{name}-ca.pem")
            certificate = authority.issue_cert("127.0.0.1")
            certificate.private_key_and_cert_chain_pem.write_to_path(self.folder / f"{name}.pem")
        self.ports = {"right": free_port(), "wrong": free_port()}
        self.arguments = self._tls("right")

    def _tls(self, name: str) -> tuple[str, ...]:
        return (
            "--tls-port", str(self.ports[name]), "--tls-cert-file", f"{name}.pem",
            "--tls-key-file", f"{name}.pem", "--tls-ca-cert-file", f"{name}-ca.pem",
            "--tls-auth-clients", "no",
        )  # fmt: skip

    @property
    def target(self) -> int:
        return self.ports["right"]

    def url(self, port: int) -> str:
        return f"rediss://127.0.0.1:{port}?ssl_ca_certs={self.folder}/right-ca.pem"

    def begins(self, crossing: Crossing) -> str:
        self.server(self.first.name, *self._tls("wrong"))
        crossing.target = self.ports["wrong"]
        return "certificate"

    def ends(self, crossing: Crossing) -> None:
        crossing.target = self.ports["right"]


def until_true(what: Callable[[], object]) -> None:
    while not what():
        threading.Event().wait(0.05)


FAULTS = [
    FailsOver, FailsOverToAnEmptyOne, IsDenied, IsFull, IsFlushed, ShowsAnotherCertificate,
]  # fmt: skip


@pytest.fixture
def crossings() -> Iterator[list[Crossing]]:
    made: list[Crossing] = []
    yield made
    for crossing in made:
        crossing.close()


def pairs() -> Iterator[tuple[type[Fault], str, str]]:
    """Each fault in both ways, by turns with each server: so each server meets each fault."""
    for number, kind in enumerate(FAULTS):
        for turn, how in enumerate(["frozen", "reset"], number):
            yield kind, how, SERVERS[turn % len(SERVERS)] if SERVERS else "redis-server"


@pytest.mark.release
@pytest.mark.parametrize(("kind", "how", "name"), list(pairs()))
def test_it_is_no_error_for_a_visitor_and_brings_nothing_back(
    mortal: ApplicationProgram,
    start_retter: StartRetter,
    programs: list[Program],
    crossings: list[Crossing],
    tmp_path: Path,
    kind: type[Fault],
    how: str,
    name: str,
) -> None:
    fault = kind(name, tmp_path, programs)
    crossing = Crossing(fault.target)
    crossings.append(crossing)
    boxes = Boxes(start_retter, mortal, fault.url(crossing.port), tmp_path)
    boxes.wait_until(lambda: boxes.shared(0)["boxes"] == 2 == boxes.shared(1)["boxes"], "2 boxes")
    for port in boxes.ports:
        for path in (KEPT, PURGED):
            assert fetch(port, "GET", path, SHOP).status == 200
    load = Load(boxes.ports)
    load.start()
    try:
        boxes.wait_until(lambda: boxes.shared(0)["written"] > 5, "it is written to")
        word = fault.begins(crossing)
        {"frozen": crossing.freeze, "reset": crossing.reset}[how]()
        boxes.wait_until(boxes.away, "both notice it")
        boxes.wait_until(lambda: word in trouble(boxes), f"they say why: {word}")
        purged = fetch(boxes.admins[0], "POST", "/api/purge", FORM, f"url={PURGED}".encode())
        assert purged.status == 200
        heard: int = boxes.shared(1)["changes_heard"]
        fault.ends(crossing)
        boxes.wait_until(boxes.connected, "both use it again")
        boxes.wait_until(lambda: boxes.shared(1)["changes_heard"] > heard, "the purge is heard")
    finally:
        load.end()
    assert set(load.statuses) == {200}
    mortal.kill()
    for number, port in enumerate(boxes.ports):
        assert fetch(port, "GET", PURGED, SHOP).status in (502, 503)
        boxes.wait_for_status(number, KEPT, SHOP, 200)


def trouble(boxes: Boxes) -> str:
    said: Any = boxes.shared(0)["trouble"]
    return str(said).lower()
