"""The client, as the application sees it: X-Forwarded-For, X-Forwarded-Proto, X-Real-IP, Via.

If the peer is not trusted, its forwarding fields are dropped. The new fields contain the facts
about the connection, and are the same bytes for all its requests. If the peer is a trusted proxy,
its list is extended.
"""

import ipaddress
from collections.abc import Sequence

from retter.base.limits import FORWARDED_HOPS_MAX
from retter.http.head_edit import without_fields
from retter.http.message import RequestHead

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# An IPv6 address has 45 characters at most; with brackets, a zone and a port, some 70. Python cuts
# whatever it is given at each dot and colon: 64 KiB of them take 4 ms.
_ELEMENT_CHARACTERS_MAX = 128


def _address(text: str) -> Address | None:
    """Parse an X-Forwarded-For element, with or without port and brackets."""
    text = text.strip().strip('"')
    if len(text) > _ELEMENT_CHARACTERS_MAX:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


class Trust:
    """The peers whose forwarding fields are believed (`--trusted-proxies`)."""

    def __init__(self, networks: Sequence[Network], unix: bool) -> None:
        self._networks = tuple(networks)
        self._unix_peers = unix

    def trusts(self, peer: str) -> bool:
        """Whether the peer, an address or "" for a unix socket, is a trusted proxy."""
        if not peer:
            return self._unix_peers
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def client_of(self, forwarded_for: bytes, peer: str) -> str:
        """Return the rightmost address that does not belong to a trusted proxy, else the peer's.

        Only the last FORWARDED_HOPS_MAX hops are read. If all of them are trusted, it is the
        leftmost of these.
        """
        client = peer
        hops = forwarded_for.rsplit(b",", FORWARDED_HOPS_MAX)[-FORWARDED_HOPS_MAX:]
        for element in reversed(hops):
            address = _address(element.decode("latin-1"))
            if address is None:
                if not element.strip():
                    continue  # RFC 9110 section 5.6.1.2: an empty element is none
                break  # the elements to the left of a malformed one are not reliable
            client = str(address)
            if not self.trusts(client):
                break
        return client


def peer_name(peername: object) -> str:
    """Return the peer's address as text without its port; "" for a unix socket."""
    if not isinstance(peername, tuple) or not peername:
        return ""
    address = _address(str(peername[0]))  # pyright: ignore[reportUnknownArgumentType]
    return str(address) if address is not None else ""


class ForwardingFields:
    """The forwarding fields of a client connection; connections of one address may share them.

    Args:
        peer: The peer's address; "" on a unix socket, which is sent as `unix:` like nginx does.
        proto: b"http" or b"https".
        instance: The id in RETTER's Via comment.
        number: The number for the peer's address (client_id.py).
        group: What its connections count for; "" if none.

    Attributes:
        fixed: What `end_of_head` returns for all requests; b"" if the peer is trusted.
    """

    __slots__ = ("_trust", "_via", "fixed", "group", "number", "peer", "proto", "trusted")

    def __init__(
        self,
        peer: str,
        proto: bytes,
        instance: bytes,
        trust: Trust,
        number: int = 0,
        group: str = "",
    ) -> None:
        self.trusted = trust.trusts(peer)
        self.number = number
        self.group = group
        self._trust = trust
        self.peer = peer
        self.proto = proto
        name = peer.encode() or b"unix:"
        via = b"Via: 1.1 retter (%b)\r\n\r\n" % instance
        # Each connection needs one of the two only, and has it for as long as it lasts.
        self._via = via if self.trusted else b""
        self.fixed = b""
        if not self.trusted:
            self.fixed = b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (
                name,
                name,
                proto,
                via,
            )

    def end_of_head(self, request: RequestHead) -> bytes:
        """Return the fields that follow RequestHead.forward, with the empty line."""
        if not self.trusted:
            return self.fixed
        name = self.peer.encode() or b"unix:"
        header = request.combined(b"x-forwarded-for")
        real_ip = self._real_ip(request, header).encode("latin-1") or b"unix:"
        if header:
            chain = header + b", " + name
        else:  # both fields must name the same client
            chain = name if real_ip == name else real_ip + b", " + name
        proto = self._proto_of(request)
        return b"X-Forwarded-For: %b\r\nX-Real-IP: %b\r\nX-Forwarded-Proto: %b\r\n%b" % (
            chain,
            real_ip,
            proto,
            self._via,
        )

    def is_https(self, request: RequestHead) -> bool:
        """Return whether the client's own connection is secure; a trusted proxy is believed."""
        proto = self._proto_of(request) if self.trusted else self.proto
        return proto.partition(b",")[0].strip().lower() == b"https"

    def _proto_of(self, request: RequestHead) -> bytes:
        return request.first(b"x-forwarded-proto") or self.proto

    def client_of(self, request: RequestHead) -> str:
        """Return the client's address, the same as in X-Real-IP; "" for a unix socket."""
        if not self.trusted:
            return self.peer
        return self._real_ip(request, request.combined(b"x-forwarded-for"))

    def client_named(self, request: RequestHead) -> str:
        """Return the client's address if a trusted peer has sent one, else ""."""
        if not self.trusted:
            return ""
        forwarded_for = request.combined(b"x-forwarded-for")
        if not forwarded_for and request.first(b"x-real-ip") is None:
            return ""
        return self._real_ip(request, forwarded_for)

    def _real_ip(self, request: RequestHead, forwarded_for: bytes) -> str:
        # A proxy that writes X-Forwarded-For may forward the client's own X-Real-IP (Caddy,
        # HAProxy, Envoy). So X-Real-IP counts only if there is no X-Forwarded-For. Of several the
        # last one counts: a proxy may add its own to the client's.
        if not forwarded_for and (real_ip := request.combined(b"x-real-ip")):
            address = _address(real_ip.rpartition(b",")[2].decode("latin-1"))
            return self.peer if address is None else str(address)
        return self._trust.client_of(forwarded_for, self.peer)


def without_expectation(head: bytes) -> bytes:
    """Return a request's head without Expect, which a proxy removes after it has met it."""
    return without_fields(head, (b"expect:",))
