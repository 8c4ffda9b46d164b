"""The PROXY protocol, versions 1 and 2: it names the client behind a load balancer.

A connection to a listener with this option (`--listen :80,proxy`) begins with such a header, sent
by HAProxy, nginx or a cloud's balancer. HAProxy's doc/proxy-protocol.txt specifies it; the section
numbers here refer to that text. This module reads an address from bytes; proxy_protocol.py uses it.

This parser is stricter than that text: a version 2 header is at most V2_BYTES_MAX long.
"""

from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple

# Section 2.1: the longest line, with its CRLF.
V1_BYTES_MAX: Final = 107
# The length field would allow 64 KiB. The addresses are 216 octets at most; this leaves room for
# the fields that balancers add (the longest known is a client's certificate).
V2_BYTES_MAX: Final = 4096

_V1_START: Final = b"PROXY "
_V2_START: Final = b"\r\n\r\n\0\r\nQUIT\n"
_V2_FIXED_BYTES: Final = 16

_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the high half, the command in the low half
# Address family and transport (section 2.2), and the octets of both addresses.
_TCP4, _TCP6, _UNIX = 0x11, 0x21, 0x31
_ADDRESSES_BYTES: Final = {
    0x00: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, _UNIX: 216, 0x32: 216,
}  # fmt: skip


class ProxyHeaderMalformed(ValueError):
    """These bytes do not begin a PROXY protocol header."""


class ProxyHeader(NamedTuple):
    """A complete header."""

    length: int  # octets; the data of the connection follow it
    client: str | None  # the client's address; "" on a Unix socket; None: the peer itself


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header at the beginning of data; None if it is not complete yet.

    Raises:
        ProxyHeaderMalformed: It is no valid header, and more bytes cannot make it one.
    """
    if data.startswith(_V1_START[: len(data)]):
        return _parse_v1(data)
    if data.startswith(_V2_START[: len(data)]):
        return _parse_v2(data)
    raise ProxyHeaderMalformed("no PROXY protocol header")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    """`PROXY TCP4 192.0.2.1 198.51.100.1 51234 80` (section 2.1)."""
    end = data.find(b"\r\n", 0, V1_BYTES_MAX)
    if end < 0:
        if len(data) >= V1_BYTES_MAX:
            raise ProxyHeaderMalformed("a line that is too long")
        return None
    words = data[:end].decode("latin-1").split(" ")
    family = words[1]
    if family == "UNKNOWN":
        return ProxyHeader(end + 2, None)  # the rest of the line has no meaning
    if len(words) != 6:
        raise ProxyHeaderMalformed("a line of the wrong number of words")
    _, _, client, own, *ports = words
    for port in ports:
        # Compared as text, because leading zeros and signs are forbidden.
        if not port.isascii() or not port.isdigit() or str(int(port)) != port or int(port) > 65535:
            raise ProxyHeaderMalformed("a port that is no number up to 65535")
    _address(family, own)
    return ProxyHeader(end + 2, _address(family, client))


def _address(family: str, text: str) -> str:
    try:
        if family == "TCP4":
            return str(IPv4Address(text))
        if family == "TCP6" and "%" not in text:
            return _plain(IPv6Address(text))
    except AddressValueError:
        pass
    raise ProxyHeaderMalformed("an address that is not of its family")


def _plain(address: IPv6Address) -> str:
    return str(address.ipv4_mapped or address)


def _parse_v2(data: bytes) -> ProxyHeader | None:
    """Twelve fixed octets, version and command, family, length, addresses, more (section 2.2)."""
    if len(data) < _V2_FIXED_BYTES:
        return None
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:16], "big")
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderMalformed("an unknown version or command")
    if _V2_FIXED_BYTES + length > V2_BYTES_MAX:
        raise ProxyHeaderMalformed("a header that is too long")
    if command == _PROXY and length < _ADDRESSES_BYTES.get(family, V2_BYTES_MAX):
        raise ProxyHeaderMalformed("an unknown family, or addresses that are cut")
    end = _V2_FIXED_BYTES + length
    if len(data) < end:
        return None
    # LOCAL is a connection of the balancer itself, such as a health check. Unspecified families and
    # datagrams name no client.
    client: str | None = None
    if command == _PROXY and family == _TCP4:
        client = str(IPv4Address(data[16:20]))
    elif command == _PROXY and family == _TCP6:
        client = _plain(IPv6Address(data[16:32]))
    elif command == _PROXY and family == _UNIX:
        client = ""
    return ProxyHeader(end, client)
