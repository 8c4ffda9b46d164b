"""Personal content in a response although nothing in the request identified its visitor.

A first visit carries no cookie, so its answer would be everyone's. But that answer may begin a
session, and show its id in the page (`?sid=` in all links), or a form with a token that the session
has. Whoever else got that page would be in that session, or would have its form refused. Such an
answer is not stored. Here it is looked for; what cannot be read is not given the benefit of the
doubt.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from retter.http.cookies import (
    CSRF,
    IGNORABLE,
    LIKELY,
    SESSION,
    SESSION_BYTES_MIN,
    may_be_secret,
)
from retter.http.message import PERCENT, RequestHead, ResponseHead
from retter.store.owner import OwnerRules
from retter.store.set_cookie import cookies_of, cookies_set

# So much of a cookie's value in a page is no accident.
PART_BYTES_MIN: Final = 8

# Of values up to here every part is looked for. Longer ones are sealed, and mean nothing in parts:
# a page that shows one shows twice PART_BYTES_MIN of it, at least.
SHORT_VALUE_BYTES_MAX: Final = 64

# Octets that are looked through for one answer: about 4 ms. With more to look for (a megabyte of
# page, or dozens of cookies) it is not stored.
SEARCHED_BYTES_MAX: Final = 8 * 1024 * 1024

# Octets of cookies whose parts are looked for. Browsers keep 4 KiB of a cookie. With more the
# answer is not stored.
VALUES_BYTES_MAX: Final = 16 * 1024

# Octets around a piece that are compared, on each side.
AROUND_BYTES_MAX: Final = 64

# How often the beginnings of parts are followed up before one of them counts as found.
CANDIDATES_MAX: Final = 256

# A form that changes something, or what scripts take their token from. Looked for in lower case,
# and each by itself: one pattern of all takes 60 ms for a megabyte, these 5.
_POST_FORM = re.compile(rb"method[ \t\r\n]{0,8}=[ \t\r\n]{0,8}[\"']?post")
_TOKEN_FIELD = re.compile(rb"name=[\"']?_token")
_TOKEN_WORDS: Final = (b"csrf", b"xsrf", b"authenticity_token")

_NONCE_WORDS: Final = (b"nonce", b"csrf", b"xsrf")
_NONCE_NAMES: Final = frozenset((b"_token", b"authenticity_token"))


def carries_nonce(query: bytes) -> bool:
    """Return whether a lower-case query has a token in it that is one visitor's, and works once."""
    # Word by word: a loop takes five times as long, and `in` twice as long as `find`.
    find = query.find
    if find(b"nonce") < 0 and find(b"srf") < 0 and find(b"_token") < 0:
        return False
    names = [param.partition(b"=")[0] for param in query.replace(b";", b"&").split(b"&")]
    return any(name in _NONCE_NAMES or any(word in name for word in _NONCE_WORDS) for name in names)


def sets_cookie(response: ResponseHead, rules: OwnerRules) -> bool:
    """Return whether an answer sets a cookie that is not ignorable."""
    return any(rules.cookie_kinds[cookie.name] is not IGNORABLE for cookie in cookies_set(response))


def gives_cookie(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Return whether an answer sets a cookie that its asker did not have, and that may matter.

    Stored without it, the answer is not the whole of what the application has said: a form in it
    would be refused. It can hide a failure, but not spare the application the work.
    """
    carried: set[bytes] | None = None
    for cookie in cookies_set(response):
        if rules.cookie_kinds[cookie.name] is IGNORABLE or not cookie.value:
            continue
        if carried is None:
            carried = {name.removesuffix(b"=") for name, _ in cookies_of(request, rules).counted}
        if cookie.name not in carried:
            return True
    return False


def is_personal(
    request: RequestHead, response: ResponseHead, text: bytes, rules: OwnerRules
) -> bool:
    """Return whether an answer shows what belongs to the visitor whom it gives cookies.

    Args:
        text: The body, decoded.
    """
    if _begins_session(response, rules) and _has_form(text):
        return True
    values: list[bytes] = []
    for cookie in cookies_set(response):
        if rules.cookie_kinds[cookie.name] is not IGNORABLE:
            value = cookie.value.strip(b'"')
            values.append(value)
            if PERCENT in value:
                values.append(unquote_to_bytes(value))
    asked = request.host + request.target  # what the visitor has named is no secret
    text = b"\n".join([text, response.first(b"location") or b""])
    if sum(map(len, values)) > VALUES_BYTES_MAX:
        return True
    left, candidates = SEARCHED_BYTES_MAX, CANDIDATES_MAX
    for value in values:
        for part, at in _parts(value):
            left -= len(text)
            if left < 0:
                return True
            candidates = _shows(text, value, part, at, asked, candidates)
            if not candidates:
                return True
    return False


def _has_form(text: bytes) -> bool:
    """Return whether a page has a form in it that belongs to a session."""
    lower = text.lower()
    return (
        any(word in lower for word in _TOKEN_WORDS)
        or _POST_FORM.search(lower) is not None
        or _TOKEN_FIELD.search(lower) is not None
    )


def _begins_session(response: ResponseHead, rules: OwnerRules) -> bool:
    for cookie in cookies_set(response):
        kind = rules.cookie_kinds[cookie.name]
        if kind in (SESSION, LIKELY, CSRF):
            return True
        if kind is not IGNORABLE and may_be_secret(SESSION, cookie.value.strip(b'"')):
            return True
    return False


def _parts(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of a value, with their places: each long enough part has one of them in it."""
    if len(value) < PART_BYTES_MIN:
        return
    if len(value) > SHORT_VALUE_BYTES_MAX:
        size, step = PART_BYTES_MIN, PART_BYTES_MIN
    else:
        size, step = PART_BYTES_MIN - 2, 3
    for at in range(0, len(value) - size + 1, step):
        yield value[at : at + size], at


def _shows(text: bytes, value: bytes, part: bytes, at: int, asked: bytes, candidates: int) -> int:
    """Look whether a piece of a value stands in a text with enough of what is around it.

    Args:
        candidates: Places that may still be followed up.

    Returns:
        How many of them are left; 0 if it stands there, or counts as if it did.
    """
    place = text.find(part)
    around_before = value[max(0, at - AROUND_BYTES_MAX) : at][::-1]
    after_part = at + len(part)
    around_after = value[after_part : after_part + AROUND_BYTES_MAX]
    while place >= 0:
        candidates -= 1
        after = place + len(part)
        before = text[max(0, place - AROUND_BYTES_MAX) : place][::-1]
        begin = at - _common(around_before, before)
        end = after_part + _common(around_after, text[after : after + AROUND_BYTES_MAX])
        found = value[begin:end]
        if len(found) >= PART_BYTES_MIN and _may_be_id(found) and found not in asked:
            return 0
        if not candidates:
            return 0
        place = text.find(part, place + 1)
    return candidates


def _common(one: bytes, other: bytes) -> int:
    """Return how many octets both begin with."""
    common, different = 0, min(len(one), len(other)) + 1
    while different - common > 1:
        middle = (common + different) // 2
        if one[:middle] == other[:middle]:
            common = middle
        else:
            different = middle
    return common


def _may_be_id(text: bytes) -> bool:
    """Return whether a text is an id and not a word of a page, as the name of a theme.

    It has a digit in it, or letters of both cases, or is as long as session ids are.
    """
    return (
        len(text) >= SESSION_BYTES_MIN
        or text.translate(None, b"0123456789") != text
        or (text != text.lower() and text != text.upper())
    )


def reflects_referer(request: RequestHead, response: ResponseHead) -> bool:
    """Return whether a redirect leads back to where the asker says that it came from.

    Stored for others it would lead them there, wherever that is.
    """
    location, referer = response.first(b"location"), request.first(b"referer")
    if not location or not referer:
        return False
    if referer in location:
        return True
    path = b"/" + referer.partition(b"://")[2].partition(b"/")[2]
    return len(path) > 1 and location == path
