"""Many slow readers of one large stored page, over sockets that hold as little as a long way."""

import asyncio
import socket
import ssl
from typing import Any

import retter
from retter.proxy.slices import SLICE_BYTES, SlicedBody
from tests.real.inside import eventually_async, in_time

READERS = 12
KIB = 1024
PAGE_BYTES = 1024 * KIB


async def hold_little(
    proxy: retter.RunningProxy, context: ssl.SSLContext | None = None, *, shared: bool = False
) -> None:
    """Transports copy or encrypt a few slices only, of a page or of a part; each octet arrives.

    Args:
        shared: The transports keep the very bytes that they are given.
    """
    port = int(proxy.address.rpartition(":")[2])
    (listener,) = proxy._sockets
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * KIB)  # of its connections
    reader, writer = await begin(port, context, b"")
    page = await body_of(reader)
    writer.close()
    connections: Any = proxy._services.clients.connections
    await eventually_async(lambda: not connections, "the first has gone")
    proxy.set_circuit("open")
    readers = [
        await begin(port, context, b"Range: bytes=1-\r\n" if number % 2 else b"")
        for number in range(READERS)
    ]
    await eventually_async(
        lambda: len(connections) == READERS and all(is_waited_for(one) for one in connections),
        "all are waited for",
    )
    transports = [one.out.transport for one in connections]
    # What is held as the store's own bytes, uvloop's way, is no copy.
    held = [one.get_write_buffer_size() for one in transports if isinstance(one, SlicedBody)]
    assert len(held) == (0 if shared else READERS)
    assert all(size < 96 * KIB + SLICE_BYTES for size in held), held
    for number, (reader, writer) in enumerate(readers):
        assert await body_of(reader) == page[number % 2 :]
        writer.close()
    await eventually_async(lambda: not connections, "all have gone")


def is_waited_for(connection: Any) -> bool:
    out = getattr(connection, "out", None)  # none before the end of a TLS handshake
    return out is not None and out.backlog is not None


async def begin(
    port: int, context: ssl.SSLContext | None, fields: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for the page."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    name = "127.0.0.1" if context else None
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=context, server_hostname=name, limit=KIB
    )
    writer.write(b"GET /download?bytes=%d HTTP/1.1\r\nHost: a\r\n%b\r\n" % (PAGE_BYTES, fields))
    return reader, writer


async def body_of(reader: asyncio.StreamReader) -> bytes:
    """Read a whole answer; return its body."""
    head = await in_time(reader.readuntil(b"\r\n\r\n"))
    (length,) = [
        int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")
    ]
    return await in_time(reader.readexactly(length))
