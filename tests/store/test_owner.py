"""Who is who: every row of the isolation table, and everything unclear on the safe side."""

from random import Random
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retter.base.frames import VERSION
from retter.base.hashing import blake2b
from retter.base.limits import COOKIES_MAX, SET_COOKIE_ATTRIBUTES_MAX
from retter.base.wildcard import name_matcher
from retter.http.known_names import (
    DEFAULT_SESSION_COOKIES,
    IGNORABLE_COOKIES,
    NEUTRAL_FIELDS,
    SHAPE_FIELDS,
)
from retter.http.message import ResponseHead
from retter.store.owner import (
    COOKIE_LINE_BYTES_REMEMBERED_MAX,
    COOKIE_LINES_BYTES_MAX,
    LISTS_AT_HAND_MAX,
    NAMES_REMEMBERED_MAX,
    SHORT_WAY_COOKIES_MAX,
    OwnerClass,
    OwnerRules,
    Rolling,
    _owner,
    _owner_of_plain_line,
    owner_of,
)
from retter.store.packing import FORMAT_VERSION
from retter.store.sessions import (
    CLIENTS_MAX,
    ISSUED_MAX,
    NAMES_LEARNT_MAX,
    SHARED_MAX,
    WATCHED_MAX,
    SessionsSeen,
)
from retter.store.set_cookie import learn, sets_session
from tests.support.heads import request_head as request
from tests.support.heads import response_head
from tests.support.tracing import untraced

SECRET = b"0123456789abcdef"


def example_of(pattern: bytes) -> bytes:
    return pattern.replace(b"*", b"Ab3")


def seen() -> SessionsSeen:
    """Return what is known where the application has set every session cookie of the list."""
    known = SessionsSeen()
    for name in map(example_of, DEFAULT_SESSION_COOKIES):
        for spelled in (name, name.swapcase(), b"__Host-" + name, b"__Secure-" + name):
            known.names.add(spelled)
    return known


RULES = OwnerRules(secret=SECRET, seen=seen())
SESSION, COOKIES = OwnerClass.SESSION, OwnerClass.COOKIES


class Owner(NamedTuple):
    """What owner_of returns, with names."""

    digest: bytes
    owner_class: OwnerClass
    session: bool
    anonymous: bool
    variant_key: bytes
    marks: tuple[int, ...] = ()
    rolling: Rolling | None = None


EVERYONE = Owner(b"", OwnerClass.EVERYONE, False, False, b"")


def response(
    *set_cookies: bytes, date: bytes = b"Sun, 06 Nov 1994 08:49:37 GMT", status: int = 200
) -> ResponseHead:
    fields = ((b"date", date),) if date else ()
    return response_head(*fields, set_cookies=set_cookies, status=status)


def owner(*fields: tuple[bytes, bytes], rules: OwnerRules = RULES) -> Owner:
    return Owner(*owner_of(request(*fields), [], rules))


def cookies(line: bytes, rules: OwnerRules = RULES) -> Owner:
    return owner((b"cookie", line), rules=rules)


# -- Row 1: fields that identify nobody


@pytest.mark.parametrize("name", [example_of(name).lower() for name in NEUTRAL_FIELDS])
def test_a_neutral_field_is_everyone(name: bytes) -> None:
    assert owner((name, b"any value")) == EVERYONE


@pytest.mark.parametrize("name", SHAPE_FIELDS)
def test_a_field_that_asks_for_another_answer_separates_variants_not_owners(name: bytes) -> None:
    one, other = request((name, b"one")), request((name, b"other"))
    assert owner((name, b"one")) == EVERYONE
    assert one.variant_key != other.variant_key != b""


def test_forwarded_separates_by_scheme_and_host_not_by_client() -> None:
    one = request((b"forwarded", b'for=10.0.0.1;proto=https;host="a.example"'))
    same = request((b"forwarded", b'for=10.0.0.2;Proto=https;host="a.example"'))
    other = request((b"forwarded", b'for=10.0.0.1;proto=http;host="a.example"'))
    assert owner(*one.identity_fields) == EVERYONE
    assert one.variant_key.lower() == same.variant_key.lower()
    assert one.variant_key != other.variant_key


def test_neutral_headers_adds_names() -> None:
    rules = OwnerRules(secret=SECRET, neutral_headers=(b"X-App-Version", b"x-ab-*"))
    assert owner((b"x-app-version", b"7"), (b"x-ab-test", b"b"), rules=rules) == EVERYONE


# -- Row 2: credentials


@pytest.mark.parametrize(
    "name",
    [
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"x-auth-token",
        b"x-csrf-token",
        b"baggage",
        b"sec-token-binding",
        b"sec-session-response",
        b"x-forwarded-user",
        b"x-forwarded-email",
        b"x-forwarded-access-token",
        b"x-forwarded-client-cert",
        b"cf-access-jwt-assertion",
        b"cf-access-client-secret",
        b"x-remote-user",
        b"x-original-url",
        b"x_forwarded_for",
        b"cookie2",
        b"x-whatever",
    ],
)
def test_a_field_that_is_not_known_to_be_neutral_is_a_credential(name: bytes) -> None:
    one, other = owner((name, b"one")), owner((name, b"other"))
    assert one.owner_class is OwnerClass.CREDENTIAL
    assert not one.anonymous
    assert len({one.digest, other.digest, b""}) == 3


def test_a_credential_counts_together_with_cookies() -> None:
    bearer, cookie = (b"authorization", b"Bearer x"), (b"cookie", b"a=1")
    both = owner(bearer, cookie)
    assert both.owner_class is OwnerClass.CREDENTIAL
    assert not both.anonymous
    digests = {
        both.digest,
        owner(bearer).digest,
        owner(cookie).digest,
        owner(bearer, (b"cookie", b"a=2")).digest,
    }
    assert len(digests) == 4


def test_a_cookie_never_counts_as_a_field() -> None:
    assert cookies(b"x-api-key=1").digest != owner((b"x-api-key", b"1")).digest


def test_a_credential_beside_a_session_is_the_sessions_owner_and_another_variant() -> None:
    """So that a logout drops what was fetched with it, too."""
    session = (b"cookie", b"PHPSESSID=0123456789abcdef")
    plain, one = owner(session), owner(session, (b"x-api-key", b"1"))
    other = owner(session, (b"x-api-key", b"2"))
    assert plain.digest == one.digest == other.digest
    assert len({plain.variant_key, one.variant_key, other.variant_key}) == 3
    assert one.owner_class is OwnerClass.CREDENTIAL
    assert one.session
    assert not one.anonymous


@pytest.mark.parametrize("name", [b"x-csrf-token", b"x-xsrf-token", b"requestverificationtoken"])
def test_a_token_for_forms_makes_no_variant_beside_a_session(name: bytes) -> None:
    """Laravel's X-XSRF-TOKEN is another one with each request of a script."""
    session = (b"cookie", b"PHPSESSID=0123456789abcdef")
    assert owner(session, (name, b"1")) == owner(session, (name, b"2")) == owner(session)
    key = (b"x-api-key", b"1")
    assert owner(session, key, (name, b"1")) == owner(session, key)
    assert owner((name, b"1")).digest != owner((name, b"2")).digest, "nothing else identifies it"
    theme = (b"cookie", b"theme=dark")
    assert owner(theme, (name, b"1")).digest != owner(theme).digest


def test_repeated_credentials_all_count_in_order() -> None:
    a, b = (b"x-api-key", b"a"), (b"x-api-key", b"b")
    assert len({owner(a).digest, owner(b).digest, owner(a, b).digest, owner(b, a).digest}) == 4


# -- Row 3: session cookies


# As long as what a pattern of the list has to match.
ALICE, BOB = b"a1ice-0123456789abcdef%3D", b"b0b00-0123456789abcdef%3D"


@pytest.mark.parametrize("name", [example_of(name) for name in DEFAULT_SESSION_COOKIES])
class TestSessionCookie:
    def test_its_value_is_the_owner(self, name: bytes) -> None:
        alice, bob = cookies(name + b"=" + ALICE), cookies(name + b"=" + BOB)
        assert alice.owner_class is bob.owner_class is OwnerClass.SESSION
        assert alice.session
        assert alice.anonymous
        assert len({alice.digest, bob.digest, b""}) == 3
        assert len(alice.digest) == 16

    def test_other_cookies_do_not_matter(self, name: bytes) -> None:
        alone = cookies(name + b"=" + ALICE)
        for line in (
            b"theme=dark; %b=%b",
            b"_ga=GA1.2.3; %b=%b",
            b'a={"b":1}; %b=%b',
            b"empty=; %b=%b",
            b" %b=%b ;",
            b"x; %b=%b",
        ):
            assert cookies(line % (name, ALICE)) == alone

    def test_a_deleted_or_constant_one_is_no_session(self, name: bytes) -> None:
        settings = b"%7B%22theme%22%3A%22dark%22%2C%22a%22%3A1%7D"
        for value in (b"", b'""', b"deleted", b"1", b"x" * 15, b'"%b"' % (b"x" * 15), settings):
            one = cookies(name + b"=" + value + b"; token=one")
            other = cookies(name + b"=" + value + b"; token=other")
            assert one.owner_class is OwnerClass.COOKIES
            assert not one.session
            assert one.digest != other.digest

    def test_in_another_case_it_is_any_other_cookie(self, name: bytes) -> None:
        # SESSION (Spring) and session (Flask) are both in the list, SESS* (Drupal) has sessionid.
        listed = name_matcher(DEFAULT_SESSION_COOKIES)(name.swapcase())
        expected = SESSION if listed else COOKIES
        assert cookies(name.swapcase() + b"=" + ALICE).owner_class is expected

    def test_prefixed_it_is_a_session(self, name: bytes) -> None:
        assert cookies(b"__Host-%b=%b" % (name, ALICE)).owner_class is OwnerClass.SESSION
        for prefix in (b"__Http-", b"__Host-Http-"):
            assert cookies(b"%b%b=%b" % (prefix, name, ALICE)).session
        plain, prefixed = cookies(name + b"=" + ALICE), cookies(b"__Secure-" + name + b"=" + ALICE)
        assert plain.digest != prefixed.digest

    def test_a_value_that_applications_read_differently_makes_every_cookie_count(
        self, name: bytes
    ) -> None:
        for odd in (b",", b" ", b'""', b'"', b"\\", b"\xe9"):
            value = ALICE + odd + BOB
            one = cookies(name + b"=" + value + b"; token=one")
            other = cookies(name + b"=" + value + b"; token=other")
            assert one.owner_class is OwnerClass.COOKIES
            assert one.session
            assert one.digest != other.digest

    def test_set_by_a_response_it_begins_or_ends_a_session(self, name: bytes) -> None:
        asked = request((b"cookie", name + b"=" + ALICE))
        assert sets_session(asked, response(b"a=b", name + b"=new; Path=/"), RULES)
        assert sets_session(asked, response(name + b"=; Max-Age=0"), RULES)


def test_all_session_cookies_of_a_request_count_in_order() -> None:
    a, b = b"PHPSESSID=" + ALICE, b"PHPSESSID=" + BOB
    lines = [a, b, a + b"; " + b, b + b"; " + a, a + b"; session=" + BOB, b"session=" + BOB]
    assert len({cookies(line).digest for line in lines}) == len(lines)
    assert {cookies(line).owner_class for line in lines} == {SESSION}


def test_the_list_can_be_set() -> None:
    rules = OwnerRules(secret=SECRET, session_cookies=(b"app", b"_ga_mine"))
    app = b"app=" + ALICE
    assert cookies(app + b"; theme=a", rules) == cookies(app + b"; theme=b", rules)
    assert cookies(b"PHPSESSID=" + ALICE, rules).owner_class is OwnerClass.COOKIES
    # Named in full it is a session, whatever our own lists say.
    assert cookies(b"_ga_mine=" + ALICE, rules).owner_class is OwnerClass.SESSION


@pytest.mark.parametrize("name", [b"first_session", b"SESSIONS_SEEN", b"ab-session"])
def test_a_short_value_under_a_pattern_is_no_session(name: bytes) -> None:
    """As a session it would hide the cookie that is one."""
    for value in (b"yes", b"2026-11-23", b"x" * 23):
        line = name + b"=" + value
        one, other = cookies(line + b"; auth=a"), cookies(line + b"; auth=b")
        assert one.owner_class is OwnerClass.COOKIES
        assert one.digest != other.digest
        assert not one.session
    assert cookies(name + b"=" + b"x" * 24).session


def test_a_wildcard_does_not_make_an_analytics_cookie_a_session() -> None:
    """_*_session catches it; as a session it would hide the cookie that is one."""
    one, other = (
        cookies(b"_parsely_session=%b; auth=a" % ALICE),
        cookies(b"_parsely_session=%b; auth=b" % ALICE),
    )
    assert one.owner_class is OwnerClass.COOKIES
    assert one.digest != other.digest
    assert cookies(b"_parsely_session=" + ALICE).owner_class is OwnerClass.COOKIES


def test_the_analytics_of_a_shop_are_no_session() -> None:
    """WooCommerce's scripts set sbjs_session anew with each page."""
    pages = [b"sbjs_session=pgs%%3D%d%%7C%%7C%%7Ccpg%%3Dhttps%%3A%%2F%%2Fshop" % n for n in (1, 2)]
    assert cookies(pages[0]) == cookies(pages[1]) == EVERYONE
    owners = {cookies(b"wp_woocommerce_session_1=%b; %b" % (ALICE, one)).digest for one in pages}
    assert owners == {cookies(b"wp_woocommerce_session_1=" + ALICE).digest}
    named = OwnerRules(secret=SECRET, session_cookies=(b"sbjs_session",))
    assert len({cookies(one, named).digest for one in pages}) == 2


def test_ignoring_all_cookies_does_not_ignore_sessions() -> None:
    rules = OwnerRules(secret=SECRET, ignore_cookies=(b"*",))
    rules.seen.names.add(b"_app_session")
    assert cookies(b"_app_session=" + ALICE, rules).owner_class is OwnerClass.SESSION
    assert cookies(b"theme=dark", rules) == EVERYONE


# -- Row 4: other cookies


# _parsely_session looks like a session of Rails, so it counts (tested above).
@pytest.mark.parametrize(
    "name", [example_of(name) for name in IGNORABLE_COOKIES if name != b"_parsely_session"]
)
def test_an_ignorable_cookie_is_everyone(name: bytes) -> None:
    assert cookies(name + b"=GA1.2.3") == EVERYONE
    assert cookies(name + b"=1; theme=x").digest == cookies(b"theme=x; %b=2" % name).digest


@pytest.mark.parametrize("value", [b"1, PHPSESSID=a", b'"1; PHPSESSID=a"', b"1 sessionid=a"])
def test_an_ignorable_cookie_that_may_hide_another_counts(value: bytes) -> None:
    one = cookies(b"_ga=" + value)
    other = cookies(b"_ga=" + value.replace(b"=a", b"=b"))
    assert one.owner_class is not OwnerClass.EVERYONE
    assert one.digest != other.digest


@pytest.mark.parametrize(
    "line",
    [
        b"theme=dark",
        b"token",
        b"=value",
        b"_ga",
        b"_gallery_auth=1",
        b"cf_clearance=1",
        b"wordpress_0123=1",
        b"remember_me=1",
        b"csrftoken=1",
        b"PHPSESSID",
        b"_ga =1, x=y",
    ],
)
def test_other_cookies_are_the_owner_and_everyones_answer_may_stand_in(line: bytes) -> None:
    found = cookies(line)
    assert found.owner_class is OwnerClass.COOKIES
    assert found.anonymous
    assert not found.session
    assert len(found.digest) == 16


def test_no_two_lists_of_cookies_are_the_same_owner() -> None:
    lines = [
        b"a=1",
        b"a=2",
        b"a=",
        b"a",
        b"=a",
        b"a=1; b=2",
        b"a=1;b=",
        b"a=1b=2",
        b"a==1",
        b'a="1"',
        b"a=1; a=1",
        b"b=2; a=1",
        b"A=1",
        b"a=1, b=2",
    ]
    assert len({cookies(line).digest for line in lines}) == len(lines)


def test_no_cookie_at_all_is_everyone() -> None:
    assert cookies(b"") == cookies(b" ; ;") == EVERYONE


def test_the_fallback_can_be_turned_off() -> None:
    rules = OwnerRules(secret=SECRET, anonymous_fallback=False)
    assert not cookies(b"theme=dark", rules).anonymous
    assert not cookies(b"PHPSESSID=" + ALICE, rules).anonymous


# -- Unclear


def test_several_cookie_lines_all_count() -> None:
    session, one, other = b"PHPSESSID=" + ALICE, b"token=1", b"token=2"
    first = owner((b"cookie", session), (b"cookie", one))
    second = owner((b"cookie", session), (b"cookie", other))
    assert first.owner_class is OwnerClass.COOKIES
    assert first.session
    assert first.digest != second.digest
    assert first.digest != owner((b"cookie", one), (b"cookie", session)).digest


def test_a_quoted_string_over_a_semicolon_makes_every_cookie_count() -> None:
    one, other = cookies(b'a="x; _ga=1; y"'), cookies(b'a="x; _ga=2; y"')
    assert one.digest != other.digest
    fake = b'a="x; PHPSESSID=%b; y"; token=' % ALICE
    assert cookies(fake + b"1").digest != cookies(fake + b"2").digest


def test_a_session_in_the_url_counts_and_nothing_public_stands_in() -> None:
    one = Owner(*owner_of(request(), [b"PHPSESSID=a"], RULES))
    other = Owner(*owner_of(request(), [b"PHPSESSID=b"], RULES))
    assert one.owner_class is OwnerClass.SESSION
    assert one.session
    assert not one.anonymous
    assert one.digest != other.digest
    assert one.digest != cookies(b"PHPSESSID=a").digest
    with_cookie = Owner(*owner_of(request((b"cookie", b"a=1")), [b"PHPSESSID=a"], RULES))
    assert with_cookie.digest not in (one.digest, cookies(b"a=1").digest)


# -- The hash, the memos, the patterns


def test_another_secret_gives_another_owner() -> None:
    other = OwnerRules(secret=b"f" * 16)
    assert cookies(b"a=1").digest != cookies(b"a=1", other).digest


def test_a_hash_begins_with_the_secret() -> None:
    """With `key`, each would take one block more."""
    rules = OwnerRules(secret=b"0123456789abcdef", lasting=True)
    session = b"5f2b1c9a7e4d3f6b8a"
    owner = cookies(b"PHPSESSID=" + session, rules)
    counted = b"C" + bytes([0, 0, 0, 10, 0, 0, 0, 18]) + b"PHPSESSID=" + session
    hashed = blake2b(rules.secret + counted, digest_size=16, person=b"owner")
    marked = blake2b(rules.secret + session, digest_size=8, person=b"mark")
    assert owner.digest == hashed.digest()
    assert owner.marks == (int.from_bytes(marked.digest(), "big", signed=True),)


def test_what_is_hashed_belongs_to_the_version_of_stores() -> None:
    """Who changes it gives FORMAT_VERSION another number, and base/frames.VERSION."""
    rules = OwnerRules(secret=b"0123456789abcdef", lasting=True)
    owner = cookies(b"PHPSESSID=5f2b1c9a7e4d3f6b8a", rules)
    assert (FORMAT_VERSION, VERSION) == (2, 2)
    assert owner.digest.hex() == "df971c44a14ed2bd105f2f3680a34234"
    assert owner.marks == (-5439776650017470311,)


@pytest.mark.parametrize("secret", [b"", b"short", b"x" * 65])
def test_a_secret_has_a_length(secret: bytes) -> None:
    with pytest.raises(ValueError, match="16 to 64"):
        OwnerRules(secret=secret)


def test_the_secret_is_not_shown() -> None:
    assert "0123456789abcdef" not in repr(RULES)


@untraced
def test_the_memos_are_bounded_and_change_nothing() -> None:
    rules = OwnerRules(secret=SECRET)
    numbers = range(max(NAMES_REMEMBERED_MAX, COOKIE_LINES_BYTES_MAX // 300) + 10)
    for number in numbers:
        line = b"n%d=1" % number
        assert cookies(line, rules) == cookies(line, rules) == cookies(line, rules) == cookies(line)
    assert len(rules.cookie_kinds) <= NAMES_REMEMBERED_MAX
    assert 0 < len(rules.cookie_owners) < len(numbers)
    long = b"n=" + b"x" * COOKIE_LINE_BYTES_REMEMBERED_MAX
    assert cookies(long, rules) == cookies(long, rules)
    assert long not in rules.cookie_owners.young


def test_two_thousand_visitors_that_are_active_are_remembered() -> None:
    """With the cookies of a browser; in any order, after some pages of each."""
    rules = OwnerRules(secret=SECRET)
    lines = [
        b"_ga=GA1.1.%09d.1731500000; _fbp=fb.1.1731500000000.%09d; _gcl_au=1.1.1490000000; "
        b"PHPSESSID=5f2b1c9a7e4d3f6b8a%09d; _hjSessionUser_1234567=eyJpZCI6%09dIn0"
        % (number, number, number, number)
        for number in range(2000)
    ]
    for line in Random(1).choices(lines, k=20_000):
        cookies(line, rules)
    assert sum(rules.cookie_owners.get(line) is not None for line in lines) >= 1900


def test_no_cookie_value_is_shown() -> None:
    rules = OwnerRules(secret=SECRET)
    owners = [cookies(b"PHPSESSID=topsecret-topsecret; x=topsecret", rules) for _ in range(3)]
    shown = repr((rules, rules.cookie_owners, rules.cookie_kinds, rules.field_kinds, owners))
    assert "topsecret" not in shown


# -- More cookies than are read


@pytest.mark.parametrize("lines", [
    [b"; ".join([b"c%d=1" % n for n in range(COOKIES_MAX + 1)])],
    [b"PHPSESSID=" + b"a1" * 16, b"; ".join([b"_ga_%d=1" % n for n in range(COOKIES_MAX)])],
    [b"; ".join([b"_ga_%d=1" % n for n in range(COOKIES_MAX + 1)])],
    [b";" * COOKIES_MAX],
])  # fmt: skip
def test_more_cookies_than_are_read_are_nobody_elses(lines: list[bytes]) -> None:
    """Not even everyone's, of cookies that would all be ignored; and nothing is known of them."""
    one = owner(*[(b"cookie", line) for line in lines])
    assert one.owner_class is OwnerClass.UNREAD
    assert one.digest and not one.anonymous and not one.session
    assert one != owner((b"cookie", lines[0] + b"; d=1"), *[(b"cookie", x) for x in lines[1:]])


def test_as_many_cookies_as_are_read() -> None:
    ignored = b"; ".join([b"_ga_%d=1" % n for n in range(COOKIES_MAX)])
    assert cookies(ignored) == EVERYONE
    others = b"; ".join([b"c%d=1" % n for n in range(COOKIES_MAX)])
    assert cookies(others).owner_class is OwnerClass.COOKIES
    in_them = others.replace(b"c0=1;", b"PHPSESSID=" + ALICE + b";")
    assert cookies(in_them) == cookies(b"PHPSESSID=" + ALICE)


# -- A login, a logout, or only a longer life


@pytest.mark.parametrize(
    ("set_cookie", "changes"),
    [
        (b"PHPSESSID=old", False),
        (b"PHPSESSID=old; Path=/; HttpOnly", False),
        (b" PHPSESSID = old ; Max-Age=3600", False),
        (b"PHPSESSID=old; Expires=Mon, 07 Nov 1994 08:49:37 GMT", False),
        (b"PHPSESSID=old; expires=Mon, 07-Nov-1994 08:49:37 GMT", False),
        (b"PHPSESSID=new", True),
        (b"PHPSESSID=", True),
        (b"PHPSESSID", True),
        (b"session=anything", True),
        (b"PHPSESSID=old; Max-Age=0", True),
        (b"PHPSESSID=old; max-age=-1", True),
        (b"PHPSESSID=old; Max-Age=soon", True),
        (b"PHPSESSID=old; Max-Age", True),
        (b"PHPSESSID=old; Expires=Thu, 01 Jan 1970 00:00:00 GMT", True),
        (b"PHPSESSID=old; Expires=Thu, 01-Jan-70 00:00:00 GMT", True),
        (b"PHPSESSID=old; Expires=yesterday", True),
        (b"PHPSESSID=old" + b"; a" * (SET_COOKIE_ATTRIBUTES_MAX - 1), False),
        (b"PHPSESSID=old" + b"; a" * (SET_COOKIE_ATTRIBUTES_MAX + 1), True),
        (b"PHPSESSID=old; Expires=Mon, 07 Nov 1994 08:49:37 -0000", False),
        (b"PHPSESSID=old; Expires=Mon, 7 Nov 1994 08:49:37 UTC", False),
        (b"PHPSESSID=old; Expires=Thu, 01 Jan 1970 00:00:00 -0000", True),
        (b"theme=dark", False),
        (b"phpsessid=new", False),
        (b"", False),
    ],
)
def test_which_set_cookie_changes_the_session(set_cookie: bytes, changes: bool) -> None:
    asked = request((b"cookie", b"a=b; PHPSESSID=old"))
    assert sets_session(asked, response(set_cookie), RULES) is changes
    assert sets_session(asked, response(b"x=y", set_cookie), RULES) is changes


def test_two_sessions_given_back_as_they_came_change_nothing() -> None:
    asked = request((b"cookie", b"PHPSESSID=a; session=b"))
    assert not sets_session(asked, response(b"PHPSESSID=a", b"session=b"), RULES)
    assert sets_session(asked, response(b"PHPSESSID=a", b"session=c"), RULES)


def test_no_set_cookie_changes_nothing() -> None:
    assert not sets_session(request(), response(), RULES)


def test_a_first_session_is_a_change() -> None:
    assert sets_session(request(), response(b"PHPSESSID=new"), RULES)


def test_an_unsafe_request_that_sets_the_same_session_is_a_change() -> None:
    asked = request((b"cookie", b"PHPSESSID=old"), method=b"POST")
    assert sets_session(asked, response(b"PHPSESSID=old"), RULES)


def test_an_expiry_without_a_date_to_compare_is_a_change() -> None:
    asked = request((b"cookie", b"PHPSESSID=old"))
    again = response(b"PHPSESSID=old; Expires=Mon, 07 Nov 1994 08:49:37 GMT", date=b"")
    assert sets_session(asked, again, RULES)


def test_one_of_two_equal_session_cookies_given_back_is_a_change() -> None:
    asked = request((b"cookie", b"PHPSESSID=a; PHPSESSID=b"))
    assert sets_session(asked, response(b"PHPSESSID=a"), RULES)


LOGIN = b"id=" + ALICE


@pytest.mark.parametrize(
    ("carried", "set_cookie", "status", "changes"),
    [
        (LOGIN, b"id=; Max-Age=0", 200, True),
        (LOGIN, LOGIN + b"; Max-Age=0", 302, True),
        (LOGIN, b"id=LOGGEDOFF", 200, True),
        (LOGIN, b"id=" + BOB, 302, True),
        # A page may count, or keep where its visitor was.
        (LOGIN, b"id=" + BOB, 200, False),
        (LOGIN, LOGIN, 302, False),
        (b"x=1", b"id=" + BOB, 302, True),  # the next login, when the last one has expired
        (b"x=1", b"id=" + BOB, 200, False),
        (b"x=1", b"id=dark", 302, False),
        (b"x=1", b"id=%b; Max-Age=0" % BOB, 302, False),
        (b"id=dark", b"id=; Max-Age=0", 200, False),
        (b"csrf_token=" + ALICE, b"csrf_token=; Max-Age=0", 302, False),
        (b"_ga=" + ALICE, b"_ga=; Max-Age=0", 302, False),
    ],
)
def test_a_login_of_any_name_beside_a_session_is_lost(
    carried: bytes, set_cookie: bytes, status: int, *, changes: bool
) -> None:
    asked = request((b"cookie", b"PHPSESSID=old; " + carried))
    assert sets_session(asked, response(set_cookie, status=status), RULES) is changes


# -- Whatever comes


VALUES = st.binary(max_size=40) | st.text(alphabet='aA=;, "_gPHSEID.\\', max_size=40).map(
    lambda text: text.encode("latin-1")
)
NAMES = st.sampled_from([b"cookie", b"cookie", b"authorization", b"forwarded", b"x-new", b"accept"])


@given(fields=st.lists(st.tuples(NAMES, VALUES), max_size=4), set_cookie=VALUES)
def test_any_fields_give_an_owner(fields: list[tuple[bytes, bytes]], set_cookie: bytes) -> None:
    asked = request(*fields)
    found = Owner(*owner_of(asked, [], RULES))
    assert found == Owner(*owner_of(asked, [], OwnerRules(secret=SECRET, seen=seen())))
    assert len(found.digest) == (0 if found.owner_class is OwnerClass.EVERYONE else 16)
    if any(name in (b"authorization", b"x-new") for name, _ in fields):
        assert found.owner_class is OwnerClass.CREDENTIAL
        assert not found.anonymous
    assert sets_session(asked, response(set_cookie), RULES) in (True, False)


@given(line=VALUES, one=st.binary(min_size=4, max_size=8), other=st.binary(min_size=4, max_size=8))
def test_two_sessions_are_never_one_owner(line: bytes, one: bytes, other: bytes) -> None:
    """Whatever else stands in the Cookie field, before it or after it."""
    first, second = (b"PHPSESSID=01234567" + value.hex().encode() for value in (one, other))
    for pattern in (b"%b; %b", b"%b;%b; "):
        assert (
            cookies(pattern % (line, first)).digest == cookies(pattern % (line, second)).digest
        ) is (one == other)
        assert (
            cookies(pattern % (first, line)).digest == cookies(pattern % (second, line)).digest
        ) is (one == other)


def test_long_names_are_classified_and_not_remembered() -> None:
    """A stranger may send names as long as a head; a thousand of them kept fill a machine."""
    rules = OwnerRules(secret=b"s" * 32)
    long_name = b"x-" + b"a" * 60_000
    assert rules.field_kinds[long_name] is rules.field_kinds[b"x-api-key"]
    assert long_name not in rules.field_kinds
    assert b"x-api-key" in rules.field_kinds


PIECES = st.lists(
    st.sampled_from(
        [
            b"PHPSESSID",
            b"JSESSIONID",
            b"my_session",
            b"_parsely_session",
            b"_ga",
            b"theme",
            b"auth",
            b"=",
            b";",
            b" ",
            b"\t",
            b"; ",
            b"0123456789abcdef0123456789",
            b"deleted",
            b"1",
            b"x",
            b",",
            b'"',
            b"\xff",
            b"__Host-",
        ]
    ),
    max_size=12,
).map(b"".join)


@given(line=PIECES)
@example(line=b"PHPSESSID= 0123456789abcdef0123456789")
@example(line=b"PHPSESSID=0123456789abcdef0123456789; auth= 0123456789abcdef0123456789")
@example(line=b"theme=dark; ,x")
@example(line=b"theme=dark; ,x; y=1")
def test_the_short_way_through_a_cookie_line_comes_to_the_same(line: bytes) -> None:
    short = _owner_of_plain_line(line, RULES)
    assert short is None or short == _owner([], [line], [], RULES)


@given(line=PIECES)
def test_a_credential_beside_it_makes_no_other_session(line: bytes) -> None:
    """One session is one owner, however the rest of its requests looks."""
    alone, beside = cookies(line), owner((b"cookie", line), (b"x-csrf-token", b"t"))
    if alone.session:
        assert beside.session and beside.digest == alone.digest


def test_blanks_around_a_cookie_name_are_no_part_of_it() -> None:
    plain = cookies(b"PHPSESSID=0123456789abcdef")
    odd = (b"cookie", b"PHPSESSID =0123456789abcdef")
    assert owner(odd) == plain
    assert owner(odd, (b"x-csrf-token", b"t")).digest == plain.digest


# -- What is seen of sessions


def test_a_name_counts_once_the_application_has_set_it() -> None:
    rules = OwnerRules(secret=SECRET)
    line = b"PHPSESSID=" + ALICE
    before = cookies(line + b"; theme=a", rules)
    assert before.owner_class is OwnerClass.COOKIES
    assert before.session
    assert before.digest != cookies(line + b"; theme=b", rules).digest
    assert not learn(request(), response(b"PHPSESSID=short", b"theme=" + ALICE), rules)
    assert not learn(request(), response(b"PHPSESSID=%b; Max-Age=0" % ALICE), rules)
    assert learn(request(), response(b"PHPSESSID=" + BOB), rules)
    rules.cookie_owners.clear()
    assert cookies(line + b"; theme=a", rules) == cookies(line + b"; theme=b", rules)


def test_one_value_given_to_two_visitors_is_no_session() -> None:
    rules = OwnerRules(secret=SECRET, seen=seen())
    given, mine = response(b"PHPSESSID=" + ALICE), request((b"cookie", b"PHPSESSID=" + ALICE))
    assert not learn(request(), given, rules)
    assert not learn(mine, given, rules)  # a longer life of the same one
    assert learn(request(), given, rules)
    rules.cookie_owners.clear()
    one, other = (cookies(b"PHPSESSID=%b; who=%b" % (ALICE, who), rules) for who in (b"a", b"b"))
    assert one.digest != other.digest
    assert not one.session
    assert cookies(b"PHPSESSID=" + BOB, rules).owner_class is OwnerClass.SESSION


def test_what_is_seen_of_sessions_is_bounded() -> None:
    known = SessionsSeen()
    for number in range(NAMES_LEARNT_MAX + 10):
        known.learn_name(b"%d_session" % number)
    assert len(known.names) == NAMES_LEARNT_MAX
    assert not known.learn_name(b"x" * 4096)
    for number in range(ISSUED_MAX + 10):
        known.issued(b"%d" % number)
    assert not known.issued(b"0")  # forgotten
    assert known.issued(b"%d" % (ISSUED_MAX + 5))
    for number in range(SHARED_MAX + 10):
        known.issued(b"s%d" % number)
        known.issued(b"s%d" % number)
    assert len(known.shared) == SHARED_MAX
    for number in range(WATCHED_MAX + 10):
        assert not known.used_by(b"%d" % number, "192.0.2.1")
    assert WATCHED_MAX // 2 <= len(known._clients) + len(known._old_clients) <= WATCHED_MAX


def test_a_household_of_ipv6_is_one_client() -> None:
    known = SessionsSeen()
    for number in range(CLIENTS_MAX * 2):
        assert not known.used_by(b"s", f"2001:db8:1:2:{number:x}:5:6:7")
        assert not known.used_by(b"t", f"2001:db8::{number + 1:x}:5:6:7"), "fewer colons"
    shared = [known.used_by(b"s", f"2001:db8:1:{number:x}:5:6:7:8") for number in range(40)]
    assert shared.index(True) == CLIENTS_MAX


@given(line=PIECES, learnt=st.sets(st.sampled_from([b"PHPSESSID", b"my_session"])))
@example(line=b"PHPSESSID=0123456789abcdef; _ga=1; auth=2; theme", learnt=set())
def test_the_short_way_comes_to_the_same_while_names_are_learnt(
    line: bytes, learnt: set[bytes]
) -> None:
    rules = OwnerRules(secret=SECRET)
    rules.seen.names.update(learnt)
    short = _owner_of_plain_line(line, rules)
    assert short is None or short == _owner([], [line], [], rules)


PLAIN_COOKIES = st.lists(
    st.sampled_from(
        [
            b"PHPSESSID=0123456789abcdef", b"my_session=0123456789abcdef01234567",
            b"my_session=1", b"_ga=GA1.2.3", b"_ga", b"theme=dark", b"theme", b"=", b"=x",
            b"auth=1", b"PHPSESSID=", b"csrftoken=0123456789abcdef", b"_fbp=fb.1.2", b"a=b=c",
            b"cookieyes-consent=id:7,yes", b"theme=a,b,7", b"theme=,", b"_ga=GA1,x", b"=,",
        ]
    ),
    min_size=1,
    max_size=6,
).map(b"; ".join)  # fmt: skip


@given(
    lines=st.lists(PLAIN_COOKIES, min_size=1, max_size=8),
    learnt=st.sets(st.sampled_from([b"PHPSESSID", b"my_session"])),
)
def test_every_plain_line_goes_the_short_way(lines: list[bytes], learnt: set[bytes]) -> None:
    rules = OwnerRules(secret=SECRET)
    rules.seen.names.update(learnt)
    for line in (*lines, *lines, *lines):
        assert _owner_of_plain_line(line, rules) == _owner([], [line], [], rules)


def test_a_new_value_of_an_ignorable_cookie_needs_no_new_hash() -> None:
    rules = OwnerRules(secret=SECRET)
    line = b"PHPSESSID=0123456789abcdef; _ga=%d; theme=dark"
    first, second, third = [_owner_of_plain_line(line % number, rules) for number in range(3)]
    assert first == second == third
    assert second is third


@pytest.mark.parametrize(
    "line",
    [
        b"theme=a b",
        b"theme=a;b=c",
        b"a=1; ; b=2",
        b"a=1;",
        b'a="1"',
        b"a=1,b=2",
        b"a=\xff",
        b"PHPSESSID=0123456789abcdef,b",
        b"auth=1,b",
        b"a,b",
        b"a,b=1",
        b"a=1,b; PHPSESSID=0123456789abcdef,PHPSESSID=0123456789abcdef",
        b"a=1,;",
        b"a=" + b"," * 193,
        b"a=1,\xff",
        b'a=1,"',
        b"a=1, b",
    ],
)
def test_a_line_that_can_be_read_otherwise_goes_the_long_way(line: bytes) -> None:
    assert _owner_of_plain_line(line, OwnerRules(secret=SECRET)) is None


ODD_VALUES = st.sampled_from(
    [
        b"", b"1", b"a=b", b"dark", b",", b",x", b"1,x", b",x,y", b'"', b'"1"', b" ", b" 1", b"1 ",
        b";", b";x", b"; ", b"; x", b"\\", b"\xff", b"\x00", b"0123456789abcdef",
        b"0123456789abcdef,x",
    ]
)  # fmt: skip


@given(lines=st.lists(st.tuples(ODD_VALUES, ODD_VALUES, ODD_VALUES), min_size=1, max_size=6))
@example(lines=[(b"1", b"1,x", b"1"), (b"1", b"1,x", b",x")])
def test_names_that_are_at_hand_change_nothing(lines: list[tuple[bytes, bytes, bytes]]) -> None:
    """Whether all lines before had these names, or none."""
    rules = OwnerRules(secret=SECRET)
    for known in (b"a=1; _ga=1; PHPSESSID=1", b"a=1; _ga=1,x; PHPSESSID=1") * 3:
        assert _owner_of_plain_line(known, rules) is not None
    assert [len(names) for names in rules.names_at_hand.values()] == [2]
    for values in lines:
        line = b"a=%b; _ga=%b; PHPSESSID=%b" % values
        fresh = OwnerRules(secret=SECRET)
        assert _owner_of_plain_line(line, rules) == _owner_of_plain_line(line, fresh), line


def test_lists_of_names_at_hand_are_bounded() -> None:
    rules = OwnerRules(secret=SECRET)
    for number in range(3 * LISTS_AT_HAND_MAX):
        for _ in range(3):
            _owner_of_plain_line(b"a%d=1; b=2" % number, rules)
        _owner_of_plain_line(b"; ".join([b"c=1"] * number) or b"c=1", rules)
    assert len(rules.names_at_hand[2]) == LISTS_AT_HAND_MAX
    assert all(0 < number <= SHORT_WAY_COOKIES_MAX for number in rules.names_at_hand)
