"""The identity of a request, and what may be done with its response.

Everything here is derived from one request head and is remembered with it, so a head that was
seen before costs nothing. Who asks is owner.py, what is asked for target.py; where answers are kept
is store.py.

A GET with Range is looked up but never stored: its own answer is a part (206), but the stored
whole can give any part of it (conditional.py) when the application cannot answer. A GET with a
body or an Upgrade is neither. A HEAD is forwarded, and answered with the stored head of the GET
where the application fails it; every other method is always the application's.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urljoin, urlsplit

from retter.base.limits import SET_COOKIES_MAX
from retter.http.cache_control import parse_cache_control, shared_may_store
from retter.http.message import Framing, RequestHead, ResponseHead
from retter.store.owner import OWNER_BYTES, OwnerClass, OwnerRules, Rolling, owner_of
from retter.store.personal import sets_cookie
from retter.store.set_cookie import changes_carried, sets_session
from retter.store.target import RouteOf, Target, no_route, stored_url, target_of

__all__ = [
    "Identity",
    "OwnerClass",
    "OwnerRules",
    "RouteOf",
    "StorePolicy",
    "ends_session",
    "identified",
    "identify",
    "invalidated_urls",
    "key_of",
    "key_parts",
    "sets_session",
    "storable",
]

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
    identity = identified(request, target_of(request, rules, route_of), rules, limit_head, apart)
    return identity.kept_out() if kept_out else identity


def identified(
    request: RequestHead, target: Target, rules: OwnerRules, limit_head: bool, apart: bytes
) -> Identity:
    """Do the same for a request whose target is known."""
    who = owner_of(request, target.sessions, rules)
    owner, url = who.digest, target.url
    stands_in = (
        target.may_be_answered
        and request.framing is _NO_BODY
        and not request.upgrade
        and who.owner_class is not _UNREAD
    )
    is_get = stands_in and target.method == b"GET"
    return Identity(
        owner,
        who.owner_class,
        url,
        b"@" + owner + url if owner else b"*" + url,  # key_of
        b"*" + url if who.anonymous else None,
        target.route,
        is_get or (stands_in and limit_head),
        is_get and not (request.conditional and request.first(b"range") is not None),
        request.variant_key + who.variant_key + apart,
        who.session,
        stands_in,
        who.marks,
        who.rolling,
        target.asked,
    )


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
    urls = [stored_url(request.host, request.target, rules)]
    if not response.names_place:
        return tuple(urls)
    for name in (b"location", b"content-location"):
        if location := response.first(name):
            target = _same_host_target(request, location)
            if target is not None:
                urls.append(stored_url(request.host, target, rules))
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
