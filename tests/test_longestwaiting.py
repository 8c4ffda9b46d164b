"""Room for newcomers: the connection that has waited longest for its client goes first."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from retter.longestwaiting import AGAIN_S, FOUND_MAX, LongestWaiting
from tests.harness import FakePeer, FakeProxy, body_of, get, reply


class Connection:
    def __init__(self, since: float) -> None:
        self.since = since
        self.looked_at = 0

    def waits_since(self) -> float:
        self.looked_at += 1
        return self.since


def test_the_longest_waiting_first() -> None:
    order: LongestWaiting[Connection] = LongestWaiting()
    items = [Connection(since) for since in (3.0, inf, 1.0, 2.0)]
    taken = []
    while (item := order.take(items, 10.0)) is not None:
        taken.append(item.since)
        item.since = inf    # ended
    assert taken == [1.0, 2.0, 3.0]


def test_who_was_busy_in_the_meantime_is_not_taken() -> None:
    order: LongestWaiting[Connection] = LongestWaiting()
    first, second, third = items = [Connection(since) for since in (1.0, 2.0, 3.0)]
    assert order.take(items, 10.0) is first
    second.since = 9.0      # has had a request
    assert order.take(items, 10.0) is third
    assert order.take(items, 10.0) is None
    assert order.take(items, 10.0 + AGAIN_S) is first


def test_where_all_are_busy_nobody_is_looked_at_twice_in_a_row() -> None:
    order: LongestWaiting[Connection] = LongestWaiting()
    items = [Connection(inf) for _ in range(100)]
    for _ in range(1000):
        assert order.take(items, 10.0) is None
    assert sum(item.looked_at for item in items) == 100
    assert order.take(items, 10.0 + AGAIN_S) is None
    assert sum(item.looked_at for item in items) == 200


def test_one_look_serves_many_newcomers() -> None:
    order: LongestWaiting[Connection] = LongestWaiting()
    items = [Connection(float(n)) for n in range(10 * FOUND_MAX)]
    for n in range(2 * FOUND_MAX):
        item = order.take(items, 1e6)
        assert item is items[n]
        item.since = inf
    assert sum(item.looked_at for item in items) < 2 * len(items) + 3 * FOUND_MAX


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
    order: LongestWaiting[Connection] = LongestWaiting()
    items = [Connection(float(n)) for n in range(10)]
    now = 10.0
    for what, n in steps:
        now += AGAIN_S
        if what == "new":
            taken = order.take(items, now)
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


def test_slow_heads_make_room_and_busy_connections_do_not() -> None:
    proxy = FakeProxy(connections_max=3, circuit="observe")
    busy = proxy.client(get())
    uploads = proxy.client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
    drips = proxy.client(b"GET / HTTP/1.1\r\nHo")
    proxy.advance(1)
    newcomer = proxy.client(get("/new"))
    assert drips.transport.aborted
    refused = proxy.client(get())
    assert refused.transport.aborted
    assert not any(client.closed for client in (busy, uploads, newcomer))
    stats = proxy.proxy.stats()["connections"]
    assert (stats["open"], stats["evicted"], stats["refused"]) == (3, 1, 1)


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
    proxy.proxy.descriptors_max = 4
    idle = proxy.client(get())
    proxy.upstream.sends(reply(b"ok"))      # one connection each side
    busy = proxy.client(get())              # takes the pooled one
    assert (proxy.proxy.stats()["upstream"]["open"], idle.closed) == (1, False)
    more = proxy.client(get())
    assert not more.closed                  # 3 + 2: over the limit, which the next one feels
    assert proxy.client().transport.closing is False
    assert idle.transport.aborted and not busy.closed


def test_who_makes_room_for_its_own_address_is_not_counted_any_more() -> None:
    proxy = FakeProxy(connections_max=1, connections_per_address_max=2)
    for _ in range(5):
        client = proxy.client()
        assert not client.closed
        proxy.advance(1.0)
    assert proxy.proxy._per_address == {"192.0.2.7": 1}
