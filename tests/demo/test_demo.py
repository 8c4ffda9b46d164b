"""The demonstration shop: its database by a hand-driven clock, its pages, its wire, its life."""

import asyncio
import heapq
import itertools
import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.demo import cli, load, pages, terminal
from retter.demo.database import (
    BIMODAL_MS,
    COLLAPSE_FACTOR_MAX,
    Database,
    Result,
    capacity_rps,
    collapse_factor,
    mean_service_s,
)
from retter.demo.knobs import Condition, Knobs, Model
from retter.demo.messages import EventStream, Reply
from retter.demo.messages import Request as ShopRequest
from retter.demo.server import Clock, ShopConnection, ShopServer
from retter.demo.shop import SESSIONS_MAX, Shop
from tests.support.loops import plain_loop, uv_loop

# No test waits for so long when all is well; it is what a machine under load may need at worst.
PATIENCE_S = 30.0


class Timers:
    """`loop.call_later` with a clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []

    def later(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._order), callback, args))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._due and self._due[0][0] <= end + 1e-9:
            self.now, _, callback, args = heapq.heappop(self._due)
            callback(*args)
        self.now = end


class Bench:
    """A database by a hand-driven clock, and when its jobs ended."""

    def __init__(self, **knobs: Any) -> None:
        self.timers = Timers()
        start = Knobs().changed(knobs)
        self.database = Database(start, later=self.timers.later, random=random.Random(3))
        self.ended: list[tuple[float, str, Result]] = []

    def submit(self, name: str, path: str = "/", queries: int = 1) -> None:
        def done(result: Result) -> None:
            self.ended.append((round(self.timers.now, 6), name, result))

        self.database.submit(path, queries, done)

    def turn(self, **knobs: Any) -> None:
        self.database.turn(self.database.knobs.changed(knobs))


class TestDatabase:
    def test_works_first_come_first_served_with_so_many_connections(self) -> None:
        bench = Bench(connections=2, service_ms=100)
        for name in "abcde":
            bench.submit(name)
        bench.timers.advance(1)
        done = [(when, name) for when, name, _ in bench.ended]
        assert done == [(0.1, "a"), (0.1, "b"), (0.2, "c"), (0.2, "d"), (0.3, "e")]
        assert bench.database.figures.longest_queue == 3
        assert bench.database.figures.most_inside == 5

    def test_a_page_holds_its_connection_for_all_its_queries(self) -> None:
        bench = Bench(connections=1, service_ms=100)
        bench.submit("two", queries=2)
        bench.submit("one")
        bench.timers.advance(1)
        assert [when for when, _, _ in bench.ended] == [0.2, 0.3]
        assert bench.database.figures.queries == 3

    def test_refuses_beyond_its_backlog(self) -> None:
        bench = Bench(connections=1, service_ms=100, backlog=1)
        for name in "abc":
            bench.submit(name)
        assert bench.ended == [(0.0, "c", Result.REFUSED)]
        bench.timers.advance(1)
        assert [(name, result) for _, name, result in bench.ended[1:]] == [
            ("a", Result.DONE),
            ("b", Result.DONE),
        ]

    def test_the_refusal_may_take_its_time(self) -> None:
        bench = Bench(connections=1, service_ms=100, backlog=0, overflow_ms=5)
        bench.submit("a")
        bench.submit("b")
        assert bench.ended == []
        bench.timers.advance(1)
        assert bench.ended == [(0.005, "b", Result.REFUSED), (0.1, "a", Result.DONE)]
        assert bench.database.figures.in_work == 0

    def test_a_refusal_on_its_way_dies_with_the_application(self) -> None:
        bench = Bench(connections=1, service_ms=100, backlog=0, overflow_ms=5)
        bench.submit("a")
        bench.submit("b")
        bench.database.die()
        bench.timers.advance(1)
        assert bench.ended == []

    def test_more_connections_take_effect_at_once(self) -> None:
        bench = Bench(connections=1, service_ms=100)
        for name in "abc":
            bench.submit(name)
        bench.turn(connections=3)
        bench.timers.advance(0.1)
        assert len(bench.ended) == 3

    def test_slow_multiplies_the_time_of_what_begins(self) -> None:
        bench = Bench(service_ms=100, condition="slow", slow_factor=5)
        bench.submit("a")
        bench.timers.advance(1)
        assert bench.ended == [(0.5, "a", Result.DONE)]

    def test_what_hangs_ends_when_the_application_no_longer_does(self) -> None:
        bench = Bench(connections=1, service_ms=100, condition="hung")
        bench.submit("a")
        bench.submit("b")
        bench.timers.advance(20)
        assert bench.ended == []
        assert bench.database.figures.in_work == 1
        bench.turn(condition="healthy")
        bench.timers.advance(1)
        assert [(when, name) for when, name, _ in bench.ended] == [(20.0, "a"), (20.1, "b")]

    def test_failing_fails_its_share(self) -> None:
        bench = Bench(connections=1000, condition="failing", failing_share=0.25)
        for name in range(1000):
            bench.submit(str(name))
        bench.timers.advance(1)
        failed = sum(result is Result.FAILED for _, _, result in bench.ended)
        assert failed == bench.database.figures.failed
        assert 200 < failed < 300

    def test_single_routes_are_slow_or_fail(self) -> None:
        bench = Bench(service_ms=100, slow_routes_ms={"/search": 2000}, failing_routes={"/cart": 1})
        bench.submit("plain", "/product/1")
        bench.submit("slow", "/search")
        bench.submit("fails", "/cart")
        bench.timers.advance(5)
        assert bench.ended == [
            (0.1, "plain", Result.DONE),
            (0.1, "fails", Result.FAILED),
            (2.1, "slow", Result.DONE),
        ]

    def test_the_dead_forget_all_work(self) -> None:
        bench = Bench(connections=1, service_ms=100)
        bench.submit("a")
        bench.submit("b")
        bench.database.die()
        bench.submit("c")
        bench.timers.advance(1)
        assert [name for _, name, _ in bench.ended] == ["c"]
        assert (bench.database.figures.in_work, bench.database.figures.waiting) == (0, 0)

    def test_reset_keeps_what_is_inside(self) -> None:
        bench = Bench(connections=1)
        for name in "abc":
            bench.submit(name)
        bench.database.reset_figures()
        figures = bench.database.figures
        assert (figures.in_work, figures.waiting, figures.longest_queue) == (1, 2, 2)

    @pytest.mark.parametrize("model", [Model.EXPONENTIAL, Model.LOGNORMAL, Model.FIXED])
    def test_the_models_have_the_service_time_as_their_mean(self, model: Model) -> None:
        bench = Bench(connections=10_000, service_ms=50, model=model)
        for name in range(10_000):
            bench.submit(str(name))
        bench.timers.advance(100)
        mean = sum(when for when, _, _ in bench.ended) / len(bench.ended)
        assert mean == pytest.approx(0.05, rel=0.1)

    def test_the_bimodal_model_is_mostly_short(self) -> None:
        bench = Bench(connections=10_000, model="bimodal")
        for name in range(10_000):
            bench.submit(str(name))
        bench.timers.advance(1)
        short = sum(when < 0.01 for when, _, _ in bench.ended)
        assert 7_800 < short < 8_200
        assert {when for when, _, _ in bench.ended} == {ms / 1000 for ms in BIMODAL_MS}
        assert mean_service_s(bench.database.knobs) == pytest.approx(0.164)

    def test_capacity(self) -> None:
        assert capacity_rps(Knobs(connections=8, service_ms=50)) == pytest.approx(160)
        assert capacity_rps(Knobs(service_ms=0)) == float("inf")

    def test_without_service_time_pages_are_made_at_once(self) -> None:
        bench = Bench(service_ms=0, model="exponential")
        bench.submit("a")
        bench.timers.advance(0)
        assert bench.ended == [(0.0, "a", Result.DONE)]

    def test_collapse_begins_beyond_twice_the_connections_and_ends_somewhere(self) -> None:
        assert collapse_factor(16, 8) == 1
        assert collapse_factor(40, 8) == 2.5
        assert collapse_factor(100_000, 8) == COLLAPSE_FACTOR_MAX

    @pytest.mark.parametrize(("burst", "stays_down"), [(False, False), (True, True)])
    def test_a_collapsed_application_stays_down_under_a_load_it_could_carry(
        self, burst: bool, stays_down: bool
    ) -> None:
        bench = Bench(connections=8, service_ms=50, model="collapse")
        arrivals = random.Random(5)
        offered = 0.0
        if burst:
            for name in range(400):
                bench.submit(f"burst {name}")
        while offered < 30:  # 0.7 of the capacity of 160 a second
            gap = arrivals.expovariate(112)
            bench.timers.advance(gap)
            offered += gap
            bench.submit("later")
        assert (bench.database.figures.waiting > 400) is stays_down

    @given(
        st.lists(
            st.one_of(
                st.just(("submit", 0.0)),
                st.tuples(st.just("advance"), st.floats(0, 0.2)),
                st.tuples(st.sampled_from(["healthy", "hung", "slow", "failing"]), st.just(0.0)),
                st.just(("die", 0.0)),
            ),
            max_size=80,
        ),
        st.sampled_from(list(Model)),
    )
    def test_every_page_ends_once_unless_the_process_died(
        self, steps: list[tuple[str, float]], model: Model
    ) -> None:
        bench = Bench(connections=3, backlog=4, model=model)
        begun = lost = 0
        for step, seconds in steps:
            figures = bench.database.figures
            match step:
                case "submit":
                    bench.submit(str(begun))
                    begun += 1
                case "advance":
                    bench.timers.advance(seconds)
                case "die":
                    lost += figures.in_work + figures.waiting
                    bench.database.die()
                case condition:
                    bench.turn(condition=condition)
            assert 0 <= figures.in_work <= 3
            assert figures.waiting <= 4
        bench.turn(condition="healthy")
        bench.timers.advance(3600)
        assert len(bench.ended) == len({name for _, name, _ in bench.ended}) == begun - lost


class TestKnobs:
    def test_read_what_they_write(self) -> None:
        knobs = Knobs().changed({"model": "lognormal", "backlog": 4, "failing_routes": {"/x": 1}})
        assert Knobs().changed(json.loads(json.dumps(knobs.as_json()))) == knobs

    def test_take_the_texts_of_a_form(self) -> None:
        knobs = Knobs().changed({"connections": "3", "service_ms": "7.5", "backlog": ""})
        assert (knobs.connections, knobs.service_ms, knobs.backlog) == (3, 7.5, None)

    @pytest.mark.parametrize(
        "wish",
        [
            {"nonsense": 1},
            {"connections": 0},
            {"connections": "many"},
            {"service_ms": float("nan")},
            {"service_ms": -1},
            {"model": "square"},
            {"condition": "tired"},
            {"overflow_status": 404},
            {"overflow_ms": -1},
            {"failing_status": 404},
            {"failing_share": 1.1},
            {"backlog": -1},
            {"slow_routes_ms": [1]},
            {"slow_routes_ms": {str(n): 1 for n in range(65)}},
            {"connections": None},
        ],
    )
    def test_name_what_is_wrong(self, wish: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wish))):
            Knobs().changed(wish)


class Visitor:
    """Asks a shop without any wire; its database needs no time."""

    def __init__(self) -> None:
        self.timers = Timers()
        database = Database(Knobs(service_ms=0), later=self.timers.later, random=random.Random(1))
        self.shop = Shop(database, now_ms=lambda: 1_700_000_000_123)
        self.cookie = b""

    def ask(self, method: str, target: str, *, body: str = "", **fields: str) -> Reply:
        path, _, query = target.partition("?")
        named = {name.replace("_", "-").encode(): v.encode() for name, v in fields.items()}
        if self.cookie:
            named[b"cookie"] = b"other=1; " + self.cookie
        request = ShopRequest(method, path, query, named, body.encode())
        page = self.shop.bypass(request) or self.shop.page(request)
        made = page.make()
        assert isinstance(made, Reply)
        cookie = dict(made.fields).get(b"Set-Cookie")
        if cookie is not None:
            self.cookie = b"" if b"Max-Age=0" in cookie else cookie.partition(b";")[0]
        return made

    def get(self, target: str, **fields: str) -> Reply:
        return self.ask("GET", target, **fields)

    def post(self, target: str, body: str = "", **fields: str) -> Reply:
        return self.ask("POST", target, body=body, **fields)


def field(reply: Reply, name: bytes) -> bytes:
    return dict(reply.fields)[name]


class TestShop:
    @pytest.mark.parametrize(
        "target", ["/", "/category/books", "/product/500", "/search", "/search?q=quiet+teapot",
                   "/cart", "/login", "/about"]
    )  # fmt: skip
    def test_has_pages(self, target: str) -> None:
        reply = Visitor().get(target)
        assert reply.status == 200
        assert reply.body.startswith(b"<!doctype html>")
        assert reply.body.endswith(b"</html>")

    @pytest.mark.parametrize(
        "target", ["/nothing", "/product/501", "/product/0", "/product/x", "/product/99999",
                   "/category/cars", "/api/product/0"]
    )  # fmt: skip
    def test_does_not_have_others(self, target: str) -> None:
        assert Visitor().get(target).status == 404

    def test_every_link_of_the_start_page_leads_somewhere(self) -> None:
        visitor = Visitor()
        links = [part.partition(b'"')[0] for part in visitor.get("/").body.split(b'href="')[1:]]
        assert len(links) > 15
        assert {visitor.get(link.decode()).status for link in links} == {200}

    def test_other_methods_and_forms_are_refused(self) -> None:
        visitor = Visitor()
        assert visitor.ask("DELETE", "/cart").status == 405
        assert visitor.post("/product/1").status == 404

    def test_a_page_says_when_and_by_which_query_it_was_made(self) -> None:
        body = Visitor().get("/product/1").body
        assert b"Made at 22:13:20.123 UTC by query no. 0" in body
        assert b'data-made="1700000000123"' in body

    def test_login_shows_the_name_and_makes_pages_private_until_logout(self) -> None:
        visitor = Visitor()
        assert visitor.get("/").fields == ()
        reply = visitor.post("/login", "name=%3Cb%3EAnn")
        assert (reply.status, field(reply, b"Location")) == (303, b"/")
        page = visitor.get("/")
        assert b"Hello, <b>&lt;b&gt;Ann</b>" in page.body
        assert b"no-store" in field(page, b"Cache-Control")
        visitor.post("/logout")
        assert visitor.cookie == b""
        assert b"Hello" not in visitor.get("/").body

    def test_login_takes_a_new_session_key_and_keeps_the_cart(self) -> None:
        visitor = Visitor()
        visitor.post("/cart/add", "product=3")
        before = visitor.cookie
        visitor.post("/login", "name=Ann")
        assert visitor.cookie != before
        assert b"Cart (1)" in visitor.get("/").body
        visitor.cookie = before
        assert b"Cart (1)" not in visitor.get("/").body

    def test_a_login_without_a_name_is_asked_again(self) -> None:
        assert field(Visitor().post("/login", "name=+"), b"Location") == b"/login"

    def test_the_cart(self) -> None:
        visitor = Visitor()
        for product in (3, 3, 4):
            reply = visitor.post("/cart/add", f"product={product}")
            assert (reply.status, field(reply, b"Location")) == (303, b"/cart")
        body = visitor.get("/cart").body
        assert pages.CATALOGUE[3].name.encode() in body
        cents = 2 * pages.CATALOGUE[3].cents + pages.CATALOGUE[4].cents
        assert f"{cents // 100}.{cents % 100:02d} €".encode() in body
        visitor.post("/cart/empty")
        assert b"It is empty" in visitor.get("/cart").body
        assert visitor.post("/cart/add", "product=9999").status == 404
        assert visitor.post("/cart/add", "&".join(f"a{n}=1" for n in range(200))).status == 404

    def test_sessions_are_bounded(self) -> None:
        visitor = Visitor()
        visitor.post("/cart/add", "product=1")
        first = visitor.cookie
        for _ in range(SESSIONS_MAX):
            visitor.cookie = b""
            visitor.post("/cart/add", "product=1")
        visitor.cookie = first
        assert b"Cart (1)" not in visitor.get("/").body

    @pytest.mark.parametrize("target", ["/about", "/static/shop.css", "/api/product/7"])
    def test_what_stays_the_same_has_an_entity_tag(self, target: str) -> None:
        visitor = Visitor()
        reply = visitor.get(target)
        tag = field(reply, b"ETag").decode()
        assert reply.body
        known = visitor.get(target, if_none_match=f'"other", {tag}')
        assert (known.status, known.body, field(known, b"ETag").decode()) == (304, b"", tag)
        assert visitor.get(target, if_none_match='"other"').status == 200

    def test_the_events_tell_the_figures(self) -> None:
        shop = Visitor().shop
        made = shop.page(ShopRequest("GET", "/events", "", {})).make()
        assert isinstance(made, EventStream)
        assert made.event(4).startswith(b"id: 4\nevent: stats\ndata: {")
        assert made.event(4).endswith(b"}\n\n")

    def test_failures_are_pages_too(self) -> None:
        shop = Visitor().shop
        request = ShopRequest("GET", "/", "", {})
        assert shop.failed(request, Result.FAILED).status == 500
        refused = shop.failed(request, Result.REFUSED)
        assert refused.status == 503
        assert b"DB error: too many connections" in refused.body

    def test_knobs_are_turned_by_json_and_by_form(self) -> None:
        visitor = Visitor()
        turned = visitor.post("/knobs.json", '{"connections": 3}')
        assert json.loads(turned.body)["connections"] == 3
        assert visitor.shop.database.knobs.connections == 3
        assert visitor.post("/knobs", "condition=slow&service_ms=5").status == 303
        assert visitor.shop.database.knobs.condition is Condition.SLOW
        assert b"The application is slow" in visitor.get("/knobs").body
        assert json.loads(visitor.get("/knobs.json").body)["service_ms"] == 5

    @pytest.mark.parametrize("body", ["{", "[1]", '{"connections": 0}', '{"x": 1}'])
    def test_wrong_knobs_are_refused_with_the_reason(self, body: str) -> None:
        visitor = Visitor()
        reply = visitor.post("/knobs.json", body)
        assert reply.status == 400
        assert json.loads(reply.body)["error"]
        assert visitor.shop.database.knobs == Knobs(service_ms=0)
        assert visitor.post("/knobs", "connections=0").status == 400
        said = json.loads(visitor.post("/knobs.json", "condition=slow").body)["error"]
        assert said == 'the body is not JSON, as {"condition": "slow"}'

    @pytest.mark.parametrize(
        ("fields", "allowed"),
        [
            ({}, True),
            ({"origin": "http://127.0.0.1:8090", "host": "127.0.0.1:8090"}, True),
            ({"origin": "http://evil.example", "host": "127.0.0.1:8090"}, False),
            ({"x_forwarded_for": "203.0.113.9"}, False),
            ({"x_forwarded_for": "127.0.0.1, 203.0.113.9"}, False),
            ({"x_forwarded_for": "unknown"}, False),
            ({"x_forwarded_for": "203.0.113.9, ::1"}, True),
        ],
    )
    def test_only_this_machine_turns_knobs(self, fields: dict[str, str], allowed: bool) -> None:
        visitor = Visitor()
        assert (visitor.post("/knobs.json", "{}", **fields).status == 200) is allowed
        assert (visitor.post("/knobs", "", **fields).status == 303) is allowed

    def test_figures_are_counted_anew_after_a_post(self) -> None:
        visitor = Visitor()
        visitor.shop.served.gets = 5
        assert json.loads(visitor.post("/stats.json").body)["gets"] == 5
        assert json.loads(visitor.get("/stats.json").body)["gets"] == 0


class FakeTransport(asyncio.Transport):
    """Keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True

    abort = close


class FixedClock(Clock):
    """Half past ten, for ever."""

    def now_ms(self) -> int:
        return 1_700_000_000_123

    def date(self) -> bytes:
        return b"Tue, 14 Nov 2023 22:13:20 GMT"


class Wire:
    """A connection to a shop over a fake transport, with the database's clock driven by hand."""

    def __init__(self, **knobs: Any) -> None:
        self.timers = Timers()
        database = Database(
            Knobs().changed(knobs), later=self.timers.later, random=random.Random(1)
        )
        clock = FixedClock()
        self.server = ShopServer(Shop(database, now_ms=clock.now_ms), clock)
        self.served = self.server.shop.served
        self.transport = FakeTransport()
        self.connection = ShopConnection(self.server)
        self.connection.connection_made(self.transport)

    def sends(self, data: bytes) -> None:
        self.connection.data_received(data)


GET = b"GET /product/7 HTTP/1.1\r\nHost: shop\r\n\r\n"
POST_BODY = b"product=7"
POST = b"POST /nothing HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n\r\n%b" % (
    len(POST_BODY),
    POST_BODY,
)


class TestWire:
    def test_an_answer(self) -> None:
        wire = Wire(service_ms=20)
        wire.sends(GET)
        assert wire.transport.sent == b""
        wire.timers.advance(0.02)
        head, _, body = wire.transport.sent.partition(b"\r\n\r\n")
        assert head.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
        assert b"X-Gen: 1700000000123" in head
        assert b"Content-Length: %d" % len(body) in head
        assert body.endswith(b"</html>")

    @given(st.sets(st.integers(1, len(GET + POST) - 1)))
    def test_read_boundaries_change_nothing(self, cuts: set[int]) -> None:
        def served(places: list[int]) -> bytes:
            wire = Wire(service_ms=0)
            for request in (GET, POST):
                start = 0
                for place in [p for p in places if p < len(request)] + [len(request)]:
                    wire.sends(request[start:place])
                    start = place
                wire.timers.advance(0)
            return wire.transport.sent

        assert served(sorted(cuts)) == served([])

    def test_head_has_the_head_alone(self) -> None:
        wire = Wire()
        wire.sends(GET.replace(b"GET", b"HEAD"))
        wire.timers.advance(1)
        assert wire.transport.sent.endswith(b"\r\n\r\n")
        assert b"Content-Length: 0" not in wire.transport.sent

    def test_close_and_http_1_0_close(self) -> None:
        for request in (
            b"GET /login HTTP/1.0\r\n\r\n",
            b"GET /login HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n",
        ):
            wire = Wire()
            wire.sends(request)
            assert wire.transport.sent.startswith(b"HTTP/1.1 200 OK")
            assert wire.transport.closed

    def test_what_was_abandoned_is_worked_off_and_counted(self) -> None:
        wire = Wire()
        wire.sends(GET)
        wire.connection.connection_lost(None)
        wire.timers.advance(1)
        assert (wire.served.gets, wire.served.answered, wire.served.answered_gone) == (1, 1, 1)
        assert wire.transport.sent == b""

    def test_posts_are_counted_as_such(self) -> None:
        wire = Wire()
        wire.sends(POST)
        assert (wire.served.gets, wire.served.posts) == (0, 1)

    def test_knobs_and_figures_are_not_counted(self) -> None:
        wire = Wire()
        wire.sends(b"GET /stats.json HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert json.loads(wire.transport.sent.partition(b"\r\n\r\n")[2])["gets"] == 0
        assert wire.served.answered == 0

    def test_too_much_is_refused(self) -> None:
        wire = Wire()
        wire.sends(b"POST /cart/add HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n")
        wire.sends(b"x" * 99_999)
        assert wire.transport.sent.startswith(b"HTTP/1.1 413 ")
        assert wire.transport.closed

    def test_nonsense_is_refused(self) -> None:
        wire = Wire()
        wire.sends(b"nonsense\r\n\r\n")
        assert wire.transport.sent.startswith(b"HTTP/1.1 400 ")
        assert wire.transport.closed

    def test_expectations_are_met(self) -> None:
        wire = Wire()
        wire.sends(
            b"POST /cart/add HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert wire.transport.sent == b"HTTP/1.1 100 \r\n\r\n"

    def test_the_control_port_serves_no_shop(self) -> None:
        wire = Wire()
        control = ShopConnection(wire.server, bypass_only=True)
        transport = FakeTransport()
        control.connection_made(transport)
        control.data_received(GET)
        assert transport.sent.startswith(b"HTTP/1.1 404 ")
        assert wire.served.gets == 0


@pytest.mark.parametrize("factory", [plain_loop, uv_loop])
class TestSockets:
    def on_loop(
        self,
        factory: Callable[[], asyncio.AbstractEventLoop],
        scenario: Callable[[ShopServer, int, int], Coroutine[Any, Any, None]],
    ) -> None:
        async def main() -> None:
            clock = Clock()
            database = Database(
                Knobs(service_ms=1),
                later=asyncio.get_running_loop().call_later,
                random=random.Random(1),
            )
            server = ShopServer(Shop(database, now_ms=clock.now_ms), clock)
            port = await server.start("127.0.0.1", 0)
            control = await server.start_control("127.0.0.1", 0)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await scenario(server, port, control)
            finally:
                await server.stop()

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    def test_pipelined_requests_are_answered_in_order(
        self, factory: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def scenario(server: ShopServer, port: int, control: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            numbers = [5, 4, 3, 2, 1]
            writer.write(
                b"".join(b"GET /api/product/%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in numbers)
            )
            for number in numbers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                assert json.loads(await reader.readexactly(length))["number"] == number
            writer.close()

        self.on_loop(factory, scenario)

    def test_events_come_as_they_happen(
        self, factory: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def scenario(server: ShopServer, port: int, control: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"text/event-stream" in head
            assert b"id: 1\n" in await reader.readuntil(b"\n\n")
            writer.close()

        self.on_loop(factory, scenario)

    def test_the_dead_refuse_and_come_back(
        self, factory: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        async def turn(port: int, knobs: str) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = "POST /knobs.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            writer.write(f"{request}Content-Length: {len(knobs)}\r\n\r\n{knobs}".encode())
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()

        async def accepts(port: int) -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return False
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            return True

        async def until(wanted: bool, port: int) -> None:
            while True:  # the test's own time-out ends it
                if await accepts(port) is wanted:
                    return
                await asyncio.sleep(0.01)

        async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionResetError):  # or an end, when nothing was left to read
                assert await reader.read() == b""
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

        async def scenario(server: ShopServer, port: int, control: int) -> None:
            client = await asyncio.open_connection("127.0.0.1", port)
            await turn(port, '{"condition": "dead", "dead_for_s": 3600}')
            await until(False, port)
            await ends(*client)
            # By hand, at the port that outlives it ...
            await turn(control, '{"condition": "healthy"}')
            await until(True, port)
            # ... or by itself.
            client = await asyncio.open_connection("127.0.0.1", port)
            await turn(port, '{"condition": "dead", "dead_for_s": 0.2}')
            await ends(*client)
            await until(True, port)
            assert server.shop.database.knobs.condition is Condition.HEALTHY

        self.on_loop(factory, scenario)


class TestCommandLine:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (":80", ("127.0.0.1", 80)),
            ("localhost:1", ("localhost", 1)),
            ("[::1]:9", ("::1", 9)),
        ],
    )
    def test_addresses(self, text: str, expected: tuple[str, int]) -> None:
        assert terminal.address(text) == expected

    @pytest.mark.parametrize("text", ["", "80", ":x", ":70000", "host:"])
    def test_wrong_addresses(self, text: str) -> None:
        with pytest.raises(ValueError, match="HOST:PORT"):
            terminal.address(text)

    @pytest.mark.parametrize(
        "arguments", [["--listen", "nowhere"], ["--connections", "0"], ["--service-ms", "x"]]
    )
    def test_a_wrong_flag_is_one_line_and_exit_code_2(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_a_busy_port_is_one_line_and_exit_code_1(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            assert cli.main(["--listen", f"127.0.0.1:{port}"]) == 1
        assert capsys.readouterr().err.count("\n") == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_says_where_it_listens_and_ends_by_a_signal(self, number: signal.Signals) -> None:
        flags = ["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--service-ms", "1"]
        command = [sys.executable, "-m", "retter.demo", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            shop = process.stdout.readline().strip().removeprefix("demo listening on ")
            knobs = process.stdout.readline().strip().removeprefix("knobs at ")
            assert fetch(f"{shop}/product/1")[0] == 200
            assert fetch(f"{shop}/static/shop.css")[1] == pages.STYLE_SHEET
            assert b"The application is healthy" in fetch(knobs)[1]
            assert fetch(knobs.removesuffix("/knobs"))[0] == 404
            process.send_signal(number)
            assert process.wait(PATIENCE_S) == 0

    def test_together_they_come_and_go_as_one(self, tmp_path: Path) -> None:
        anywhere = "127.0.0.1:0"
        # A port alone is one of this machine: nobody else is to see the shop break.
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        flags = ["--with-proxy", f":{port}", "--listen", anywhere, "--control", anywhere]
        flags += ["--store", str(tmp_path / "store")]
        command = [sys.executable, "-m", "retter.demo", *flags, "--service-ms", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            urls: dict[str, str] = {}
            said = ""
            for line in process.stdout:
                name, _, url = line.strip().rpartition(" ")
                urls[name.strip()] = url
                said += line
                if name.startswith("Ctrl-C ends"):
                    break
            proxy, shop = urls["The shop, through RETTER"], urls["The shop without RETTER"]
            assert fetch(f"{proxy}/product/1")[0] == fetch(f"{shop}/product/1")[0] == 200
            assert fetch(urls["Its knobs and figures"])[0] == 200
            assert _listens_on(port) == {"0100007F"}
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0
        listen, upstream = (url.removeprefix("http://") for url in (proxy, shop))
        alone = f" --listen {listen} --upstream {upstream} --store {tmp_path / 'store'}\n"
        assert "start RETTER alone" in said and alone in said
        assert (tmp_path / "store" / "data.mdb").exists()
        for url in (proxy, shop):
            with pytest.raises(URLError):
                fetch(url)

    def test_together_they_do_not_start_where_somebody_is(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            place = f"127.0.0.1:{taken.getsockname()[1]}"
            ended = ended_demo("--with-proxy", "127.0.0.1:0", "--listen", place)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert f"cannot listen on {place}" in ended.stderr

    def test_another_program_on_the_port_is_not_taken_for_retter(self) -> None:
        anywhere = "127.0.0.1:0"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            place = f"127.0.0.1:{taken.getsockname()[1]}"
            ended = ended_demo("--with-proxy", place, "--listen", anywhere, "--control", anywhere)
        assert ended.returncode == 1
        assert ended.stdout == ""
        assert f"another program listens on {place}" in ended.stderr


def ended_demo(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run the demonstration until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "retter.demo", *flags],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def _listens_on(port: int) -> set[str]:
    """The addresses of listening sockets with this port, as the kernel writes them (proc(5))."""
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            host, _, own = line.split()[1].partition(":")
            if line.split()[3] == "0A" and int(own, 16) == port:
                found.add(host)
    return found


def fetch(url: str) -> tuple[int, bytes]:
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(url), timeout=PATIENCE_S) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--conections", "5"], "--conections 5; did you mean --connections?"),
        (["demo", "--conn", "5"], "--conn 5; did you mean --connections?"),
        (["demo", "now"], "now; see retter demo --help"),
        (["load", "http://127.0.0.1:1", "--sec=4"], "--sec=4; did you mean --seconds?"),
        (["load", "http://127.0.0.1:1", "--secnds=4"], "--secnds=4; did you mean --seconds?"),
        (["load", "http://127.0.0.1:1", "now"], "now; see retter load --help"),
    ],
)
def test_an_unknown_argument_gets_a_hint(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = {"demo": cli.main, "load": load.main}[arguments[0]]
    assert run(arguments[1:]) == 2
    wanted = f"retter {arguments[0]}: unrecognized arguments: {said}\n"
    assert capsys.readouterr().err == wanted
