"""The owner of a response: everything in a request that may identify somebody, as a keyed hash.

A field or a cookie counts as an identity unless it is known not to be one (known_names.py). So
nothing that might be a credential is ignored by accident. If a request is unclear (several Cookie
lines, odd quotes, a session value with a comma), all of its cookies count. Then a stored response
may not be found, but nobody gets the page of somebody else. The values themselves are not kept,
only a hash under a secret.

This module determines who sent a request. set_cookie.py interprets the Set-Cookie of a response.
policy.py determines what is requested, and what may be done with the response.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from struct import Struct
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from retter.base.hashing import blake2b
from retter.base.limits import COOKIES_MAX
from retter.base.wildcard import name_matcher
from retter.http.cookies import (
    CREDENTIAL,
    IGNORABLE,
    LIKELY,
    NO_COOKIES,
    ODD_BUT_COMMAS_MARKED,
    ODD_MARKED,
    OPEN_JSON,
    SESSION,
    SESSION_BYTES_MIN,
    CookieKind,
    cookie_classifier,
    cut_plain_line,
    is_plain_name,
    is_rest_of_value,
    looks_like,
    may_be_secret,
    read_cookies,
    secret_bytes_min,
    too_many_cookies,
)
from retter.http.known_names import (
    ADDRESS_FIELDS,
    CSRF_WORDS,
    DEFAULT_SESSION_COOKIES,
    GEO_FIELDS,
    NEUTRAL_FIELDS,
    REQUEST_ID_FIELDS,
)
from retter.http.memo import Memo
from retter.http.message import PERCENT, PLUS, RequestHead
from retter.http.variants import VariantRules
from retter.store.lineage import Lineages
from retter.store.sessions import SessionsSeen

OWNER_BYTES: Final = 16  # 128 bits: nobody can find two requests with the same owner
SECRET_BYTES_MIN: Final = 16  # a shorter key could be guessed from a hash
SECRET_BYTES_MAX: Final = 64  # the longest key of blake2b
MARKS_MAX: Final = 16  # marked sessions of a request; browsers send two
NAME_BYTES_REMEMBERED_MAX: Final = 64  # a name may be as long as a head: 64 MB in all
NAMES_REMEMBERED_MAX: Final = 1024  # a site has some dozens; strangers may send any number
# Lists of cookie names: a site has some dozens. 256 KB at most, with 512 bytes each.
LINES_REMEMBERED_MAX: Final = 256
LINE_NAMES_BYTES_MAX: Final = 256  # a longer list is judged each time
# Of one number of cookies. To pass over one takes a look at its first cookie, mostly.
LISTS_AT_HAND_MAX: Final = 4
# Room for some 3,000 visitors that are active at the same time. With a sixth of it, two thirds of
# the requests of 2,000 visitors are hashed again, which takes 16,000 of their 220,000 instructions.
COOKIE_LINES_BYTES_MAX: Final = 3 * 1024 * 1024
COOKIE_LINE_ENTRY_BYTES: Final = 240  # beside its octets: its place, and half of an owner
COOKIE_LINE_BYTES_REMEMBERED_MAX: Final = 1024  # longer ones are parsed each time
HASHED_ONE_BY_ONE_MAX: Final = 3  # if an owner has more parts, they are joined first
_OPEN_JSON_OCTETS: Final = frozenset(text[0] for text in OPEN_JSON)
SHORT_WAY_COOKIES_MAX: Final = 32  # with more, looking twice at each is slower

K = TypeVar("K")


class OwnerClass(StrEnum):
    """The kind of the owner. Logs show this word, and never the owner itself."""

    EVERYONE = "everyone"  # nothing in the request identifies anybody
    SESSION = "session"  # a session cookie, or a session in the URL
    COOKIES = "cookies"  # other cookies
    CREDENTIAL = "credential"  # Authorization, or a field that is not known to be neutral
    UNREAD = "unread"  # too many cookies or parameters to read: nothing is stored


# Plain names for speed: access to an attribute of an Enum class costs as much as a call.
_BY_SESSION: Final = OwnerClass.SESSION
_BY_COOKIES: Final = OwnerClass.COOKIES


class FieldKind(Enum):
    """The meaning of a request field for the owner; a neutral field has None."""

    COOKIE = "cookie"
    CREDENTIAL = "credential"


class Rolling(NamedTuple):
    """A session whose cookie value changes with the responses (lineage.py)."""

    value: bytes  # keyed hash of the cookie in the request
    generation: int  # entries up to this generation may be read
    earlier: tuple[tuple[bytes, int], ...]  # earlier owners, and up to which generation to read


Owner = tuple[Any, ...]
"""The owner of a request. All requests of one visitor share it. In this order:

- the digest (bytes); b"" is everyone
- the OwnerClass
- whether the request carries a session
- whether everyone's response may be used: only cookies identify the visitor
- what separates variants: a credential beside a session (bytes); usually b""
- the marks of its sessions (a tuple of numbers); a logout finds the owner by them (marks.py)
- Rolling or None

It is a plain tuple: to make an object with a constructor takes 1,700 of 177,000 instructions of the
processor more for a new visitor. Compiled code takes a tuple of declared types apart, and puts it
together again, whenever it is handed on; so its types are declared where it is used (policy.py).
"""


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


def target_matcher(patterns: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Return a function that returns whether a target matches one of the patterns.

    A pattern is a path, or a path, `?` and a parameter of the query. `*` in them matches any text.
    The parameter may be anywhere in the query.
    """
    rules = [
        (name_matcher((path,)), mark, name_matcher((param,)))
        for path, mark, param in [pattern.partition(b"?") for pattern in patterns]
    ]

    def matches(target: bytes) -> bool:
        if not rules:
            return False
        path, _, query = target.partition(b"?")
        return any(
            fits_path(path) and (not mark or any(fits_param(given) for given in query.split(b"&")))
            for fits_path, mark, fits_param in rules
        )

    return matches


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerRules:
    """The rules for what identifies somebody, and which parts of a URL are ignored. Immutable."""

    secret: bytes = field(repr=False)  # random; it belongs to the process or to the store
    neutral_headers: tuple[bytes, ...] = ()  # in addition to the known ones; may end in *
    session_cookies: tuple[bytes, ...] = DEFAULT_SESSION_COOKIES
    rolling_cookies: tuple[bytes, ...] = ()  # sessions that get a new value with each response
    ignore_cookies: tuple[bytes, ...] = ()  # in addition to the known ones
    ignore_host: bool = False
    ignore_query: bool = False
    ignore_params: tuple[bytes, ...] = ()
    anonymous_fallback: bool = True
    vary_on: tuple[bytes, ...] = ()  # fields on which responses depend
    never_store: tuple[bytes, ...] = ()  # targets whose GET changes something
    lasting: bool = False  # the secret outlives the process, so the session marks must too
    origin: bytes = b""  # makes lineages unique to this process if the secret is not
    seen: SessionsSeen = field(default_factory=SessionsSeen, repr=False, compare=False)
    known_lineages: Lineages | None = field(default=None, repr=False, compare=False)

    field_kinds: _Kinds[FieldKind | None] = field(init=False, repr=False, compare=False)
    cookie_kinds: _Kinds[CookieKind] = field(init=False, repr=False, compare=False)
    param_is_session: _Kinds[bool] = field(init=False, repr=False, compare=False)
    harmless_params: dict[bytes, bool] = field(init=False, repr=False, compare=False)
    cookie_owners: Memo[Owner] = field(init=False, repr=False, compare=False)
    line_names: dict[tuple[bytes, ...], "_CookieNames"] = field(
        init=False, repr=False, compare=False
    )
    # The lists of names that are tried first, by the number of cookies; the newest first.
    names_at_hand: dict[int, list["_CookieNames"]] = field(init=False, repr=False, compare=False)
    marker: blake2b | None = field(init=False, repr=False, compare=False)
    hasher: blake2b = field(init=False, repr=False, compare=False)
    lineages: Lineages = field(init=False, repr=False, compare=False)
    is_rolling: Callable[[bytes], bool] = field(init=False, repr=False, compare=False)
    variant_rules: VariantRules = field(init=False, repr=False, compare=False)
    exact_urls: bool = field(init=False)  # no part of a URL is ignored
    names_configured: bool = field(init=False)  # the operator has named the session cookies
    param_is_ignored: Callable[[bytes], object] = field(init=False, repr=False, compare=False)
    is_never_stored: Callable[[bytes], object] = field(init=False, repr=False, compare=False)

    def mark(self, value: bytes) -> int:
        """Return the mark of a value (`marks_of`)."""
        if self.marker is None:
            return hash(value)
        hasher = self.marker.copy()  # costs half of a new hasher with a key
        hasher.update(value)
        mark: int = _as_number(hasher.digest())[0]  # 64 bits with a sign, like that of `hash`
        return mark

    def __post_init__(self) -> None:
        if not SECRET_BYTES_MIN <= len(self.secret) <= SECRET_BYTES_MAX:
            raise ValueError(f"the secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")
        fill = object.__setattr__  # how a frozen dataclass sets derived fields
        fill(self, "field_kinds", _Kinds(_field_classifier(self)))
        fill(
            self,
            "cookie_kinds",
            _Kinds(
                cookie_classifier(
                    (*self.session_cookies, *self.rolling_cookies), self.ignore_cookies
                )
            ),
        )
        fill(self, "harmless_params", {})  # target.py
        fill(self, "line_names", {})
        fill(self, "names_at_hand", {})
        fill(self, "param_is_session", _Kinds(_session_param_classifier(self)))
        fill(
            self,
            "cookie_owners",
            Memo[Owner](
                COOKIE_LINES_BYTES_MAX,
                cost_per_byte=1,
                entry_bytes=COOKIE_LINE_ENTRY_BYTES,
                key_bytes_max=COOKIE_LINE_BYTES_REMEMBERED_MAX,
            ),
        )
        # The secret is the beginning of what is hashed, not `key`, which is padded to a block of
        # its own (RFC 7693 section 3.3): to hash that block again for each owner and each mark
        # takes 1,700 of 95,000 instructions of the processor. Both prove as much, for a secret of
        # one length: the last block is marked (section 3.2, the flag f), so that nobody can go on
        # from a hash to that of a longer text. With SHA-256 one could.
        keyed = blake2b(self.secret, digest_size=8, person=b"mark")
        fill(self, "marker", keyed if self.lasting else None)
        fill(self, "hasher", blake2b(self.secret, digest_size=OWNER_BYTES, person=b"owner"))
        fill(self, "is_rolling", name_matcher(self.rolling_cookies))
        fill(
            self,
            "lineages",
            self.known_lineages
            or Lineages(lambda number: _digest(self, [(b"N", self.origin, b"%d" % number)])),
        )
        fill(self, "variant_rules", VariantRules(tuple(map(bytes.lower, self.vary_on))))
        coarse = self.ignore_host or self.ignore_query or bool(self.ignore_params)
        fill(self, "exact_urls", not coarse)
        fill(self, "names_configured", self.session_cookies != DEFAULT_SESSION_COOKIES)
        fill(self, "param_is_ignored", name_matcher(self.ignore_params))
        fill(self, "is_never_stored", target_matcher(self.never_store))


def tells_more_apart(rules: OwnerRules, before: OwnerRules) -> bool:
    """Return whether requests that had one owner, or one URL, may now have different ones."""
    return (
        before.ignore_host > rules.ignore_host
        or before.ignore_query > rules.ignore_query
        or not set(before.ignore_params).issubset(rules.ignore_params)
        or not set(before.ignore_cookies).issubset(rules.ignore_cookies)
        or not set(before.neutral_headers).issubset((*rules.neutral_headers, *rules.vary_on))
        or not set(rules.vary_on).issubset(before.vary_on)
        or not set(rules.session_cookies).issubset(before.session_cookies)
    )


def _field_classifier(rules: OwnerRules) -> Callable[[bytes], FieldKind | None]:
    neutral = (*NEUTRAL_FIELDS, *ADDRESS_FIELDS, *GEO_FIELDS, *REQUEST_ID_FIELDS)
    is_neutral = name_matcher((*neutral, *map(bytes.lower, rules.neutral_headers)))

    def classify(name: bytes) -> FieldKind | None:
        if name == b"cookie":
            return FieldKind.COOKIE
        if is_neutral(name) or rules.variant_rules.counts(name):
            return None
        return FieldKind.CREDENTIAL

    return classify


def _session_param_classifier(rules: OwnerRules) -> Callable[[bytes], bool]:
    is_session = name_matcher(map(bytes.lower, rules.session_cookies))

    def classify(name: bytes) -> bool:
        # Frameworks decode the name. PHP drops leading blanks, servlets ignore the case.
        if PERCENT in name or PLUS in name:
            name = unquote_to_bytes(name.replace(b"+", b" "))
        return is_session(name.lstrip().lower())

    return classify


_as_number: Final = Struct(">q").unpack
_lengths: Final = Struct(">II").pack
_length: Final = Struct(">I").pack
# Nearly all values are shorter: to look a length up takes 100 instructions of the processor, and to
# pack it 600.
_SHORT: Final = 128
_LENGTHS: Final = [_length(size) for size in range(_SHORT)]


def _digest(rules: OwnerRules, parts: list[tuple[bytes, bytes, bytes]]) -> bytes:
    # The lengths come first, so that no two lists of parts give the same bytes. There are nearly
    # always few parts. They are hashed one by one: to build a list would take 0.3 of 0.9 us.
    hasher = rules.hasher.copy()  # costs half of a new hasher with a key
    if len(parts) <= HASHED_ONE_BY_ONE_MAX:
        for tag, name, value in parts:
            hasher.update(tag + _lengths(len(name), len(value)) + name + value)
    else:
        hasher.update(
            b"".join(
                [tag + _lengths(len(name), len(value)) + name + value for tag, name, value in parts]
            )
        )
    return hasher.digest()


_EVERYONE: Final[Owner] = (b"", OwnerClass.EVERYONE, False, False, b"", (), None)


def owner_of(request: RequestHead, url_sessions: list[bytes] | None, rules: OwnerRules) -> Owner:
    """Return the owner of this request.

    `url_sessions` are the sessions in the URL, as `name=value`. They count like session cookies,
    except that no public response may be used instead. None means that the URL has too many
    parameters to read, and that sessions may be among them.
    """
    identity_fields = request.identity_fields
    if url_sessions is None:
        return _unread_owner([request.target], rules)
    line: bytes | None = None
    if not url_sessions:
        if not identity_fields:
            return _EVERYONE
        if len(identity_fields) == 1:
            name, value = identity_fields[0]
            if name == b"cookie":
                line = value  # usually a browser with a cookie
    if line is None:
        credentials: list[tuple[bytes, bytes]] = []
        cookie_lines: list[bytes] = []
        kinds = rules.field_kinds
        for name, value in identity_fields:
            kind = kinds[name]
            if kind is FieldKind.COOKIE:
                cookie_lines.append(value)
            elif kind is FieldKind.CREDENTIAL:
                credentials.append((name, value))
        if credentials or url_sessions or len(cookie_lines) > 1:
            return _owner(credentials, cookie_lines, url_sessions, rules)
        if not cookie_lines:
            return _EVERYONE
        line = cookie_lines[0]
    # A browser sends the same line with all requests for one page.
    memo = rules.cookie_owners
    owner = memo.young.get(line)
    if owner is None and line in memo.old:  # a call less for nearly all that are new
        owner = memo.get_old(line)
    if owner is None:
        if len(line) < COOKIES_MAX or line.count(b";") < SHORT_WAY_COOKIES_MAX:
            owner = _owner_of_plain_line(line, rules)
        if owner is None:
            owner = _owner([], [line], [], rules)
            memo.offer(line, owner)
    return owner


def _unread_owner(texts: list[bytes], rules: OwnerRules) -> Owner:
    # Nothing is stored for it. Its hash is not that of everyone, so it gets no public responses.
    digest = _digest(rules, [(b"L", b"", text) for text in texts])
    return digest, OwnerClass.UNREAD, False, False, b"", (), None


class _CookieNames:
    """The meaning of the names of a plain Cookie line, for all values.

    Visitors of a site send few different lists of names, so the names are judged once. A new line
    is split into its cookies then, and compared with the lists that came before: `fits`.

    A value ends at its first comma here. What follows up to the next cookie is usually the same for
    many visitors (`id:4711,consent:yes`) and counts as one of the names.

    Args:
        texts: What a line contains around its values.
        kind_of: Returns the kind of a name.

    Attributes:
        is_plain: All applications read such a line alike. Else nothing more is known of it.
        is_list: Each of its cookies has a value: it can be kept at hand.
    """

    __slots__ = (
        "_commas", "_rests", "at_end", "beginnings", "counted", "identifying", "is_list",
        "is_plain", "session", "session_bytes_min", "session_place",
    )  # fmt: skip

    def __init__(self, texts: tuple[bytes, ...], kind_of: Callable[[bytes], CookieKind]) -> None:
        # Of each cookie with a value: its name with "=".
        self.beginnings: list[bytes] = []
        # Of those whose value has a comma: its place, and what it ends with.
        self._rests: list[tuple[int, bytes]] = []
        # What is hashed if all cookies count. For each that is not ignorable: the bytes before the
        # length of its value, the length of its name with "=", and its place. Then the bytes after
        # the last of them.
        self.counted: list[tuple[bytes, int, int]] = []
        # Those that may be a session or a credential: kind, name and place.
        self.identifying: list[tuple[CookieKind, bytes, int]] = []
        self.at_end = b""
        self.session, self.session_place, self.session_bytes_min = b"", -1, 0
        last = len(texts) - 1
        split = [_text_of_names(text, is_first=not at) for at, text in enumerate(texts)]
        # A value may have no name, but a cookie without a value has one.
        self.is_plain = (
            # Between two values, a name follows what is left of the first one.
            not any(text.startswith(b",") and b"; " not in text for text in texts[:last])
            and all(all(map(is_plain_name, alone)) for _, alone, _ in split)
            and all(not name or is_plain_name(name) for _, _, name in split)
            and not any(rest and not is_rest_of_value(rest) for rest, _, _ in split)
            and (not split[last][1] or bool(split[last][2]))
            and sum(text.count(b",") for text in texts) <= COOKIES_MAX
        )
        self.is_list = False
        if not self.is_plain:
            return
        before = b""
        for place, (_, alone, name) in enumerate(split[:-1]):
            before += b"".join(map(_without_value, alone))
            kind, rest = kind_of(name), split[place + 1][0]
            may_identify = kind is SESSION or kind is LIKELY or kind is CREDENTIAL
            if rest and may_identify:
                self.is_plain = False  # some applications end its value at the comma
                return
            beginning = name + b"="
            self.beginnings.append(beginning)
            if rest:
                self._rests.append((place, rest))
            elif kind is IGNORABLE:
                continue
            self.counted.append((before + b"C" + _length(len(beginning)), len(beginning), place))
            before = b""
            if may_identify:
                self.identifying.append((kind, name, place))
        _, alone, name = split[last]
        self.at_end = before + b"".join(map(_without_value, [*alone, name] if name else alone))
        self.is_list = not (name or any(alone for _, alone, _ in split))
        self._commas = sum([rest.count(b",") for _, rest in self._rests])
        # Set if exactly one cookie may identify, and it is not a credential.
        if len(self.identifying) == 1 and self.identifying[0][0] is not CREDENTIAL:
            kind, self.session, self.session_place = self.identifying[0]
            self.session_bytes_min = secret_bytes_min(kind)

    def fits(self, cookies: list[bytes]) -> bool:
        """Return whether these, between which a line was split, have these names in this order.

        `cut_plain_line` would come to the same: values have plain octets alone, and commas are
        where a value is known to end with them.
        """
        for place, name in enumerate(self.beginnings):
            if cookies[place][: len(name)] != name:  # `startswith` takes 400 instructions more
                return False
        text = b"".join(cookies)
        if not self._rests:
            return text.translate(ODD_MARKED) == text
        for place, rest in self._rests:
            if not cookies[place].endswith(rest):
                return False
        return text.translate(ODD_BUT_COMMAS_MARKED) == text and text.count(b",") == self._commas

    def cookies(self, values: list[bytes]) -> list[bytes]:
        """Return the cookies that have values, with these."""
        cookies = [name + value for name, value in zip(self.beginnings, values, strict=True)]
        for place, rest in self._rests:
            cookies[place] += rest
        return cookies


def _text_of_names(text: bytes, *, is_first: bool) -> tuple[bytes, list[bytes], bytes]:
    """Split what is between two values.

    Returns:
        The rest of the value before it, cookies without a value, the name of the next cookie.
    """
    rest = b""
    if not is_first and text.startswith(b","):
        rest, _, text = text.partition(b"; ")
    *alone, name = text.split(b"; ")
    return rest, alone, name


def _without_value(cookie: bytes) -> bytes:
    # Without "=" it is not an ignorable cookie, whatever its name is.
    return b"C" + _lengths(len(cookie), 0) + cookie


def _judged(texts: tuple[bytes, ...], rules: OwnerRules) -> _CookieNames | None:
    """Judge the names of a line, and remember the result; None if the line is not plain."""
    judged = _CookieNames(texts, rules.cookie_kinds.__getitem__)
    if not judged.is_plain:
        return None
    # Numbers after a comma differ from visitor to visitor.
    has_numbers = any(text.startswith(b",") and _has_digit(text) for text in texts)
    if sum(map(len, texts)) <= LINE_NAMES_BYTES_MAX and not has_numbers:
        if len(rules.line_names) >= LINES_REMEMBERED_MAX:
            rules.line_names.clear()
        rules.line_names[texts] = judged
    return judged


def _has_digit(text: bytes) -> bool:
    return text.partition(b";")[0].translate(None, b"0123456789") != text.partition(b";")[0]


def _read_plain_line(line: bytes, rules: OwnerRules) -> tuple[_CookieNames, list[bytes]] | None:
    """Return the names of a line, and its cookies that have values; None if it is not plain."""
    # What is left after so many values is the last text. It has a "=", so the line is not plain.
    pieces: list[bytes] = cut_plain_line(line, SHORT_WAY_COOKIES_MAX)
    texts = tuple(pieces[::2])
    names = rules.line_names.get(texts)
    if names is None:
        names = _judged(texts, rules)
        if names is None:
            return None
    elif names.is_list:  # it came before, and comes again
        at_hand = rules.names_at_hand.setdefault(len(names.beginnings), [])
        if names not in at_hand:
            at_hand.insert(0, names)
            del at_hand[LISTS_AT_HAND_MAX:]
    return names, names.cookies(pieces[1::2])


def _owner_of_plain_line(line: bytes, rules: OwnerRules) -> Owner | None:
    """Return the same as `_owner` for a Cookie line that all applications read alike.

    The owner is looked up once more by what is hashed for it, which the ignorable cookies are not
    part of. They identify nobody, and analytics scripts give some of them a new value with each
    page.

    Returns:
        None for a line that is not plain, and if the cookies alone do not determine the owner.
    """
    cookies = line.split(b"; ")
    for names in rules.names_at_hand.get(len(cookies), ()):
        if names.fits(cookies):
            break
    else:
        read = _read_plain_line(line, rules)
        if read is None:
            return None
        names, cookies = read
    place, seen = names.session_place, rules.seen
    if place < 0:
        return _owner_of_counted(names, cookies, line, rules)
    name = names.session
    value = cookies[place][len(name) + 1 :]
    if len(value) < names.session_bytes_min or (
        value[0] in _OPEN_JSON_OCTETS and value.startswith(OPEN_JSON)
    ):
        return _owner_of_counted(names, cookies, line, rules)
    # Nearly all visitors with a session have one cookie for it, with such a value.
    known = (
        rules.names_configured
        or name in seen.names
        or (bool(rules.rolling_cookies) and rules.is_rolling(name))
    )
    if known:
        if name in rules.lineages.names:
            return None
        hashed = b"S" + _lengths(len(name), len(value)) + name + value  # as in `_digest`
    else:
        if seen.shared:
            return None
        hashed = _counted(names, cookies)
    memo = rules.cookie_owners
    owner = memo.young.get(hashed)
    if owner is None and hashed in memo.old:
        owner = memo.get_old(hashed)
    if owner is not None:
        memo.offer(line, owner)  # it is new, and is remembered if it comes again
    else:
        hasher = rules.hasher.copy()
        hasher.update(hashed)
        digest = hasher.digest()
        if known and digest in seen.shared:
            return None
        # With a name of its own: compiled code would make the tuple anew at each use of `owner`.
        made: Owner = (
            digest, _BY_SESSION if known else _BY_COOKIES, True, rules.anonymous_fallback, b"",
            (rules.mark(value),), None,
        )  # fmt: skip
        # Only what is hashed is noted at its first request: if it comes again, so does mostly the
        # line.
        memo.offer(hashed, made, line)
        return made
    return owner


def _counted(names: _CookieNames, cookies: list[bytes]) -> bytes:
    """Return what is hashed if all cookies count, as in `_digest`; "=" is part of the name."""
    hashed: list[bytes] = []
    for before, name_bytes, place in names.counted:
        cookie = cookies[place]
        size = len(cookie) - name_bytes
        hashed += (before, _LENGTHS[size] if size < _SHORT else _length(size), cookie)
    hashed.append(names.at_end)
    return b"".join(hashed)


def _owner_of_counted(
    names: _CookieNames, cookies: list[bytes], line: bytes, rules: OwnerRules
) -> Owner | None:
    """Return the owner of the cookies of a plain line.

    Returns:
        None if a value may be shared by visitors, or may be one of a rolling session.
    """
    counted = _counted(names, cookies)
    if not counted:
        return _EVERYONE
    seen = rules.seen
    sessions: list[tuple[bytes, bytes, bytes]] = []
    credentials: list[tuple[bytes, bytes, bytes]] = []
    known, rolls = rules.names_configured, bool(rules.rolling_cookies)
    for kind, name, place in names.identifying:
        value = cookies[place][len(name) + 1 :]
        if kind is not CREDENTIAL and may_be_secret(kind, value):
            known = known or name in seen.names or (rolls and rules.is_rolling(name))
            sessions.append((b"S", name, value))
        elif kind is CREDENTIAL or looks_like(name) is CREDENTIAL:
            credentials.append((b"K", name, value))
    who = sessions + credentials if credentials else sessions
    memo = rules.cookie_owners
    owner = memo.young.get(counted)
    if owner is None and counted in memo.old:
        owner = memo.get_old(counted)
    if owner is not None:
        memo.offer(line, owner)
        return owner
    marks = marks_of([value for _, _, value in who], rules) if who else ()
    anonymous = rules.anonymous_fallback
    if sessions and known:
        lineages = rules.lineages.names
        if lineages and not lineages.isdisjoint([name for _, name, _ in sessions]):
            return None
        digest = _digest(rules, who)
        if digest in seen.shared:
            return None
        made: Owner = (digest, _BY_SESSION, True, anonymous, b"", marks, None)
    else:
        if sessions and seen.shared:
            return None
        hasher = rules.hasher.copy()
        hasher.update(counted)
        made = (hasher.digest(), _BY_COOKIES, bool(sessions), anonymous, b"", marks, None)
    memo.offer(counted, made, line)
    return made


def _followed(
    parts: list[tuple[bytes, bytes, bytes]], rules: OwnerRules
) -> tuple[list[tuple[bytes, bytes, bytes]], Rolling, list[bytes]] | None:
    """Return how a rolling session (lineage.py) changes the owner; None if there is none.

    Returns:
        The parts, with the lineage instead of the session's value; the place of the session in its
        lineage; and all lineages that it reads.
    """
    names = rules.lineages.names
    for at, (tag, name, value) in enumerate(parts):
        if tag != b"S" or name not in names:
            continue
        key = session_digest(name, value, rules)
        place = rules.lineages.find(key)
        if place is None:
            continue
        before, after = parts[:at], parts[at + 1 :]
        earlier = tuple(
            [
                (_digest(rules, [*before, (b"G", name, one), *after]), until)
                for one, until in place.earlier
            ]
        )
        who = [*before, (b"G", name, place.lineage), *after]
        return who, Rolling(key, place.generation, earlier), [
            place.lineage, *[one for one, _ in place.earlier],
        ]  # fmt: skip
    return None


def session_digest(name: bytes, value: bytes, rules: OwnerRules) -> bytes:
    """Return the owner of a request that carries only this session."""
    return _digest(rules, [(b"S", name, value)])


def marks_of(values: list[bytes], rules: "OwnerRules") -> tuple[int, ...]:
    """Return the marks of values. The owners that have these values are found by their marks.

    A mark is usually Python's own hash, whose key belongs to the process (`OwnerRules.lasting`). If
    two values have the same mark, a logout of one also drops the responses of the other. Short
    values have no mark. Otherwise anybody could cause all owners with `user=5` to be dropped.
    """
    marks = [rules.mark(value) for value in values if len(value) >= SESSION_BYTES_MIN]
    return tuple(dict.fromkeys(marks))[:MARKS_MAX] if marks else ()


def _owner(
    credentials: list[tuple[bytes, bytes]],
    cookie_lines: list[bytes],
    url_sessions: list[bytes],
    rules: OwnerRules,
) -> Owner:
    if too_many_cookies(cookie_lines):
        return _unread_owner(cookie_lines, rules)
    cookies = NO_COOKIES
    if cookie_lines:
        cookies = read_cookies(cookie_lines, rules.cookie_kinds.__getitem__)
    session = bool(cookies.sessions or url_sessions)
    owner_class = OwnerClass.COOKIES
    variant_key = b""
    rolling: Rolling | None = None
    marked: list[bytes] = []
    if cookies.sessions or cookies.credentials:
        marked = [value for _, value in (*cookies.sessions, *cookies.credentials)]
    # Each part is tagged with its origin, so that a cookie never counts as a field.
    who = [(b"C", name, value) for name, value in cookies.counted]
    if cookies.unclear:
        who = [(b"L", b"", line) for line in cookie_lines]
    elif cookies.sessions:
        alone = [(b"S", name, value) for name, value in cookies.sessions]
        alone += [(b"K", name, value) for name, value in cookies.credentials]
        shared = rules.seen.shared
        if shared and _digest(rules, alone) in shared:
            marked = []
            session = bool(url_sessions)  # a flag of many visitors
        elif rules.names_configured or any(
            name in rules.seen.names or rules.is_rolling(name) for name, _ in cookies.sessions
        ):
            who = alone
            owner_class = OwnerClass.SESSION
            followed = None
            if rules.lineages.names and not url_sessions:
                followed = _followed(alone, rules)
            if followed is not None:
                who, rolling, lineages = followed
                marked += lineages
    if url_sessions:
        who += [(b"U", b"", param) for param in url_sessions]
        marked += [param.partition(b"=")[2] for param in url_sessions]
        owner_class = OwnerClass.SESSION
    if session and credentials:
        # A token of the session's forms does not change what a GET shows. Some change with each
        # response (Laravel), so that no stored response would ever be found again.
        credentials = [pair for pair in credentials if not any(map(pair[0].count, CSRF_WORDS))]
    if credentials:
        secrets = [(b"F", name, value) for name, value in credentials]
        if session:
            # One session is one owner, with or without a credential, so that its logout drops all
            # its responses. The credential separates variants.
            variant_key = _digest(rules, secrets)
        else:
            who += secrets
        owner_class = OwnerClass.CREDENTIAL
    if not who:
        return b"", OwnerClass.EVERYONE, False, False, variant_key, (), None
    anonymous = rules.anonymous_fallback and not credentials and not url_sessions
    marks = marks_of(marked, rules)
    return _digest(rules, who), owner_class, session, anonymous, variant_key, marks, rolling
