"""Personal content in a response, although nothing in the request identified the visitor.

The request of a first visit has no cookie, so its response would be public. But the response may
begin a session and contain its id (`?sid=` in all links), or a form with a token of that session.
Another visitor who got that page would be in that session, or the form would be refused. Such a
response is not stored. This module searches for such content. A response that cannot be searched
counts as personal.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from retter.base.limits import PARAMETER_ESCAPES_MAX
from retter.http.cookies import (
    CSRF,
    IGNORABLE,
    LIKELY,
    SESSION,
    SESSION_BYTES_MIN,
    may_be_secret,
)
from retter.http.known_names import CSRF_WORDS, is_token_field
from retter.http.message import (
    APOSTROPHE,
    LESS_THAN,
    PERCENT,
    QUOTE,
    RequestHead,
    ResponseHead,
)
from retter.store.owner import OwnerRules
from retter.store.set_cookie import cookies_of, cookies_set

# This much of a cookie's value in a page is not a coincidence.
PART_BYTES_MIN: Final = 8

# For values up to this length, every part is searched for. Longer ones are encrypted, and their
# parts have no meaning: a page that shows one shows at least twice PART_BYTES_MIN of it.
SHORT_VALUE_BYTES_MAX: Final = 64

# Octets that are searched for one response: about 4 ms. If there is more to search (a page of a
# megabyte, or dozens of cookies), the response is not stored.
SEARCHED_BYTES_MAX: Final = 8 * 1024 * 1024

# Octets of cookies whose parts are searched for. Browsers keep 4 KiB of a cookie. With more octets,
# the response is not stored.
VALUES_BYTES_MAX: Final = 16 * 1024

# Percent-encoded octets in these cookies: three times those of the largest that browsers keep. With
# more, the response is not stored. To decode 64 KiB of percent signs would take 7 ms.
VALUE_ESCAPES_MAX: Final = 4096

# Octets that are compared on each side of a piece.
AROUND_BYTES_MAX: Final = 64

# The number of candidates that are compared. After that, a part counts as found.
CANDIDATES_MAX: Final = 256

# A form that changes something, or the places where scripts find a token. The text is in lower
# case. One pattern for all takes 60 ms for a megabyte; separate ones take 5 ms.
_POST_FORM = re.compile(rb"method[ \t\r\n]{0,8}=[ \t\r\n]{0,8}[\"']?post")
# The last two are those of Moodle and Magento, also outside of forms.
_TOKEN_WORDS: Final = (b"csrf", b"xsrf", b"sesskey", b"form_key")
# What is before `token` in names of tokens: those of Rails, ASP.NET, Nextcloud, Roundcube, XWiki,
# Atlassian, vBulletin, PrestaShop and OXID; and a field `_token`. A token alone may be that of the
# site with an analytics service, which all visitors get.
_TOKEN_BEGINNINGS: Final = (
    b"authenticity_", b"verification", b"request", b"request_", b"request-", b"form_", b"form-",
    b"atl_", b"atl-", b"security", b"security_", b"static_", b"?s", b"&s", b"&amp;s", b'"s',
    b"name=_", b'name="_', b"name='_",
)  # fmt: skip

_NONCE_WORDS: Final = (b"nonce", b"csrf", b"xsrf", b"verificationtoken")
_NONCE_ENDS: Final = (b"[_token]", b"%5b_token%5d")  # `search[_token]`: Symfony's forms
# Tokens of forms, and of links in mails that work once. Others may be those of a program
# (`api_token`) or a place in a list (`page_token`).
_NONCE_NAMES: Final = frozenset(
    (
        b"_token", b"authenticity_token", b"form_token", b"request_token", b"requesttoken",
        b"security_token", b"securitytoken", b"atl_token", b"stoken", b"sectok", b"sesskey",
        b"form_key", b"formhash", b"my_post_key", b"_authenticator", b"confirmation_token",
        b"reset_password_token", b"unlock_token", b"invitation_token", b"verification_token",
    )
)  # fmt: skip


def carries_nonce(query: bytes) -> bool:
    """Return whether a lower-case query contains a visitor's token that works once."""
    # One search for each word: a loop takes five times as long, and `in` twice as long as `find`.
    find = query.find
    if (
        find(b"nonce") < 0
        and find(b"srf") < 0
        and find(b"tok") < 0
        and find(b"form") < 0
        and find(b"_key") < 0
        and find(b"sesskey") < 0
        and find(b"_auth") < 0
    ):
        return False
    names = [param.partition(b"=")[0] for param in query.replace(b";", b"&").split(b"&")]
    return any(
        name in _NONCE_NAMES
        or name.endswith(_NONCE_ENDS)
        or any(word in name for word in _NONCE_WORDS)
        for name in names
    )


def sets_cookie(response: ResponseHead, rules: OwnerRules) -> bool:
    """Return whether a response sets a cookie that is not ignorable."""
    return any(rules.cookie_kinds[cookie.name] is not IGNORABLE for cookie in cookies_set(response))


def gives_cookie(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Return whether a response sets a relevant cookie that its client did not have.

    Without that cookie, the stored response is incomplete: a form in it would be refused. It can
    replace a failure, but it cannot spare the application work.
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
    """Return whether a response contains data of the visitor to whom it gives cookies.

    Args:
        text: The decoded body.
    """
    if _begins_session(response, rules) and (_has_token_field(response) or _has_form(text)):
        return True
    values: list[bytes] = []
    escapes = 0
    for cookie in cookies_set(response):
        if rules.cookie_kinds[cookie.name] is not IGNORABLE:
            value = cookie.value.strip(b'"')
            values.append(value)
            if PERCENT in value:
                escapes += value.count(b"%")
                if escapes > VALUE_ESCAPES_MAX:
                    return True
                values.append(unquote_to_bytes(value))
    asked = (request.host + request.target).lower()  # text in the request is not a secret
    # Refresh, Link and Content-Location may have it in a URL, other fields by itself.
    text = b"\n".join([text, *[value for name, value in response.fields if name != b"set-cookie"]])
    if sum(map(len, values)) > VALUES_BYTES_MAX:
        return True
    left, candidates = SEARCHED_BYTES_MAX, CANDIDATES_MAX
    text = text.lower()  # some write an id in upper case
    for value in values:
        for shown in _ids_in_json(value):
            left -= len(text)
            if left < 0 or (text.find(shown) >= 0 and shown not in asked):
                return True
        for part, at in _parts(value.lower()):
            left -= len(text)
            if left < 0:
                return True
            candidates = _shows(text, value, part, at, asked, candidates)
            if not candidates:
                return True
    return False


def _has_form(text: bytes) -> bool:
    """Return whether a page contains a form that belongs to a session."""
    lower = text.lower()
    return (
        any(word in lower for word in _TOKEN_WORDS)
        or _POST_FORM.search(lower) is not None
        or _names_token(lower)
    )


def _names_token(lower: bytes) -> bool:
    """Return whether a text in lower case has the name of a token that belongs to forms."""
    place, candidates = lower.find(b"token"), CANDIDATES_MAX
    while place >= 0:
        candidates -= 1
        if not candidates or lower.endswith(_TOKEN_BEGINNINGS, max(0, place - 16), place):
            return True
        place = lower.find(b"token", place + 5)
    return False


def _has_token_field(response: ResponseHead) -> bool:
    """Return whether scripts find a token of the session in a field (`X-CSRF-Token`)."""
    return any(word in name for name, _ in response.fields for word in CSRF_WORDS)


def _begins_session(response: ResponseHead, rules: OwnerRules) -> bool:
    for cookie in cookies_set(response):
        kind = rules.cookie_kinds[cookie.name]
        if kind in (SESSION, LIKELY, CSRF):
            return True
        if kind is not IGNORABLE and may_be_secret(SESSION, cookie.value.strip(b'"')):
            return True
    return False


# In JSON that a cookie has in base64 (signed sessions, JSON Web Tokens): texts that may be ids.
# Shorter ones may be dates.
_ids: Final = re.compile(rb"[-_.~0-9A-Za-z]{12,256}+").findall


def _ids_in_json(value: bytes) -> Iterator[bytes]:
    """Yield in lower case what may be an id in the JSON of a value. Linear in its length."""
    if b"eyJ" not in value:  # `{"` in base64
        return
    for piece in value.split(b"."):
        if piece.startswith(b"eyJ"):
            plain = piece.replace(b"+", b"-").replace(b"/", b"_").rstrip(b"=")
            try:
                decoded = urlsafe_b64decode(plain + b"=" * (-len(plain) % 4))
            except ValueError:
                continue  # no base64
            for found in _ids(decoded):
                if _may_be_id(found):
                    yield found.lower()


def _parts(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield pieces of a value with their offsets. Every long enough part contains one of them."""
    if len(value) < PART_BYTES_MIN:
        return
    if len(value) > SHORT_VALUE_BYTES_MAX:
        size, step = PART_BYTES_MIN, PART_BYTES_MIN
    else:
        size, step = PART_BYTES_MIN - 2, 3
    for at in range(0, len(value) - size + 1, step):
        yield value[at : at + size], at


def _shows(text: bytes, value: bytes, part: bytes, at: int, asked: bytes, candidates: int) -> int:
    """Search a text for a piece of a value, together with enough of the octets around it.

    Args:
        text: In lower case, like `part`.
        candidates: Places that may still be compared.

    Returns:
        The number of candidates that are left; 0 if it was found, or counts as found.
    """
    place = text.find(part)
    lower, after_part = value.lower(), at + len(part)
    around_before = lower[max(0, at - AROUND_BYTES_MAX) : at][::-1]
    around_after = lower[after_part : after_part + AROUND_BYTES_MAX]
    while place >= 0:
        candidates -= 1
        after = place + len(part)
        before = text[max(0, place - AROUND_BYTES_MAX) : place][::-1]
        begin = at - _common(around_before, before)
        end = after_part + _common(around_after, text[after : after + AROUND_BYTES_MAX])
        found = value[begin:end]
        if len(found) >= PART_BYTES_MIN and _may_be_id(found) and found.lower() not in asked:
            return 0
        if not candidates:
            return 0
        place = text.find(part, place + 1)
    return candidates


def _common(one: bytes, other: bytes) -> int:
    """Return the length of the common prefix."""
    common, different = 0, min(len(one), len(other)) + 1
    while different - common > 1:
        middle = (common + different) // 2
        if one[:middle] == other[:middle]:
            common = middle
        else:
            different = middle
    return common


def _may_be_id(text: bytes) -> bool:
    """Return whether a text may be an id, and not a word such as the name of a theme.

    An id has a digit, or letters of both cases, or the length of session ids.
    """
    return (
        len(text) >= SESSION_BYTES_MIN
        or text.translate(None, b"0123456789") != text
        or (text != text.lower() and text != text.upper())
    )


# Tells whether a longer URL goes on in a page from a place on.
_GoesOn = Callable[[bytes, int], re.Match[bytes] | None]


def gives_token(request: RequestHead, response: ResponseHead) -> bool:
    """Return whether a response gives its client a token in a field (`X-Auth-Token`).

    That is the session of a client without cookies. A request with the same field, or with
    Authorization, has an owner of its own (owner.py), to whom the token belongs as well.
    """
    if not response.gives_token or request.first(b"authorization") is not None:
        return False
    return any(
        is_token_field(name)
        and len(value.rpartition(b" ")[2]) >= SESSION_BYTES_MIN  # `Bearer ...`
        and request.first(name) is None
        for name, value in response.fields
    )


def wrote_to_be_shown(request: RequestHead) -> bool:
    """Return whether a head has a text that its client may have chosen to be shown to others.

    If not, a page need not be searched, nor decoded for that.
    """
    return bool(request.ids) or _unlike_browsers(request) or bool(_news_of_referer(request))


def shows_its_client(request: RequestHead, body: bytes, head: bytes = b"") -> bool:
    """Return whether a page may contain what its client wrote into its head to be shown to others.

    Applications write the Referer into links that lead back, and the User-Agent or the language
    into attributes. No browser sends octets there that end an attribute. A Referer of the same site
    is no news to it. Request ids are the client's own too.

    Args:
        head: The fields of the response. They may have the Referer (Refresh, Link); an id there
            leads nobody anywhere.
    """
    ids = request.ids
    if _unlike_browsers(request) or len(ids) * len(body) > SEARCHED_BYTES_MAX:
        return True  # in the latter case, there is too much to search
    if any(one in body for one in ids):
        return True
    referer = _news_of_referer(request)
    # Up to what is escaped in a page.
    shown = referer.replace(b"'", b"&").partition(b"&")[0]
    if not shown:
        return False
    body = b"\n".join((head, body))
    whole = len(shown) == len(referer)
    parameter = quote_from_bytes(shown, safe="").encode()
    lower = _escapes.sub(lambda escape: escape[0].lower(), parameter)
    return any(
        _is_shown(text, body, _url_goes_on if whole else None) for text in _written(shown)
    ) or (
        any(
            _is_shown(text, body, _parameter_goes_on if whole else None)
            for text in {parameter, lower}
        )
    )


def links_session(request: RequestHead, head: bytes, body: bytes) -> bool:
    """Return whether a page or its fields lead to URLs with the id of a session, without a cookie.

    Servlets, PHP and ASP.NET can keep the session of a client without cookies in all links. Whoever
    followed them from a stored page would be in the session of another visitor. An id that the
    request has itself is no news: the URL separates what is stored. A page that only writes about
    such URLs has none in an attribute.
    """
    return _has_sessions(request, head, _IN_FIELDS) or _has_sessions(request, body, _IN_PAGES)


def _has_sessions(request: RequestHead, text: bytes, names: tuple[bytes, ...]) -> bool:
    candidates = CANDIDATES_MAX
    for name in names:
        place = text.find(name)
        while place >= 0:
            found = _linked_session(text, place)
            if found is not None and not _sent(request, found[1]):
                return True
            candidates -= 1
            if not candidates:
                return True
            place = text.find(name, place + len(name))
    return False


def _sent(request: RequestHead, value: bytes) -> bool:
    """Return whether the URL or a cookie of a request has a value."""
    return value in request.target or any(
        name == b"cookie" and value in field for name, field in request.fields
    )


# Where the id of a session stands in a URL: `/cart;jsessionid=...`, `?PHPSESSID=...` (or a hidden
# field of a form), and `/(S(...))/cart`. After the id, an attribute or a parameter ends.
# ASP.NET redirects to the last form, and the links of its pages are relative. To search a page of
# 10 KiB for a name takes 3 us.
_IN_PAGES: Final = (b"jsessionid=", b"PHPSESSID")
_IN_FIELDS: Final = (*_IN_PAGES, b"/(S(")
_linked_session: Final = re.compile(
    rb"(?:jsessionid=|PHPSESSID(?:=|[\"']?[ ]value=[\"']?)|/\(S\()"
    rb"([-,.!_~0-9A-Za-z]{%d,256}+)(?=[\"'?#&/;)\\\r])" % SESSION_BYTES_MIN
).match


def _unlike_browsers(request: RequestHead) -> bool:
    """Return whether a field has octets that browsers never send, or a Referer or User-Agent twice.

    Which of two an application shows is not known.
    """
    agents = places = 0
    for name, value in request.fields:
        if LESS_THAN in value and not name.startswith(_ANY_OCTETS):
            return True
        if name == b"user-agent":
            agents += 1
            if QUOTE in value or APOSTROPHE in value:
                return True
        elif name in _UNQUOTED:
            places += name == b"referer"
            if QUOTE in value:
                return True
    return agents > 1 or places > 1


# A cookie separates owners. Browsers put octets into brands (Sec-CH-UA) that nobody should rely on.
_ANY_OCTETS: Final = (b"cookie", b"sec-ch-")
_UNQUOTED: Final = frozenset((b"referer", b"origin", b"accept-language", b"accept-charset"))


def _news_of_referer(request: RequestHead) -> bytes:
    """Return the Referer; b"" if there is none, or one that a page of this site may have anyway."""
    referer = request.first(b"referer")
    if referer is None or referer == b"about:blank":  # RFC 9110 section 10.1.3
        return b""
    scheme, _, rest = referer.partition(b"://")
    # `javascript://shop.example/` and `//evil.example/` are links as well.
    if (
        rest.partition(b"/")[0].lower() == request.host.lower()
        and scheme.lower() in _WEB
        and b"'" not in referer
    ):
        return b""
    return referer


def _written(url: bytes) -> set[bytes]:
    """Return how applications write a URL in HTML and in JSON."""
    return {
        url,
        url.replace(b"/", b"\\/"),
        url.replace(b"/", b"\\u002F"),
        url.replace(b"/", b"&#x2F;"),
        url.replace(b"/", b"&#47;"),
    }


def _is_shown(text: bytes, body: bytes, goes_on: _GoesOn | None) -> bool:
    """Return whether a page has a text. With `goes_on`: not only as the beginning of a longer one.

    `https://search.example/` is not shown by a page that loads `https://search.example/x.js`.
    """
    place = body.find(text)
    for _ in range(CANDIDATES_MAX):
        if place < 0:
            return False
        end = place + len(text)
        if goes_on is None or goes_on(body, end) is None:
            return True
        place = body.find(text, end)
    return True


_WEB: Final = (b"http", b"https")
_escapes: Final = re.compile(rb"%[0-9A-F]{2}")
# What follows a URL that is the beginning of a longer one. Not the end of a sentence, and not the
# end of an attribute or a text, however that is escaped.
_url_goes_on: Final = re.compile(
    rb"[.,;:!*]*+(?:[-~$+=@/?#_0-9A-Za-z]|\\/"
    rb"|&(?!quot;|apos;|[lg]t;|#0*(?:34|39|60|62);|#[Xx]0*(?:22|27|3[CEce]);)"
    rb"|%(?!2[27]|3[CEce]))"
).match
_parameter_goes_on: Final = re.compile(rb"[.+]*+[-~_0-9A-Za-z]|%(?!2[27]|3[CEce])").match


def reflects_referer(request: RequestHead, response: ResponseHead) -> bool:
    """Return whether a redirect leads to the Referer of the request, at once or after a login.

    If it was stored, it would redirect other visitors to the place that this visitor came from.
    """
    location, referer = response.first(b"location"), request.first(b"referer")
    if not location or not referer:
        return False
    path = b"/" + referer.partition(b"://")[2].partition(b"/")[2]
    if referer in location or (location == path and len(path) > 1):
        return True
    if PERCENT in location or PERCENT in referer:
        if location.count(b"%") > PARAMETER_ESCAPES_MAX or referer.count(b"%") > (
            PARAMETER_ESCAPES_MAX
        ):
            return True  # too much to decode
        location, referer, path = map(unquote_to_bytes, (location, referer, path))
        if referer in location:
            return True
    # `/login?next=/cart`. Elsewhere the path says nothing: who is at `/cart` goes to `/cart/items`.
    back = b"=" + path
    return len(path) > 1 and (
        location.endswith(back) or back + b"&" in location or back + b"#" in location
    )
