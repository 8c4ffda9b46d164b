"""Stored responses of other boxes, read while a request is held for a restart."""

from collections.abc import Callable
from typing import Any

import pytest

from retter.base.errors import ConnectRefused
from retter.proxy.exchange import Exchange
from retter.store.write_behind import Found
from tests.support.harness import FakePeer, FakeProxy, body_of, get, reply

HOLD_S = 30.0

Came = Callable[[dict[bytes, Found]], None]


class Far:
    """Responses of other boxes; a read is done when the test says so."""

    def __init__(self) -> None:
        self.reads: list[tuple[list[bytes], Came]] = []
        self.cannot: list[bytes] = []

    def wants(self, keys: list[bytes]) -> list[bytes]:
        return [] if self.reads else list(keys)

    def load(self, keys: list[bytes], came: Came) -> None:
        self.reads.append((keys, came))

    def tick(self, now: float) -> None:
        pass

    def cannot_use(self, key: bytes) -> None:
        self.cannot.append(key)


def held() -> tuple[FakeProxy, FakePeer, Far]:
    """Let a client ask while the application refuses connections."""
    proxy, far = FakeProxy(connect_hold_s=HOLD_S), Far()
    fake: Any = far
    proxy.services.far = fake
    proxy.auto_accept = False
    client = proxy.client(get("/page"))
    proxy.refuse()
    assert (client.received(), len(far.reads)) == (b"", 1)
    return proxy, client, far


def slot_of_another_box() -> Found:
    proxy = FakeProxy()
    proxy.client(get("/page"))
    proxy.upstream.sends(reply(b"from another box"))
    (slot,) = proxy.services.store.shelves.slots.values()
    return Found(slot, ())


def test_a_response_of_another_box_ends_the_wait_for_a_restart() -> None:
    proxy, client, far = held()
    keys, came = far.reads[0]
    came({keys[0]: slot_of_another_box()})
    assert body_of(client.received()) == b"from another box"
    assert proxy.services.pool.held == 0
    client.resets()
    proxy.assert_at_rest()


def test_without_one_the_wait_goes_on() -> None:
    proxy, client, far = held()
    far.reads[0][1]({})
    assert (client.received(), proxy.services.pool.held) == (b"", 1)


@pytest.mark.parametrize("over", ["client", "hold"])
def test_what_comes_after_the_wait_changes_nothing(over: str) -> None:
    proxy, client, far = held()
    if over == "client":
        client.resets()
    else:
        (exchange,) = proxy.services.exchanges
        assert isinstance(exchange, Exchange)
        proxy.services.pool.unhold(exchange)  # as the pool does after HOLD_S
        exchange.connect_failed(ConnectRefused("refused"), proxy.loop.now + HOLD_S, held=True)
        assert client.received().startswith(b"HTTP/1.1 502 ")
    keys, came = far.reads[0]
    came({keys[0]: slot_of_another_box()})
    assert client.received() == b""
    assert proxy.services.pool.held == 0
