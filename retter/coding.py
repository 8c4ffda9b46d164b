"""A stored response in a content coding that the client can read (RFC 9110 section 8.4).

Only what the standard library decodes is decoded; anything else is as if it were not stored.
"""

import re
import zlib
from typing import Final

from retter.cachecontrol import parse_cache_control
from retter.message import RequestHead
from retter.stored import StoredResponse

# 16 times the largest stored body: HTML compresses 4 to 10 fold, a bomb a thousand fold.
DECODED_BYTES_MAX: Final = 16 * 1024 * 1024

_MEMBER = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)"
    rb"[ \t]*(?:;[ \t]*[qQ]=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)
_ALIASES: Final = {b"x-gzip": b"gzip", b"x-compress": b"compress"}
_DECODED: Final = frozenset({b"gzip", b"deflate"})  # by the standard library
# What is true of the encoded bytes only.
_ENCODED_FIELDS: Final = (
    b"content-encoding:", b"content-md5:", b"content-digest:", b"repr-digest:", b"digest:",
)


def accepts_coding(request: RequestHead, coding: bytes) -> bool:
    """Tell whether the client said that it can decode this coding (RFC 9110 section 12.5.3).

    Without Accept-Encoding the RFC allows any coding. Clients that do not send it (scripts, health
    checks) cannot decode one, so here it means identity. A malformed member accepts nothing.
    """
    wanted = _ALIASES.get(coding, coding)
    star = False
    for member in request.combined(b"accept-encoding").lower().split(b","):
        if (found := _MEMBER.fullmatch(member)) is None:
            continue
        acceptable = found[2] is None or found[2].strip(b"0.") != b""
        name = _ALIASES.get(found[1], found[1])
        if name == wanted:
            return acceptable
        if name == b"*":
            star = acceptable
    return star


def readable(stored: StoredResponse, request: RequestHead) -> bool:
    """Tell, without decoding it, whether this client can be given the response.

    Only a body that is broken, or too large when decoded, proves it wrong later.
    """
    codings = _codings(stored)
    if all(accepts_coding(request, coding) for coding in codings):
        return True
    known = len(codings) == 1 and _ALIASES.get(codings[0], codings[0]) in _DECODED
    return known and not _no_transform(stored.head)


def _codings(stored: StoredResponse) -> list[bytes]:
    codings = [c.strip(b" \t") for c in stored.content_coding.split(b",")]
    return [coding for coding in codings if coding not in (b"", b"identity")]


def decodable(
    stored: StoredResponse, request: RequestHead, decoded_bytes_max: int = DECODED_BYTES_MAX
) -> StoredResponse | None:
    """Return the response in a form that this client can read, or None: then it is a miss.

    As stored, if it is not encoded or the client accepts the coding; else decoded, without what
    was true of the encoded bytes only and with a weak ETag. `no-transform` is obeyed.
    """
    codings = _codings(stored)
    if all(accepts_coding(request, coding) for coding in codings):
        return stored
    if len(codings) != 1 or _no_transform(stored.head):
        return None
    body = _decode(stored.body, _ALIASES.get(codings[0], codings[0]), decoded_bytes_max)
    if body is None:
        return None
    etag = stored.etag if not stored.etag or stored.etag[:2] == b"W/" else b"W/" + stored.etag
    return stored._replace(
        head=_decoded_head(stored.head, etag), body=body, content_coding=b"", etag=etag
    )


def _no_transform(head: bytes) -> bool:
    values = [
        line.partition(b":")[2].strip(b" \t") for line in head.split(b"\r\n")
        if line[:14].lower() == b"cache-control:"
    ]
    return parse_cache_control(b", ".join(values)).no_transform


def _decoded_head(head: bytes, etag: bytes) -> bytes:
    lines: list[bytes] = []
    for line in head.split(b"\r\n"):
        lower = line.lower()
        if lower.startswith(_ENCODED_FIELDS):
            continue
        lines.append(b"ETag: " + etag if lower.startswith(b"etag:") else line)
    return b"\r\n".join(lines)


def plain_body(body: bytes, content_encoding: bytes) -> bytes | None:
    """Return a body without its content coding, or None if it cannot be decoded here."""
    codings = [c.strip(b" \t") for c in content_encoding.lower().split(b",")]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if not codings:
        return body
    if len(codings) > 1:
        return None
    return _decode(body, _ALIASES.get(codings[0], codings[0]), DECODED_BYTES_MAX)


def _decode(body: bytes, coding: bytes, bytes_max: int) -> bytes | None:
    if coding == b"gzip":
        return _inflate(body, zlib.MAX_WBITS | 16, bytes_max)
    if coding == b"deflate":
        # With the zlib wrapper as the RFC says, or without it as some servers send it.
        decoded = _inflate(body, zlib.MAX_WBITS, bytes_max)
        return _inflate(body, -zlib.MAX_WBITS, bytes_max) if decoded is None else decoded
    return None


def _inflate(body: bytes, wbits: int, bytes_max: int) -> bytes | None:
    """Decode whole, or return None: broken, cut short, or larger than allowed."""
    pieces: list[bytes] = []
    room = bytes_max
    while body:
        inflater = zlib.decompressobj(wbits)
        try:
            piece = inflater.decompress(body, room + 1)
        except zlib.error:
            return None
        if len(piece) > room or not inflater.eof:
            return None
        pieces.append(piece)
        room -= len(piece)
        body = inflater.unused_data      # a gzip body may have several members
    return b"".join(pieces)
