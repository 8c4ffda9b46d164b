"""The identity of a request, and which responses may be stored: policy.py, cache_control.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.limits import (
    COOKIES_MAX,
    PARAMETER_ESCAPES_MAX,
    PARAMETERS_MAX,
    SET_COOKIES_MAX,
)
from retter.http.cache_control import (
    CacheControl,
    delta_seconds,
    freshness_lifetime_s,
    parse_cache_control,
    shared_age_max_s,
    shared_may_store,
)
from retter.http.dates import parse_http_date
from retter.http.message import Framing, RequestHead, ResponseHead
from retter.store.owner import OwnerClass, OwnerRules
from retter.store.policy import (
    Identity,
    StorePolicy,
    ends_session,
    identify,
    invalidated_urls,
    key_of,
    key_parts,
    storable,
)
from tests.support.heads import request_head as request
from tests.support.heads import response_head as response

RULES = OwnerRules(secret=b"0123456789abcdef")
ALL, RFC9111 = StorePolicy.ALL, StorePolicy.RFC9111


def rules(**changes: object) -> OwnerRules:
    return OwnerRules(secret=b"0123456789abcdef", **changes)  # type: ignore[arg-type]


def url(target: bytes, host: bytes = b"example.com", **changes: object) -> bytes:
    return identify(request(target=target, host=host), rules(**changes)).url


# -- Keys


def test_everyones_identity() -> None:
    found = identify(request(target=b"/a?b"), RULES, lambda head: b"route " + head.target)
    assert found == Identity(
        owner=b"",
        owner_class=OwnerClass.EVERYONE,
        url=b"example.com/a?b",
        key=b"*example.com/a?b",
        public_key=None,
        route=b"route /a?b",
        lookup=True,
        store=True,
        variant_key=b"",
        session=False,
        stands_in=True,
    )


def test_an_owners_identity_has_everyones_key_to_fall_back_to() -> None:
    found = identify(request((b"cookie", b"PHPSESSID=0123456789abcdef")), RULES)
    assert found.key == b"@" + found.owner + b"example.com/"
    assert found.public_key == b"*example.com/"
    assert found.session


@pytest.mark.parametrize(
    "field",
    [
        (b"authorization", b"Basic eA=="),
        (b"x-api-key", b"1"),
    ],
)
def test_with_a_credential_there_is_no_fallback(field: tuple[bytes, bytes]) -> None:
    assert identify(request(field), RULES).public_key is None
    cookie = (b"cookie", b"PHPSESSID=0123456789abcdef")
    assert identify(request(field, cookie), RULES).public_key is None


def test_the_fallback_can_be_turned_off() -> None:
    asked = request((b"cookie", b"PHPSESSID=0123456789abcdef"))
    assert identify(asked, rules(anonymous_fallback=False)).public_key is None


@given(owner=st.sampled_from([b"", b"0123456789abcdef", b"*123456789abcdef"]), url=st.binary())
def test_a_key_says_whose_it_is_and_of_what(owner: bytes, url: bytes) -> None:
    assert key_parts(key_of(owner, url)) == (owner, url)


def test_the_host_is_compared_without_case_the_target_exactly() -> None:
    assert url(b"/A%2f?B", b"EXAMPLE.com") == b"example.com/A%2f?B"
    assert len({url(t) for t in (b"/a", b"/A", b"/a/", b"/a?", b"/%61", b"/a?x", b"/a?X")}) == 7


def test_coarser_keys() -> None:
    assert url(b"/a?b=1&c", ignore_query=True) == b"example.com/a"
    assert url(b"/a", ignore_query=True) == b"example.com/a"
    assert url(b"/a?b", ignore_host=True) == b"/a?b"
    drop = (b"utm_*", b"fbclid")
    for query, kept in (
        (b"?utm_source=x&b=1&fbclid=y&c", b"?b=1&c"),
        (b"?fbclid", b""),
        (b"?utm_a=1&utm_b=2", b""),
        (b"?b&b", b"?b&b"),
        (b"", b""),
        (b"?xutm_a=1", b"?xutm_a=1"),
        (b"?&", b"?&"),
    ):
        assert url(b"/a" + query, ignore_params=drop) == b"example.com/a" + kept


def test_a_host_with_a_slash_is_not_stored() -> None:
    """`a/b` with `/c` and `a` with `/b/c` would be one key."""
    found = identify(request(host=b"a/b", target=b"/c"), RULES)
    assert not found.lookup
    assert not found.store


# -- Sessions in the URL


@pytest.mark.parametrize(
    "pattern",
    [
        b"/a?PHPSESSID=%b",
        b"/a?x=1&PHPSESSID=%b",
        b"/a?x=1;PHPSESSID=%b",
        b"/a?phpsessid=%b",
        b"/a?%%50HPSESSID=%b",
        b"/a?+PHPSESSID=%b",
        b"/a;jsessionid=%b",
        b"/a;jsessionid=%b/b?c",
        b"/a;x=1;JSESSIONID=%b",
        b"/a;v=1/b;jsessionid=%b",
    ],
)
def test_a_session_in_the_url_is_an_owner_whatever_is_ignored(pattern: bytes) -> None:
    for given_rules in (RULES, rules(ignore_query=True), rules(ignore_params=(b"*",))):
        one = identify(request(target=pattern % b"one"), given_rules)
        other = identify(request(target=pattern % b"other"), given_rules)
        assert one.owner_class is OwnerClass.SESSION
        assert one.public_key is None
        assert one.session
        assert one.key != other.key
        with_cookie = identify(request((b"cookie", b"a=b"), target=pattern % b"one"), given_rules)
        assert with_cookie.public_key is None


@pytest.mark.parametrize(
    "target",
    [
        b"/a?x=PHPSESSID",
        b"/PHPSESSID=1",
        b"/a;v=1",
        b"/a?",
        b"/a?&&",
        b"/a?=1",
        b"/a;/b",
        b"*",
    ],
)
def test_other_parameters_are_no_session(target: bytes) -> None:
    assert identify(request(target=target), RULES).owner_class is OwnerClass.EVERYONE


@pytest.mark.parametrize(
    "target",
    [
        b"/?" + b"a&" * PARAMETERS_MAX,
        b"/?" + b"a;" * PARAMETERS_MAX,
        b"/" + b";a" * PARAMETERS_MAX,
        b"/" + b";a/b" * PARAMETERS_MAX + b"?c&d",
        b"/?PHPSESSID=1" + b"&a=" * PARAMETERS_MAX,
        b"/a" * (PARAMETERS_MAX + 1) + b"?b",
        b"/?b" + b"=?" * PARAMETERS_MAX,
        b"/?" + b"%61" * (PARAMETER_ESCAPES_MAX + 1),
        b"/?" + b"&%61" * PARAMETERS_MAX + b"%62" * PARAMETER_ESCAPES_MAX,
    ],
)
@pytest.mark.parametrize("ignored", [(), (b"a",), (b"*",)])
def test_a_target_with_more_parameters_than_are_read(
    target: bytes, ignored: tuple[bytes, ...]
) -> None:
    """Any of them may be a session: it is nobody else's, and neither stored nor looked up."""
    found = identify(request((b"cookie", b"_ga=1"), target=target), rules(ignore_params=ignored))
    assert found.owner_class is OwnerClass.UNREAD
    assert found.owner and found.public_key is None
    assert not found.lookup and not found.store


def test_a_target_with_as_many_parameters_as_are_read() -> None:
    long = b"/a?" + b"&".join([b"a%d=%%61" % n for n in range(PARAMETERS_MAX - 1)])
    assert identify(request(target=long), RULES).lookup
    assert identify(request(target=long), RULES).owner_class is OwnerClass.EVERYONE
    found = identify(request(target=long + b"&PHPSESSID=1"), RULES)
    assert found.owner_class is OwnerClass.SESSION
    assert url(long + b"&utm_a=1", ignore_params=(b"utm_*",)) == b"example.com" + long
    escaped = b"/?" + b"%61" * PARAMETER_ESCAPES_MAX + b"=" + b"%61" * PARAMETER_ESCAPES_MAX
    assert identify(request(target=escaped), RULES).owner_class is OwnerClass.EVERYONE


def test_a_request_with_more_cookies_than_are_read_is_not_stored() -> None:
    asked = request((b"cookie", b"_ga=1; " * (COOKIES_MAX + 1)))
    found = identify(asked, RULES)
    assert (found.lookup, found.store, found.public_key) == (False, False, None)
    assert found.owner


def test_an_answer_with_too_many_cookies_is_not_stored() -> None:
    asked = request()
    few = response(set_cookies=(b"a=b",) * SET_COOKIES_MAX)
    assert storable(identify(asked, RULES), asked, few, ALL, RULES)
    many = response(set_cookies=(b"a=b",) * (SET_COOKIES_MAX + 1))
    assert not storable(identify(asked, RULES), asked, many, ALL, RULES)


# -- What is looked up, what is stored


@pytest.mark.parametrize(
    ("asked", "lookup", "store"),
    [
        (request(), True, True),
        (request((b"range", b"bytes=0-1")), True, False),
        (request((b"range", b"")), True, False),
        (request(framing=Framing.LENGTH), False, False),
        (request(framing=Framing.CHUNKED), False, False),
        (request(upgrade=b"websocket"), False, False),
        *(
            (request(method=method), False, False)
            for method in (
                b"HEAD",
                b"POST",
                b"PUT",
                b"DELETE",
                b"PATCH",
                b"OPTIONS",
                b"get",
                b"PROPFIND",
                b"TRACE",
            )
        ),
    ],
)
def test_which_requests_the_store_is_for(asked: RequestHead, lookup: bool, store: bool) -> None:
    found = identify(asked, RULES)
    assert (found.lookup, found.store) == (lookup, store)


@pytest.mark.parametrize(
    ("asked", "stands_in"),
    [
        (request(), True),
        (request((b"range", b"bytes=0-1")), True),
        (request(method=b"HEAD"), True),
        (request(method=b"HEAD", framing=Framing.LENGTH), False),
        (request(method=b"HEAD", target=b"/logout"), False),
        (request(framing=Framing.LENGTH), False),
        (request(method=b"POST"), False),
        (request(method=b"OPTIONS"), False),
    ],
)
def test_for_which_requests_a_stored_response_may_stand_in(
    asked: RequestHead, stands_in: bool
) -> None:
    assert identify(asked, RULES).stands_in is stands_in


def allowed(asked: RequestHead, answered: ResponseHead, policy: StorePolicy = ALL) -> bool:
    return storable(identify(asked, RULES), asked, answered, policy, RULES)


def test_which_statuses_are_good() -> None:
    stored = {status for status in range(100, 600) if allowed(request(), response(status=status))}
    assert stored == set(range(200, 400)) - {204, 205, 206, 304}


def test_what_is_never_stored() -> None:
    for asked in (
        request((b"range", b"bytes=0-1")),
        request(method=b"POST"),
        request(framing=Framing.LENGTH),
    ):
        assert not allowed(asked, response())
    assert not allowed(request(), response(event_stream=True))
    for vary in ((b"*",), (b"accept, *",), (b"accept", b"*")):
        assert not allowed(request(), response(*((b"vary", value) for value in vary)))
    assert allowed(request(), response((b"vary", b"Accept")))


def test_a_response_that_changes_the_session_is_not_stored() -> None:
    with_session = request((b"cookie", b"PHPSESSID=0123456789abcdef"))
    sets, same = response(set_cookies=(b"PHPSESSID=new",)), response(set_cookies=(b"a=b",))
    assert not allowed(with_session, sets)
    assert allowed(with_session, same)
    assert allowed(with_session, response())
    # A first visit: what is stored is without the cookie.
    assert allowed(request(), sets)
    assert storable(identify(with_session, RULES), with_session, sets, ALL)


def test_which_responses_end_a_session() -> None:
    sets = response(set_cookies=(b"PHPSESSID=new",))
    for asked, ends in (
        (request((b"cookie", b"PHPSESSID=0123456789abcdef"), method=b"POST"), True),
        (request((b"cookie", b"PHPSESSID=0123456789abcdef"), (b"authorization", b"x")), True),
        (request(target=b"/?PHPSESSID=0123456789abcdef"), True),
        (request((b"cookie", b"theme=dark")), False),
        (request(), False),
    ):
        assert ends_session(identify(asked, RULES), asked, sets, RULES) is ends
        assert not ends_session(identify(asked, RULES), asked, response(), RULES)


@pytest.mark.parametrize(
    ("cache_control", "stored"),
    [
        (b"", True),
        (b"max-age=60", True),
        (b"public", True),
        (b"s-maxage=1", True),
        (b"no-store", False),
        (b"private", False),
        (b"no-cache", False),
        (b"NO-STORE", False),
        (b'private="set-cookie"', False),
        (b'no-cache="x"', False),
        (b"max-age=1, private", False),
        (b"public, no-store", False),
        (b"must-understand, no-store", False),
        (b"=", False),
        (b'max-age="60', False),
        (b"max-age=60 60", False),
        (b"x=private", True),
        (b"must-revalidate", True),
        (b",,", True),
    ],
)
def test_rfc9111_obeys_cache_control(cache_control: bytes, stored: bool) -> None:
    answered = response((b"cache-control", cache_control))
    assert allowed(request(), answered, RFC9111) is stored
    assert allowed(request(), answered, ALL)


@pytest.mark.parametrize(
    ("cache_control", "stored"),
    [
        (b"", False),
        (b"max-age=60", False),
        (b"public", True),
        (b"s-maxage=60", True),
        (b"must-revalidate", True),
        (b"proxy-revalidate", True),
        (b"public, private", False),
    ],
)
def test_rfc9111_and_authorization(cache_control: bytes, stored: bool) -> None:
    asked = request((b"authorization", b"Basic eA=="))
    answered = response((b"cache-control", cache_control))
    assert allowed(asked, answered, RFC9111) is stored
    assert allowed(asked, answered, ALL)


def test_rfc9111_and_the_requests_no_store() -> None:
    assert not allowed(request((b"cache-control", b"no-store")), response(), RFC9111)
    assert allowed(request((b"cache-control", b"no-cache")), response(), RFC9111)


@pytest.mark.parametrize("status", [200, 201, 203, 300, 301, 302, 303, 307, 308])
def test_rfc9111_needs_explicit_freshness_for_some_statuses(status: int) -> None:
    heuristic = status in (200, 203, 300, 301, 308)
    assert allowed(request(), response(status=status), RFC9111) is heuristic
    for field in (
        (b"expires", b"0"),
        (b"cache-control", b"max-age=0"),
        (b"cache-control", b"public"),
        (b"cache-control", b"s-maxage=1"),
    ):
        assert allowed(request(), response(field, status=status), RFC9111)


# -- What an unsafe method makes old


def changed(
    *fields: tuple[bytes, bytes],
    method: bytes = b"POST",
    status: int = 200,
    host: bytes = b"a.b",
    target: bytes = b"/x/y?z",
    given_rules: OwnerRules = RULES,
) -> tuple[bytes, ...]:
    asked = request(method=method, target=target, host=host)
    return invalidated_urls(asked, response(*fields, status=status), given_rules)


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"FOO"])
def test_a_non_error_answer_to_an_unsafe_method(method: bytes) -> None:
    for status in (200, 201, 204, 302, 303):
        assert changed(method=method, status=status) == (b"a.b/x/y?z",)
    for status in (101, 400, 404, 500, 503):
        assert changed(method=method, status=status) == ()


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE"])
def test_a_safe_method_changes_nothing(method: bytes) -> None:
    assert changed((b"location", b"/n"), method=method) == ()


@pytest.mark.parametrize(
    ("location", "target"),
    [
        (b"/new", b"/new"),
        (b"new?q#f", b"/x/new?q"),
        (b"../up", b"/up"),
        (b"?q", b"/x/y?q"),
        (b"http://a.b/n", b"/n"),
        (b"HTTPS://A.B:443/n", b"/n"),
        (b"//a.b/n", b"/n"),
        (b"http://a.b", b"/"),
        (b"http://a.b:80/n", b"/n"),
        (b"/\xe9", b"/\xe9"),
        (b"http://other/n", None),
        (b"http://a.b:81/n", None),
        (b"mailto:x@a.b", None),
        (b"http://[x/n", None),
        (b"http://user@a.b/n", None),
        (b"", None),
        (b"javascript:1", None),
    ],
)
def test_a_location_on_the_same_host_counts_too(location: bytes, target: bytes | None) -> None:
    expected = (b"a.b/x/y?z",) if target is None else (b"a.b/x/y?z", b"a.b" + target)
    for name in (b"location", b"content-location"):
        assert changed((name, location)) == expected


def test_the_urls_are_made_coarser_and_named_once() -> None:
    fields = ((b"location", b"/x/y?other"), (b"content-location", b"/c"))
    found = changed(*fields, given_rules=rules(ignore_query=True), host=b"A.b")
    assert found == (b"a.b/x/y", b"a.b/c")


# -- Whatever comes


@given(
    target=st.binary(max_size=40).map(lambda rest: b"/" + rest),
    location=st.binary(max_size=40) | st.text("htp:/[]@.ab?#;%", max_size=20).map(str.encode),
    fields=st.lists(
        st.tuples(
            st.sampled_from(
                [b"cookie", b"range", b"vary", b"cache-control", b"expires", b"authorization"]
            ),
            st.binary(),
        ),
        max_size=4,
    ),
)
def test_nothing_raises(target: bytes, location: bytes, fields: list[tuple[bytes, bytes]]) -> None:
    asked = request(*fields, target=target, host=b"a.b")
    for given_rules in (RULES, rules(ignore_params=(b"a*",)), rules(ignore_query=True)):
        found = identify(asked, given_rules)
        assert key_parts(found.key) == (found.owner, found.url)
        assert found == identify(asked, given_rules)
    assert storable(found, asked, response(*fields), RFC9111, RULES) in (True, False)
    post = request(*fields, target=target, host=b"a.b", method=b"POST")
    named = invalidated_urls(post, response((b"location", location)), RULES)
    assert named[0] == identify(post, RULES).url


# -- Cache-Control, ages, dates


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", CacheControl()),
        (b"max-age=60", CacheControl(max_age_s=60)),
        (b'Max-Age="60" , S-MAXAGE=5', CacheControl(max_age_s=60, s_maxage_s=5)),
        (b"max-age=60, max-age=5", CacheControl(max_age_s=5)),
        (b"max-age=soon", CacheControl(max_age_s=0)),
        (b"max-age", CacheControl(max_age_s=0)),
        (b"max-age=-1", CacheControl(max_age_s=0)),
        (b"max-age=99999999999999999999", CacheControl(max_age_s=2**31)),
        (
            b"stale-if-error=300, no-transform",
            CacheControl(stale_if_error_s=300, no_transform=True),
        ),
        (b'ext="a, no-store; \\" x", public', CacheControl(public=True)),
        (b"proxy-revalidate", CacheControl(must_revalidate=True)),
    ],
)
def test_cache_control(value: bytes, expected: CacheControl) -> None:
    assert parse_cache_control(value) == expected


@given(st.binary() | st.text('max-age=,";\\ 0no-store', max_size=30).map(str.encode))
def test_any_cache_control_is_read_and_an_unreadable_one_forbids(value: bytes) -> None:
    control = parse_cache_control(value)
    if (
        b"no-store" in [part.strip(b" \t") for part in value.lower().split(b",")]
        and b'"' not in value
    ):
        assert control.no_store
    if control == parse_cache_control(b"="):
        assert not shared_may_store(200, control, authorization=False, has_expires=True)
        assert shared_age_max_s(control, None, None, 99.0) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"60", 60),
        (b"2147483648", 2**31),
        (b"9" * 50, 2**31),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b" 1", None),
    ],
)
def test_delta_seconds(value: bytes, seconds: int | None) -> None:
    assert delta_seconds(value) == seconds


D0 = b"Sun, 06 Nov 1994 08:49:37 GMT"
D60 = b"Sun, 06 Nov 1994 08:50:37 GMT"


@pytest.mark.parametrize(
    ("value", "expires", "date", "lifetime_s"),
    [
        (b"", None, None, 0),
        (b"max-age=60", None, None, 60),
        (b"max-age=60, s-maxage=5", D60, D0, 5),
        (b"", D60, D0, 60),
        (b"", D0, D60, 0),
        (b"", b"0", D0, 0),
        (b"", D60, None, 0),
        (b"max-age=5", D60, D0, 5),
        (b"max-age=x", D60, D0, 0),
    ],
)
def test_freshness(
    value: bytes, expires: bytes | None, date: bytes | None, lifetime_s: int
) -> None:
    assert freshness_lifetime_s(parse_cache_control(value), expires, date) == lifetime_s


@pytest.mark.parametrize(
    ("value", "age_max_s"),
    [
        (b"", 1000),
        (b"max-age=60", 1000),
        (b"max-age=60, must-revalidate", 60),
        (b"max-age=60, proxy-revalidate", 60),
        (b"s-maxage=60", 60),
        (b"no-cache, max-age=60", 0),
        (b"max-age=60, stale-if-error=30", 90),
        (b"stale-if-error=30", 30),
        (b"max-age=60, stale-if-error=30, must-revalidate", 60),
        (b"max-age=5000, s-maxage=4000", 1000),
        (b"stale-if-error=5000", 1000),
        (b"stale-if-error=5, stale-if-error=9", 5),
    ],
)
def test_how_old_a_shared_response_may_be_served(value: bytes, age_max_s: int) -> None:
    assert shared_age_max_s(parse_cache_control(value), None, None, 1000.0) == age_max_s


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (D0, 784111777),
        (b"sun, 06 nov 1994 08:49:37 gmt", 784111777),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        (b"Sun Nov  6 08:49:37 1994", 784111777),
        (b"Sun Nov 16 08:49:37 1994", 784111777 + 864000),
        (b"Friday, 01-Jan-69 00:00:00 GMT", 3124224000),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (b"", None),
        (b"0", None),
        (D0[:-4], None),
        (D0 + b" ", None),
        (b"x" + D0, None),
        (b"Sun, 06 Foo 1994 08:49:37 GMT", None),
        (b"Sun, 32 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 00 Nov 1994 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 24:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:60:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:61 GMT", None),
        (b"Sun, 06 Nov 0000 08:49:37 GMT", None),
        (b"Sun, 06 Nov 1994 08:49:37 CET", None),
    ],
)
def test_http_date(value: bytes, seconds: int | None) -> None:
    assert parse_http_date(value) == seconds


@given(st.binary() | st.from_regex(rb"[a-z]{3}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} 1[0-9]:00:00 GMT"))
def test_any_date_is_read(value: bytes) -> None:
    assert parse_http_date(value) is None or isinstance(parse_http_date(value), int)
