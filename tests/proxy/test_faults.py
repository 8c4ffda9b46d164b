"""Faults of our own, and lack of memory: one request ends, and nobody else waits for ever."""

import gzip
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from retter.proxy.exchange import Exchange
from tests.support.compiled import replaces_parts
from tests.support.exchanges import POST
from tests.support.harness import FakeProxy, body_of, get, reply, status_of

pytestmark = replaces_parts


class Once:
    """Fails when it is called first, and then does what is in its place otherwise."""

    def __init__(self, usual: Callable[..., Any]) -> None:
        self._usual = usual
        self.failed = False

    def __call__(self, *args: Any, **how: Any) -> Any:
        if not self.failed:
            self.failed = True
            raise MemoryError
        return self._usual(*args, **how)


def fails_once(patch: pytest.MonkeyPatch, where: Any, name: str) -> Once:
    """Let a function of a module or a method of an object fail once."""
    once = Once(getattr(where, name))
    patch.setattr(where, name, once)
    return once


def proxy_with_faults(**settings: Any) -> FakeProxy:
    proxy = FakeProxy(**settings)
    proxy.loop.takes_reports = True
    return proxy


class Far:
    """Where one page is looked for."""

    def __init__(self) -> None:
        self.came: list[Callable[[dict[bytes, Any]], None]] = []

    def wants(self, keys: list[bytes]) -> list[bytes]:
        return [] if self.came else keys

    def load(self, _: list[bytes], came: Callable[[dict[bytes, Any]], None]) -> None:
        self.came.append(came)

    def tick(self, _: float) -> None:
        pass


def serves_on(proxy: FakeProxy) -> None:
    """Everything ends, and another client is served."""
    proxy.settle()
    proxy.services.access_log = None
    client = proxy.client(get("/afterwards"))
    proxy.upstream.sends(reply(b"fine"))
    assert body_of(client.received()) == b"fine"
    proxy.assert_at_rest()
    assert proxy.services.breaker.circuit.limit.in_flight == 0


def test_a_request_that_was_read_ahead_and_cannot_begin_ends_its_client_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from retter.proxy import client_requests

    proxy = proxy_with_faults()
    client = proxy.client(get("/1") + get("/2"))
    fails_once(monkeypatch, client_requests, "begin")
    proxy.upstream.sends(reply(b"one"))
    assert body_of(client.received()) == b"one"
    assert client.closed
    assert not proxy.upstream.closed, "it has nothing to do with this"
    assert [type(error) for error in proxy.loop.reported] == [MemoryError]
    serves_on(proxy)


def test_nor_does_a_client_wait_that_let_others_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    from retter.proxy import client_requests

    proxy = proxy_with_faults(pipeline_max=1)
    proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"stored"))
    proxy.services.breaker.circuit.pause(proxy.loop.now, proxy.loop.now + 5)
    client = proxy.client(2 * get("/page"))
    assert client.received().count(b"stored") == 1
    fails_once(monkeypatch, client_requests, "begin")
    proxy.settle()
    assert client.closed
    proxy.advance(6)
    serves_on(proxy)


def test_the_memory_of_a_body_whose_request_cannot_begin_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from retter.breaker.breaker import CircuitBreaker

    proxy = proxy_with_faults()
    client = proxy.client()
    with monkeypatch.context() as patch:
        fails_once(patch, CircuitBreaker, "start_at_once")
        with pytest.raises(MemoryError):
            client.sends(POST)
    client.transport.lose()
    serves_on(proxy)


@pytest.mark.parametrize("fails", ["to decide", "to make it", "to count it"])
def test_a_stream_that_cannot_begin_is_not_awaited(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retter.breaker.breaker import CircuitBreaker
    from retter.proxy.awaited_streams import CLIENT_CREDIT_MAX, AwaitedStreams

    where, name = {
        "to decide": (CircuitBreaker, "start_at_once"),
        "to make it": (Exchange, "__init__"),
        "to count it": (AwaitedStreams, "begin"),
    }[fails]
    proxy = proxy_with_faults()
    for _ in range(CLIENT_CREDIT_MAX):
        client = proxy.client()
        with monkeypatch.context() as patch:
            fails_once(patch, where, name)
            with pytest.raises(MemoryError):
                client.sends(get("/events", headers={"Accept": "text/event-stream"}))
        client.transport.lose()
    proxy.client(get("/events", headers={"Accept": "text/event-stream"}))
    assert proxy.proxy.stats()["streams"] == 1, "it is believed"


def test_a_request_that_ends_as_it_begins_lets_one_follow_and_not_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy, far = proxy_with_faults(circuit="open"), Far()
    fake: Any = far
    proxy.services.far = fake
    client = proxy.client(get("/1") + get("/2") + get("/3"))
    fails_once(monkeypatch, proxy.services.pool, "_dial_soon")
    far.came[0]({})
    assert status_of(client.received()) == 500
    assert len(proxy.upstreams) == 1, "one after the other"
    proxy.upstream.sends(reply(b"two"))
    assert b"GET /3 " in proxy.upstream.received()
    proxy.upstream.sends(reply(b"three"))
    assert client.received().partition(b"three")[0].count(b"two") == 1
    proxy.services.far = None
    serves_on(proxy)


@pytest.mark.parametrize("ends", ["by its end", "by its loss"])
def test_a_fault_at_the_end_of_a_response_without_a_length(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retter.proxy import delivery

    proxy = proxy_with_faults()
    client = proxy.client(get("/page"))
    proxy.upstream.sends(b"HTTP/1.1 200 OK\r\n\r\nhello")
    fails_once(monkeypatch, delivery, "judge")
    upstream = proxy.upstream
    end = upstream.ends if ends == "by its end" else upstream.transport.lose
    with pytest.raises(MemoryError):
        end()
    assert client.transport.aborted, "it has a part of it"
    serves_on(proxy)


@pytest.mark.parametrize("what", ["a reset", "no response"])
def test_a_fault_about_a_failure(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from retter.proxy import exchange

    proxy = proxy_with_faults()
    client = proxy.client(get("/page"))
    fails_once(monkeypatch, exchange, "learn_of_failure")
    upstream = proxy.upstream
    fail = upstream.resets if what == "a reset" else partial(upstream.sends, b"garbage\r\n\r\n")
    with pytest.raises(MemoryError):
        fail()
    assert status_of(client.received()) == 500
    serves_on(proxy)


def test_who_waits_for_a_decoded_response_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from retter.proxy import local_answers

    proxy = proxy_with_faults()
    body = gzip.compress(random.Random(1).randbytes(8000))
    proxy.client(get("/page", headers={"Accept-Encoding": "gzip"}))
    proxy.upstream.sends(reply(body, headers={"Content-Encoding": "gzip"}))
    proxy.services.breaker.circuit.pause(proxy.loop.now, proxy.loop.now + 5)
    client = proxy.client(get("/page"))
    assert client.received() == b""
    fails_once(monkeypatch, local_answers, "answer_from_store")
    with pytest.raises(MemoryError):
        proxy.workers.work()
    assert client.closed
    proxy.advance(6)
    serves_on(proxy)


@pytest.mark.parametrize("what", ["to copy it", "to begin"])
def test_who_waits_for_a_look_at_other_boxes_is_let_go(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retter.proxy import client_connection

    proxy, far = proxy_with_faults(circuit="open"), Far()
    fake: Any = far
    proxy.services.far = fake
    client = proxy.client(get("/page"))
    found: dict[bytes, Any] = {}
    if what == "to copy it":
        found = {b"*shop.example/page": None}
    else:
        fails_once(monkeypatch, client_connection, "begin")
    with pytest.raises((MemoryError, AttributeError)):
        far.came[0](found)
    if what == "to copy it":
        proxy.upstream.sends(reply(b"from the application"))
        assert body_of(client.received()) == b"from the application"
    else:
        assert client.closed
    proxy.services.far = None
    serves_on(proxy)


def test_a_line_of_the_log_that_cannot_be_written_is_no_reason_for_a_second_response() -> None:
    class Log:
        def clock(self) -> float:
            return 0.0

        def add(self, *_: object) -> None:
            raise MemoryError

    proxy = proxy_with_faults()
    log: Any = Log()
    proxy.services.access_log = log
    client = proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"once"))
    assert client.received().count(b"HTTP/1.1") == 1
    assert [type(error) for error in proxy.loop.reported] == [MemoryError]
    serves_on(proxy)


def test_a_fault_of_one_stream_does_not_spare_the_others_their_time_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from retter.proxy import tunnel

    monkeypatch.setattr(tunnel, "STREAM_IDLE_S", 10.0)
    proxy = proxy_with_faults()
    handshake = get("/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    clients = []
    for _ in range(2):
        clients.append(proxy.client(handshake))
        proxy.upstream.sends(
            b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
    proxy.loop.now += 11
    once = Once(tunnel.Tunnel.sweep)
    monkeypatch.setattr(tunnel.Tunnel, "sweep", lambda it, now: once(it, now))
    proxy.advance(1.0)
    assert [client.closed for client in clients] == [False, True]
    assert [type(error) for error in proxy.loop.reported] == [MemoryError]
    proxy.advance(1.0)
    assert clients[0].closed, "its own time limit is checked again"
    serves_on(proxy)
