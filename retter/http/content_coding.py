"""The content coding of a response (RFC 9110 sections 8.4 and 12.5.3), from heads alone.

This module decides what a client accepts, what the application is asked for, which responses are
worth compressing, and how their heads change. compressors.py compresses; pipeline.py decides when,
and keeps the results.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.cache_control import parse_cache_control
from retter.http.head_edit import without_fields
from retter.http.message import Fields, RequestHead

CODINGS: Final = (b"zstd", b"gzip", b"br")
"""The codings that RETTER can make, in the order of preference for forwarded bodies if the client
has no preference. zstd takes a few microseconds more than gzip and saves 6 %; brotli at that speed
saves nothing (docs/compression.md has the figures)."""

STORED_CODINGS: Final = (b"br", b"zstd", b"gzip")
"""The same for stored bodies, which are compressed once: the smallest first."""

# Longest value that is memoised: browsers send 23 octets. So all memoised values together take
# some tens of kilobytes at most.
_REMEMBERED_BYTES_MAX: Final = 128
_REMEMBERED_MAX: Final = 256

_MEMBER: Final = re.compile(
    rb"[ \t]*+([!#$%&'*+\-.^_`|~0-9A-Za-z]++)"
    rb"[ \t]*+(?:;[ \t]*+[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*+)?"
)
_SLASHES: Final = re.compile(rb"//++")
_ALIASES: Final = {b"x-gzip": b"gzip", b"x-compress": b"compress"}


# -- what the client accepts ----------------------------------------------------------------------


class Accepted(NamedTuple):
    """The codings that a client gets."""

    forwarded: bytes  # b"" is identity
    stored: tuple[bytes, ...]  # best first; identity comes after them


IDENTITY: Final = Accepted(b"", ())


def canonical(coding: bytes) -> bytes:
    """Return the registered name of a lower-case coding (RFC 9110 section 8.4.1.3)."""
    return _ALIASES.get(coding, coding)


def weights(value: bytes) -> Mapping[bytes, int]:
    """Read Accept-Encoding: the weight of each coding in thousandths, 0 is not acceptable.

    A malformed member accepts nothing. If a coding is named twice, the first counts. A field with
    too many members accepts nothing.
    """
    return _remembered(value) if len(value) <= _REMEMBERED_BYTES_MAX else _read(value)


def _read(value: bytes) -> Mapping[bytes, int]:
    by_coding: dict[bytes, int] = {}
    if value.count(b",") >= LIST_MEMBERS_MAX:
        return by_coding
    for member in value.lower().split(b","):
        if match := _MEMBER.fullmatch(member):
            weight = 1000 if match[2] is None else round(1000 * float(match[2]))
            by_coding.setdefault(canonical(match[1]), weight)
    return by_coding


_remembered: Final = lru_cache(_REMEMBERED_MAX)(_read)


def accepts_coding(request: RequestHead, coding: bytes) -> bool:
    """Return whether the client said that it can decode this coding (RFC 9110 section 12.5.3).

    Without Accept-Encoding the RFC allows any coding. Clients that do not send it (scripts, health
    checks) cannot decode one, so here it means identity.
    """
    by_coding = weights(request.combined(b"accept-encoding"))
    return by_coding.get(canonical(coding), by_coding.get(b"*", 0)) > 0


class Negotiator:
    """Chooses codings for clients.

    Args:
        codings: The codings to choose from, in order of preference; empty: none.
        excluded: Returns whether the responses of a path are never compressed.
    """

    __slots__ = ("_accepted", "_codings", "_excluded")

    def __init__(
        self, codings: Sequence[bytes], excluded: Callable[[bytes], object] = lambda _: None
    ) -> None:
        self._codings = tuple(codings)
        self._excluded = excluded
        self._accepted = lru_cache(_REMEMBERED_MAX)(self._choose)

    def accepted(self, request: RequestHead) -> Accepted:
        """Return the codings for the response to this request.

        There are none for HTTP/1.0, whose clients are too old or too simple, and none for a Range:
        its octets count in the representation of the application. There are none if the request
        forbids a transformation (RFC 9111 section 5.2.1.6).
        """
        if not request.form.http11 or request.method == b"HEAD":
            return IDENTITY
        if request.first(b"range") is not None or self._is_excluded(request.target):
            return IDENTITY
        if parse_cache_control(request.combined(b"cache-control")).no_transform:
            return IDENTITY
        value = request.combined(b"accept-encoding")
        if len(value) > _REMEMBERED_BYTES_MAX:
            return self._choose(value)
        return self._accepted(value)

    def _is_excluded(self, target: bytes) -> bool:
        path = target.partition(b"?")[0]
        if self._excluded(path):
            return True
        if b"%" not in path and b"//" not in path:
            return False
        # Decoded, as applications read it: an attacker who measures compressed sizes (BREACH) makes
        # a victim request the page, and would choose a spelling that is not excluded.
        return bool(self._excluded(_SLASHES.sub(b"/", unquote_to_bytes(path))))

    def _choose(self, value: bytes) -> Accepted:
        by_coding = weights(value)
        any_other = by_coding.get(b"*", 0)
        # A coding with a lower weight than identity is worse for the client than none. If identity
        # is not named, it has no weight to compare with.
        least = max(1, by_coding.get(b"identity", 0))

        def best(order: Sequence[bytes]) -> tuple[bytes, ...]:
            able = [
                (-weight, place, coding)
                for place, coding in enumerate(order)
                if (weight := by_coding.get(coding, any_other)) >= least
            ]
            return tuple([coding for _, _, coding in sorted(able)])

        stored = best([coding for coding in STORED_CODINGS if coding in self._codings])
        return Accepted(best(self._codings)[0], stored) if stored else IDENTITY


# -- what the application is asked for ------------------------------------------------------------


def reduced_accept_encoding(lines: Sequence[bytes], decodable: Collection[bytes]) -> list[bytes]:
    """Return a client's Accept-Encoding without the codings that cannot be decoded here.

    One representation of a page is stored, as the application sent it. It serves every client
    only if it can be decoded for clients that do not accept its coding. The remaining members keep
    their octets. A value without a change is the same object.

    Args:
        lines: The values of all field lines: together they are one list (RFC 9110 section 5.3).
            As many are returned. A line that loses all its members becomes empty, if another line
            has some: "identity" would give it the same weight as theirs.
    """
    whole = b",".join(lines)
    if whole.count(b",") >= LIST_MEMBERS_MAX:
        return [b"identity", *[b""] * (len(lines) - 1)]
    named = weights(whole)
    reduced = [_reduced(value, named, decodable) for value in lines]
    if any(value.strip(b" \t,") for value in reduced) or not whole.strip(b" \t,"):
        return reduced
    return [b"identity", *[b""] * (len(lines) - 1)]


def _reduced(value: bytes, named: Mapping[bytes, int], decodable: Collection[bytes]) -> bytes:
    members = value.split(b",")
    kept: list[bytes] = []
    for member in members:
        match = _MEMBER.fullmatch(member.lower())
        if match is None:
            if member.strip(b" \t"):
                continue  # malformed: it accepts nothing
            kept.append(member)
        elif match[1] == b"*":
            # "*" means any other coding. Of the decodable ones, that is gzip.
            if not named[b"*"]:
                kept.append(member)
            elif b"gzip" not in named:
                kept.append(member.replace(b"*", b"gzip", 1))
        elif match[1] == b"identity" or canonical(match[1]) in decodable:
            kept.append(member)
    if kept == members:
        return value
    return b",".join(kept).strip(b" \t,")


# -- which responses are compressed ---------------------------------------------------------------


class Eligibility(NamedTuple):
    """The responses that are worth compressing. `is_type` takes a lower-case media type."""

    is_type: Callable[[bytes], object]
    bytes_min: int = 300

    def fits(self, content_type: bytes) -> bool:
        """Return whether a Content-Type is on the list. Event streams never are."""
        media_type = content_type.partition(b";")[0].strip(b" \t").lower()
        return media_type != b"text/event-stream" and bool(self.is_type(media_type))

    def judges(self, status: int, length: int | None, fields: Fields) -> bool:
        """Return whether a response with these fields is compressed; `length` None is unknown."""
        if not compressible_status(status) or (length is not None and length < self.bytes_min):
            return False
        if any(forbids_coding(name, value) for name, value in fields):
            return False
        types = [value for name, value in fields if name == b"content-type"]
        return len(types) == 1 and self.fits(types[0])


def compressible_status(status: int) -> bool:
    """Return whether responses with this status have a whole representation as their body."""
    return status >= 200 and status not in (204, 205, 206, 304)


def forbids_coding(name: bytes, value: bytes) -> bool:
    """Return whether a field of a response forbids to code its body."""
    if name == b"content-encoding" or name == b"content-range":
        return True
    return name == b"cache-control" and parse_cache_control(value).no_transform


def varies_already(name: bytes, value: bytes) -> bool:
    """Return whether a field of a response is a Vary that names Accept-Encoding, or `*`."""
    if name != b"vary":
        return False
    if value.count(b",") >= LIST_MEMBERS_MAX:
        return False  # a second Vary line does no harm
    names = {member.strip(b" \t").lower() for member in value.split(b",")}
    return b"accept-encoding" in names or b"*" in names


VARY_LINE: Final = b"Vary: Accept-Encoding\r\n"

# Fields that describe the octets before coding. Accept-Ranges offers parts of them by position, and
# the client has other octets.
_OF_IDENTITY: Final = (
    b"content-length:",
    b"content-md5:",
    b"content-digest:",
    b"repr-digest:",
    b"digest:",
    b"accept-ranges:",
)
_DIGESTS: Final = frozenset({b"digest", b"repr-digest", b"content-digest", b"content-md5"})


class CodedHead(NamedTuple):
    """A head for a body in another coding, without Content-Encoding and Content-Length."""

    head: bytes
    strong_etag: bytes  # of the application, weakened in `head`; b"" if there was none


def coded_head(head: bytes) -> CodedHead:
    """Return a head (CRLF-ended lines) for a body that is coded on its way.

    A strong ETag promises equal octets, so it becomes weak (RFC 9110 section 8.8.1).
    """
    strong_etag = b""

    def weakened(line: bytes) -> bytes:
        nonlocal strong_etag
        etag = line[5:].strip(b" \t") if line[:5].lower() == b"etag:" else b""
        if not etag.startswith(b'"'):
            return line
        strong_etag = etag
        return b"ETag: W/" + etag

    return CodedHead(without_fields(head, _OF_IDENTITY, weakened), strong_etag)


def kept_when_coded(trailers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the trailer fields that are still true of a body that was coded on its way."""
    return [(name, value) for name, value in trailers if name.lower() not in _DIGESTS]


# -- tags that come back --------------------------------------------------------------------------

_WEAK_TAG: Final = re.compile(rb"W/(\"[!#-~\x80-\xff]*+\")")
# If-Range is not changed: a part of the application's octets cannot continue coded ones, and a weak
# tag never matches there (RFC 9110 section 13.1.5).
_TAG_LINES: Final = re.compile(rb"(?<=\r\n)(?:if-none-match|if-match):[^\r]*+", re.IGNORECASE)


class WeakenedTags:
    """The entity tags that RETTER has weakened, to distinguish them from originally weak ones.

    Their number is bounded as in memo.HeadMemo. A forgotten tag costs a 200 instead of a 304.
    """

    __slots__ = ("_max", "_old", "_young")

    def __init__(self, tags_max: int = 16_384) -> None:  # hashes: a megabyte and a half
        self._max = tags_max // 2
        self._young: set[int] = set()
        self._old: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._young)

    def add(self, strong_etag: bytes) -> None:
        """Remember one, in its strong form."""
        if len(self._young) >= self._max:
            self._old, self._young = self._young, set()
        self._young.add(hash(strong_etag))

    def _original(self, match: re.Match[bytes]) -> bytes:
        mark = hash(match[1])
        return match[1] if mark in self._young or mark in self._old else match[0]

    def restored(self, head: bytes) -> bytes:
        """Return a request's head with these tags in the application's form.

        In If-None-Match and If-Match, the client means the state that it received.
        """
        tags = head.count(b'W/"')
        if not tags or tags > LIST_MEMBERS_MAX:
            return head  # too many: no client got them from RETTER
        return _TAG_LINES.sub(lambda line: _WEAK_TAG.sub(self._original, line[0]), head)

    def shown(self, head: bytes, asked: bytes, *, varies: bool) -> bytes:
        """Return the head of a 304 with the tag that its client has, if that is a weakened one.

        A client copies the fields of the 304 to its response (RFC 9111 section 3.2). With the
        application's strong tag, it could later continue coded octets with others.

        Args:
            head: The head of the 304, as lines.
            asked: The head of the client's request.
            varies: The 304 has a Vary with Accept-Encoding already.
        """
        coded = coded_head(head)
        mark = hash(coded.strong_etag)
        if b"W/" + coded.strong_etag not in asked or not (mark in self._young or mark in self._old):
            return head
        return coded.head if varies else coded.head + VARY_LINE
