"""A blocking client for the tests: one request at a time, everything of the answer kept."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.real.processes import DEADLINE_S

Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True)
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        values = [value for known, value in self.fields if known.lower() == name.lower()]
        return ", ".join(values) if values else None

    def get_all(self, name: str) -> list[str]:
        return [value for known, value in self.fields if known.lower() == name.lower()]

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def stored(self) -> bool:
        """Whether it came from the store."""
        return self.get("x-retter") == "cache"


# What the present test has opened; the fixture `connections_end_with_their_test` closes it.
opened: list[contextlib.closing[Any]] = []


class Client:
    """A persistent connection, opened again when the other side has closed it in good order."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
        opened.append(contextlib.closing(self._connection))

    def __call__(
        self, method: str, target: str, fields: Mapping[str, str] | None = None, body: Body = None
    ) -> Answer:
        connection = self._connection
        connection.request(method, target, body, dict(fields or {}))
        with connection.getresponse() as response:
            return Answer(response.status, response.getheaders(), response.read())

    def get(self, target: str, **fields: str) -> Answer:
        return self("GET", target, {name.replace("_", "-"): v for name, v in fields.items()})

    def close(self) -> None:
        self._connection.close()


def fetch(
    port: int,
    method: str,
    target: str,
    fields: Mapping[str, str] | None = None,
    body: Body = None,
) -> Answer:
    """Send one request on a connection of its own."""
    client = Client(port)
    try:
        return client(method, target, fields, body)
    finally:
        client.close()


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    opened.append(contextlib.closing(sock))
    return sock


def read_until(sock: socket.socket, end: bytes) -> bytes:
    """Read until `end` has come; what follows it may have come with it."""
    data = b""
    while end not in data:
        piece = sock.recv(65536)
        assert piece, f"closed after {data!r}"
        data += piece
    return data
