"""Addresses of the floors and a server for a protocol class."""

import argparse
import asyncio
from collections.abc import Callable
from typing import Final

import uvloop

BACKLOG: Final = 2048


def addresses() -> argparse.ArgumentParser:
    """Return a parser for the two ports."""
    parser = argparse.ArgumentParser()
    parser.add_argument("listen", type=int)
    parser.add_argument("application", type=int)
    return parser


async def _serve(port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def run(port: int, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Serve on a loopback port until the process is ended."""
    uvloop.run(_serve(port, protocol))
