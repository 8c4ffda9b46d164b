"""Several boxes in front of one application, and what they share: a Redis or a Valkey.

Its port is one of loopback, and it keeps nothing on disk.
"""

import contextlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.real.conftest import StartRetter, need
from tests.real.processes import ApplicationProgram, Program, RetterProgram, eventually, free_port
from tests.real.wire import fetch

SHOP = {"Host": "shop.example"}  # ports change with the process
SECRET_COOKIE = "PHPSESSID=alice-0123456789abcdef"
ALICE = {**SHOP, "Cookie": SECRET_COOKIE}
SECRET = "0123456789abcdef" * 4
PRIVATE_PATH = "/echo/alice-private-orders"

# What docs/scaling.md gives RETTER's user at the server, and nothing else.
RIGHTS = (
    "~retter:1:* resetchannels -@all +ping +time +mget +set +expire +unlink +rpush +ltrim +lrange "
    "+zadd +zrem +zremrangebyscore +zcard +xadd +xlen +xrange +xrevrange +select +auth"
)


# Redis, and Valkey where it can be had: .ci/run installs it.
SERVERS = [name for name in ("redis-server", "valkey-server") if shutil.which(name)]


class RedisProgram(Program):
    """redis-server or valkey-server, on a port of loopback."""

    def __init__(
        self, folder: Path, *arguments: str, port: int = 0, name: str = "redis-server"
    ) -> None:
        self.port = port or free_port()
        self.name = name
        command = [
            need(name, name), "--port", str(self.port), "--bind", "127.0.0.1",
            "--save", "", "--dir", str(folder), "--rdbcompression", "no", *arguments,
        ]  # fmt: skip
        super().__init__(command, cwd=folder)
        self.wait_for_line(lambda line: "Ready to accept connections" in line)

    @contextlib.contextmanager
    def client(self) -> Iterator["Redis"]:
        client = Redis(host="127.0.0.1", port=self.port)
        try:
            yield client
        finally:
            client.close()

    def do(self, *command: str | int) -> Any:
        """Run one command."""
        with self.client() as client:
            run: Any = client.execute_command
            return run(*command)

    def text(self, *command: str) -> bytes:
        """Run one command and return its answer as it came."""
        with self.client() as client:
            connection: Any = client.connection_pool.make_connection()
            connection.send_command(*command)
            answer: bytes = connection.read_response()
            connection.disconnect()
            return answer


class Boxes:
    """Two boxes in front of one application."""

    def __init__(
        self,
        start: StartRetter,
        application: ApplicationProgram,
        url: str,
        folder: Path,
        *more: str,
    ) -> None:
        secret = folder / "secret"
        secret.write_text(SECRET + "\n")
        self.admins = [free_port(), free_port()]
        self.programs: list[RetterProgram] = [
            start(
                "--upstream", application.upstream, "--admin", f"127.0.0.1:{admin}",
                "--shared", url, "--shared-secret", str(secret),
                "--session-cookies", "PHPSESSID", "--connect-hold", "0s", *more,
            )
            for admin in self.admins
        ]  # fmt: skip
        self.ports = [program.port for program in self.programs]

    def shared(self, number: int) -> dict[str, Any]:
        document = json.loads(fetch(self.admins[number], "GET", "/api/state").body)
        shared: dict[str, Any] = document["shared"]
        return shared

    def connected(self) -> bool:
        return all(self.shared(number)["connected"] for number in range(2))

    def away(self) -> bool:
        return not any(self.shared(number)["connected"] for number in range(2))

    def wait_until(self, what: Callable[[], bool], words: str) -> None:
        eventually(what, words)

    def wait_for_page(self, number: int, path: str, fields: dict[str, str], body: bytes) -> None:
        """Wait until a box serves this page: a read that a busy machine makes late is repeated."""
        eventually(lambda: fetch(self.ports[number], "GET", path, fields).body == body, path)

    def wait_for_status(self, number: int, path: str, fields: dict[str, str], status: int) -> None:
        """The same for any page with this status."""
        eventually(lambda: fetch(self.ports[number], "GET", path, fields).status == status, path)


@pytest.fixture(name="mortal")
def mortal_application() -> Iterator[ApplicationProgram]:
    """An application of this test's alone, which may be killed."""
    application = ApplicationProgram()
    yield application
    application.kill()


@pytest.fixture(name="redis", params=SERVERS or ["redis-server"])
def shared_server(
    request: pytest.FixtureRequest, tmp_path: Path, programs: list[Program]
) -> RedisProgram:
    program = RedisProgram(tmp_path, name=request.param)
    programs.append(program)
    return program


class Load(threading.Thread):
    """Visitors of both boxes, one after the other, until they are told to stop."""

    # Some 60 requests a second: enough that one is under way whenever something happens, and
    # a tenth of what would keep a core busy that the other tests need.
    PAUSE_S = 0.01

    def __init__(self, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self._ports = ports
        self._ends = threading.Event()
        self.statuses: dict[int, int] = {}

    def run(self) -> None:
        number = 0
        while not self._ends.wait(self.PAUSE_S):
            number += 1
            for port in self._ports:
                target = f"/echo/{number % 50}" if number % 5 else f"/echo/new-{number}"
                status = fetch(port, "GET", target, ALICE if number % 3 == 0 else SHOP).status
                self.statuses[status] = self.statuses.get(status, 0) + 1

    def end(self) -> None:
        self._ends.set()
        self.join()
