"""The variants under one key: responses to one URL may differ although no Vary says so.

Some request fields identify nobody, but still change the response. A script gets JSON where a
browser gets a page, a prefetch gets nothing, a link of a single-page application gets a fragment.
The *variant key* of a request consists of the fields that applications commonly read for this. A
stored response answers only requests with its own variant key. Fields that the application does not
get are not part of the variant key.

Responses also differ by language, kind of device and country (the *soft* criteria). Each
combination has its own variant, but another variant is better than an error.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.known_names import COUNTRY_FIELDS, PREFETCH_FIELDS, SHAPE_FIELDS
from retter.http.message import Fields, RequestHead, Soft

ORIGIN_MARK: Final = b"origin\n"
"""The first part of the variant key of requests with an Origin."""

_VERBATIM: Final = frozenset(
    (
        *SHAPE_FIELDS,
        *PREFETCH_FIELDS,
        b"service-worker-navigation-preload",
        b"content-type",
        b"accept-charset",  # browsers send it no more
    )
)
_JUDGED: Final = frozenset(
    (
        b"accept",
        b"forwarded",
        b"origin",
        b"save-data",
        b"sec-fetch-dest",
        b"sec-fetch-site",
        b"upgrade-insecure-requests",
    )
)

# The types in Accept that count. A browser that requests a page prefers text/html, a script that
# requests data json.
_HTML: Final = b"html"
_JSON: Final = b"json"
_EVENTS: Final = b"events"
_OTHER: Final = b"other"
_ACCEPTED: Final = {
    b"text/html": _HTML,
    b"application/xhtml+xml": _HTML,
    b"text/event-stream": _EVENTS,
}
_is_weight: Final = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?").fullmatch
_DEST: Final = b"sec-fetch-dest: "
# Applications give other sites something else to show instead of their pictures, or refuse them.
_OTHER_SITE: Final = b"sec-fetch-site: other\n"
_EMBEDDED: Final = frozenset((b"iframe", b"frame", b"embed", b"object"))
_FORWARDED_PARTS: Final = re.compile(rb"(?:proto|host)=(?:\"[^\"]*+\"|[^;,\s]*+)", re.IGNORECASE)

# Parts of the variant key of an ordinary request for a page, by a browser or a simpler client, over
# http or https.
_PLAIN_MARKS: Final = frozenset((b"", b"accept: html", b"upgrade-insecure-requests", b"https"))


class VariantRules:
    """Computes the variant key of requests.

    Args:
        vary_on: Lower-case names of further fields that change responses (`--vary-on`).
    """

    __slots__ = ("_verbatim", "counted")

    def __init__(self, vary_on: tuple[bytes, ...] = ()) -> None:
        self._verbatim = _VERBATIM.union(vary_on)
        self.counted = self._verbatim | _JUDGED  # names that may be a part of the variant key

    def counts(self, name: bytes) -> bool:
        """Return whether a field with this lower-case name may be a part of the variant key."""
        return name in self.counted

    def variant_key(self, fields: Fields) -> bytes:
        """Return the variant key of a request with these fields; usually b""."""
        marks: list[bytes] = []
        first = b""
        for name, value in fields:
            if name in self._verbatim:
                marks.append(b"%b: %b\n" % (name, value))
                if name == b"origin":
                    first = ORIGIN_MARK
            elif name == b"origin":
                first = ORIGIN_MARK
            elif name in _JUDGED:
                marks += _marks(name, value)
        if _OTHER_SITE in marks and not any(mark.startswith(_DEST) for mark in marks):
            marks.remove(_OTHER_SITE)  # whoever follows a link gets the page as anybody else
        return first + b"".join(sorted(marks)) if marks else first


def _marks(name: bytes, value: bytes) -> list[bytes]:
    lower = value.lower()
    if name == b"accept":
        kind = _preferred(lower)
        return [b"accept: %b\n" % kind] if kind else []
    if name == b"sec-fetch-dest":
        if lower in (b"", b"document"):
            return []
        return [_DEST + (b"embed\n" if lower in _EMBEDDED else b"other\n")]
    if name == b"sec-fetch-site":
        return [_OTHER_SITE] if lower == b"cross-site" else []
    if name == b"upgrade-insecure-requests":
        return [b"upgrade-insecure-requests\n"] if value == b"1" else []
    if name == b"save-data":
        return [b"save-data\n"] if lower == b"on" else []
    if value.count(b"=") > LIST_MEMBERS_MAX:
        return [b"forwarded: %b\n" % lower]
    # `for` differs from client to client; the other parts describe the request (RFC 7239).
    return [b"forwarded: %b\n" % said.lower() for said in _FORWARDED_PARTS.findall(value)]


def _preferred(accepted: bytes) -> bytes:
    """Return the kind of response that an Accept in lower case asks for (RFC 9110 section 12.5.1).

    The greatest weight counts, and of equal ones the first. Of a page and data with equal weights
    some applications take the data, so these are a kind together.

    Returns:
        `other` for a type without a kind that is preferred to one with a kind (`text/markdown,
        text/html;q=0.9`); b"" if there is no type with a kind, so that any response will do.
    """
    if accepted.count(b",") + accepted.count(b";") >= LIST_MEMBERS_MAX:
        return _OTHER
    has_kind, greatest, kinds = False, 0.0, [b""]
    for member in accepted.split(b","):
        media_type, *parameters = member.split(b";")
        kind, written = _kind_of(media_type.strip(b" \t")), b"1"
        for parameter in parameters:
            name, _, value = parameter.partition(b"=")
            if name.strip(b" \t") == b"q":
                written = value.strip(b" \t")
        if not _is_weight(written):
            return _OTHER  # applications differ in what they take it for
        weight = float(written)
        has_kind = has_kind or (bool(kind) and weight > 0)
        if weight > greatest:
            greatest, kinds = weight, [kind]
        elif weight == greatest:
            kinds.append(kind)
    if not has_kind:
        return b""
    if _HTML in kinds and (_JSON in kinds or _EVENTS in kinds):
        return b"html or data"
    return kinds[0] or _OTHER


def _kind_of(media_type: bytes) -> bytes:
    if media_type.startswith(b"image/"):
        return b"image"
    return _JSON if b"json" in media_type else _ACCEPTED.get(media_type, b"")


def may_accept_anything(variant_key: bytes) -> bool:
    """Return whether a client with this variant key may name no type of its own."""
    # The keys of browsers begin with it. To see that takes a tenth of the search (1,500 of 101,000
    # instructions of the processor for the mix).
    if not variant_key or variant_key.startswith(b"accept: "):
        return not variant_key
    return variant_key.find(b"accept: ") < 0


def accepts_anything(request: RequestHead, variant_key: bytes) -> bool:
    """Return whether a client names no type of its own: no Accept, or `*/*` alone."""
    return may_accept_anything(variant_key) and request.combined(b"accept").strip() in (
        b"",
        b"*/*",
    )


@lru_cache(maxsize=64)  # nearly always b""
def keys_of_browsers(variant_key: bytes) -> tuple[bytes, bytes]:
    """Return the variant keys of a browser's request for a page that is otherwise like this one."""
    first = ORIGIN_MARK if variant_key.startswith(ORIGIN_MARK) else b""
    marks = variant_key[len(first) :].splitlines(keepends=True)
    page = [*marks, b"accept: html\n"]
    upgrade = [*page, b"upgrade-insecure-requests\n"]
    return first + b"".join(sorted(page)), first + b"".join(sorted(upgrade))


_UPGRADE: Final = b"upgrade-insecure-requests\n"


@lru_cache(maxsize=64)  # nearly always one of two
def key_of_other_browsers(variant_key: bytes) -> bytes | None:
    """Return the variant key of the same request for a page by other browsers; None: it is none.

    Chrome and Firefox send Upgrade-Insecure-Requests always, Safari only over http. It asks for a
    redirect to https, and the page is the same.
    """
    if variant_key.find(b"accept: html\n") < 0:
        return None
    first = ORIGIN_MARK if variant_key.startswith(ORIGIN_MARK) else b""
    marks = variant_key[len(first) :].splitlines(keepends=True)
    if _UPGRADE in marks:
        marks.remove(_UPGRADE)
    else:
        marks.append(_UPGRADE)
    return first + b"".join(sorted(marks))


def is_plain(variant_key: bytes) -> bool:
    """Return whether this is the variant key of an ordinary request for a page."""
    return not variant_key or _PLAIN_MARKS.issuperset(variant_key.split(b"\n"))


def country(fields: Fields) -> bytes:
    """Return the country of the client according to a CDN; b"" is unknown."""
    return b",".join([value for name, value in fields if name in COUNTRY_FIELDS])


_LANGUAGE: Final = re.compile(rb"[A-Za-z]{2,8}+")
# Old browsers; and robots, for which sites make other pages: `(compatible; Googlebot/2.1; ...)`.
_ODD_AGENTS: Final = (b"MSIE ", b"Trident/", b"compatible; ")
_SOFT_FIELDS: Final = (b"accept-language", b"user-agent", b"sec-ch-ua-mobile")

_REMEMBERED_MAX: Final = 512
# The part of a value that is read: a stranger's value may be as long as a head.
_READ_BYTES_MAX: Final = 256


def soft_places(names: Sequence[bytes]) -> tuple[int, ...]:
    """Return the place of each field that `soft_of` reads, among lower-case names; -1 if absent.

    If a name occurs several times, the last one counts. The places are computed once for each form
    of heads (request_parser.py). To search all fields of each head would take 2 us.
    """
    places = {name: at for at, name in enumerate(names) if name in _SOFT_FIELDS}
    return tuple([places.get(name, -1) for name in _SOFT_FIELDS])


ODD_DEVICE: Final = b"odd"  # a program or a robot, or a browser too old for many sites


def soft_of(request: RequestHead) -> Soft:
    """Return the language, device and country of a request; computed once for each head."""
    soft = request.soft
    if soft is None:
        form, fields = request.form, request.made_fields
        if fields is None:
            soft = form.soft(request.values)
        else:
            soft = soft_from(fields, form.soft_at, form.country)
        request.soft = soft
    return soft


def soft_from(fields: Fields, soft_at: tuple[int, ...], country: bytes) -> Soft:
    """Do the same as `soft_of` for fields and the places of those that matter (`soft_places`)."""
    country = country[:_READ_BYTES_MAX]
    if not soft_at:
        return _soft(b"", b"", False, country)
    languages_at, agent_at, mobile_at = soft_at
    languages = fields[languages_at][1][:_READ_BYTES_MAX] if languages_at >= 0 else b""
    agent = b""
    if agent_at >= 0:
        agent = fields[agent_at][1][:_READ_BYTES_MAX] or b" "  # present, but empty
    is_mobile = mobile_at >= 0 and fields[mobile_at][1] == b"?1"
    return _soft(languages, agent, is_mobile, country)


# Browsers send some hundreds of different values, and stored responses share the results.
@lru_cache(_REMEMBERED_MAX)
def _soft(languages: bytes, agent: bytes, mobile: bool, country: bytes) -> Soft:
    match = _LANGUAGE.match(languages)
    language = match[0].lower() if match else b""
    return language, b"mobile" if mobile else _device(agent), country


def _device(agent: bytes) -> bytes:
    if not agent:
        return b""  # nothing is known
    if any(one in agent for one in _ODD_AGENTS):
        return ODD_DEVICE
    if b"Mobi" in agent:
        return b"mobile"
    return b"" if agent.startswith(b"Mozilla/5.0") else ODD_DEVICE


def likeness(one: Soft, other: Soft) -> int:
    """Return how well a response that was made for one suits the other; 7 is best."""
    if one == other:
        return 7
    return 4 * (one[1] == other[1]) + 2 * (one[0] == other[0]) + (one[2] == other[2])
