"""The identity of a request, and what may be done with its response.

Everything here is derived from one request head and is remembered with it, so a head that was
seen before costs nothing. owner.py determines who sent the request, target.py what it requests.
store.py keeps the responses.

A GET with Range is looked up but never stored. Its own response is a part (206), but any part can
be made from a complete stored response (conditional.py) when the application cannot answer. A GET
with a body or an Upgrade is neither looked up nor stored. A HEAD is forwarded; if the application
fails, it is answered with the stored head of the GET. Requests with other methods are always
forwarded to the application.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from urllib.parse import urljoin, urlsplit

from retter.base.limits import SET_COOKIES_MAX
from retter.http.cache_control import parse_cache_control, shared_may_store
from retter.http.message import Framing, RequestHead, ResponseHead
from retter.store.owner import OWNER_BYTES, OwnerClass, OwnerRules, Rolling, owner_of
from retter.store.personal import sets_cookie
from retter.store.set_cookie import carries_secret, changes_carried, sets_session
from retter.store.target import (
    RouteOf,
    Target,
    changes_person,
    ends_login,
    ends_one_session,
    no_route,
    stored_url,
    target_of,
)

__all__ = [
    "Identity",
    "OwnerClass",
    "OwnerRules",
    "RouteOf",
    "StorePolicy",
    "asks_for_change",
    "ends_session",
    "identified",
    "identify",
    "invalidated_urls",
    "is_of_one",
    "key_of",
    "key_parts",
    "sets_session",
    "storable",
]

# Plain names for speed: access to an attribute of an Enum class costs as much as a call.
_UNREAD: Final = OwnerClass.UNREAD
_NO_BODY: Final = Framing.NONE


class StorePolicy(StrEnum):
    """Whether the rules for shared caches apply to responses."""

    ALL = "all"  # the operator owns the application: RFC 9111 section 4.2.4's contract
    RFC9111 = "rfc9111"  # a shared cache


@dataclass(slots=True, init=False)
class Identity:
    """The facts about a request for the store and the breaker. Immutable: `identify` makes it."""

    owner: bytes  # b"" is everyone, else OWNER_BYTES of a keyed hash
    owner_class: OwnerClass  # the word shown in logs
    url: bytes  # host (lower case) and target, made coarser by the rules
    key: bytes  # this owner's key for this URL
    public_key: bytes | None  # everyone's key, if everyone's response may be used instead
    route: bytes  # for the breaker
    lookup: bool  # may be answered from the store
    store: bool  # its response may be stored
    variant_key: bytes  # separates variants under one key; usually b""
    session: bool  # the request carries a session
    stands_in: bool  # may be answered from the store if the application fails
    marks: tuple[int, ...]  # marks of its sessions (owner.py)
    rolling: Rolling | None  # its session's cookie changes with the responses
    asked: int  # hash of the exact host and target if the rules make `url` coarser, else 0

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
        """The keys to read for this URL, each up to a generation; the nearest lineage first."""
        if self.rolling is None:
            return ((self.key, 0),)
        earlier = [(key_of(owner, self.url), until) for owner, until in self.rolling.earlier]
        return ((self.key, self.rolling.generation), *earlier)

    @property
    def owners(self) -> tuple[bytes, ...]:
        """This owner, and the earlier owners whose responses it reads."""
        if self.rolling is None:
            return (self.owner,)
        return (self.owner, *[owner for owner, _ in self.rolling.earlier])

    def kept_out(self) -> "Identity":
        """Return the identity with neither look-up nor storing allowed."""
        return replace(self, lookup=False, store=False, stands_in=False)

    def not_stored(self) -> "Identity":
        """Return the identity with storing not allowed."""
        return replace(self, store=False)


def key_of(owner: bytes, url: bytes) -> bytes:
    """Return the store key. Its first byte distinguishes an owner's key from everyone's."""
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
    """Derive the facts about a request that the store needs. Never raises.

    Args:
        limit_head: A HEAD may be answered from the store whenever a GET may (`--limit-head`).
        kept_out: The request is neither answered from the store nor is its response stored.
        apart: Responses to requests that differ in this value are variants.
    """
    identity = identified(request, target_of(request, rules, route_of), rules, limit_head, apart)
    return identity.kept_out() if kept_out else identity


def identified(
    request: RequestHead, target: Target, rules: OwnerRules, limit_head: bool, apart: bytes
) -> Identity:
    """Do the same as `identify` for a request whose target is known."""
    owner: bytes
    owner_class: OwnerClass
    session: bool
    anonymous: bool
    credential: bytes
    marks: tuple[int, ...]
    rolling: Rolling | None
    owner, owner_class, session, anonymous, credential, marks, rolling = owner_of(
        request, target.sessions, rules
    )
    form = request.form
    url = target.url or form.host.lower() + request.target
    stands_in = (
        target.may_be_answered
        and form.framing is _NO_BODY
        and not form.upgrade
        and owner_class is not _UNREAD
    )
    is_get = stands_in and target.method == b"GET"
    variant_key = request.variant_key
    if credential or apart:
        variant_key += credential + apart
    return Identity(
        owner,
        owner_class,
        url,
        b"@" + owner + url if owner else b"*" + url,  # key_of
        b"*" + url if anonymous else None,
        target.route,
        is_get or (stands_in and limit_head),
        is_get
        and target.may_be_stored
        and not (form.conditional and request.first(b"range") is not None),
        variant_key,
        session,
        stands_in,
        marks,
        rolling,
        target.asked,
    )


def storable(
    identity: Identity,
    request: RequestHead,
    response: ResponseHead,
    policy: StorePolicy,
    rules: OwnerRules | None = None,
) -> bool:
    """Return whether the heads allow the response to be stored when it is complete.

    With `rules`, a response that begins or ends the session of the request is refused: it belongs
    neither to the session before it nor to the one after it.
    """
    if not identity.store or not _is_good(response.status) or response.event_stream:
        return False
    if response.first(b"vary") is not None and b"*" in response.combined(b"vary"):
        return False
    if len(response.set_cookies) > SET_COOKIES_MAX or response.clears_cookies:
        return False
    if rules is not None and response.set_cookies:
        if response.status >= 300 and sets_cookie(response, rules):
            return False  # a step of a login or an order: only for this visitor, and only now
        if ends_session(identity, request, response, rules):
            return False
    return policy is StorePolicy.ALL or _shared_storable(request, response)


def _is_good(status: int) -> bool:
    # A 206 is a part, a 304 has no body of its own, 204 and 205 are no page. None of them may
    # replace a stored page.
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
    """Return whether the owner's stored responses must all be dropped: a login or a logout."""
    if response.clears_cookies:
        return identity.session or identity.owner_class is OwnerClass.COOKIES
    if not response.set_cookies:
        return False
    if identity.session:
        return sets_session(request, response, rules, may_roll=may_roll(identity))
    return identity.owner_class is OwnerClass.COOKIES and changes_carried(request, response, rules)


def asks_for_change(identity: Identity, request: RequestHead, rules: OwnerRules) -> bool:
    """Return whether a request is named as a login or logout, and it is known who sent it.

    This is for requests that may change something. A token (RFC 6750) ends with a logout; that of
    a program may see the logins of many.
    """
    if not identity.owner:
        return False
    if not changes_person(request.target) and (
        request.method != b"DELETE" or not ends_one_session(request.target)
    ):
        return False
    if is_of_one(identity, request, rules):
        return True
    scheme = (request.first(b"authorization") or b"").partition(b" ")[0].lower()
    return scheme == b"bearer" and ends_login(request.target)


def is_of_one(identity: Identity, request: RequestHead, rules: OwnerRules) -> bool:
    """Return whether the cookies of a request are one visitor's. A shared flag is nobody's."""
    return identity.session or (
        identity.owner_class is OwnerClass.COOKIES and carries_secret(request, rules)
    )


def may_roll(identity: Identity) -> bool:
    """Return whether a response may set a new value of the same session. A logout may not."""
    return identity.stands_in


def invalidated_urls(
    request: RequestHead, response: ResponseHead, rules: OwnerRules
) -> tuple[bytes, ...]:
    """Return the URLs whose stored responses this response invalidates (RFC 9111 section 4.4).

    A non-error response to an unsafe method invalidates the target, and the URLs in its Location
    and Content-Location if they are on the same host. The result is empty for any other response.
    """
    if request.method in (b"GET", b"HEAD", b"OPTIONS", b"TRACE"):
        return ()
    if not 200 <= response.status < 400:
        return ()
    urls = [stored_url(request.form.host, request.target, rules)]
    if not response.names_place:
        return tuple(urls)
    for name in (b"location", b"content-location"):
        if location := response.first(name):
            target = _same_host_target(request, location)
            if target is not None:
                urls.append(stored_url(request.form.host, target, rules))
    return tuple(dict.fromkeys(urls))


def _same_host_target(request: RequestHead, location: bytes) -> bytes | None:
    base = "http://" + request.host.decode("latin-1") + request.target.decode("latin-1")
    try:
        place = urlsplit(urljoin(base, location.decode("latin-1")))
    except ValueError:  # such as "Invalid IPv6 URL": it is no URL of this host
        return None
    if place.scheme not in ("http", "https"):
        return None
    here = request.host.decode("latin-1").lower()
    if _without_port(place.netloc.lower()) != _without_port(here):
        return None
    target = (place.path or "/") + ("?" + place.query if place.query else "")
    return target.encode("latin-1")


def _without_port(authority: str) -> str:
    # http and https are the same site here; other ports are other sites.
    return authority.removesuffix(":80").removesuffix(":443")
