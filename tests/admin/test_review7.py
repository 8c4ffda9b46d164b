"""What once went wrong where operators look in and steer: each test holds one rule."""

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from retter.base.counters import LATENCY_BOUNDS_S, Histogram, cells
from retter.base.reason import Reason
from retter.breaker.queue import HELD_LEFT_MAX
from retter.config.reload import Reload
from retter.config.settings import Settings
from retter.net import systemd
from retter.net.handover import Successor
from retter.process import running
from retter.proxy.redirect import RedirectingConnection
from retter.store.accounting import FREED_AT_ONCE_MAX
from tests.support.admin import admin_of, replies, request
from tests.support.harness import FakePeer, FakeProxy, FakeTransport, get, reply, status_of

POST = b"POST /form HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\na=b"
CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


# -- each request is counted once, for what it was ------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"zz\r\n", 400),
        (b"3\r\nabc\r\n", 413),
        (b"1\r\n", 408),
    ],
)
def test_a_request_whose_body_is_wrong_is_one_request(
    tmp_path: Path, body: bytes, status: int
) -> None:
    """It had two lines in the log, was told as one who left, and as one that was never read."""
    log = tmp_path / "log"
    proxy = FakeProxy(access_log=str(log), request_body_bytes_max=2, body_idle_timeout_s=1)
    client = proxy.client(CHUNKED + body)
    proxy.advance(5)
    assert status_of(client.received()) == status
    counters = proxy.proxy.counters
    assert (counters.requests, counters.clients_gone, sum(counters.own_unread)) == (1, 0, 0)
    assert [n for *_, n in cells(counters.own_other)] == [1]
    proxy.proxy.close()
    (line,) = log.read_text().splitlines()
    told = json.loads(line)
    assert (told["method"], told["target"], told["status"]) == ("POST", "/up", status)
    assert told["source"] == "retter"


@pytest.mark.parametrize("status", ["600 What", "999 What"])
def test_a_status_that_is_none_is_counted_as_a_failure(status: str) -> None:
    """It was counted under another reason (RFC 9110 section 15)."""
    proxy = FakeProxy()
    client = proxy.client(get("/"))
    proxy.upstream.sends(reply(status=status))
    assert client.received().startswith(b"HTTP/1.1 " + status[:3].encode())
    assert list(cells(proxy.proxy.counters.forwarded_get)) == [(Reason.ADMITTED, 5, 1)]


# -- the admin listener ---------------------------------------------------------------------------


def test_what_is_no_request_after_a_head_is_answered() -> None:
    """The answer to it was begun as one to HEAD, which raised."""
    with admin_of() as admin:
        peer = admin.connect()
        peer.sends(request("/ready", "HEAD"))
        peer.received()
        peer.sends(b"garbage\r\n\r\n")
        (answer,) = replies(peer.received())
        assert answer.status == 400 and "not HTTP" in answer.json["error"]
        assert peer.closed


@pytest.mark.parametrize("depth", [100, 600, 900, 15_000])
@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_json_however_deep(depth: int, pair: tuple[str, str]) -> None:
    """What the decoder just takes was too deep for what came next, which raised."""
    with admin_of() as admin:
        body = f'{{"mode": {pair[0] * depth}1{pair[1] * depth}}}'.encode()
        answer = admin.ask("/api/circuit", "POST", body, Content_Type="application/json")
        assert answer.status in (400, 413)


# -- reload, pause, purge, the successor ----------------------------------------------------------


def test_a_redirect_that_is_switched_off_ends_on_connections_that_are_open() -> None:
    """It went to port 0."""
    proxy = FakeProxy(https_redirect=443)
    connection = RedirectingConnection(proxy.proxy)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    peer = FakePeer(transport)
    peer.sends(get("/a"))
    assert b"Location: https://shop.example/a\r\n" in peer.received()
    proxy.proxy.apply(replace(proxy.proxy.settings, https_redirect=0))
    peer.sends(get("/a"))
    proxy.upstream.sends(reply(b"plain"))
    assert peer.received().endswith(b"plain")


def test_those_who_leave_a_pause_leave_nothing_behind() -> None:
    """The line of the held grew with all who came and left behind the first one."""
    with admin_of() as admin:
        admin.post("/api/pause", "seconds=300")
        clients = [admin.proxy.client(get(f"/first/{number}")) for number in range(3)]
        for number in range(10 * HELD_LEFT_MAX):
            admin.proxy.client(get(f"/{number}")).resets()
        room = admin.proxy.proxy.breaker.room
        assert room.held == 3
        assert len(room._held) <= 2 * room.held + HELD_LEFT_MAX
        assert admin.post("/api/resume").json["released"] == 3
        for peer in admin.proxy.upstreams:
            peer.sends(reply(b"fresh"))
        assert [client.received().endswith(b"fresh") for client in clients] == [True] * 3
        admin.proxy.assert_at_rest()


def test_to_drop_everything_frees_it_little_by_little() -> None:
    """It held all requests up for half a second where the store was full."""
    with admin_of() as admin:
        proxy = admin.proxy
        count = FREED_AT_ONCE_MAX // 2
        client = proxy.client()
        for number in range(count):
            client.sends(get(f"/{number}"))
            proxy.upstream.sends(reply(b"%d" % number))
        assert admin.post("/api/purge", "all=true").json == {"purged": count}
        assert (admin.state()["store"]["entries"], admin.state()["store"]["bytes"]) == (0, 0)
        shelves = proxy.proxy.store._shelves
        left = sum([len(shelf) for shelf in shelves._rubbish])
        assert left >= 3 * count
        proxy.advance(0.05)
        assert sum([len(shelf) for shelf in shelves._rubbish]) == left - FREED_AT_ONCE_MAX
        client.sends(get("/1"))  # meanwhile all goes on
        proxy.upstream.sends(reply(b"new"))
        assert client.received().endswith(b"new")
        proxy.advance(0.5)
        assert shelves._rubbish == []
        assert proxy.proxy.store.stats()["entries"] == 1
        proxy.upstream.resets()
        proxy.auto_accept = False
        client.sends(get("/1"))
        proxy.refuse()
        assert client.received().endswith(b"new"), "what came later is there"


def test_what_is_on_its_way_when_everything_is_dropped_is_not_stored() -> None:
    with admin_of() as admin:
        client = admin.proxy.client(get("/leaked"))
        admin.post("/api/purge", "all=true")
        admin.proxy.upstream.sends(reply(b"leak"))
        assert client.received().endswith(b"leak")
        assert admin.state()["store"]["entries"] == 0


def test_a_successor_keeps_the_watchdog_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took the watchdog for the old process's alone, and would have been killed by it."""
    monkeypatch.setenv("WATCHDOG_USEC", "5000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    environment: Any = systemd.environment_of_successor()
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert systemd.watchdog_wanted()


class FakeRunning:
    """What a Program steers."""

    def __init__(self) -> None:
        self.reloads = 0
        self.handed = False

    def reload(self, wanted: Settings) -> Reload:
        self.reloads += 1
        return Reload(wanted, {}, {})

    def hand_over(self) -> Successor:
        """Start a process that never says that it serves."""
        ready, its_ready = os.pipe()
        os.set_inheritable(its_ready, True)
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        os.close(its_ready)
        return Successor(pid, ready)

    def handed_over(self) -> None:
        self.handed = True


def with_program(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[running.Program, FakeRunning], Any]
) -> None:
    async def run() -> None:
        fake: Any = FakeRunning()
        program = running.Program(fake, lambda: Settings(upstream=":1"))
        async with asyncio.timeout(10):
            await act(program, fake)

    monkeypatch.setattr(running, "configure_log", lambda *_: None)
    asyncio.run(run())


def test_a_storm_of_hangups_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read all files, one after the other, and nobody was served meanwhile."""

    async def act(program: running.Program, fake: FakeRunning) -> None:
        for _ in range(2):
            for _ in range(50):
                program._on_hangup()
            await asyncio.sleep(0)
        assert fake.reloads == 2

    with_program(monkeypatch, act)


def test_a_successor_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was, for ever, and no other could be started."""
    monkeypatch.setattr(running, "SUCCESSOR_S", 0.05)

    async def act(program: running.Program, fake: FakeRunning) -> None:
        for _ in range(2):
            program._on_take_over()
            assert program._successor is not None
            pid = program._successor.pid
            while program._successor is not None:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)  # not even a zombie is left
        assert not fake.handed
        assert not program._stopping.is_set()

    with_program(monkeypatch, act)


def test_what_is_held_for_a_time_is_as_configured_after_it() -> None:
    """Who only observes had a RETTER that steps in, after a minute of looking at a held circuit."""
    with admin_of(circuit="observe") as admin:
        admin.post("/api/circuit", "mode=closed&seconds=60")
        admin.proxy.advance(59)
        assert admin.state()["forced"] == "closed"
        admin.proxy.advance(3)
        state = admin.state()
        assert (state["forced"], state["forced_remaining_s"]) == ("observe", None)
        admin.post("/api/circuit", "mode=auto")
        admin.proxy.advance(120)
        assert admin.state()["forced"] is None


def test_the_sum_of_a_histogram_never_falls() -> None:
    """It did by a rounding, which Prometheus takes for a new beginning, and counts it all again."""
    metrics = pytest.importorskip("retter.admin.metrics")
    with admin_of() as admin:
        admin.ask("/metrics")
        collector: Any = admin.admin.api._collector
        assert isinstance(collector, metrics.ProxyCollector)
        histogram, sums = Histogram(LATENCY_BOUNDS_S), list[float]()
        for total in (0.1 + 0.2, 0.3, 0.4):
            histogram.total = total
            family = collector._histogram("times", "Times.", histogram)
            sums += [one.value for one in family.samples if one.name.endswith("_sum")]
        assert sums == [0.1 + 0.2, 0.1 + 0.2, 0.4]
        before = collector
        admin.ask("/metrics")
        assert admin.admin.api._collector is before


def test_a_pause_that_is_prolonged_goes_on_for_those_it_holds() -> None:
    """They were refused when the first one would have ended."""
    with admin_of() as admin:
        proxy = admin.proxy
        admin.post("/api/pause", "seconds=10")
        client, poster = proxy.client(get("/new")), proxy.client(POST)
        proxy.advance(8)
        admin.post("/api/pause", "seconds=30")
        proxy.advance(4)
        assert (client.received(), poster.received(), admin.state()["held"]) == (b"", b"", 2)
        admin.post("/api/resume")
        for peer in proxy.upstreams:
            peer.sends(reply(b"done"))
        assert [peer.received()[-4:] for peer in (client, poster)] == [b"done", b"done"]
        proxy.assert_at_rest()


def test_the_log_of_a_redirect_names_the_client_that_a_trusted_proxy_names(tmp_path: Path) -> None:
    log = tmp_path / "log"
    proxy = FakeProxy(
        https_redirect=443, access_log=str(log), trusted_proxies=(ip_network("192.0.2.7"),)
    )
    connection = RedirectingConnection(proxy.proxy)
    transport = FakeTransport(connection)
    connection.connection_made(transport)
    FakePeer(transport).sends(get("/a", headers={"X-Forwarded-For": "203.0.113.9"}))
    assert b" 301 " in transport.buffer
    proxy.proxy.close()
    assert json.loads(log.read_text())["client"] == "203.0.113.9"


def test_a_body_that_is_asked_for_is_asked_for() -> None:
    """Whoever waited for the word to go on was dropped after ten seconds (RFC 9110, 10.1.1)."""
    with admin_of() as admin:
        peer = admin.connect()
        form = b"seconds=10"
        asked = request(
            "/api/pause", "POST", form, Expect="100-continue",
            Content_Type="application/x-www-form-urlencoded",
        )  # fmt: skip
        peer.sends(asked[: -len(form)])
        assert peer.received().startswith(b"HTTP/1.1 100 ")
        peer.sends(form)
        (answer,) = replies(peer.received())
        assert answer.json["paused"] is True
