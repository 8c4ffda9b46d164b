"""A stored page of another variant that suits a visitor as well, where the choice is an error."""

from typing import Any

import pytest

from tests.support.site import Asked, Got, Site, page

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
UPGRADE = {"Upgrade-Insecure-Requests": "1"}
FIREFOX = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"}
CHROME = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/5"}
PHONE = {"User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Mobile/15E148"}
CURL = {"User-Agent": "curl/8.9"}
GERMAN = {"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"}
AUSTRIAN = {"Accept-Language": "de-AT"}
FRENCH = {"Accept-Language": "fr,de;q=0.5"}


def in_need(
    first: dict[str, str],
    then: dict[str, str],
    *,
    vary: str = "",
    cookie: str = "",
    **settings: Any,
) -> Got:
    """Return what a visitor gets who asks after another one, and after the application has died."""
    fields = {"Vary": vary} if vary else {}
    site = Site(lambda asked: page("page", **fields), **settings)
    site.ask(headers=first, cookie=cookie)
    site.goes_down()
    return site.ask(headers=then, cookie=cookie)


@pytest.mark.parametrize(
    ("vary", "first", "then", "stored"),
    [
        ("User-Agent", FIREFOX, CHROME, True),
        ("Accept-Encoding, User-Agent, Cookie", FIREFOX, CHROME, True),
        ("User-Agent", FIREFOX, PHONE, False),
        ("User-Agent", PHONE, FIREFOX, False),
        ("User-Agent", FIREFOX, CURL, False),
        ("User-Agent", CURL, {"User-Agent": "Wget/1.21"}, False),
        ("User-Agent", CURL, CURL, True),
        ("Accept-Language, Cookie", GERMAN, AUSTRIAN, True),
        ("Accept-Language", GERMAN, FRENCH, False),
        ("Accept-Language", GERMAN, {}, False),
        ("Accept-Language, User-Agent", GERMAN | FIREFOX, AUSTRIAN | CHROME, True),
        ("Accept-Language, User-Agent", GERMAN | FIREFOX, FRENCH | CHROME, False),
        ("Accept-Language, X-Requested-With", GERMAN, AUSTRIAN, False),
        ("X-Plan", {"X-Plan": "a"}, {"X-Plan": "b"}, False),
    ],
)
@pytest.mark.parametrize("cookie", ["", "PHPSESSID=0123456789abcdef01234567"])
def test_the_same_language_and_kind_of_device_are_enough(
    vary: str, first: dict[str, str], then: dict[str, str], stored: bool, cookie: str
) -> None:
    settings = {"neutral_headers": ("X-Plan",)}
    assert in_need(PAGE | first, PAGE | then, vary=vary, cookie=cookie, **settings).stored is stored


def test_the_exact_one_goes_first() -> None:
    site = Site(lambda asked: page(asked.fields["user-agent"], Vary="User-Agent"))
    for browser in (FIREFOX, CHROME, PHONE):
        site.ask(headers=PAGE | browser)
    site.goes_down()
    for browser in (CHROME, PHONE, FIREFOX):
        assert site.ask(headers=PAGE | browser).body == browser["User-Agent"]


def test_a_shared_cache_obeys_vary_to_the_letter() -> None:
    rules = {"store_policy": "rfc9111"}
    assert not in_need(PAGE | FIREFOX, PAGE | CHROME, vary="User-Agent", **rules).stored
    assert in_need(PAGE | FIREFOX, PAGE | FIREFOX, vary="User-Agent", **rules).stored


@pytest.mark.parametrize("cookie", ["", "PHPSESSID=0123456789abcdef01234567"])
def test_safari_and_the_others_share_their_pages(cookie: str) -> None:
    """Safari sends no Upgrade-Insecure-Requests over https."""
    assert in_need(PAGE, PAGE | UPGRADE, cookie=cookie).stored
    assert in_need(PAGE | UPGRADE, PAGE, cookie=cookie).stored
    origin = {"Origin": "https://shop.example"}
    assert in_need(PAGE | origin, PAGE | origin | UPGRADE).stored
    data = {"Accept": "application/json"}
    assert not in_need(data, data | UPGRADE).stored, "that is no browser's request for a page"
    assert not in_need(PAGE | UPGRADE, data).stored
    assert not in_need(data, PAGE).stored


def test_but_not_what_only_such_requests_get() -> None:
    """The redirect to https that Upgrade-Insecure-Requests asks for."""

    def answer(asked: Asked) -> bytes:
        if "upgrade-insecure-requests" in asked.fields:
            return page("", status="307 Temporary Redirect", Location="https://shop.example/")
        return page("page")

    site = Site(answer)
    site.ask(headers=PAGE | UPGRADE)
    site.goes_down()
    assert not site.ask(headers=PAGE).stored


def test_who_gets_the_page_of_others_takes_it_back_as_well() -> None:
    gone: list[bool] = []

    def answer(asked: Asked) -> bytes:
        return page("no", status="404 Not Found") if gone else page("page")

    site = Site(answer)
    site.ask(headers=PAGE | UPGRADE)
    site.proxy.advance(20)
    gone.append(True)
    site.ask(headers=PAGE)
    site.goes_down()
    assert not site.ask(headers=PAGE | UPGRADE).stored
