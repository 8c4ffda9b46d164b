"""The identity of a request, and what may be done with its response.

Everything here is derived from one request head and is remembered with it, so a head that was
seen before costs nothing. Who asks is owner.py; where answers are kept is store.py.

A GET with Range is looked up but never stored: its own answer is a part (206), but the stored
whole can give any part of it (conditional.py) when the application cannot answer. A GET with a
body or an Upgrade is neither. A HEAD is forwarded, and answered with the stored head of the GET
where the application fails it; every other method is always the application's.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from urllib.parse import urljoin, urlsplit

from retter.base.limits import PARAMETER_ESCAPES_MAX, PARAMETERS_MAX, SET_COOKIES_MAX
from retter.http.cache_control import parse_cache_control, shared_may_store
from retter.http.message import (
    QUESTION_MARK,
    SEMICOLON,
    SLASH,
    Framing,
    RequestHead,
    ResponseHead,
)
from retter.store.owner import OWNER_BYTES, OwnerClass, OwnerRules, Rolling, owner_of
from retter.store.personal import carries_nonce, sets_cookie
from retter.store.set_cookie import changes_carried, sets_session

__all__ = [
    "Identity",
    "OwnerClass",
    "OwnerRules",
    "RouteOf",
    "StorePolicy",
    "ends_session",
    "identify",
    "invalidated_urls",
    "key_of",
    "key_parts",
    "sets_session",
    "storable",
    "stored_url",
]

RouteOf = Callable[[RequestHead], bytes]

# An attribute of an Enum class costs as much as a call.
_UNREAD, _NO_BODY = OwnerClass.UNREAD, Framing.NONE


class StorePolicy(StrEnum):
    """Whether what the response says about shared caches counts."""

    ALL = "all"  # the operator owns the application: RFC 9111 section 4.2.4's contract
    RFC9111 = "rfc9111"  # a shared cache


@dataclass(slots=True, init=False)
class Identity:
    """The facts about a request for store and breaker. Immutable: `identify` makes it."""

    owner: bytes  # b"" is everyone, else OWNER_BYTES of a keyed hash
    owner_class: OwnerClass  # the word shown in logs
    url: bytes  # host (lower case) and target, made coarser by the rules
    key: bytes  # this owner's key of this URL
    public_key: bytes | None  # everyone's, if their answer may stand in for this owner's
    route: bytes  # for the breaker
    lookup: bool  # may be answered from the store
    store: bool  # its answer may be stored
    variant_key: bytes  # separates variants under one key; b"" mostly
    session: bool  # the request carries a session
    stands_in: bool  # may be answered from the store where the application fails
    marks: tuple[int, ...]  # of its sessions (owner.py)
    rolling: Rolling | None  # its session's cookie changes with the answers
    asked: int  # a hash of host and target where the rules make `url` coarser than they are, else 0

    def __init__(
        self,
        owner: bytes,
        owner_class: OwnerClass,
        url: bytes,
        key: bytes,
        public_key: bytes | None,
        route: bytes,
        lookup: bool,
        store: bool,
        variant_key: bytes,
        session: bool,
        stands_in: bool,
        marks: tuple[int, ...] = (),
        rolling: Rolling | None = None,
        asked: int = 0,
    ) -> None:
        self.owner = owner
        self.owner_class = owner_class
        self.url = url
        self.key = key
        self.public_key = public_key
        self.route = route
        self.lookup = lookup
        self.store = store
        self.variant_key = variant_key
        self.session = session
        self.stands_in = stands_in
        self.marks = marks
        self.rolling = rolling
        self.asked = asked

    @property
    def readable(self) -> tuple[tuple[bytes, int], ...]:
        """The keys of this owner's answers to this URL, each up to a generation; nearest first."""
        if self.rolling is None:
            return ((self.key, 0),)
        earlier = [(key_of(owner, self.url), until) for owner, until in self.rolling.earlier]
        return ((self.key, self.rolling.generation), *earlier)

    @property
    def owners(self) -> tuple[bytes, ...]:
        """This owner, and those of before whose answers it reads."""
        if self.rolling is None:
            return (self.owner,)
        return (self.owner, *[owner for owner, _ in self.rolling.earlier])

    def kept_out(self) -> "Identity":
        """Return it without anything that the store may do with the request."""
        return replace(self, lookup=False, store=False, stands_in=False)

    def not_stored(self) -> "Identity":
        """Return it for a request whose answer must not be stored."""
        return replace(self, store=False)


def key_of(owner: bytes, url: bytes) -> bytes:
    """Return the store key. Its first byte tells the two kinds apart."""
    return b"@%b%b" % (owner, url) if owner else b"*" + url


def key_parts(key: bytes) -> tuple[bytes, bytes]:
    """Return the owner and the URL of a key."""
    if key[:1] == b"*":
        return b"", key[1:]
    return key[1 : 1 + OWNER_BYTES], key[1 + OWNER_BYTES :]


def url_at(key: bytes) -> int:
    """Return where the URL begins in a key."""
    return 1 if key.startswith(b"*") else 1 + OWNER_BYTES


def no_route(request: RequestHead) -> bytes:
    """Put every request on one route."""
    return b""


def identify(
    request: RequestHead,
    rules: OwnerRules,
    route_of: RouteOf = no_route,
    *,
    limit_head: bool = False,
    kept_out: bool = False,
    apart: bytes = b"",
) -> Identity:
    """Derive what the store needs to know of a request. Never raises.

    Args:
        limit_head: A HEAD may be answered from the store whenever a GET may (`--limit-head`).
        kept_out: The store is to have nothing to do with it.
        apart: Answers to requests that differ in this are variants.
    """
    target, host = request.target, request.host
    sessions: list[bytes] | None = []
    if QUESTION_MARK in target or SEMICOLON in target:
        sessions = url_sessions(target, rules)
    who = owner_of(request, sessions, rules)
    owner = who.digest
    url = _url(host, target, rules)
    method = request.method
    stands_in = (
        (method == b"GET" or method == b"HEAD")
        and not kept_out
        and request.framing is _NO_BODY
        and not request.upgrade
        # A host with a slash would make two URLs of one.
        and SLASH not in host
        and who.owner_class is not _UNREAD
        and not changes_something(target, rules)
    )
    is_get = stands_in and method == b"GET"
    return Identity(
        owner,
        who.owner_class,
        url,
        b"@" + owner + url if owner else b"*" + url,  # key_of
        b"*" + url if who.anonymous else None,
        route_of(request),
        is_get or (stands_in and limit_head),
        is_get and not (request.conditional and request.first(b"range") is not None),
        request.variant_key + who.variant_key + apart,
        who.session,
        stands_in,
        who.marks,
        who.rolling,
        _asked(host, target, url)
        if rules.ignore_host or rules.ignore_query or rules.ignore_params
        else 0,
    )


_LOGOUTS: Final = frozenset((b"logout", b"log-out", b"logoff", b"signout", b"sign-out"))
_logout_segment: Final = re.compile(
    b"/(?:" + b"|".join(sorted(_LOGOUTS)) + rb")(?=[/.;]|\Z)"
).search


def changes_something(target: bytes, rules: OwnerRules) -> bool:
    """Return whether a GET of this target does more than to ask, so that no copy may stand in.

    A logout does: a stored goodbye would leave the session alive. So does what carries a token
    that works once, and what the operator names (`--never-store`).
    """
    lower = target.lower()
    if lower.find(b"log") >= 0 or lower.find(b"sign") >= 0:  # half the price of `in`
        path, _, query = lower.partition(b"?")
        if _names_logout(path, query):
            return True
    if QUESTION_MARK in lower and carries_nonce(lower.partition(b"?")[2]):
        return True
    return bool(rules.never_store) and bool(rules.is_never_stored(target))


def _names_logout(path: bytes, query: bytes) -> bool:
    if _logout_segment(path):
        return True
    words: list[bytes] = []
    for param in query.replace(b";", b"&").split(b"&"):
        name, _, value = param.partition(b"=")
        words += (name, value)
    return not _LOGOUTS.isdisjoint(words)


def _too_many_parameters(target: bytes) -> bool:
    return target.count(b"&") + target.count(b";") + 1 > PARAMETERS_MAX


def url_sessions(target: bytes, rules: OwnerRules) -> list[bytes] | None:
    """Find sessions in the path parameters (;jsessionid=...) and in the query (?PHPSESSID=...).

    Returns:
        The parameters that are sessions; None if there are more parameters than are read.
    """
    if len(target) > PARAMETERS_MAX and _too_many_parameters(target):
        return None
    path, _, query = target.partition(b"?")
    if SEMICOLON not in target:
        params = query.split(b"&")
    else:
        params = query.replace(b";", b"&").split(b"&")
        params += [param.partition(b"/")[0] for param in path.split(b";")[1:]]
    if len(target) > PARAMETER_ESCAPES_MAX and _too_many_escapes(params):
        return None
    is_session = rules.param_is_session
    return [param for param in params if is_session[param.partition(b"=")[0]]]


def _too_many_escapes(params: list[bytes]) -> bool:
    names = [param.partition(b"=")[0] for param in params]
    return sum([name.count(b"%") for name in names]) > PARAMETER_ESCAPES_MAX


def _url(host: bytes, target: bytes, rules: OwnerRules) -> bytes:
    if rules.ignore_query or rules.ignore_params:
        path, mark, query = target.partition(b"?")
        if rules.ignore_query or not mark:
            target = path
        elif not _too_many_parameters(target):
            ignored = rules.param_is_ignored
            kept = [p for p in query.split(b"&") if not ignored(p.partition(b"=")[0])]
            target = path + b"?" + b"&".join(kept) if kept else path
    return target if rules.ignore_host else host.lower() + target


def _asked(host: bytes, target: bytes, url: bytes) -> int:
    exactly = host.lower() + target
    return 0 if exactly == url else hash(exactly)


def stored_url(host: bytes, target: bytes, rules: OwnerRules) -> bytes:
    """Return a URL as it stands in a key: host and target, made coarser by the rules."""
    return _url(host, target, rules)


def storable(
    identity: Identity,
    request: RequestHead,
    response: ResponseHead,
    policy: StorePolicy,
    rules: OwnerRules | None = None,
) -> bool:
    """Return whether the heads allow to store the response once it has arrived whole.

    With `rules`, an answer that begins or ends the session which the request carried is refused:
    it belongs to neither the session before nor the one after.
    """
    if not identity.store or not _is_good(response.status) or response.event_stream:
        return False
    if response.first(b"vary") is not None and b"*" in response.combined(b"vary"):
        return False
    if len(response.set_cookies) > SET_COOKIES_MAX:
        return False
    if rules is not None and response.set_cookies:
        if response.status >= 300 and sets_cookie(response, rules):
            return False  # a step of a login, of a shop: it is for this visitor, and now
        if ends_session(identity, request, response, rules):
            return False
    return policy is StorePolicy.ALL or _shared_storable(request, response)


def _is_good(status: int) -> bool:
    # 206 is a part, 304 has no body of its own, 204 and 205 are no page: none may replace one.
    return 200 <= status < 400 and status not in (204, 205, 206, 304)


def _shared_storable(request: RequestHead, response: ResponseHead) -> bool:
    if parse_cache_control(request.combined(b"cache-control")).no_store:
        return False  # RFC 9111 section 5.2.1.5
    return shared_may_store(
        response.status,
        parse_cache_control(response.combined(b"cache-control")),
        authorization=request.first(b"authorization") is not None,
        has_expires=response.first(b"expires") is not None,
    )


def ends_session(
    identity: Identity, request: RequestHead, response: ResponseHead, rules: OwnerRules
) -> bool:
    """Return whether all that is stored for who asks must be dropped: a login or a logout."""
    if not response.set_cookies:
        return False
    if identity.session:
        return sets_session(request, response, rules, may_roll=may_roll(identity))
    return identity.owner_class is OwnerClass.COOKIES and changes_carried(request, response, rules)


def may_roll(identity: Identity) -> bool:
    """Return whether an answer may give another value of the same session: not to a logout, say."""
    return identity.stands_in


def invalidated_urls(
    request: RequestHead, response: ResponseHead, rules: OwnerRules
) -> tuple[bytes, ...]:
    """Return the URLs whose stored responses this answer has made old (RFC 9111 section 4.4).

    A non-error answer to an unsafe method invalidates the target, and the Location and
    Content-Location that it names if they are on the same host. Empty for anything else.
    """
    if request.method in (b"GET", b"HEAD", b"OPTIONS", b"TRACE"):
        return ()
    if not 200 <= response.status < 400:
        return ()
    urls = [_url(request.host, request.target, rules)]
    for name in (b"location", b"content-location"):
        if location := response.first(name):
            target = _same_host_target(request, location)
            if target is not None:
                urls.append(_url(request.host, target, rules))
    return tuple(dict.fromkeys(urls))


def _same_host_target(request: RequestHead, location: bytes) -> bytes | None:
    base = "http://" + request.host.decode("latin-1") + request.target.decode("latin-1")
    try:
        place = urlsplit(urljoin(base, location.decode("latin-1")))
    except ValueError:  # "Invalid IPv6 URL" and its like: it names nothing of ours
        return None
    if place.scheme not in ("http", "https"):
        return None
    here = request.host.decode("latin-1").lower()
    if _without_port(place.netloc.lower()) != _without_port(here):
        return None
    target = (place.path or "/") + ("?" + place.query if place.query else "")
    return target.encode("latin-1")


def _without_port(authority: str) -> str:
    # http and https are one site here; other ports are other sites.
    return authority.removesuffix(":80").removesuffix(":443")
