"""A page that the application refuses after it was good is not shown again; masses are kept."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from retter.breaker import Mode, State
from retter.http.message import RequestHead, ResponseHead
from retter.process.withdrawal_log import AGAIN_S, WithdrawalLog
from retter.proxy.withdrawals import (
    CLIENT_PAGES_MAX,
    CLIENTS_MAX,
    HIDDEN_MAX,
    HIDDEN_S,
    MASS_PAGES_MIN,
    PAGES_MAX,
    WINDOW_S,
)
from tests.support.frameworks import Browser, encrypting_application
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply, status_of
from tests.support.site import Asked, page
from tests.support.site import Site as OtherSite

SESSION = {"Cookie": "PHPSESSID=abcdefghijklmnopqrstuvwxyz"}
TOKEN = {"Authorization": "Bearer 0123456789"}
STATUSES = {401: "401 Unauthorized", 403: "403 Forbidden", 404: "404 Not Found", 410: "410 Gone"}


class Site:
    """A site behind RETTER, and visitors who read it one request after the other."""

    def __init__(self, **settings: Any) -> None:
        self.fake = FakeProxy(**settings)
        self.visitors: dict[int, FakePeer] = {}

    @property
    def store(self) -> dict[str, int]:
        return self.fake.proxy.store.stats()

    def ask(
        self,
        path: str,
        status: str = "200 OK",
        headers: dict[str, str] | None = None,
        *,
        visitor: int = 1,
        says: dict[str, str] | None = None,
        method: str = "GET",
    ) -> bytes:
        """Let a visitor ask, and the application answer with that status."""
        if visitor not in self.visitors:
            self.visitors[visitor] = self.fake.client(peername=(f"192.0.2.{visitor}", 50000))
        client = self.visitors[visitor]
        self.fake.loop.now += 0.001
        client.sends(get(path, headers=headers).replace(b"GET", method.encode(), 1))
        body = f"page {path}".encode() if status[0] == "2" else b"no"
        self.fake.upstream.sends(reply(body, status=status, headers=says))
        return client.received()

    def in_need(self, path: str, headers: dict[str, str] | None = None) -> bytes:
        """Return what somebody gets whom the application fails."""
        client = self.fake.client(get(path, headers=headers), ("198.51.100.1", 50000))
        self.fake.upstream.sends(reply(b"broken", status="500 Oops"))
        return client.received()

    def has(self, path: str, headers: dict[str, str] | None = None) -> bool:
        """Whether there is a stored response for somebody."""
        request, identity = self.parsed(path, headers)
        found = self.fake.proxy.store.lookup(identity, request, self.fake.loop.now, superseded=True)
        return found is not None

    def parsed(self, path: str, headers: dict[str, str] | None = None) -> tuple[RequestHead, Any]:
        """Return what the store knows of a request."""
        proxy = self.fake.proxy
        parsed = proxy.parse(get(path, headers=headers), False, proxy.request_memo(False))
        return parsed.head, parsed.identity


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("headers", [{}, SESSION, TOKEN], ids=["nobody", "session", "token"])
def test_a_refused_page_is_not_shown_in_need(status: int, headers: dict[str, str]) -> None:
    site = Site()
    site.ask("/a", headers=headers)
    assert body_of(site.in_need("/a", headers)) == b"page /a"
    answer = site.ask("/a", STATUSES[status], headers)
    assert (status_of(answer), field(answer, "X-Retter")) == (status, "backend")
    assert status_of(site.in_need("/a", headers)) == 500
    assert site.store["withdrawn"] == 1


@pytest.mark.parametrize(("status", "left"), [(404, False), (410, False), (401, True), (403, True)])
def test_gone_is_gone_for_everyone_and_denied_for_the_asker(status: int, left: bool) -> None:
    site = Site()
    site.ask("/a", headers=SESSION)
    site.ask("/a")
    site.ask("/a", STATUSES[status], SESSION)
    assert site.has("/a") is left
    other = {"Cookie": "PHPSESSID=zyxwvutsrqponmlkjihgfedcba"}
    assert site.has("/a", other) is left, "the public page stands in for another one"
    assert site.has("/a", TOKEN) is False


@pytest.mark.parametrize("status", STATUSES)
def test_what_somebody_else_was_shown_stays_theirs(status: int) -> None:
    """A page may be refused to one visitor and not to another."""
    site = Site()
    site.ask("/a", headers=TOKEN)
    site.ask("/a")
    site.ask("/a", STATUSES[status])
    assert not site.has("/a")
    assert site.has("/a", TOKEN)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "odd", [
        TOKEN, {"X-HTTP-Method-Override": "PURGE"}, {"X-Requested-With": "XMLHttpRequest"},
        {"Accept": "application/json"}, {"Sec-Purpose": "prefetch"},
    ],
)  # fmt: skip
def test_what_a_request_would_not_have_been_shown_it_takes_from_nobody(
    status: int, odd: dict[str, str]
) -> None:
    site = Site()
    site.ask("/a")
    site.ask("/a", STATUSES[status], odd)
    assert site.has("/a")


@pytest.mark.parametrize("status", ["400 Bad", "405 No", "429 Slow Down", "451 No", "500 X"])
def test_other_errors_take_nothing_back(status: str) -> None:
    site = Site()
    site.ask("/a")
    site.ask("/a", status)
    assert site.has("/a")


@pytest.mark.parametrize("method", ["HEAD", "POST", "DELETE"])
def test_only_a_get_tells_what_a_get_would_show(method: str) -> None:
    """Some applications answer 404 to every HEAD."""
    site = Site()
    site.ask("/a")
    headers = {"Content-Length": "0"} if method != "HEAD" else None
    site.ask("/a", "404 Not Found", headers, method=method)
    assert site.has("/a")


def test_all_variants_and_forms_go() -> None:
    site = Site(compress=("gzip",))
    text = {"Vary": "Accept-Language", "Content-Type": "text/html"}
    for language in ("de", "fr"):
        site.ask("/a" + "a" * 400, headers={"Accept-Language": language}, says=text)
    assert site.store["entries"] == 2
    site.ask("/a" + "a" * 400, "404 Not Found", {"Accept-Language": "it"})
    for coding in ("gzip", "identity"):
        for language in ("de", "fr", "it"):
            wanted = {"Accept-Language": language, "Accept-Encoding": coding}
            assert not site.has("/a" + "a" * 400, wanted)
    site.fake.advance(HIDDEN_S + 2)
    assert site.store["entries"] == site.store["bytes_used"] == 0


def test_a_page_that_is_shown_again_is_stored_again() -> None:
    site = Site()
    for _ in range(3):
        site.ask("/a")
        assert site.has("/a")
        site.ask("/a", "404 Not Found")
        assert not site.has("/a")
    site.ask("/a", says={"ETag": '"2"'})
    site.fake.advance(HIDDEN_S + 2)
    assert site.has("/a")
    assert site.store["entries"] == 1


def test_another_variant_that_comes_back_leaves_the_rest_taken_back() -> None:
    site = Site()
    text = {"Vary": "Accept-Language"}
    for language in ("de", "fr"):
        site.ask("/a", headers={"Accept-Language": language}, says=text)
    site.ask("/a", "410 Gone", {"Accept-Language": "de"})
    site.ask("/a", headers={"Accept-Language": "de"}, says=text)
    assert site.has("/a", {"Accept-Language": "de"})
    assert not site.has("/a", {"Accept-Language": "fr"})
    assert site.store["entries"] == 1


def test_a_small_page_in_its_place_is_stored_at_once() -> None:
    """It is not compared with what was taken back."""
    site = Site()
    site.ask("/" + "a" * 400)
    site.ask("/" + "a" * 400, "404 Not Found")
    client = site.fake.client(get("/" + "a" * 400))
    site.fake.loop.now += 0.001
    site.fake.upstream.sends(reply(b"", headers={"ETag": '"2"'}))
    assert status_of(client.received()) == 200
    site.fake.loop.now += 0.001
    site.ask("/" + "a" * 400, says={"ETag": '"2"'})
    assert site.has("/" + "a" * 400)


def test_what_an_earlier_value_of_a_session_has_stored_is_taken_back_by_the_present_one() -> None:
    hidden: list[str] = []
    application = encrypting_application()

    def answer(asked: Asked) -> bytes:
        return page("no", status="403 No") if asked.path in hidden else application(asked)

    site = OtherSite(answer, rolling_cookies=("*_session",))
    ann = Browser(site)
    ann.post("/login?ann")
    for number in range(3):
        ann.get(f"/private/{number}")
    hidden.append("/private/1")
    assert ann.get("/private/1").status == 403
    site.goes_down()
    assert [ann.get(f"/private/{number}").stored for number in range(3)] == [True, False, True]


def test_an_answer_from_before_does_not_bring_it_back() -> None:
    """It was asked for while the page was there, and comes when it has been refused."""
    site = Site()
    site.ask("/a")
    late = site.fake.client(get("/a"))
    upstream = site.fake.upstream
    site.fake.advance(0.1)
    gone = site.fake.client(get("/a"))
    site.fake.upstream.sends(reply(b"no", status="404 Not Found"))
    upstream.sends(reply(b"page /a", headers={"ETag": '"new"'}))
    assert body_of(late.received()) == b"page /a"
    assert status_of(gone.received()) == 404
    assert not site.has("/a")


def test_a_304_says_that_it_is_there_after_all() -> None:
    site = Site()
    site.ask("/a", says={"ETag": '"1"'})
    site.ask("/a", "404 Not Found")
    site.ask("/a", "304 Not Modified", {"If-None-Match": '"1"'}, says={"ETag": '"1"'})
    assert site.has("/a")


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
def test_an_open_circuit_believes_no_refusal(state: State) -> None:
    """A failing application says many things: a route is missing, a login service is down."""
    site = Site()
    site.ask("/a")
    site.fake.proxy.breaker.state = state
    site.fake.proxy.withdrawals.refused(
        site.parsed("/a")[1], 404, site.fake.proxy.breaker.state, 1, site.fake.loop.now
    )
    assert site.has("/a")


def test_in_a_held_open_circuit_what_is_stored_stays() -> None:
    site = Site()
    site.ask("/a", says={"ETag": '"1"'})
    site.fake.proxy.breaker.set_mode(site.fake.loop.now, Mode.OPEN)
    # Not answered from the store: it has none for this credential.
    site.ask("/a", "404 Not Found", TOKEN)
    assert site.has("/a")


def test_variants_that_were_looked_up_meanwhile_are_given_back_too() -> None:
    site = Site()
    read(site, 10)
    text = {"Vary": "Accept-Language"}
    for language in ("de", "fr"):
        site.ask("/a", headers={"Accept-Language": language}, says=text)
    site.ask("/a", "404 Not Found", {"Accept-Language": "fr"})
    for language in ("de", "fr", "it"):
        assert not site.has("/a", {"Accept-Language": language})
    read(site, 10, "404 Not Found", visitor=3)
    for language in ("de", "fr"):
        assert site.has("/a", {"Accept-Language": language})
    assert not site.has("/a", {"Accept-Language": "it"})


# -- masses -----------------------------------------------------------------------------------


def read(site: Site, pages: int, status: str = "200 OK", **how: Any) -> None:
    """Let so many pages be asked for."""
    for number in range(pages):
        site.ask(f"/{number}", status, **how)


def kept(site: Site, pages: int) -> int:
    """Return how many of these pages there are stored responses of."""
    return sum(site.has(f"/{number}") for number in range(pages))


@pytest.mark.parametrize("pages", range(1, MASS_PAGES_MIN))
def test_a_small_site_may_take_back_some_pages(pages: int) -> None:
    """Nobody else is there."""
    site = Site()
    read(site, 10)
    read(site, pages, "404 Not Found")
    assert kept(site, 10) == 10 - pages
    assert not site.fake.proxy.withdrawals.mass


@pytest.mark.parametrize("status", [*STATUSES.values(), "400 Bad Request"])
def test_a_broken_deployment_takes_nothing_back(status: str) -> None:
    """The first pages are taken for withdrawn; with the fifth they are all back."""
    site = Site()
    read(site, 30)
    for number in range(30):
        site.ask(f"/{number}", status, visitor=number)
    assert kept(site, 30) == 30
    assert body_of(site.in_need("/0")) == b"page /0"


def test_a_broken_deployment_of_a_busy_site_takes_nothing_back() -> None:
    """What was good until then is a mass too, and hides it for the length of the window."""
    site = Site()
    pages = 60
    read(site, pages)
    for number in range(400):
        site.ask(f"/{number % pages}", visitor=number % 20)
    for second in range(int(WINDOW_S) + 2):
        for number in range(10):
            page = second * 5 + number % 5
            site.ask(f"/{page % pages}", "404 Not Found", visitor=number)
        site.fake.advance(1)
    assert kept(site, pages) == pages


def test_a_broken_deployment_of_a_quiet_site_takes_nothing_back() -> None:
    """A page every eight seconds: the window alone would never see five of them."""
    site = Site()
    read(site, 12)
    for number in range(12):
        site.fake.advance(8)
        site.ask(f"/{number}", "404 Not Found", visitor=number)
    assert kept(site, 12) == 12


def test_many_pages_of_a_busy_site_may_be_taken_back() -> None:
    """An editor removes ten pages while a hundred are read."""
    site = Site()
    read(site, 110)
    for number in range(10, 110):
        site.ask(f"/{number}", visitor=number % 7)
    read(site, 10, "410 Gone")
    assert kept(site, 110) == 100
    assert site.store["withdrawn"] == 10
    assert not site.fake.proxy.withdrawals.mass


def test_pages_taken_back_at_other_times_are_no_mass() -> None:
    site = Site()
    read(site, 20)
    for number in range(10):
        site.ask(f"/{number}", "404 Not Found", visitor=number)
        site.fake.advance(WINDOW_S)
        site.ask("/19", visitor=3)
    assert kept(site, 10) == 0


def test_one_page_asked_for_by_many_is_one_page() -> None:
    """All have their own copies, and all are refused."""
    site = Site()
    sessions = [{"Cookie": f"PHPSESSID={n:026}"} for n in range(8)]
    for number, session in enumerate(sessions):
        site.ask("/a", headers=session, visitor=number)
    for number, session in enumerate(sessions):
        site.ask("/a", "404 Not Found", session, visitor=number)
    assert not any(site.has("/a", session) for session in sessions)


def test_after_a_mass_pages_may_be_taken_back_again() -> None:
    site = Site()
    read(site, 20)
    read(site, 20, "404 Not Found", visitor=3)
    assert kept(site, 20) == 20
    site.fake.advance(2 * WINDOW_S)
    read(site, 20)
    site.ask("/0", "404 Not Found")
    assert kept(site, 20) == 19


def test_what_was_taken_back_long_before_a_mass_stays_so() -> None:
    site = Site()
    read(site, 20)
    site.ask("/0", "404 Not Found")
    site.fake.advance(WINDOW_S + 2)
    site.ask("/1")
    for number in range(1, 20):
        site.ask(f"/{number}", "404 Not Found", visitor=number)
    assert kept(site, 20) == 19
    assert not site.has("/0")


@pytest.mark.parametrize("purge", ["purge", "logout"])
def test_what_is_removed_meanwhile_is_not_given_back(purge: str) -> None:
    site = Site()
    for number in range(10):
        site.ask(f"/{number}", headers=SESSION)
    for number in range(MASS_PAGES_MIN - 1):
        site.ask(f"/{number}", "403 Forbidden", SESSION, visitor=number)
    if purge == "purge":
        site.fake.proxy.store.purge()
    else:
        _, identity = site.parsed("/0", SESSION)
        site.fake.proxy.store.drop_owner(identity.owner, site.fake.loop.now)
    for number in range(10):
        site.ask(f"/{number}", "404 Not Found", SESSION, visitor=number)
    assert not any(site.has(f"/{number}", SESSION) for number in range(10))


# -- a client that is shut out -------------------------------------------------------------------


def test_a_client_that_gets_nothing_but_refusals_takes_nothing_back() -> None:
    """A firewall has shut a scanner out, which goes through the site; others read on."""
    site = Site()
    read(site, 40)
    for number in range(40):
        site.ask(f"/{number}", "403 Forbidden", visitor=66)
        for n in range(8):
            site.ask(f"/{39 - n}", visitor=n)
    read(site, 8, visitor=5)
    assert kept(site, 40) == 40
    assert not site.fake.proxy.withdrawals.mass


def test_a_client_that_is_answered_well_between_is_believed() -> None:
    site = Site()
    pages = CLIENT_PAGES_MAX + 3
    read(site, 60)
    for number in range(pages):
        site.ask(f"/{number}", "404 Not Found")
        for n in range(8):
            site.ask(f"/{40 + n}")
    assert kept(site, pages) == 0


# -- bounds ---------------------------------------------------------------------------------------


def test_what_is_remembered_is_bounded() -> None:
    fake = FakeProxy()
    proxy, now = fake.proxy, fake.loop.now
    withdrawals = proxy.withdrawals
    site = Site()
    site.fake = fake
    for number in range(HIDDEN_MAX + 100):
        head, identity = site.parsed(f"/{number}")
        proxy.store.put(identity, head, good_head(fake), b"x", now, now)
        withdrawals.confirmed += 100
        assert withdrawals.refused(identity, 404, State.CLOSED, number + 1, now)
    assert len(withdrawals._hidden) == HIDDEN_MAX
    assert proxy.store.stats()["entries"] == HIDDEN_MAX
    assert withdrawals.pages == PAGES_MAX
    assert len(withdrawals.clients) == CLIENTS_MAX
    fake.advance(HIDDEN_S + 2)
    assert proxy.store.stats()["entries"] == len(withdrawals._hidden) == withdrawals.pages == 0


def good_head(fake: FakeProxy) -> ResponseHead:
    """Return the head of a good answer."""
    return fake.proxy._response_parser.parse(reply(b"x").removesuffix(b"x"))


def test_the_log_says_once_that_pages_are_kept() -> None:
    site = Site()
    told = WithdrawalLog(site.fake.proxy)
    site.fake.proxy.on_second.append(told.on_second)
    read(site, 20)
    with capture_logs() as records:
        for second in range(40):
            for number in range(20):
                site.ask(f"/{number}", "404 Not Found", visitor=second % 9)
            site.fake.advance(1)
    assert [record["event"] for record in records] == ["refused-pages-kept"]
    assert records[0]["of"] >= records[0]["pages"] >= MASS_PAGES_MIN
    with capture_logs() as records:
        site.fake.advance(AGAIN_S + WINDOW_S)
        read(site, 20)
        for number in range(20):
            site.ask(f"/{number}", "404 Not Found", visitor=number)
        site.fake.advance(1)
    assert len(records) == 1
