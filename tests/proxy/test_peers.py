"""What all connections of one address have in common."""

import ipaddress

import pytest

from retter.config.settings import Settings
from retter.proxy.peers import ADDRESSES_REMEMBERED_MAX, Peers
from tests.support.harness import FakeProxy, field, get

PROXIES = Settings(upstream=":1", trusted_proxies=("192.0.2.0/24",))


@pytest.fixture
def peers() -> Peers:
    return Peers(Settings(upstream=":1"), bytes(32))


def test_connections_of_one_address_share_their_fields(peers: Peers) -> None:
    first = peers.forwarding_fields("192.0.2.7", b"http")
    assert peers.forwarding_fields("".join(["192.0.", "2.7"]), b"http") is first
    others = [
        peers.forwarding_fields("192.0.2.8", b"http"),
        peers.forwarding_fields("192.0.2.7", b"https"),
    ]
    assert [(one.peer, one.proto) for one in others] == [
        ("192.0.2.8", b"http"),
        ("192.0.2.7", b"https"),
    ]
    assert others[1].number == first.number != others[0].number


def test_the_next_connection_follows_new_settings_and_the_open_one_does_not(peers: Peers) -> None:
    before = peers.forwarding_fields("192.0.2.7", b"http")
    peers.configure(PROXIES)
    after = peers.forwarding_fields("192.0.2.7", b"http")
    assert (before.trusted, after.trusted) == (False, True)


def test_few_addresses_are_remembered(peers: Peers) -> None:
    first = ipaddress.ip_address("10.0.0.0")
    for number in range(2 * ADDRESSES_REMEMBERED_MAX + 9):
        name = str(first + number)
        assert peers.forwarding_fields(name, b"http").peer == name
        assert len(peers._latest) <= ADDRESSES_REMEMBERED_MAX


def test_two_clients_of_one_address_hold_one_name_and_one_record() -> None:
    proxy = FakeProxy()
    connections = [proxy.client(get()).protocol for _ in range(2)]
    assert connections[0].forwarding is connections[1].forwarding
    assert connections[0].peer == connections[1].peer == "192.0.2.7"
    assert field(proxy.upstreams[1].received(), "X-Real-IP") == "192.0.2.7"
