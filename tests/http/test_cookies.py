"""Cookies of a request: which of them may identify the client, and which lines are unclear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.limits import COOKIES_MAX
from retter.http.cookies import (
    CREDENTIAL,
    CSRF,
    IGNORABLE,
    LIKELY,
    LIKELY_SESSION_BYTES_MIN,
    OTHER,
    SESSION,
    SESSION_BYTES_MIN,
    SHORT_NAME_BYTES_MAX,
    CookieKind,
    cookie_classifier,
    looks_like,
    may_be_secret,
    read_cookies,
    too_many_cookies,
)

kind_of = cookie_classifier((b"sid", b"*_session"), (b"theme",))
SECRET = b"0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"sid", SESSION),
        (b"shop_session", LIKELY),
        (b"theme", IGNORABLE),
        (b"_ga", IGNORABLE),
        (b"csrftoken", CSRF),
        (b"auth_token", CREDENTIAL),
        (b"colour", OTHER),
        (b" sid\t", SESSION),
    ],
)
def test_a_name_has_a_kind(name: bytes, kind: CookieKind) -> None:
    assert kind_of(name) is kind


@given(
    name=st.binary(min_size=1, max_size=2 * SHORT_NAME_BYTES_MAX), word=st.sampled_from([b"jwt"])
)
def test_a_long_name_is_judged_as_a_short_one(name: bytes, word: bytes) -> None:
    for one in (name, name + word):
        assert looks_like(one) is looks_like(one.upper())
    assert looks_like(name + word) in (CREDENTIAL, CSRF)


@pytest.mark.parametrize(
    ("kind", "least"), [(SESSION, SESSION_BYTES_MIN), (LIKELY, LIKELY_SESSION_BYTES_MIN)]
)
def test_a_secret_is_long_and_no_settings(kind: CookieKind, least: int) -> None:
    assert may_be_secret(kind, b"a" * least)
    assert not may_be_secret(kind, b"a" * (least - 1))
    assert not may_be_secret(kind, b'{"theme":"dark","language":"en"}')
    assert not may_be_secret(OTHER, b"a" * least)


def test_each_cookie_goes_to_its_kind() -> None:
    line = b"sid=%b; theme=dark; colour=red; user_token=x" % SECRET
    cookies = read_cookies([line], kind_of)
    assert cookies.sessions == [(b"sid", SECRET)]
    assert cookies.credentials == [(b"user_token", b"x")]
    assert cookies.counted == [(b"sid=", SECRET), (b"colour=", b"red"), (b"user_token=", b"x")]
    assert not cookies.unclear


def test_a_short_value_under_a_name_of_a_login_is_a_credential() -> None:
    cookies = read_cookies([b"login_session=admin"], kind_of)
    assert (cookies.sessions, cookies.credentials) == ([], [(b"login_session", b"admin")])


@pytest.mark.parametrize(
    "lines",
    [
        [b"a=1", b"b=2"],  # two lines
        [b'a="x; b=2'],  # a quoted string that may go on
        [b"a=1,sid=" + SECRET],  # split at the comma by some
        [b"sid=%b with-a-blank" % SECRET],
        [b"sid=" + SECRET + b"," * (COOKIES_MAX + 1)],
    ],
)
def test_what_applications_read_in_two_ways_is_unclear(lines: list[bytes]) -> None:
    assert read_cookies(lines, kind_of).unclear


def test_an_ignorable_cookie_with_an_odd_value_counts() -> None:
    assert read_cookies([b'theme="dark'], kind_of).counted == [(b"theme=", b'"dark')]


@given(
    names=st.lists(st.sampled_from([b"sid", b"a", b"b", b"colour", b"shop_session"])),
    value=st.text("0123456789abcdef", max_size=30).map(str.encode),
)
def test_no_cookie_that_is_not_ignorable_is_lost(names: list[bytes], value: bytes) -> None:
    line = b"; ".join([b"%b=%b" % (name, value) for name in names])
    counted = read_cookies([line], kind_of).counted
    assert counted == [(name + b"=", value) for name in names]


def test_there_is_a_most_of_cookies() -> None:
    assert not too_many_cookies([b";".join([b"a=1"] * COOKIES_MAX)])
    assert too_many_cookies([b";".join([b"a=1"] * (COOKIES_MAX + 1))])
    assert too_many_cookies([b";" * COOKIES_MAX, b""])
