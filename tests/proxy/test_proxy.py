"""The shared half of a process: figures, the clock, and settings for the parts."""

import asyncio
from math import inf
from pathlib import Path

import pytest

from retter.base.shared_memory import bytes_for, divided
from retter.base.worker_place import WorkerPlace
from retter.breaker import Mode
from retter.config.settings import Settings
from retter.proxy.part_settings import breaker_settings
from retter.proxy.proxy import Proxy
from retter.proxy.ticker import LOOK_S, TICK_S
from retter.proxy.wall_clock import WallClock
from tests.support.harness import FakeProxy, body_of, field, get, reply, status_of


def test_the_figures_of_a_proxy_at_rest_are_zero() -> None:
    proxy = FakeProxy()
    stats = proxy.proxy.stats()
    assert stats["state"] == "CLOSED"
    assert stats["requests"] == stats["forwarded"] == stats["exchanges"] == stats["streams"] == 0
    assert stats["connections"]["open"] == 0
    assert stats["upstream"]["open"] == stats["upstream"]["held"] == 0
    assert stats["stored"] == stats["refused"] == stats["client_errors"] == {}


def test_what_happens_is_counted() -> None:
    proxy = FakeProxy()
    client = proxy.client(get())
    assert proxy.proxy.stats()["exchanges"] == 1
    proxy.upstream.sends(reply(b"good"))
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    client.sends(get())
    client.sends(get("/unknown"))
    proxy.client(b"bad\r\n\r\n")
    stats = proxy.proxy.stats()
    assert (stats["requests"], stats["forwarded"]) == (3, 1)
    assert stats["stored"] == {"forced-open": 1}
    assert stats["client_errors"] == {"bad-request": 1}
    assert stats["connections"] == {"open": 2, "accepted": 2, "refused": 0, "evicted": 0}
    assert stats["store"]["entries"] == 1
    assert stats["memo"]["responses"] == 0, "heads that came once are not kept"


def test_addresses_have_their_share_of_connections() -> None:
    proxy = FakeProxy(connections_per_address_max=2)
    mine = [proxy.client() for _ in range(2)]
    assert proxy.client().transport.aborted
    assert not proxy.client(peername=("192.0.2.8", 1)).transport.aborted
    mine[0].resets()
    assert not proxy.client().transport.aborted
    for peer in proxy.clients:
        peer.resets()
    assert not proxy.services.clients.per_address, "nothing is remembered of who has left"


def test_an_error_page_is_read_once(tmp_path: Path) -> None:
    page = tmp_path / "sorry.html"
    page.write_text("<p>Sorry")
    proxy = FakeProxy(error_page=str(page), connect_hold_s=0)
    page.unlink()
    proxy.auto_accept = False
    client = proxy.client(get(headers={"Accept": "text/html"}))
    proxy.refuse()
    answer = client.received()
    assert (status_of(answer), body_of(answer)) == (503, b"<p>Sorry")
    assert field(answer, "retry-after") in ("2", "3", "4"), "a 503 says when to come again"
    assert field(answer, "refresh") is None, "the page is the operator's"


def test_trusted_proxies_are_believed() -> None:
    proxy = FakeProxy(trusted_proxies=("10.0.0.0/8", "unix:"))
    for peername in (("10.0.0.1", 1), ""):
        proxy.client(get(headers={"X-Forwarded-For": "198.51.100.1"}), peername=peername)
        assert field(proxy.upstream.received(), "x-real-ip") == "198.51.100.1"
    proxy.client(get(headers={"X-Forwarded-For": "198.51.100.1"}))
    assert field(proxy.upstream.received(), "x-real-ip") == "192.0.2.7"


def test_the_breaker_gets_its_settings() -> None:
    chosen = Settings(upstream="127.0.0.1:1", circuit="observe", max_in_flight=7, queue_wait_s=1.5)
    told = breaker_settings(chosen)
    assert (told.mode, told.max_in_flight, told.queue_wait_s) == (Mode.OBSERVE, 7, 1.5)


def test_the_date_is_made_once_a_second() -> None:
    clock = WallClock()
    date = clock.http_date()
    assert date.endswith(" GMT")
    assert clock.http_date()[:-6] == date[:-6]


def test_the_clock_runs_by_itself_and_closing_stops_it() -> None:
    async def main() -> None:
        proxy = Proxy(Settings(upstream="127.0.0.1:1"), asyncio.get_running_loop())
        ticks: list[float] = []
        proxy.ticker.tick = ticks.append  # type: ignore[assignment, method-assign]
        proxy.ticker.start()
        while len(ticks) < 2:  # noqa: ASYNC110 - ticks are all there is to wait for
            await asyncio.sleep(TICK_S)
        proxy.close()
        seen = len(ticks)
        await asyncio.sleep(3 * TICK_S)
        assert len(ticks) == seen

    asyncio.run(main())


def test_a_worker_in_which_some_wait_looks_for_places_between_two_ticks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[float] = []
    monkeypatch.setattr("retter.proxy.ticker.start_waiting", lambda _, now: looks.append(now))

    async def main() -> None:
        shared = divided(memoryview(bytearray(bytes_for(2))), 2)
        place = WorkerPlace(1, 2, 1, shared)
        loop = asyncio.get_running_loop()
        proxy = Proxy(Settings(upstream="127.0.0.1:1"), loop, place=place)
        room = proxy.services.breaker.circuit.room
        ticks: list[float] = []
        proxy.ticker.tick = ticks.append  # type: ignore[assignment, method-assign]
        proxy.ticker.start()
        while not ticks:  # noqa: ASYNC110 - ticks are all there is to wait for
            await asyncio.sleep(LOOK_S)
        assert not looks, "nobody waits"
        room.waiting = 1
        while len(looks) < 3:  # noqa: ASYNC110 - looks are all there is to wait for
            await asyncio.sleep(LOOK_S)
        room.waiting = 0
        seen = len(looks)
        ticks.clear()
        while len(ticks) < 2:  # noqa: ASYNC110 - the same
            await asyncio.sleep(LOOK_S)
        assert len(looks) <= seen + 1
        room.waiting = 1
        proxy.close()

    asyncio.run(main())


def test_closing_ends_every_connection() -> None:
    proxy = FakeProxy()
    idle, busy = proxy.client(), proxy.client(get())
    proxy.proxy.close()
    assert idle.transport.aborted
    assert busy.transport.aborted
    assert proxy.upstream.closed


def test_draining_lets_what_runs_come_to_its_end() -> None:
    proxy = FakeProxy()
    idle, busy = proxy.client(), proxy.client(get())
    proxy.advance(1.1)
    proxy.proxy.drain(proxy.loop.now)
    assert idle.closed
    assert not busy.closed
    proxy.upstream.sends(reply(b"last"))
    assert field(busy.received(), "connection") == "close"
    assert busy.closed


def test_draining_waits_for_the_next_request_of_each_client_if_it_may() -> None:
    proxy = FakeProxy()
    kept, old, fresh = proxy.client(get()), proxy.client(), proxy.client()
    proxy.upstream.sends(reply())
    old.sends(get(version="1.0", headers={"Connection": "keep-alive"}))
    proxy.upstream.sends(reply())
    for client in (kept, old):
        assert field(client.received(), "connection") != "close"
    for _ in range(5):
        proxy.advance(1.0)
        proxy.proxy.drain(proxy.loop.now, inf)
    for client in (kept, old, fresh):
        assert not client.closed
        client.sends(get("/other", version="1.0" if client is old else "1.1"))
        proxy.upstream.sends(reply(b"last"))
        answer = client.received()
        assert (field(answer, "connection"), body_of(answer)) == ("close", b"last")
        assert client.closed


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_who_has_sent_several_requests_gets_all_answers_while_draining(
    version: str, stored: bool, begun: bool
) -> None:
    proxy = FakeProxy(circuit="open" if stored else "auto")
    for path in ("/1", "/2", "/3"):
        proxy.client(get(path))
        proxy.upstream.sends(reply(path.encode()))
    client = proxy.client()
    request = [
        get(path, version=version, headers={"Connection": "keep-alive"})
        for path in ("/1", "/2", "/3")
    ]
    if begun:
        client.sends(request.pop(0))
    proxy.proxy.drain(proxy.loop.now, inf)
    client.sends(b"".join(request))
    if not stored:
        for path in ("/1", "/2", "/3"):
            proxy.upstream.sends(reply(path.encode()))
    answers = client.received().split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [body_of(answer) for answer in answers] == [b"/1", b"/2", b"/3"]
    assert [b"close" in answer for answer in answers] == [False, False, True]
    assert client.closed
    proxy.settle()
    proxy.assert_at_rest()


def test_part_of_a_next_request_is_waited_for_while_draining() -> None:
    proxy = FakeProxy(circuit="open")
    proxy.client(get())
    proxy.upstream.sends(reply(b"stored"))
    client = proxy.client()
    proxy.proxy.drain(proxy.loop.now, inf)
    client.sends(get() + get()[:-2])
    assert not client.closed
    client.sends(get()[-2:])
    assert client.received().count(b"stored") == 2
    assert client.closed


def test_draining_does_not_close_who_is_about_to_ask() -> None:
    proxy = FakeProxy()
    fresh, kept = proxy.client(), proxy.client(get())
    proxy.upstream.sends(reply())
    kept.received()
    for _ in range(3):
        proxy.proxy.drain(proxy.loop.now)
        assert not fresh.closed and not kept.closed
        proxy.advance(0.3)
    for client in (fresh, kept):
        client.sends(get("/other"))
        proxy.upstream.sends(reply(b"last"))
        assert field(client.received(), "connection") == "close"
        assert client.closed
    silent = proxy.client()
    proxy.advance(1.1)
    proxy.proxy.drain(proxy.loop.now)
    assert silent.closed
