"""A connection that knows who its client is: NTLM and Negotiate, in both directions."""

import pytest

from retter.http.binding_schemes import names_binding_scheme
from retter.proxy.bound_connections import IDLE_MAX, IDLE_S, SURPLUS_S
from tests.support.harness import FakePeer, FakeProxy, body_of, get, reply, status_of

NTLM1 = get("/inbox", headers={"Authorization": "NTLM TYPE1"})
NTLM3 = get("/inbox", headers={"Authorization": "NTLM TYPE3"})
CHALLENGE = reply(b"", status="401 Who", headers={"WWW-Authenticate": "NTLM Q0hBTExFTkdF"})


def exchange(
    proxy: FakeProxy, client: FakePeer, asks: bytes, upstream: int, answer: bytes
) -> bytes:
    """Let a client ask, see that it comes over that connection, and answer."""
    client.sends(asks)
    assert proxy.upstreams[upstream].received().startswith(asks.partition(b"\r\n")[0])
    proxy.upstreams[upstream].sends(answer)
    return body_of(client.received())


def logged_in(proxy: FakeProxy) -> FakePeer:
    alice = proxy.client()
    exchange(proxy, alice, NTLM1, 0, CHALLENGE)
    assert exchange(proxy, alice, NTLM3, 0, reply(b"private")) == b"private"
    return alice


@pytest.mark.parametrize("scheme", ["NTLM x", "Negotiate YII", "negotiate", 'Basic realm="a",NTLM'])
def test_from_the_first_sign_of_it_the_connection_is_that_clients_alone(scheme: str) -> None:
    proxy = FakeProxy()
    alice = proxy.client()
    challenge = reply(b"", status="401 Who", headers={"WWW-Authenticate": scheme})
    exchange(proxy, alice, get("/inbox"), 0, challenge)
    bob = proxy.client()
    exchange(proxy, bob, get("/inbox"), 1, challenge)
    exchange(proxy, alice, get("/1"), 0, reply(b"private"))
    exchange(proxy, bob, get("/1"), 1, reply(b"private"))


def test_nothing_of_it_is_stored_or_answered_from_the_store() -> None:
    proxy = FakeProxy()
    exchange(proxy, proxy.client(), get("/inbox"), 0, reply(b"public"))
    alice = proxy.client()
    exchange(proxy, alice, NTLM1, 0, CHALLENGE)
    exchange(proxy, alice, NTLM3, 0, reply(b"private"))
    exchange(proxy, alice, get("/inbox"), 0, reply(b"private"))
    exchange(proxy, alice, get("/inbox"), 0, reply(b"private"))  # known heads, too
    exchange(proxy, alice, get("/other"), 0, reply(b"private"))
    assert proxy.services.store.stats()["entries"] == 1
    alice.sends(get("/inbox"))
    proxy.upstreams[0].sends(reply(b"broken", status="503 Oops"))
    assert body_of(alice.received()) == b"broken"
    bob = proxy.client(get("/inbox"))
    assert len(proxy.upstreams) == 2
    proxy.upstreams[1].resets()
    assert b"private" not in bob.received()


def test_it_is_closed_with_its_client() -> None:
    proxy = FakeProxy()
    alice = logged_in(proxy)
    assert len(proxy.services.bound) == 1
    alice.ends()
    proxy.settle()
    assert proxy.upstreams[0].closed
    assert len(proxy.services.bound) == 0
    proxy.assert_at_rest()


def test_a_client_that_leaves_in_the_middle_takes_it_along() -> None:
    proxy = FakeProxy()
    alice = logged_in(proxy)
    alice.sends(get("/slow"))
    alice.resets()
    proxy.upstreams[0].sends(reply(b"private"))
    proxy.settle()
    assert proxy.upstreams[0].closed
    early = proxy.client(NTLM1)
    early.resets()
    proxy.upstreams[1].sends(CHALLENGE)
    proxy.settle()
    assert proxy.upstreams[1].closed
    proxy.assert_at_rest()


def test_when_the_application_closes_it_the_client_begins_anew() -> None:
    proxy = FakeProxy()
    alice = logged_in(proxy)
    proxy.upstreams[0].ends()
    proxy.settle()
    challenged = reply(b"", status="401 Who", headers={"WWW-Authenticate": "NTLM"})
    exchange(proxy, alice, get("/inbox"), 1, challenged)
    assert len(proxy.services.bound) == 1


def test_behind_a_proxy_the_address_tells_people_on_one_connection_apart() -> None:
    proxy = FakeProxy(trusted_proxies=("192.0.2.0/24",))
    front = proxy.client()
    told = {"Authorization": "NTLM TYPE3", "X-Forwarded-For": "198.51.100.1"}
    exchange(proxy, front, get("/inbox", headers=told), 0, reply(b"private"))
    bob = {"X-Forwarded-For": "198.51.100.2"}
    exchange(proxy, front, get("/inbox", headers=bob), 1, reply(b"bob's"))
    alice = {"X-Forwarded-For": "198.51.100.1"}
    exchange(proxy, front, get("/inbox", headers=alice), 0, reply(b"private"))


def test_clients_that_only_name_such_a_scheme_hold_few_connections() -> None:
    proxy = FakeProxy()
    alice = logged_in(proxy)
    proxy.advance(2)
    others = [proxy.client() for _ in range(IDLE_MAX + 10)]
    for at, other in enumerate(others, 1):
        exchange(proxy, other, get(headers={"Authorization": "NTLM"}), at, reply(b"public"))
    proxy.advance(0.1)
    exchange(proxy, alice, get("/1"), 0, reply(b"private"))
    assert proxy.services.pool.open == IDLE_MAX + 11
    proxy.advance(SURPLUS_S + 2)
    assert proxy.services.pool.open == len(proxy.services.bound) == IDLE_MAX
    exchange(proxy, alice, get("/2"), 0, reply(b"private"))
    assert not any(other.closed for other in others)
    again = reply(b"", status="401 Who", headers={"WWW-Authenticate": "NTLM"})
    exchange(proxy, others[0], get("/inbox"), IDLE_MAX + 11, again)


def test_an_idle_one_is_closed_in_time_and_forgotten() -> None:
    proxy = FakeProxy()
    alice = logged_in(proxy)
    alice.sends(get("/slow"))
    assert proxy.upstreams[0].received()
    proxy.advance(5)
    proxy.upstreams[0].sends(reply(b"private"))
    proxy.advance(IDLE_S - 2)
    exchange(proxy, alice, get("/1"), 0, reply(b"private"))
    proxy.advance(IDLE_S + 3)
    assert proxy.upstreams[0].closed
    assert not proxy.services.bound.clients
    proxy.assert_at_rest()


def test_other_schemes_bind_nothing() -> None:
    proxy = FakeProxy()
    alice = proxy.client()
    exchange(proxy, alice, get("/a", headers={"Authorization": "Bearer negotiate"}), 0, reply(b"1"))
    basic = reply(b"", status="401 Who", headers={"WWW-Authenticate": 'Basic realm="ntlm"'})
    exchange(proxy, alice, get("/a"), 0, basic)
    exchange(proxy, proxy.client(), get("/a"), 0, reply(b"2"))
    assert status_of(proxy.client(get("/a", version="1.0")).transport.buffer or b"x 0 ") == 0


@pytest.mark.parametrize(
    ("value", "binds"),
    [
        (b"NTLM", True),
        (b"ntlm abc", True),
        (b"Negotiate abc=", True),
        (b"Kerberos", True),
        (b"Bearer ntlm", False),
        (b"", False),
        (b"Basic YWxpY2U6eA==", False),
        (b'Digest realm="x", nonce="NTLM"', False),
        (b"Basic, Negotiate", True),
    ],
)
def test_which_values_bind(value: bytes, binds: bool) -> None:
    assert names_binding_scheme(((b"authorization", value),), b"authorization") is binds
    assert not names_binding_scheme(((b"x", value),), b"authorization")
