"""What an answer's Set-Cookie says of sessions: which begin, which end, whose they were.

A login or a logout ends what a session has stored, under whichever of its cookies: WordPress over
https knows people by two of them, and a logout carries one. `learn` is told of every answer that
sets a cookie; all else only looks.
"""

from collections.abc import Iterator
from typing import NamedTuple

from retter.cookies import (
    CREDENTIAL,
    CSRF,
    IGNORABLE,
    LIKELY,
    NO_COOKIES,
    SESSION,
    Cookies,
    is_plain_value,
    may_be_secret,
    read_cookies,
    too_many_cookies,
)
from retter.httpdate import parse_http_date
from retter.limits import SET_COOKIE_ATTRIBUTES_MAX
from retter.message import RequestHead, ResponseHead
from retter.owner import OwnerRules, marks_of, session_digest


class SetCookie(NamedTuple):
    """One Set-Cookie line."""

    name: bytes
    value: bytes
    attributes: bytes


def cookies_set(response: ResponseHead) -> Iterator[SetCookie]:
    """Read the Set-Cookie lines of an answer."""
    for line in response.set_cookies:
        pair, _, attributes = line.partition(b";")
        name, _, value = pair.partition(b"=")
        yield SetCookie(name.strip(b" \t"), value.strip(b" \t"), attributes)


def cookies_of(request: RequestHead, rules: OwnerRules) -> Cookies:
    """Read the cookies of a request."""
    lines = [value for name, value in request.fields if name == b"cookie"]
    if too_many_cookies(lines):
        return NO_COOKIES
    return read_cookies(lines, rules.cookie_kinds.__getitem__)


def learn(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Note the sessions that an answer begins; whether that changes who other requests are.

    Then everything that has been made of Cookie lines before is to be forgotten.
    """
    changed = False
    for cookie in cookies_set(response):
        kind = rules.cookie_kinds[cookie.name]
        if kind is not SESSION and kind is not LIKELY:
            continue
        value = cookie.value.strip(b'"')
        if not may_be_secret(kind, value) or not is_plain_value(value):
            continue
        if _deletes(cookie.attributes, response):
            continue
        changed |= rules.seen.learn_name(cookie.name)
        if (cookie.name, cookie.value) not in cookies_of(request, rules).sessions:
            changed |= rules.seen.issued(session_digest(cookie.name, cookie.value, rules))
    return changed


def sets_session(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Tell whether the response begins or ends a session: a login, a logout, a new session id.

    True for any Set-Cookie of a session or of what looks like a credential, except that the answer
    to a safe request may give back the value that came with it: that is a session whose lifetime
    is being extended, as some frameworks do with every response. Of an unsafe request every cookie
    counts that is neither ignorable nor for forms: a login may say who somebody is in any of them.
    """
    if not response.set_cookies:
        return False
    if request.method not in (b"GET", b"HEAD"):
        return any(
            rules.cookie_kinds[cookie.name] not in (IGNORABLE, CSRF)
            for cookie in cookies_set(response)
        )
    carried: list[tuple[bytes, bytes]] | None = None
    for name, value, attributes in cookies_set(response):
        if rules.cookie_kinds[name] not in (SESSION, LIKELY, CREDENTIAL):
            continue
        if carried is None:
            carried = [
                (carried_name.removesuffix(b"="), carried_value)
                for carried_name, carried_value in cookies_of(request, rules).counted
            ]
        if [(name, value)] != [pair for pair in carried if pair[0] == name]:
            return True
        if _deletes(attributes, response):
            return True
    return False


def changes_carried(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Tell whether the response changes or takes a cookie of the request that may be a login.

    For requests without a session, whose cookies are flags mostly: a flag more or less is another
    owner by itself, and must not take away what all visitors with the old one have in common.
    """
    carried = {
        name.removesuffix(b"="): value for name, value in cookies_of(request, rules).counted
    }
    safe = request.method in (b"GET", b"HEAD")
    for name, value, attributes in cookies_set(response):
        before = carried.get(name)
        if before is None:
            continue
        secret = rules.cookie_kinds[name] in (SESSION, LIKELY, CREDENTIAL)
        if not secret and not may_be_secret(SESSION, before.strip(b'"')):
            continue
        if before != value or not safe or _deletes(attributes, response):
            return True
    return False


def marks_set(response: ResponseHead, rules: OwnerRules) -> tuple[int, ...]:
    """Return the marks of the sessions and credentials that an answer sets."""
    return marks_of([
        cookie.value for cookie in cookies_set(response)
        if rules.cookie_kinds[cookie.name] in (SESSION, LIKELY, CREDENTIAL)
    ])  # fmt: skip


def _deletes(attributes: bytes, response: ResponseHead) -> bool:
    """Tell whether a cookie with these attributes is gone at once (RFC 6265 section 5.2)."""
    if attributes.count(b";") >= SET_COOKIE_ATTRIBUTES_MAX:
        return True
    for attribute in attributes.split(b";"):
        name, _, value = attribute.partition(b"=")
        match name.strip(b" \t").lower():
            case b"max-age":
                if not value.strip(b' \t"').lstrip(b"0").isdigit():
                    return True     # zero, negative, or not a number
            case b"expires":
                expires = parse_http_date(value.strip(b" \t"))
                date = parse_http_date(response.first(b"date") or b"")
                if expires is None or date is None or expires <= date:
                    return True
            case _:
                pass
    return False
