"""HEAD is always forwarded; where the application fails it, the stored head is the answer."""

from typing import Any

import pytest

from retter.base.errors import ConnectRefused, ConnectTimeout, UpstreamError
from retter.breaker import Kind, Mode
from retter.proxy.goodness import BELIEVED_AFTER
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of


def head(path: str = "/", headers: dict[str, str] | None = None) -> bytes:
    """Return a HEAD as a monitor would send it."""
    return get(path, headers=headers).replace(b"GET", b"HEAD", 1)


def warmed(headers: dict[str, str] | None = None, **settings: Any) -> FakeProxy:
    """A proxy with a stored response to GET /."""
    proxy = FakeProxy(**settings)
    client = proxy.client(get(headers=headers))
    said = {"ETag": '"1"', "Content-Type": "text/html", "X-Page": "yes"}
    proxy.upstream.sends(reply(b"the page", headers=said))
    client.received()
    proxy.upstream.received()
    return proxy


STORED = (
    b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Type: text/html\r\nX-Page: yes\r\n'
    b"Via: 1.1 retter\r\nContent-Length: 8\r\nAge: 0\r\n"
    b"Cache-Status: retter; hit; detail=%b\r\nX-Retter: cache\r\nX-Circuit: CLOSED\r\n\r\n"
)


@pytest.mark.parametrize("mode", [Mode.AUTO, Mode.OPEN])
def test_a_working_application_answers_it(mode: Mode) -> None:
    """Whatever is stored, and whatever the circuit's state."""
    proxy = warmed()
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, mode)
    client = proxy.client(head())
    assert proxy.upstream.received().startswith(b"HEAD / HTTP/1.1\r\n")
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 777\r\n\r\n")
    assert field(client.received(), "Content-Length") == "777"
    proxy.assert_at_rest()


def broken(proxy: FakeProxy) -> None:
    proxy.upstream.sends(b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\n")


def reset(proxy: FakeProxy) -> None:
    proxy.upstream.resets()
    proxy.upstream.resets()  # the retry on a fresh connection


def malformed(proxy: FakeProxy) -> None:
    proxy.upstream.sends(b"HTTP/1.1 200\nOK\r\n\r\n")


def silent(proxy: FakeProxy) -> None:
    proxy.advance(16)


FAULTS = {
    "upstream-status": broken, "upstream-reset": reset, "upstream-malformed": malformed,
    "upstream-timeout": silent,
}  # fmt: skip


@pytest.mark.parametrize("reason", FAULTS)
def test_where_it_fails_the_stored_head_is_the_answer(reason: str) -> None:
    proxy = warmed()
    client = proxy.client(head())
    FAULTS[reason](proxy)
    answer = client.received()
    age = field(answer, "Age")
    assert answer.replace(b"Age: %b" % (age or "").encode(), b"Age: 0") == STORED % reason.encode()
    proxy.assert_at_rest()


@pytest.mark.parametrize("error", [ConnectRefused("refused"), ConnectTimeout("late")])
def test_without_a_connection_it_is_not_held_on_to(error: UpstreamError) -> None:
    proxy = warmed(pool_idle_s=1)
    proxy.advance(2)
    proxy.settle()
    proxy.auto_accept = False
    client = proxy.client(head())
    proxy.refuse(error)
    answer = client.received()
    assert status_of(answer) == 200
    assert field(answer, "Cache-Status") == f"retter; hit; detail={error.reason}"


def test_it_is_answered_as_a_get_with_the_same_fields_would_be() -> None:
    """The next request on the connection is not taken for a body."""
    proxy = warmed()
    client = proxy.client(head() + get("/next"))
    broken(proxy)
    proxy.upstream.sends(reply(b"next"))
    first, _, rest = client.received().partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200 OK")
    assert rest.startswith(b"HTTP/1.1 200 OK")
    assert body_of(rest) == b"next"


def test_its_conditions_count_and_a_range_does_not() -> None:
    proxy = warmed()
    client = proxy.client(head(headers={"If-None-Match": '"1"'}))
    broken(proxy)
    assert status_of(client.received()) == 304
    client.sends(head(headers={"Range": "bytes=0-1"}))
    broken(proxy)
    answer = client.received()
    assert (status_of(answer), field(answer, "Content-Length")) == (200, "8")


def test_what_is_somebody_elses_is_not_told() -> None:
    proxy = warmed({"Cookie": "PHPSESSID=abcdefghijklmnopqrstuvwxyz"})
    client = proxy.client(head(headers={"Cookie": "PHPSESSID=zyxwvutsrqponmlkjihgfedcba"}))
    broken(proxy)
    assert status_of(client.received()) == 500


def test_without_a_stored_response_the_failure_is_the_answer() -> None:
    proxy = warmed()
    client = proxy.client(head("/other"))
    broken(proxy)
    assert (status_of(answer := client.received()), body_of(answer)) == (500, b"")


@pytest.mark.parametrize("method", [b"POST", b"OPTIONS", b"DELETE"])
def test_other_methods_get_the_failure(method: bytes) -> None:
    proxy = warmed()
    client = proxy.client(method + b" / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    proxy.upstream.sends(reply(b"error", status="500 Oops"))
    assert status_of(client.received()) == 500


# -- --limit-head ---------------------------------------------------------------------------------


def ask_with_full_circuit(proxy: FakeProxy, request: bytes) -> FakePeer:
    """Let a request come while the application has as much to do as it may have."""
    proxy.client(get("/slow"))
    return proxy.client(request)


@pytest.mark.parametrize("limited", [False, True])
def test_it_is_shed_if_that_is_asked_for(limited: bool) -> None:
    proxy = warmed(max_in_flight=1, limit_start=1, limit_head=limited)
    client = ask_with_full_circuit(proxy, head())
    proxy.advance(0.3)
    answer = client.received()
    if limited:
        assert field(answer, "X-Retter") == "cache"
        assert body_of(answer) == b""
    else:
        assert answer == b""
        assert proxy.upstream.received().startswith(b"HEAD")


def test_limited_it_loses_its_patience_too() -> None:
    proxy = warmed(limit_head=True, patience_closed_s=1, patience_max_s=1)
    client = proxy.client(head())
    proxy.advance(5.2)
    assert field(client.received(), "Cache-Status") == "retter; hit; detail=patience"


def test_limited_it_counts_on_the_route_of_the_get() -> None:
    services = FakeProxy(limit_head=True).services
    memo = services.heads.request_memos[False, b"http"]
    parsed = [services.heads.parse(request, False, memo) for request in (get("/a"), head("/a"))]
    assert {one.kind for one in parsed} == {Kind.GET}
    assert len({one.identity.route for one in parsed}) == 1
    assert not parsed[1].identity.store


def test_limited_its_own_answer_is_never_stored() -> None:
    proxy = warmed(limit_head=True)
    client = proxy.client(head())
    proxy.upstream.sends(reply(b"", headers={"X-Of": "head"}))
    client.received()
    client.sends(get())
    proxy.upstream.sends(reply(b"", status="500 Oops"))
    assert body_of(client.received()) == b"the page"


@pytest.mark.parametrize("limited", [False, True])
def test_it_lends_no_belief_to_an_empty_answer_that_follows(limited: bool) -> None:
    proxy = warmed(limit_head=limited)
    for _ in range(BELIEVED_AFTER - 1):
        proxy.client(head())
        proxy.upstream.sends(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        proxy.advance(1)
    assert not proxy.services.goodness.torsos
    proxy.client(get())
    proxy.upstream.sends(reply(b""))
    client = proxy.client(get())
    proxy.upstream.sends(reply(b"", status="500 Oops"))
    assert body_of(client.received()) == b"the page"
