"""Isolation while the application is down: nobody gets a page of somebody else.

Each row is a story. Steps of visitors come first, with the cookies of their browsers; then the
application goes down, somebody asks for the page, and gets what the row says: "own" is the private
page of that login, "public" the page without any, "" nothing stored at all.
"""

import gzip
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.site import Asked, Site, page

ID = "0123456789abcdef01234567"
OTHER_ID = "fedcba98765432100123abcd"


class Step(NamedTuple):
    """One request of a story."""

    cookie: str = ""
    target: str = "/inbox"
    method: str = "GET"


def login_by(name: str) -> Callable[[Asked], bytes]:
    """Return an application that knows people by one cookie and sets others on the way."""

    def answer(asked: Asked) -> bytes:
        who = asked.cookies.get(name, "nobody")
        if asked.path == "/start":
            return page("hello", f"PHPSESSID={ID}", f"user_session={ID}", f"SESS1={ID}")
        if asked.path == "/login":
            return page("", f"{name}={asked.target.partition('?')[2]}", status="303 See Other")
        if asked.path == "/logout-by-post":
            return page("bye", f"{name}=; Max-Age=0")
        if asked.path == "/like":
            return page("thanks", "liked=yes")
        if asked.path == "/vote":
            return page("thanks", "csrftoken=abcdef", "_ga=GA1.2.3")
        return page(f"private page of {who}" if who != "nobody" else "public page")

    return answer


START, ALICE = Step(target="/start"), f"PHPSESSID={ID}; auth=alice"

STORIES: dict[str, tuple[str, list[Step], str, str]] = {
    # cookies named like sessions that are none: another cookie says who it is
    "a short flag": ("who", [Step("session=active; who=alice")], "session=active; who=bob", ""),
    "a short flag of one's own": (
        "who",
        [Step("session=active; who=alice")],
        "session=active; who=alice",
        "alice",
    ),
    "settings": (
        "who",
        [Step("SESS_UI=%7B%22theme%22%3A%22dark%22%7D; who=alice")],
        "SESS_UI=%7B%22theme%22%3A%22dark%22%7D; who=bob",
        "",
    ),
    "a long flag that the application never set": (
        "who",
        [Step(f"user_session={ID}; who=alice")],
        f"user_session={ID}; who=bob",
        "",
    ),
    "a long flag that all newcomers are given": (
        "who",
        [START, START, Step(f"user_session={ID}; who=alice")],
        f"user_session={ID}; who=bob",
        "",
    ),
    "the same asked for from the start": (
        "who",
        [START, Step(f"user_session={ID}; who=alice"), START],
        f"user_session={ID}; who=bob",
        "",
    ),
    # a session that the application has set stands alone but for credentials
    "a session with another theme": (
        "PHPSESSID",
        [START, Step(f"PHPSESSID={ID}; theme=dark")],
        f"PHPSESSID={ID}; theme=light",
        ID,
    ),
    "a session of an unknown name with another theme": (
        "PHPSESSID",
        [Step(f"PHPSESSID={ID}; theme=dark")],
        f"PHPSESSID={ID}; theme=light",
        "",
    ),
    "a login beside a session": ("auth", [START, Step(ALICE)], f"PHPSESSID={ID}; auth=bob", ""),
    "no login beside a session": ("auth", [START, Step(ALICE)], f"PHPSESSID={ID}", ""),
    "the same login": ("auth", [START, Step(ALICE)], ALICE + "; theme=light", "alice"),
    "a form's cookie beside a session": (
        "PHPSESSID",
        [START, Step(f"PHPSESSID={ID}; csrf_token=1")],
        f"PHPSESSID={ID}; csrf_token=2",
        ID,
    ),
    # what ends a session
    "an answer to a POST that sets any cookie": (
        "auth",
        [START, Step(ALICE), Step(ALICE, "/login?bob", "POST")],
        ALICE,
        "",
    ),
    "one that takes it": (
        "auth",
        [START, Step(ALICE), Step(ALICE, "/logout-by-post", "POST")],
        ALICE,
        "",
    ),
    "one of a name that says nothing": (
        "auth",
        [START, Step(ALICE), Step(ALICE, "/like", "POST")],
        ALICE,
        "",
    ),
    "not one that is for forms or for analytics": (
        "auth",
        [START, Step(ALICE), Step(ALICE, "/vote", "POST")],
        ALICE,
        "alice",
    ),
    "a login without a session": (
        "auth",
        [Step("auth=alice; a=b"), Step("auth=alice; a=b", "/login?x", "POST")],
        "auth=alice; a=b",
        "",
    ),
    "a flag of everybody's is changed by one": (
        "who",
        [Step("theme=dark"), Step("theme=dark", "/like", "POST")],
        "theme=dark",
        "public",
    ),
    # a name with a comma in it
    "a wildcard and a comma": ("PHPSESSID", [Step(f"_gac_,PHPSESSID={ID}")], "", ""),
    "a session behind a comma": (
        "PHPSESSID",
        [START, Step(f"PHPSESSID={ID}; a=b,PHPSESSID={ID}")],
        f"PHPSESSID={ID}; a=b,PHPSESSID={OTHER_ID}",
        "",
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_who_gets_what(story: str) -> None:
    name, steps, cookie, gets = STORIES[story]
    site = Site(login_by(name))
    for step in steps:
        site.ask(step.target, cookie=step.cookie, method=step.method)
    site.goes_down()
    got = site.ask("/inbox", cookie=cookie)
    expected = {"": None, "public": "public page"}.get(gets, f"private page of {gets}")
    assert (got.body if got.stored else None) == expected


def one_id_for_all(who: dict[str, str]) -> Callable[[Asked], bytes]:
    """Return an application that keeps who has logged in, and never changes a cookie."""

    def answer(asked: Asked) -> bytes:
        session = asked.cookies.get("PHPSESSID") or asked.cookies.get("visit", "")
        if asked.path == "/start":
            return page("hello", f"PHPSESSID={ID}")
        if "as" in asked.target:
            who[session] = asked.target.partition("as=")[2]
            return page("", status="302 Found", Location="/inbox")
        if "out" in asked.target or asked.method == "DELETE":
            who.pop(session, None)
            return page("", status="302 Found", Location="/")
        if session not in who:
            return page("", status="302 Found", Location="/login")
        return page(f"private page of {who[session]}")

    return answer


@pytest.mark.parametrize("cookie", [f"PHPSESSID={ID}", f"visit={ID}"])
@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("GET", "/logout.php"),
        ("POST", "/users/sign_out"),
        ("GET", "/index.php?action=logout"),
        ("GET", "/?task=user.logout"),
        ("GET", "/index.php?route=account/logout"),
        ("GET", "/j_spring_security_logout"),
        ("POST", "/?mylogout="),
        ("POST", "/konto/abmelden"),
        ("DELETE", "/session"),
        ("DELETE", "/api/sessions/17"),
        ("POST", "/signin-oidc?as=bob"),
        ("POST", "/login.php?as=bob"),
        ("POST", "/wp-login.php?as=bob"),
        ("POST", "/users/sign_in?as=bob"),
        ("PUT", "/api/sessions?as=bob"),
    ],
)
def test_a_login_or_logout_that_changes_no_cookie_is_known_by_its_name(
    method: str, change: str, cookie: str
) -> None:
    """PHP's session_destroy leaves the cookie, and many logins keep it: the next visitor has it."""
    site = Site(one_id_for_all({}))
    site.ask("/start")
    site.ask("/login?as=alice", cookie=cookie, method="POST")
    site.ask("/inbox", cookie=cookie)
    site.ask(change, cookie=cookie, method=method)
    site.goes_down()
    assert "alice" not in site.ask("/inbox", cookie=cookie).body


@pytest.mark.parametrize(("method", "target"), [("POST", "/logout"), ("GET", "/?action=logout")])
def test_who_logs_out_while_the_application_is_down_has_left(method: str, target: str) -> None:
    site = Site(one_id_for_all({}))
    cookie = f"PHPSESSID={ID}"
    site.ask("/start")
    site.ask("/login?as=alice", cookie=cookie, method="POST")
    site.ask("/inbox", cookie=cookie)
    site.goes_down()
    site.ask("/vote", cookie=cookie, method="POST")
    assert "alice" in site.ask("/inbox", cookie=cookie).body
    assert site.ask(target, cookie=cookie, method=method).status >= 500
    assert not site.ask("/inbox", cookie=cookie).stored


@pytest.mark.parametrize(
    "target",
    [
        "/oauth/callback?code=a&state=b",
        "/complete/google/?state=b&code=a",
        "/?ticket=ST-1-a",
        "/login/magic?token=a",
        "/switch_user?scope_identifier=user_2",
        "/users/stop_impersonating",
    ],
)
def test_a_login_by_get_is_known_by_its_name_and_its_redirect(target: str) -> None:
    """Who comes back from an identity provider, in an application that keeps its session's id."""
    cookie, who = f"PHPSESSID={ID}", ["alice"]

    def answer(asked: Asked) -> bytes:
        if asked.path == "/start":
            return page("hello", f"PHPSESSID={ID}")
        if asked.path == "/inbox":
            return page(f"private page of {who[0]}")
        if asked.path == "/login":
            return page("who are you?")
        who[0] = "bob"
        return page("", status="302 Found", Location="/inbox")

    site = Site(answer)
    site.ask("/start")
    site.ask("/inbox", cookie=cookie)
    site.ask("/login", cookie=cookie)
    assert site.proxy.services.store.stats()["dropped_session"] == 0, "a form says nothing"
    site.ask(target, cookie=cookie)
    site.goes_down()
    assert not site.ask("/inbox", cookie=cookie).stored


def by_its_body(who: dict[str, str]) -> Callable[[Asked], bytes]:
    """Return an application whose forms all go to `/`, and that never changes a cookie."""

    def answer(asked: Asked) -> bytes:
        if asked.path == "/start":
            return page("hello", f"PHPSESSID={ID}")
        if asked.method == "POST":
            who["is"] = "alice" if "is" not in who else "bob"
            return page("", status="302 Found", Location="/inbox")
        return page(f"private page of {who['is']}")

    return answer


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        (b"do=login&user=bob&password=x", True),
        (b'{"user": "bob", "Password": "x"}', True),
        (b"do=search&passengers=2", False),
        (b"do=logout", True),
        (b'{"query": "mutation { logout }"}', True),
        (b'{"query": "mutation { signIn(code: 17) }"}', True),
        (b"SAMLResponse=PHNhbWw%2B", True),
        (b"code=0." + b"x" * 1500 + b"&id_token=eyJ", True),
    ],
)
def test_a_login_or_logout_of_any_name_is_known_by_its_body(body: bytes, *, ends: bool) -> None:
    """The next person at the same browser, of an application that keeps the id of its session."""
    cookie = f"PHPSESSID={ID}"
    for large in (b"", b"&x=" + b"x" * 300_000):  # the latter is streamed to the application
        site = Site(by_its_body({}))
        site.ask("/start")
        site.ask("/", cookie=cookie, method="POST", body=b"user=alice&password=x")
        site.ask("/mail", cookie=cookie)
        site.ask("/", cookie=cookie, method="POST", body=body + large)
        site.goes_down()
        assert site.ask("/mail", cookie=cookie).stored is not ends


def test_a_login_whose_result_is_not_known_may_have_been_one() -> None:
    site, cookie = Site(by_its_body({})), f"PHPSESSID={ID}"
    site.ask("/start")
    site.ask("/", cookie=cookie, method="POST")
    site.ask("/mail", cookie=cookie)
    site.application = lambda asked: b"no response\r\n\r\n"
    site.ask("/", cookie=cookie, method="POST", body=b"password=x")
    site.goes_down()
    assert not site.ask("/mail", cookie=cookie).stored


@pytest.mark.parametrize(
    ("scheme", "method", "target", "ends"),
    [
        ("Bearer", "POST", "/api/logout", True),
        ("bearer", "DELETE", "/auth/sign-out", True),
        ("Bearer", "POST", "/api/login", False),  # the token of a program, with many users
        ("Bearer", "POST", "/api/vote", False),
        ("Basic", "POST", "/logout", False),  # a password of many, before the application's own
    ],
)
def test_a_token_ends_with_its_logout(scheme: str, method: str, target: str, *, ends: bool) -> None:
    site = Site(lambda asked: page(f"page of {asked.fields.get('authorization')}"))
    headers = {"Authorization": f"{scheme} {ID}"}
    site.ask("/me", headers=headers)
    site.ask(target, headers=headers, method=method)
    site.goes_down()
    assert site.ask("/me", headers=headers).stored is not ends


def test_who_only_opens_the_login_keeps_what_is_stored() -> None:
    site = Site(one_id_for_all({}))
    cookie = f"PHPSESSID={ID}"
    site.ask("/start")
    site.ask("/login?as=alice", cookie=cookie, method="POST")
    site.ask("/inbox", cookie=cookie)
    site.ask("/login", cookie=cookie)
    site.ask("/blog/in", cookie=cookie, method="POST")
    site.ask("/sessions/keynote/vote", cookie=cookie, method="POST")
    site.goes_down()
    assert "alice" in site.ask("/inbox", cookie=cookie).body


@pytest.mark.parametrize(
    ("set_cookie", "status"),
    [
        (f"who=bob{ID}; Path=/", "302 Found"),
        ("who=; Max-Age=0", "302 Found"),
        ("who=; Max-Age=0", "200 OK"),
        ("who=LOGGEDOFF", "200 OK"),
    ],
)
def test_a_login_of_any_name_that_a_get_changes_ends_what_is_stored(
    set_cookie: str, status: str
) -> None:
    """Single sign-on: the application's session stays, another cookie says who it is."""

    def answer(asked: Asked) -> bytes:
        if asked.path == "/callback":
            return page("", set_cookie, status=status, Location="/inbox")
        given = [f"PHPSESSID={ID}"] if asked.path == "/start" else []
        return page(f"inbox of {asked.cookies.get('who')}", *given)

    site = Site(answer)
    site.ask("/start")
    for target in ("/inbox", "/callback"):
        site.ask(target, cookie=f"PHPSESSID={ID}; who=alice{ID}")
    site.goes_down()
    for cookie in (f"PHPSESSID={ID}; who=bob{ID}", f"PHPSESSID={ID}"):
        assert not site.ask("/inbox", cookie=cookie).stored


def test_a_flag_that_many_share_is_not_logged_out() -> None:
    site = Site(login_by("who"))
    site.ask("/inbox", cookie="theme=dark")
    site.ask("/logout", cookie="theme=dark", method="POST")
    site.goes_down()
    assert site.ask("/inbox", cookie="theme=dark").stored


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("value", "ends"),
    [
        ('"cookies"', True),
        ('"cache", "cookies", "storage"', True),
        ('"*"', True),
        ('"cache"', False),
    ],
)
def test_an_answer_after_which_the_browser_forgets_its_cookies_ends_the_session(
    method: str, value: str, *, ends: bool
) -> None:
    def answer(asked: Asked) -> bytes:
        if asked.path == "/bye":
            return page("bye", Clear_Site_Data=value)
        return page("private", *([f"PHPSESSID={ID}"] if asked.path == "/start" else []))

    site = Site(answer)
    cookie = f"PHPSESSID={ID}"
    site.ask("/start")
    site.ask("/inbox", cookie=cookie)
    site.ask("/bye", cookie=cookie, method=method)
    site.goes_down()
    assert site.ask("/inbox", cookie=cookie).stored is not ends
    assert site.ask("/bye", cookie=cookie).stored is (method == "GET" and not ends)


@pytest.mark.parametrize(
    ("value", "stored"), [('"cookies"', False), ('"*"', False), ('"storage"', True)]
)
def test_an_order_to_forget_is_only_for_the_visitor_who_got_it(value: str, *, stored: bool) -> None:
    """A stored one would log others out, who cannot log in while the application is down."""
    site = Site(lambda _: page("bye", Clear_Site_Data=value))
    site.ask("/bye")
    site.goes_down()
    got = site.ask("/bye", cookie=f"PHPSESSID={ID}")
    assert (got.stored, got.field("Clear-Site-Data")) == (stored, None)


@pytest.mark.parametrize("others", [{}, {"Cookie": "lang=de"}, {"X-App": "shop"}])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Referer", "https://evil.example/login"),
        ("Referer", "https://shop.example/<script>"),
        ("User-Agent", "<script>"),
        ("Accept-Language", 'de" onload="evil()'),
        ("Accept-Charset", 'utf-8" onload="evil()'),
        ("Origin", 'https://evil.example" onload="evil()'),
        ("From", "<script>"),
        ("X-B3-TraceId", "463ac35c9f6413ad"),
    ],
)
def test_a_page_that_shows_its_client_does_not_become_that_of_others(
    name: str, value: str, others: dict[str, str]
) -> None:
    """Of everyone, or of all whom a cookie or a field with the same value does not tell apart."""

    def answer(asked: Asked) -> bytes:
        shown = asked.fields.get(name.lower(), "")
        return page(f"<a href='{shown}'>back</a>", Access_Control_Allow_Origin="*")

    site = Site(answer)
    site.ask("/", headers=others)
    site.ask("/", headers={**others, name: value})
    site.goes_down()
    assert site.ask("/", headers=others).body == "<a href=''>back</a>"


SERVLET = "5F2A99C0D1E2B3A4955E6F708182930A"


@pytest.mark.parametrize("others", [{}, {"Cookie": "lang=de"}])
@pytest.mark.parametrize(
    "answer",
    [
        page(f"<a href='/cart;jsessionid={SERVLET}?x=1'>cart</a>"),
        page(f'<a href="/cart?a=b&amp;PHPSESSID={ID}">cart</a>'),
        page(f'<form method=post><input type="hidden" name="PHPSESSID" value="{ID}" /></form>'),
        page("", status="302 Found", Location=f"/home;jsessionid={SERVLET}"),
        page("", status="302 Found", Location="/(S(lit3py55t21z5v55vlm25s55))/default.aspx"),
    ],
)
def test_a_session_that_stands_in_the_links_alone_is_nobody_elses(
    answer: bytes, others: dict[str, str]
) -> None:
    """Of an application that keeps sessions without cookies, in the URLs of its pages."""
    site = Site(lambda _: answer)
    site.ask("/", headers=others)
    site.goes_down()
    assert not site.ask("/", headers=others).stored


@pytest.mark.parametrize(
    ("target", "fields", "body"),
    [
        # The visitor's own, told apart by the URL; one person's; and an article about such URLs.
        (f"/a;jsessionid={SERVLET}", {}, f'<a href="/b;jsessionid={SERVLET}">b</a>'),
        ("/", {"Authorization": "Bearer 1"}, f'<a href="/b;jsessionid={SERVLET}">b</a>'),
        ("/", {}, f"<code>http://shop.example/;jsessionid={SERVLET}</code>"),
        ("/", {}, '<a href="/manual/session?PHPSESSID=short">PHPSESSID</a> and jsessionid=...'),
    ],
)
def test_a_page_that_leads_into_no_session_of_others_is_stored(
    target: str, fields: dict[str, str], body: str
) -> None:
    site = Site(lambda _: page(body))
    site.ask(target, headers=fields)
    site.goes_down()
    assert site.ask(target, headers=fields).body == body


@pytest.mark.parametrize("others", [{}, {"Cookie": "lang=de"}, {"X-App": "shop"}])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Auth-Token", ID),
        ("Authorization", f"Bearer {ID}"),
        ("X-Session-Id", ID),
        ("Cart-Token", f"eyJ0eXAiOiJKV1QifQ.{ID}.x"),
        ("X-AUTH", ID),
    ],
)
def test_a_session_that_a_field_gives_is_nobody_elses(
    name: str, value: str, others: dict[str, str]
) -> None:
    """Of an application whose clients send a field back in place of a cookie (Spring Session)."""
    site = Site(lambda _: page("cart", **{name: value}))
    site.ask("/cart", headers=others)
    site.goes_down()
    assert not site.ask("/cart", headers=others).stored


@pytest.mark.parametrize("etag", ['"1"', '"2"'])
def test_a_session_that_a_304_gives_is_nobody_elses(etag: str) -> None:
    def answer(asked: Asked) -> bytes:
        if "if-none-match" in asked.fields:
            return page("", status="304 Not Modified", ETag=etag, X_Auth_Token=ID)
        return page("cart", ETag='"1"')

    site = Site(answer)
    site.ask("/cart")
    site.ask("/cart", headers={"If-None-Match": '"1"'})
    site.goes_down()
    assert site.ask("/cart").field("X-Auth-Token") is None


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        # The client's own, which separates what is stored; and tokens that are nobody's.
        ({"X-Auth-Token": "alice"}, "X-Auth-Token", ID),
        ({"Authorization": "Bearer 1"}, "X-Access-Token", ID),
        ({"Cookie": f"PHPSESSID={ID}"}, "X-Auth-Token", ID),
        ({}, "X-Next-Page-Token", ID),
        ({}, "X-Continuation-Token", ID),
        ({}, "X-Debug-Token", "5f2a99"),
        ({}, "X-Session", "none"),
        ({}, "X-Author", "a" * 32),
    ],
)
def test_a_token_of_ones_own_or_of_nobody_is_stored(
    fields: dict[str, str], name: str, value: str
) -> None:
    site = Site(lambda _: page("list", **{name: value}))
    site.ask("/list", headers=fields)
    site.goes_down()
    assert site.ask("/list", headers=fields).field(name) == value


@pytest.mark.parametrize("settings", [{"ignore_params": ("utm_*",)}, {"ignore_query": True}])
@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("letter&utm_medium=e-mail&utm_id=a%20b", True),
        ('"><script>', False),
        ("%22%3E%3Cscript%3E", False),
        ("%253Cscript%253E", False),
        ("%27-alert(1)-%27", False),
        ("{{alert(1)}}", False),
        ("a%0d%0aSet-Cookie:x=y", False),
        ("%41" * 1100, False),
    ],
)
def test_an_ignored_parameter_puts_no_script_into_everyones_page(
    settings: dict[str, Any], value: str, *, stored: bool
) -> None:
    site = Site(lambda asked: page(f"<a href='{asked.target}&page=2'>next</a>"), **settings)
    site.ask(f"/?utm_source={value}")
    site.goes_down()
    assert site.ask("/").stored is stored
    assert site.ask(f"/?utm_source={value}").stored is stored


def test_a_parameter_that_is_not_ignored_may_have_anything() -> None:
    site = Site(lambda _: page("found"), ignore_params=("utm_*",))
    site.ask("/search?q=%3Cb%3E&utm_source=letter")
    site.goes_down()
    assert site.ask("/search?q=%3Cb%3E").stored


def test_what_was_stored_is_also_for_who_asks_with_such_a_parameter() -> None:
    site = Site(lambda _: page("home"), ignore_params=("utm_*",))
    site.ask("/")
    site.goes_down()
    assert site.ask("/?utm_source=%3Cb%3E").stored


@pytest.mark.parametrize("name", ["Refresh", "Link"])
def test_a_page_that_leads_back_by_a_field_does_not_become_everyones(name: str) -> None:
    site = Site(lambda asked: page("wait", **{name: f"0; url={asked.fields.get('referer', '/')}"}))
    site.ask("/")
    site.ask("/", headers={"Referer": "https://evil.example/x"})
    site.goes_down()
    assert site.ask("/").field(name) == "0; url=/"


@pytest.mark.parametrize("secret", [{"Authorization": "Bearer 1"}, {"Cookie": f"PHPSESSID={ID}"}])
def test_what_one_person_alone_gets_may_show_the_client(secret: dict[str, str]) -> None:
    site = Site(lambda asked: page(f'{{"request": "{asked.fields["x-request-id"]}"}}'))
    site.ask("/", headers={**secret, "X-Request-ID": "463ac35c9f6413ad"})
    site.goes_down()
    assert site.ask("/", headers={**secret, "X-Request-ID": "2"}).stored


@pytest.mark.parametrize(
    "fields", [{"Referer": "https://evil.example/x"}, {"X-Request-Id": "e" * 20}]
)
def test_nor_does_a_compressed_page(fields: dict[str, str]) -> None:
    def answer(asked: Asked) -> bytes:
        shown = asked.fields.get("referer", "") + asked.fields.get("x-request-id", "")
        text = gzip.compress(f"<a href='{shown}'>back</a>".encode())
        return page(text.decode("latin-1"), Content_Encoding="gzip")

    site = Site(answer)
    site.ask("/", headers=fields)
    site.ask("/other", headers={"Referer": "https://shop.example/"})
    site.goes_down()
    assert not site.ask("/").stored
    assert site.ask("/other").stored


def test_a_compressed_page_that_shows_nothing_of_its_client_is_stored() -> None:
    text = gzip.compress(b"<p>welcome").decode("latin-1")
    site = Site(lambda _: page(text, Content_Encoding="gzip"))
    site.ask("/", headers={"Referer": "https://find.example/"})
    site.goes_down()
    assert site.ask("/").body == "<p>welcome"


def test_a_session_that_many_addresses_use_is_none() -> None:
    """Whatever its name and length: the cookies beside it say who it is."""
    site = Site(login_by("who"))
    site.ask("/start")
    for number in range(30):
        site.ask("/inbox", cookie=f"user_session={ID}; who=v{number}", address=f"192.0.2.{number}")
    site.ask("/inbox", cookie=f"user_session={ID}; who=alice")
    site.goes_down()
    assert "alice" not in site.ask("/inbox", cookie=f"user_session={ID}; who=bob").body
    assert "alice" in site.ask("/inbox", cookie=f"user_session={ID}; who=alice").body


def test_one_persons_addresses_are_no_crowd() -> None:
    site = Site(login_by("user_session"))
    site.ask("/start")
    for number in range(10):
        site.ask(f"/{number}", cookie=f"user_session={ID}; a={number}", address=f"192.0.2.{number}")
    site.goes_down()
    assert ID in site.ask("/3", cookie=f"user_session={ID}; a=other").body


def test_a_logout_that_carries_one_of_two_sessions_ends_what_both_have() -> None:
    """WordPress over https: the administration's cookie has a path of its own."""

    def answer(asked: Asked) -> bytes:
        if asked.path == "/wp-login.php":
            if asked.method == "POST":
                return page(
                    "",
                    f"wordpress_sec_1={ID}; Path=/wp-admin; Secure",
                    f"wordpress_logged_in_1={OTHER_ID}; Path=/",
                    status="302 Found",
                )
            return page("bye", "wordpress_logged_in_1=+; Max-Age=0", "wordpress_sec_1=+; Max-Age=0")
        return page("private" if len(asked.cookies) > asked.path.startswith("/wp-admin") else "no")

    both = f"wordpress_sec_1={ID}; wordpress_logged_in_1={OTHER_ID}"
    site = Site(answer)
    site.ask("/wp-login.php", method="POST")
    site.ask("/wp-admin/", cookie=both)
    site.ask("/", cookie=f"wordpress_logged_in_1={OTHER_ID}")
    assert site.proxy.services.store.stats()["owners"] == 2
    site.ask("/wp-login.php?action=leave", cookie=f"wordpress_logged_in_1={OTHER_ID}")
    assert site.proxy.services.store.stats()["owners"] == 0
    site.goes_down()
    assert not site.ask("/wp-admin/", cookie=both).stored


@pytest.mark.parametrize("cookie", ["", "theme=dark"])
def test_a_login_without_a_session_ends_what_the_session_that_it_gives_has(cookie: str) -> None:
    """An application with one session for each person gives it again to another browser."""

    def answer(asked: Asked) -> bytes:
        if asked.method == "POST":
            return page("", f"PHPSESSID={ID}", status="303 See Other")
        return page(f"private page of {len(asked.cookies)}")

    both = f"PHPSESSID={ID}; remember_token={OTHER_ID}"
    site = Site(answer)
    site.ask("/login", method="POST")
    site.ask("/", cookie=both)
    assert site.proxy.services.store.stats()["owners"] == 1
    site.ask("/login", cookie=cookie, method="POST")
    assert site.proxy.services.store.stats()["owners"] == 0
    site.goes_down()
    assert not site.ask("/", cookie=both).stored


def test_what_was_asked_before_a_logout_by_the_other_cookie_is_not_stored_after_it() -> None:
    site = Site(login_by("auth"))
    site.ask("/start")
    both = f"PHPSESSID={ID}; SESS1={OTHER_ID}"
    late = site.visitor()
    late.sends(f"GET /late HTTP/1.1\r\nHost: shop.example\r\nCookie: {both}\r\n\r\n".encode())
    upstream = site.proxy.upstreams[-1]
    upstream.written()
    site.ask("/like", cookie=f"SESS1={OTHER_ID}", method="POST")
    upstream.sends(page("private"))
    site.goes_down()
    assert not site.ask("/late", cookie=both).stored


# -- What an answer shows of a session that it begins


@pytest.mark.parametrize("name", ["PHPSESSID", "sid", "auth_token", "XSRF-TOKEN", "cart", "x"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (ID, ID),
        (ID, ID[:8]),
        (ID, ID[5:13]),
        (ID, ID[-8:]),
        (f"s%3A{ID}.abcdefghijklmnop", f"s:{ID}"),
        (f"s%3A{ID}.abcdefghijklmnop", ID),
        (f'"{ID}"', ID),
        ("QwErTyUiOp", "QwErTyUi"),
        ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
        ("abcdefghijklmnopqrstuvwxyz", "fghijklmnopqrstu"),
        (ID * 9, f"<{ID * 9}>"),
        (ID * 9, ID * 2),
    ],
)
def test_a_page_that_shows_a_cookie_it_sets_is_not_everyones(
    name: str, value: str, shown: str
) -> None:
    site = Site(lambda asked: page(f"<a href='/p?sid={shown}'>", f"{name}={value}; Path=/"))
    site.ask("/")
    assert site.proxy.services.store.stats()["entries"] == 0


@pytest.mark.parametrize(
    ("set_cookie", "body"),
    [
        (f"sid={ID}", f"<p>{ID[:7]} is short"),
        ("popup=newsletter_seen", "<p>newsletter"),
        ("layout=sidebar-left", "<body class=sidebar-left>"),
        ("_ga=GA1.2.12345678.1", "GA1.2.12345678.1"),
        ("last=/p/item-12345678", "/p/item-12345678"),
        (f"sid=; Max-Age=0; was={ID}", ID),
    ],
)
def test_a_page_that_shows_nothing_of_it_is(set_cookie: str, body: str) -> None:
    site = Site(lambda asked: page(body, set_cookie))
    site.ask("/p/item-12345678")
    assert site.proxy.services.store.stats()["entries"] == 1


def test_a_page_with_more_to_look_for_than_is_looked_for_is_not_stored() -> None:
    names = [f"c{number}={number:064x}" for number in range(60)]
    site = Site(lambda asked: page("x" * 500_000, *names))
    site.ask("/")
    assert site.proxy.services.store.stats()["entries"] == 0


FORM = "<form action=/post METHOD = 'post'><input name=t value=1></form>"


@pytest.mark.parametrize(
    ("set_cookie", "body", "stored"),
    [
        (f"sessionid={ID}", FORM, False),
        ("csrftoken=abc", FORM, False),
        (f"xyz={ID}", FORM, False),
        (f"sessionid={ID}", "<meta name=csrf-token content=x>", False),
        (f"sessionid={ID}", "<form method=get action=/search>", True),
        ("theme=dark", FORM, True),
        ("_ga=GA1.2.12345678.1", FORM, True),
    ],
)
def test_a_form_of_a_first_visit_belongs_to_its_session(
    set_cookie: str, body: str, stored: bool
) -> None:
    site = Site(lambda asked: page(body, set_cookie))
    site.ask("/")
    assert site.proxy.services.store.stats()["entries"] == stored
    # Cookies that say nothing of who it is make no session of it.
    site.ask("/", cookie="theme=light")
    assert site.proxy.services.store.stats()["entries"] == 2 * stored


def test_what_came_with_a_cookie_hides_a_failure_and_spares_no_work() -> None:
    """A visitor who got it without the cookie could not send its form."""
    site = Site(lambda asked: page("page", "seen=1"), max_in_flight=1, queue_wait_s=1.0)
    for cookie in ("", "seen=1"):
        site.ask("/", cookie=cookie)
    site.visitor().sends(b"GET /slow HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    first, again = site.visitor(), site.visitor()
    first.sends(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n")
    again.sends(b"GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: seen=1\r\n\r\n")
    site.proxy.advance(0.9)
    assert b"X-Retter: cache" in again.received()
    assert first.received() == b""
    site.proxy.advance(0.2)
    assert b"X-Retter: cache" in first.received()
    site.goes_down()
    assert site.ask("/").stored


@pytest.mark.parametrize(
    "target",
    [
        "/logout",
        "/user/logout",
        "/logout.php",
        "/LogOut",
        "/wp-login.php?action=logout",
        "/?signout",
        "/sign-out/",
        "/a?x=1&do=logoff",
        "/log-out;x",
        "/index.php?route=account/logout",
        "/?r=site%2Flogout",
        "/?q=user/logout",
        "/?mylogout=",
        "/?title=Special:UserLogout",
        "/wiki/Special:UserLogout",
        "/j_spring_security_logout",
        "/my-account/customer-logout/",
        "/user_logout.php",
        "/secure/Logout!default.jspa",
        "/connect/endsession",
        "/abmelden",
        "/konto/cerrar-sesion?x",
        "/post?_wpnonce=1",
        "/f?a=b&_token=x",
        "/x?csrf_token=1",
        "/x?Nonce=1",
        "/checkout/1",
        "/shop/?a=1&add-to-cart=2",
    ],
)
def test_what_changes_something_by_get_is_never_stored(target: str) -> None:
    site = Site(lambda asked: page("done"), never_store=("/checkout/*", "/shop/?add-to-cart=*"))
    site.ask(target)
    assert site.proxy.services.store.stats()["entries"] == 0
    site.goes_down()
    assert not site.ask(target).stored


@pytest.mark.parametrize(
    "target",
    [
        "/login",
        "/logouts",
        "/blog/how-to-logout-of-it",
        "/blog/how-to-logout",
        "/layout",
        "/about/checkout",
        "/?route=common/layout",
        "/?q=logout+page",
        "/?q=hangout",
        "/?token=1",
        "/checkout",
        "/shop/?a=add-to-cart=2",
        "/other/?add-to-cart=2",
        "/announce?nonces",
        "/x?access_token=1",
    ],
)
def test_what_only_sounds_so_is(target: str) -> None:
    site = Site(lambda asked: page("page"), never_store=("/checkout/*", "/shop/?add-to-cart=*"))
    site.ask(target)
    assert site.proxy.services.store.stats()["entries"] == (0 if "nonce" in target else 1)


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (page("", status="302 Found", Location="/next"), 1),
        (page("", "step=2", status="302 Found", Location="/next"), 0),
        (page("", "_ga=2", status="302 Found", Location="/next"), 1),
        (page("", status="204 No Content"), 0),
        (page("", status="302 Found", Location="https://evil.example/x"), 0),
        (page("", status="302 Found", Location="/x?y"), 1),
        (page("https://evil.example/x"), 0),
        (page("https://evil.example/xy"), 1),
    ],
)
def test_redirects_and_empty_answers(answer: bytes, stored: int) -> None:
    site = Site(lambda asked: answer)
    site.ask("/", headers={"Referer": "https://evil.example/x"})
    assert site.proxy.services.store.stats()["entries"] == stored


# -- Everyone's page for somebody with cookies


@pytest.mark.parametrize("conditional", [False, True])
def test_a_public_page_that_stands_in_is_kept_by_no_browser(conditional: bool) -> None:
    site = Site(
        lambda asked: page(
            "page",
            Cache_Control="public, max-age=3600",
            Expires="Sun, 06 Nov 2094 08:49:37 GMT",
            ETag='"a"',
        )
    )
    site.ask("/")
    site.goes_down()
    headers = {"If-None-Match": '"a"'} if conditional else {}
    mine = site.ask("/", cookie="theme=dark", headers=headers)
    assert mine.status == (304 if conditional else 200)
    assert (mine.field("Cache-Control"), mine.field("Expires")) == ("no-cache", None)
    assert mine.raw.count(b"Cache-Control") == 1
    everyones = site.ask("/", headers=headers)
    assert everyones.field("Cache-Control") == "public, max-age=3600"


def test_ones_own_stored_page_keeps_its_fields() -> None:
    site = Site(lambda asked: page("page", Cache_Control="private, max-age=60"))
    site.ask("/", cookie="theme=dark")
    site.goes_down()
    got = site.ask("/", cookie="theme=dark")
    assert (got.field("Cache-Control"), got.field("Age")) == ("private, max-age=60", "0")


@pytest.mark.parametrize("coding", ["utf-8", "none", "binary", "aws-chunked", "UTF-8, identity"])
def test_what_is_no_content_coding_is_none(coding: str) -> None:
    site = Site(lambda asked: page("page", f"sid={ID}", Content_Encoding=coding))
    site.ask("/")
    site.goes_down()
    got = site.ask("/")
    assert (got.stored, got.body) == (True, "page")


def test_a_coding_that_nobody_here_can_read_is_one() -> None:
    site = Site(lambda asked: page("page", Content_Encoding="compress"))
    site.ask("/")
    site.goes_down()
    assert not site.ask("/").stored


def test_a_304_gives_nobody_the_session_that_it_begins() -> None:
    session = "0123456789abcdef0123"

    def answer(asked: Asked) -> bytes:
        if "if-none-match" not in asked.fields:
            return page("page", ETag='"1"')
        raw = page("", f"PHPSESSID={session}", status="304 N", ETag='"1"', Link=f"</?s={session}>")
        return raw.replace(b"Content-Length: 0\r\n", b"")

    site = Site(answer)
    site.ask("/")
    assert session in (site.ask("/", headers={"If-None-Match": '"1"'}).field("Link") or "")
    site.goes_down()
    got = site.ask("/")
    assert (got.stored, got.field("Link")) == (True, None)


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-real-ip", "Accept, X-Real-IP"])
@pytest.mark.parametrize("trusted", [(), ("192.0.2.9",)])
def test_what_varies_by_the_address_is_for_nobody_else(name: str, trusted: tuple[str, ...]) -> None:
    """RETTER writes these fields: what the client sent does not tell the addresses apart."""
    site = Site(lambda asked: page(asked.fields["x-real-ip"], Vary=name), trusted_proxies=trusted)
    for _ in range(2):
        site.ask("/", address="192.0.2.9", headers={"X-Forwarded-For": "203.0.113.1"})
    site.goes_down()
    assert not site.ask("/", address="192.0.2.9", headers={"X-Forwarded-For": "203.0.113.2"}).stored
    assert not site.ask("/", address="198.51.100.1").stored


@pytest.mark.parametrize("ended", ["Set-Cookie: PHPSESSID=", 'Clear-Site-Data: "cookies"'])
def test_a_handshake_that_ends_a_session_drops_its_pages(ended: str) -> None:
    """A 101 may set cookies as any other response does."""

    def answer(asked: Asked) -> bytes:
        if asked.path == "/socket":
            upgrade = "Connection: upgrade\r\nUpgrade: websocket"
            return f"HTTP/1.1 101 Switching\r\n{upgrade}\r\n{ended}\r\n\r\n".encode()
        return page("private", *([f"PHPSESSID={ID}"] if asked.path == "/start" else []))

    site = Site(answer)
    cookie = f"PHPSESSID={ID}"
    site.ask("/start")
    site.ask("/inbox", cookie=cookie)
    asks = {"Connection": "upgrade", "Upgrade": "websocket"}
    assert site.ask("/socket", cookie=cookie, headers=asks).status == 101
    site.goes_down()
    assert not site.ask("/inbox", cookie=cookie).stored


def test_a_304_leads_nobody_else_back_to_where_its_client_came_from() -> None:
    def answer(asked: Asked) -> bytes:
        link = f"<{asked.fields.get('referer', '/')}>; rel=prev"
        if "if-none-match" not in asked.fields:
            return page("page", ETag='"1"', Link=link)
        return page("", status="304 N", ETag='"1"', Link=link).replace(
            b"Content-Length: 0\r\n", b""
        )

    site = Site(answer)
    site.ask("/")
    for place in ("https://evil.example/x", "https://shop.example/list"):
        site.ask("/", headers={"If-None-Match": '"1"', "Referer": place})
    site.goes_down()
    assert site.ask("/").field("Link") == "<https://shop.example/list>; rel=prev"
    site = Site(answer)
    site.ask("/")
    site.ask("/", headers={"If-None-Match": '"1"', "Referer": "https://evil.example/x"})
    site.goes_down()
    assert site.ask("/").field("Link") == "</>; rel=prev"
