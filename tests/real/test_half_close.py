"""A client's FIN, over real sockets: whether it has left, or only has no more to say."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

import retter
from retter.proxy.half_close import PROBE
from tests.real.inside import at_rest, eventually_async, in_time, run

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"


class Application:
    """Answers when the gate is opened."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0
        self.done = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                await self.gate.wait()
                writer.write(ANSWER)
                await writer.drain()
                self.done += 1
        writer.close()


@contextlib.asynccontextmanager
async def site(
    kind: str, folder: Path
) -> AsyncGenerator[tuple[Application, retter.RunningProxy, str], None]:
    """An application, RETTER before it, and where to connect to."""
    application = Application()
    server = await asyncio.start_unix_server(application.serve, str(folder / "app"))
    listen = f"unix:{folder}/front" if kind == "unix" else "127.0.0.1:0"
    settings = retter.Settings(upstream=f"unix:{folder}/app", listen=(listen,))
    async with retter.running(settings) as proxy:
        yield application, proxy, str(folder / "front")
        await eventually_async(lambda: at_rest(proxy.stats()), "all at rest")
    server.close()


async def connect(kind: str, proxy: retter.RunningProxy, path: str) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    sock.setblocking(False)
    port = int(proxy.address.rpartition(":")[2]) if kind == "tcp" else 0
    await loop.sock_connect(sock, path if kind == "unix" else ("127.0.0.1", port))
    return sock


def request(method: str, version: str) -> bytes:
    return f"{method} /page HTTP/{version}\r\nHost: a\r\n\r\n".encode()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_who_has_closed_is_gone_and_what_it_wanted_is_finished(
    kind: str, method: str, loop_name: str, short_path: Path
) -> None:
    async def main() -> None:
        async with site(kind, short_path) as (application, proxy, path):
            sock = await connect(kind, proxy, path)
            await asyncio.get_running_loop().sock_sendall(sock, request(method, "1.1"))
            await eventually_async(lambda: application.asked, "it is asked")
            sock.close()
            # Nothing else can happen to it: the application does not answer.
            await eventually_async(lambda: proxy.stats()["clients_gone"] == 1, "it is seen")
            await eventually_async(lambda: proxy.stats()["connections"]["open"] == 0, "closed")
            assert proxy.stats()["exchanges"] == 1
            application.gate.set()
            await eventually_async(lambda: proxy.stats()["exchanges"] == 0, "it is finished")
            assert application.done == 1
            assert proxy.stats()["store"]["entries"] == (method == "GET")

    run(main(), loop_name)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_who_has_closed_one_half_gets_its_answer(
    kind: str, version: str, loop_name: str, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def counted(transport: asyncio.Transport) -> bool:
        nonlocal looks
        looks += 1
        return has_left(transport)

    from retter.proxy import half_close

    has_left = half_close.has_left
    monkeypatch.setattr(half_close, "has_left", counted)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with site(kind, short_path) as (application, proxy, path):
            sock = await connect(kind, proxy, path)
            await loop.sock_sendall(sock, request("GET", version))
            sock.shutdown(socket.SHUT_WR)
            await eventually_async(lambda: looks > 3, "it is looked at")
            got = await in_time(loop.sock_recv(sock, 100)) if kind == "tcp" else b""
            assert got == (PROBE if kind == "tcp" else b"")
            application.gate.set()
            while piece := await in_time(loop.sock_recv(sock, 10_000)):
                got += piece
            assert got.startswith(b"HTTP/1.1 200 OK\r\n") and got.endswith(b"\r\n\r\nanswer")
            assert proxy.stats()["clients_gone"] == 0
            sock.close()

    run(main(), loop_name)
