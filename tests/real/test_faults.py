"""Applications that move, pause, vanish and come back, and clients that leave at every stage.

After each: nothing is left over (`proxy_for` waits for it), no callback has raised (`run` fails on
it), and the next answer is the right one.
"""

import asyncio
import contextlib
import itertools
import random
import signal
import socket
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest

from retter.proxy.ticker import LATE_S, TICK_S
from tests.real.gate import Gate
from tests.real.inside import eventually_async, in_time, port_of, proxy_for, run
from tests.real.processes import DEADLINE_S, ApplicationProgram, eventually, free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(port: int, target: str = "/", method: str = "GET", body: str = "") -> tuple[int, str]:
    """Send one request on a connection of its own; return the status and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".replace("Content-Length: 0\r\n", "").encode()
    )
    answer = await in_time(reader.read())
    writer.close()
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), text.decode()


class Named:
    """An application that answers with its name; its connections end with it."""

    def __init__(self, name: str, host: str, port: int, work_s: float = 0.0) -> None:
        self.name, self.host, self.port = name, host, port
        self._work_s = work_s
        self._writers: set[asyncio.StreamWriter] = set()
        self._closing = False

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._writers)

    async def open(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, reuse_address=True, backlog=512
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while not self._closing:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(self._work_s)
                last = b"Connection: close\r\n" if self._closing else b""
                text = self.name.encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(text), last, text)
                )
        self._writers.discard(writer)
        writer.close()

    def stop_listening(self) -> None:
        self._closing = True
        self._server.close()

    def close(self) -> None:
        self.stop_listening()
        for writer in list(self._writers):
            writer.transport.abort()


@contextlib.asynccontextmanager
async def named(*applications: Named) -> AsyncGenerator[None, None]:
    for application in applications:
        await application.open()
    try:
        yield
    finally:
        for application in applications:
            application.close()
        await asyncio.sleep(0)


RESOLVER_FAILS = "no answer"


def resolve_to(hosts: list[str]) -> None:
    """Let app.example lead there, on the present loop; everything else as before."""
    loop: Any = asyncio.get_running_loop()
    resolve = type(loop).getaddrinfo

    async def getaddrinfo(host: str, port: int, **more: Any) -> list[Any]:
        if host != "app.example":
            found: list[Any] = await resolve(loop, host, port, **more)
            return found
        if RESOLVER_FAILS in hosts:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in hosts]

    loop.getaddrinfo = getaddrinfo


# -- names ----------------------------------------------------------------------------------------


def test_a_name_that_moves(loop_name: str) -> None:
    async def main() -> None:
        hosts = ["127.0.0.2"]
        resolve_to(hosts)
        port = free_port()
        old, new = Named("old", "127.0.0.2", port), Named("new", "127.0.0.3", port)
        async with (
            named(old, new),
            proxy_for(f"app.example:{port}", pool_idle_s=0.1) as proxy,
        ):
            assert await ask(port_of(proxy), "/1") == (200, "old")
            hosts[:] = ["127.0.0.3"]
            # Connections that are open stay where they are, and those of the pool grow old soon.
            await eventually_async(lambda: proxy.stats()["upstream"]["open"] == 0, "the pool ages")
            assert await ask(port_of(proxy), "/2") == (200, "new")
            old.close()
            assert await ask(port_of(proxy), "/3") == (200, "new")

    run(main(), loop_name)


def test_a_name_with_an_address_that_is_down(loop_name: str) -> None:
    async def main() -> None:
        resolve_to(["127.0.0.2", "127.0.0.3"])
        port = free_port()
        second = Named("second", "127.0.0.3", port)
        async with (
            named(second),
            proxy_for(f"app.example:{port}", pool_size=0, connect_hold_s=0) as proxy,
        ):
            for number in range(5):
                assert await ask(port_of(proxy), f"/{number}") == (200, "second")
                assert await ask(port_of(proxy), "/post", "POST", "body") == (200, "second")
            async with named(Named("first", "127.0.0.2", port)):
                second.close()  # and the other way round
                assert await ask(port_of(proxy), "/other") == (200, "first")

    run(main(), loop_name)


def test_a_name_that_leads_nowhere_for_a_time(loop_name: str) -> None:
    async def main() -> None:
        hosts: list[str] = []
        resolve_to(hosts)
        port = free_port()
        async with (
            named(Named("here", "127.0.0.2", port)),
            proxy_for(f"app.example:{port}", connect_hold_s=0, circuit="observe") as proxy,
        ):
            assert (await ask(port_of(proxy)))[0] == 502
            hosts.append("127.0.0.2")
            assert await ask(port_of(proxy)) == (200, "here")

    run(main(), loop_name)


def test_a_name_that_moves_while_its_connections_are_in_use(loop_name: str) -> None:
    async def main() -> None:
        hosts = ["127.0.0.2"]
        resolve_to(hosts)
        port = free_port()
        async with (
            named(Named("old", "127.0.0.2", port), Named("new", "127.0.0.3", port)),
            proxy_for(f"app.example:{port}", pool_idle_s=60, pool_max_age_s=0.2) as proxy,
        ):
            assert await ask(port_of(proxy), "/1") == (200, "old")
            hosts[:] = ["127.0.0.3"]

            async def ask_until_it_has_moved() -> None:
                number = 1
                while await ask(port_of(proxy), f"/{number}") != (200, "new"):
                    number += 1

            await in_time(ask_until_it_has_moved())

    run(main(), loop_name)


def test_a_name_whose_resolver_fails_for_a_time(loop_name: str) -> None:
    async def main() -> None:
        hosts = ["127.0.0.2"]
        resolve_to(hosts)
        port = free_port()
        async with (
            named(Named("old", "127.0.0.2", port), Named("new", "127.0.0.3", port)),
            proxy_for(f"app.example:{port}", pool_size=0, connect_hold_s=0) as proxy,
        ):
            assert await ask(port_of(proxy), "/1") == (200, "old")
            hosts.append(RESOLVER_FAILS)
            for number in range(5):
                assert await ask(port_of(proxy), f"/2/{number}", "POST", "x") == (200, "old")
            assert proxy.stats()["upstream"]["resolver_failures"] >= 1
            assert proxy.stats()["upstream"]["dials_failed"] == 0
            hosts[:] = ["127.0.0.3"]
            # The next one tells that it answers again, and the one after follows it.
            await ask(port_of(proxy), "/3")
            await eventually_async(lambda: not proxy._services.pool.resolver.fault, "it answers")
            assert await ask(port_of(proxy), "/4") == (200, "new")

    run(main(), loop_name)


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


def test_this_machine_by_either_protocol(loop_name: str) -> None:
    """Some development servers listen on ::1 alone, for them that is localhost."""

    async def main() -> None:
        port = free_port()
        hosts = ["::1", "127.0.0.1"] if has_ipv6() else ["127.0.0.1"]
        for host in hosts:
            async with (
                named(Named(host, host, port)),
                proxy_for(f":{port}", connect_hold_s=0, pool_size=0) as proxy,
            ):
                for number in range(3):
                    assert await ask(port_of(proxy), f"/{number}") == (200, host)
        async with proxy_for(f":{port}", connect_hold_s=0) as proxy:
            assert (await ask(port_of(proxy)))[0] == 502
            assert proxy._services.pool.fault == "connection refused: nothing listens there"

    run(main(), loop_name)


# -- replaced, paused, black holes ----------------------------------------------------------------


def test_replaced_under_load(loop_name: str) -> None:
    """The old one stops listening and finishes what it has; the new one has the same port."""

    async def main() -> None:
        port = free_port()
        versions = [Named(f"version {n}", "127.0.0.1", port, work_s=0.002) for n in range(4)]
        seen: dict[str, int] = {}
        failed: list[tuple[int, str]] = []
        async with proxy_for(f"127.0.0.1:{port}", connect_hold_s=20, circuit="observe") as proxy:
            going_on = True

            async def visitor(number: int) -> None:
                serial = 0
                while going_on:
                    serial += 1
                    method = "POST" if serial % 5 == 0 else "GET"
                    status, text = await ask(port_of(proxy), f"/{number}/{serial}", method)
                    if status != 200:
                        failed.append((status, text))
                    seen[text] = seen.get(text, 0) + 1

            def is_used(version: Named) -> bool:
                return seen.get(version.name, 0) > 50

            def has_accepted_all(version: Named) -> bool:
                upstream = proxy.stats()["upstream"]
                return not upstream["dialling"] and upstream["open"] == version.connections

            await versions[0].open()
            visitors = [asyncio.ensure_future(visitor(n)) for n in range(16)]
            for old, new in itertools.pairwise(versions):
                await eventually_async(partial(is_used, old), "it is used")
                # Not with connections in its backlog: the kernel resets them, and what is lost
                # then is lost without any proxy, too.
                await eventually_async(partial(has_accepted_all, old), "it has accepted all")
                old.stop_listening()
                await eventually_async(lambda: proxy.stats()["upstream"]["held"], "they wait")
                await new.open()
            await eventually_async(partial(is_used, versions[-1]), "the last one")
            going_on = False
            await in_time(asyncio.gather(*visitors))
            assert not failed, failed[:5]
            assert await ask(port_of(proxy), "/next") == (200, "version 3")
            await eventually_async(lambda: proxy.stats()["upstream"]["open"] == 0, "pool empty")
        for version in versions:
            version.close()

    run(main(), loop_name)


@pytest.fixture
def own_application() -> Iterator[ApplicationProgram]:
    program = ApplicationProgram()
    yield program
    program.signal(signal.SIGCONT)
    program.kill()


def test_paused_and_woken(own_application: ApplicationProgram, loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for(
            own_application.upstream,
            patience_min_s=0.05,
            patience_max_s=0.1,
            patience_closed_s=0.1,
            upstream_timeout_s=30.0,
        ) as proxy:
            port = port_of(proxy)
            _, known = await ask(port, "/page")
            own_application.signal(signal.SIGSTOP)
            try:
                post = asyncio.ensure_future(ask(port, "/echo", "POST", "body"))
                for _ in range(3):  # the last good answer, although nobody is there
                    assert await ask(port, "/page") == (200, known)
                assert not post.done()
            finally:
                own_application.signal(signal.SIGCONT)
            status, text = await post
            assert (status, '"length": 4' in text) == (200, True)

            async def fresh() -> bool:
                return '"count": 1,' not in (await ask(port, "/page"))[1]

            async with asyncio.timeout(30):
                while not await fresh():  # noqa: ASYNC110 - what it waits for has no event
                    await asyncio.sleep(0.05)

    run(main(), loop_name)


def test_paused_for_longer_than_we_wait(
    own_application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(own_application.upstream, circuit="observe") as proxy:
            port, patient = port_of(proxy), proxy._services.settings
            assert (await ask(port, "/page"))[0] == 200
            own_application.signal(signal.SIGSTOP)
            short = replace(patient, upstream_timeout_s=0.5, upstream_timeout_unsafe_s=0)
            proxy.reload(short)
            try:
                answers = await asyncio.gather(
                    ask(port, "/echo", "POST", "body"), ask(port, "/unknown"), ask(port, "/page")
                )
            finally:
                own_application.signal(signal.SIGCONT)
                proxy.reload(patient)
            assert [status for status, _ in answers] == [504, 504, 200]
            status, text = await ask(port, "/next")
            assert (status, '"target": "/next"' in text) == (200, True)

    run(main(), loop_name)


def test_an_answer_that_came_while_retter_was_held_up_came_in_time(loop_name: str) -> None:
    """As when the machine is paused: what is in the socket already has not been waited for."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        event, its_event = socket.socketpair()
        with listener, event, its_event:
            port = listener.getsockname()[1]
            async with proxy_for(f"127.0.0.1:{port}", circuit="observe") as proxy:
                asked = asyncio.ensure_future(ask(port_of(proxy)))
                application, _ = await in_time(loop.sock_accept(listener))
                assert await in_time(loop.sock_recv(application, 65536))

                def hold_up() -> None:
                    """Between looking at its sockets and looking at the clock."""
                    loop.remove_reader(its_event)
                    application.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
                    exchange: Any
                    (exchange,) = proxy._services.exchanges
                    exchange.started_at = exchange.deadline = loop.time() - 1.0
                    time.sleep(LATE_S + 2 * TICK_S)

                loop.add_reader(its_event, hold_up)
                event.send(b"x")
                assert await asked == (200, "here")
                application.close()

    run(main(), loop_name)


def test_a_full_backlog_is_a_black_hole(loop_name: str) -> None:
    async def main() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            listener.setblocking(False)
            port = listener.getsockname()[1]
            fill = [socket.socket() for _ in range(8)]
            for sock in fill:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            async with proxy_for(
                f"127.0.0.1:{port}", connect_timeout_s=0.3, circuit="observe"
            ) as proxy:
                answers = await asyncio.gather(
                    *(ask(port_of(proxy), f"/{n}", "POST", "body") for n in range(4))
                )
                assert [status for status, _ in answers] == [504] * 4
                for sock in fill:
                    sock.close()
                # It comes back to its senses: what was in the backlog is gone, and it accepts.
                server = await asyncio.start_server(answer_ok, sock=listener.dup())
                async with asyncio.timeout(30):
                    while (await ask(port_of(proxy), "/next"))[0] != 200:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                server.close()
                await eventually_async(lambda: not proxy.stats()["upstream"]["open"], "closed")

    run(main(), loop_name)


async def answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    writer.close()


# -- answers that break off -----------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
BROKEN = {
    "before a byte": b"",
    "in the status line": HEAD[:9],
    "half way through the head": HEAD[:40],
    "between head and body": HEAD,
    "half way through the body": HEAD + b"x" * 500,
    "one octet before the end": HEAD + b"x" * 999,
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 500,
    "before the last chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n"
    ),
}


@pytest.mark.parametrize("stage", BROKEN)
def test_reset(loop_name: str, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visitor of a known page notices nothing; of an unknown one, that it is not whole."""
    # However slow this machine is, an answer that breaks off is held back until it does.
    monkeypatch.setattr("retter.proxy.relay.HOLD_S", DEADLINE_S)

    async def main() -> None:
        good = True

        async def application(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            if good:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
                await writer.drain()
            else:
                writer.write(BROKEN[stage])
                await writer.drain()
                await asyncio.sleep(0.02)
                reset(writer)
            writer.close()

        server = await asyncio.start_server(application, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with proxy_for(f"127.0.0.1:{port}", circuit="observe", pool_size=0) as proxy:
            assert await ask(port_of(proxy), "/known") == (200, "good")
            good = False
            for method in ("GET", "POST"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
                writer.write(f"{method} /unknown HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                answer = b""
                with contextlib.suppress(ConnectionResetError):
                    while piece := await in_time(reader.read(65536)):
                        answer += piece
                        if b"502 Bad Gateway" in answer:
                            break
                writer.close()
                begun = b" 200 OK" in answer and not answer.endswith(b"\r\n0\r\n\r\n")
                assert b" 502 " in answer or begun or not answer, answer
            assert await ask(port_of(proxy), "/known") == (200, "good")
            good = True
            assert await ask(port_of(proxy), "/unknown") == (200, "good")
        server.close()

    run(main(), loop_name)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an end."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# -- clients that leave ---------------------------------------------------------------------------

POST = b"POST /upload?gate=%b HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"


async def nothing(streams: Streams, gate: bytes) -> None:
    """Connected, and nothing more."""


async def half_a_head(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /page HTTP/1.1\r\nHo")


async def a_head(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /wait?gate=%b HTTP/1.1\r\nHost: a\r\n\r\n" % gate)


async def a_head_and_another(streams: Streams, gate: bytes) -> None:
    await a_head(streams, gate)
    streams[1].write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\nGET /pa")


async def head_of_a_post(streams: Streams, gate: bytes) -> None:
    streams[1].write(POST % gate)


async def half_a_body(streams: Streams, gate: bytes) -> None:
    streams[1].write(POST % gate + b"x" * 50_000)


async def half_a_chunk(streams: Streams, gate: bytes) -> None:
    streams[1].write(
        b"PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nxxx"
    )


async def a_whole_body(streams: Streams, gate: bytes) -> None:
    streams[1].write(POST % gate + b"x" * 100_000)


async def expecting(streams: Streams, gate: bytes) -> None:
    streams[1].write(
        b"PUT /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    )
    await in_time(streams[0].readuntil(b"100 Continue\r\n\r\n"))


async def the_head_of_an_answer(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /download?bytes=2000000&gate=%b HTTP/1.1\r\nHost: a\r\n\r\n" % gate)
    await in_time(streams[0].readuntil(b"\r\n\r\n"))


async def half_an_answer(streams: Streams, gate: bytes) -> None:
    await the_head_of_an_answer(streams, gate)
    await in_time(streams[0].readexactly(1_000_000))


async def a_large_answer_unread(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /download?bytes=60000000 HTTP/1.1\r\nHost: a\r\n\r\n")
    await in_time(streams[0].readuntil(b"\r\n\r\n"))
    await asyncio.sleep(0.2)


async def an_event_stream(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /events?name=%b&count=9 HTTP/1.1\r\nHost: a\r\n\r\n" % gate)
    await in_time(streams[0].readuntil(b"\r\n\r\n"))


async def a_whole_answer(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n")
    await in_time(streams[0].readuntil(b"}"))


async def an_error(streams: Streams, gate: bytes) -> None:
    streams[1].write(b"GET /page HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\nand more")
    await in_time(streams[0].readuntil(b"\r\n\r\n"))


Stage = Callable[[Streams, bytes], Awaitable[None]]
STAGES: tuple[Stage, ...] = (
    nothing, half_a_head, a_head, a_head_and_another, head_of_a_post, half_a_body, half_a_chunk,
    a_whole_body, expecting, the_head_of_an_answer, half_an_answer, a_large_answer_unread,
    an_event_stream, a_whole_answer, an_error,
)  # fmt: skip


def by_reset(writer: asyncio.StreamWriter) -> None:
    reset(writer)


def by_closing(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # an end, or a reset where something is unread


@pytest.mark.parametrize("leave", [by_reset, by_closing])
def test_clients_leave_at_every_stage(
    application: ApplicationProgram,
    loop_name: str,
    leave: Callable[[asyncio.StreamWriter], None],
) -> None:
    async def main() -> None:
        async with proxy_for(application.upstream, circuit="observe") as proxy:
            port = port_of(proxy)
            for stage in STAGES:
                gates = [Gate(application, stage.__name__).name for _ in range(3)]
                writers = []
                for gate in gates:
                    streams = await asyncio.open_connection("127.0.0.1", port, limit=1 << 21)
                    await stage(streams, gate.encode())
                    writers.append(streams[1])
                await asyncio.sleep(random.choice((0, 0.001, 0.01)))
                for writer in writers:
                    leave(writer)
                # The application works on what it was asked for, and its place stays taken.
                for gate in gates:
                    await ask(application.port, f"/open/{gate}", "POST")
                await eventually_async(
                    lambda: (
                        not (
                            proxy.stats()["exchanges"]
                            or proxy.stats()["streams"]
                            or proxy.stats()["connections"]["open"]
                        )
                    ),
                    f"all at rest after {stage.__name__}",
                )
                status, text = await ask(port, f"/after/{stage.__name__}")
                assert (status, f'"target": "/after/{stage.__name__}"' in text) == (200, True)

    run(main(), loop_name)


def test_clients_leave_while_they_wait_for_a_place_or_a_connection(
    application: ApplicationProgram, loop_name: str
) -> None:
    async def main() -> None:
        async with proxy_for(
            application.upstream, max_in_flight=1, limit_start=1, queue_wait_s=20.0
        ) as proxy:
            port = port_of(proxy)
            gate = Gate(application, "queue").name
            busy = asyncio.ensure_future(ask(port, f"/wait?gate={gate}"))
            await eventually_async(lambda: proxy.stats()["exchanges"] == 1, "the place is taken")
            writers = []
            for number in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /echo/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                writers.append(writer)
            await eventually_async(lambda: proxy.stats()["breaker"].waiting == 5, "they wait")
            for writer in writers:
                reset(writer)
            await eventually_async(lambda: proxy.stats()["breaker"].waiting == 0, "they left")
            await ask(application.port, f"/open/{gate}", "POST")
            assert await busy == (200, "done")
            assert (await ask(port, "/next"))[0] == 200
        async with proxy_for(f"127.0.0.1:{free_port()}", connect_hold_s=30.0) as proxy:
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
            await eventually_async(lambda: proxy.stats()["upstream"]["held"] == 1, "it is held")
            reset(writer)
            await eventually_async(lambda: proxy.stats()["upstream"]["held"] == 0, "let go")

    run(main(), loop_name)


# -- bytes that nobody asked for -------------------------------------------------------------------


def test_what_has_come_is_seen_before_the_loop_tells_it(loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for("127.0.0.1:1") as running:
            pool = running._services.pool
            with socket.create_server(("127.0.0.1", 0)) as listener:
                loop = asyncio.get_running_loop()
                _, made = await loop.create_connection(
                    lambda: cast("asyncio.Protocol", pool._make_connection(pool)),
                    *listener.getsockname(),
                )
                connection: Any = made
                application, _ = listener.accept()
                with application:
                    assert not connection.has_unread()
                    application.sendall(b"late")
                    # The loop has no turn here.
                    eventually(connection.has_unread, "the bytes are there")
            connection.close()

    run(main(), loop_name)


def test_a_client_that_breaks_off_while_it_is_held_holds_nobody_up(loop_name: str) -> None:
    """Nobody listens, so both wait; the loop has been told to read nothing of the one that left."""

    async def main() -> None:
        nobody = f"127.0.0.1:{free_port()}"
        async with proxy_for(nobody, connect_hold_s=DEADLINE_S, buffer_memory_bytes=0) as proxy:
            port, pool = port_of(proxy), proxy._services.pool
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n1")
            other = asyncio.ensure_future(ask(port, "/b", "POST", "1"))
            await eventually_async(lambda: proxy.stats()["upstream"]["held"] == 2, "both are held")
            writer.close()  # what is written to it from now on resets the connection
            await writer.wait_closed()
            pool._held = dict.fromkeys(pool._held, 0.0)  # and now the time of both is over
            assert (await other)[0] == 502

    run(main(), loop_name)
