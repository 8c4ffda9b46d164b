"""A site with an application that a function plays, and visitors who ask by name.

What was asked is answered at once, until the application is told to be down.
"""

from collections.abc import Callable
from typing import Any

from retter.base.errors import ConnectRefused
from tests.support.harness import FakePeer, FakeProxy, body_of, field, reply, status_of


class Asked:
    """A request as the application gets it."""

    def __init__(self, head: bytes) -> None:
        line, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        self.method, self.target, _ = line.split(" ")
        self.path = self.target.partition("?")[0]
        self.fields: dict[str, str] = {}
        for one in lines:
            name, _, value = one.partition(":")
            self.fields[name.lower()] = value.strip()
        self.cookies = dict(
            piece.strip().partition("=")[::2]
            for piece in self.fields.get("cookie", "").split(";")
            if piece.strip()
        )


class Got:
    """An answer as a visitor gets it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.status = status_of(raw)
        self.body = body_of(raw).decode("latin-1")
        self.stored = field(raw, "X-Retter") == "cache"

    def field(self, name: str) -> str | None:
        return field(self.raw, name)


# A visitor waits longer for nothing: a request is held for 60 s at most, and then refused.
WAIT_S = 120.0

Application = Callable[[Asked], bytes]


def page(body: str, *set_cookies: str, status: str = "200 OK", **headers: str) -> bytes:
    """Return an answer of an application."""
    fields = {"Content-Type": "text/html"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    raw = reply(body.encode("latin-1"), status=status, headers=fields)
    lines = "".join(f"Set-Cookie: {line}\r\n" for line in set_cookies).encode("latin-1")
    first, _, rest = raw.partition(b"\r\n")
    return first + b"\r\n" + lines + rest


class Site:
    """A proxy and the application behind it."""

    def __init__(self, application: Application, **settings: Any) -> None:
        settings.setdefault("connect_hold_s", 0.0)
        self.proxy = FakeProxy(**settings)
        self.proxy.auto_accept = True
        self.application = application
        self.up = True
        self.asked: list[Asked] = []
        self._peers = 0

    def ask(
        self,
        target: str = "/",
        *,
        cookie: str = "",
        method: str = "GET",
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        client: FakePeer | None = None,
        address: str = "192.0.2.7",
    ) -> Got:
        """Ask on a connection of one's own, or on that of `client`."""
        fields = {"Host": "shop.example", **(headers or {})}
        if cookie:
            fields["Cookie"] = cookie
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        if method == "POST":
            lines += f"Content-Length: {len(body)}\r\n"
        self.proxy.loop.now += 0.001
        peer = client or self.visitor(address)
        peer.sends(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        self._answer()
        until = self.proxy.loop.now + WAIT_S
        while not peer.transport.buffer[peer.transport.taken :]:  # it waits for its turn
            assert self.proxy.loop.now < until, f"{method} {target} gets no answer"
            if not self.proxy.workers.work():  # a large body is decoded in a thread
                self.proxy.advance(0.1)
            self._answer()
        got = Got(peer.received())
        if client is None:
            peer.ends()
        return got

    def visitor(self, address: str = "192.0.2.7") -> FakePeer:
        """Open a connection."""
        return self.proxy.client(peername=(address, 50000))

    def _answer(self) -> None:
        while self.proxy.dialled:
            self.proxy.refuse(ConnectRefused("refused"))
        for upstream in self.proxy.upstreams:
            if head := upstream.written():
                asked = Asked(head)
                self.asked.append(asked)
                upstream.sends(self.application(asked))

    def goes_down(self) -> None:
        """From now on nothing listens there."""
        self.proxy.auto_accept = False
        for upstream in self.proxy.upstreams:
            upstream.ends()
        self.proxy.settle()
