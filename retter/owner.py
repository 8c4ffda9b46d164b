"""Whose answer is it: everything in a request that could identify somebody, as one keyed hash.

A field or a cookie counts as an identity unless it is known not to be one (wellknown.py), so that
nothing that might be a credential is ever ignored by accident. Where a request is unclear (several
Cookie lines, odd quotes, a session value with a comma in it) all of its cookies count: that costs
a stored response, never somebody's page. What is made of the values is a hash under a secret.

This module knows who asks. What is asked, and what may be done with the answer, is policy.py.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from hashlib import blake2b
from struct import Struct
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from retter.httpdate import parse_http_date
from retter.limits import COOKIES_MAX, SET_COOKIE_ATTRIBUTES_MAX
from retter.memo import Memo
from retter.message import PERCENT, PLUS, QUOTE, RequestHead, ResponseHead
from retter.wellknown import (
    DEFAULT_SESSION_COOKIES,
    IGNORABLE_COOKIES,
    NEUTRAL_FIELDS,
    SHAPE_FIELDS,
)
from retter.wildcard import name_matcher

OWNER_BYTES: Final = 16          # 128 bits: nobody finds two requests with the same owner
SECRET_BYTES_MIN: Final = 16     # a shorter key could be guessed from a hash
SECRET_BYTES_MAX: Final = 64     # the longest key of blake2b
NAME_BYTES_REMEMBERED_MAX: Final = 64  # a name may be as long as a head: 64 MB of them, if kept
NAMES_REMEMBERED_MAX: Final = 1024  # a site has some dozen names; strangers may send any number
COOKIE_LINES_BYTES_MAX: Final = 512 * 1024  # some 1,000 visitors, as many as are active at a time
COOKIE_LINE_BYTES_REMEMBERED_MAX: Final = 1024  # longer ones are read anew each time
# A pattern (*_session) also matches flags (first_session=yes) that many visitors share. Session
# ids are longer: 24 characters (ASP) are the shortest of the frameworks whose names need a pattern.
LIKELY_SESSION_BYTES_MIN: Final = 24
# What is shorter is a flag (`deleted`), and would be found in any page.
SESSION_ID_BYTES_MIN: Final = 8

K = TypeVar("K")


class OwnerClass(StrEnum):
    """What makes the owner. This word is shown in logs, the owner itself never is."""

    EVERYONE = "everyone"        # nothing in the request identifies anybody
    SESSION = "session"          # a session cookie, or a session in the URL
    COOKIES = "cookies"          # other cookies
    CREDENTIAL = "credential"    # Authorization, or a field that is not known to be neutral
    UNREAD = "unread"            # more cookies or parameters than are read: nothing is stored


class FieldKind(Enum):
    """What a request field means for the owner; None is a neutral one: nothing."""

    SHAPE = "shape"
    FORWARDED = "forwarded"
    COOKIE = "cookie"
    CREDENTIAL = "credential"


class CookieKind(Enum):
    """What a cookie means for the owner."""

    SESSION = "session"          # by its full name
    LIKELY_SESSION = "likely"    # by a pattern
    IGNORABLE = "ignorable"
    OTHER = "other"


# The same as plain names: an attribute of an Enum class costs as much as a call.
_SESSION, _LIKELY, _OTHER = CookieKind.SESSION, CookieKind.LIKELY_SESSION, CookieKind.OTHER


@dataclass(slots=True, init=False)
class Owner:
    """For whom a request asks. Never changed: it is shared by all requests of one visitor."""

    digest: bytes                # b"" is everyone
    owner_class: OwnerClass
    session: bool                # the request carries a session
    anonymous: bool              # everyone's answer may stand in: cookies are all that it carries
    shape: bytes                 # what separates variants of one owner's URL; b"" mostly

    def __init__(
        self, digest: bytes, owner_class: OwnerClass, session: bool, anonymous: bool, shape: bytes
    ) -> None:
        self.digest = digest
        self.owner_class = owner_class
        self.session = session
        self.anonymous = anonymous
        self.shape = shape

    def with_shape(self, shape: bytes) -> "Owner":
        """Return the same one asking in another way."""
        return Owner(self.digest, self.owner_class, self.session, self.anonymous, shape)


class _Kinds(dict[bytes, K], Generic[K]):
    """A bounded memo of names: the kind of a known name is one dictionary access away."""

    def __init__(self, classify: Callable[[bytes], K]) -> None:
        super().__init__()
        self._classify = classify

    def __missing__(self, name: bytes) -> K:
        if len(name) > NAME_BYTES_REMEMBERED_MAX:
            return self._classify(name)
        if len(self) >= NAMES_REMEMBERED_MAX:
            self.clear()
        kind = self[name] = self._classify(name)
        return kind


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRules:
    """What identifies somebody, and what of a URL does not matter. Built once, never changed."""

    secret: bytes = field(repr=False)                     # random, of the process or of the store
    neutral_headers: tuple[bytes, ...] = ()               # added to the known ones; may end in *
    session_cookies: tuple[bytes, ...] = DEFAULT_SESSION_COOKIES
    ignore_cookies: tuple[bytes, ...] = ()                # added to the known ones
    ignore_host: bool = False
    ignore_query: bool = False
    ignore_params: tuple[bytes, ...] = ()
    anonymous_fallback: bool = True

    field_kinds: _Kinds[FieldKind | None] = field(init=False, repr=False, compare=False)
    cookie_kinds: _Kinds[CookieKind] = field(init=False, repr=False, compare=False)
    param_is_session: _Kinds[bool] = field(init=False, repr=False, compare=False)
    cookie_owners: Memo[Owner] = field(init=False, repr=False, compare=False)
    hasher: blake2b = field(init=False, repr=False, compare=False)
    param_is_ignored: Callable[[bytes], object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not SECRET_BYTES_MIN <= len(self.secret) <= SECRET_BYTES_MAX:
            raise ValueError(f"the secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")
        fill = object.__setattr__   # a frozen dataclass's own way to set what it derives
        fill(self, "field_kinds", _Kinds(_field_classifier(self)))
        fill(self, "cookie_kinds", _Kinds(_cookie_classifier(self)))
        fill(self, "param_is_session", _Kinds(_session_param_classifier(self)))
        fill(self, "cookie_owners", Memo[Owner](
            COOKIE_LINES_BYTES_MAX, cost_per_byte=2, entry_bytes=300,
            key_bytes_max=COOKIE_LINE_BYTES_REMEMBERED_MAX,
        ))
        fill(self, "hasher", blake2b(key=self.secret, digest_size=OWNER_BYTES))
        fill(self, "param_is_ignored", name_matcher(self.ignore_params))


def tells_more_apart(rules: OwnerRules, before: OwnerRules) -> bool:
    """Tell whether some requests that were one owner's, or for one URL, are not so any more."""
    return (
        before.ignore_host > rules.ignore_host
        or before.ignore_query > rules.ignore_query
        or not set(before.ignore_params).issubset(rules.ignore_params)
        or not set(before.ignore_cookies).issubset(rules.ignore_cookies)
        or not set(before.neutral_headers).issubset(rules.neutral_headers)
        or not set(rules.session_cookies).issubset(before.session_cookies)
    )


def _field_classifier(rules: OwnerRules) -> Callable[[bytes], FieldKind | None]:
    is_shape = frozenset(SHAPE_FIELDS).__contains__
    is_neutral = name_matcher((*NEUTRAL_FIELDS, *map(bytes.lower, rules.neutral_headers)))

    def classify(name: bytes) -> FieldKind | None:
        if name == b"cookie":
            return FieldKind.COOKIE
        if name == b"forwarded":
            return FieldKind.FORWARDED
        if is_shape(name):
            return FieldKind.SHAPE
        return None if is_neutral(name) else FieldKind.CREDENTIAL

    return classify


def _cookie_classifier(rules: OwnerRules) -> Callable[[bytes], CookieKind]:
    is_session = name_matcher(rules.session_cookies)
    known_ignorable = name_matcher(IGNORABLE_COOKIES)
    told_ignorable = name_matcher(rules.ignore_cookies)

    def classify(name: bytes) -> CookieKind:
        name = name.strip(b" \t")
        # A browser keeps these prefixes in the name; they say how the cookie was set.
        plain = name.removeprefix(b"__Host-").removeprefix(b"__Secure-")
        if plain in rules.session_cookies or name in rules.session_cookies:
            return CookieKind.SESSION
        if is_session(plain) or is_session(name):
            # A pattern may catch an analytics cookie (*_session: _parsely_session). As a session
            # it would hide the true one, ignored it might be the true one: it counts as any other.
            return CookieKind.OTHER if known_ignorable(name) else CookieKind.LIKELY_SESSION
        if known_ignorable(name) or told_ignorable(name):
            return CookieKind.IGNORABLE
        return CookieKind.OTHER

    return classify


def _session_param_classifier(rules: OwnerRules) -> Callable[[bytes], bool]:
    is_session = name_matcher(map(bytes.lower, rules.session_cookies))

    def classify(name: bytes) -> bool:
        # As the frameworks read it: decoded, leading blanks dropped (PHP), in any case (servlets).
        if PERCENT in name or PLUS in name:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        return is_session(name.lstrip().lower())

    return classify


# RFC 6265 section 4.1.1: cookie-octets. Anything else in a value that decides (a comma, a quote, a
# blank) is read as the end of the cookie by some application.
_PLAIN_OCTETS = rb"[!#-+\--:<-\[\]-~]*"
_is_plain_value = re.compile(rb"\"" + _PLAIN_OCTETS + rb"\"|" + _PLAIN_OCTETS).fullmatch

# What applications leave in a session cookie that they have deleted, or use as a mere flag. Such a
# value is nobody's secret: two visitors may both carry it.
_NOT_A_SESSION: Final = frozenset((
    b"", b"0", b"1", b"-", b"-1", b"deleted", b"delete", b"expired", b"empty", b"none", b"null",
    b"nil", b"undefined", b"true", b"false", b"yes", b"no", b"on", b"off",
))


class _Cookies(NamedTuple):
    sessions: list[tuple[bytes, bytes]]
    others: list[tuple[bytes, bytes]]
    unclear: bool


_NO_COOKIES: Final = _Cookies([], [], False)


def _read_cookies(lines: list[bytes], rules: OwnerRules) -> _Cookies:
    sessions: list[tuple[bytes, bytes]] = []
    others: list[tuple[bytes, bytes]] = []
    unclear = len(lines) != 1       # RFC 6265 section 5.4: a user agent sends one Cookie line
    kinds = rules.cookie_kinds
    for piece in (lines[0] if len(lines) == 1 else b";".join(lines)).split(b";"):
        name, equals, value = piece.strip(b" \t").partition(b"=")
        name = name.rstrip(b" \t")
        if QUOTE in value and value.count(b'"') & 1:
            unclear = True          # a quoted string that goes on after the semicolon?
        kind = kinds[name] if equals else _OTHER
        if kind is _SESSION or kind is _LIKELY:  # as in `_owner_by_session`
            too_short = kind is _LIKELY and len(value) < LIKELY_SESSION_BYTES_MIN
            if too_short or value.strip(b'"').lower() in _NOT_A_SESSION:
                others.append((name + equals, value))
            else:
                unclear = unclear or not _is_plain_value(value)
                sessions.append((name, value))
        elif kind is _OTHER:
            if name or equals:      # else nothing stands between two semicolons
                others.append((name + equals, value))
        elif not _is_plain_value(value):
            others.append((name + equals, value))
    return _Cookies(sessions, others, unclear)


_lengths = Struct(">II").pack


def _digest(rules: OwnerRules, parts: Iterable[tuple[bytes, bytes, bytes]]) -> bytes:
    # Lengths first, so that no two lists of parts are the same bytes.
    pieces = [
        piece
        for tag, name, value in parts
        for piece in (tag, _lengths(len(name), len(value)), name, value)
    ]
    hasher = rules.hasher.copy()    # half the price of a new one with a key
    hasher.update(b"".join(pieces))
    return hasher.digest()


_EVERYONE: Final = Owner(b"", OwnerClass.EVERYONE, False, False, b"")

_FORWARDED_SHAPE = re.compile(rb"(?:proto|host)=(?:\"[^\"]*\"|[^;,\s]*)", re.IGNORECASE)


def owner_of(
    request: RequestHead, url_sessions: list[bytes] | None, rules: OwnerRules
) -> Owner:
    """Return for whom this request asks.

    `url_sessions` are the sessions that stand in the URL, as `name=value`: they count as session
    cookies do, except that nothing public may stand in for them. None: there may be some among
    more parameters than are read.
    """
    telling = request.telling
    if url_sessions is None:
        return _unread_owner([request.target], rules)
    if not url_sessions:
        if not telling:
            return _EVERYONE
        if len(telling) == 1 and telling[0][0] == b"cookie":  # a browser with a cookie, mostly
            return _owner_of_cookies(telling[0][1], rules)
    credentials: list[tuple[bytes, bytes]] = []
    cookie_lines: list[bytes] = []
    shape = b""
    kinds = rules.field_kinds
    for name, value in telling:
        kind = kinds[name]
        if kind is FieldKind.COOKIE:
            cookie_lines.append(value)
        elif kind is FieldKind.CREDENTIAL:
            credentials.append((name, value))
        elif kind is FieldKind.SHAPE:
            shape += b"%b: %b\n" % (name, value)
        elif kind is FieldKind.FORWARDED:
            # `for` differs from client to client, the rest says what was asked (RFC 7239).
            for said in _FORWARDED_SHAPE.findall(value):
                shape += b"forwarded: %b\n" % said
    if credentials or url_sessions or len(cookie_lines) > 1:
        return _owner(credentials, cookie_lines, url_sessions, shape, rules)
    if not cookie_lines:
        return _EVERYONE.with_shape(shape) if shape else _EVERYONE
    owner = _owner_of_cookies(cookie_lines[0], rules)
    return owner.with_shape(shape) if shape else owner


def _owner_of_cookies(line: bytes, rules: OwnerRules) -> Owner:
    # A browser sends one line with all that it fetches of a page.
    memo = rules.cookie_owners
    owner = memo.young.get(line) or memo.get(line)
    if owner is None:
        owner = None if too_many_cookies([line]) else _owner_by_session(line, rules)
        owner = owner or _owner([], [line], [], b"", rules)
        memo.offer(line, owner)
    return owner


def too_many_cookies(lines: list[bytes]) -> bool:
    """Tell whether these Cookie lines have more cookies than are read."""
    octets = sum([len(line) for line in lines])
    return octets >= COOKIES_MAX and sum([line.count(b";") + 1 for line in lines]) > COOKIES_MAX


def _unread_owner(texts: list[bytes], rules: OwnerRules) -> Owner:
    # Nothing is stored for it. The hash tells it from everyone, whose responses it is not shown.
    digest = _digest(rules, [(b"L", b"", text) for text in texts])
    return Owner(digest, OwnerClass.UNREAD, False, False, b"")


def _owner_by_session(line: bytes, rules: OwnerRules) -> Owner | None:
    """Return what `_owner` would for a Cookie line with a plain session in it, in half the time.

    With a session in it nothing else of the line matters. None for a line without one, and for one
    that is not plain.
    """
    if QUOTE in line:
        return None
    kinds = rules.cookie_kinds
    sessions: list[tuple[bytes, bytes, bytes]] = []
    for piece in line.split(b";"):
        name, equals, value = piece.partition(b"=")
        kind = kinds[name]      # known with the blank before it, too
        if not equals or (kind is not _SESSION and kind is not _LIKELY):
            continue
        name, value = name.strip(b" \t"), value.rstrip(b" \t")
        if kind is _LIKELY and len(value) < LIKELY_SESSION_BYTES_MIN:
            continue
        if value.lower() in _NOT_A_SESSION or not _is_plain_value(value):
            return None
        sessions.append((b"C", name, value))
    if not sessions:
        return None
    digest = _digest(rules, sessions)
    return Owner(digest, OwnerClass.SESSION, True, rules.anonymous_fallback, b"")


def _owner(
    credentials: list[tuple[bytes, bytes]],
    cookie_lines: list[bytes],
    url_sessions: list[bytes],
    shape: bytes,
    rules: OwnerRules,
) -> Owner:
    if too_many_cookies(cookie_lines):
        return _unread_owner(cookie_lines, rules)
    cookies = _read_cookies(cookie_lines, rules) if cookie_lines else _NO_COOKIES
    # Each part is tagged with where it stood, so that a cookie never counts as a field.
    who: list[tuple[bytes, bytes, bytes]]
    if cookies.unclear:
        who = [(b"L", b"", line) for line in cookie_lines]
        owner_class = OwnerClass.COOKIES
    elif cookies.sessions:
        who = [(b"C", name, value) for name, value in cookies.sessions]
        owner_class = OwnerClass.SESSION
    else:
        who = [(b"C", name, value) for name, value in cookies.others]
        owner_class = OwnerClass.COOKIES
    session = bool(cookies.sessions or url_sessions)
    if url_sessions:
        who += [(b"U", b"", param) for param in url_sessions]
        owner_class = OwnerClass.SESSION
    if credentials:
        secrets = [(b"F", name, value) for name, value in credentials]
        if session:
            # One session is one owner, with an X-CSRF-Token or without, so that its logout drops
            # all of it. The credential separates variants.
            shape += _digest(rules, secrets)
        else:
            who += secrets
        owner_class = OwnerClass.CREDENTIAL
    if not who:
        return Owner(b"", OwnerClass.EVERYONE, False, False, shape)
    anonymous = rules.anonymous_fallback and not credentials and not url_sessions
    return Owner(_digest(rules, who), owner_class, session, anonymous, shape)


def session_values(request: RequestHead, rules: OwnerRules) -> list[tuple[bytes, bytes]]:
    """Return the session cookies that the request carries, as (name, value)."""
    lines = [value for name, value in request.fields if name == b"cookie"]
    return _read_cookies(lines, rules).sessions if lines and not too_many_cookies(lines) else []


def session_ids_set(response: ResponseHead, rules: OwnerRules) -> list[bytes]:
    """Return the values that the response gives session cookies, if they may be ids."""
    ids: list[bytes] = []
    for line in response.set_cookies:
        name, _, value = line.partition(b";")[0].partition(b"=")
        value = value.strip(b' \t"')
        is_session = rules.cookie_kinds[name.strip(b" \t")] in (_SESSION, _LIKELY)
        if is_session and len(value) >= SESSION_ID_BYTES_MIN:
            ids.append(value)
    return ids


def sets_session(request: RequestHead, response: ResponseHead, rules: OwnerRules) -> bool:
    """Tell whether the response begins or ends a session: a login, a logout, a new session id.

    True for any Set-Cookie of a session cookie, except that the answer to a safe request may give
    back the value that came with it: that is a session whose lifetime is being extended, as some
    frameworks do with every response.
    """
    if not response.set_cookies:
        return False
    carried: list[tuple[bytes, bytes]] | None = None
    for line in response.set_cookies:
        pair, _, attributes = line.partition(b";")
        name, _, value = pair.partition(b"=")
        name, value = name.strip(b" \t"), value.strip(b" \t")
        if rules.cookie_kinds[name] not in (_SESSION, _LIKELY):
            continue
        if carried is None:
            safe = request.method in (b"GET", b"HEAD")
            carried = session_values(request, rules) if safe else []
        if [(name, value)] != [pair for pair in carried if pair[0] == name]:
            return True
        if _deletes(attributes, response):
            return True
    return False


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
