"""WebSockets through RETTER: what is said arrives, and afterwards nothing is left over."""

import asyncio
import random
import signal
import sys
from collections.abc import Iterator

import pytest

import retter
from tests.real.inside import eventually_async, in_time, port_of, proxy_for, run
from tests.real.processes import Program, free_port

pytest.importorskip("websockets", reason="websockets is not installed (pip install websockets)")

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus


@pytest.fixture
def echo() -> Iterator[tuple[Program, str]]:
    """The server and where it is."""
    port = free_port()
    program = Program([sys.executable, "-m", "tests.real.echo", str(port)])
    program.wait_for_line(lambda line: line == "ready")
    yield program, f"127.0.0.1:{port}"
    program.kill()


async def join(proxy: retter.RunningProxy, path: str = "/") -> ClientConnection:
    return await connect(f"ws://127.0.0.1:{port_of(proxy)}{path}", proxy=None, max_size=None)


def test_websocket_messages(echo: tuple[Program, str], loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for(echo[1]) as proxy:
            async with await join(proxy, "/chat?room=1") as client:
                for message in ("text", "größer", "", b"\0\xff", b"", random.randbytes(70_000)):
                    await client.send(message)
                    assert await in_time(client.recv()) == message
                stats = proxy.stats()
                assert (stats["streams"], stats["exchanges"]) == (1, 0)
                assert stats["breaker"].in_flight == 0  # a tunnel takes no place
                await in_time(await client.ping(b"are you there"))
            assert client.close_code == 1000

    run(main(), loop_name)


def test_websocket_large_message_both_ways_at_once(
    echo: tuple[Program, str], loop_name: str
) -> None:
    message = random.randbytes(16 << 20)

    async def main() -> None:
        async with proxy_for(echo[1]) as proxy, await join(proxy) as client:
            _, received = await in_time(asyncio.gather(client.send(message), client.recv()))
            assert received == message

    run(main(), loop_name)


def test_websocket_many_small_messages_keep_their_order(
    echo: tuple[Program, str], loop_name: str
) -> None:
    async def talk(proxy: retter.RunningProxy, name: int) -> None:
        async with await join(proxy) as client:
            messages = [f"{name}: {number}" for number in range(200)]
            for message in messages:
                await client.send(message)
            assert [await in_time(client.recv()) for _ in messages] == messages

    async def main() -> None:
        async with proxy_for(echo[1]) as proxy:
            await asyncio.gather(*(talk(proxy, name) for name in range(20)))

    run(main(), loop_name)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 4321])
def test_websocket_close_codes_from_both_sides(
    echo: tuple[Program, str], loop_name: str, code: int
) -> None:
    async def main() -> None:
        async with proxy_for(echo[1]) as proxy:
            async with await join(proxy) as client:
                await client.send(f"close {code}")
                with pytest.raises(ConnectionClosed):
                    await in_time(client.recv())
            assert (client.close_code, client.close_reason) == (code, "as asked")
            async with await join(proxy) as client:
                await in_time(client.close(code, "goodbye"))
            assert (client.close_code, client.close_reason) == (code, "goodbye")

    run(main(), loop_name)


def test_websocket_server_is_killed(echo: tuple[Program, str], loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for(echo[1], connect_hold_s=0.1) as proxy:
            clients = [await join(proxy) for _ in range(5)]
            for client in clients:
                await client.send("hello")
                assert await in_time(client.recv()) == "hello"
            echo[0].signal(signal.SIGKILL)
            for client in clients:
                with pytest.raises(ConnectionClosedError):
                    await in_time(client.recv())
                assert client.close_code == 1006  # no close frame came
            with pytest.raises(InvalidStatus) as refused:
                await join(proxy)
            assert refused.value.response.status_code == 502
            assert proxy.stats()["streams"] == 0

    run(main(), loop_name)


def test_websocket_client_vanishes(echo: tuple[Program, str], loop_name: str) -> None:
    async def main() -> None:
        async with proxy_for(echo[1]) as proxy:
            clients = [await join(proxy) for _ in range(5)]
            assert proxy.stats()["streams"] == 5
            for client in clients:
                client.transport.abort()
            await eventually_async(lambda: proxy.stats()["streams"] == 0, "the tunnels end")
            await eventually_async(lambda: proxy.stats()["upstream"]["open"] == 0, "closed")
            async with await join(proxy) as client:
                await client.send("still there")
                assert await in_time(client.recv()) == "still there"

    run(main(), loop_name)


def test_websocket_server_refuses_the_handshake(echo: tuple[Program, str], loop_name: str) -> None:
    """An answer other than 101 is an answer like any other."""

    async def main() -> None:
        async with proxy_for(echo[1]) as proxy:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(proxy))
            writer.write(
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 1\r\nSec-WebSocket-Key: x\r\n\r\n"
            )
            assert (await in_time(reader.readline())).startswith(b"HTTP/1.1 4")
            writer.close()
            await writer.wait_closed()

    run(main(), loop_name)
