"""Cache-Control read as a careful shared cache reads it (RFC 9111 section 5.2, RFC 5861).

If a field is malformed or repeats a directive, the meaning that stores or serves less counts.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.dates import parse_http_date

_DIRECTIVE: Final = re.compile(
    rb"[ \t]*+([!#$%&'*+\-.^_`|~0-9A-Za-z]++)[ \t]*+"
    rb"(?:=[ \t]*+(\"[^\"\\]*+(?:\\.[^\"\\]*+)*\"|[^\", \t;]*+)[ \t]*+)?"
)
_SEPARATORS: Final = re.compile(rb"[, \t]*+")
_SECONDS_MAX: Final = 2**31  # RFC 9111 section 1.2.2: a larger number counts as this one
# RFC 9110 section 15.1: the storable statuses that may be stored without explicit freshness.
_HEURISTICALLY_CACHEABLE: Final = frozenset((200, 203, 204, 300, 301, 308))


class CacheControl(NamedTuple):
    """The directives of a response that matter here. Times are in seconds, None is absent."""

    no_store: bool = False
    no_cache: bool = False
    private: bool = False
    public: bool = False
    must_revalidate: bool = False  # proxy-revalidate is the same for a shared cache
    no_transform: bool = False
    max_age_s: int | None = None
    s_maxage_s: int | None = None
    stale_if_error_s: int | None = None


NO_DIRECTIVES: Final = CacheControl()
_UNREADABLE: Final = CacheControl(
    no_store=True,
    no_cache=True,
    private=True,
    no_transform=True,
    must_revalidate=True,
    max_age_s=0,
    s_maxage_s=0,
    stale_if_error_s=0,
)


# Longest value that is memoised. A site has few distinct ones, and a stranger's may be very long.
_REMEMBERED_MAX: Final = 256
_REMEMBERED_BYTES_MAX: Final = 256


def parse_cache_control(value: bytes) -> CacheControl:
    """Read the combined field value. An unreadable one forbids everything."""
    if not value:
        return NO_DIRECTIVES
    return _remembered(value) if len(value) <= _REMEMBERED_BYTES_MAX else _read(value)


def _read(value: bytes) -> CacheControl:
    if value.count(b",") >= LIST_MEMBERS_MAX:
        return _UNREADABLE
    arguments: dict[bytes, list[bytes]] = {}
    position, end = _after_separators(value, 0), len(value)
    while position < end:
        directive = _DIRECTIVE.match(value, position)
        if directive is None or value[directive.end() : directive.end() + 1] not in (b"", b","):
            return _UNREADABLE
        argument = directive[2]
        arguments.setdefault(directive[1].lower(), []).append(argument or b"")
        position = _after_separators(value, directive.end())
    return CacheControl(
        no_store=b"no-store" in arguments,
        # With field names, these forbid only those fields. A cache may treat them as if they had
        # none.
        no_cache=b"no-cache" in arguments,
        private=b"private" in arguments,
        public=b"public" in arguments,
        must_revalidate=b"must-revalidate" in arguments or b"proxy-revalidate" in arguments,
        no_transform=b"no-transform" in arguments,
        max_age_s=_least(arguments.get(b"max-age")),
        s_maxage_s=_least(arguments.get(b"s-maxage")),
        stale_if_error_s=_least(arguments.get(b"stale-if-error")),
    )


def _after_separators(value: bytes, position: int) -> int:
    separators = _SEPARATORS.match(value, position)
    assert separators is not None, "there may be none of them"
    return separators.end()


_remembered: Final = lru_cache(_REMEMBERED_MAX)(_read)


def _least(arguments: list[bytes] | None) -> int | None:
    if arguments is None:
        return None
    return min(delta_seconds(argument.strip(b'"')) or 0 for argument in arguments)


def delta_seconds(value: bytes) -> int | None:
    """Read delta-seconds (RFC 9111 section 1.2.2), or return None."""
    if not value.isdigit():
        return None
    return int(value) if len(value) < 10 else _SECONDS_MAX


def freshness_lifetime_s(control: CacheControl, expires: bytes | None, date: bytes | None) -> int:
    """Return how long a response is fresh (RFC 9111 section 4.2.1).

    No heuristics are used: without explicit freshness it is 0.
    """
    if control.s_maxage_s is not None:
        return control.s_maxage_s
    if control.max_age_s is not None:
        return control.max_age_s
    until, since = parse_http_date(expires or b""), parse_http_date(date or b"")
    if until is None or since is None:
        return 0
    return max(0, until - since)


def shared_age_max_s(
    control: CacheControl, expires: bytes | None, date: bytes | None, max_stale_s: float
) -> float:
    """Return the age up to which a shared cache may serve the response while the origin fails.

    Fresh responses are always allowed. Stale ones are not allowed if the response forbids it (RFC
    9111 section 4.2.4: must-revalidate, proxy-revalidate, no-cache, s-maxage). With
    stale-if-error=N (RFC 5861 section 4), they are allowed for N seconds, and otherwise up to
    `max_stale_s`.
    """
    if control.no_cache:
        return 0.0
    fresh_s = freshness_lifetime_s(control, expires, date)
    if control.must_revalidate or control.s_maxage_s is not None:
        return min(float(fresh_s), max_stale_s)
    if control.stale_if_error_s is not None:
        return min(float(fresh_s + control.stale_if_error_s), max_stale_s)
    return max_stale_s


def shared_may_store(
    status: int, control: CacheControl, *, authorization: bool, has_expires: bool
) -> bool:
    """Apply RFC 9111 section 3 for a shared cache, and 3.5 for requests with Authorization."""
    if control.no_store or control.private or control.no_cache:
        return False
    if authorization and not (
        control.public or control.must_revalidate or control.s_maxage_s is not None
    ):
        return False
    explicit = control.public or has_expires or control.max_age_s is not None
    return explicit or control.s_maxage_s is not None or status in _HEURISTICALLY_CACHEABLE


# The registered codings (RFC 9110 section 16.6.1) and their aliases. Other words are not codings:
# some applications write a character set or a word for none (`utf-8`, `binary`, `aws-chunked`).
_CODINGS: Final = frozenset(
    (
        b"aes128gcm",
        b"br",
        b"compress",
        b"dcb",
        b"dcz",
        b"deflate",
        b"exi",
        b"gzip",
        b"pack200-gzip",
        b"zstd",
        b"x-compress",
        b"x-gzip",
    )
)


def coding_of(value: bytes) -> bytes:
    """Return Content-Encoding in lower case, without words that are no codings."""
    if not value:
        return b""
    codings = [coding.strip(b" \t") for coding in value.lower().split(b",")]
    return b", ".join([coding for coding in codings if coding in _CODINGS])
