"""A new process in the place of the old one, under load, without a failed request."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import retter
from retter import cli
from retter.net import systemd
from retter.net.handover import Inheritance
from retter.net.sockets import ListenError
from retter.process.running import DRAIN_POLL_S
from tests.real import inside
from tests.real.conftest import StartRetter, need
from tests.real.processes import (
    DEADLINE_S,
    ROOT,
    ApplicationProgram,
    Program,
    RetterProgram,
    connected,
    eventually,
)
from tests.real.wire import fetch

CLIENTS = 6  # half of them keep their connections, half open one for each request
THINK_S = 0.005


# What is measured here is who is served: a slow machine must not be protected from the load.
OBSERVE = ("--circuit", "observe")


class Load:
    """Clients that go on until they are told to stop; every failure is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers = 0
        self.closes = 0  # connections whose end was announced
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        count = 0
        while not self._stop.is_set():
            count += 1
            method, body = ("POST", b"x" * 100) if count % 10 == 0 else ("GET", None)
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(
                        "127.0.0.1", self.port, timeout=DEADLINE_S
                    )
                connection.request(method, f"/{number}", body)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    self.failures.append(f"{method}: {response.status}")
                self.answers += 1
                if number % 2 or response.getheader("connection") == "close":
                    self.closes += response.getheader("connection") == "close"
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{method}: {error!r}")
                connection = None
            time.sleep(THINK_S)
        if connection is not None:
            connection.close()

    def wait_for(self, more: int) -> None:
        """Let so many more answers come."""
        wanted = self.answers + more
        eventually(lambda: self.answers >= wanted or self.failures, "answers")

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


@contextlib.contextmanager
def load_on(port: int) -> Iterator[Load]:
    load = Load(port)
    try:
        load.wait_for(100)
        yield load
        load.wait_for(100)
    finally:
        load.stop()


def serving(proxy: RetterProgram, count: int) -> list[dict[str, Any]]:
    """Wait until so many have said that they serve, one after the other, and return their words.

    What a process has written may be read a while after it has ended.
    """
    found: list[dict[str, Any]] = []

    def so_many() -> bool:
        found[:] = [record for record in proxy.records() if record["event"] == "serving"]
        return len(found) >= count

    eventually(so_many, f"{count} have served")
    return found


def pids_of(proxy: RetterProgram) -> list[int]:
    """Return who it is, and who was started to take over."""
    records = proxy.records()
    return [proxy.pid, *(one["successor"] for one in records if one["event"] == "takeover")]


def is_alive(pid: int) -> bool:
    """Whether it runs; a zombie, which nobody here waits for, does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def has_ended(pid: int) -> bool:
    return not is_alive(pid)


def stop_all(proxy: RetterProgram) -> None:
    for pid in pids_of(proxy)[1:]:
        if is_alive(pid):
            os.kill(pid, signal.SIGTERM)
            eventually(partial(has_ended, pid), "the successor's end")


def test_a_successor_takes_over_under_load(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    proxy = start_retter("--upstream", application.upstream, "--loop", loop_name, *OBSERVE)
    port = proxy.port
    try:
        with load_on(port) as load:
            proxy.signal(signal.SIGUSR2)
            eventually(lambda: not proxy.alive or load.failures, "the old one ends")
        assert load.failures == []
        assert load.closes > 0  # whoever was connected was told to come again
        first, second = (one["pid"] for one in serving(proxy, 2))
        assert first == proxy.pid != second
        with load_on(port) as load:  # and once more, from the successor to its own
            os.kill(second, signal.SIGUSR2)
            serving(proxy, 3)
            eventually(lambda: not is_alive(second) or load.failures, "the second ends")
        assert load.failures == []
        assert proxy.process.returncode == 0
    finally:
        stop_all(proxy)


@pytest.mark.parametrize("rounds", range(6))
def test_whoever_is_accepted_last_is_served(
    application: ApplicationProgram, loop_name: str, rounds: int
) -> None:
    """A connection is the old process's or the successor's, wherever accepting it has come to."""

    async def main() -> None:
        settings = retter.Settings(upstream=application.upstream, listen=("127.0.0.1:0",))
        async with retter.running(settings) as proxy:
            with proxy._sockets[0].dup() as successor, socket.socket() as client:
                client.connect(successor.getsockname())
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                for _ in range(rounds):
                    await asyncio.sleep(0)
                proxy.handed_over()
                await proxy._drain()
                client.settimeout(DEADLINE_S)
                try:
                    successor.accept()[0].close()
                except BlockingIOError:
                    assert client.recv(12) == b"HTTP/1.1 200"

    inside.run(main(), loop_name)


def test_a_process_that_was_held_up_reads_before_it_closes(
    application: ApplicationProgram, loop_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that came while it could not run are answered, however idle the client seems."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        settings = retter.Settings(upstream=application.upstream, listen=("127.0.0.1:0",))
        async with retter.running(settings) as proxy:
            shared = proxy._services
            client = socket.create_connection(("127.0.0.1", inside.port_of(proxy)))
            event, its_event = socket.socketpair()

            def hold_up() -> None:
                """Between looking at its sockets and looking at the clock."""
                loop.remove_reader(its_event)
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                monkeypatch.setattr("retter.proxy.proxy.DRAIN_IDLE_S", 0.0)
                time.sleep(2 * DRAIN_POLL_S)

            with client, event, its_event:
                await inside.eventually_async(lambda: shared.clients.connections, "it is accepted")
                monkeypatch.setattr("retter.proxy.proxy.DRAIN_IDLE_S", DEADLINE_S)
                drained = asyncio.ensure_future(proxy._drain())
                await inside.eventually_async(lambda: shared.draining, "it waits for the client")
                loop.add_reader(its_event, hold_up)
                event.send(b"x")
                client.setblocking(False)
                answer = await inside.in_time(loop.sock_recv(client, 12))
                assert answer == b"HTTP/1.1 200"
                client.close()
                await inside.in_time(drained)

    inside.run(main(), loop_name)


def test_a_unix_socket_stays_where_it_is(
    application: ApplicationProgram, start_retter: StartRetter, short_path: Path
) -> None:
    path = short_path / "front"
    proxy = start_retter("--upstream", application.upstream, listen=f"unix:{path}")
    assert proxy.addresses == [f"unix:{path}"]
    try:
        proxy.signal(signal.SIGUSR2)
        eventually(lambda: not proxy.alive, "the old one ends")
        serving(proxy, 2)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_S)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
    finally:
        stop_all(proxy)
    assert not path.exists()  # the last one removes it


def test_a_successor_that_cannot_start_changes_nothing(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    file = tmp_path / "retter.toml"
    file.write_text("")
    proxy = start_retter("--upstream", application.upstream, "--config", str(file))
    port = proxy.port
    for name, fault in (("drain", "'soon'"), ("tls_cert", "'nowhere.pem'")):
        file.write_text(f"{name} = {fault}\n")
        proxy.lines.clear()
        proxy.signal(signal.SIGUSR2)
        line = proxy.wait_for_line(lambda line: "takeover-failed" in line)
        assert '"exit_code": 2' in line
        # What the other process had to say is a line of the same log.
        told = json.loads(proxy.wait_for_line(lambda line: '"cannot-start"' in line))
        assert (told["level"], told["event"]) == ("error", "cannot-start")
        assert name in told["error"]
        assert all(line.startswith("{") for line in proxy.lines)
        assert fetch(port, "GET", "/page").status == 200
    assert proxy.alive


def test_a_successor_that_cannot_listen_leaves_the_paths_where_they_are(
    application: ApplicationProgram, programs: list[Program], short_path: Path
) -> None:
    file, front, admin = (short_path / name for name in ("toml", "front", "admin"))
    file.write_text(f"listen = ['unix:{front}']\nadmin = 'unix:{admin}'\n")
    words = ("--upstream", application.upstream, "--config", str(file), "--log-format", "json")
    proxy = Program([sys.executable, "-m", "retter", *words])
    programs.append(proxy)
    proxy.wait_for_line(lambda line: '"serving"' in line)
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        file.write_text(f"listen = ['unix:{front}', '{taken}']\nadmin = 'unix:{admin}'\n")
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_line(lambda line: "takeover-failed" in line)
    for path, target in ((front, "/page"), (admin, "/health")):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(DEADLINE_S)
            client.connect(str(path))
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert client.recv(12) == b"HTTP/1.1 200"
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 0
    assert not front.exists() and not admin.exists()


def test_who_cannot_serve_accepts_nobody(monkeypatch: pytest.MonkeyPatch, loop_name: str) -> None:
    """A client that it has accepted and then leaves alone is lost to the process before it."""

    async def main() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        address = listener.getsockname()
        with listener.dup() as before, socket.create_connection(address) as client:
            monkeypatch.setattr(systemd, "take_listeners", lambda: [listener])
            settings = retter.Settings(
                upstream=":1", listen=(f"127.0.0.1:{address[1]}",), admin=f"127.0.0.1:{address[1]}"
            )
            with pytest.raises(ListenError):
                async with retter.running(settings, inheritance=Inheritance()):
                    raise AssertionError("it must not serve")
            before.setblocking(False)
            accepted, peer = before.accept()
            assert peer == client.getsockname()
            accepted.close()

    inside.run(main(), loop_name)


def test_the_admin_listener_is_taken_over_too(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    proxy = start_retter("--upstream", application.upstream, "--admin", "127.0.0.1:0")
    before = serving(proxy, 1)[0]["admin"]
    try:
        proxy.signal(signal.SIGUSR2)
        eventually(lambda: not proxy.alive, "the old one ends")
        assert serving(proxy, 2)[1]["admin"] == before
        assert fetch(int(before.rpartition(":")[2]), "GET", "/health").status == 200
    finally:
        stop_all(proxy)


# -- what it begins with


SHOP = {"Host": "shop.example"}
ALICE = {**SHOP, "Cookie": "PHPSESSID=alice-0123456789abcdef"}


@pytest.fixture
def mortal() -> Iterator[ApplicationProgram]:
    """An application of this test's alone, which may be killed."""
    application = ApplicationProgram()
    yield application
    application.kill()


def descriptors_of(pid: int) -> list[str]:
    """Return what its descriptors are."""
    found: list[str] = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


def test_a_successor_begins_with_what_was_stored_and_an_operators_word(
    mortal: ApplicationProgram, start_retter: StartRetter
) -> None:
    """And nothing of it stands where another program could read it."""
    proxy = start_retter(
        "--upstream", mortal.upstream, "--admin", "127.0.0.1:0", "--connect-hold", "0s"
    )
    port = proxy.port
    admin = serving(proxy, 1)[0]["admin"].removeprefix("http://")
    try:
        assert fetch(port, "GET", "/page", SHOP).status == 200
        assert fetch(port, "GET", "/mine", ALICE).status == 200
        assert cli.main(["pause", "--for", "5m", "--admin", admin]) == 0
        for _ in range(2):  # the second signal comes before the first has been answered
            proxy.signal(signal.SIGUSR2)
        eventually(lambda: not proxy.alive, "the old one ends")
        second = serving(proxy, 2)[1]["pid"]
        taken = next(one for one in proxy.records() if one["event"] == "taken-over")
        assert taken["entries"] == 2
        assert pids_of(proxy) == [proxy.pid, second], "two signals, one successor"
        mortal.kill()
        assert fetch(port, "GET", "/page", SHOP).stored
        assert fetch(port, "GET", "/mine", ALICE).stored
        state = fetch(int(admin.rpartition(":")[2]), "GET", "/api/state").json
        assert state["paused"] is not None
        assert not [one for one in descriptors_of(second) if "retter-state" in one]
        environment = Path(f"/proc/{second}/environ").read_bytes().split(b"\0")
        told = next(one for one in environment if one.startswith(b"_RETTER_TAKEOVER="))
        values = json.loads(told.partition(b"=")[2])
        assert values.pop("workers") is None, "there is one process"
        assert {name for name, value in values.items() if not isinstance(value, int)} == {
            "listeners",
            "kept",
            "log_format",
        }
    finally:
        stop_all(proxy)


def test_a_successor_that_is_killed_half_way_leaves_the_old_one_with_all_it_has(
    mortal: ApplicationProgram, start_retter: StartRetter
) -> None:
    proxy = start_retter("--upstream", mortal.upstream, "--connect-hold", "0s")
    port = proxy.port
    assert fetch(port, "GET", "/page", SHOP).status == 200
    try:
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_line(lambda line: '"takeover"' in line)
        os.kill(pids_of(proxy)[1], signal.SIGKILL)
        line = proxy.wait_for_line(lambda line: "takeover-failed" in line)
        assert '"exit_code": -9' in line
        assert fetch(port, "GET", "/other", SHOP).status == 200
        proxy.signal(signal.SIGUSR2)  # and the next one may come
        eventually(lambda: not proxy.alive, "the old one ends")
        serving(proxy, 2)
        mortal.kill()
        assert fetch(port, "GET", "/page", SHOP).stored
        assert fetch(port, "GET", "/other", SHOP).stored
    finally:
        stop_all(proxy)


def test_an_old_process_that_is_killed_half_way_leaves_the_sockets_to_its_successor(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    proxy = start_retter("--upstream", application.upstream)
    port = proxy.port
    try:
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_line(lambda line: '"takeover"' in line)
        proxy.signal(signal.SIGKILL)
        serving(proxy, 2)
        assert fetch(port, "GET", "/page", SHOP).status == 200
    finally:
        stop_all(proxy)


def test_the_next_request_of_each_client_is_waited_for_if_a_successor_serves(
    application: ApplicationProgram, loop_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retter.process.running.DRAIN_IDLE_S", -DEADLINE_S)  # all are idle for long

    async def main() -> None:
        loop = asyncio.get_running_loop()
        settings = retter.Settings(upstream=application.upstream, listen=("127.0.0.1:0",))
        async with retter.running(settings) as proxy:
            shared = proxy._services
            with socket.create_connection(("127.0.0.1", inside.port_of(proxy))) as client:
                client.setblocking(False)
                await inside.eventually_async(lambda: shared.clients.connections, "it is accepted")
                proxy.handed_over()
                drained = asyncio.ensure_future(proxy._drain())
                rounds = 0

                def looked(now: float, idle_s: float) -> None:
                    nonlocal rounds
                    rounds += 1
                    drain(now, idle_s)

                drain = proxy._proxy.drain
                monkeypatch.setattr(proxy._proxy, "drain", looked)
                await inside.eventually_async(lambda: rounds > 1, "it has looked twice")
                await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = await inside.in_time(loop.sock_recv(client, 4096))
                assert answer.startswith(b"HTTP/1.1 200")
                assert b"\r\nConnection: close\r\n" in answer
            await inside.in_time(drained)

    inside.run(main(), loop_name)


# -- systemd ---------------------------------------------------------------------------------------


class Manager:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(DEADLINE_S)
        self.told: list[str] = []

    def hears(self, wanted: str) -> None:
        while not (places := [i for i, one in enumerate(self.told) if one.startswith(wanted)]):
            self.told += self.socket.recv(4096).decode().split("\n")
        del self.told[: places[0] + 1]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "retter", "--log-format", "json", "--admin", "off", *arguments]


def test_what_the_manager_hears(
    application: ApplicationProgram, short_path: Path, programs: list[Program], loop_name: str
) -> None:
    manager = Manager(short_path)
    program = Program(
        command("--upstream", application.upstream, "--listen", "127.0.0.1:0", "--loop", loop_name),
        {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "5000000"},
    )
    programs.append(program)
    manager.hears("READY=1")
    manager.hears("STATUS=circuit CLOSED: ")
    for _ in range(2):
        manager.hears("WATCHDOG=1")
    program.signal(signal.SIGHUP)
    manager.hears("RELOADING=1")
    manager.hears("READY=1")
    program.signal(signal.SIGTERM)
    manager.hears("STOPPING=1")
    assert program.wait() == 0
    manager.socket.close()


def test_a_restart_behind_an_activated_socket_under_load(
    application: ApplicationProgram, programs: list[Program]
) -> None:
    """The socket is the manager's: between two processes, clients wait in its backlog."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        port = listener.getsockname()[1]
        here = f"127.0.0.1:{port}"

        def start() -> Program:
            script = (
                f"import os; os.dup2({listener.fileno()}, 3, inheritable=True); "
                "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
                f"os.execv({sys.executable!r}, "
                f"{command('--upstream', application.upstream, '--listen', here, *OBSERVE)!r})"
            )
            listener.set_inheritable(True)
            program = Inherits([sys.executable, "-c", script])
            programs.append(program)
            program.wait_for_line(lambda line: '"serving"' in line)
            return program

        first = start()
        with load_on(port) as load:
            first.signal(signal.SIGTERM)
            assert first.wait() == 0
            second = start()
        assert load.failures == []
        with load_on(port) as load:  # or with both at once
            third = start()
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
        assert load.failures == []
        third.signal(signal.SIGTERM)
        assert third.wait() == 0


class Inherits(Program):
    """A program that gets all descriptors that may be inherited."""

    close_fds = False


def test_systemd_hands_a_socket_over(
    application: ApplicationProgram, short_path: Path, programs: list[Program]
) -> None:
    activate = need("systemd-socket-activate", "systemd")
    path = short_path / "front"
    program = Program(
        [
            activate,
            "--listen",
            str(path),
            "--setenv",
            f"PYTHONPATH={ROOT}",
            *command("--upstream", application.upstream, "--listen", f"unix:{path}"),
        ]
    )
    programs.append(program)
    with eventually(lambda: connected(path), "it listens") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
    program.signal(signal.SIGTERM)
    assert program.wait() == 0
    assert path.exists()  # it is not ours


def test_the_units_are_right() -> None:
    analyze = need("systemd-analyze", "systemd")
    import subprocess

    folder = ROOT / "deploy"
    done = subprocess.run(
        [analyze, "verify", "--man=no", folder / "retter.service", folder / "retter.socket"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    complaints = [
        line
        for line in done.stderr.splitlines()
        if "retter" in line and "is not executable" not in line
    ]
    assert complaints == []
    assert shutil.which("systemd-analyze")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_path_of_a_listener_that_the_new_settings_drop_is_removed(
    application: ApplicationProgram, programs: list[Program], short_path: Path, workers: int
) -> None:
    kept, dropped, admin = [short_path / name for name in ("kept", "dropped", "admin")]
    file = short_path / "retter.toml"
    common = f"upstream = '{application.upstream}'\nworkers = {workers}\nlog_format = 'json'\n"
    file.write_text(f"{common}listen = ['unix:{kept}', 'unix:{dropped}']\nadmin = 'unix:{admin}'\n")
    program = Program([sys.executable, "-m", "retter", "--config", str(file)])
    programs.append(program)
    program.wait_for_line(lambda line: '"serving"' in line)
    assert kept.exists() and dropped.exists() and admin.exists()

    file.write_text(f"{common}listen = ['unix:{kept}']\nadmin = 'off'\n")
    program.signal(signal.SIGUSR2)
    assert program.process.wait(DEADLINE_S) == 0
    assert not dropped.exists() and not admin.exists()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(kept))
        client.sendall(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
