"""The variants of one URL, and the one that a client gets if it has none of its own."""

import pytest

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.known_names import ADDRESS_FIELDS, COUNTRY_FIELDS, GEO_FIELDS, REQUEST_ID_FIELDS
from retter.http.variants import VariantRules, is_plain, likeness
from tests.support.harness import FakeProxy, body_of, get, reply
from tests.support.site import Asked, Site, page

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PHONE = "Mozilla/5.0 (iPhone) Mobile/15E148"
DESKTOP = "Mozilla/5.0 (X11; Linux x86_64)"


def sees(name: str, answer: bytes) -> Site:
    """Return a site that answers otherwise when a request has that field."""
    return Site(lambda asked: answer if name.lower() in asked.fields else page("page"))


# The field of one visitor, and what the application answers them, without a Vary.
POISONS = [
    ("Accept", "application/json", page("{}")),
    ("Accept", "text/event-stream", page("data")),
    ("Accept", "image/webp,*/*", page("image")),
    ("Accept", "text/markdown, text/html;q=0.9", page("# page")),
    ("Purpose", "prefetch", page("empty")),
    ("Sec-Purpose", "prefetch;prerender", page("empty")),
    ("X-Purpose", "preview", page("empty")),
    ("X-Moz", "prefetch", page("empty")),
    ("Upgrade-Insecure-Requests", "1", page("", status="307 Move", Location="https://x/")),
    ("Save-Data", "on", page("small")),
    ("Sec-Fetch-Dest", "empty", page("data")),
    ("Sec-Fetch-Dest", "iframe", page("embedded")),
    ("Service-Worker-Navigation-Preload", "content", page("fragment")),
    ("Content-Type", "application/json", page("{}")),
    (
        "Origin",
        "https://evil.example",
        page("page", Access_Control_Allow_Origin="https://evil.example"),
    ),
    (
        "Referer",
        "https://evil.example/x",
        page("", status="302 F", Location="https://evil.example/x"),
    ),
    ("User-Agent", "Mozilla/4.0 (compatible; MSIE 6.0)", page("", status="302 F", Location="/old")),
    ("User-Agent", "Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0)", page("too old")),
    ("User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://g.co/bot)", page("for robots")),
    ("User-Agent", f"{PHONE} (compatible; Googlebot/2.1)", page("for robots")),
    ("Accept-Charset", "utf-16", page("p-a-g-e")),
    ("User-Agent", PHONE, page("mobile")),
    ("Sec-CH-UA-Mobile", "?1", page("mobile")),
    ("Accept-Language", "zh", page("zh")),
    ("X-Request-ID", "chosen", page("page <!-- chosen -->")),
    *[(name.decode(), "10.0.0.7", page("for the office")) for name in ADDRESS_FIELDS],
    *[(name.decode(), "RU", page("not in your country")) for name in sorted(GEO_FIELDS)],
]


@pytest.mark.parametrize("with_ua", [False, True])
@pytest.mark.parametrize(("name", "value", "answer"), POISONS)
def test_one_visitors_answer_is_not_everyones(
    name: str, value: str, answer: bytes, with_ua: bool
) -> None:
    site = sees(name, answer)
    plain = {"User-Agent": DESKTOP} if with_ua and name != "User-Agent" else {}
    site.ask("/", headers=plain)
    site.ask("/", headers={**plain, name: value})
    site.goes_down()
    got = site.ask("/", headers=plain)
    assert (got.stored, got.body, got.field("Access-Control-Allow-Origin")) == (True, "page", None)


@pytest.mark.parametrize("refusal", [page("no hotlinks"), page("", status="403 Forbidden")])
def test_what_other_sites_embed_is_not_what_the_own_pages_show(refusal: bytes) -> None:
    """Applications keep other sites from using their pictures."""

    def answer(asked: Asked) -> bytes:
        return refusal if asked.fields.get("sec-fetch-site") == "cross-site" else page("picture")

    site = Site(answer)
    image = {"Accept": "image/png,*/*;q=0.8", "Sec-Fetch-Dest": "image"}
    site.ask("/a.png", headers={**image, "Sec-Fetch-Site": "same-origin"})
    site.proxy.advance(60.0)
    for number in range(3):
        stranger = {**image, "Sec-Fetch-Site": "cross-site"}
        site.ask("/a.png", headers=stranger, address=f"192.0.2.{number}")
    site.goes_down()
    for where in ("same-origin", "same-site", "none"):
        assert site.ask("/a.png", headers={**image, "Sec-Fetch-Site": where}).body == "picture"


def test_whoever_follows_a_link_of_another_site_gets_the_page_of_all() -> None:
    site = Site(lambda asked: page("page"))
    go = {"Accept": BROWSER, "Sec-Fetch-Dest": "document"}
    site.ask("/", headers={**go, "Sec-Fetch-Site": "none"})
    site.goes_down()
    assert site.ask("/", headers={**go, "Sec-Fetch-Site": "cross-site"}).stored
    assert site.ask("/", headers={"Accept": BROWSER, "Sec-Fetch-Site": "cross-site"}).stored


@pytest.mark.parametrize("name", [name.decode() for name in (*ADDRESS_FIELDS, *sorted(GEO_FIELDS))])
def test_where_the_client_is_is_told_by_trusted_proxies_alone(name: str) -> None:
    for trusted, told in (((), False), (("192.0.2.0/24",), True)):
        site = Site(lambda asked: page("page"), trusted_proxies=trusted)
        site.ask("/", headers={name: "1"})
        site.ask("/", headers={name.replace("-", "_"): "1"})
        assert (name in site.asked[0].fields) is told
        assert not any("_" in field for field in site.asked[1].fields)
        assert site.proxy.services.store.stats()["keys"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "X-Amz-Cf-Id", "X-Azure-Ref", "X-Varnish", "Fly-Request-Id", "CDN-RequestId", "X-Vercel-Id",
        "X-ARR-LOG-ID", "X-AppGW-Trace-Id", "X-NF-Request-Id", "Rndr-Id", "X-Timer",
        "X-Railway-Request-Id", "X-Kong-Request-Id", "EagleId", "Alt-Used", "Available-Dictionary",
        "X-Akamai-Request-ID", "X-Envoy-Expected-Rq-Timeout-Ms", "From", "CF-Connecting-IP",
        "CF-Ray", "CF-IPCountry", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP",
        "Fastly-Client-IP", "X-Original-Forwarded-For",
    ],
)  # fmt: skip
def test_what_cdns_add_separates_nobody(name: str) -> None:
    """By name, whatever lists there are: behind a CDN each request has another value."""
    site = Site(lambda asked: page("page"))
    site.ask("/", headers={name: "203.0.113.1-a"}, address="192.0.2.1")
    site.goes_down()
    assert site.ask("/", headers={name: "203.0.113.2-b"}, address="192.0.2.2").stored


@pytest.mark.parametrize("name", [name.decode() for name in REQUEST_ID_FIELDS])
def test_a_request_id_makes_no_owner(name: str) -> None:
    site = Site(lambda asked: page("page"))
    site.ask("/", headers={name: "1aaaaaa"})
    site.goes_down()
    assert site.ask("/", headers={name: "2bbbbbb"}).stored


def test_a_proxy_in_front_may_have_its_ids_shown() -> None:
    site = Site(lambda asked: page(asked.fields["x-request-id"]), trusted_proxies=("192.0.2.7",))
    site.ask("/", headers={"X-Request-ID": "1aaaaaa"})
    assert site.proxy.services.store.stats()["entries"] == 1


def test_origins_have_answers_of_their_own_unless_all_are_allowed() -> None:
    def answer(asked: Asked) -> bytes:
        allowed = "*" if asked.path == "/font" else asked.fields.get("origin", "")
        return page("data", **({"Access_Control_Allow_Origin": allowed} if allowed else {}))

    site = Site(answer)
    good, evil = {"Origin": "https://shop.example"}, {"Origin": "https://evil.example"}
    for target in ("/api", "/font", "/other"):
        for headers in (good, evil) if target != "/other" else ({},):
            site.ask(target, headers=headers)
    site.goes_down()
    assert site.ask("/api", headers=good).field("Access-Control-Allow-Origin") == good["Origin"]
    assert not site.ask("/api").stored
    assert not site.ask("/api", headers={"Origin": "https://third.example"}).stored
    assert site.ask("/font", headers={"Origin": "https://third.example"}).stored
    assert not site.ask("/other", headers=good).stored


def test_an_origin_that_is_not_allowed_takes_nothing_from_one_that_is() -> None:
    good = "https://shop.example"
    site = Site(
        lambda asked: (
            page("data", Access_Control_Allow_Origin=good)
            if asked.fields["origin"] == good
            else page("data, unread")
        )
    )
    site.ask("/", headers={"Origin": good})
    site.ask("/", headers={"Origin": "https://evil.example"})
    site.goes_down()
    assert site.ask("/", headers={"Origin": good}).field("Access-Control-Allow-Origin") == good


def test_vary_on_adds_a_field() -> None:
    answer = lambda asked: page(asked.fields.get("x-device", "page"))  # noqa: E731
    site = Site(answer, vary_on=("x-device",))
    for device in ("tv", "watch"):
        site.ask("/", headers={"X-Device": device})
    site.goes_down()
    assert site.ask("/", headers={"X-Device": "tv"}).body == "tv"
    assert not site.ask("/", headers={"X-Device": "car"}).stored
    assert not site.ask("/").stored


def test_a_language_is_wanted_and_another_is_better_than_an_error() -> None:
    site = Site(lambda asked: page(asked.fields.get("accept-language", "")[:2] or "none"))
    for language in ("de-AT,de;q=0.9", "fr"):
        site.ask("/", headers={"Accept-Language": language})
    site.goes_down()
    assert site.ask("/", headers={"Accept-Language": "de,en"}).body == "de"
    assert site.ask("/", headers={"Accept-Language": "fr-CA"}).body == "fr"
    assert site.ask("/", headers={"Accept-Language": "en"}).stored


def test_a_phone_gets_a_phones_page_and_the_other_rather_than_none() -> None:
    site = Site(lambda asked: page("m" if "Mobi" in asked.fields["user-agent"] else "d"))
    site.ask("/both", headers={"User-Agent": PHONE})
    site.ask("/both", headers={"User-Agent": DESKTOP})
    site.ask("/one", headers={"User-Agent": DESKTOP})
    site.goes_down()
    assert site.ask("/both", headers={"User-Agent": PHONE}).body == "m"
    assert site.ask("/both", headers={"User-Agent": DESKTOP}).body == "d"
    assert site.ask("/one", headers={"User-Agent": PHONE}).body == "d"


def test_countries_that_a_trusted_proxy_tells_are_soft_too() -> None:
    site = Site(lambda asked: page(asked.fields["cf-ipcountry"]), trusted_proxies=("192.0.2.7",))
    for country in ("AT", "CH"):
        site.ask("/", headers={"CF-IPCountry": country})
    site.goes_down()
    assert site.ask("/", headers={"CF-IPCountry": "AT"}).body == "AT"
    assert site.ask("/", headers={"CF-IPCountry": "DE"}).stored


def test_what_is_the_same_for_all_is_kept_once() -> None:
    bodies = iter(["en", "de", "same", "same", "same"])
    site = Site(lambda asked: page(next(bodies)))
    for language in ("en", "de", "en"):
        site.ask("/", headers={"Accept-Language": language})
    assert site.proxy.services.store.stats()["entries"] == 2
    site.ask("/", headers={"Accept-Language": "de"})
    assert site.proxy.services.store.stats()["entries"] == 1


@pytest.mark.parametrize(
    "accept",
    [
        "text/markdown, text/html;q=0.9, */*;q=0.8",
        "text/html;q=0, application/json",
        "text/html;q=0.5, application/json",
        "text/html, application/json",
        "text/html;q=.1, application/json",
    ],
)
def test_a_browser_gets_no_answer_that_was_negotiated_by_a_program(accept: str) -> None:
    site = Site(lambda asked: page("page" if asked.fields["accept"] == BROWSER else "not a page"))
    site.ask("/", headers={"Accept": BROWSER})
    site.ask("/", headers={"Accept": accept})
    site.goes_down()
    assert site.ask("/", headers={"Accept": BROWSER}).body == "page"


# -- Clients that accept anything

BROWSERS = ({"Accept": BROWSER}, {"Accept": BROWSER, "Upgrade-Insecure-Requests": "1"})


@pytest.mark.parametrize("browser", BROWSERS)
@pytest.mark.parametrize("headers", [{}, {"Accept": "*/*"}])
def test_who_accepts_anything_gets_a_browsers_page_rather_than_an_error(
    browser: dict[str, str], headers: dict[str, str]
) -> None:
    site = Site(lambda asked: page("for browsers"))
    site.ask("/", headers=browser)
    site.goes_down()
    assert site.ask("/", headers=headers).body == "for browsers"


def test_who_accepts_anything_gets_its_own_variant_first() -> None:
    site = Site(lambda asked: page("html" if "accept" in asked.fields else "plain"))
    site.ask("/", headers=BROWSERS[0])
    site.ask("/")
    site.ask("/", headers=BROWSERS[0])
    site.goes_down()
    assert site.ask("/").body == "plain"
    assert site.ask("/", headers=BROWSERS[0]).body == "html"


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept": "application/json"},
        {"Accept": "image/png"},
        {"Accept": "application/pdf"},
        {"Accept": "text/css,*/*;q=0.1"},
        {"Accept": "*/*", "X-Requested-With": "XMLHttpRequest"},
        {"Accept": "*/*", "Sec-Fetch-Dest": "empty"},
        {"Accept": "*/*", "Cookie": "PHPSESSID=0123456789abcdef0123", "X-Api-Key": "1"},
    ],
)
def test_who_has_a_wish_gets_no_page_of_a_browser(headers: dict[str, str]) -> None:
    site = Site(lambda asked: page("for browsers"))
    private = {"X-Api-Key": "2"} if "X-Api-Key" in headers else {}
    site.ask("/", headers={**BROWSERS[0], **private})
    site.goes_down()
    assert not site.ask("/", headers=headers).stored


def test_what_varies_by_accept_is_for_nobody_else() -> None:
    site = Site(lambda asked: page("for browsers", Vary="Accept"))
    site.ask("/", headers=BROWSERS[0])
    site.goes_down()
    assert not site.ask("/").stored
    assert site.ask("/", headers=BROWSERS[0]).stored


def test_a_browser_gets_nothing_that_was_stored_for_a_program() -> None:
    site = Site(lambda asked: page("for programs"))
    site.ask("/")
    site.goes_down()
    assert not site.ask("/", headers=BROWSERS[0]).stored


@pytest.mark.parametrize("status", ["301 Moved", "203 Changed on the way"])
def test_a_redirect_of_a_browser_is_for_browsers(status: str) -> None:
    site = Site(lambda asked: page("there", status=status, Location="/there"))
    site.ask("/", headers=BROWSERS[1])
    site.goes_down()
    assert not site.ask("/").stored


# -- Which variant goes when there are too many


def many(site: Site, numbers: range, address: str = "192.0.2.7") -> None:
    for number in numbers:
        site.ask("/", headers={"Turbo-Frame": str(number)}, address=address)


def kept(site: Site, numbers: range) -> list[int]:
    return [n for n in numbers if site.ask("/", headers={"Turbo-Frame": str(n)}).stored]


def test_the_plain_variants_never_go() -> None:
    site = Site(lambda asked: page(f"frame {asked.fields.get('turbo-frame')}"))
    site.ask("/")
    site.ask("/", headers={"Accept": BROWSER, "Upgrade-Insecure-Requests": "1"})
    many(site, range(30))
    site.goes_down()
    assert site.ask("/").stored
    assert site.ask("/", headers={"Accept": BROWSER, "Upgrade-Insecure-Requests": "1"}).stored
    assert kept(site, range(30)) == list(range(22, 30))


def test_the_least_recently_used_goes() -> None:
    site = Site(lambda asked: page(f"frame {asked.fields.get('turbo-frame')}"))
    for number in range(10):
        many(site, range(number, number + 1), address=f"192.0.2.{number}")
    many(site, range(1), address="192.0.2.98")  # used again
    many(site, range(10, 11), address="192.0.2.99")
    site.goes_down()
    assert kept(site, range(11)) == [0, *range(2, 11)]


def test_one_client_does_not_push_out_anothers() -> None:
    site = Site(lambda asked: page(f"frame {asked.fields.get('turbo-frame')}"))
    for number in range(5):
        many(site, range(number, number + 1), address=f"198.51.100.{number}")
    many(site, range(100, 150), address="203.0.113.1")
    site.goes_down()
    assert kept(site, range(5)) == list(range(5))


# -- The parts


@pytest.mark.parametrize(
    ("accept", "plain", "mark"),
    [
        (BROWSER, True, "html"),
        ("*/*", True, ""),
        ("", True, ""),
        ("text/css,*/*;q=0.1", True, ""),
        ("application/json, text/plain, */*", False, "json"),
        ("application/a+json", False, "json"),
        ("text/html, application/json", False, "html or data"),
        ("application/json, text/html", False, "html or data"),
        ("text/html, application/json;q=0.9", True, "html"),
        ("text/html;q=0, application/json", False, "json"),
        ("text/html;q=0.1, application/json;Q = 0.2", False, "json"),
        ("text/html;level=1;q=0.1, application/json;q=0.1", False, "html or data"),
        ("text/markdown, text/html;q=0.9, */*;q=0.1", False, "other"),
        ("text/vnd.turbo-stream.html, text/html", False, "other"),
        ("text/html, text/plain, */*;q=0.01", True, "html"),
        ("text/html;q=0, */*", True, ""),
        ("text/html;q=-1, application/json", False, "other"),
        ("text/html," * LIST_MEMBERS_MAX, False, "other"),
        ("image/avif,image/webp,*/*;q=0.8", False, "image"),
        ("text/html,application/xhtml+xml,image/avif,*/*;q=0.8", True, "html"),
        ("TEXT/EVENT-STREAM", False, "events"),
    ],
)
def test_accept_counts_by_what_is_preferred(accept: str, plain: bool, mark: str) -> None:
    variant_key = VariantRules().variant_key(((b"accept", accept.encode()),))
    assert variant_key == (f"accept: {mark}\n".encode() if mark else b"")
    assert is_plain(variant_key) is plain


def test_the_order_of_fields_makes_no_shape() -> None:
    fields = ((b"save-data", b"on"), (b"x-moz", b"prefetch"), (b"accept", b"text/html"))
    assert VariantRules().variant_key(fields) == VariantRules().variant_key(fields[::-1]) != b""


def test_the_kind_of_device_counts_more_than_the_language() -> None:
    wanted = (b"en", b"mobile", b"")
    order = [wanted, (b"en", b"mobile", b"X"), (b"de", b"mobile", b""), (b"en", b"", b"")]
    ranks = [likeness(one, wanted) for one in order]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == len(ranks)
    assert set(GEO_FIELDS) >= COUNTRY_FIELDS


@pytest.mark.parametrize("network", ["2001:db8:1:2:", "2001:db8::"])
def test_one_network_pushes_out_no_variants_of_others(network: str) -> None:
    proxy = FakeProxy()

    def ask(address: str, language: str) -> bytes:
        client = proxy.client(get(headers={"Accept-Language": language}), (address, 50000, 0, 0))
        proxy.upstream.sends(reply(b"in " + language.encode()))
        client.resets()
        return client.received()

    ask("192.0.2.1", "de")
    ask("192.0.2.2", "fr")
    for number, letter in enumerate("abcghijklmno", 1):
        ask(f"{network}{number:x}:5:6:7", 2 * letter)
    client = proxy.client(get(headers={"Accept-Language": "de"}))
    proxy.upstream.sends(reply(b"", status="500 Oops"))
    assert body_of(client.received()) == b"in de"


def test_what_may_be_the_id_of_a_device_separates() -> None:
    """HAProxy's manual calls its request ids so, and so do programs on phones what they are."""
    site = Site(lambda asked: page("page"))
    site.ask("/", headers={"X-Unique-ID": "a"})
    site.goes_down()
    assert site.ask("/", headers={"X-Unique-ID": "a"}).stored
    assert not site.ask("/", headers={"X-Unique-ID": "b"}).stored
