"""Room for newcomers: the connection that has waited longest for its client goes first."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.proxy.eviction import AGAIN_S_PER_ITEM, FOUND_MAX, FRESH_S, LongestWaiting
from tests.support.harness import FakePeer, FakeProxy, body_of, get, reply


class Connection:
    def __init__(self, since: float, *, crowd: bool = False) -> None:
        self.since = since
        self.group = "crowd" if crowd else ""
        self.looked_at = 0

    def waits_since(self) -> float:
        self.looked_at += 1
        return self.since


class Order(LongestWaiting[Connection]):
    """The order, where it is known whose connections are a crowd."""

    __slots__ = ()

    def next(self, items: list[Connection], now: float) -> Connection | None:
        return self.take(items, now, lambda: {"crowd"})


def test_the_longest_waiting_first() -> None:
    order = Order()
    items = [Connection(since) for since in (3.0, inf, 1.0, 2.0)]
    taken = []
    while (item := order.next(items, 10.0)) is not None:
        taken.append(item.since)
        item.since = inf  # ended
    assert taken == [1.0, 2.0, 3.0]


def test_a_crowd_goes_first() -> None:
    order = Order()
    items = [
        Connection(1.0), Connection(9.0, crowd=True), Connection(2.0), Connection(inf, crowd=True),
        Connection(7.0, crowd=True), Connection(0.5),
    ]  # fmt: skip
    taken = []
    while (item := order.next(items, 10.0)) is not None:
        taken.append(item.since)
        item.since = inf  # ended
    assert taken == [7.0, 9.0, 0.5, 1.0, 2.0]


def test_who_was_busy_in_the_meantime_is_not_taken() -> None:
    order = Order()
    first, second, third = items = [Connection(since) for since in (1.0, 2.0, 3.0)]
    assert order.next(items, 10.0) is first
    second.since = 9.0  # has had a request
    assert order.next(items, 10.0) is third
    assert order.next(items, 10.0) is None
    assert order.next(items, 10.1) is first


def test_where_all_are_busy_nobody_is_looked_at_twice_in_a_row() -> None:
    order = Order()
    items = [Connection(inf) for _ in range(100)]
    for _ in range(1000):
        assert order.next(items, 10.0) is None
    assert sum(item.looked_at for item in items) == 100
    assert order.next(items, 10.0 + 100 * AGAIN_S_PER_ITEM) is None
    assert sum(item.looked_at for item in items) == 200


def test_one_look_serves_many_newcomers() -> None:
    order = Order()
    items = [Connection(float(n)) for n in range(10 * FOUND_MAX)]
    for n in range(2 * FOUND_MAX):
        item = order.next(items, 1e6)
        assert item is items[n]
        item.since = inf
    assert sum(item.looked_at for item in items) < 2 * len(items) + 3 * FOUND_MAX


def test_a_crowd_that_grows_is_noticed() -> None:
    order = Order()
    items = [Connection(float(n)) for n in range(20)]
    assert order.next(items, 100.0) is items[0]
    items[0] = Connection(100.0, crowd=True)
    assert order.next(items, 100.1) is items[1], "nobody is looked at for each newcomer"
    assert order.next(items, 100.0 + FRESH_S) is items[0]
    # From then on whenever those found are used up.
    for n in range(10):
        items[0] = Connection(102.0 + n, crowd=True)
        assert order.next(items, 103.0 + n / 100) is items[0]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("new"), st.just(0)),
            st.tuples(st.sampled_from(["busy", "waits"]), st.integers(0, 9)),
        ),
        max_size=60,
    )
)
def test_it_is_always_one_that_has_waited_longest(steps: list[tuple[str, int]]) -> None:
    order = Order()
    items = [Connection(float(n)) for n in range(10)]
    now = 10.0
    for what, n in steps:
        now += 0.1
        if what == "new":
            taken = order.next(items, now)
            assert (inf if taken is None else taken.since) == min(item.since for item in items)
            if taken is not None:
                items[items.index(taken)] = Connection(now)
        else:
            items[n].since = inf if what == "busy" else now


# -- in the proxy -----------------------------------------------------------------------------


def served(proxy: FakeProxy) -> FakePeer:
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"ok"))
    assert body_of(client.received()) == b"ok"
    proxy.advance(0.5)
    return client


def test_newcomers_take_the_places_of_idle_connections() -> None:
    proxy = FakeProxy(connections_max=3, circuit="observe")
    first, second, third = served(proxy), served(proxy), served(proxy)
    first.sends(get("/again"))
    proxy.upstream.sends(reply(b"ok"))
    assert not any(client.closed for client in (first, second, third))
    fourth = served(proxy)
    assert second.transport.aborted
    assert not any(client.closed for client in (first, third, fourth))
    stats = proxy.proxy.stats()["connections"]
    assert (stats["open"], stats["evicted"], stats["refused"]) == (3, 1, 0)


def post(announced: int, sent: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (announced, sent)


def test_slow_heads_and_bodies_make_room_and_busy_connections_do_not() -> None:
    proxy = FakeProxy(connections_max=3, circuit="observe")
    busy = proxy.client(get())
    drips = proxy.client(b"GET / HTTP/1.1\r\nHo")
    proxy.advance(1)
    uploads = proxy.client(post(5, b"ab"))
    newcomer = proxy.client(get("/new"))
    assert drips.transport.aborted and not uploads.closed
    another = proxy.client(get())
    assert uploads.transport.aborted
    refused = proxy.client(get())
    assert refused.transport.aborted
    assert not any(client.closed for client in (busy, newcomer, another))
    stats = proxy.proxy.stats()["connections"]
    assert (stats["open"], stats["evicted"], stats["refused"]) == (3, 2, 1)


@pytest.mark.parametrize("buffer_bytes", [0, 1024])
def test_bodies_that_do_not_come_make_room_and_leave_nothing_behind(buffer_bytes: int) -> None:
    """The one that has been silent for longest goes, and the application is told so."""
    proxy = FakeProxy(connections_max=3, circuit="observe", buffer_request_bytes=buffer_bytes)
    clients = []
    for _ in range(3):
        clients.append(proxy.client(post(100, b"x")))
        proxy.advance(1)
    clients[0].sends(b"more")
    proxy.advance(0.1)
    newcomer = proxy.client(get("/new"))
    assert [client.closed for client in clients] == [False, True, False]
    proxy.upstream.sends(reply(b"ok"))
    assert body_of(newcomer.received()) == b"ok"
    for client in (clients[0], clients[2], newcomer):
        client.resets()
    proxy.settle()
    proxy.assert_at_rest()


def test_who_has_sent_all_of_its_body_has_done_its_part() -> None:
    proxy = FakeProxy(connections_max=1, circuit="observe")
    proxy.client(post(2, b"ab"))
    proxy.advance(5)
    assert proxy.client().closed


def test_a_body_that_is_not_read_on_is_not_late() -> None:
    proxy = FakeProxy(connections_max=1, circuit="observe", buffer_request_bytes=0)
    uploads = proxy.client(post(1000, b"ab"))
    proxy.upstream.blocks()
    proxy.advance(5)
    assert proxy.client().closed and not uploads.closed
    proxy.upstream.unblocks()
    proxy.advance(0.1)
    assert not proxy.client().closed and uploads.closed


def test_an_answer_that_is_not_taken_makes_room_and_one_that_is_does_not() -> None:
    proxy = FakeProxy(connections_max=2, circuit="observe")
    takes, stalls = proxy.client(get("/a")), proxy.client(get("/b"))
    for client in (takes, stalls):
        client.transport.unsent = 1000
        client.blocks()
    proxy.advance(1)
    takes.transport.unsent = 900
    assert not proxy.client().closed
    assert stalls.transport.aborted and not takes.closed


def test_one_address_that_takes_all_places_drives_itself_out() -> None:
    """However often it comes, and although all others have waited for longer."""
    proxy = FakeProxy(connections_max=10, circuit="observe")
    visitors = [proxy.client(peername=(f"192.0.2.{n}", 1)) for n in range(2)]
    for client in visitors:
        client.sends(get())
        proxy.upstream.sends(reply(b"ok"))
    proxy.advance(1)
    newcomers = []
    for n in range(100):
        proxy.client(post(100), peername=("198.51.100.1", n))
        if n % 17 == 16:
            newcomers.append(proxy.client(get(), peername=(f"203.0.113.{n}", 1)))
        proxy.loop.now += 0.001
    assert not any(client.closed for client in (*visitors, *newcomers))
    assert len(newcomers) == 5 and proxy.services.clients.per_address["198.51.100.1"] == 3


def test_all_addresses_of_one_ipv6_network_are_one_client() -> None:
    """Whoever has one of them has 2**64: no limit for an address alone would hold."""
    proxy = FakeProxy(connections_max=10, circuit="observe")
    visitors = [proxy.client(get(), peername=(f"2001:db8:0:{n}::1", 1)) for n in range(2)]
    for _ in visitors:
        proxy.upstream.sends(reply(b"ok"))
    proxy.advance(1)
    for n in range(100):
        proxy.client(post(100), peername=(f"2001:db8:1:1::{n:x}", 1))
        proxy.loop.now += 0.001
    assert not any(client.closed for client in visitors)
    assert proxy.services.clients.per_address["2001:db8:1:1::/64"] == 8


@pytest.mark.parametrize("proxied", [False, True])
def test_a_limit_for_an_address_is_one_for_an_ipv6_network(proxied: bool) -> None:
    proxy = FakeProxy(connections_per_address_max=2, trusted_proxies="2001:db8:9::/48")

    def client(address: str) -> FakePeer:
        if proxied:
            header = f"PROXY TCP6 {address} 2001:db8::9 1 80\r\n".encode()
            return proxy.client(header, proxied=True)
        return proxy.client(peername=(address, 1, 0, 0))

    few = [client("2001:db8::1"), client("2001:db8::2")]
    assert client("2001:db8::ffff:1").closed
    assert not client("2001:db8:0:1::1").closed and not any(one.closed for one in few)
    assert not any(client(f"2001:db8:9::{n}").closed for n in range(4)), "a trusted proxy"
    for one in few:
        one.resets()
    proxy.settle()
    assert not client("2001:db8::ffff:1").closed


def test_a_trusted_proxy_is_no_crowd() -> None:
    proxy = FakeProxy(connections_max=8, circuit="observe", trusted_proxies="10.0.0.0/8")
    first = proxy.client(peername=("192.0.2.1", 1))
    proxy.advance(0.1)
    balancer = [proxy.client(peername=("10.0.0.1", n)) for n in range(7)]
    proxy.advance(0.1)
    assert not proxy.client(peername=("192.0.2.2", 1)).closed
    assert first.closed and not any(client.closed for client in balancer)


def test_an_address_over_its_limit_drives_nobody_out() -> None:
    proxy = FakeProxy(connections_max=2, connections_per_address_max=1)
    one = proxy.client(peername=("192.0.2.1", 1))
    proxy.advance(0.1)
    two = proxy.client(peername=("192.0.2.2", 1))
    assert proxy.client(peername=("192.0.2.1", 2)).closed
    assert not one.closed and not two.closed
    assert not proxy.client(peername=("192.0.2.3", 1)).closed
    assert one.closed
    proxy.advance(0.1)
    assert not proxy.client(peername="").closed, "a Unix socket's clients have no address"
    assert not proxy.client(peername="").closed


def test_a_trusted_proxy_speaks_for_many() -> None:
    proxy = FakeProxy(connections_per_address_max=1, trusted_proxies="10.0.0.0/8")
    assert not any(proxy.client(peername=("10.1.1.1", n)).closed for n in range(3))
    proxy.client(peername=("192.0.2.1", 1))
    assert proxy.client(peername=("192.0.2.1", 2)).closed


def test_descriptors_are_shared_with_the_application() -> None:
    proxy = FakeProxy(circuit="observe")
    proxy.services.clients.descriptors_max = 4
    idle = proxy.client(get())
    proxy.upstream.sends(reply(b"ok"))  # one connection each side
    busy = proxy.client(get())  # takes the pooled one
    assert (proxy.proxy.stats()["upstream"]["open"], idle.closed) == (1, False)
    more = proxy.client(get())
    assert not more.closed  # 3 + 2: over the limit, which the next one feels
    assert proxy.client().transport.closing is False
    assert idle.transport.aborted and not busy.closed


def test_who_makes_room_for_its_own_address_is_not_counted_any_more() -> None:
    proxy = FakeProxy(connections_max=1, connections_per_address_max=2)
    for _ in range(5):
        client = proxy.client()
        assert not client.closed
        proxy.advance(1.0)
    assert proxy.services.clients.per_address == {"192.0.2.7": 1}
