"""A stored response in a content coding that the client can read (RFC 9110 section 8.4).

What cannot be decoded here (compress.py) is as if it were not stored.
"""

from typing import Final

from retter.cachecontrol import coding_of, parse_cache_control
from retter.compress import decodable as decodable_codings
from retter.compress import decoded
from retter.message import RequestHead
from retter.negotiation import VARY_LINE, accepts_coding, canonical, varies_already
from retter.stored import StoredResponse, fields_of

# 16 times the largest stored body: HTML compresses 4 to 10 fold, a bomb a thousand fold.
DECODED_BYTES_MAX: Final = 16 * 1024 * 1024

# What is true of the encoded bytes only.
_ENCODED_FIELDS: Final = (
    b"content-encoding:", b"content-md5:", b"content-digest:", b"repr-digest:", b"digest:",
)


def readable(stored: StoredResponse, request: RequestHead) -> bool:
    """Tell, without decoding it, whether this client can be given the response.

    Only a body that is broken, or too large when decoded, proves it wrong later.
    """
    codings = _codings(stored)
    if all(accepts_coding(request, coding) for coding in codings):
        return True
    known = len(codings) == 1 and canonical(codings[0]) in decodable_codings()
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
    body = decoded(stored.body, canonical(codings[0]), decoded_bytes_max)
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
    varies = any(varies_already(*field) for field in fields_of(head))
    return b"\r\n".join(lines) + (b"" if varies else VARY_LINE)


def plain_body(body: bytes, content_encoding: bytes) -> bytes | None:
    """Return a body without its content coding, or None if it cannot be decoded here."""
    codings = [coding for coding in coding_of(content_encoding).split(b", ") if coding]
    if not codings:
        return body
    if len(codings) > 1:
        return None
    return decoded(body, canonical(codings[0]), DECODED_BYTES_MAX)

