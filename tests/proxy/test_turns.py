"""Turns, bytes in and bytes out: the waiting page, its ticket, and known visitors."""

import re
from pathlib import Path
from typing import Any

import pytest

from retter.breaker.permit import HEAVY, KNOWN, STRANGER
from retter.proxy.waiting_page import WORDS
from retter.store.known_sessions import GIVEN_MAX, ISSUED, KEPT, KEPT_S
from tests.support.descriptors import without_descriptors
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of

BROWSER = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}
NOBODY_LOOKS = [
    {"Sec-Purpose": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender"},
    {"Purpose": "prefetch"},
    {"X-Moz": "prefetch"},
    {"X-Requested-With": "XMLHttpRequest"},
    {"HX-Request": "true"},
    {"Turbo-Frame": "cart"},
]
WAIT_S = 2.0


def full(**settings: Any) -> FakeProxy:
    """Return a proxy whose application has one place, and that is taken."""
    proxy = FakeProxy(max_in_flight=1, **settings)
    proxy.client(get("/takes-the-place"), ("198.51.100.1", 1))
    return proxy


def frees(proxy: FakeProxy) -> None:
    """The application answers what it has, and has a place again."""
    proxy.upstreams[0].sends(reply(b"done"))
    proxy.settle()


def told_to_wait(
    proxy: FakeProxy, headers: dict[str, str] | None = None, address: str = "192.0.2.7"
) -> bytes:
    """Ask for a page that is not stored, until the wait is over; return the answer."""
    visitor = proxy.client(get("/page", headers={**BROWSER, **(headers or {})}), (address, 2))
    proxy.advance(WAIT_S + 0.1)
    return visitor.received()


def ticket_of(answer: bytes) -> str:
    """Return the cookie that an answer gives, as a browser sends it back."""
    given = field(answer, "Set-Cookie")
    assert given is not None
    return given.partition(";")[0]


def lane_of_next(proxy: FakeProxy, request: bytes, address: str = "192.0.2.7") -> int:
    """Ask while there is no place, and return the lane."""
    before = set(proxy.services.breaker.all_waiting())
    proxy.client(request, (address, 3))
    (permit,) = set(proxy.services.breaker.all_waiting()) - before
    return permit.lane


def sent_upstream(peer: FakePeer) -> bytes:
    """Return what the application has got since it was looked at last."""
    return peer.received()


# --- the page ---


def test_who_finds_no_place_gets_a_page_that_comes_again() -> None:
    """503, with a ticket, and nothing of it is to be stored."""
    proxy = full()
    answer = told_to_wait(proxy)
    assert status_of(answer) == 503
    again = field(answer, "Refresh")
    assert again == "2", "the wait so far counts: two to four seconds after the first try"
    assert field(answer, "Retry-After") == again
    assert field(answer, "Cache-Control") == "no-store"
    assert field(answer, "Content-Type") == "text/html; charset=utf-8"
    policy = field(answer, "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert f"animation:w {again}s linear".encode() in body_of(answer), "the bar takes as long"
    assert WORDS["en"].title.encode() in body_of(answer)
    assert field(answer, "Content-Length") == str(len(body_of(answer)))
    given = field(answer, "Set-Cookie")
    assert given is not None
    assert re.fullmatch(
        r"retter_turn=[\w-]{32}; Max-Age=1[12]\d; Path=/; HttpOnly; SameSite=Lax", given
    )
    frees(proxy)
    assert proxy.services.store.stats()["entries"] == 1, "of the other page"


@pytest.mark.parametrize("app", ["full", "gone"])
def test_without_a_descriptor_to_read_the_page_with_a_visitor_is_told_as_programs_are(
    monkeypatch: pytest.MonkeyPatch, app: str
) -> None:
    without_descriptors(monkeypatch, "retter.proxy.waiting_page")
    if app == "full":
        answer = told_to_wait(full())
    else:
        proxy = FakeProxy(connect_hold_s=0.0)
        proxy.auto_accept = False
        client = proxy.client(get("/page", headers=BROWSER))
        proxy.refuse()
        answer = client.received()
    assert status_of(answer) == (503 if app == "full" else 502)
    assert field(answer, "Set-Cookie") is None and field(answer, "Refresh") is None


def test_without_a_descriptor_to_prove_a_ticket_with_it_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = full()
    ticket = {**BROWSER, "Cookie": ticket_of(told_to_wait(proxy))}
    with monkeypatch.context() as patch:
        without_descriptors(patch, "hmac")
        assert lane_of_next(proxy, get("/page", headers=ticket)) == STRANGER
    assert lane_of_next(proxy, get("/page", headers=ticket)) == KNOWN


@pytest.mark.parametrize(
    ("trusted", "proto", "secure"),
    [
        ("192.0.2.7", "https", True),
        ("192.0.2.7", "HTTPS, http", True),
        ("192.0.2.7", "http", False),
        ("", "https", False),
    ],
)
def test_a_ticket_stays_on_https_where_the_proxy_in_front_speaks_it(
    trusted: str, proto: str, secure: bool
) -> None:
    """As the cookies of the application behind such a proxy; nobody else is believed."""
    proxy = full(trusted_proxies=trusted)
    answer = told_to_wait(proxy, {"X-Forwarded-Proto": proto})
    assert (field(answer, "Set-Cookie") or "").endswith("; Secure") is secure


def test_who_is_told_to_wait_at_once_comes_again_after_two_to_four_seconds() -> None:
    """Nobody may stand in line here."""
    proxy = full(queue_max=0)
    visitor = proxy.client(get("/page", headers=BROWSER), ("192.0.2.7", 2))
    again = field(visitor.received(), "Refresh")
    assert again is not None
    assert 2 <= int(again) <= 4


def test_the_page_speaks_the_visitors_language() -> None:
    """As far as it can."""
    answer = told_to_wait(full(), {"Accept-Language": "de-CH,fr;q=0.5"})
    assert WORDS["de"].title.encode() in body_of(answer)


def test_who_comes_again_keeps_the_ticket_until_there_is_a_place() -> None:
    """Then it gets the place, before requests that came later."""
    proxy = full()
    ticket = ticket_of(told_to_wait(proxy))
    again = told_to_wait(proxy, {"Cookie": ticket})
    assert status_of(again) == 503
    assert ticket_of(again) == ticket, "the time of the first try counts"
    stranger = proxy.client(get("/stranger", headers=BROWSER), ("203.0.113.5", 4))
    visitor = proxy.client(get("/page", headers={**BROWSER, "Cookie": ticket}), ("192.0.2.7", 5))
    proxy.upstreams[0].received()
    frees(proxy)
    assert sent_upstream(proxy.upstreams[0]).startswith(b"GET /page HTTP/1.1\r\n")
    proxy.upstreams[0].sends(reply(b"the page"))
    assert body_of(visitor.received()) == b"the page"
    proxy.upstreams[0].sends(reply(b"for the stranger"))
    assert body_of(stranger.received()) == b"for the stranger"
    proxy.assert_at_rest()


def test_the_application_never_sees_the_ticket() -> None:
    """Nor does the store: who waited shares the page with all others."""
    proxy = full()
    ticket = ticket_of(told_to_wait(proxy))
    frees(proxy)
    proxy.upstreams[0].received()
    visitor = proxy.client(get("/page", headers={"Cookie": ticket}))
    seen = sent_upstream(proxy.upstreams[0])
    assert b"retter_turn" not in seen
    assert b"ookie" not in seen
    proxy.upstreams[0].sends(reply(b"the page"))
    assert body_of(visitor.received()) == b"the page"
    with_another = get("/page", headers={"Cookie": f"seen=1; {ticket}; theme=dark"})
    proxy.client(with_another)
    assert b"\r\nCookie: seen=1; theme=dark\r\n" in sent_upstream(proxy.upstreams[0])
    proxy.upstreams[0].sends(reply(b"the page"))
    other = proxy.client(get("/page"), ("203.0.113.9", 9))
    proxy.upstreams[0].received()
    proxy.upstreams[0].sends(reply(b"oops", status="500 Internal Server Error"))
    assert body_of(other.received()) == b"the page", "it was stored for everyone"


@pytest.mark.parametrize(("address", "lane"), [("192.0.2.7", KNOWN), ("192.0.2.8", STRANGER)])
def test_a_ticket_is_good_at_its_own_address(address: str, lane: int) -> None:
    """Copied to others it is worth nothing."""
    proxy = full()
    ticket = ticket_of(told_to_wait(proxy))
    proxy.advance(0.3)
    assert lane_of_next(proxy, get("/page", headers={**BROWSER, "Cookie": ticket}), address) == lane


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "image/avif,image/webp,*/*;q=0.8", "Sec-Fetch-Mode": "no-cors"},
        {"Accept": "*/*", "Sec-Fetch-Mode": "cors"},
        {"Accept": "text/html", "Sec-Fetch-Mode": "cors"},
        {},
        *({**BROWSER, **fields} for fields in NOBODY_LOOKS),
    ],
)
def test_what_else_a_browser_asks_for_does_not_use_its_ticket_up(headers: dict[str, str]) -> None:
    """The icon of the waiting page, the pictures of a page in another tab."""
    proxy = full()
    ticket = ticket_of(told_to_wait(proxy))
    proxy.advance(0.3)
    part = get("/favicon.ico", headers={**headers, "Cookie": ticket})
    assert lane_of_next(proxy, part, "192.0.2.7") == STRANGER
    page = get("/page", headers={**BROWSER, "Cookie": ticket})
    assert lane_of_next(proxy, page, "192.0.2.7") == KNOWN


def test_a_page_with_a_stored_response_does_not_use_a_ticket_up() -> None:
    """It has something to answer with; the page that waits has not."""
    proxy = FakeProxy(max_in_flight=1)
    proxy.client(get("/read", headers=BROWSER))
    proxy.upstream.sends(reply(b"read before"))
    proxy.client(get("/takes-the-place"), ("198.51.100.1", 1))
    ticket = ticket_of(told_to_wait(proxy))
    headers = {**BROWSER, "Cookie": ticket}
    assert lane_of_next(proxy, get("/read", headers=headers), "192.0.2.7") == STRANGER
    assert lane_of_next(proxy, get("/page", headers=headers), "192.0.2.7") == KNOWN


def test_an_address_of_ipv6_is_its_first_half() -> None:
    """Whoever has one of the second half has all of them."""
    proxy = full()
    ticket = ticket_of(told_to_wait(proxy, address="2001:db8::1"))
    again = get("/page", headers={**BROWSER, "Cookie": ticket})
    assert lane_of_next(proxy, again, "2001:db8::ffff") == KNOWN
    elsewhere = get("/p2", headers={**BROWSER, "Cookie": ticket})
    assert lane_of_next(proxy, elsewhere, "2001:db8:0:1::1") == (STRANGER)


def test_a_ticket_is_used_up_by_the_place_that_it_brings() -> None:
    """A thousand copies of it gain one."""
    proxy = full()
    ticket = ticket_of(told_to_wait(proxy))
    headers = {**BROWSER, "Cookie": ticket}
    lanes = [lane_of_next(proxy, get(f"/{n}", headers=headers)) for n in range(4)]
    assert lanes[0] == KNOWN
    assert KNOWN not in lanes[1:]
    frees(proxy)
    assert lane_of_next(proxy, get("/5", headers=headers)) != KNOWN


def test_an_app_that_names_itself_with_each_page_shows_pages() -> None:
    """Browsers inside of apps on Android send X-Requested-With for what a person looks at."""
    answer = told_to_wait(full(), {"X-Requested-With": "com.example.reader"})
    assert ticket_of(answer)


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json"},
        {"Accept": "image/avif,*/*"},
        {"Accept": "text/html", "Sec-Fetch-Mode": "cors"},
        {},
        *({"Accept": "text/html", **fields} for fields in NOBODY_LOOKS),
    ],
)
def test_programs_get_what_they_got_before(headers: dict[str, str]) -> None:
    """503 with Retry-After, and no cookie."""
    proxy = full()
    program = proxy.client(get("/page", headers=headers))
    proxy.advance(WAIT_S + 0.1)
    answer = program.received()
    assert status_of(answer) == 503
    assert field(answer, "Retry-After") in ("2", "3", "4")
    assert field(answer, "Set-Cookie") is None
    assert field(answer, "Refresh") is None


def test_the_operators_page_takes_its_place(tmp_path: Path) -> None:
    """With a ticket: it comes again as that page says."""
    page = tmp_path / "oops.html"
    page.write_text("<p>Busy")
    answer = told_to_wait(full(error_page=str(page)))
    assert body_of(answer) == b"<p>Busy"
    assert field(answer, "Refresh") is None
    assert ticket_of(answer)


def test_a_pause_shows_the_page_without_a_ticket() -> None:
    """There is no line to stand in."""
    proxy = FakeProxy()
    proxy.services.breaker.circuit.pause(proxy.loop.now, proxy.loop.now + 300)
    visitor = proxy.client(get("/page", headers=BROWSER))
    proxy.advance(51)
    answer = visitor.received()
    assert status_of(answer) == 503
    assert field(answer, "Set-Cookie") is None
    assert int(field(answer, "Refresh") or 0) >= 1
    assert WORDS["en"].place.encode() not in body_of(answer)


@pytest.mark.parametrize("fairness", ["off", "observe"])
def test_switched_off_nothing_is_different(fairness: str) -> None:
    """The old text, no cookie; and a cookie of that name is the application's."""
    proxy = full(fairness=fairness)
    answer = told_to_wait(proxy)
    assert b"<h1>503 Service Unavailable</h1>" in answer
    assert field(answer, "Refresh") is None
    assert field(answer, "Set-Cookie") is None
    frees(proxy)
    proxy.upstreams[0].received()
    proxy.client(get("/page", headers={"Cookie": "retter_turn=abc"}))
    assert b"\r\nCookie: retter_turn=abc\r\n" in sent_upstream(proxy.upstreams[0])


# --- who is known ---


def test_who_has_a_session_that_the_application_set_is_known() -> None:
    """A client with an invented session is not."""
    session = "PHPSESSID=0123456789abcdef0123456789abcdef"
    proxy = FakeProxy(max_in_flight=1)
    proxy.client(get("/login"))
    proxy.upstream.sends(reply(headers={"Set-Cookie": f"{session}; path=/"}))
    proxy.client(get("/takes-the-place"))
    proxy.client(get("/waits"), ("192.0.2.9", 1))  # and so the circuit limits
    assert lane_of_next(proxy, get("/mine", headers={"Cookie": session}), "192.0.2.9") == KNOWN
    made_up = {"Cookie": "PHPSESSID=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
    assert lane_of_next(proxy, get("/other", headers=made_up), "192.0.2.9") == STRANGER
    both = {"Cookie": f"{session}; PHPSESSID2=x; auth_token={'b' * 40}"}
    assert lane_of_next(proxy, get("/third", headers=both), "192.0.2.9") == KNOWN


def test_a_session_that_is_in_use_is_remembered_though_its_pages_are_plain() -> None:
    """However many a crawler is given meanwhile. It counts from its second page on."""
    session = "PHPSESSID=0123456789abcdef0123456789abcdef"
    proxy = FakeProxy(compress=())
    client = proxy.client(get("/login"))
    proxy.upstream.sends(reply(headers={"Set-Cookie": f"{session}; path=/"}))
    for path in ("/one", "/two"):
        client.sends(get(path, headers={"Cookie": session}))
        proxy.upstream.sends(reply(b"plain"))
    known = proxy.services.owner_rules.seen.known
    for mark in range(GIVEN_MAX + 1):
        known.given(mark)
    parsed = proxy.services.heads.parse(
        get("/", headers={"Cookie": session}),
        False,
        proxy.services.heads.request_memos[False, b"http"],
    )
    assert known.standing_of(parsed.identity.marks, 0.0)[0] == ISSUED


def test_a_session_that_was_not_seen_to_be_set_is_known_once_it_has_had_pages_for_a_while() -> None:
    proxy = FakeProxy(compress=())
    headers = {"Cookie": "PHPSESSID=0123456789abcdef0123456789abcdef"}
    client = proxy.client()
    known = proxy.services.owner_rules.seen.known
    found: list[int] = []
    for path in ("/one", "/two", "/three"):
        client.sends(get(path, headers=headers))
        proxy.upstream.sends(reply(b"plain"))
        found.append(len(known))
    assert found == [0, 1, 1], "who makes up one for each request takes no place"
    request_memo = proxy.services.heads.request_memos[False, b"http"]
    parsed = proxy.services.heads.parse(get("/", headers=headers), False, request_memo)
    assert known.standing_of(parsed.identity.marks, proxy.loop.now + KEPT_S)[0] == KEPT


def test_a_crawler_by_its_own_word_waits_behind_all_others() -> None:
    """Unless the operator says that nobody is one."""
    agent = {"User-Agent": "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)"}
    for crawlers, lane in (("auto", HEAVY), ("off", STRANGER), ("auto,mybot", HEAVY)):
        proxy = full(crawlers=crawlers)
        told_to_wait(proxy)
        assert lane_of_next(proxy, get("/crawled", headers=agent)) == lane
    proxy = full(crawlers="auto,mybot")
    told_to_wait(proxy)
    assert lane_of_next(proxy, get("/c", headers={"User-Agent": "MyBot/1"})) == HEAVY


def test_who_asks_is_not_found_out_while_there_is_enough_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request of good times costs nothing more."""
    proxy = FakeProxy()
    monkeypatch.setattr(proxy.services.turns, "asker_of", None)
    for number in range(5):
        client = proxy.client(get(f"/{number}"))
        proxy.upstream.sends(reply(b"fresh"))
        assert body_of(client.received()) == b"fresh"
