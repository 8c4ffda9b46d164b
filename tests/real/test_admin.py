"""The admin listener over real sockets: where it listens, what it streams, and a covered deploy."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from retter.cli import main
from retter.control import commands
from retter.process.running import ADMIN_TRIES
from tests.real.conftest import StartRetter
from tests.real.inside import eventually_async, in_time, port_of, proxy_for, run
from tests.real.processes import DEADLINE_S, ApplicationProgram, Program, eventually
from tests.real.wire import Client

TOKEN = "0123456789abcdef"


def record(program: Any, event: str) -> dict[str, Any]:
    line = program.wait_for_line(lambda line: f'"event": "{event}"' in line)
    found: dict[str, Any] = json.loads(line)
    return found


# Where it listens


WITH_ANOTHER_USUAL_PORT = """
import sys
from retter.config import settings
settings.ADMIN_DEFAULT = "127.0.0.1:" + sys.argv.pop(1)
from retter.cli import main
from retter.control import commands
sys.exit(main())
"""


def start_by_default(usual: int, upstream: str) -> Program:
    """Start RETTER without an admin address; the usual port is one that nobody else uses."""
    return Program(
        [sys.executable, "-c", WITH_ANOTHER_USUAL_PORT, str(usual), "--listen", "127.0.0.1:0",
         "--upstream", upstream, "--log-format", "json"],
    )  # fmt: skip


def test_a_second_one_takes_the_next_port_and_status_names_it(
    application: ApplicationProgram,
    programs: list[Program],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        usual = first.getsockname()[1]
        program = start_by_default(usual, application.upstream)
        programs.append(program)
        told = record(program, "admin-elsewhere")
        admin = record(program, "serving")["admin"].removeprefix("http://")
    assert usual < int(admin.removeprefix("127.0.0.1:")) < usual + ADMIN_TRIES
    assert (told["wanted"], told["advice"]) == (
        f"127.0.0.1:{usual}",
        f"retter status --admin {admin}",
    )
    assert main(["status", "--admin", admin]) == 0
    assert capsys.readouterr().err == ""
    # Whoever had the usual port has gone: the command does not guess whom it is to ask.
    monkeypatch.setattr(commands, "ADMIN_DEFAULT", f"127.0.0.1:{usual}")
    assert main(["status"]) == 1
    assert f"{admin}  in front of {application.upstream}:" in capsys.readouterr().err


def test_where_every_usual_port_is_taken_there_is_no_listener(
    application: ApplicationProgram, programs: list[Program]
) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        usual = first.getsockname()[1]
        for port in range(usual + 1, usual + ADMIN_TRIES):
            with contextlib.suppress(OSError):  # somebody else's will do as well
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        program = start_by_default(usual, application.upstream)
        programs.append(program)
        error = record(program, "no-admin")["error"]
        assert f"127.0.0.1:{usual}: another program listens there" in error
        serving = record(program, "serving")
        assert serving["admin"] == "off"
        port = int(serving["listen"][0].rpartition(":")[2])
        assert Client(port).get("/").status == 200


def test_a_named_address_that_is_taken_is_an_error(
    application: ApplicationProgram, start_retter: StartRetter
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = f"127.0.0.1:{other.getsockname()[1]}"
        program = start_retter("--upstream", application.upstream, "--admin", where)
        assert program.wait() == 1
        assert f"cannot listen on {where}" in record(program, "cannot-start")["error"]


def test_other_machines_need_a_token(
    application: ApplicationProgram, start_retter: StartRetter, tmp_path: Path
) -> None:
    arguments = ("--upstream", application.upstream, "--admin", "0.0.0.0:0")
    program = start_retter(*arguments)
    assert program.wait() == 2
    assert "--admin 0.0.0.0:0 is open to other machines and therefore needs a token" in (
        program.output
    )
    assert start_retter(*arguments, "--admin-token-file", str(tmp_path / "none")).wait() == 2
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    program = start_retter(*arguments, "--admin-token-file", str(file))
    port = int(record(program, "serving")["admin"].rpartition(":")[2])
    client = Client(port)
    assert client.get("/api/state").status == 401
    assert client.get("/api/state", Authorization=f"Bearer {TOKEN}").status == 200
    assert TOKEN not in program.output


def test_a_unix_socket_is_for_its_user_alone(
    application: ApplicationProgram, start_retter: StartRetter, short_path: Path
) -> None:
    path = short_path / "admin"
    program = start_retter("--upstream", application.upstream, "--admin", f"unix:{path}")
    assert record(program, "serving")["admin"] == f"unix:{path}"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        client.sendall(b"GET /ready HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
        assert b'{"status": "ready"}' in client.makefile("rb").read()
    assert program.stop() == 0
    assert not path.exists()


def test_none_inside_another_program_unless_asked_for(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream) as proxy:
            assert proxy.admin_address == ""
        async with proxy_for(application.upstream, admin="127.0.0.1:0") as proxy:
            assert proxy.admin_address.startswith("http://127.0.0.1:")

    run(main(), loop_name)


# What it says


def test_figures_of_real_traffic(application: ApplicationProgram, loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream, admin="127.0.0.1:0") as proxy:
            admin_port = int(proxy.admin_address.rpartition(":")[2])

            def ask() -> None:
                site, admin = Client(port_of(proxy)), Client(admin_port)
                begun = time.perf_counter()
                for _ in range(20):
                    assert site.get("/").status == 200
                state = admin.get("/api/state").json
                assert state["totals"]["requests"] == 20
                assert state["connections"] == 1
                assert state["latency_ms"]["p50"] is not None
                assert 0 < state["overhead_us"]["p50"] < 1e6 * (time.perf_counter() - begun)
                assert state["loop_lag_ms"] >= 0
                text = admin.get("/metrics").text
                names = {family.name for family in text_string_to_metric_families(text)}
                assert "retter_requests" in names
                for client in (site, admin):
                    client.close()

            await in_time(asyncio.to_thread(ask))

    run(main(), loop_name)


def test_a_page_that_listens_while_all_ends(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream, admin="127.0.0.1:0") as proxy:
            port = int(proxy.admin_address.rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await in_time(reader.readuntil(b"event: state"))
            proxy.set_circuit("open")
            await in_time(reader.readuntil(b"event: transition"))
            await in_time(reader.readuntil(b"event: state"))
            proxy.set_circuit("auto")
        rest = await in_time(_read_to_the_end(reader))
        assert b"event: transition" in rest
        writer.close()

    run(main(), loop_name)


async def _read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            data += piece
    return data


def test_a_listener_that_reads_nothing_costs_no_memory(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream, admin="127.0.0.1:0") as proxy:
            port = int(proxy.admin_address.rpartition(":")[2])
            with socket.socket() as deaf:
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                deaf.connect(("127.0.0.1", port))
                deaf.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
                admin: Any = proxy._admin
                await eventually_async(lambda: admin._listeners, "it listens")
                (connection,) = admin._listeners
                # Far more than the kernel's buffers take: what is too much is never written.
                for _ in range(20_000):
                    connection.tell(b"event: state\ndata: " + b"x" * 1000 + b"\n\n")
                    if connection._blocked:
                        break
                assert connection._blocked
                waiting = connection._transport.get_write_buffer_size()
                for _ in range(100):
                    connection.tell(b"x" * 1000)
                assert connection._transport.get_write_buffer_size() == waiting < 100_000

    run(main(), loop_name)


# A deploy that nobody notices


def test_a_pause_covers_a_restart_of_the_application(
    start_retter: StartRetter, programs: list[Program]
) -> None:
    application = ApplicationProgram()
    programs.append(application)
    program = start_retter(
        "--upstream", application.upstream, "--admin", "127.0.0.1:0", "--connect-hold", "0"
    )
    admin = Client(int(record(program, "serving")["admin"].rpartition(":")[2]))
    port = program.port
    assert Client(port).get("/").status == 200
    answers: list[int] = []
    stop = threading.Event()

    def visit(ask: Callable[[Client, int], int]) -> None:
        client, number = Client(port), 0
        while not stop.is_set():
            number += 1
            answers.append(ask(client, number))
            time.sleep(0.01)
        client.close()

    askers: list[Callable[[Client, int], int]] = [
        lambda client, _: client.get("/").status,
        lambda client, number: client.get(f"/?new={number}").status,
        lambda client, _: client("POST", "/echo", {}, b"a form").status,
    ]
    visitors = [threading.Thread(target=visit, args=(ask,)) for ask in askers]
    for visitor in visitors:
        visitor.start()
    eventually(lambda: len(answers) > 30, "traffic")
    paused = admin("POST", "/api/pause", {"Content-Type": "application/json"}, b'{"seconds": 60}')
    assert paused.json["paused"] is True
    eventually(lambda: admin.get("/api/state").json["in_flight"] == 0, "what ran has finished")
    application.kill()
    eventually(lambda: admin.get("/api/state").json["held"] == 2, "two visitors wait")
    before = len(answers)
    eventually(lambda: len(answers) > before + 20, "the third one sees the stored page")
    programs.append(ApplicationProgram(application.address))
    assert admin("POST", "/api/resume").json["released"] == 2
    before = len(answers)
    eventually(lambda: len(answers) > before + 30, "all go on")
    stop.set()
    for visitor in visitors:
        visitor.join(30)
    assert set(answers) == {200}, "not one request was lost"
    admin.close()
