"""HTTP-dates are written in English, wherever the machine stands."""

import ast
import re
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retter
from retter.http.dates import format_http_date, parse_cookie_date, parse_http_date
from retter.proxy.wall_clock import WallClock

YEAR_9999_S = 253402300799

# Directives of strftime and strptime whose text is the locale's (strftime(3)).
_OF_THE_LOCALE = re.compile("%[-_0^#EO]?[aAbBchpPrxX+]")


@given(st.integers(0, YEAR_9999_S))
def test_what_is_written_is_what_others_write_and_is_read_back(second: int) -> None:
    date = format_http_date(time.gmtime(second))
    assert date == formatdate(second, usegmt=True)
    assert parse_http_date(date.encode()) == second


def test_the_date_field_does_not_follow_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where a program that embeds RETTER has called setlocale."""
    monkeypatch.setattr(time, "strftime", lambda *_: "dim. 06 nov. 1994 08:49:37 GMT")
    date = WallClock().http_date()
    assert parse_http_date(date.encode()) is not None


def test_no_date_is_written_or_read_with_the_locales_names() -> None:
    """Every string of the package that is a format: new code is looked at too."""
    found: list[str] = []
    looked_at = 0
    for path in Path(retter.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("strftime", "strptime"):
                looked_at += 1
                texts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                found += [
                    f"{path.name}: {text}"
                    for text in texts
                    if isinstance(text, str) and _OF_THE_LOCALE.search(text)
                ]
    assert looked_at and not found


@pytest.mark.parametrize(
    "date",
    [
        b"Sun, 06 Nov 1994 08:49:37 GMT",
        b"Sun, 06-Nov-1994 08:49:37 GMT",
        b"Sun, 06 Nov 1994 08:49:37 -0000",
        b"Sun, 6 Nov 1994 08:49:37 UTC",
        b"Sunday, November 6, 94 8:49:37",
        b"1994 06 nov 08:49:37",
    ],
)
def test_a_date_of_a_cookie_is_read_as_browsers_do(date: bytes) -> None:
    """RFC 6265 section 5.1.1; Rack wrote `-0000` for years."""
    assert parse_cookie_date(date) == 784111777


@pytest.mark.parametrize(
    "date",
    [
        b"",
        b"0",
        b"soon",
        b"Sun, 06 Nov 08:49:37",
        b"06 Nov 1994",
        b"Sun, 32 Nov 1994 08:49:37 -0000",
        b"Sun, 06 Nov 1600 08:49:37 -0000",
        b"Sun, 06 Nov 1994 24:49:37 -0000",
        b"Sun, 06 Nov 1994 08:49:37 -0000" + b" " * 64,
    ],
)
def test_what_browsers_do_not_read_as_a_date(date: bytes) -> None:
    assert parse_cookie_date(date) is None
