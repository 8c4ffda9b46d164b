"""Recovery without visitors: a page that failed is asked for again, by nobody, without a cookie."""

from retter.breaker import State
from tests.support.harness import FakeProxy, body_of, get, reply

COOKIE = {"Cookie": "_ga=GA1.2.3", "Accept": "text/html", "User-Agent": "a browser"}


def opened() -> FakeProxy:
    """Return a proxy that has a stored page, and a circuit that five failures have opened."""
    proxy = FakeProxy()
    client = proxy.client(get("/page", headers=COOKIE))
    proxy.upstream.received()
    proxy.upstream.sends(reply(b"good"))
    proxy.advance(3.0)
    for _ in range(5):
        client.sends(get("/page", headers=COOKIE))
        proxy.upstream.sends(reply(b"bad", status="500 Internal Server Error"))
    assert body_of(client.received()).endswith(b"good")
    assert proxy.services.breaker.circuit.state is State.OPEN
    proxy.upstream.received()
    proxy.advance(0.5)
    return proxy


def asked(proxy: FakeProxy, seconds: float) -> bytes:
    """Let time pass, and return what RETTER asks meanwhile."""
    proxy.advance(seconds)
    return b"".join(upstream.received() for upstream in proxy.upstreams)


def test_the_page_that_failed_is_asked_for_again_and_again_until_all_is_well() -> None:
    """At the probes' pace, with nothing that tells a visitor."""
    proxy = opened()
    assert asked(proxy, 0.4) == b"", "a visitor would still come first"
    request = asked(proxy, 0.7)
    assert request.startswith(b"GET /page HTTP/1.1\r\nHost: shop.example\r\naccept: text/html\r\n")
    assert b"_ga" not in request
    assert b"browser" not in request
    assert b"X-Forwarded-For: 127.0.0.1\r\n" in request
    proxy.upstream.sends(reply(b"bad", status="500 Internal Server Error"))
    assert asked(proxy, 1.0) == b"", "the wait grows"
    assert asked(proxy, 1.5).startswith(b"GET /page ")
    proxy.upstream.sends(reply(b"better"))
    assert proxy.services.breaker.circuit.state is State.HALF_OPEN
    for _ in range(10):
        assert asked(proxy, 1.1).count(b"GET /page ") == 1
        proxy.upstream.sends(reply(b"better"))
    assert proxy.services.breaker.circuit.state is not State.HALF_OPEN
    assert asked(proxy, 5.0) == b""
    assert proxy.services.breaker.circuit.state is State.CLOSED
    proxy.assert_at_rest()
    proxy.client(get("/page", headers=COOKIE))
    assert asked(proxy, 0.0).count(b"GET /page ") == 1


def test_what_this_machine_is_shown_is_stored_for_nobody() -> None:
    proxy = opened()
    assert asked(proxy, 1.1).startswith(b"GET /page ")
    proxy.upstream.sends(reply(b"for administrators"))
    assert proxy.services.breaker.circuit.state is State.HALF_OPEN
    client = proxy.client(get("/page", headers={"Accept": "text/html"}))
    if not (answer := client.received()):
        proxy.upstream.sends(reply(b"bad", status="500 Internal Server Error"))
        answer = client.received()
    assert body_of(answer) == b"good"


def test_a_visitor_is_the_probe_where_one_comes() -> None:
    """Then nothing is asked but for them."""
    proxy = opened()
    proxy.advance(0.6)
    client = proxy.client(get("/page", headers=COOKIE))
    request = asked(proxy, 0.4)
    assert request.count(b"GET ") == 1
    assert b"browser" in request
    proxy.upstream.sends(reply(b"better"))
    assert body_of(client.received()) == b"better"


def test_who_waits_is_the_probe_as_soon_as_one_is_due() -> None:
    """Not only the next request may be the probe."""
    proxy = opened()
    client = proxy.client(get("/new"))
    assert client.received() == b""
    request = asked(proxy, 0.6)
    assert request.startswith(b"GET /new ")
    proxy.upstream.sends(reply(b"new"))
    assert body_of(client.received()) == b"new"


def test_nothing_is_asked_that_nobody_has_stored_in_public() -> None:
    """Failures of pages that are somebody's own, or were never stored, name no page."""
    proxy = FakeProxy()
    session = {"Cookie": "PHPSESSID=0123456789abcdef0123456789abcdef"}
    for _ in range(5):
        proxy.client(get("/account", headers=session))
        proxy.upstream.sends(reply(b"bad", status="500 Internal Server Error"))
    assert proxy.services.breaker.circuit.state is State.OPEN
    for upstream in proxy.upstreams:
        upstream.received()
    assert asked(proxy, 10.0) == b""


def test_a_refused_probe_is_asked_again_and_its_answer_ends_with_it() -> None:
    """No client waits for it, and nothing is left of it."""
    proxy = opened()
    for upstream in proxy.upstreams:
        upstream.ends()
    proxy.auto_accept = False
    proxy.advance(1.1)
    assert len(proxy.dialled) == 1
    proxy.refuse()
    proxy.advance(1.6)
    assert len(proxy.dialled) == 1
    proxy.accept()
    assert asked(proxy, 0.0).startswith(b"GET /page ")
    proxy.upstream.resets()
    proxy.assert_at_rest()
    assert proxy.services.breaker.circuit.state is State.OPEN
