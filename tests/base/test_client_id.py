"""A number for each client: by address prefix, keyed, and 0 where nothing is known."""

import ipaddress

import pytest

from retter.base.client_id import CLIENTS_REMEMBERED_MAX, UNKNOWN, ClientIds
from tests.support.harness import FakeProxy, get

SECRET = bytes(32)


@pytest.mark.parametrize(("one", "other", "same"), [
    ("192.0.2.7", "192.0.2.7", True),
    ("192.0.2.7", "192.0.2.8", False),
    ("::ffff:192.0.2.7", "192.0.2.7", True),
    ("2001:db8:1:2::1", "2001:db8:1:2:ffff::2", True),
    ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ("fe80::1%eth0", "fe80::2%eth1", True),
])  # fmt: skip
def test_a_client_is_an_address_or_a_prefix(one: str, other: str, same: bool) -> None:
    ids = ClientIds(SECRET)
    assert (ids.of_address(one) == ids.of_address(other)) is same


@pytest.mark.parametrize("text", ["", "unix:", "nonsense", "1.2.3", "9" * 5000, "[::1]"])
def test_what_is_no_address_is_nobody_in_particular(text: str) -> None:
    assert ClientIds(SECRET).of_address(text) == UNKNOWN


def test_a_number_tells_no_address() -> None:
    address = "192.0.2.7"
    numbers = {ClientIds(bytes([n]) * 32).of_address(address) for n in range(50)}
    assert len(numbers) == 50, "it depends on the secret"
    assert all(0 < number < 1 << 56 for number in numbers)


def test_few_are_remembered_and_all_are_the_same_again() -> None:
    ids = ClientIds(SECRET)
    first = ipaddress.ip_address("10.0.0.0")
    texts = [str(first + n) for n in range(2 * CLIENTS_REMEMBERED_MAX)]
    numbers = [ids.of_address(text) for text in texts]
    assert len(set(numbers)) == len(texts)
    assert [ids.of_address(text) for text in texts] == numbers


def client_of(peer: str, headers: dict[str, str], trusted: str = "10.0.0.0/8") -> int:
    """Return the number that a request gets which comes from this peer."""
    fake = FakeProxy(trusted_proxies=(ipaddress.ip_network(trusted),))
    peers = fake.services.peers
    peers.ids = ClientIds(SECRET)
    forwarding = peers.forwarding_fields(peer, b"http")
    memo = fake.services.heads.request_memos[forwarding.trusted, b"http"]
    parsed = fake.services.heads.parse(get(headers=headers), forwarding.trusted, memo)
    assert peers.client_of(forwarding, parsed) == peers.client_of(forwarding, parsed)
    return peers.client_of(forwarding, parsed)


@pytest.mark.parametrize(("peer", "headers", "counts_for"), [
    ("192.0.2.7", {}, "192.0.2.7"),
    ("192.0.2.7", {"X-Forwarded-For": "6.6.6.6"}, "192.0.2.7"),     # not from just anybody
    ("10.0.0.1", {}, "10.0.0.1"),
    ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6"}, "6.6.6.6"),
    ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6, 7.7.7.7, 10.0.0.2"}, "7.7.7.7"),
    ("10.0.0.1", {"X-Forwarded-For": "6.6.6.6, nonsense"}, "10.0.0.1"),
    ("10.0.0.1", {"X-Real-IP": "nonsense"}, "10.0.0.1"),
])  # fmt: skip
def test_a_trusted_proxy_tells_for_whom_it_asks(
    peer: str, headers: dict[str, str], counts_for: str
) -> None:
    assert client_of(peer, headers) == ClientIds(SECRET).of_address(counts_for)


def test_a_session_is_no_client() -> None:
    """One client may have any number of them, made up or collected."""
    cookies = [{"Cookie": f"PHPSESSID={n:032}"} for n in range(5)]
    assert len({client_of("192.0.2.7", headers) for headers in cookies}) == 1
