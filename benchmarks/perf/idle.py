"""Idle connections: each has had one answer and is then held open without a word.

A process of its own, for ten thousand sockets would slow the load's.
"""

import argparse
import asyncio
import contextlib
import sys
from typing import Final

from benchmarks.perf.helper import Helper
from benchmarks.perf.machine import raise_descriptor_limit

ABREAST: Final = 50  # opened at the same time: a rush would measure the accept queue
OPEN_S: Final = 120.0
# The page of the load beside: one of the floors knows only answers of one size.
REQUEST: Final = b"GET /1k/idle HTTP/1.1\r\nHost: shop.example\r\n\r\n"


class IdleFailed(Exception):
    """The connections could not be opened."""


class Idle(Helper):
    """Holds connections to a port while it is entered."""

    module = "benchmarks.perf.idle"
    failed = IdleFailed

    def __init__(self, port: int, count: int, core: int) -> None:
        super().__init__(core, port, count)

    def lost(self) -> int:
        """Return how many connections the other side has closed."""
        return int(self.ask() or -1)


async def hold(port: int, count: int) -> None:
    """Open the connections, say so, and tell for each line read how many were lost."""
    gate = asyncio.Semaphore(ABREAST)
    held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            held.append((reader, writer))
            writer.write(REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise IdleFailed(f"answered {head[:40]!r}")
            length = next(
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            )
            await reader.readexactly(int(length.partition(b":")[2]))

    try:
        async with asyncio.timeout(OPEN_S):
            await asyncio.gather(*(one() for _ in range(count)))
    except (OSError, EOFError, IdleFailed, TimeoutError) as error:
        print(f"after {len(held)} connections: {error or type(error).__name__}", flush=True)
        return
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(sum(reader.at_eof() for reader, _ in held), flush=True)


def main() -> None:
    """Hold them until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("count", type=int)
    arguments = parser.parse_args()
    raise_descriptor_limit()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(hold(arguments.port, arguments.count))


if __name__ == "__main__":
    main()
