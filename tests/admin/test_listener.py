"""The admin listener: who may ask, what is answered, what is told of its own accord."""

import os
from json import loads
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.admin.auth import read_token
from retter.admin.chart import RATES
from retter.admin.connection import BODY_BYTES_MAX, IDLE_S, REQUEST_S, WRITE_S
from retter.admin.listener import CONNECTIONS_MAX, LISTENERS_MAX
from retter.admin.message import AdminRequest
from retter.breaker.baseline import Baseline
from retter.breaker.constants import ROUTES_MAX
from retter.breaker.routes import RouteTable
from retter.config.settings import ConfigError, Settings
from tests.support.admin import FakeAdmin, admin_of, replies, request
from tests.support.harness import FakePeer, get, reply, split_at

TOKEN = "0123456789abcdef"


# Requests and answers


def test_what_every_answer_says() -> None:
    with admin_of() as admin:
        answer = admin.ask("/api/state")
        assert answer.status == 200
        assert answer.fields["content-type"] == "application/json"
        assert answer.fields["cache-control"] == "no-store"
        assert answer.fields["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.fields["content-security-policy"]


@pytest.mark.parametrize(
    ("data", "status", "word"),
    [
        (request("/nothing"), 404, "nothing at this path"),
        (request("/api/state", "PUT"), 405, "only GET, HEAD is allowed here"),
        (request("/api/circuit"), 405, "only POST is allowed here"),
        (request("/api/circuit", "POST", b"mode=auto", Content_Type="text/plain"), 415, "form"),
        (request("/api/circuit", "POST", b"{", Content_Type="application/json"), 400, "not JSON"),
        (
            request("/api/circuit", "POST", b"[]", Content_Type="application/json"),
            400,
            "not a JSON obj",
        ),
        (request("/api/circuit", "POST", b"x" * (BODY_BYTES_MAX + 1)), 413, "65536 bytes at most"),
        (b"garbage\r\n\r\n", 400, "not HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "not HTTP/1.1"),
        (b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: loc", 431, "not HTTP/1.1"),
    ],
)
def test_wrong_requests(data: bytes, status: int, word: str) -> None:
    with admin_of() as admin:
        answer = admin.sends(data)
        assert answer.status == status
        assert word in answer.json["error"]


def test_a_request_with_two_framings_is_refused() -> None:
    """RFC 9112 section 6.1: what follows may be a request to one program, to another a body."""
    with admin_of() as admin:
        framing = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
        peer = admin.connect()
        peer.sends(request("/ready", "POST", b"", **framing) + b"0\r\n\r\n" + request("/ready"))
        (answer,) = replies(peer.received())
        assert answer.status == 400 and "Transfer-Encoding" in answer.json["error"]
        assert peer.closed


def test_a_malformed_line_is_not_repeated() -> None:
    with admin_of() as admin:
        answer = admin.sends(b"GET / HTTP/1.1\r\nAuthorization : Bearer secret\r\n\r\n")
        assert answer.json["error"] == "not HTTP/1.1: illegal header line"


def test_a_405_says_what_is_allowed() -> None:
    with admin_of() as admin:
        assert admin.ask("/api/state", "DELETE").fields["allow"] == "GET, HEAD"


def test_head_is_get_without_a_body() -> None:
    with admin_of() as admin:
        answer = admin.ask("/api/state", "HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert int(answer.fields["content-length"]) > 500


@given(cuts=st.sets(st.integers(1, 250), max_size=4))
def test_requests_may_be_cut_anywhere_and_follow_each_other(cuts: set[int]) -> None:
    with admin_of() as admin:
        data = (
            request("/ready")
            + request(
                "/api/circuit", "POST", b'{"mode": "closed"}', Content_Type="application/json"
            )
            + request("/nothing")
        )
        peer = admin.connect()
        for piece in split_at(data, cuts):
            peer.sends(piece)
        assert [one.status for one in replies(peer.received())] == [200, 200, 404]


def test_slow_and_idle_connections_are_closed() -> None:
    with admin_of() as admin:
        slow, idle = admin.connect(), admin.connect()
        slow.sends(b"GET / HT")
        idle.sends(request("/ready"))
        admin.proxy.advance(REQUEST_S + 1.5)
        assert slow.closed and not idle.closed
        admin.proxy.advance(IDLE_S)
        assert idle.closed


def test_who_does_not_read_gets_no_more_answers() -> None:
    with admin_of() as admin:
        peer = admin.connect()
        peer.blocks()
        assert not peer.transport.reading
        peer.sends(request("/ready") * 3)
        assert peer.received() == b""
        peer.unblocks()
        assert peer.transport.reading
        assert [one.status for one in replies(peer.received())] == [200, 200, 200]
        peer.blocks()
        admin.proxy.advance(WRITE_S + 1)
        assert peer.closed


def test_the_connection_that_has_waited_longest_makes_room() -> None:
    with admin_of() as admin:
        operator = admin.connect()
        silent = []
        for _ in range(CONNECTIONS_MAX - 1):
            admin.proxy.loop.now += 0.01
            silent.append(admin.connect())
        admin.proxy.loop.now += 0.01
        operator.sends(request("/ready"))  # so it has not waited longest
        silent[1].sends(b"GET /ready HTTP/1.1\r\nHo")
        admin.proxy.loop.now += 0.01
        silent[1].sends(b"st: ")  # of the same request: that sets nothing back
        assert admin.ask("/ready").status == 200, "who is new is answered"
        assert silent[0].closed and not silent[1].closed and not operator.closed
        for _ in range(CONNECTIONS_MAX):
            admin.connect()
        assert all(peer.closed for peer in silent)
        assert len(admin.admin._connections) == CONNECTIONS_MAX
        assert admin.ask("/ready").status == 200


def test_readers_of_nothing_and_of_events_when_there_is_no_room() -> None:
    with admin_of() as admin:
        events = [listen(admin) for _ in range(LISTENERS_MAX)]
        blocked = [admin.connect() for _ in range(CONNECTIONS_MAX - LISTENERS_MAX)]
        for peer in blocked:
            peer.sends(request("/ready"))
            peer.blocks()
        assert admin.ask("/ready").status == 200
        assert sum(peer.closed for peer in blocked) == 1
        assert not any(peer.closed for peer in events)


VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)
NAMES = st.sampled_from([
    "url", "prefix", "session", "all", "method", "cookie", "header", "mode", "seconds", "x",
])  # fmt: skip
PATHS = st.sampled_from([
    "/", "/health", "/ready", "/metrics", "/api/state", "/api/history", "/api/trips", "/api/why",
    "/api/circuit", "/api/purge", "/api/pause", "/api/resume",
])  # fmt: skip


@given(
    PATHS, st.sampled_from(["GET", "POST"]), st.lists(st.tuples(NAMES, VALUES), max_size=4), VALUES,
    st.sampled_from(["Accept", "Origin", "Authorization", "Content_Type", "Sec_Fetch_Site"]),
)  # fmt: skip
def test_nothing_that_is_asked_is_a_fault_of_ours(
    path: str, method: str, fields: list[tuple[str, str]], value: str, name: str
) -> None:
    with admin_of() as admin:  # whose loop has no exception handler
        form = "&".join([f"{key}={text}" for key, text in fields])
        query, body = (f"?{form}", b"") if method == "GET" else ("", form.encode())
        kind = {"Content_Type": "application/x-www-form-urlencoded"} if body else {}
        if name == "Accept":
            value = "application/openmetrics-text;version=" + value
        answer = admin.ask(path + query, method, body, **{**kind, name: value})
        assert answer.status in (200, 400, 403, 405, 415)


def test_a_fault_of_our_own_is_answered_and_told() -> None:
    with admin_of() as admin:
        told: list[dict[str, Any]] = []
        loop: Any = admin.admin.loop
        loop.call_exception_handler = told.append

        def fault(_: AdminRequest) -> Any:
            raise ZeroDivisionError

        api: Any = admin.admin.api
        api.handler = lambda _: fault
        answer = admin.ask("/api/state")
        assert (answer.status, answer.json["error"][:17]) == (500, "a fault of RETTER")
        (context,) = told
        assert isinstance(context["exception"], ZeroDivisionError)
        assert "GET '/api/state'" in context["message"]


# Who may ask


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9090",
        "localhost:9090",
        "LOCALHOST",
        "localhost.",
        "[::1]:9090",
        "[::1]",
        "[0:0:0:0:0:0:0:1]:80",
        "127.1.2.3",
        "localhost:",
    ],
)
def test_names_of_this_machine(host: str) -> None:
    with admin_of() as admin:
        assert admin.ask("/api/state", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example:9090",
        "192.0.2.1",
        "[::1]evil.example",
        "[::1].evil.example:9090",
        "[::1",
        "::1",
        "[::1]]",
        "[::1]:x",
        "[::1%lo]",
        "[::1%25lo]",
        "[127.0.0.1]",
        "[localhost]",
        "localhost:9090:evil.example",
        "localhost:9090evil.example",
        "localhost:-1",
        "localhost:999999",
        "127.0.0.1@evil.example",
        "evil.example@localhost",
        "localhost/evil.example",
        "localhost evil.example",
        "localhost,evil.example",
        "127.0.0.1%00",
        "localhost..evil.example",
        ":9090",
        "127.0.0.1.evil.example",
        "localh\xf6st",
        "http://localhost",
    ],
)
def test_a_name_that_resolves_to_this_machine_is_no_name_of_it(host: str) -> None:
    with admin_of() as admin:
        assert admin.ask("/", Host=host).status == 403
        assert admin.ask("/api/state", Host=host).status == 403


def test_a_unix_socket_has_no_name() -> None:
    with admin_of("unix:/run/admin") as admin:
        assert admin.ask("/api/state", Host="retter").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8089"},  # the protected application, on the same machine
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_other_sites_pages_steer_nothing(headers: dict[str, str]) -> None:
    with admin_of() as admin:
        assert admin.post("/api/circuit", "mode=open", **headers).status == 403
        assert admin.state()["state"] == "CLOSED"


def test_our_own_page_may() -> None:
    with admin_of() as admin:
        own = {"Origin": "http://127.0.0.1:9090", "Sec_Fetch_Site": "same-origin"}
        assert admin.post("/api/circuit", "mode=open", **own).status == 200


def test_figures_are_not_for_other_sites_pages() -> None:
    with admin_of() as admin:
        assert admin.ask("/api/events", Sec_Fetch_Site="cross-site").status == 403
        assert admin.ask("/api/state", Sec_Fetch_Site="none").status == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Bearer {TOKEN}x", 401),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("Bearer ä", 401),
    ],
)
def test_the_token(authorization: str, status: int) -> None:
    with admin_of(admin_token=TOKEN) as admin:
        answer = admin.ask("/api/state", Authorization=authorization)
        assert answer.status == status
        assert TOKEN.encode() not in answer.body
        assert ("www-authenticate" in answer.fields) == (status == 401)


def test_what_needs_no_token() -> None:
    with admin_of("0.0.0.0:9090", admin_token=TOKEN) as admin:
        assert admin.ask("/ready", Host="retter.internal:9090").status == 200
        assert admin.ask("/api/state", Host="retter.internal:9090").status == 401


def test_a_token_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\nanything\n")
    assert read_token(Settings(admin_token_file=str(file))) == TOKEN
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="token: it must have 16 to 256 characters"):
        read_token(Settings(admin_token_file=str(file)))
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigError, match="it must have"):
        read_token(Settings(admin_token_file=str(file)))
    with pytest.raises(ConfigError, match=r"admin_token_file: .*nowhere: No such file"):
        read_token(Settings(admin_token_file=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("address", [":9090", "0.0.0.0:9090", "192.0.2.1:1", "admin.example:1"])
def test_other_machines_need_a_token(address: str) -> None:
    with pytest.raises(ConfigError, match="admin is open to other machines and therefore needs"):
        Settings(admin=address)
    assert Settings(admin=address, admin_token=TOKEN).admin == address


def test_the_token_is_never_shown() -> None:
    settings = Settings(admin_token=TOKEN)
    assert TOKEN not in repr(settings)
    with pytest.raises(ConfigError) as error:
        Settings(admin_token="too\tsecret for you")
    assert "secret for" not in str(error.value)


# The state


def test_the_document_of_a_proxy_at_rest() -> None:
    with admin_of() as admin:
        state = admin.state()
        assert state["state"] == "CLOSED"
        assert state["in_flight"] == state["queue"] == state["connections"] == 0
        assert state["events"] == []
        assert state["memory"]["rss_bytes"] > 1_000_000
        assert state["pid"] == os.getpid()
        assert state["upstream"]["address"] == "127.0.0.1:8080"


def test_rates_are_of_the_last_ten_seconds() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        client = proxy.client()
        for _ in range(20):
            client.sends(get())
            proxy.upstream.sends(reply())
        proxy.advance(5)
        assert admin.state()["rates"] == dict.fromkeys(RATES, 0) | {"fresh": 4.0}
        admin.post("/api/circuit", "mode=open")
        for _ in range(10):
            client.sends(get())
        assert admin.state()["rates"]["stored"] == 2.0
        proxy.advance(12)
        assert set(admin.state()["rates"].values()) == {0}
        assert admin.state()["totals"]["stored"] == {"forced-open": 10}


def test_failures_are_told_apart_from_refusals() -> None:
    with admin_of(connect_hold_s=0) as admin:
        proxy = admin.proxy
        client = proxy.client(get())
        proxy.upstream.sends(reply(status="500 Oops"))
        proxy.upstream.resets()
        proxy.auto_accept = False
        client.sends(get())
        proxy.refuse()
        proxy.advance(1)
        assert admin.state()["rates"] == dict.fromkeys(RATES, 0) | {"failed": 2.0}


# Events


def events(data: bytes) -> list[tuple[str, dict[str, object]]]:
    """Take a chunked event stream apart."""
    _, _, body = data.partition(b"\r\n\r\n")
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    blocks = [block for block in text.decode().split("\n\n") if block.startswith("event:")]
    lines = [block.split("\n") for block in blocks]
    return [(a.removeprefix("event: "), loads(b.removeprefix("data: "))) for a, b in lines]


def listen(admin: FakeAdmin) -> FakePeer:
    peer = admin.connect()
    peer.sends(request("/api/events"))
    return peer


def test_listeners_are_told_the_state_every_second_and_a_transition_at_once() -> None:
    with admin_of() as admin:
        peer = listen(admin)
        (first,) = events(peer.received())
        assert first[0] == "state"
        assert first[1].keys() == admin.state().keys()
        admin.proxy.advance(3)
        data = b"\r\n\r\n" + peer.received()
        assert [name for name, _ in events(data)] == ["state"] * 3
        admin.post("/api/circuit", "mode=open")
        (name, event), (after, state) = events(b"\r\n\r\n" + peer.received())
        assert (name, after) == ("transition", "state")
        assert state["forced"] == "open", "who has asked for it sees it at once"
        assert (event["from"], event["to"], event["cause"]) == ("CLOSED", "OPEN", "forced-open")
        assert "an operator holds the circuit open" in str(event["words"])
        assert admin.state()["events"] == [event]
        assert admin.state()["totals"]["transitions"] == 1


def test_a_listener_that_does_not_read_is_dropped() -> None:
    with admin_of() as admin:
        peer = listen(admin)
        assert peer.transport.high > 0  # type: ignore[attr-defined]
        peer.received()
        peer.blocks()
        admin.proxy.advance(5)
        assert peer.received() == b"", "nothing is piled up"
        peer.unblocks()
        admin.proxy.advance(1)
        assert peer.received() != b""
        peer.blocks()
        admin.proxy.advance(WRITE_S + 1)
        assert peer.closed
        peer.resets()
        assert not admin.admin._listeners


def test_listeners_are_bounded() -> None:
    with admin_of() as admin:
        peers = [listen(admin) for _ in range(LISTENERS_MAX)]
        answer = admin.ask("/api/events")
        assert answer.status == 503
        assert "retry-after" in answer.fields
        peers[0].resets()
        assert b"200" in listen(admin).received()[:20]


# Steering


def test_a_held_circuit_is_let_go_in_time() -> None:
    with admin_of() as admin:
        answer = admin.post("/api/circuit", "mode=open&seconds=30")
        assert answer.json == {"state": "OPEN", "forced": "open", "forced_remaining_s": 30}
        admin.proxy.advance(10)
        assert admin.state()["forced_remaining_s"] == 20
        admin.proxy.advance(21)
        state = admin.state()
        assert (state["state"], state["forced"]) == ("LIMITING", None)


def test_a_circuit_is_held_for_a_quarter_of_an_hour_unless_told() -> None:
    with admin_of() as admin:
        assert admin.post("/api/circuit", "mode=observe").json["forced_remaining_s"] == 600
        assert admin.post("/api/circuit", "mode=auto").json["forced"] is None
        admin.proxy.advance(2)
        assert admin.state()["forced"] is None


def test_what_the_settings_ask_for_has_no_time_limit() -> None:
    with admin_of(circuit="closed") as admin:
        state = admin.state()
        assert (state["forced"], state["forced_remaining_s"]) == ("closed", None)


@pytest.mark.parametrize(
    "form",
    [
        "",
        "mode=",
        "mode=ajar",
        "mode=open&seconds=0",
        "mode=open&seconds=soon",
        "mode=open&seconds=nan",
        "mode=open&seconds=86401",
        "mode=open&mode=auto",
    ],
)
def test_wrong_orders_change_nothing(form: str) -> None:
    with admin_of() as admin:
        assert admin.post("/api/circuit", form).status == 400
        assert admin.state()["forced"] is None


def test_trips_have_the_figures_that_caused_them() -> None:
    with admin_of() as admin:
        admin.post("/api/circuit", "mode=open")
        (trip,) = admin.ask("/api/trips").json["trips"]
        assert trip["cause"] == "forced-open"
        assert trip["figures"]["in_flight"] == 0
        assert trip["breaker"]["mode"] == "open"


def test_draining_is_not_ready() -> None:
    with admin_of() as admin:
        assert admin.ask("/ready").status == 200
        admin.proxy.proxy.drain(admin.proxy.loop.now)
        assert admin.ask("/ready").status == 503
        assert admin.state()["draining"] is True


# Latencies and routes


def test_latencies_are_of_the_last_ten_seconds() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        client = proxy.client()
        for _ in range(10):
            client.sends(get("/slow/page"))
            proxy.advance(0.2)
            proxy.upstream.sends(reply())
        state = admin.state()
        assert 150 <= state["latency_ms"]["p50"] <= 200
        assert state["latency_ms"]["p99"] is None, "of ten answers none is the slowest per cent"
        (route,) = state["routes"]
        assert (route["route"], route["requests"], route["errors"]) == ("GET /slow/page", 10, 0)
        assert route["state"] == "CLOSED"
        proxy.advance(30)
        state = admin.state()
        assert state["latency_ms"] == {"p50": None, "p99": None}
        assert state["routes"] == []


def test_the_slowest_routes_come_first() -> None:
    with admin_of(connect_hold_s=0) as admin:
        proxy = admin.proxy
        client = proxy.client()
        for path, takes_s in (("/quick", 0.01), ("/slow", 0.4), ("/broken", 0.0)):
            client.sends(get(path))
            proxy.advance(takes_s)
            proxy.upstream.sends(reply(status="500 Oops" if path == "/broken" else "200 OK"))
        routes = [(route["route"], route["errors"]) for route in admin.state()["routes"]]
        assert routes == [("GET /broken", 1), ("GET /slow", 0), ("GET /quick", 0)]


def test_an_answer_in_pieces_counts_from_its_first_byte() -> None:
    with admin_of() as admin:
        proxy = admin.proxy
        client = proxy.client(get())
        proxy.advance(0.1)
        whole = reply(b"x" * 10)
        proxy.upstream.sends(whole[:-5])
        proxy.advance(0.9)
        proxy.upstream.sends(whole[-5:])
        client.sends(get())
        proxy.advance(0.1)
        proxy.upstream.sends(whole)
        breaker = proxy.services.breaker
        assert sum(breaker.latency().counts) == sum(breaker.first_byte_latency().counts) == 2
        assert breaker.latency().total == pytest.approx(1.1)
        assert breaker.first_byte_latency().total == pytest.approx(0.2)


def test_a_route_that_is_forgotten_leaves_its_counts() -> None:
    table = RouteTable(0.0, Baseline())
    for number in range(ROUTES_MAX):
        route = table.get(b"%d" % number, float(number))
        route.latency.add(1.0)
    table.get(b"0", 0.0).errors = 3
    assert table.get(b"new", 100.0) is table.other
    table.make_room()
    assert (sum(table.other.latency.counts), table.other.errors) == (1, 3)


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
    """Nesting that the decoder just accepts was too deep for the next step, which raised."""
    with admin_of() as admin:
        body = f'{{"mode": {pair[0] * depth}1{pair[1] * depth}}}'.encode()
        answer = admin.ask("/api/circuit", "POST", body, Content_Type="application/json")
        assert answer.status in (400, 413)


def test_a_body_that_is_asked_for_is_asked_for() -> None:
    """Whoever waited for the word to go on was dropped after ten seconds (RFC 9110, 10.1.1)."""
    with admin_of() as admin:
        peer = admin.connect()
        form = b"seconds=10"
        asked = request(
            "/api/pause",
            "POST",
            form,
            Expect="100-continue",
            Content_Type="application/x-www-form-urlencoded",
        )
        peer.sends(asked[: -len(form)])
        assert peer.received().startswith(b"HTTP/1.1 100 ")
        peer.sends(form)
        (answer,) = replies(peer.received())
        assert answer.json["paused"] is True
