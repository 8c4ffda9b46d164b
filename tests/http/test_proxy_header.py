"""The PROXY protocol: what is a header, whom it names, and what a listener makes of it."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.http.proxy_header import (
    V1_BYTES_MAX,
    V2_BYTES_MAX,
    ProxyHeaderMalformed,
    parse_proxy_header,
)
from tests.support.harness import FakeProxy, field, get, reply, split_at, status_of

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 1]) + b"\xc8\x00\x00\x50"
V6 = bytes.fromhex("20010db8000000000000000000000001") * 2 + b"\xc8\x00\x00\x50"
MAPPED = bytes.fromhex("00000000000000000000ffffc0000201") * 2 + b"\xc8\x00\x00\x50"
UNIX = b"/run/a.sock".ljust(108, b"\0") * 2


def v2(addresses: bytes, family: int = 0x11, command: int = 0x21, more: bytes = b"") -> bytes:
    rest = addresses + more
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2, "big") + rest


HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 51200 80\r\n", "192.0.2.1"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0"),
    (b"PROXY TCP6 2001:db8::1 ::1 51200 80\r\n", "2001:db8::1"),
    (b"PROXY TCP6 2001:DB8:0:0:0:0:0:1 ::1 51200 80\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 51200 80\r\n", "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", None),
    (v2(V4), "192.0.2.1"),
    (v2(V4, more=b"\x04\x00\x03abc\xe0\x00\x01x"), "192.0.2.1"),
    (v2(V4, more=b"\0" * (V2_BYTES_MAX - 28)), "192.0.2.1"),
    (v2(V6, 0x21), "2001:db8::1"),
    (v2(MAPPED, 0x21), "192.0.2.1"),
    (v2(UNIX, 0x31), ""),
    (v2(b"", 0x00), None),
    (v2(b"whatever", 0x00), None),
    (v2(V4, 0x12), None),  # datagrams: valid, and of no use here
    (v2(V6, 0x22), None),
    (v2(UNIX, 0x32), None),
    (v2(b"", 0x00, 0x20), None),  # LOCAL
    (v2(V4, 0x11, 0x20), None),
    (v2(b"x", 0xFF, 0x20), None),  # of LOCAL nothing else counts
]


@pytest.mark.parametrize(("header", "client"), HEADERS)
def test_a_header_names_the_client_however_it_is_cut(header: bytes, client: str | None) -> None:
    for end in range(len(header)):
        assert parse_proxy_header(header[:end]) is None
    for rest in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\r\n", header):
        found = parse_proxy_header(header + rest)
        assert found is not None
        assert (found.length, found.client) == (len(header), client)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n", b"G", b"proxy TCP4 ", b"PROXY\tTCP4", b"PROXY\r\n", b"\r\n\r\nG",
        b"\r\n\r\n\0\r\nQUIX", b"\x16\x03\x01",
        b"PROXY \r\n", b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n", b"PROXY TCP4 1.2.3.4  1.2.3.4 1 1\r\n",
        b"PROXY TCP5 1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n", b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n", b"PROXY TCP4 1.2.3.04 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.256 1.2.3.4 1 1\r\n", b"PROXY TCP4 1.2.3.4 nobody 1 1\r\n",
        b"PROXY TCP4 1.2.3.4/32 1.2.3.4 1 1\r\n", b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
        b"PROXY TCP6 ::1 ::g 1 1\r\n", b"PROXY TCP4 1.2.3.\xb2 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 -1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xb2\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1_0\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 \r\n",
        b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n", b"PROXY " + b"x" * (V1_BYTES_MAX - 6),
        v2(V4, command=0x11), v2(V4, command=0x22), v2(V4, command=0x2F), v2(V4, command=0x01),
        v2(V4, 0x10), v2(V4, 0x13), v2(V4, 0x01), v2(V4, 0x41), v2(V4, 0xFF),
        v2(V4[:-1]), v2(V6[:-1], 0x21), v2(V4, 0x21), v2(UNIX[:-1], 0x31), v2(b""),
        v2(V4, more=b"\0" * (V2_BYTES_MAX - 27)), v2(V4, command=0x20, more=b"\0" * V2_BYTES_MAX),
    ],
)  # fmt: skip
def test_what_is_no_header(data: bytes) -> None:
    with pytest.raises(ProxyHeaderMalformed):
        parse_proxy_header(data)


@given(
    start=st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21"]),
    data=st.binary(max_size=300),
)
def test_any_bytes_are_a_header_or_not_one(start: bytes, data: bytes) -> None:
    """Never another exception, and more bytes do not change what has been found."""
    data = start + data
    try:
        found = parse_proxy_header(data)
    except ProxyHeaderMalformed:
        with pytest.raises(ProxyHeaderMalformed):
            parse_proxy_header(data + b"more\r\n")
        return
    if found is None:
        assert len(data) < V2_BYTES_MAX
    else:
        assert parse_proxy_header(data[: found.length]) == found
        assert parse_proxy_header(data + b"more\r\n") == found


# -- the listener -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "told"),
    [
        (b"PROXY TCP4 198.51.100.9 192.0.2.1 51200 80\r\n", "198.51.100.9"),
        (v2(V6, 0x21), "2001:db8::1"),
        (v2(UNIX, 0x31), "unix:"),
        (b"PROXY UNKNOWN\r\n", "192.0.2.7"),
    ],
)
def test_the_application_is_told_the_headers_address(header: bytes, told: str) -> None:
    sends = header + get() + get("/2")
    for seed in range(20):
        proxy = FakeProxy()
        client = proxy.client(proxied=True)
        random = Random(seed)
        for piece in split_at(sends, random.sample(range(1, len(sends)), seed)):
            client.sends(piece)
        request = proxy.upstream.received()
        assert (field(request, "x-real-ip"), field(request, "x-forwarded-for")) == (told, told)
        proxy.upstream.sends(reply(b"1"))
        assert field(proxy.upstream.received(), "x-real-ip") == told
        proxy.upstream.sends(reply(b"2"))
        assert client.received().count(b"HTTP/1.1 200 OK") == 2
        stats = proxy.proxy.stats()["connections"]
        assert (stats["open"], stats["accepted"]) == (1, 1)
        client.resets()
        assert proxy.proxy.stats()["connections"]["open"] == 0
        proxy.assert_at_rest()


def test_what_is_no_header_is_closed_without_an_answer() -> None:
    proxy = FakeProxy()
    client = proxy.client(get(), proxied=True)
    assert client.transport.aborted
    assert client.received() == b""
    stats = proxy.proxy.stats()
    assert stats["connections"]["open"] == 0
    assert stats["client_errors"] == {"bad-request": 1}
    assert not proxy.upstreams


def test_a_header_has_to_come_in_time() -> None:
    proxy = FakeProxy(head_timeout_s=5)
    client = proxy.client(b"PROXY TCP4 1.2.", proxied=True)
    proxy.advance(4)
    client.sends(b"3.4 ")
    assert not client.closed
    proxy.advance(3)
    assert client.transport.aborted
    assert proxy.proxy.stats()["connections"]["open"] == 0


def test_a_balancer_that_leaves_in_the_header_leaves_nothing() -> None:
    proxy = FakeProxy()
    client = proxy.client(b"PROXY TCP4 1.2.", proxied=True)
    client.ends()
    assert client.transport.closing
    assert proxy.proxy.stats()["connections"]["open"] == 0


def test_a_balancers_clients_are_counted_by_their_own_address() -> None:
    proxy = FakeProxy(connections_per_address_max=1)
    one, two = [b"PROXY TCP4 198.51.100.%d 192.0.2.1 51200 80\r\n" % n for n in (1, 2)]
    first = proxy.client(one + get(), proxied=True)
    other = proxy.client(two, proxied=True)
    again = proxy.client(one + get(), proxied=True)
    assert not first.closed and not other.closed
    assert again.transport.aborted
    assert proxy.proxy.stats()["connections"]["open"] == 2
    first.resets()
    proxy.settle()
    assert not proxy.client(one, proxied=True).closed


def test_headers_still_to_come_count_among_all_connections() -> None:
    proxy = FakeProxy(connections_max=2, circuit="observe")
    busy = proxy.client(b"PROXY UNKNOWN\r\n" + get(), proxied=True)
    waits = proxy.client(b"PROXY ", proxied=True)
    proxy.advance(1)
    newcomer = proxy.client(b"PROXY UNKNOWN\r\n" + get(), proxied=True)
    assert waits.transport.aborted and not newcomer.closed and not busy.closed
    assert proxy.client(proxied=True).transport.aborted
    for upstream in proxy.upstreams:
        upstream.sends(reply(b"ok"))
    assert status_of(newcomer.received()) == status_of(busy.received()) == 200


def test_who_has_left_makes_no_room() -> None:
    proxy = FakeProxy(connections_max=3, circuit="observe")
    first, second, _ = [proxy.client(b"PROXY ", proxied=True) for _ in range(3)]
    proxy.advance(1)
    proxy.client(b"PROXY UNKNOWN\r\n" + get(), proxied=True)  # one of the three makes room
    for waits in (first, second):
        waits.resets()
    busy = [proxy.client(b"PROXY UNKNOWN\r\n" + get(), proxied=True) for _ in range(2)]
    assert not any(client.closed for client in busy)
    assert proxy.proxy.stats()["connections"]["open"] == 3


def test_draining_and_closing_end_what_waits_for_a_header() -> None:
    proxy = FakeProxy()
    drained = proxy.client(b"PROXY ", proxied=True)
    proxy.advance(1.1)
    proxy.proxy.drain(proxy.loop.now)
    assert drained.closed
    closed = proxy.client(b"PROXY ", proxied=True)
    proxy.proxy.close()
    assert closed.closed


def test_trust_is_a_matter_of_the_headers_address(tmp_path: Path) -> None:
    """A client behind the balancer is not believed because the balancer is."""
    log = tmp_path / "access.log"
    proxy = FakeProxy(trusted_proxies="192.0.2.7,10.0.0.0/8", access_log=str(log))
    forged = get(headers={"X-Forwarded-For": "6.6.6.6"})
    proxy.client(b"PROXY TCP4 198.51.100.9 192.0.2.1 1 80\r\n" + forged, proxied=True)
    assert field(proxy.upstream.received(), "x-forwarded-for") == "198.51.100.9"
    proxy.upstream.sends(reply(b"ok"))
    proxy.client(b"PROXY TCP4 10.0.0.1 192.0.2.1 1 80\r\n" + forged, proxied=True)
    assert field(proxy.upstream.received(), "x-real-ip") == "6.6.6.6"
    proxy.upstream.sends(reply(b"ok"))
    proxy.client(b"PROXY TCP4 10.0.0.1 192.0.2.1 1 80\r\n\r\n\r\n\r\n\r\n\r\n", proxied=True)
    proxy.client(forged)
    proxy.advance(0.1)
    clients = [json.loads(line)["client"] for line in log.read_text().splitlines()]
    assert clients[:2] == ["198.51.100.9", "6.6.6.6"]


def test_since_when_it_waits_is_known_after_a_reload_too() -> None:
    proxy = FakeProxy(head_timeout_s=10.0)
    connected_at = proxy.loop.now
    peer = proxy.client(proxied=True)
    connection: Any = peer.protocol
    proxy.advance(1.0)
    proxy.proxy.apply(replace(proxy.services.settings, head_timeout_s=60.0))
    assert connection.waits_since() == connected_at
    proxy.advance(10.1)
    assert peer.closed, "what has begun keeps the time that it has"
