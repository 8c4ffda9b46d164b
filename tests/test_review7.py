"""What once went wrong where operators look in and steer: each test holds one rule."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retter import systemd
from retter.breaker.waiting import HELD_LEFT_MAX
from retter.reason import Reason
from retter.redirect import RedirectingConnection
from retter.shelves import FREED_AT_ONCE_MAX
from retter.statistics import cells
from tests.admin import admin_of, replies, request
from tests.harness import FakePeer, FakeProxy, FakeTransport, get, reply, status_of

CHUNKED = b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


# -- each request is counted once, for what it was ------------------------------------------------


@pytest.mark.parametrize(("body", "status"), [
    (b"zz\r\n", 400), (b"3\r\nabc\r\n", 413), (b"1\r\n", 408),
])
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
        room = admin.proxy.proxy.breaker._room
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
        client.sends(get("/1"))         # meanwhile all goes on
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
    monkeypatch.setenv("WATCHDOG_PID", str(systemd.os.getpid()))
    environment: Any = systemd.environment_of_successor()
    monkeypatch.setattr(systemd.os, "environ", environment)
    monkeypatch.setattr(systemd.os, "getpid", lambda: 1)
    assert systemd.watchdog_wanted()
