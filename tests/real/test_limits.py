"""More clients than there is room for: descriptors, slow readers, slow heads."""

import asyncio
import contextlib
import http.client
import os
import resource
import socket
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

import retter
from retter.process.loop_errors import LoopFaults
from tests.real.conftest import StartRetter
from tests.real.gate import Gate
from tests.real.inside import eventually_async, in_time, port_of, proxy_for, run
from tests.real.processes import DEADLINE_S, ApplicationProgram, eventually
from tests.real.wire import Client, connect, fetch, read_until

MIB = 1 << 20
GET = b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n"
DESCRIPTORS = 256
CROWD = 1_000


def served(port: int) -> bool:
    try:
        return fetch(port, "GET", "/page").status == 200
    except OSError:
        return False


# What is measured here is room, not load: a slow machine must not be protected from it.
OBSERVE = ("--circuit", "observe")
STARTS = (b"", b"GET /page HTTP/1.1\r\nHo", GET)


def arrive(port: int, number: int) -> list[socket.socket]:
    """Let so many come with nothing, with half a head, or with a request; and stay."""
    socks = [socket.socket() for _ in range(number)]

    async def come(sock: socket.socket, start: bytes) -> None:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):  # turned away
            await loop.sock_connect(sock, ("127.0.0.1", port))
            await loop.sock_sendall(sock, start)

    async def all_come() -> None:
        await asyncio.gather(*[come(sock, STARTS[n % 3]) for n, sock in enumerate(socks)])

    asyncio.run(all_come())
    return socks


def test_four_times_as_many_clients_as_descriptors(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    upstream = ("--upstream", application.upstream, "--loop", loop_name, *OBSERVE)
    proxy = start_retter(*upstream, descriptors=DESCRIPTORS)
    port = proxy.port
    crowd = arrive(port, CROWD)
    try:
        # They all wait for nothing, or longer than a visitor would: so visitors get their places.
        for _ in range(20):
            assert fetch(port, "GET", "/page").status == 200
        assert fetch(port, "POST", "/page", body=b"body").json["length"] == 4
        assert len(os.listdir(f"/proc/{proxy.pid}/fd")) <= DESCRIPTORS
        with connect(port) as known:
            for _ in range(3):  # a connection that is used is not the one that goes
                known.sendall(GET)
                assert read_until(known, b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
                for sock in arrive(port, 20):
                    sock.close()
    finally:
        for sock in crowd:
            sock.close()
    assert fetch(port, "GET", "/page").status == 200
    assert proxy.alive
    assert "fewer-connections" in [record["event"] for record in proxy.records()]


def test_bodies_that_never_come_keep_nobody_out(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    """More than there are places for, all of one address, with all of their requests begun."""
    upstream = ("--upstream", application.upstream, "--loop", loop_name, *OBSERVE)
    proxy = start_retter(*upstream, "--connections-max", "30")
    port = proxy.port
    upload = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    crowd = []
    with connect(port) as known:
        known.sendall(GET)
        assert read_until(known, b"}").startswith(b"HTTP/1.1 200 ")
        try:
            for n in range(90):
                crowd.append(
                    socket.create_connection(("127.0.0.1", port), DEADLINE_S, ("127.0.0.2", 0))
                )
                with contextlib.suppress(OSError):  # turned away
                    crowd[-1].sendall(upload + b"x" * (n % 2))
            for _ in range(10):
                assert fetch(port, "GET", "/page").status == 200
                assert fetch(port, "POST", "/page", body=b"body").json["length"] == 4
            # Who had a connection before they came still has it.
            known.sendall(GET)
            assert read_until(known, b"}").startswith(b"HTTP/1.1 200 ")
        finally:
            for sock in crowd:
                sock.close()
    assert proxy.alive


def test_requests_take_all_descriptors_and_give_them_back(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    """Each needs two: what does not fit is turned away, what is under way is finished."""
    upstream = ("--upstream", application.upstream, "--loop", loop_name, *OBSERVE)
    proxy = start_retter(*upstream, descriptors=DESCRIPTORS)
    port, gate = proxy.port, Gate(application, "descriptors")
    request = f"POST /wait?gate={gate.name} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    crowd = []
    for _ in range(DESCRIPTORS):
        crowd.append(connect(port))
        with contextlib.suppress(OSError):  # turned away
            crowd[-1].sendall(request.encode())
    eventually(lambda: gate.waiting() > 60, "many are under way")
    assert len(os.listdir(f"/proc/{proxy.pid}/fd")) <= DESCRIPTORS
    gate.open()
    answered = 0
    for sock in crowd:
        with contextlib.suppress(ConnectionResetError):
            answered += sock.recv(65536).startswith(b"HTTP/1.1 200 ")
        sock.close()
    assert answered > 60
    assert fetch(port, "GET", "/page").status == 200


def test_not_one_descriptor_is_left(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    """As when another program takes all of them: the loop goes on, and so do those inside."""
    proxy = start_retter("--upstream", application.upstream, "--loop", loop_name, *OBSERVE)
    port = proxy.port
    inside = Client(port)
    gate = Gate(application, "left")
    with connect(port) as waits:
        waits.sendall(
            f"POST /wait?gate={gate.name} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode()
        )
        eventually(gate.waiting, "it is under way")
        assert inside("POST", "/page", None, b"").status == 200
        limits = resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE)
        taken = max(int(name) for name in os.listdir(f"/proc/{proxy.pid}/fd"))
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (taken + 1, limits[1]))
        outside = arrive(port, 20)
        gate.open()
        assert waits.recv(65536).startswith(b"HTTP/1.1 200 ")
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, limits)
    for sock in outside:
        sock.close()
    inside.close()
    eventually(lambda: served(port), "served again")
    assert proxy.alive


def test_asyncio_may_want_to_go_on_accepting_while_all_ends(
    application: ApplicationProgram, loop_name: str
) -> None:
    """A second after the last descriptor was gone, be the listener closed or not."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        settings = retter.Settings(upstream=application.upstream, listen=("127.0.0.1:0",))
        async with retter.running(settings) as proxy:
            (listener,) = proxy._sockets
            faults = LoopFaults(proxy._services, proxy._proxy.ticker)
            handle = "<TimerHandle BaseSelectorEventLoop._start_serving()>"
            drained = asyncio.ensure_future(proxy._drain())
            while not drained.done():
                await asyncio.sleep(0)
                if listener.fileno() < 0:
                    faults(loop, {"exception": ValueError(), "handle": handle})
            faults(loop, {"exception": ValueError(), "handle": "ours"})

    with capture_logs() as records:
        run(main(), loop_name)
    faults_told = [record for record in records if record["event"] == "fault"]
    assert [record["handle"] for record in faults_told] == ["'ours'"]


# -- slow readers -------------------------------------------------------------------------------


def test_slow_readers_hold_neither_places_nor_memory(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    readers, size = 24, 64 * MIB

    async def main() -> None:
        async with proxy_for(
            application.upstream, max_in_flight=4, limit_start=4, queue_wait_s=20.0
        ) as proxy:
            port = port_of(proxy)
            slow = []
            for number in range(readers):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
                writer.write(
                    b"GET /download?bytes=%d&n=%d HTTP/1.1\r\nHost: a\r\n\r\n" % (size, number)
                )
                await in_time(reader.readuntil(b"\r\n\r\n"))  # and then nothing more
                slow.append(writer)
            await eventually_async(
                lambda: proxy.stats()["breaker"].in_flight == 0, "nobody holds a place"
            )
            for number in range(8):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /echo/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                assert (await in_time(reader.readline())) == b"HTTP/1.1 200 OK\r\n"
                writer.close()
            for writer in slow:
                writer.transport.abort()

    run(main(), loop_name)

    upstream = ("--upstream", application.upstream, "--loop", loop_name, *OBSERVE)
    proxy = start_retter(*upstream, "--write-buffer-max", "64KiB")
    assert served(proxy.port)
    before = proxy.memory_bytes("VmRSS")
    slow = [connect(proxy.port) for _ in range(readers)]
    for number, sock in enumerate(slow):
        sock.sendall(f"GET /download?bytes={size}&m={number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        read_until(sock, b"\r\n\r\n")
    for _ in range(20):
        assert served(proxy.port)
    # The buffer, what was read at once when it filled up, and what the store may keep of it.
    assert proxy.memory_bytes("VmRSS") - before < readers * 2 * MIB
    for sock in slow:
        sock.close()


# -- slow heads -----------------------------------------------------------------------------------

HEAD_TIMEOUT_S = 1.0
VISITS_MAX = 10


def visit(port: int) -> None:
    """Ask for a page; again, if this machine was so slow that we are one of the slow ones."""
    for _ in range(VISITS_MAX):
        begun = time.monotonic()
        try:
            status = fetch(port, "GET", "/page").status
        except (OSError, http.client.HTTPException):
            status = 0
        if status == 200:
            return
        assert status in (0, 408)
        assert time.monotonic() - begun > HEAD_TIMEOUT_S
    raise AssertionError("never served")


def test_visitors_come_through_between_slow_heads(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str
) -> None:
    proxy = start_retter(
        "--upstream",
        application.upstream,
        "--loop",
        loop_name,
        *OBSERVE,
        "--head-timeout",
        f"{HEAD_TIMEOUT_S}s",
        "--connections-max",
        "300",
    )
    slow = arrive(proxy.port, 290)
    for sock in slow:
        with contextlib.suppress(OSError):
            sock.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n")
    for number in range(3):
        for sock in slow:
            with contextlib.suppress(OSError):  # its time is over
                sock.send(b"X-%d: y\r\n" % number)
        visit(proxy.port)
    for sock in slow:
        sock.setblocking(True)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                answer += piece
        assert not answer or b" 408 " in answer or b" 400 " in answer or b" 200 " in answer
        sock.close()


@pytest.mark.parametrize("header", [
    b"PROXY TCP4 198.51.100.9 127.0.0.1 51200 80\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x09\x7f\x00\x00\x01\xc8\x00\x00\x50",
])  # fmt: skip
def test_the_proxy_protocol(
    application: ApplicationProgram, start_retter: StartRetter, loop_name: str, header: bytes
) -> None:
    upstream = ("--upstream", application.upstream, "--loop", loop_name)
    proxy = start_retter(*upstream, *OBSERVE, listen="127.0.0.1:0,proxy")
    for cut in (len(header), 5):
        with connect(proxy.port) as sock:
            sock.sendall(header[:cut])
            sock.sendall(header[cut:] + GET + GET)
            answers = read_until(sock, b"}")
            assert b'["X-Real-IP", "198.51.100.9"]' in answers
    with connect(proxy.port) as sock:
        sock.sendall(GET)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b"", "answered without a header"
