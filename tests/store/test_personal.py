"""Responses with data of one visitor: they are stored for nobody else."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.limits import PARAMETER_ESCAPES_MAX
from retter.http.message import ResponseHead
from retter.store.owner import OwnerRules
from retter.store.personal import (
    CANDIDATES_MAX,
    PART_BYTES_MIN,
    SEARCHED_BYTES_MAX,
    VALUES_BYTES_MAX,
    carries_nonce,
    gives_cookie,
    is_personal,
    links_session,
    reflects_referer,
    sets_cookie,
    shows_its_client,
    wrote_to_be_shown,
)
from tests.support.heads import request_head, response_head

RULES = OwnerRules(secret=b"0123456789abcdef", session_cookies=(b"sid",))
ID = b"Kq3xZ81mWv5tB7yR"


def response(*set_cookies: bytes, location: bytes = b"") -> ResponseHead:
    fields = ((b"location", location),) if location else ()
    return response_head(*fields, set_cookies=set_cookies)


@pytest.mark.parametrize(
    "field",
    [
        (b"refresh", b"5; url=/next;sid=" + ID),
        (b"content-location", b"/page;sid=" + ID),
        (b"link", b"</next?sid=" + ID + b">; rel=next"),
        (b"x-session-id", ID),
        (b"etag", b'"' + ID + b'"'),
    ],
)
def test_a_field_that_shows_a_given_cookie_makes_a_response_personal(
    field: tuple[bytes, bytes],
) -> None:
    given_one = response_head(field, set_cookies=(b"visitor=" + ID,))
    assert is_personal(request_head(), given_one, b"page", RULES)
    assert not is_personal(request_head(target=b"/" + ID), given_one, b"page", RULES)


def test_a_session_that_begins_with_a_token_in_a_field_is_personal() -> None:
    token = (b"x-csrf-token", b"masked")
    begins = response_head(token, set_cookies=(b"sid=" + ID,))
    assert is_personal(request_head(), begins, b"page", RULES)
    colour = response_head(token, set_cookies=(b"colour=red",))
    assert not is_personal(request_head(), colour, b"page", RULES)


def test_a_page_is_searched_for_so_many_request_ids_only_as_takes_no_time() -> None:
    """One request could have 100 of them, and a megabyte is searched in half a millisecond."""
    asks = request_head()
    asks.ids = tuple([b"chosen-%d" % number for number in range(100)])
    assert not shows_its_client(asks, b"x" * (SEARCHED_BYTES_MAX // 100))
    assert shows_its_client(asks, b"x" * (SEARCHED_BYTES_MAX // 100 + 1))


@pytest.mark.parametrize(
    ("query", "carries"),
    [
        (b"_token=1", True),
        (b"a=1;_wpnonce=2", True),
        (b"q=1&search[_token]=2", True),
        (b"search%5b_token%5d=2", True),
        (b"search[_tokens]=2", False),
        (b"csrfmiddlewaretoken=3", True),
        (b"page=2", False),
        (b"q=nonce", False),
        (b"a_token=1", False),
        (b"__RequestVerificationToken=1".lower(), True),
        (b"form_key=1", True),
        (b"id=1&sesskey=1", True),
        (b"stoken=1", True),
        (b"formhash=1", True),
        (b"_authenticator=1", True),
        (b"confirmation_token=1", True),
        (b"page_token=1", False),
        (b"api_token=1", False),
        (b"token=1", False),
        (b"form=1&key=2", False),
    ],
)
def test_a_token_in_a_query_is_known_by_its_name(query: bytes, carries: bool) -> None:
    assert carries_nonce(query) is carries


def test_a_cookie_for_analytics_is_no_cookie_that_counts() -> None:
    assert sets_cookie(response(b"sid=1"), RULES)
    assert not sets_cookie(response(b"_ga=1"), RULES)
    assert not sets_cookie(response(), RULES)


def test_a_cookie_that_the_client_has_is_not_given_again() -> None:
    given_one = response(b"basket=7; Path=/")
    assert gives_cookie(request_head(), given_one, RULES)
    assert not gives_cookie(request_head((b"cookie", b"basket=3")), given_one, RULES)
    assert not gives_cookie(request_head(), response(b"basket="), RULES), "it is taken away"
    assert not gives_cookie(request_head(), response(b"_ga=1"), RULES)


def test_the_first_page_of_a_session_with_a_form_is_personal() -> None:
    begins = response(b"sid=" + ID)
    assert is_personal(request_head(), begins, b'<form METHOD = "POST">', RULES)
    assert is_personal(request_head(), begins, b'<input name="_token">', RULES)
    assert is_personal(request_head(), begins, b'<meta name="csrf-token">', RULES)
    assert not is_personal(request_head(), begins, b'<form method="get">', RULES)
    assert not is_personal(request_head(), response(b"colour=red"), b"<form method=post>", RULES)


@pytest.mark.parametrize(
    ("text", "personal"),
    [
        (b'<script>M.cfg = {"wwwroot":"https://a","sesskey":"hV3kQ9zTbN"};</script>', True),
        (b'<script>window.FORM_KEY="Zx81kLmN0pQr";</script>', True),
        (b'<head data-requesttoken="Zx81kLmN0pQr">', True),
        (b'<html data-xwiki-form-token="Zx81kLmN0pQr">', True),
        (b'<meta name="ajs-atl-token" content="Zx81kLmN0pQr">', True),
        (b'{"static_token":"Zx81kLmN0pQr"}', True),
        (b'<a href="/?stoken=Zx81kL&amp;cl=details">', True),
        (b"<a href=/?cl=details&amp;stoken=Zx81kL>", True),
        (b'<input name="_token" value="Zx81kLmN0pQr">', True),
        (b"<input name='__RequestVerificationToken'>", True),
        # What all visitors get: the token of the site with an analytics service.
        (b'<script data-cf-beacon=\'{"token": "Zx81kLmN0pQr"}\'></script>', False),
        (b"<p>Each visitor of the fair gets a token; tokens are free.</p>" * 50, False),
        (b"token " * (CANDIDATES_MAX + 1), True),
    ],
)
def test_a_token_is_known_by_its_name_in_the_first_page_of_a_session(
    text: bytes, *, personal: bool
) -> None:
    begins = response(b"MoodleSession=abcdefghijklmnopqrstuvwxyz")
    assert is_personal(request_head(), begins, text, RULES) is personal
    assert not is_personal(request_head(), response(b"colour=red"), text, RULES)


@given(begin=st.integers(0, len(ID) - PART_BYTES_MIN), before=st.binary(max_size=40))
def test_a_page_that_shows_a_part_of_a_given_cookie_is_personal(begin: int, before: bytes) -> None:
    page = before + ID[begin : begin + PART_BYTES_MIN] + b"</p>"
    assert is_personal(request_head(), response(b"visitor=" + ID), page, RULES)


def in_base64(text: bytes) -> bytes:
    return urlsafe_b64encode(text).rstrip(b"=")


@pytest.mark.parametrize(
    ("value", "shown", "personal"),
    [
        (b"3f2504e0-4f89-41d3-9a0c-0305e82c3301", b"3F2504E0-4F89-41D3", True),
        (b"head." + in_base64(b'{"sub": "guest-c0ffee123"}') + b".sig", b"guest-c0ffee123", True),
        (in_base64(b'{"cart":"C0FFEE12345678","a":[]}') + b".aa11bb.sig", b"c0ffee12345678", True),
        (in_base64(b'{"cart":"C0FFEE12345678","a":[]}') + b".aa11bb.sig", b"c0ffee123", False),
        (in_base64(b'{"since":"2026-12-01","theme":"darkest-blue"}'), b"2026-12-01", False),
        (in_base64(b'{"since":"2026-12-01","theme":"darkest-blue"}'), b"darkest-blue", False),
        (b"eyJ!" + in_base64(b'{"cart":"c0ffee12345678"}'), b"c0ffee12345678", False),
        (b"eyJ", b"x", False),
    ],
)
def test_an_id_is_found_in_upper_case_and_in_what_is_signed(
    value: bytes, shown: bytes, *, personal: bool
) -> None:
    page = b"<a href=/cart/" + shown + b">"
    assert is_personal(request_head(), response(b"visit=" + value), page, RULES) is personal


def test_a_part_that_is_too_short_or_a_word_says_nothing() -> None:
    given_one = response(b"visitor=" + ID)
    assert not is_personal(request_head(), given_one, ID[: PART_BYTES_MIN - 1], RULES)
    assert not is_personal(request_head(), response(b"look=darkblue"), b"darkblue", RULES)


def test_a_value_that_the_client_itself_has_sent_is_no_secret() -> None:
    page, given_one = b"<p>" + ID + b"</p>", response(b"visitor=" + ID)
    assert not is_personal(request_head(target=b"/?id=" + ID), given_one, page, RULES)


def test_a_value_is_found_decoded_and_in_a_redirect() -> None:
    coded = response(b"visitor=a%20b%2Fc1-D4e%3D9")
    assert is_personal(request_head(), coded, b"hello a b/c1-D4e=9", RULES)
    redirect = response(b"visitor=" + ID, location=b"/welcome/" + ID)
    assert is_personal(request_head(), redirect, b"", RULES)


def test_what_would_take_too_long_to_search_counts_as_personal() -> None:
    long = response(b"visitor=" + b"a1" * VALUES_BYTES_MAX)
    assert is_personal(request_head(), long, b"", RULES)
    nearly = b"Aa1Aa1x " * (CANDIDATES_MAX + 1)
    assert is_personal(request_head(), response(b"visitor=Aa1Aa1" + ID), nearly, RULES)


@pytest.mark.parametrize(
    ("referer", "location", "reflects"),
    [
        (b"http://a.b/cart?x=1", b"http://a.b/cart?x=1", True),
        (b"http://a.b/cart?x=1", b"/login?next=http://a.b/cart?x=1", True),
        (b"http://a.b/cart", b"/cart", True),
        (b"http://a.b/cart?x=1", b"/login?next=http%3A%2F%2Fa.b%2Fcart%3Fx%3D1", True),
        (b"http://a.b/cart?x=1", b"/login?next=/cart?x=1", True),
        (b"http://a.b/cart?x=1", b"/login?next=%2fcart%3fx%3d1&lang=en", True),
        (b"http://a.b/%C3%A9tal", b"/login?next=/%c3%a9tal#form", True),
        (b"http://a.b/cart", b"/login?" + b"%41" * (PARAMETER_ESCAPES_MAX + 1), True),
        (b"http://a.b/cart", b"/cart/items", False),
        (b"http://a.b/cart", b"/login?next=/cart/items", False),
        (b"http://a.b/cart", b"/login?next=%2Fitems", False),
        (b"http://a.b/", b"/login?next=/", False),
        (b"http://a.b/", b"/", False),
        (b"http://a.b/cart", b"/", False),
        (b"", b"/", False),
    ],
)
def test_a_redirect_back_is_known(referer: bytes, location: bytes, reflects: bool) -> None:
    request = request_head((b"referer", referer)) if referer else request_head()
    assert reflects_referer(request, response(location=location)) is reflects


@pytest.mark.parametrize(
    ("field", "value", "page", "shows"),
    [
        ("Referer", "https://evil.example/x", '<a href="https://evil.example/x">back</a>', True),
        ("Referer", "https://evil.example/", "<a href='https://evil.example/'>back</a>", True),
        ("Referer", "https://evil.example", "you came from https://evil.example", True),
        ("Referer", "https://evil.example/?a&b'", "<a href=https://evil.example/?a&amp;b>", True),
        ("Referer", "https://find.example/", "<script src=https://find.example/x.js>", False),
        ("Referer", "https://find.example/", "https://find.example/x https://find.example/", True),
        ("Referer", "https://find.example/", "<p>nothing of it", False),
        ("Referer", "https://example.com/list", "<a href=https://example.com/list>", False),
        ("Referer", 'https://shop.example/"><script>', "<p>whatever it does with it", True),
        ("Referer", "about:blank", "about:blank", False),
        ("Referer", "javascript:alert(1)", "<a href='javascript:alert(1)'>", True),
        (
            "Referer",
            "javascript://example.com/%0aq",
            "<a href=javascript://example.com/%0aq>",
            True,
        ),
        ("Referer", "//evil.example/", "<a href=//evil.example/>", True),
        ("Referer", "http://example.com/' x='", "<a href='http://example.com/' x=''>", True),
        ("Referer", "http://example.com/l'eau", "<a href='http://example.com/fire'>", False),
        ("Referer", "https://evil.example/x", r'{"from":"https:\/\/evil.example\/x"}', True),
        ("Referer", "https://evil.example/x", r'"{\"from\":\"https://evil.example/x\"}"', True),
        ("Referer", "https://evil.example/x", "from=https%3A%2F%2Fevil.example%2Fx&b", True),
        ("Referer", "https://evil.example/x", "from=https%3a%2f%2fevil.example%2fx%22", True),
        ("Referer", "https://evil.example/x", "https:&#x2F;&#x2F;evil.example&#x2F;x", True),
        ("Referer", "https://evil.example/x", "{&quot;https://evil.example/x&quot;}", True),
        ("Referer", "https://evil.example/x", "You come from https://evil.example/x.", True),
        ("Referer", "https://find.example/", r'"https:\/\/find.example\/x.js"', False),
        ("Referer", "https://find.example/x", "<a href=https://find.example/x&amp;y>", False),
        ("User-Agent", 'x" onload="alert(1)', "<p>whatever it does with it", True),
        ("User-Agent", "x' onload='alert(1)", "<p>whatever it does with it", True),
        ("User-Agent", "Mozilla/5.0 <script>", "<p>whatever it does with it", True),
        ("User-Agent", "Mozilla/5.0 (X11)", "<body data-browser='Mozilla/5.0 (X11)'>", False),
    ],
)
def test_what_a_client_wrote_to_be_shown(field: str, value: str, page: str, *, shows: bool) -> None:
    asked = request_head((field.lower().encode(), value.encode()))
    assert shows_its_client(asked, page.encode()) is shows
    assert not shows or wrote_to_be_shown(asked)


def test_a_page_with_too_many_places_for_sessions_counts_as_one_that_leads_into_one() -> None:
    assert not links_session(request_head(), b"", b"PHPSESSID " * (CANDIDATES_MAX - 1))
    assert links_session(request_head(), b"", b"PHPSESSID " * CANDIDATES_MAX)


@pytest.mark.parametrize("name", [b"referer", b"user-agent"])
def test_of_two_texts_nobody_knows_which_is_shown(name: bytes) -> None:
    asked = request_head((name, b"https://example.com/"), (name, b"https://evil.example/"))
    assert shows_its_client(asked, b"<p>nothing of it")
    assert wrote_to_be_shown(asked)


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ((b"user-agent", b"Mozilla/5.0 (X11)"), (b"referer", b"http://example.com/list")),
        ((b"referer", b"about:blank"),),
        ((b"sec-ch-ua", b'"Not<A;Brand";v="8"'), (b"cookie", b"a=<b>")),
    ],
)
def test_most_requests_have_nothing_to_be_searched_for(
    fields: tuple[tuple[bytes, bytes], ...],
) -> None:
    assert not wrote_to_be_shown(request_head(*fields))
