"""Starting and ending: signals, busy ports, sockets left behind, an absent application."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retter.process.signals import SAME_SIGNAL_S
from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.processes import (
    DEADLINE_S,
    ROOT,
    ApplicationProgram,
    Program,
    RetterProgram,
    accepts,
    eventually,
    free_port,
)
from tests.real.wire import connect, fetch

HALF = 1_000_000
CLOCK_S = 0.002  # uvloop's counts milliseconds: two of them may seem one less apart


@pytest.fixture
def proxy(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> RetterProgram:
    return start_retter("--upstream", application.upstream, "--loop", loop_name)


class Download:
    """A download that has arrived by half; the rest is behind a gate of the application."""

    def __init__(self, application: ApplicationProgram, port: int) -> None:
        self._gate = Gate(application, "life")
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
        self._connection.request("GET", f"/download?bytes={2 * HALF}&gate={self._gate.name}")
        self._response = self._connection.getresponse()
        assert len(self._response.read(HALF)) == HALF

    def finish(self) -> bytes:
        self._gate.open()
        rest = self._response.read()
        self._connection.close()
        return rest

    def is_cut(self) -> bool:
        try:
            self._response.read()
        except (http.client.IncompleteRead, ConnectionError):
            return True
        finally:
            self._response.close()
            self._connection.close()
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(
    application: ApplicationProgram, proxy: RetterProgram, number: signal.Signals
) -> None:
    port = proxy.port
    download = Download(application, port)
    with connect(port) as idle:
        proxy.signal(number)
        assert idle.recv(1) == b""  # closed: nobody is served on it
    eventually(lambda: not accepts(port), "no new connections")
    assert proxy.alive
    assert len(download.finish()) == HALF
    assert proxy.wait() == 0
    assert [record["event"] for record in proxy.records()] == ["serving", "draining", "stopped"]


def test_a_second_signal_ends_at_once(
    application: ApplicationProgram, proxy: RetterProgram
) -> None:
    download = Download(application, proxy.port)
    proxy.signal(signal.SIGTERM)
    proxy.wait_for_line(lambda line: '"draining"' in line)
    time.sleep(SAME_SIGNAL_S + CLOCK_S)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 1
    assert download.is_cut()


def test_one_wish_that_arrives_twice_is_no_impatience(
    application: ApplicationProgram, proxy: RetterProgram
) -> None:
    """As when a terminal and a parent process both pass Ctrl-C on."""
    download = Download(application, proxy.port)
    proxy.signal(signal.SIGSTOP)  # both come at once, however slow we are
    proxy.signal(signal.SIGINT)
    proxy.signal(signal.SIGTERM)
    proxy.signal(signal.SIGCONT)
    proxy.wait_for_line(lambda line: '"draining"' in line)
    assert len(download.finish()) == HALF
    assert proxy.wait() == 0


def test_draining_has_an_end(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    proxy = start_retter("--upstream", application.upstream, "--loop", loop_name, "--drain", "0.2s")
    download = Download(application, proxy.port)
    assert proxy.stop() == 0
    assert download.is_cut()


def test_nothing_to_drain_ends_at_once(proxy: RetterProgram) -> None:
    assert fetch(proxy.port, "GET", "/").status == 200
    assert proxy.stop() == 0


def test_any_free_port_is_printed(proxy: RetterProgram) -> None:
    assert len(proxy.addresses) == 1
    assert proxy.addresses[0] == f"http://127.0.0.1:{proxy.port}" and proxy.port > 0
    assert fetch(proxy.port, "GET", "/page").json["target"] == "/page"


@pytest.mark.parametrize(("listen", "open_to"), [(":0", "every interface"), ("127.0.0.1:0", None)])
def test_it_says_when_every_interface_is_listened_on(
    start_retter: StartRetter, application: ApplicationProgram, listen: str, open_to: str | None
) -> None:
    proxy = start_retter("--upstream", application.upstream, listen=listen)
    record = json.loads(proxy.wait_for_line(lambda line: '"serving"' in line))
    assert record.get("open_to") == open_to


def fails(*arguments: str, descriptors: int = 0) -> tuple[int, list[str]]:
    """Run RETTER to its end, which must come; return its exit code and what it said."""
    limited = ["sh", "-c", 'ulimit -n "$0"; exec "$@"', str(descriptors)] if descriptors else []
    done = subprocess.run(
        [*limited, sys.executable, "-m", "retter", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_a_busy_port_is_one_line(proxy: RetterProgram) -> None:
    code, lines = fails("--listen", f"127.0.0.1:{proxy.port}", "--upstream", ":1")
    assert code == 1 and len(lines) == 1
    assert f"127.0.0.1:{proxy.port}" in lines[0] and "another program" in lines[0]


def test_an_address_of_another_machine_is_one_line() -> None:
    code, lines = fails("--listen", "192.0.2.77:8089", "--upstream", ":1")
    assert code == 1 and len(lines) == 1 and "no such address" in lines[0]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("descriptors", [12, 24])
def test_too_few_descriptors_are_one_line(workers: str, descriptors: int) -> None:
    arguments = ("--listen", "127.0.0.1:0", "--upstream", ":1", "--workers", workers)
    code, lines = fails(*arguments, descriptors=descriptors)
    assert code == 1 and len(lines) == 1
    assert f"{descriptors} open files are too few" in lines[0] and "ulimit" in lines[0]


@pytest.mark.parametrize("arguments", [
    ("--upstream", ":1", "--flag"), ("--upstream", ":1", "--drain", "soon"),
    ("--upstream", "nowhere://x"), ("--upstream", ":1", "--listen", "x:y"), (),
])  # fmt: skip
def test_a_wrong_setting_is_one_line(arguments: tuple[str, ...]) -> None:
    code, lines = fails(*arguments)
    assert code == 2 and len(lines) == 1 and lines[0].startswith("retter: ")


def test_a_socket_left_behind_is_replaced_and_a_living_one_is_not(
    application: ApplicationProgram, start_retter: StartRetter, short_path: Path, loop_name: str
) -> None:
    path = short_path / "retter.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    upstream = ("--upstream", application.upstream, "--loop", loop_name)
    proxy = start_retter(*upstream, listen=f"unix:{path}")
    assert proxy.addresses == [f"unix:{path}"]
    code, lines = fails(*upstream, "--listen", f"unix:{path}")
    assert code == 1 and len(lines) == 1 and "another program" in lines[0]

    proxy.signal(signal.SIGKILL)  # which leaves the file behind
    proxy.wait()
    assert path.exists()
    proxy = start_retter(*upstream, listen=f"unix:{path}")
    assert proxy.addresses == [f"unix:{path}"]
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        client.sendall(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert proxy.stop() == 0
    assert not path.exists()


def test_a_file_that_is_no_socket_is_left_alone(short_path: Path) -> None:
    path = short_path / "precious"
    path.write_text("data")
    code, lines = fails("--listen", f"unix:{path}", "--upstream", ":1")
    assert code == 1 and len(lines) == 1
    assert path.read_text() == "data"


def test_the_application_may_come_later(
    start_retter: StartRetter, programs: list[Program], loop_name: str
) -> None:
    port = free_port()
    proxy = start_retter(
        "--upstream",
        f"127.0.0.1:{port}",
        "--loop",
        loop_name,
        "--connect-hold",
        "100ms",
        "--queue-wait",
        "100ms",
        "--open-max",
        "1s",
    )
    assert fetch(proxy.port, "GET", "/page").status == 502
    assert fetch(proxy.port, "POST", "/page").status == 502
    programs.append(ApplicationProgram(str(port)))
    eventually(lambda: fetch(proxy.port, "GET", "/page").status == 200, "it is found")


def test_requests_are_held_while_the_application_starts(
    start_retter: StartRetter, programs: list[Program], loop_name: str
) -> None:
    port = free_port()
    proxy = start_retter(
        "--upstream", f"127.0.0.1:{port}", "--loop", loop_name, "--connect-hold", "25s"
    )
    with connect(proxy.port) as get, connect(proxy.port) as post:
        get.sendall(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
        post.sendall(b"POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
        programs.append(ApplicationProgram(str(port)))
        for sock in (get, post):
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_an_application_that_is_gone_is_named_in_the_log_and_on_the_page(
    programs: list[Program], start_retter: StartRetter, loop_name: str
) -> None:
    address = str(free_port())
    proxy = start_retter(
        "--upstream", f"127.0.0.1:{address}", "--loop", loop_name, "--connect-hold", "0s"
    )

    def told(event: str) -> dict[str, object]:
        record: dict[str, object] = json.loads(
            proxy.wait_for_line(lambda line: f'"{event}"' in line)
        )
        return record

    absent = told("application-absent")
    assert (absent["upstream"], absent["error"]) == (
        f"127.0.0.1:{address}",
        "connection refused: nothing listens there",
    )
    for _ in range(5):
        answer = fetch(proxy.port, "GET", "/hello")
        assert (answer.status, answer.get("cache-status")) == (
            502,
            "retter; fwd=miss; detail=connect-refused",
        )
        assert b"The application is not running, or is just being started" in answer.body
    programs.append(ApplicationProgram(address))
    eventually(lambda: fetch(proxy.port, "GET", "/hello").status == 200, "it is back")
    assert told("application-back")["upstream"] == absent["upstream"]
    events = [record["event"] for record in proxy.records()]
    assert events.count("application-absent") == 1
