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
    DOUBT_KEY_BYTES_MAX,
    DOUBT_S,
    DOUBTS_MAX,
    HIDDEN_MAX,
    HIDDEN_S,
    LOOKED_AT_MAX,
    MASS_PAGES_MIN,
    PAGES_MAX,
    REFUTED_MAX,
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
        return self.fake.services.store.stats()

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
        found = self.fake.services.store.lookup(
            identity, request, self.fake.loop.now, superseded=True
        )
        return found is not None

    def parsed(self, path: str, headers: dict[str, str] | None = None) -> tuple[RequestHead, Any]:
        """Return what the store knows of a request."""
        services = self.fake.services
        parsed = services.heads.parse(
            get(path, headers=headers), False, services.heads.request_memos[False, b"http"]
        )
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


@pytest.mark.parametrize(
    "location", ["/login?next=/a", "https://shop.example/users/sign_in", "//sso.example/auth?x=1"]
)
def test_a_page_behind_a_login_now_is_gone_in_all_variants(location: str) -> None:
    phone = {"User-Agent": "Mozilla/5.0 (iPhone) Mobile/15E148"}
    site = Site()
    for headers in (phone, SESSION, {}):
        site.ask("/a", headers=headers)
    site.ask("/a", "302 Found", says={"Location": location})
    assert not site.has("/a")
    assert not site.has("/a", phone), "the redirect replaces one variant alone"
    assert site.has("/a", SESSION), "whoever is logged in"
    site.ask("/a", "302 Found", SESSION, says={"Location": location})
    assert not site.has("/a", SESSION), "and whose session has expired"
    site.ask("/a", "302 Found", says={"Location": location})
    assert site.in_need("/a").startswith(b"HTTP/1.1 302"), "then it is what is stored"


def test_a_page_that_has_moved_is_stored_in_its_other_variants() -> None:
    site = Site()
    phone = {"User-Agent": "Mozilla/5.0 (iPhone) Mobile/15E148"}
    for headers in (phone, {}):
        site.ask("/a", headers=headers)
    site.ask("/a", "302 Found", says={"Location": "/blog/in"})
    assert site.has("/a")
    assert site.in_need("/a", phone).startswith(b"HTTP/1.1 200")


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


@pytest.mark.parametrize("client", [1, 2], ids=["believed at once", "doubted first"])
def test_an_answer_from_before_does_not_bring_it_back(client: int) -> None:
    """It was asked for while the page was there, and comes when it has been refused."""
    site = Site()
    site.ask("/a")
    late = site.fake.client(get("/a"))
    upstream = site.fake.upstream
    site.fake.advance(0.1)
    gone = site.fake.client(get("/a"), (f"192.0.2.{client}", 50001))
    site.fake.upstream.sends(reply(b"no", status="404 Not Found"))
    upstream.sends(reply(b"page /a", headers={"ETag": '"new"'}))
    assert body_of(late.received()) == b"page /a"
    assert status_of(gone.received()) == 404
    assert site.has("/a") is (client == 2)
    site.fake.advance(DOUBT_S + 2)
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
    site.fake.services.breaker.circuit.state = state
    site.fake.services.withdrawals.refused(
        site.parsed("/a")[1], 404, site.fake.services.breaker.circuit.state, 1, site.fake.loop.now
    )
    assert site.has("/a")


def test_in_a_held_open_circuit_what_is_stored_stays() -> None:
    site = Site()
    site.ask("/a", says={"ETag": '"1"'})
    site.fake.services.breaker.circuit.set_mode(site.fake.loop.now, Mode.OPEN)
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
    assert not site.fake.services.withdrawals.mass


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
    """Many good answers until then hide the refusals for the length of the window."""
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
    assert not site.fake.services.withdrawals.mass


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
        site.fake.services.store.invalidation.purge()
    else:
        _, identity = site.parsed("/0", SESSION)
        site.fake.services.store.invalidation.drop_owner(identity.owner, site.fake.loop.now)
    for number in range(10):
        site.ask(f"/{number}", "404 Not Found", SESSION, visitor=number)
    assert not any(site.has(f"/{number}", SESSION) for number in range(10))


# -- a refusal that concerns its client alone ------------------------------------------------------

ODD = {"User-Agent": "sqlmap/1.8", "Referer": "https://spam.example/"}


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("headers", [ODD, {}, SESSION], ids=["odd", "blocked", "session"])
def test_one_client_hides_no_page_that_others_read(status: int, headers: dict[str, str]) -> None:
    """A firewall plugin refuses it for its address or User-Agent, again and again."""
    site = Site()
    site.ask("/a")
    for _ in range(3):
        assert status_of(site.ask("/a", STATUSES[status], headers, visitor=66)) == status
        assert body_of(site.in_need("/a")) == b"page /a"
    assert site.store["withdrawn"] == 0


def test_the_client_may_have_read_it_as_well() -> None:
    """First it asks like everybody, so that the last good answer is its own."""
    site = Site()
    site.ask("/a")
    for _ in range(3):
        site.ask("/a", visitor=66)
        site.ask("/a", "403 Forbidden", ODD, visitor=66)
    assert site.has("/a")


def test_a_page_that_is_read_every_few_seconds_is_never_hidden_by_one_client() -> None:
    site = Site()
    for second in range(60):
        if second % 8 == 0:
            site.ask("/a", visitor=1 + second % 3)
        site.ask("/a", "403 Forbidden", ODD, visitor=66)
        site.fake.advance(1)
        assert site.has("/a")


@pytest.mark.parametrize("second", [1, 2], ids=["who had it", "another one"])
@pytest.mark.parametrize("status", STATUSES)
def test_a_second_client_that_is_refused_ends_the_doubt(status: int, second: int) -> None:
    site = Site()
    site.ask("/a")
    site.ask("/a", STATUSES[status], visitor=3)
    assert site.has("/a")
    site.ask("/a", STATUSES[status], visitor=second)
    assert not site.has("/a")


def test_a_good_answer_ends_the_doubt_the_other_way() -> None:
    """Two clients that are refused one after the other, and it is there between."""
    site = Site()
    for visitor in range(2, 10):
        site.ask("/a")
        site.ask("/a", "404 Not Found", visitor=visitor)
        assert site.has("/a")


def test_a_304_is_a_good_answer() -> None:
    site = Site()
    site.ask("/a", says={"ETag": '"1"'})
    site.ask("/a", "404 Not Found", visitor=2)
    site.ask("/a", "304 Not Modified", {"If-None-Match": '"1"'}, says={"ETag": '"1"'}, visitor=3)
    site.ask("/a", "404 Not Found", visitor=4)
    assert site.has("/a")


def test_a_page_that_nobody_has_had_since_is_taken_back_after_ten_seconds() -> None:
    """The bound: DOUBT_S after the last good answer that another client had, and the tick."""
    site = Site()
    site.ask("/a")
    site.fake.advance(DOUBT_S - 4)
    site.ask("/a", "410 Gone", visitor=2)
    site.fake.advance(3)
    assert site.has("/a")
    site.fake.advance(2)
    assert not site.has("/a")
    assert site.store["withdrawn"] == 1
    site.fake.advance(HIDDEN_S + 2)
    assert site.store["entries"] == 0


def test_long_after_the_last_good_answer_one_refusal_is_enough() -> None:
    site = Site()
    site.ask("/a")
    site.fake.advance(DOUBT_S)
    site.ask("/a", "404 Not Found", visitor=2)
    assert not site.has("/a")


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN])
def test_while_nobody_can_get_a_good_answer_no_time_ends_a_doubt(state: State) -> None:
    site = Site()
    site.ask("/a")
    site.ask("/a", "403 Forbidden", ODD, visitor=66)
    withdrawals, now = site.fake.services.withdrawals, site.fake.loop.now
    withdrawals.advance(now + 10 * DOUBT_S, state)
    assert site.has("/a")
    withdrawals.advance(now + 10 * DOUBT_S, State.CLOSED)
    assert not site.has("/a")


def test_what_is_ones_own_is_taken_back_by_one_refusal() -> None:
    """A client with the session is its owner, whatever its address; the public page needs more."""
    site = Site()
    site.ask("/a", headers=SESSION)
    site.ask("/a")
    site.ask("/a", "404 Not Found", SESSION, visitor=2)
    assert site.has("/a")
    request, identity = site.parsed("/a", SESSION)
    found = site.fake.services.store.peek(identity, request, site.fake.loop.now)
    assert found[1], "everyone's is what is left"


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("shared", [{"Cookie": "lang=de"}, {"X-App": "shop"}])
def test_one_client_hides_no_page_of_visitors_who_send_the_same(
    shared: dict[str, str], status: int
) -> None:
    site = Site()
    site.ask("/a", headers=shared)
    for _ in range(3):
        site.ask("/a", STATUSES[status], {**shared, **ODD}, visitor=66)
        if "X-App" in shared and status == 401:  # it may be a credential that was revoked
            assert not site.has("/a", shared)
            return
        assert body_of(site.in_need("/a", shared)) == b"page /a"
    site.ask("/a", STATUSES[status], shared)
    assert not site.has("/a", shared)


def test_clients_without_addresses_are_one() -> None:
    site = Site()
    for visitor in (1, 2):
        site.visitors[visitor] = site.fake.client(peername="")
    site.ask("/a")
    site.ask("/a", "404 Not Found", visitor=2)
    assert not site.has("/a")


def test_who_is_shut_out_leaves_no_doubt_behind() -> None:
    site = Site()
    read(site, 40)
    for number in range(CLIENT_PAGES_MAX + 1):
        site.ask(f"/{number}", "403 Forbidden", visitor=66)
        for n in range(6):
            site.ask(f"/{39 - n}", visitor=n)
    site.fake.advance(DOUBT_S + 2)
    assert kept(site, 40) == 40


def test_doubts_are_bounded() -> None:
    site = Site()
    withdrawals, now = site.fake.services.withdrawals, site.fake.loop.now
    long = "/" + "a" * DOUBT_KEY_BYTES_MAX
    paths = [long, *[f"/{number}" for number in range(DOUBTS_MAX + 10)]]
    for client, path in enumerate(paths, 2):
        head, identity = site.parsed(path)
        site.fake.services.store.put(identity, head, good_head(site.fake), b"x", now, now, client=1)
        withdrawals.confirmed += 100
        assert not withdrawals.refused(identity, 404, State.CLOSED, client, now + 0.001)
    assert len(withdrawals._doubts) == DOUBTS_MAX
    assert site.has("/0")
    assert site.has(long)


def test_who_is_refused_what_others_are_given_hides_nothing_any_more() -> None:
    """It goes through pages that nobody has read for a while."""
    site = Site()
    read(site, 30)
    site.fake.advance(DOUBT_S + 1)
    for number in range(REFUTED_MAX + 4):
        site.ask(f"/{number}", "403 Forbidden", ODD, visitor=66)
        for n in range(10):
            site.ask(f"/{20 + n}", visitor=2)
    assert kept(site, 30) == 30 - REFUTED_MAX - 4
    for number in range(REFUTED_MAX - 1):
        site.ask(f"/{number}", visitor=3)
    site.fake.advance(2)
    assert kept(site, 30) == 30 - 5, "so many may be those of an editor"
    site.ask(f"/{REFUTED_MAX - 1}", visitor=3)
    site.fake.advance(2)
    assert kept(site, 30) == 30
    site.fake.advance(DOUBT_S + 1)
    site.ask("/10", "403 Forbidden", ODD, visitor=66)
    site.fake.advance(DOUBT_S + 2)
    assert site.has("/10"), "not by its refusal alone"
    site.ask("/10", "404 Not Found", visitor=66)
    site.ask("/10", "404 Not Found", visitor=4)
    assert not site.has("/10")
    site.fake.advance(HIDDEN_S + 2)
    site.ask("/11", "404 Not Found", visitor=66)
    assert not site.has("/11"), "a minute later it may speak for itself again"


def test_pages_that_others_are_given_again_are_looked_for_little_by_little() -> None:
    site = Site()
    many = LOOKED_AT_MAX + 3
    withdrawals, now = site.fake.proxy.services.withdrawals, site.fake.loop.now
    store = site.fake.proxy.services.store
    for number in range(many):
        head, identity = site.parsed(f"/{number}")
        store.put(identity, head, good_head(site.fake), b"x", now, now, client=1)
        withdrawals.confirmed += 100
        client = 7 if number >= many - 3 else 1000 + number
        assert withdrawals.refused(identity, 404, State.CLOSED, client, now + 20)
    for number in range(many - 3, many):
        head, identity = site.parsed(f"/{number}")
        store.put(identity, head, good_head(site.fake), b"x", now + 21, now + 21, client=1)
    withdrawals.advance(now + 22, State.CLOSED)
    assert not withdrawals._is_refuted(7)
    withdrawals.advance(now + 23, State.CLOSED)
    assert withdrawals._is_refuted(7)
    assert len(withdrawals._hidden) == many - 3


# -- one URL of many ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "asked", "refused", "left"),
    [
        ({"ignore_query": True}, "/a", "/a?page=9999", True),
        ({"ignore_query": True}, "/a?b=1", "/a?b=2", True),
        ({"ignore_query": True}, "/a?b=1", "/a?b=1", False),
        ({"ignore_query": True}, "/a?b=1", "/a", False),  # nothing in it is ignored
        ({"ignore_params": ("utm_*",)}, "/a?b=1&utm_id=1", "/a?b=1&utm_id=%00", True),
        ({"ignore_params": ("utm_*",)}, "/a?b=1&utm_id=1", "/a?b=1", False),
        ({"ignore_params": ("utm_*",)}, "/a?b=1", "/a?b=1", False),
    ],
)
@pytest.mark.parametrize("status", STATUSES)
def test_another_query_takes_nothing_back(
    status: int, rule: dict[str, Any], asked: str, refused: str, left: bool
) -> None:
    site = Site(**rule)
    site.ask(asked)
    site.ask(refused, STATUSES[status])
    assert site.has(asked) is left


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("host", "left"), [("evil.example", True), ("SHOP.example", False)])
def test_another_host_takes_nothing_back(status: int, host: str, left: bool) -> None:
    site = Site(ignore_host=True)
    site.ask("/a")
    client = site.fake.client(get("/a").replace(b"shop.example", host.encode()), ("192.0.2.1", 1))
    site.fake.upstream.sends(reply(b"no", status=STATUSES[status]))
    assert status_of(client.received()) == status
    assert site.has("/a") is left


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
    assert not site.fake.services.withdrawals.mass


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
    services, now = fake.services, fake.loop.now
    withdrawals = services.withdrawals
    site = Site()
    site.fake = fake
    for number in range(HIDDEN_MAX + 100):
        head, identity = site.parsed(f"/{number}")
        services.store.put(identity, head, good_head(fake), b"x", now, now, client=number + 1)
        withdrawals.confirmed += 100
        assert withdrawals.refused(identity, 404, State.CLOSED, number + 1, now)
    assert len(withdrawals._hidden) == HIDDEN_MAX
    assert services.store.stats()["entries"] == HIDDEN_MAX
    assert withdrawals.pages == PAGES_MAX
    assert len(withdrawals.clients) == CLIENTS_MAX
    fake.advance(HIDDEN_S + 2)
    assert services.store.stats()["entries"] == len(withdrawals._hidden) == withdrawals.pages == 0


def good_head(fake: FakeProxy) -> ResponseHead:
    """Return the head of a good answer."""
    return fake.services.heads.response_parser.parse(reply(b"x").removesuffix(b"x"))


def test_the_log_says_once_that_pages_are_kept() -> None:
    site = Site()
    told = WithdrawalLog(site.fake.services)
    site.fake.proxy.ticker.on_second.append(told.on_second)
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
