"""Sessions in the Set-Cookie of a response: which begin, which end, and whose they were.

After a login or a logout, all stored responses of the session are dropped, under each of its
cookies: WordPress over https identifies people by two cookies, and a logout has one of them.
`learn` is called for every response that sets a cookie. All other functions change nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

from retter.base.limits import SET_COOKIE_ATTRIBUTES_MAX
from retter.http.cookies import (
    CREDENTIAL,
    CSRF,
    IGNORABLE,
    LIKELY,
    NO_COOKIES,
    OTHER,
    SESSION,
    Cookies,
    is_plain_value,
    may_be_secret,
    read_cookies,
    too_many_cookies,
)
from retter.http.dates import parse_cookie_date, parse_http_date
from retter.http.message import RequestHead, ResponseHead
from retter.store.lineage import signed_payload
from retter.store.owner import OwnerRules, marks_of, session_digest


class SetCookie(NamedTuple):
    """One Set-Cookie line."""

    name: bytes
    value: bytes
    attributes: bytes


def cookies_set(response: ResponseHead) -> Iterator[SetCookie]:
    """Read the Set-Cookie lines of a response."""
    for line in response.set_cookies:
        pair, _, attributes = line.partition(b";")
        name, _, value = pair.partition(b"=")
        yield SetCookie(name.strip(b" \t"), value.strip(b" \t"), attributes)


def cookies_of(request: RequestHead, rules: OwnerRules) -> Cookies:
    """Read the cookies of a request."""
    lines = [value for name, value in request.fields if name == b"cookie"]
    if not lines or too_many_cookies(lines):
        return NO_COOKIES
    return read_cookies(lines, rules.cookie_kinds.__getitem__)


def learn(
    request: RequestHead,
    response: ResponseHead,
    rules: OwnerRules,
    now: float = 0.0,
    *,
    may_roll: bool = False,
) -> bool:
    """Note the sessions that a response begins.

    Args:
        may_roll: A new value may continue the session of the request, because the request is no
            login or logout.

    Returns:
        Whether the owners of other requests may change by that. In this case, the caller must
        forget all owners that were computed from Cookie lines before.
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
        rules.seen.known.given(rules.mark(cookie.value))
        carried = cookies_of(request, rules).sessions
        if (cookie.name, cookie.value) in carried:
            continue
        key = session_digest(cookie.name, cookie.value, rules)
        before = _rolled_from(request, response, cookie, carried, rules) if may_roll else None
        if before is not None:
            if not rules.lineages.inherit(before, key, now):
                changed |= rules.seen.issued(key) | rules.seen.issued(key)
            continue
        changed |= rules.seen.issued(key)
        if key not in rules.seen.shared and (
            rules.is_rolling(cookie.name) or signed_payload(cookie.value) is not None
        ):
            changed |= cookie.name not in rules.lineages.names
            rules.lineages.begin(cookie.name, key, now)
    return changed


def _rolled_from(
    request: RequestHead,
    response: ResponseHead,
    cookie: SetCookie,
    carried: list[tuple[bytes, bytes]],
    rules: OwnerRules,
) -> bytes | None:
    """Return the session value that this one replaces, if it is still the same session.

    A signed session is the same if its payload is the same as before. An encrypted one cannot be
    compared. It counts as the same if the operator says so (`--rolling-cookies`), and only in a
    page. In both cases, the old value must have been set by the application itself: an invented
    value has no heirs.
    """
    if request.method not in (b"GET", b"HEAD") or _deletes(cookie.attributes, response):
        return None
    values = [value for name, value in carried if name == cookie.name]
    if len(values) != 1 or values[0] == cookie.value:
        return None
    kind = rules.cookie_kinds[cookie.name]
    if not may_be_secret(kind, cookie.value.strip(b'"')) or not is_plain_value(cookie.value):
        return None
    payload = signed_payload(cookie.value)
    same = payload is not None and payload == signed_payload(values[0])
    if not same and not (rules.is_rolling(cookie.name) and response.status == 200):
        return None
    key = session_digest(cookie.name, values[0], rules)
    return key if key in rules.lineages and key not in rules.seen.shared else None


def sets_session(
    request: RequestHead, response: ResponseHead, rules: OwnerRules, *, may_roll: bool = False
) -> bool:
    """Return whether the response begins or ends a session: a login, a logout, a new session id.

    This is true for any Set-Cookie of a session or of a cookie that looks like a credential. There
    is one exception: the response to a safe request may set the same value as in the request. This
    only extends the lifetime of the session, as some frameworks do with every response. Of other
    cookies, it is true if the visitor loses a value that may be a secret (`_loses_secret`). In the
    response to an unsafe request, every cookie counts that is neither ignorable nor for forms: a
    login may use any of them to identify somebody.

    Args:
        may_roll: A new value may continue the session of the request (lineage.py).
    """
    if not response.set_cookies:
        return False
    if request.method not in (b"GET", b"HEAD"):
        return any(
            rules.cookie_kinds[cookie.name] not in (IGNORABLE, CSRF)
            for cookie in cookies_set(response)
        )
    carried: list[tuple[bytes, bytes]] | None = None
    for cookie in cookies_set(response):
        name, value, attributes = cookie
        kind = rules.cookie_kinds[name]
        if kind is IGNORABLE or kind is CSRF:
            continue
        if carried is None:
            carried = [
                (carried_name.removesuffix(b"="), carried_value)
                for carried_name, carried_value in cookies_of(request, rules).counted
            ]
        if kind is OTHER:
            if _loses_secret(cookie, carried, response):
                return True
            continue
        if may_roll and _rolled_from(request, response, cookie, carried, rules) is not None:
            continue
        if [(name, value)] != [pair for pair in carried if pair[0] == name]:
            return True
        if _deletes(attributes, response):
            return True
    return False


def _loses_secret(
    cookie: SetCookie, carried: list[tuple[bytes, bytes]], response: ResponseHead
) -> bool:
    """Return whether a response takes a value that may be a secret from its visitor.

    The login of a visitor may be in a cookie whose name says nothing, beside a session that stays.
    A logout deletes it, or sets a word (`LOGGEDOFF`); another login replaces it in a redirect, or
    gives one there, as the browser has forgotten the last one when its time was over. Pages may set
    another value for other reasons.
    """
    before = [
        value
        for name, value in carried
        if name == cookie.name and may_be_secret(SESSION, value.strip(b'"'))
    ]
    if cookie.value in before:
        return _deletes(cookie.attributes, response)
    if not before:
        given = may_be_secret(SESSION, cookie.value.strip(b'"'))
        return given and response.status >= 300 and not _deletes(cookie.attributes, response)
    return (
        response.status >= 300
        or not may_be_secret(SESSION, cookie.value.strip(b'"'))
        or _deletes(cookie.attributes, response)
    )


def changes_carried(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Return whether the response changes or deletes a cookie of the request that may be a login.

    This is for requests without a session, whose cookies are usually flags. If a flag changes, the
    owner changes anyway, and the responses that all visitors with the old flag share must not be
    dropped.
    """
    carried = {name.removesuffix(b"="): value for name, value in cookies_of(request, rules).counted}
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


def carries_secret(request: RequestHead, rules: OwnerRules) -> bool:
    """Return whether a request has a cookie of any name that may be somebody's session."""
    return any(
        may_be_secret(SESSION, value.strip(b'"')) for _, value in cookies_of(request, rules).counted
    )


def marks_set(response: ResponseHead, rules: OwnerRules) -> tuple[int, ...]:
    """Return the marks of the sessions and credentials that a response sets."""
    values = [
        cookie.value
        for cookie in cookies_set(response)
        if rules.cookie_kinds[cookie.name] in (SESSION, LIKELY, CREDENTIAL)
    ]
    return marks_of(values, rules)


def marks_given(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> tuple[int, ...]:
    """Return the marks of the sessions that a login gives to a visitor who had none.

    A session may be given again, such as by an application that has one for each person and not one
    for each browser. What is stored for it was made before this login.
    """
    if request.method in (b"GET", b"HEAD"):
        return ()
    return marks_set(response, rules)


def _deletes(attributes: bytes, response: ResponseHead) -> bool:
    """Return whether a cookie with these attributes is deleted at once (RFC 6265 section 5.2)."""
    if attributes.count(b";") >= SET_COOKIE_ATTRIBUTES_MAX:
        return True
    for attribute in attributes.split(b";"):
        name, _, value = attribute.partition(b"=")
        match name.strip(b" \t").lower():
            case b"max-age":
                if not value.strip(b' \t"').lstrip(b"0").isdigit():
                    return True  # zero, negative, or not a number
            case b"expires":
                expires = parse_cookie_date(value.strip(b' \t"'))
                date = parse_http_date(response.first(b"date") or b"")
                if expires is None or date is None or expires <= date:
                    return True
            case _:
                pass
    return False
