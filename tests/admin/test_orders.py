"""Orders and questions of operators to the admin listener: pause, purge, why, health."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.legacy_health import uptime_text
from retter.admin.message import AdminError
from retter.admin.url import head_bytes, split_url
from retter.breaker.constants import HELD_MAX, HELD_S_MAX, LEFT_MAX
from retter.disk.opening import open_shelf
from retter.disk.shelf import COUNT_S
from retter.store.accounting import FREED_AT_ONCE_MAX
from tests.support.admin import POST, FakeAdmin, admin_of, fetch, replies, request, visit
from tests.support.disk import Clock, Immediately, Later, disk_settings
from tests.support.far import FakeServer, shelf_of
from tests.support.harness import (
    FakePeer,
    FakeProxy,
    body_of,
    field,
    get,
    reply,
    status_of,
)
from tests.support.tracing import untraced

FORM = "application/x-www-form-urlencoded"

# Pause and resume


def test_a_pause_covers_a_deploy() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        fetch(admin, get("/known"), reply(b"known"))
        asked = len(proxy.upstream.received())
        assert asked
        assert admin.post("/api/pause").json == {
            "paused": True,
            "pause_remaining_s": 30,
            "in_flight": 0,
            "held": 0,
        }
        covered = proxy.client(get("/known")).received()
        assert body_of(covered) == b"known"
        assert field(covered, "Cache-Status") == "retter; hit; detail=paused"
        clients = [proxy.client(get("/first")), proxy.client(POST), proxy.client(get("/third"))]
        proxy.advance(5)
        assert proxy.upstream.received() == b""
        state = admin.state()
        assert (state["paused"], state["pause_remaining_s"], state["held"]) == (True, 25, 3)
        assert [client.received() for client in clients] == [b"", b"", b""]

        assert admin.post("/api/resume").json["released"] == 3
        sent = [data.split(b" ")[1] for peer in proxy.upstreams if (data := peer.received())]
        assert sent == [b"/form", b"/first", b"/third"], "what was held goes on, in order"
        for peer in proxy.upstreams[-3:]:
            peer.sends(reply(b"fresh"))
        assert [body_of(client.received()) for client in clients] == [b"fresh"] * 3
        assert admin.state()["paused"] is False
        proxy.assert_at_rest()


def test_a_held_request_brings_its_body_later() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        admin.post("/api/pause")
        client = proxy.client(POST[:-3])
        client.sends(b"a=")
        admin.post("/api/resume")
        client.sends(b"b")
        assert proxy.upstream.received().endswith(b"\r\n\r\na=b")
        proxy.upstream.sends(reply(b"done"))
        assert body_of(client.received()) == b"done"
        proxy.assert_at_rest()


def test_a_pause_ends_by_itself() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        admin.post("/api/pause", "seconds=10")
        client = proxy.client(get("/new"))
        proxy.advance(9.9)
        assert not proxy.upstreams
        proxy.advance(0.2)
        proxy.upstream.sends(reply(b"new"))
        assert body_of(client.received()) == b"new"
        assert admin.state()["paused"] is False


def test_nobody_is_held_for_too_long() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        admin.post("/api/pause", "seconds=300")
        client, poster = proxy.client(get("/new")), proxy.client(POST)
        proxy.advance(HELD_S_MAX - 0.1)
        assert client.received() == b""
        proxy.advance(0.2)
        for peer in (client, poster):
            refusal = peer.received()
            assert status_of(refusal) == 503
            assert field(refusal, "Retry-After")
            assert "paused" in (field(refusal, "Cache-Status") or "")
        assert admin.state()["held"] == 0
        admin.post("/api/resume")
        assert not proxy.upstreams
        proxy.assert_at_rest()


def test_not_too_many_are_held() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        admin.post("/api/pause", "seconds=20")
        held = [proxy.client(get(f"/{number}")) for number in range(HELD_MAX)]
        refusal = proxy.client(POST).received()
        assert status_of(refusal) == 503
        assert 20 <= int(field(refusal, "Retry-After") or 0) <= 40
        held[0].resets()
        assert proxy.client(POST).received() == b"", "there is room again"
        assert admin.state()["held"] == HELD_MAX


def test_clients_that_leave_while_held_are_forgotten() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        admin.post("/api/pause")
        proxy.client(get("/new")).resets()
        assert admin.post("/api/resume").json["released"] == 0
        assert not proxy.upstreams
        proxy.assert_at_rest()


def test_what_is_in_flight_goes_on_and_is_told() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        client = proxy.client(get("/slow"))
        assert admin.post("/api/pause").json["in_flight"] == 1
        proxy.upstream.sends(reply(b"done"))
        assert body_of(client.received()) == b"done"
        assert admin.state()["in_flight"] == 0


def test_a_superseded_page_is_for_who_would_get_an_error() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        fetch(admin, get("/form"), reply(b"old"))
        fetch(admin, POST, reply(b"changed"))
        admin.post("/api/pause", "seconds=100")
        client = proxy.client(get("/form"))
        assert client.received() == b""
        proxy.advance(HELD_S_MAX + 0.1)
        assert body_of(client.received()) == b"old"


def test_queued_ones_are_held_too() -> None:
    with admin_of(max_in_flight=1) as admin:
        proxy = admin.proxy
        first, second = proxy.client(get("/1")), proxy.client(get("/2"))
        admin.post("/api/pause", "seconds=20")
        proxy.upstream.sends(reply(b"1"))
        assert body_of(first.received()) == b"1"
        proxy.advance(10)
        assert second.received() == b"", "longer than the queue lets it wait"
        admin.post("/api/resume")
        proxy.upstream.sends(reply(b"2"))
        assert body_of(second.received()) == b"2"


@pytest.mark.parametrize("form", ["seconds=0", "seconds=301", "seconds=soon"])
def test_wrong_pauses(form: str) -> None:
    with admin_of() as admin:
        assert admin.post("/api/pause", form).status == 400
        assert admin.state()["paused"] is False


# Purge


@pytest.mark.parametrize(
    ("form", "purged"),
    [
        ("url=http://shop.example/a?x=1", 2),  # everyone's, and the session's
        ("url=https://user:pw@SHOP.example:443/a?x=1", 2),
        ("url=http://shop.example:80/a?x=1", 2),
        ("url=shop.example/a?x=1", 2),
        ("prefix=shop.example/a", 2),
        ("url=/a?x=1", 3),  # of any host
        ("url=/a", 0),
        ("prefix=/a", 3),
        ("prefix=http://shop.example/", 3),
        ("prefix=http://shop.example", 3),
        ("session=PHPSESSID=abc", 1),
        ("session=PHPSESSID=other", 0),
        ("all=true", 4),
    ],
)
def test_purge(form: str, purged: int) -> None:
    with admin_of() as admin:
        visit(admin, "/a?x=1")
        visit(admin, "/a?x=1", cookie="PHPSESSID=abc")
        visit(admin, "/a?x=1", host="other.example")
        visit(admin, "/b")
        assert admin.state()["store"]["entries"] == 4
        answer = admin.post("/api/purge", form.replace("?", "%3F"))
        assert answer.json == {"purged": purged, "complete": True}
        assert admin.state()["store"]["entries"] == 4 - purged


@contextmanager
def admin_with_disk(path: Path, writer: Later) -> Iterator[FakeAdmin]:
    """Make an admin listener of a proxy with /a on disk alone, and /b in memory as well."""
    clock: list[Any] = []
    settings = disk_settings(path)
    shelf = open_shelf(
        settings, Immediately(), writer, lambda: clock[0].now if clock else 1000.0, wall=time.time
    )
    proxy = FakeProxy(settings, shelf)
    clock.append(proxy.loop)
    admin = FakeAdmin(proxy)
    visit(admin, "/a")
    visit(admin, "/b")
    proxy.advance(6.0)
    assert writer.work()
    store = proxy.services.store
    store.shelves.remove_key(next(key for key in store.shelves.slots if key.endswith(b"/a")))
    yield admin
    admin.admin.close()
    proxy.proxy.close()


def test_the_answer_to_a_purge_comes_when_the_disk_is_counted(tmp_path: Path) -> None:
    writer = Later()
    with admin_with_disk(tmp_path / "store", writer) as admin:
        client = admin.connect()
        ask = request("/api/purge", "POST", b"all=true", Content_Type=FORM)
        client.sends(ask + request("/ready"))
        assert client.received() == b"", "no answer overtakes it"
        assert admin.state()["store"]["entries"] == 0, "the purge holds at once"
        admin.proxy.advance(0.1)
        assert client.received() == b""
        writer.work()
        purged, ready = replies(client.received())
        assert purged.json == {"purged": 2, "complete": True}
        assert ready.json == {"status": "ready"}
        client.sends(ask)
        admin.proxy.advance(0.1)
        writer.work()
        (again,) = replies(client.received())
        assert again.json == {"purged": 0, "complete": True}


def test_a_disk_that_takes_long_gives_at_least_so_many(tmp_path: Path) -> None:
    writer = Later()
    with admin_with_disk(tmp_path / "store", writer) as admin:
        client = admin.connect()
        client.sends(request("/api/purge", "POST", b"all=true", Content_Type=FORM))
        admin.proxy.advance(COUNT_S - 0.5)
        assert client.received() == b""
        admin.proxy.advance(0.6)
        (answer,) = replies(client.received())
        assert answer.json == {"purged": 1, "complete": False}


def test_an_operator_who_leaves_before_the_count_is_nobody_to_answer(tmp_path: Path) -> None:
    writer = Later()
    with admin_with_disk(tmp_path / "store", writer) as admin:
        client = admin.connect()
        client.sends(request("/api/purge", "POST", b"all=true", Content_Type=FORM))
        client.resets()
        admin.proxy.advance(0.1)
        writer.work()
        assert admin.state()["disk"]["entries"] == 0


def test_why_reads_what_is_on_a_slow_disk_alone(tmp_path: Path) -> None:
    """After a restart, or in another worker: it said that nothing was stored."""
    with admin_with_disk(tmp_path / "store", Later()):
        pass
    clock: list[Any] = []
    settings, reader = disk_settings(tmp_path / "store"), Later()
    shelf = open_shelf(
        settings, reader, Immediately(), lambda: clock[0].now if clock else 1000.0, wall=time.time
    )
    proxy = FakeProxy(settings, shelf)
    clock.append(proxy.loop)
    shelf.start()
    admin = FakeAdmin(proxy)
    ask = request("/api/why?url=http://shop.example/a&as=program")
    client = admin.connect()
    client.sends(ask)
    assert client.received() == b""
    assert reader.work() == 1
    (answer,) = replies(client.received())
    assert answer.json["stored"]["bytes"] == len(b"/a")
    client.sends(request("/api/why?url=http://shop.example/b&as=program"))
    proxy.advance(1.1)  # the disk hangs
    (answer,) = replies(client.received())
    assert answer.json["stored"] is None
    admin.admin.close()
    proxy.proxy.close()


def test_purge_knows_the_rules_of_keys() -> None:
    with admin_of(ignore_params="utm_*", ignore_host=True) as admin:
        visit(admin, "/a?utm_source=mail&x=1")
        answer = admin.post("/api/purge", "url=http://any.example/a%3Fx=1%26utm_medium=x")
        assert answer.json == {"purged": 1, "complete": True}


@pytest.mark.parametrize(
    "form",
    [
        "",
        "url=",
        "url=/a&prefix=/a",
        "all=yes",
        "session=_ga=1",
        "session=abc",
        "session=a%0D%0Ab",
        "url=ftp://a/",
        "url=a",
        "url=a?x=1",
        "url=a/b.html",
        "url=b.html",
        "url=shop.example",
        "prefix=a",
        "url=a:b",
        "url=http://",
        "url=http://[",
        "url=%20",
        "url=http://b%C3%BCcher.example/",
        "url=a%20b",
    ],
)
def test_unclear_purges_drop_nothing(form: str) -> None:
    with admin_of() as admin:
        visit(admin, "/a")
        answer = admin.post("/api/purge", form)
        assert answer.status == 400, answer
        assert admin.state()["store"]["entries"] == 1


def test_a_path_without_its_slash_is_told_what_to_write() -> None:
    with admin_of() as admin:
        visit(admin, "/page")
        answer = admin.post("/api/purge", "url=page")
        assert answer.status == 400
        assert "write /path (of any host), or http://host/path" in answer.json["error"]
        assert admin.post("/api/purge", "url=/page").json["purged"] == 1


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", b"localhost"),
        ("localhost/a", b"localhost"),
        ("shop:8089", b"shop:8089"),
        ("shop:8089/a", b"shop:8089"),
        ("[::1]:8089/a", b"[::1]:8089"),
        ("[::1]/", b"[::1]"),
        ("127.0.0.1/a", b"127.0.0.1"),
        ("shop.example/a:b", b"shop.example"),
    ],
)
def test_a_host_needs_no_scheme(text: str, host: bytes) -> None:
    assert split_url(text)[1] == host


@untraced
@given(st.text(max_size=40))
def test_any_text_is_a_url_or_is_not(text: str) -> None:
    try:
        scheme, host, target = split_url(text)
    except AdminError:
        return
    assert scheme in ("http", "https")
    assert target.startswith(b"/")
    assert head_bytes("GET", host, target, ()).count(b"\r\n") == 3


# Health


def test_health_has_the_names_of_the_original() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        client: FakePeer = proxy.client(get())
        proxy.advance(0.1)
        proxy.upstream.sends(reply())
        client.resets()
        proxy.advance(65.0)
        health = admin.ask("/health").json
        assert health["status"] == "OK"
        assert health["server-uptime"] == "1 minute 5 seconds"
        assert (health["cache-count"], health["breaker-count"]) == (1, 2)
        assert health["total-request-served"] == 1
        assert health["average-response-time-ms"] == pytest.approx(100)
        assert health["fastest-response-time-ms"] <= 100 <= health["slowest-response-time-ms"]
        assert health["memory"]["sys-memory-byte"] > 1_000_000


def test_health_before_the_first_request() -> None:
    with admin_of() as admin:
        health = admin.ask("/health").json
        assert health["average-response-time-ms"] == health["slowest-response-time-ms"] == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 seconds"),
        (1.0, "1 second"),
        (3661.0, "1 hour 1 minute 1 second"),
        (2 * 86400 + 5, "2 days 5 seconds"),
    ],
)
def test_uptime(seconds: float, text: str) -> None:
    assert uptime_text(seconds) == text


def test_those_who_leave_a_pause_leave_nothing_behind() -> None:
    """The line of the held grew with all who came and left behind the first one."""
    with admin_of() as admin:
        admin.post("/api/pause", "seconds=300")
        clients = [admin.proxy.client(get(f"/first/{number}")) for number in range(3)]
        for number in range(10 * LEFT_MAX):
            admin.proxy.client(get(f"/{number}")).resets()
        circuit = admin.proxy.services.breaker.circuit
        assert circuit.held == 3
        assert sum(map(len, circuit.room._lines)) <= 2 * circuit.held + LEFT_MAX
        assert admin.post("/api/resume").json["released"] == 3
        for peer in admin.proxy.upstreams:
            peer.sends(reply(b"fresh"))
        assert [client.received().endswith(b"fresh") for client in clients] == [True] * 3
        admin.proxy.assert_at_rest()


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


def test_to_drop_everything_frees_it_little_by_little() -> None:
    """It held all requests up for half a second where the store was full."""
    with admin_of() as admin:
        proxy = admin.proxy
        count = FREED_AT_ONCE_MAX // 2
        client = proxy.client()
        for number in range(count):
            client.sends(get(f"/{number}"))
            proxy.upstream.sends(reply(b"%d" % number))
        assert admin.post("/api/purge", "all=true").json["purged"] == count
        assert (admin.state()["store"]["entries"], admin.state()["store"]["bytes"]) == (0, 0)
        shelves = proxy.services.store.shelves
        left = sum([len(shelf) for shelf in shelves._cleared])
        assert left >= 3 * count
        proxy.advance(0.05)
        assert sum([len(shelf) for shelf in shelves._cleared]) == left - FREED_AT_ONCE_MAX
        client.sends(get("/1"))  # meanwhile all goes on
        proxy.upstream.sends(reply(b"new"))
        assert client.received().endswith(b"new")
        proxy.advance(0.5)
        assert shelves._cleared == []
        assert proxy.services.store.stats()["entries"] == 1
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


def test_what_is_held_for_a_time_is_as_configured_after_it() -> None:
    """In observe mode, RETTER intervened after an operator had held the circuit for a minute."""
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


def test_orders_are_told_to_other_boxes() -> None:
    clock = Clock()
    server = FakeServer(clock)
    far, other = shelf_of(server, clock, "one"), shelf_of(server, clock, "other")
    heard: list[dict[str, Any]] = []
    other.on_message = lambda message: heard.extend(message.orders)
    admin = FakeAdmin(FakeProxy(far=far))
    for path, form in (
        ("/api/circuit", "mode=open&seconds=60"),
        ("/api/pause", "seconds=30"),
        ("/api/resume", ""),
    ):
        assert admin.post(path, form).status == 200
        for _ in range(2):  # what is heard together is only the last of a kind
            far.tick(clock.now)
            other.tick(clock.now)
            clock.now += 0.5
    assert [(one["order"], one.get("mode")) for one in heard] == [
        ("circuit", "open"),
        ("pause", None),
        ("resume", None),
    ]
    assert heard[1]["until"] - clock.wall() == pytest.approx(30.0, abs=3.0)
