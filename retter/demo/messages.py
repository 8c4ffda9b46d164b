"""The messages between the shop (shop.py) and its server (server.py): requests, pages, replies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

HTML: Final = b"text/html; charset=utf-8"
TEXT: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
CSS: Final = b"text/css; charset=utf-8"

Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(slots=True, eq=False)
class Request:
    """One request; field names are in lower case."""

    method: str
    path: str
    query: str
    fields: Mapping[bytes, bytes]
    body: bytes = b""

    def first(self, name: bytes) -> bytes:
        """Return the value of a field, empty when it is not there."""
        return self.fields.get(name, b"")

    def parameters(self) -> dict[str, str]:
        """Return the query's parameters, the last of each name."""
        return dict(parse_qsl(self.query, keep_blank_values=True, max_num_fields=100))

    def form(self) -> dict[str, str]:
        """Return the body's form fields (application/x-www-form-urlencoded).

        Raises ValueError beyond 100 fields.
        """
        text = self.body.decode("utf-8", "replace")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))

    def cookie(self, name: str) -> str:
        """Return the value of a cookie, empty when it is not there."""
        wanted = name.encode() + b"="
        for pair in self.first(b"cookie").split(b";"):
            pair = pair.strip()
            if pair.startswith(wanted):
                return pair[len(wanted) :].decode("latin-1")
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """A whole response; the server adds Date, Server, X-Gen and Content-Length."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = HTML
    fields: Fields = ()


@dataclass(frozen=True, slots=True, eq=False)
class EventStream:
    """An endless response: `event(n)` is sent every `interval_s`, at most `events_max` times."""

    event: Callable[[int], bytes]
    interval_s: float
    events_max: int


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """The work of a request: queries to the database (0: none), then `make` is called."""

    make: Callable[[], Reply | EventStream]
    queries: int = 0


def see_other(location: str, *fields: tuple[bytes, bytes]) -> Reply:
    """Return a 303 (RFC 9110 section 15.4.4)."""
    return Reply(status=303, content_type=TEXT, fields=((b"Location", location.encode()), *fields))
