"""Who visits a site: the request heads of forty browsers, bots and programs, and what they ask for.

The heads were put together after what each of these programs sends: the order of the fields, their
spelling, the languages, the client hints of the browsers made from Chromium, four to eight cookies
of the tools that sites use. A visitor keeps their program. Pages are asked for by Zipf's law.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

HOST: Final = "shop.example"
PAGES: Final = 500
STORED_PAGES: Final = 100  # all of them are fetched with each head before
VISITORS: Final = 2000
SAMPLES: Final = 4096  # of Zipf's law with exponent 1; drawn from with equal chances

# What stands in a head for a page, the page before, and the visitor's number of nine digits.
PAGE: Final = "{page}"
REFERER: Final = "{from}"
VISITOR: Final = "{visitor}"

_CHROME_ACCEPT: Final = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
_FIREFOX_ACCEPT: Final = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_ENCODINGS: Final = "gzip, deflate, br, zstd"
_ANALYTICS: Final = (
    f"_ga=GA1.1.{VISITOR}.1731500000", f"_ga_7Q2W3E4R5T=GS1.1.{VISITOR}.3.1.1731500123.0.0.0",
    f"_fbp=fb.1.1731500000000.{VISITOR}", "_gcl_au=1.1.1490000000.1731500000",
    f"_hjSessionUser_1234567=eyJpZCI6{VISITOR}In0", f"cookieyes-consent=consentid:{VISITOR},yes",
    f"_clck=1abc{VISITOR}", "_gid=GA1.2.1111111111.1731500000",
)  # fmt: skip
_SESSION: Final = f"PHPSESSID=5f2b1c9a7e4d3f6b8a{VISITOR}"


def _cookies(count: int, *, session: bool) -> str:
    chosen = list(_ANALYTICS[:count])
    if session:
        chosen.insert(count // 2, _SESSION)
    return "; ".join(chosen)


def _chromium(brand: str, version: int, platform: str, agent: str, language: str) -> list[str]:
    mobile = platform == "Android"
    return [
        f"Host: {HOST}",
        "Connection: keep-alive",
        f'sec-ch-ua: "Chromium";v="{version}", "{brand}";v="{version}", "Not?A_Brand";v="99"',
        f"sec-ch-ua-mobile: ?{int(mobile)}",
        f'sec-ch-ua-platform: "{platform}"',
        "Upgrade-Insecure-Requests: 1",
        f"User-Agent: Mozilla/5.0 ({agent}) AppleWebKit/537.36 (KHTML, like Gecko) "
        f"Chrome/{version}.0.0.0 {'Mobile ' if mobile else ''}Safari/537.36",
        f"Accept: {_CHROME_ACCEPT}",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-User: ?1",
        "Sec-Fetch-Dest: document",
        f"Referer: http://{HOST}{REFERER}",
        f"Accept-Encoding: {_ENCODINGS}",
        f"Accept-Language: {language}",
    ]


def _firefox(version: int, agent: str, language: str) -> list[str]:
    return [
        f"Host: {HOST}",
        f"User-Agent: Mozilla/5.0 ({agent}; rv:{version}.0) Gecko/20100101 Firefox/{version}.0",
        f"Accept: {_FIREFOX_ACCEPT}",
        f"Accept-Language: {language}",
        f"Accept-Encoding: {_ENCODINGS}",
        "Connection: keep-alive",
        f"Referer: http://{HOST}{REFERER}",
        "Upgrade-Insecure-Requests: 1",
        "Sec-Fetch-Dest: document",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: same-origin",
        "Priority: u=0, i",
    ]


def _safari(agent: str, language: str) -> list[str]:
    return [
        f"Host: {HOST}",
        "Upgrade-Insecure-Requests: 1",
        f"Accept: {_FIREFOX_ACCEPT}",
        f"User-Agent: Mozilla/5.0 ({agent}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 "
        "Safari/605.1.15",
        f"Referer: http://{HOST}{REFERER}",
        f"Accept-Language: {language}",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
    ]


def _bot(agent: str, *, accept: str = "*/*") -> list[str]:
    return [
        f"Host: {HOST}", "Connection: keep-alive", f"Accept: {accept}",
        "From: robots(at)example.org", f"User-Agent: {agent}", "Accept-Encoding: gzip, deflate, br",
    ]  # fmt: skip


_LANGUAGES: Final = (
    "en-US,en;q=0.9", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7", "fr-FR,fr;q=0.9,en;q=0.8",
    "en-GB,en;q=0.7,de;q=0.3", "es-ES,es;q=0.9", "pl,en-US;q=0.7,en;q=0.3",
)  # fmt: skip
_WINDOWS: Final = "Windows NT 10.0; Win64; x64"
_MAC: Final = "Macintosh; Intel Mac OS X 10_15_7"
_IPHONE: Final = "iPhone; CPU iPhone OS 18_1 like Mac OS X"


def _browsers() -> Iterator[list[str]]:
    for number, language in enumerate(_LANGUAGES):
        version = 129 + number % 3
        yield _chromium("Google Chrome", version, "Windows", _WINDOWS, language)
        yield _chromium("Google Chrome", version, "Android", "Linux; Android 10; K", language)
        yield _firefox(version + 3, _WINDOWS, language)
        yield _safari(_IPHONE, language)
    for language in _LANGUAGES[:3]:
        yield _chromium("Microsoft Edge", 130, "Windows", _WINDOWS, language)
        yield _chromium("Google Chrome", 131, "macOS", _MAC, language)
        yield _safari(_MAC, language)
        yield _firefox(128, "X11; Linux x86_64", language)


def _programs() -> Iterator[list[str]]:
    yield _bot(
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        accept="text/html,application/xhtml+xml,application/signed-exchange;v=b3,application/xml;"
        "q=0.9,*/*;q=0.8",
    )
    yield _bot("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)")
    yield [f"Host: {HOST}", "User-Agent: curl/8.9.1", "Accept: */*"]
    yield [
        f"Host: {HOST}",
        "User-Agent: python-requests/2.32.3",
        "Accept-Encoding: gzip, deflate",
        "Accept: application/json",
        "Connection: keep-alive",
    ]


def heads(*, sessions: bool) -> Sequence[str]:
    """Return forty heads with PAGE, REFERER and VISITOR in them.

    Args:
        sessions: Browsers have a session cookie. Without, all that they have is ignorable, so that
            everybody is shown the same page.
    """
    found = []
    for number, fields in enumerate(_browsers()):
        cookie = f"Cookie: {_cookies(3 + number % 5, session=sessions)}"
        at = len(fields) - number % 3  # near the end, as browsers have it
        found.append([*fields[:at], cookie, *fields[at:]])
    found += _programs()
    return [f"GET {PAGE} HTTP/1.1\r\n" + "\r\n".join(one) + "\r\n\r\n" for one in found]


def page_path(size: str, number: int) -> str:
    """Return the target of a page; its number has four digits."""
    return f"/{size}/articles/{number:04}/autumn-coats?page=2&sort=price"


def samples(pages: int) -> Sequence[int]:
    """Return numbers of pages by Zipf's law; the same ones each time."""
    weights = list(accumulate([1 / (rank + 1) for rank in range(pages)]))
    return random.Random(1).choices(range(pages), cum_weights=weights, k=SAMPLES)


def filled(head: str, page: str, referer: str, visitor: int) -> bytes:
    """Return a whole request."""
    text = head.replace(PAGE, page).replace(REFERER, referer)
    return text.replace(VISITOR, f"{visitor:09}").encode()
