"""Visitors whose session cookie gets a new value with each answer find their pages, and no others'.

The attacks are a table: each row is what is done before the application goes down, and who then
asks with which cookies, and what they may get.
"""

from collections.abc import Callable
from typing import Any

import pytest

from retter.store.lineage import OVERLAP_S
from tests.support.frameworks import (
    Browser,
    django_application,
    each_second,
    encrypting_application,
    flask_application,
)
from tests.support.site import Application, Site, page
from tests.support.site_of_workers import SiteOfWorkers
from tests.support.tracing import untraced

__all__ = ["each_second"]
pytestmark = pytest.mark.usefixtures("each_second")


@pytest.fixture(params=["one process", "workers in turn"], autouse=True)
def several(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try everything with one process, and with workers of which each gets the next request."""
    if request.param != "one process":
        monkeypatch.setattr(f"{__name__}.Site", SiteOfWorkers)


APPLICATIONS: dict[str, tuple[Callable[[], Application], dict[str, Any]]] = {
    "Flask": (flask_application, {}),
    "Flask, permanent": (lambda: flask_application(permanent=True), {}),
    "Flask, changed with each answer": (
        lambda: flask_application(changes=True),
        {"rolling_cookies": ("session",)},
    ),
    "Django, signed cookies": (django_application, {}),
    "encrypted anew, as Laravel and Rails do": (
        encrypting_application,
        {"rolling_cookies": ("*_session",)},
    ),
}


def site_of(name: str) -> Site:
    make, settings = APPLICATIONS[name]
    return Site(make(), **settings)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_four_people_find_all_of_their_own_pages(name: str) -> None:
    site = site_of(name)
    people = {who: Browser(site) for who in ("ann", "ben", "cleo", "dan")}
    for who, browser in people.items():
        browser.get("/public/0")
        browser.post(f"/login?{who}")
    for number in range(4):
        for browser in people.values():
            browser.get(f"/private/{number}")
            browser.get(f"/public/{number}")
    site.goes_down()
    for who, browser in people.items():
        for number in range(4):
            got = browser.get(f"/private/{number}")
            assert (got.stored, got.body) == (True, f"private /private/{number} of {who}")
            assert browser.get(f"/public/{number}").stored


@pytest.mark.parametrize("name", list(APPLICATIONS)[1:])
def test_pages_of_long_ago_are_found_by_the_value_of_today(name: str) -> None:
    site = site_of(name)
    ann = Browser(site)
    ann.post("/login?ann")
    ann.get("/private/1")
    for number in range(30):
        site.proxy.advance(1)
        ann.get(f"/public/{number}")
    site.goes_down()
    assert ann.get("/private/1").body == "private /private/1 of ann"


def test_without_the_setting_a_sealed_session_is_another_each_time() -> None:
    site = Site(encrypting_application())
    ann = Browser(site)
    ann.post("/login?ann")
    ann.get("/private/1")
    site.goes_down()
    assert not ann.get("/private/1").stored


# -- Attacks. The pages of a story's victim are ann's, and mallory asks, unless it says otherwise.

Story = Callable[[Site], Browser]


def victim(site: Site, cookies: dict[str, str] | None = None) -> Browser:
    ann = Browser(site, cookies)
    ann.post("/login?ann")
    ann.get("/private/1")
    ann.get("/private/2")
    return ann


def nobody(site: Site) -> Browser:
    """Begin a session of one's own."""
    mallory = Browser(site)
    mallory.get("/public/1")
    mallory.get("/public/2")
    return mallory


def planted_before_login(site: Site) -> Browser:
    mallory = nobody(site)
    victim(site, mallory.cookies)
    return mallory


def planted_and_read_on(site: Site) -> Browser:
    """The victim never logs in: both have heirs of the planted value."""
    mallory = nobody(site)
    ann = Browser(site, mallory.cookies)
    for target in ("/public/3", "/private/1", "/private/1"):
        ann.get(target)
        mallory.get("/public/4")
    return mallory


def planted_made_up(site: Site) -> Browser:
    cookies = {"session": "x" * 40, "sessionid": "x" * 40, "shop_session": "x" * 40}
    ann = Browser(site, cookies)
    ann.get("/public/1")
    victim(site, ann.cookies)
    return Browser(site, cookies)


def planted_after_it_was_read(site: Site) -> Browser:
    mallory = nobody(site)
    old = Browser(site, mallory.cookies)
    ann = Browser(site, mallory.cookies)
    ann.get("/public/5")
    victim(site, ann.cookies)
    old.get("/public/6")
    return old


def forged(change: Callable[[str], str]) -> Story:
    def story(site: Site) -> Browser:
        ann = victim(site)
        return Browser(site, {name: change(value) for name, value in ann.cookies.items()})

    return story


def forged_and_answered(change: Callable[[str], str]) -> Story:
    """The application gives the forger a value of their own in place of the forged one."""

    def story(site: Site) -> Browser:
        mallory = forged(change)(site)
        mallory.get("/public/7")
        mallory.get("/public/8")
        return mallory

    return story


def another_signature(value: str) -> str:
    return value[:-6] + ("aaaaaa" if not value.endswith("aaaaaa") else "bbbbbb")


def another_time(value: str) -> str:
    for mark in (".", ":"):
        if value.count(mark) >= 2:
            payload, _, signature = value.rsplit(mark, 2)
            return mark.join((payload, "aBcDeF", signature))
    return "00" + value[2:]


def replayed_after_logout(site: Site) -> Browser:
    ann = victim(site)
    old = Browser(site, ann.cookies)
    ann.post("/logout-by-post")
    return old


def after_logout(path: str, method: str = "GET") -> Story:
    """The next person at that computer."""

    def story(site: Site) -> Browser:
        ann = victim(site)
        ann.get(path, method)
        ann.get("/public/9")
        return ann

    return story


def after_logout_somebody_else_logs_in(site: Site) -> Browser:
    ann = victim(site)
    ann.post("/logout-by-post")
    ann.post("/login?mallory")
    return ann


def login_over_a_login(site: Site) -> Browser:
    ann = victim(site)
    ann.post("/login?mallory")
    return ann


def login_by_get_over_a_login(site: Site) -> Browser:
    ann = victim(site)
    ann.get("/login-by-get?mallory")
    return ann


def swapped(site: Site) -> Browser:
    """Ann's login stands in for mallory's other cookies, and the other way round."""
    victim(site)
    mallory = nobody(site)
    return Browser(site, {"other": mallory.cookie.partition("=")[2], **mallory.cookies})


def two_values(site: Site) -> Browser:
    """Both in one Cookie field: whose the application takes is not known."""
    ann, mallory = victim(site), nobody(site)
    name, _, value = mallory.cookie.partition("=")
    browser = Browser(site, {name: f"{value}; {ann.cookie[:-1]}x"})
    browser.get("/public/9")
    return browser


def another_name(site: Site) -> Browser:
    ann = victim(site)
    (value,) = ann.cookies.values()
    return Browser(site, {"SESSION": value[:-1] + "x", "PHPSESSID": value})


def an_old_value(seconds: float) -> Story:
    """Stolen before the login of today, and used long after."""

    def story(site: Site) -> Browser:
        ann = Browser(site)
        ann.get("/public/1")
        ann.get("/public/2")
        stolen = Browser(site, ann.cookies)
        ann.get("/public/3")
        site.proxy.advance(seconds)
        ann.get("/private/1")
        ann.post("/login?ann")
        ann.get("/private/1")
        return stolen

    return story


def flashed(site: Site) -> Browser:
    """A flash message makes another session of it; the old one has nothing any more."""
    ann = victim(site)
    old = Browser(site, ann.cookies)
    ann.post("/flash")
    return old


ATTACKS: dict[str, Story] = {
    "a stranger": nobody,
    "no cookie at all": lambda site: (victim(site), Browser(site))[1],
    "planted before a login": planted_before_login,
    "planted, and both read on": planted_and_read_on,
    "planted, and made up": planted_made_up,
    "planted, and an heir of it": planted_after_it_was_read,
    "forged: another signature": forged(another_signature),
    "forged: another time": forged(another_time),
    "forged: longer": forged(lambda value: value + "A"),
    "forged: quoted": forged(lambda value: f'"{value[:-2]}xx"'),
    "forged, and answered: another signature": forged_and_answered(another_signature),
    "forged, and answered: another time": forged_and_answered(another_time),
    "forged, and answered: a piece": forged_and_answered(lambda value: value[: len(value) // 2]),
    "replayed after a logout": replayed_after_logout,
    "logout by POST": after_logout("/logout-by-post", "POST"),
    "logout by a GET that redirects": after_logout("/leave-by-redirect"),
    "logout by GET, known by its name": after_logout("/logout"),
    "another's login after a logout": after_logout_somebody_else_logs_in,
    "a login over a login": login_over_a_login,
    "a login by GET over a login": login_by_get_over_a_login,
    "swapped cookies": swapped,
    "two values at once": two_values,
    "under another name": another_name,
    "an old value, at once": an_old_value(1),
    "an old value, later": an_old_value(OVERLAP_S + 1),
    "the value before a flash message": flashed,
}


READS_NOTHING_NEWER = (
    "planted, and both read on", "an old value, at once", "an old value, later",
)  # fmt: skip


@untraced
@pytest.mark.parametrize("name", APPLICATIONS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_nobody_gets_anothers_page(attack: str, name: str) -> None:
    site = site_of(name)
    mallory = ATTACKS[attack](site)
    site.goes_down()
    for number in (1, 2):
        got = mallory.get(f"/private/{number}")
        assert "ann" not in got.body
    # A planted or stolen value shows nothing that its later owner has read.
    if mallory.cookies and attack in READS_NOTHING_NEWER:
        assert not mallory.get("/private/1").stored


# -- Two tabs, two browsers


@pytest.mark.parametrize("name", list(APPLICATIONS)[1:])
def test_parallel_requests_of_one_page_are_of_one_visitor(name: str) -> None:
    site = site_of(name)
    ann = victim(site)
    answers = [ann.get(f"/private/part/{number}", keep=False) for number in range(3)]
    ann.take(answers[1])
    ann.get("/private/3")
    site.proxy.advance(1)
    ann.get("/private/4")
    site.goes_down()
    for number in ("1", "2", "part/0", "part/1", "part/2", "3", "4"):
        assert ann.get(f"/private/{number}").body == f"private /private/{number} of ann"


def test_the_old_value_stores_nothing_ten_seconds_after_the_change() -> None:
    site = site_of("encrypted anew, as Laravel and Rails do")
    ann = victim(site)
    old = Browser(site, ann.cookies)
    ann.get("/public/1")
    old.get("/private/within", keep=False)
    site.proxy.advance(OVERLAP_S + 1)
    old.get("/private/after", keep=False)
    site.goes_down()
    assert ann.get("/private/within").stored
    assert not ann.get("/private/after").stored


def test_two_browsers_of_one_person_have_nothing_in_common() -> None:
    for name in APPLICATIONS:
        site = site_of(name)
        victim(site)
        phone = Browser(site)
        phone.post("/login?ann")
        site.goes_down()
        assert not phone.get("/private/1").stored, name


def test_newcomers_of_one_second_are_given_the_same_value_and_share_nothing_else() -> None:
    """Signed in the same second, a session without anybody in it is one value for all."""
    value = "eyJfcGVybWFuZW50Ijp0cnVlfQ.aBcDeF.abcdefghijklmnopqrstuvwxyz0"
    site = Site(lambda asked: page(f"basket {asked.cookies.get('basket')}", f"session={value}"))
    for basket in ("1", "2"):
        site.ask("/")
        site.ask("/basket", cookie=f"session={value}; basket={basket}")
    site.goes_down()
    assert site.ask("/basket", cookie=f"session={value}; basket=1").body != "basket 2"
    assert not site.ask("/basket", cookie=f"session={value}; basket=3").stored
