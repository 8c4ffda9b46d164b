"""The admin listener of a FakeProxy: requests in, answers out, no socket."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import loads
from typing import Any, NamedTuple

from retter.admin.connection import AdminConnection
from retter.admin.listener import Admin
from retter.config.units import parse_listen
from tests.support.harness import FakePeer, FakeProxy, FakeTransport, get, reply

POST = b"POST /form HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\na=b"


class LimitedTransport(FakeTransport):
    """Also takes the limits of its write buffer."""

    high = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0


class Reply(NamedTuple):
    """An answer, taken apart."""

    status: int
    fields: dict[str, str]  # lower-case names
    body: bytes

    @property
    def json(self) -> Any:
        return loads(self.body)


def replies(data: bytes) -> Iterator[Reply]:
    """Take apart answers that each have a Content-Length."""
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        fields = {n.lower(): v.strip() for n, _, v in (one.partition(":") for one in lines)}
        length = int(fields.get("content-length", len(rest)))
        yield Reply(int(line.split(" ")[1]), fields, rest[:length])
        data = rest[length:]


class FakeAdmin:
    """A FakeProxy's admin listener."""

    def __init__(self, proxy: FakeProxy, address: str = "127.0.0.1:9090") -> None:
        self.proxy = proxy
        self.admin = Admin(proxy.proxy, parse_listen(address))

    def connect(self) -> FakePeer:
        connection = AdminConnection(self.admin)
        transport = LimitedTransport(connection)
        connection.connection_made(transport)
        return FakePeer(transport)

    def sends(self, data: bytes) -> Reply:
        """Send bytes over a new connection; return the one answer."""
        peer = self.connect()
        peer.sends(data)
        (reply,) = replies(peer.received())
        peer.resets()
        return reply

    def ask(self, target: str, method: str = "GET", body: bytes = b"", **headers: str) -> Reply:
        """Send one request; header names are written with _ for -."""
        return self.sends(request(target, method, body, **headers))

    def post(self, target: str, form: str = "", **headers: str) -> Reply:
        headers.setdefault("Content_Type", "application/x-www-form-urlencoded")
        return self.ask(target, "POST", form.encode(), **headers)

    def state(self) -> dict[str, Any]:
        reply = self.ask("/api/state")
        assert reply.status == 200
        document: dict[str, Any] = reply.json
        return document


def request(target: str, method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    headers.setdefault("Host", "127.0.0.1:9090")
    if body:
        headers["Content_Length"] = str(len(body))
    lines = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body


@contextmanager
def admin_of(address: str = "127.0.0.1:9090", **settings: Any) -> Iterator[FakeAdmin]:
    """Make a proxy with an admin listener."""
    admin = FakeAdmin(FakeProxy(**settings), address)
    yield admin
    admin.admin.close()
    transports = [connection._transport for connection in admin.admin._connections]
    assert all(transport is None or transport.is_closing() for transport in transports)


def metrics_with_all_labels() -> str:
    """Return /metrics after a few requests that bring the labels out."""
    with admin_of(connect_hold_s=0) as admin:
        proxy = admin.proxy
        client = proxy.client(get())
        proxy.upstream.sends(reply())
        proxy.upstream.resets()
        proxy.auto_accept = False
        client.sends(get("/failed"))
        proxy.refuse()
        admin.post("/api/circuit", "mode=open")
        return admin.ask("/metrics").body.decode()


def fetch(admin: FakeAdmin, data: bytes, answer: bytes) -> bytes:
    """Let a client fetch something that the application answers."""
    client = admin.proxy.client(data)
    admin.proxy.upstream.sends(answer)
    received = client.received()
    client.resets()
    return received


def visit(admin: FakeAdmin, path: str, host: str = "shop.example", cookie: str = "") -> None:
    headers = {"Host": host, **({"Cookie": cookie} if cookie else {})}
    fetch(admin, get(path, headers=headers), reply(path.encode()))


def why(admin: FakeAdmin, **parameters: str) -> dict[str, Any]:
    """Ask what would happen to a request, and why."""
    parameters.setdefault("url", "http://shop.example/a")
    form = "&".join(f"{name}={value.replace('&', '%26')}" for name, value in parameters.items())
    answer = admin.post("/api/why", form)
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json
    return document
