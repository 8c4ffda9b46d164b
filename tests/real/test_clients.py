"""Limits of one client do not affect others: real connections from several local addresses."""

import asyncio

import pytest

from retter.breaker import Signal, Transition
from tests.real.inside import in_time, port_of, proxy_for, run

BLOCKED = "127.0.0.66"
VISITORS = [f"127.0.0.{number}" for number in range(2, 8)]
STATUSES = [
    "503 Service Unavailable", "500 Internal Server Error", "429 Too Many Requests",
    "501 Not Implemented",
]  # fmt: skip


class Application:
    """Answers one address with a status of its own, everybody else with a page."""

    def __init__(self, status: str) -> None:
        self.status = status.encode()
        self.fails_all = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                own = self.fails_all or f"X-Real-IP: {BLOCKED}\r\n".encode() in head
                writer.write(
                    b"HTTP/1.1 %b\r\nContent-Length: 4\r\n\r\npage"
                    % (self.status if own else b"200 OK")
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def ask(port: int, address: str, target: str, method: str = "GET") -> str:
    """Ask from an address; return status, source and state."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, _ = (await in_time(reader.read())).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return f"{first.split(' ')[1]} {fields.get('X-Retter', '-')} {fields.get('X-Circuit', '-')}"


@pytest.mark.parametrize("status", STATUSES)
def test_one_client_that_fails_is_the_only_one_to_notice(status: str, loop_name: str) -> None:
    async def main() -> None:
        application = Application(status)
        server = await asyncio.start_server(application.serve, "127.0.0.1", 0)
        upstream = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, proxy_for(upstream) as proxy:
            port, changes = port_of(proxy), list[Transition]()
            proxy._proxy.on_transition.append(changes.append)
            for visitor in VISITORS:
                await ask(port, visitor, "/known")
            for round_ in range(20):
                blocked = await asyncio.gather(
                    *(ask(port, BLOCKED, f"/{round_}/{n}") for n in range(10)),
                    *(ask(port, BLOCKED, "/contact", "DELETE") for _ in range(10)),
                )
                assert {answer[:3] for answer in blocked} == {status[:3]}
                visitor = VISITORS[round_ % len(VISITORS)]
                for target in ("/known", f"/new/{round_}"):
                    assert (await ask(port, visitor, target)).startswith("200 backend ")
            # A slow machine may have it limited for being late.
            causes = {change.cause for change in changes}
            assert not causes & {Signal.FAILING, Signal.OVERLOADED}

    run(main(), loop_name)


def test_when_all_fail_the_circuit_opens(loop_name: str) -> None:
    """Although one of them failed long before."""

    async def main() -> None:
        application = Application(STATUSES[0])
        server = await asyncio.start_server(application.serve, "127.0.0.1", 0)
        upstream = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, proxy_for(upstream, failure_volume=4) as proxy:
            port = port_of(proxy)
            for visitor in VISITORS:
                await ask(port, visitor, "/known")
                await ask(port, BLOCKED, "/contact")
            application.fails_all = True
            states = []
            for _ in range(10):
                answers = [await ask(port, visitor, "/known") for visitor in VISITORS]
                assert {answer[:9] for answer in answers} == {"200 cache"}
                states += [answer.split(" ")[2] for answer in answers]
            assert "OPEN" in states
            application.fails_all = False

    run(main(), loop_name)


@pytest.mark.parametrize("status", ["403 Forbidden", "404 Not Found"])
def test_one_client_that_is_refused_hides_no_page(status: str, loop_name: str) -> None:
    """The next moment the application fails, and the others find what they have read."""

    async def main() -> None:
        application = Application(status)
        server = await asyncio.start_server(application.serve, "127.0.0.1", 0)
        upstream = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        pages = [f"/{number}" for number in range(8)]
        async with server, proxy_for(upstream) as proxy:
            port = port_of(proxy)
            for page in pages:
                await ask(port, VISITORS[0], page)
                assert (await ask(port, BLOCKED, page)).startswith(status[:3])
            application.status, application.fails_all = STATUSES[1].encode(), True
            for page in pages:
                assert (await ask(port, VISITORS[1], page)).startswith("200 cache")

    run(main(), loop_name)
