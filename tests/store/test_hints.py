"""What would help visitors to stored pages: told once, by names and never by values."""

import pytest
from structlog.testing import capture_logs

from retter.breaker import State
from retter.process.hint_log import LONG_ANSWERS_MIN, HintLog
from retter.store.hints import GIVEN_MAX, NAMES_MAX, ROLL_S, ROLLS_MIN, UNANSWERED_MIN, shown
from tests.support.admin import admin_of, why
from tests.support.frameworks import Browser, django_application, encrypting_application
from tests.support.site import Site, page
from tests.support.site_of_workers import SiteOfWorkers

POPUP = "cookie popup_seen differs for every visitor: --ignore-cookies popup_seen"


def newcomers(site: Site, cookie: str, count: int = UNANSWERED_MIN) -> list[str]:
    site.goes_down()
    for number in range(count):
        site.ask("/", cookie=cookie.format(number))
    return list(site.proxy.services.hints.given.values())


def test_a_cookie_that_differs_for_every_visitor_is_told_of_where_it_costs_pages() -> None:
    given = newcomers(Site(lambda asked: page("page")), "popup_seen={}; theme=dark")
    assert [one.startswith(POPUP) for one in given] == [True]


@pytest.mark.parametrize(
    "cookie",
    [
        "theme=dark",  # the same for all
        "auth_token=secret{}",  # may be a login
        "csrftoken=secret{}",
        "PHPSESSID=0123456789abcdef{}",  # may be a session
    ],
)
def test_other_cookies_are_not(cookie: str) -> None:
    assert newcomers(Site(lambda asked: page("page")), cookie) == []


def test_it_is_not_told_while_the_public_page_stands_in() -> None:
    site = Site(lambda asked: page("page"))
    site.ask("/")
    assert newcomers(site, "popup_seen={}") == []


def test_a_session_that_changes_with_each_answer_is_told_of() -> None:
    site = Site(encrypting_application())
    ann = Browser(site)
    for number in range(ROLLS_MIN + 2):
        ann.get(f"/public/{number}")
    (given,) = site.proxy.services.hints.given.values()
    assert given.startswith("session cookie shop_session changes with nearly every answer")
    assert "--rolling-cookies shop_session" in given


def test_one_that_is_renewed_now_and_then_is_not() -> None:
    site = Site(encrypting_application())
    ann = Browser(site)
    for number in range(ROLLS_MIN * 2):
        ann.get(f"/public/{number}")
        site.proxy.loop.now += ROLL_S + 1
    assert not site.proxy.services.hints.given


def test_one_that_is_followed_is_not() -> None:
    for site in (
        Site(encrypting_application(), rolling_cookies=("*_session",)),
        Site(django_application()),
    ):
        ann = Browser(site)
        ann.post("/login?ann")
        for number in range(ROLLS_MIN * 2):
            ann.get(f"/public/{number}")
        assert not site.proxy.services.hints.given


def test_each_hint_is_logged_once() -> None:
    site = Site(lambda asked: page("page"))
    log = HintLog(site.proxy.services)
    with capture_logs() as logs:
        log.on_second(0.0)
        newcomers(site, "popup_seen={}")
        for second in (1.0, 2.0):
            log.on_second(second)
    assert [line["advice"].startswith(POPUP) for line in logs] == [True]


def test_of_several_workers_the_first_one_logs_hints() -> None:
    """It gets those of the others (admin/worker_sum.py)."""
    site = SiteOfWorkers(lambda asked: page("page"))
    with capture_logs() as logs:
        for worker in site.crew:
            log = HintLog(worker.services)
            worker.services.hints.takes_long(b"GET /poll", 10.0)
            log.on_second(1.0)
    assert len(logs) == 1


def test_a_long_poll_is_noticed_when_others_wait_for_it() -> None:
    """Not while nothing is limited, nor one that is quicker than the patience, nor a POST."""
    site = Site(lambda asked: page("page"))
    services = site.proxy.services
    circuit, log = services.breaker.circuit, HintLog(services)
    for name, took_s, answers in (
        (b"GET /poll/*", 10.0, LONG_ANSWERS_MIN),
        (b"GET /report", 10.0, LONG_ANSWERS_MIN - 1),
        (b"GET /", 0.1, 100),
        (b"OTHER /poll", 10.0, 100),
    ):
        route = circuit.routes.get(name, 0.0)
        for _ in range(answers):
            route.latency.add(took_s)
    log.on_second(1.0)
    assert circuit.state is State.CLOSED and not services.hints.given
    circuit.state = State.LIMITING
    with capture_logs() as logs:
        log.on_second(2.0)
        log.on_second(3.0)
    assert [line["advice"] for line in logs] == [
        "an answer of /poll/* takes 10 s, and others have to wait meanwhile: if it is late on "
        "purpose (a long poll), --stream-paths '/poll/*' forwards it without limit"
    ]


def test_what_is_counted_is_bounded() -> None:
    site = Site(lambda asked: page("page"))
    site.goes_down()
    for number in range(NAMES_MAX * 2):
        site.ask("/", cookie=f"c{number}=1; {'n' * 100}=1")
    hints = site.proxy.services.hints
    assert len(hints._values) <= NAMES_MAX
    sealed = Site(encrypting_application())
    for _ in range(3):
        ann = Browser(sealed)
        ann.get("/public/1")
        ann.get("/public/2")
    assert len(sealed.proxy.services.hints._rolls) == 3 <= GIVEN_MAX


def test_names_are_shown_harmlessly() -> None:
    assert shown(b"a\x1b[31m\xff" + b"x" * 100) == "a?[31m?" + "x" * 57


@pytest.mark.parametrize(
    ("cookie", "owner", "made_of", "advice"),
    [
        ("", "everyone", [], []),
        (
            "popup_seen=1",
            "cookies",
            ["cookie popup_seen"],
            [
                "if cookie popup_seen identifies nobody and changes no page: "
                "--ignore-cookies popup_seen"
            ],
        ),
        ("_ga=1", "everyone", [], []),
        (
            "auth=1; csrftoken=2",
            "cookies",
            ["cookie auth", "cookie csrftoken"],
            ["if cookie auth is a session: --session-cookies, with the list of --check-config"],
        ),
        (
            "PHPSESSID=0123456789abcdef",
            "cookies",
            ["cookie PHPSESSID"],
            [
                "cookie PHPSESSID is named like a session, but the application has not been seen "
                "to set it, or many clients share its value: so it does not count as a session, "
                "and all cookies together separate the pages"
            ],
        ),
        (
            'a="b; c"d',
            "cookies",
            ["the whole of Cookie, which applications read in different ways"],
            [],
        ),
    ],
)
def test_why_names_what_makes_an_owner_and_what_would_help(
    cookie: str, owner: str, made_of: list[str], advice: list[str]
) -> None:
    with admin_of() as admin:
        found = why(admin, cookie=cookie)
    assert (found["key"]["owner"], found["key"]["made_of"]) == (owner, made_of)
    assert found["advice"] == advice


def test_why_names_sessions_logins_and_headers() -> None:
    with admin_of(session_cookies=("PHPSESSID",)) as admin:
        found = why(admin, cookie="PHPSESSID=0123456789abcdef; auth=1; theme=dark")
        assert found["key"]["made_of"] == [
            "session cookie PHPSESSID",
            "cookie auth, named like a login",
        ]
        found = why(admin, header="X-App: 1")
        assert found["key"]["made_of"] == ["header x-app"]
        assert found["advice"] == ["if header x-app identifies nobody: --neutral-headers x-app"]


def test_why_and_the_state_repeat_the_hints() -> None:
    with admin_of() as admin:
        hints = admin.proxy.services.hints
        hints.given[b"popup_seen"] = "a hint"
        assert why(admin, cookie="popup_seen=1")["advice"][0] == "a hint"
        assert admin.state()["hints"] == ["a hint"]
