"""Servers of asyncio streams whose connections are closed when a test ends."""

import asyncio


async def take_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the peer has closed, then close: a server that never answers."""
    try:
        await reader.read()
    except ConnectionError:
        pass
    finally:  # also when the loop ends and cancels this
        writer.close()
