"""deploy/compose-two-boxes.yaml as processes of this machine: its commands and its configuration.

Names of hosts become ports of loopback. Nothing else is changed, so what the files say is tried.
"""

import contextlib
import http.client
import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.real.boxes import SECRET, SERVERS
from tests.real.conftest import need
from tests.real.processes import DEADLINE_S, Program, accepts, eventually, free_port
from tests.real.wire import fetch

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose-two-boxes.yaml").read_text())[
    "services"
]
BOXES = ("retter-1", "retter-2")
ENVIRONMENT = dict(re.findall(r"(?m)^ +(RETTER_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))

# HAProxy gives a visitor's address always to the same box. All of 127.0.0.0/8 is this machine.
VISITORS = [f"127.0.1.{number}" for number in range(1, 9)]
PAGES = [f"/product/{number}" for number in range(1, 6)]


class Composition:
    """All services of the file."""

    def __init__(self, folder: Path, programs: list[Program]) -> None:
        self.folder = folder
        self.programs = programs
        (folder / "shared-secret").write_text(SECRET)
        self.ports = {name: free_port() for name in (*COMPOSE, "admin-1", "admin-2")}
        self.running: dict[str, Program] = {}
        self._start_server()
        (word, *rest) = COMPOSE["app"]["command"]
        self._start("app", [sys.executable, "-m", "retter", word, *map(self._here, rest)])
        for name in BOXES:
            self._start_box(name)
        config = (DEPLOY / "haproxy-two-boxes.cfg").read_text()
        path = folder / "haproxy.cfg"
        path.write_text(self._here(config.replace("bind :8080", "bind balancer:8080")))
        self._start("balancer", [need("haproxy", "haproxy"), "-db", "-f", str(path)])
        eventually(lambda: all(map(accepts, self.ports.values())), "all listen")

    def _here(self, text: str) -> str:
        """Put ports of this machine for the hosts of the file."""
        text = text.replace("0.0.0.0:8090", "app:8090")
        for name in COMPOSE:
            text = re.sub(rf"\b{name}:\d+", f"127.0.0.1:{self.ports[name]}", text)
        return text.replace("/run/secrets", str(self.folder))

    def _start(
        self, name: str, command: list[str], environment: dict[str, str] | None = None
    ) -> None:
        program = self.running[name] = Program(command, environment)
        self.programs.append(program)

    def _start_server(self) -> None:
        name, *arguments = COMPOSE["valkey"]["command"]
        if name not in SERVERS:
            name = "redis-server"
        own = ["--port", str(self.ports["valkey"]), "--bind", "127.0.0.1"]
        self._start("valkey", [need(name, name), *own, "--dir", str(self.folder), *arguments])

    def _start_box(self, name: str) -> None:
        environment = {**ENVIRONMENT, **COMPOSE[name]["environment"]}
        environment = {key: self._here(value) for key, value in environment.items()}
        environment["RETTER_LISTEN"] = f"127.0.0.1:{self.ports[name]}"
        environment["RETTER_ADMIN"] = f"127.0.0.1:{self.ports[name.replace('retter', 'admin')]}"
        self._start(name, [sys.executable, "-m", "retter"], environment)

    def state(self, name: str) -> dict[str, Any]:
        port = self.ports[name.replace("retter", "admin")]
        state: dict[str, Any] = json.loads(fetch(port, "GET", "/api/state").body)
        return state

    def asked(self, name: str, port: int) -> bool:
        """Let all visitors ask once; return whether this box has had requests."""
        for visitor in VISITORS:
            ask(visitor, port, PAGES[0])
        return bool(self.state(name)["store"]["entries"])


def ask(visitor: str, port: int, path: str) -> int:
    """Return the status of the answer to one visitor."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=DEADLINE_S, source_address=(visitor, 0)
    )
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": "shop.example"})
        answer = connection.getresponse()
        answer.read()
        return answer.status


class Traffic(threading.Thread):
    """One visitor, from page to page."""

    def __init__(self, visitor: str, port: int) -> None:
        super().__init__(daemon=True)
        self.statuses: list[int] = []
        self._visitor, self._port = visitor, port
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(0.01):
            path = PAGES[len(self.statuses) % len(PAGES)]
            self.statuses.append(ask(self._visitor, self._port, path))

    def end(self) -> None:
        self._ends.set()
        self.join()


@pytest.fixture
def composition(tmp_path: Path, programs: list[Program]) -> Composition:
    return Composition(tmp_path, programs)


def test_visitors_notice_neither_that_the_server_is_killed_nor_that_a_box_is(
    composition: Composition,
) -> None:
    port = composition.ports["balancer"]
    eventually(
        lambda: [composition.state(name)["shared"]["boxes"] for name in BOXES] == [2, 2], "2 boxes"
    )
    # HAProxy's checks must have found both of them.
    eventually(lambda: all(ask(one, port, PAGES[0]) == 200 for one in VISITORS), "all are served")
    eventually(lambda: all(composition.asked(name, port) for name in BOXES), "both serve")
    visitors = [Traffic(visitor, port) for visitor in VISITORS]
    for visitor in visitors:
        visitor.start()
    try:

        def has_served(more: int) -> bool:
            return all(len(visitor.statuses) >= more for visitor in visitors)

        eventually(lambda: has_served(20), "all are served")
        assert all(composition.state(name)["shared"]["written"] for name in BOXES), "both serve"

        composition.running["valkey"].kill()
        eventually(
            lambda: not any(composition.state(n)["shared"]["connected"] for n in BOXES), "away"
        )
        after = max(len(visitor.statuses) for visitor in visitors) + 20
        eventually(lambda: has_served(after), "all are served without the server")
        assert {status for visitor in visitors for status in visitor.statuses} == {200}
        composition._start_server()
        eventually(lambda: all(composition.state(n)["shared"]["connected"] for n in BOXES), "back")

        composition.running["retter-1"].kill()
        after = max(len(visitor.statuses) for visitor in visitors) + 20
        eventually(lambda: has_served(after), "all are served by the other box")
    finally:
        for visitor in visitors:
            visitor.end()
    # What the killed box had accepted is lost: at most one request of each visitor.
    for visitor in visitors:
        lost = [status for status in visitor.statuses if status != 200]
        assert len(lost) <= 1 and set(lost) <= {502, 503}, lost
        assert visitor.statuses[-10:] == [200] * 10

    composition.running["app"].kill()
    for address in VISITORS:
        for path in PAGES:
            assert ask(address, port, path) == 200, "stored pages go on"
