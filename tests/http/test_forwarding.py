"""The fields that tell the application who the client is: trusted and untrusted peers."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.http.forwarding import ForwardingFields, Trust, peer_name
from retter.http.message import RequestHead
from retter.http.request_parser import RequestParser

NETWORKS = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


def request(*fields: tuple[bytes, bytes]) -> RequestHead:
    parser = RequestParser(fields_max=50, target_bytes_max=100, instance=b"me", trusted=True)
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")


def told(
    peer: str, *fields: tuple[bytes, bytes], trust: Trust | None = None, proto: bytes = b"http"
) -> list[str]:
    trust = trust or Trust(NETWORKS, unix=True)
    end = ForwardingFields(peer, proto, b"me", trust).end_of_head(request(*fields))
    assert end.endswith(b"\r\nVia: 1.1 retter (me)\r\n\r\n")
    return [line.partition(": ")[2] for line in end.decode("latin-1").split("\r\n")[:3]]


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [("10.1.2.3", True), ("11.1.2.3", False), ("fd00::1", True), ("fe80::1%eth0", False),
     ("::ffff:10.0.0.1", True), ("", True), ("nonsense", False)],
)  # fmt: skip
def test_whom_we_trust(peer: str, trusted: bool) -> None:
    assert Trust(NETWORKS, unix=True).trusts(peer) is trusted
    assert not Trust([], unix=False).trusts(peer)


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        (b"", "10.9.9.9"),
        (b"192.0.2.1", "192.0.2.1"),
        (b"6.6.6.6, 192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, 10.0.0.7", "192.0.2.1"),
        (b"192.0.2.1, 10.0.0.7, 10.0.0.8", "192.0.2.1"),
        (b"10.0.0.7, 10.0.0.8", "10.0.0.7"),
        (b"192.0.2.1:4711", "192.0.2.1"),
        (b'"[2001:db8::1]:80"', "2001:db8::1"),
        (b"2001:db8::1", "2001:db8::1"),
        (b"::ffff:192.0.2.1", "192.0.2.1"),
        (b"192.0.2.1, [2001:db8::1]" + b"x" * 128, "10.9.9.9"),
        (b"192.0.2.1, unknown", "10.9.9.9"),
        (b"192.0.2.1, unknown, 10.0.0.7", "10.0.0.7"),
        (b"\xff", "10.9.9.9"),
        (b"6.6.6.6,, 192.0.2.1 ,", "192.0.2.1"),  # an empty element is none
        (b" , ", "10.9.9.9"),
    ],
)
def test_the_client_is_the_rightmost_that_is_not_ours(chain: bytes, client: str) -> None:
    assert Trust(NETWORKS, unix=True).client_of(chain, "10.9.9.9") == client


@given(st.binary(max_size=40))
def test_no_chain_is_too_strange(chain: bytes) -> None:
    assert Trust(NETWORKS, unix=True).client_of(chain, "10.9.9.9")


def test_peer_names() -> None:
    assert peer_name(("192.0.2.1", 5)) == "192.0.2.1"
    assert peer_name(("::ffff:192.0.2.1", 5, 0, 0)) == "192.0.2.1"
    assert peer_name(("2001:db8::1", 5, 0, 0)) == "2001:db8::1"
    assert peer_name(("fe80::1%eth0", 5, 0, 2)) == "fe80::1"
    assert peer_name("") == peer_name(b"@abstract") == peer_name(None) == peer_name(()) == ""
    assert peer_name(("nonsense", 5)) == ""


def test_an_untrusted_peer_is_told_as_it_is() -> None:
    fields = ((b"X-Forwarded-For", b"6.6.6.6"), (b"X-Forwarded-Proto", b"https"))
    assert told("192.0.2.1", *fields) == ["192.0.2.1", "192.0.2.1", "http"]
    assert told("192.0.2.1", proto=b"https") == ["192.0.2.1", "192.0.2.1", "https"]
    assert told("", trust=Trust([], unix=False)) == ["unix:", "unix:", "http"]


def test_a_trusted_peers_chain_is_extended() -> None:
    assert told("10.0.0.1") == ["10.0.0.1", "10.0.0.1", "http"]
    assert told("") == ["unix:", "unix:", "http"]
    fields = (
        (b"X-Forwarded-For", b"6.6.6.6, 192.0.2.1"),
        (b"X-Forwarded-For", b"10.0.0.2"),
        (b"X-Forwarded-Proto", b"https"),
    )
    assert told("10.0.0.1", *fields) == [
        "6.6.6.6, 192.0.2.1, 10.0.0.2, 10.0.0.1",
        "192.0.2.1",
        "https",
    ]
    # What the client itself may have sent: a proxy that writes the list lets it through.
    assert told("10.0.0.1", *fields, (b"X-Real-IP", b"192.0.2.9"))[1] == "192.0.2.1"


def test_x_real_ip_counts_where_there_is_no_list_and_both_are_told_alike() -> None:
    assert told("10.0.0.1", (b"X-Real-IP", b"192.0.2.9"))[:2] == [
        "192.0.2.9, 10.0.0.1",
        "192.0.2.9",
    ]
    added = (b"X-Real-IP", b"6.6.6.6"), (b"X-Real-IP", b"192.0.2.9")  # to what the client has sent
    assert told("10.0.0.1", *added)[1] == "192.0.2.9"
    assert told("10.0.0.1", (b"X-Real-IP", b"6.6.6.6, 192.0.2.9"))[1] == "192.0.2.9"
    for nonsense in (b"", b"nobody", b"6.6.6.6, nobody", b'192.0.2.1 - - "GET /forged HTTP/1.1"'):
        assert told("10.0.0.1", (b"X-Real-IP", nonsense))[:2] == ["10.0.0.1", "10.0.0.1"]
    assert ForwardingFields("10.0.0.1", b"http", b"me", Trust(NETWORKS, unix=False)).trusted
