"""Connections to the application that it closes without a word, or that have grown old."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retter.proxy.client_connection import DownstreamConnection
from retter.proxy.upstream_connection import UpstreamConnection
from tests.real.inside import eventually_async, in_time, port_of, proxy_for, run
from tests.real.processes import DEADLINE_S, end_accepting

trustme = pytest.importorskip("trustme", reason="trustme is not installed (pip install trustme)")

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POST = b"POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbook"


class Closing:
    """An application in a thread that closes its connection after an answer, when told to.

    Its answers say nothing of that, as those of a server whose keep-alive time is over.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.answered = 0
        self._go = threading.Event()
        self._gone = threading.Event()
        self._context: ssl.SSLContext | None = None
        if kind == "unix":
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(folder / "s"))
            self._listener.listen()
            self.upstream = f"unix:{folder}/s"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.upstream = f"127.0.0.1:{self._listener.getsockname()[1]}"
        if kind.startswith("tls"):
            self.upstream = "https://" + self.upstream
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trustme.CA().issue_cert("127.0.0.1").configure_cert(self._context)
        self._says_goodbye = kind == "tls with close_notify"
        self._resets = kind.endswith("reset")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed in the end
            while True:
                sock, _ = self._listener.accept()
                with contextlib.suppress(OSError):
                    self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE_S)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_side=True)
        request = b""
        while not request.endswith((b"book", b"\r\n\r\n")) or request.endswith(b": 4\r\n\r\n"):
            piece = sock.recv(65536)
            if not piece:
                return
            request += piece
        self.answered += 1  # before who asked can know
        sock.sendall(ANSWER)
        assert self._go.wait(DEADLINE_S)
        if self._says_goodbye:
            assert isinstance(sock, ssl.SSLSocket)
            sock.setblocking(False)
            with contextlib.suppress(ssl.SSLWantReadError):
                sock.unwrap()
        if self._resets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        self._gone.set()

    def close_now(self) -> None:
        """Return when it has closed; RETTER's loop stands still meanwhile."""
        self._go.set()
        assert self._gone.wait(DEADLINE_S)

    def end(self) -> None:
        self._go.set()
        end_accepting(self._listener, self._thread)


@contextlib.contextmanager
def closing(kind: str, folder: Path) -> Iterator[Closing]:
    application = Closing(kind, folder)
    try:
        yield application
    finally:
        application.end()


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls", "tls with close_notify"])
def test_a_request_that_cannot_be_repeated_is_not_sent_where_the_end_has_come(
    kind: str, loop_name: str, short_path: Path
) -> None:
    """The end is in the socket, and the loop looks at the client before it looks there."""

    async def main() -> None:
        with closing(kind, short_path) as application:
            more: dict[str, Any] = {"upstream_insecure": True} if "tls" in kind else {}
            async with proxy_for(application.upstream, pool_idle_s=60, **more) as proxy:
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
                writer.write(POST)
                await in_time(reader.readuntil(b"\r\n\r\nok"))
                await eventually_async(lambda: proxy.stats()["upstream"]["idle"] == 1, "idle")
                (client,) = proxy._services.clients.connections
                assert isinstance(client, DownstreamConnection)
                application.close_now()
                client.data_received(POST)  # in the same round of the loop
                assert (await in_time(reader.read(12))).endswith(b"200")
                assert application.answered == 2
                assert proxy.stats()["retries"] == 0
                writer.close()

    run(main(), loop_name)


@pytest.mark.parametrize("kind", ["tcp", "tcp reset", "tls", "tls with close_notify", "tls reset"])
@pytest.mark.parametrize("octets", [4, 300_000])
def test_a_request_that_may_have_arrived_is_never_repeated(
    kind: str,
    octets: int,
    loop_name: str,
    short_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the look comes too early: either it was not sent at all, or its client is told."""
    body = b"x" * (octets - 4) + b"book"
    request = POST.replace(b"Length: 4", b"Length: %d" % octets).removesuffix(b"book") + body

    async def main() -> None:
        with closing(kind, short_path) as application:
            more: dict[str, Any] = {"upstream_insecure": True} if "tls" in kind else {}
            async with proxy_for(
                application.upstream, pool_idle_s=60, buffer_request_bytes=1 << 20, **more
            ) as proxy:
                reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
                writer.write(POST)
                await in_time(reader.readuntil(b"\r\n\r\nok"))
                await eventually_async(lambda: proxy.stats()["upstream"]["idle"] == 1, "idle")
                (client,) = proxy._services.clients.connections
                assert isinstance(client, DownstreamConnection)
                application.close_now()
                monkeypatch.setattr(UpstreamConnection, "has_unread", lambda _: False)
                client.data_received(request)
                status = int((await in_time(reader.read(12)))[-3:])
                assert (status, application.answered) in ((200, 2), (502, 1))
                assert proxy.stats()["retries"] == (status == 200)
                writer.close()

    run(main(), loop_name)


@pytest.mark.parametrize("secured", [False, True])
def test_a_request_that_has_been_read_is_not_repeated(secured: bool, loop_name: str) -> None:
    read = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal read
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"book")
            read += 1
            writer.write(ANSWER)
            await reader.readuntil(b"book")
            read += 1
        writer.transport.abort()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context if secured else None)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with proxy_for(
            f"https://{address}" if secured else address, upstream_insecure=True, pool_idle_s=60
        ) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(POST)
            await in_time(reader.readuntil(b"\r\n\r\nok"))
            writer.write(POST)
            assert (await in_time(reader.read(12))).endswith(b"502")
            assert read == 2
            writer.close()
        server.close()

    run(main(), loop_name)


def test_a_look_finds_nothing_on_a_good_connection(loop_name: str) -> None:
    """Over TLS neither: what the protocol itself has sent has been read with the answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"book"):
                writer.write(ANSWER)
        writer.close()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        async with proxy_for(
            f"https://127.0.0.1:{port}", upstream_insecure=True, pool_idle_s=60
        ) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            for _ in range(5):
                writer.write(POST)
                await in_time(reader.readuntil(b"\r\n\r\nok"))
            writer.close()
            assert proxy.stats()["upstream"]["dials"] == 1
        server.close()

    run(main(), loop_name)


def test_a_connection_that_is_too_old_carries_no_more_requests(
    loop_name: str, short_path: Path
) -> None:
    async def main() -> None:
        serving = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal serving
            serving += 1
            with contextlib.suppress(asyncio.IncompleteReadError):
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(ANSWER)
            writer.close()

        server = await asyncio.start_unix_server(serve, str(short_path / "s"))
        async with proxy_for(f"unix:{short_path}/s", pool_idle_s=60, pool_max_age_s=0.05) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))

            async def ask_until_there_is_another() -> None:
                while serving < 3:
                    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    assert b"200" in await reader.read(1000)

            await in_time(ask_until_there_is_another())
            writer.close()
        server.close()

    run(main(), loop_name)


def test_a_full_backlog_is_waited_for(loop_name: str, short_path: Path) -> None:
    """A Unix socket says so at once; TCP would let its client wait by itself."""

    async def visitor(port: int, number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        method = b"POST" if number % 2 else b"GET"
        writer.write(method + b" /%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" % number)
        writer.write(b"Content-Length: 0\r\n\r\n" if number % 2 else b"\r\n")
        answer = await in_time(reader.read())
        writer.close()
        return answer[:12]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(ANSWER)
        writer.close()

    async def main() -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(short_path / "s"))
        listener.listen(1)
        async with proxy_for(
            f"unix:{short_path}/s", connect_hold_s=DEADLINE_S, circuit="observe"
        ) as proxy:
            visitors = [asyncio.ensure_future(visitor(port_of(proxy), n)) for n in range(10)]
            await eventually_async(lambda: proxy.stats()["upstream"]["held"] > 5, "they are held")
            pool = proxy._services.pool
            await eventually_async(lambda: pool.fault == "its backlog is full", "it says so")
            server = await asyncio.start_unix_server(serve, sock=listener)
            assert await asyncio.gather(*visitors) == [b"HTTP/1.1 200"] * 10
        server.close()

    run(main(), loop_name)
