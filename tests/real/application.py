"""An application for the tests that does what it is told, in a process of its own.

    python -m tests.real.application PORT|unix:PATH [PEM]

With a PEM file of a key and its certificate it speaks TLS.

Whatever has to wait waits at a named gate until `POST /open/NAME`, so that a test says when
something goes on and no clock has to be right.
"""

import asyncio
import hashlib
import json
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

BLOCK = bytes(range(256)) * 4096  # 1 MiB
READ_BYTES = 256 * 1024
HEAD_BYTES_MAX = 256 * 1024


@dataclass
class Request:
    method: str
    target: str
    version: str
    fields: list[tuple[str, str]]
    trailers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def get(self, name: str) -> str:
        return ", ".join(value for known, value in self.fields if known.lower() == name)

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))


def parse_fields(lines: list[str]) -> list[tuple[str, str]]:
    pairs = [line.partition(":") for line in lines if line]
    return [(name, value.strip()) for name, _, value in pairs]


class Application:
    """The state that all connections share."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.sent = 0  # octets of downloads that the kernel or our buffer has taken
        self.received = 0  # octets of uploads
        self.connections = 0  # open now
        self.waiting: Counter[str] = Counter()  # conversations at a gate
        self.unheard = 0  # event streams whose other side has left
        self.counts: dict[str, int] = {}

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def wait_at(self, name: str) -> None:
        self.waiting[name] += 1
        try:
            await self.gate(name).wait()
        finally:
            self.waiting[name] -= 1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await Conversation(self, reader, writer).run():
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side left
        finally:
            self.connections -= 1
            writer.close()


class Conversation:
    """One request and its answer."""

    def __init__(
        self, app: Application, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.app = app
        self.reader = reader
        self.writer = writer
        self.close = False

    async def run(self) -> bool:
        """Return whether the connection may carry another."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        self.request = Request(method, target, version, parse_fields(lines))
        self.close = self.request.get("connection").lower() == "close"
        action = ACTIONS.get(self.request.path.split("/")[1], Conversation.echo)
        await action(self)
        await self.writer.drain()
        return not self.close

    # -- requests -------------------------------------------------------------------------------

    async def body(self) -> AsyncIterator[bytes]:
        if self.request.get("expect").lower() == "100-continue":
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.request.get("transfer-encoding").lower() == "chunked":
            async for piece in self._chunks():
                yield piece
            return
        left = int(self.request.get("content-length") or 0)
        while left:
            piece = await self.reader.read(min(left, READ_BYTES))
            if not piece:
                raise ConnectionResetError("the body ended early")
            left -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._line()).split(b";")[0], 16):
            piece = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            yield piece
        lines: list[str] = []
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            lines.append(line.decode("latin-1").strip())
        self.request.trailers = parse_fields(lines)

    async def _line(self) -> bytes:
        line = await self.reader.readline()
        if not line:
            raise ConnectionResetError("the body ended early")
        return line

    # -- answers --------------------------------------------------------------------------------

    def head(self, status: str, *fields: str) -> None:
        self.writer.write("\r\n".join([f"HTTP/1.1 {status}", *fields, "", ""]).encode("latin-1"))

    def answer(self, body: bytes, *fields: str, status: str = "200 OK") -> None:
        self.head(status, f"Content-Length: {len(body)}", *fields)
        if self.request.method != "HEAD":
            self.writer.write(body)

    def json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), "Content-Type: application/json")

    async def echo(self) -> None:
        """Return the request as received, and how often this target was requested."""
        digest, length = hashlib.sha256(), 0
        async for piece in self.body():
            digest.update(piece)
            length += len(piece)
        request, counts = self.request, self.app.counts
        counts[request.target] = counts.get(request.target, 0) + 1
        self.json(
            {
                "method": request.method,
                "target": request.target,
                "version": request.version,
                "fields": request.fields,
                "trailers": request.trailers,
                "length": length,
                "sha256": digest.hexdigest(),
                "count": counts[request.target],
            }
        )

    async def upload(self) -> None:
        """Take a body, if `gate` is given not before that is open."""
        if gate := self.request.query.get("gate"):
            await self.app.wait_at(gate)
        length = 0
        async for piece in self.body():
            length += len(piece)
            self.app.received += len(piece)
        self.json({"length": length})

    async def download(self) -> None:
        """`bytes` octets, by Content-Length, chunked or until close; at half of them a `gate`."""
        query = self.request.query
        total, framing = int(query["bytes"]), query.get("framing", "length")
        self.head(
            "200 OK",
            f"Content-Type: {query.get('type', 'application/octet-stream')}",
            {
                "length": f"Content-Length: {total}",
                "chunked": "Transfer-Encoding: chunked",
                "close": "Connection: close",
            }[framing],
        )
        self.close = self.close or framing == "close"
        first = total // 2 if "gate" in query else total
        await self._blocks(first, framing)
        if "gate" in query:
            await self.app.wait_at(query["gate"])
            await self._blocks(total - first, framing)
        if framing == "chunked":
            self.writer.write(b"0\r\n\r\n")

    async def _blocks(self, left: int, framing: str) -> None:
        while left:
            block = BLOCK if left >= len(BLOCK) else BLOCK[:left]
            if framing == "chunked":
                self.writer.write(b"%x\r\n" % len(block))
            self.writer.write(block)
            if framing == "chunked":
                self.writer.write(b"\r\n")
            await self.writer.drain()
            left -= len(block)
            self.app.sent += len(block)

    async def events(self) -> None:
        """An event stream: event n is sent when the gate `<name>-n` opens."""
        name, count = self.request.query["name"], int(self.request.query["count"])
        self.head("200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        for number in range(count):
            try:
                await self.writer.drain()
            except ConnectionError:
                self.app.unheard += 1
                raise
            await self.app.wait_at(f"{name}-{number}")
            event = b"id: %d\ndata: %s\n\n" % (number, b"x" * (number * 1000))
            self.writer.write(b"%x\r\n%b\r\n" % (len(event), event))
        self.writer.write(b"0\r\n\r\n")

    async def trailers(self) -> None:
        self.head("200 OK", "Transfer-Encoding: chunked", "Trailer: X-Checksum")
        self.writer.write(b"5\r\nhello\r\n0\r\nX-Checksum: 5d41402a\r\n\r\n")

    async def hints(self) -> None:
        self.head("103 Early Hints", "Link: </style.css>; rel=preload")
        self.answer(b"page")

    async def wait(self) -> None:
        """Answer when a gate opens."""
        await self.app.wait_at(self.request.query["gate"])
        self.answer(b"done")

    async def open(self) -> None:
        async for _ in self.body():
            pass
        self.app.gate(self.request.path.removeprefix("/open/")).set()
        self.answer(b"")

    async def figures(self) -> None:
        app = self.app
        self.json(
            {
                "sent": app.sent,
                "received": app.received,
                "connections": app.connections,
                "waiting": app.waiting,
                "unheard": app.unheard,
            }
        )


ACTIONS: dict[str, Callable[[Conversation], Awaitable[None]]] = {
    "download": Conversation.download,
    "events": Conversation.events,
    "figures": Conversation.figures,
    "hints": Conversation.hints,
    "open": Conversation.open,
    "trailers": Conversation.trailers,
    "upload": Conversation.upload,
    "wait": Conversation.wait,
}


async def main(address: str, pem: str = "") -> None:
    app = Application()
    context = None
    if pem:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pem)
    if address.startswith("unix:"):
        server = await asyncio.start_unix_server(
            app.serve, address.removeprefix("unix:"), limit=HEAD_BYTES_MAX
        )
    else:
        server = await asyncio.start_server(
            app.serve, "127.0.0.1", int(address), limit=HEAD_BYTES_MAX, backlog=1024, ssl=context
        )
    async with server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
