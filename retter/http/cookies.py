"""The cookies of a request, read and sorted by how each of them may identify the client.

A session cookie must be a secret of one person, so that its value alone identifies this person.
Many values with such names are no secrets (`session=active`), so the length and the form of the
value count too. If applications may read the cookies in two ways (commas, odd quotes, several
Cookie lines), they are called unclear, and owner.py counts every octet.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from retter.base.limits import COOKIES_MAX
from retter.base.wildcard import name_matcher
from retter.http.known_names import (
    ANALYTICS_SESSIONS,
    CREDENTIAL_WORDS,
    CSRF_WORDS,
    IGNORABLE_COOKIES,
)
from retter.http.message import COMMA, QUOTE

# A shorter value is a flag (`session=active`, `symfony=de`). Session ids usually have 128 bits. In
# hexadecimal, 16 characters hold 64 bits; fewer bits could be guessed.
SESSION_BYTES_MIN: Final = 16
# A pattern (*_session) also matches flags (first_session=2026-11-23) that many visitors share. Of
# the frameworks whose names need a pattern, the shortest ids have 24 characters (ASP).
LIKELY_SESSION_BYTES_MIN: Final = 24


class CookieKind(Enum):
    """The meaning of a cookie for the owner, according to its name."""

    SESSION = "session"  # by its full name
    LIKELY_SESSION = "likely"  # by a pattern
    CREDENTIAL = "credential"  # the name suggests a login: it counts even beside a session
    CSRF = "csrf"  # belongs to forms
    IGNORABLE = "ignorable"
    OTHER = "other"


# Plain names for speed: access to an attribute of an Enum class costs as much as a call.
SESSION: Final = CookieKind.SESSION
LIKELY: Final = CookieKind.LIKELY_SESSION
CREDENTIAL: Final = CookieKind.CREDENTIAL
CSRF: Final = CookieKind.CSRF
IGNORABLE: Final = CookieKind.IGNORABLE
OTHER: Final = CookieKind.OTHER


# Section 4.1.3 of RFC 6265bis; the longer ones first.
_PREFIXES: Final = (b"__Host-Http-", b"__Http-", b"__Host-", b"__Secure-")
_is_token: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


def cookie_classifier(
    session_cookies: tuple[bytes, ...], ignore_cookies: tuple[bytes, ...]
) -> Callable[[bytes], CookieKind]:
    """Return a function that returns the kind of a cookie by its name."""
    is_session = name_matcher(session_cookies)
    known_ignorable = name_matcher(IGNORABLE_COOKIES)
    configured_ignorable = name_matcher(ignore_cookies)
    is_listed = name_matcher((*session_cookies, *IGNORABLE_COOKIES, *ignore_cookies))

    def classify(name: bytes) -> CookieKind:
        name = name.strip(b" \t")
        # RFC 6265 section 4.1.1. A wildcard must not match a comma: some applications split there
        # (RFC 2965), so for them another cookie begins after the comma.
        if not _is_token(name):
            return OTHER
        # Browsers leave these prefixes in the name; they describe how the cookie was set.
        plain = name
        for prefix in _PREFIXES:
            plain = plain.removeprefix(prefix)
        if not is_listed(name) and (plain is name or not is_listed(plain)):
            return looks_like(name)  # first, as a stranger may send hundreds of them
        if plain in session_cookies or name in session_cookies:
            return SESSION
        if is_session(plain) or is_session(name):
            # A pattern may match an analytics cookie (*_session: _parsely_session). As a session,
            # it would hide the true session; and it must not be ignored, since it might be the true
            # session. So it counts like any other cookie.
            if name in ANALYTICS_SESSIONS:
                return IGNORABLE
            return OTHER if known_ignorable(name) else LIKELY
        if known_ignorable(name) or configured_ignorable(name):
            return IGNORABLE
        return looks_like(name)

    return classify


def looks_like(name: bytes) -> CookieKind:
    """Return the kind of a cookie that is on no list."""
    lower = name.lower()
    # A short name is searched once for all words. A long one is searched faster word by word.
    if len(lower) <= SHORT_NAME_BYTES_MAX and _speaking_word(lower) is None:
        return OTHER
    if any(word in lower for word in CSRF_WORDS):
        return CSRF
    return CREDENTIAL if any(word in lower for word in CREDENTIAL_WORDS) else OTHER


SHORT_NAME_BYTES_MAX: Final = 64
_speaking_word: Final = re.compile(b"|".join((*CSRF_WORDS, *CREDENTIAL_WORDS))).search


# RFC 6265 section 4.1.1: cookie-octets. If the value of a session contains anything else (a comma,
# a quote, a blank), some application reads that as the end of the cookie.
_PLAIN_OCTETS: Final = rb"[!#-+\--:<-\[\]-~]*+"
is_plain_value: Final = re.compile(rb"\"" + _PLAIN_OCTETS + rb"\"|" + _PLAIN_OCTETS).fullmatch

# A line with only such octets, and with a semicolon and a blank between two cookies (section
# 4.2.1), is read in the same way by all applications. It is cut into names and values in turns;
# after the last value comes an empty piece. If a line is not plain, one of its pieces is not a
# plain name. A comma after a blank begins a cookie, and not the rest of a value: the piece keeps
# the semicolon then.
cut_plain_line: Final = re.compile(rb"=(" + _PLAIN_OCTETS + rb")(?:; (?!,))?+").split
# Changes all octets that plain values do not contain; the second one leaves commas.
ODD_MARKED: Final = bytes(
    [octet if re.fullmatch(_PLAIN_OCTETS, bytes([octet])) else 120 for octet in range(256)]
)
ODD_BUT_COMMAS_MARKED: Final = bytes(
    [octet if octet == COMMA else marked for octet, marked in enumerate(ODD_MARKED)]
)
is_plain_name: Final = re.compile(rb"[!#-+\--:<>-\[\]-~]++").fullmatch
# A value from its first comma on, which no application takes for another cookie: it has no "=".
is_rest_of_value: Final = re.compile(rb",[!#-:<>-\[\]-~]*+").fullmatch

# Unencrypted JSON, plain or percent-encoded: settings, which may be equal for two people.
OPEN_JSON: Final = (b"{", b"[", b"%7B", b"%7b", b"%5B", b"%5b")


def secret_bytes_min(kind: CookieKind) -> int:
    """Return how long the value of a session's cookie of this kind is at least."""
    return SESSION_BYTES_MIN if kind is SESSION else LIKELY_SESSION_BYTES_MIN


def may_be_secret(kind: CookieKind, value: bytes) -> bool:
    """Return whether the value of a cookie of this kind can be the session of one person."""
    return (
        (kind is SESSION or kind is LIKELY)
        and len(value) >= secret_bytes_min(kind)
        and not value.startswith(OPEN_JSON)
    )


Pair = tuple[bytes, bytes]


class Cookies(NamedTuple):
    """The contents of the Cookie lines of a request."""

    sessions: list[Pair]  # (name, value)
    credentials: list[Pair]  # (name, value)
    counted: list[Pair]  # all but the ignorable ones, as (name with "=", value)
    unclear: bool  # applications differ in how they read it


NO_COOKIES: Final = Cookies([], [], [], False)


def too_many_cookies(lines: list[bytes]) -> bool:
    """Return whether these Cookie lines have too many cookies to read."""
    octets = sum([len(line) for line in lines])
    return octets >= COOKIES_MAX and sum([line.count(b";") + 1 for line in lines]) > COOKIES_MAX


def read_cookies(lines: list[bytes], kind_of: Callable[[bytes], CookieKind]) -> Cookies:
    """Read Cookie lines; `kind_of` returns the kind of a name."""
    sessions: list[Pair] = []
    credentials: list[Pair] = []
    counted: list[Pair] = []
    unclear = len(lines) != 1  # RFC 6265 section 5.4: a user agent sends one Cookie line
    whole = lines[0] if len(lines) == 1 else b";".join(lines)
    commas = whole.count(b",")
    if commas > COOKIES_MAX:
        commas, unclear = 0, True  # there may be sessions between the commas
    for piece in whole.split(b";"):
        name, equals, value = piece.strip(b" \t").partition(b"=")
        name = name.rstrip(b" \t")
        if QUOTE in value and value.count(b'"') & 1:
            unclear = True  # maybe a quoted string that continues after the semicolon
        if commas and b"," in piece and _hides_a_session(piece, kind_of):
            unclear = True
        kind = kind_of(name) if equals else OTHER
        if kind is SESSION or kind is LIKELY:
            if may_be_secret(kind, value.strip(b'"')):
                unclear = unclear or not is_plain_value(value)
                sessions.append((name, value))
            elif looks_like(name) is CREDENTIAL:
                credentials.append((name, value))
        elif kind is CREDENTIAL:
            credentials.append((name, value))
        elif kind is IGNORABLE and is_plain_value(value):
            continue
        if name or equals:  # else there is nothing between two semicolons
            counted.append((name + equals, value))
    return Cookies(sessions, credentials, counted, unclear)


def _hides_a_session(piece: bytes, kind_of: Callable[[bytes], CookieKind]) -> bool:
    """Return whether an application that splits at commas would find another session here."""
    for part in piece.split(b",")[1:]:
        name, equals, _ = part.partition(b"=")
        if equals and kind_of(name.strip(b" \t")) in (SESSION, LIKELY):
            return True
    return False
