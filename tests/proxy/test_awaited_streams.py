"""Event streams whose head comes late: known by what is accepted, and no way round the limit."""

from typing import Any

import pytest

from retter.base.errors import Outcome
from retter.breaker import Mode, State
from retter.proxy.awaited_streams import (
    CLIENT_CREDIT_MAX,
    CREDIT_MAX,
    DOUBT_S,
    NOT_AWAITED,
    ON_CREDIT,
    PROVEN,
    ROUTES_MAX,
    AwaitedStreams,
)
from retter.proxy.ticker import TICK_S
from tests.proxy.test_half_close import with_socket
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of
from tests.support.tracing import untraced

EVENTS = {"Accept": "text/event-stream"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def listener(proxy: FakeProxy, path: str = "/events", who: int = 7, accept: str = "") -> FakePeer:
    """Connect a client that asks for events."""
    headers = {"Accept": accept} if accept else EVENTS
    return proxy.client(get(path, headers=headers), (f"192.0.2.{who}", 50000))


def full(**settings: Any) -> FakeProxy:
    """A proxy whose application has as much to do as it may have, with a page that is stored."""
    proxy = FakeProxy(max_in_flight=1, limit_start=1, **settings)
    proxy.client(get("/known"))
    proxy.upstream.sends(reply(b"known"))
    proxy.client(get("/slow"))
    return proxy


# -- what it is worth ---------------------------------------------------------------------------


def test_a_stream_may_begin_late() -> None:
    """Neither the time limit of a first byte nor patience is for it."""
    proxy = FakeProxy(upstream_timeout_s=15)
    client = listener(proxy)
    proxy.advance(120)
    assert client.received() == b""
    proxy.upstream.sends(HEAD + b"data: 1\n\n")
    answer = client.received()
    assert (status_of(answer), field(answer, "X-Retter")) == (200, "backend")
    assert body_of(answer) == b"9\r\ndata: 1\n\n\r\n"
    client.ends()
    proxy.settle()
    proxy.assert_at_rest()


@untraced
def test_one_that_never_begins_ends_as_a_silent_stream_does() -> None:
    proxy = FakeProxy()
    client = listener(proxy)
    proxy.advance(3595)
    assert client.received() == b""
    proxy.advance(10)
    assert status_of(client.received()) == 504
    proxy.assert_at_rest()


def test_streams_that_are_awaited_take_nobodys_place() -> None:
    proxy = FakeProxy(max_in_flight=2, limit_start=2)
    for _ in range(24):
        listener(proxy)
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0
    for number in range(5):
        client = proxy.client(get(f"/new-{number}"))
        proxy.upstream.sends(reply(b"new"))
        assert body_of(client.received()) == b"new"
    assert proxy.services.breaker.circuit.state is State.CLOSED


def test_a_client_that_leaves_frees_the_application() -> None:
    proxy = FakeProxy()
    client = listener(proxy)
    upstream = proxy.upstream
    told = with_socket(client)
    client.ends()
    told.theirs.close()  # as when the first octet of the answer has been answered with a reset
    proxy.advance(TICK_S)
    told.close()
    assert upstream.closed
    proxy.assert_at_rest()
    assert judged(proxy) == ON_CREDIT


def test_who_awaits_a_stream_may_have_closed_its_sending_side() -> None:
    """Its requests after that one are answered, too, if the stream ends."""
    proxy = FakeProxy()
    client = proxy.client(get("/events", headers=EVENTS) + get("/next"))
    told = with_socket(client)
    client.ends()
    proxy.advance(1.0)
    proxy.upstream.sends(HEAD + b"data: 1\n\n")
    proxy.advance(1.0)
    proxy.upstream.ends()
    stream = client.received()
    assert stream.startswith(b"HTTP/1.1 200 ")
    assert body_of(stream) == b"9\r\ndata: 1\n\n\r\n0\r\n\r\n"
    proxy.upstream.sends(reply(b"next"))
    assert body_of(client.received()) == b"next" and client.closed
    told.close()
    proxy.settle()
    proxy.assert_at_rest()


def test_a_stream_that_has_begun_ends_with_its_client() -> None:
    proxy = FakeProxy()
    client = listener(proxy)
    proxy.upstream.sends(HEAD + b"data: 1\n\n")
    upstream = proxy.upstream
    client.ends()
    proxy.settle()
    assert upstream.closed
    proxy.assert_at_rest()


@pytest.mark.parametrize("mode", [Mode.OPEN, Mode.CLOSED])
def test_it_is_forwarded_in_every_state(mode: Mode) -> None:
    proxy = FakeProxy()
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, mode)
    client = listener(proxy)
    proxy.upstream.sends(HEAD)
    assert status_of(client.received()) == 200


def test_a_failure_of_one_is_told_as_it_is() -> None:
    proxy = FakeProxy()
    client = listener(proxy)
    proxy.upstream.resets()
    proxy.upstream.resets()
    assert status_of(client.received()) == 502
    proxy.assert_at_rest()
    assert judged(proxy) == ON_CREDIT


def test_a_post_may_ask_for_events_too() -> None:
    proxy = FakeProxy(upstream_timeout_s=15, upstream_timeout_unsafe_s=60)
    head = b"POST /chat HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n"
    client = proxy.client(head + b"Content-Length: 2\r\n\r\nhi")
    proxy.advance(120)
    proxy.upstream.sends(HEAD + b"data: 1\n\n")
    assert status_of(client.received()) == 200


# -- what asks for one --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "asks"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream ; charset=utf-8", True),
        ("text/event-stream;q=0.9", True),
        ("text/event-stream, */*", False),
        ("text/html, text/event-stream", False),
        ("application/json, text/event-stream", False),
        ("text/event-streams", False),
        ("text/*", False),
        ("*/*", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_accepts_something_else_too_asks_for_a_page(
    accept: str, asks: bool, method: str
) -> None:
    services = FakeProxy().services
    request = get(headers={"Accept": accept}).replace(b"GET", method.encode(), 1)
    parsed = services.heads.parse(request, False, services.heads.request_memos[False, b"http"])
    assert parsed.asks_events is (asks and method == "GET")
    assert parsed.identity.lookup is (method == "GET" and not asks)


def test_two_accept_lines_are_one_list() -> None:
    services = FakeProxy().services
    request = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAccept: */*\r\n\r\n"
    assert not services.heads.parse(
        request, False, services.heads.request_memos[False, b"http"]
    ).asks_events


# -- no way round the limit ---------------------------------------------------------------------


def judged(fake: FakeProxy, path: str = "/events") -> int:
    """Tell how a request for events would be taken now."""
    services = fake.services
    parsed = services.heads.parse(
        get(path, headers=EVENTS), False, services.heads.request_memos[False, b"http"]
    )
    return services.awaited_streams.judge(parsed.identity.route, 0, services.loop.time())


def test_an_ordinary_answer_ends_the_belief_in_its_route() -> None:
    """Requests for such pages wait in the queue like all others from then on."""
    proxy = full()
    client = listener(proxy, "/page")
    proxy.upstream.sends(reply(b"a page"))
    assert body_of(client.received()) == b"a page"
    client.sends(get("/page", headers=EVENTS))
    proxy.advance(1)
    assert client.received() == b""
    assert proxy.services.breaker.waiting == 1
    proxy.advance(2)
    assert field(client.received(), "Cache-Status") == "retter; fwd=miss; detail=queue-timeout"


def test_its_ordinary_answer_is_not_stored() -> None:
    proxy = FakeProxy()
    client = listener(proxy, "/page")
    proxy.upstream.sends(reply(b"a page"))
    client.received()
    assert proxy.services.store.stats()["entries"] == 0


def test_whoever_asks_for_ever_new_pages_like_that_uses_up_the_credit() -> None:
    """The first answers cost it; what comes then is limited as any page is."""
    proxy = full()
    believed = []
    for burst in "abc":
        opened = len(proxy.upstreams)
        clients = [listener(proxy, f"/{burst}/x{n}", who=n) for n in range(100, 200)]
        believed.append(len(proxy.upstreams) - opened)
        for upstream in proxy.upstreams[opened:]:
            upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        for client in clients:
            client.resets()
    assert believed == [CREDIT_MAX, 1, 1]


def test_a_route_that_streams_needs_no_credit() -> None:
    proxy = FakeProxy()
    first = listener(proxy)
    proxy.upstream.sends(HEAD)
    assert status_of(first.received()) == 200
    for number in range(2 * CREDIT_MAX):
        assert judged(proxy) == PROVEN
        listener(proxy, who=number % 5)
    assert proxy.services.breaker.snapshot(proxy.loop.now).in_flight == 0


# -- the judgement alone ------------------------------------------------------------------------


def begin(streams: AwaitedStreams, route: bytes, client: int, now: float = 0.0) -> int:
    """Judge a request for events, and count it."""
    how = streams.judge(route, client, now)
    if how:
        streams.begin(how, client)
    return how


def test_credit_is_for_so_many_at_a_time() -> None:
    streams = AwaitedStreams()
    begun = [begin(streams, b"/e", client) for client in range(1, CREDIT_MAX + 1)]
    assert begun == [ON_CREDIT] * CREDIT_MAX
    assert begin(streams, b"/e", 999) == NOT_AWAITED
    streams.end(ON_CREDIT, 1)
    assert begin(streams, b"/other", 999) == ON_CREDIT


def test_one_client_has_half_of_it() -> None:
    streams = AwaitedStreams()
    begun = [begin(streams, b"/e", 1) for _ in range(CREDIT_MAX)]
    assert begun.count(ON_CREDIT) == CLIENT_CREDIT_MAX
    assert begin(streams, b"/e", 2) == ON_CREDIT
    for _ in range(CLIENT_CREDIT_MAX):
        streams.end(ON_CREDIT, 1)
    streams.end(ON_CREDIT, 2)
    assert streams._by_client == {}


def test_credit_is_halved_and_comes_back() -> None:
    streams = AwaitedStreams()

    def credit(now: float) -> int:
        begun = 0
        while begin(streams, b"/e", 1000 + begun, now) == ON_CREDIT:
            begun += 1
        for number in range(begun):
            streams.end(ON_CREDIT, 1000 + number)
        return begun

    assert credit(0.0) == CREDIT_MAX
    streams.answered(b"/a", 200, Outcome.OK, 0.0, stream=False)
    assert credit(0.0) == CREDIT_MAX // 2
    for _ in range(20):
        streams.answered(b"/a", 200, Outcome.OK, 0.0, stream=False)
    assert credit(0.0) == 1
    assert credit(10.0) == 11
    assert credit(1000.0) == CREDIT_MAX


@pytest.mark.parametrize(
    ("status", "outcome", "doubted"),
    [
        (200, Outcome.OK, True),
        (302, Outcome.OK, True),
        (404, Outcome.OK, False),
        (204, Outcome.OK, False),
        (503, Outcome.OVERLOAD, False),
        (500, Outcome.ERROR, False),
        (429, Outcome.NEUTRAL, False),
    ],
)
def test_what_is_no_stream_and_no_failure_is_doubted(
    status: int, outcome: Outcome, doubted: bool
) -> None:
    streams = AwaitedStreams()
    streams.answered(b"/e", 200, Outcome.OK, 0.0, stream=True)
    assert streams.judge(b"/e", 1, 0.0) == PROVEN
    streams.answered(b"/e", status, outcome, 1.0, stream=False)
    assert streams.judge(b"/e", 1, 1.0) == (ON_CREDIT if doubted else PROVEN)
    assert streams.judge(b"/e", 1, 1.0 + DOUBT_S) == PROVEN


def test_what_does_not_exist_is_no_stream_where_none_is_known() -> None:
    streams = AwaitedStreams()
    streams.answered(b"/e", 404, Outcome.OK, 0.0, stream=False)
    assert streams.judge(b"/e", 1, 1.0) == NOT_AWAITED


def test_a_route_that_never_streamed_is_believed_again_after_a_while() -> None:
    streams = AwaitedStreams()
    streams.answered(b"/e", 200, Outcome.OK, 0.0, stream=False)
    assert streams.judge(b"/e", 1, DOUBT_S - 1) == NOT_AWAITED
    assert streams.judge(b"/e", 1, DOUBT_S) == ON_CREDIT


def test_what_is_remembered_is_bounded() -> None:
    streams = AwaitedStreams()
    for number in range(10 * ROUTES_MAX):
        streams.answered(b"/%d" % number, 200, Outcome.OK, 0.0, stream=number % 2 == 0)
    assert len(streams._streams) == len(streams._others) == ROUTES_MAX
