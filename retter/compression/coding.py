"""A stored response in a content coding that the client can read (RFC 9110 section 8.4).

A body that cannot be decoded (compressors.py), or would become too large, counts as not stored.
decoding.py decides when and where bodies are decoded.
"""

from typing import Final

from retter.compression.compressors import MEMBERS_MAX, decoded
from retter.compression.compressors import decodable as decodable_codings
from retter.http.cache_control import coding_of, parse_cache_control
from retter.http.content_coding import VARY_LINE, accepts_coding, canonical, varies_already
from retter.http.head_edit import fields_of, values_of, without_fields
from retter.http.message import RequestHead
from retter.store.record import Form, StoredResponse

# HTML shrinks by a factor of 4 to 10, a decompression bomb by a thousand. A small body may shrink
# as much if it is very regular, and does no harm.
DECODED_TIMES_MAX: Final = 16
DECODED_BYTES_MIN: Final = 64 * 1024  # allowed in any case
DECODED_BYTES_MAX: Final = 16 * 1024 * 1024  # whatever --store-object-max is

# The largest body that is searched at once, on the event loop: 1 ms. A larger one is not searched.
SEARCHED_BYTES_MAX: Final = 512 * 1024
SEARCHED_MEMBERS_MAX: Final = 16

# Fields that describe only the encoded bytes.
_ENCODED_FIELDS: Final = (
    b"content-encoding:",
    b"content-md5:",
    b"content-digest:",
    b"repr-digest:",
    b"digest:",
)


def decoded_bytes_max(body: bytes) -> int:
    """Return the most octets that an encoded body may decode to."""
    return min(DECODED_BYTES_MAX, max(DECODED_BYTES_MIN, DECODED_TIMES_MAX * len(body)))


def acceptable(stored: StoredResponse, request: RequestHead) -> bool:
    """Return whether this client accepts the response as it is stored."""
    return all(accepts_coding(request, coding) for coding in _codings(stored.content_coding))


def readable(stored: StoredResponse, request: RequestHead) -> bool:
    """Return, without decoding it, whether this client can be given the response.

    The answer is only wrong for a body that is broken, or too large when decoded.
    """
    return acceptable(stored, request) or bool(
        coding_to_decode(stored.content_coding) and not _no_transform(stored.head)
    )


def is_encoded(content_encoding: bytes) -> bool:
    """Return whether a body has a content coding."""
    return bool(_codings(content_encoding))


def coding_to_decode(content_encoding: bytes) -> bytes:
    """Return the only coding if it can be decoded here; b"" if there is none or several."""
    codings = _codings(content_encoding)
    coding = canonical(codings[0]) if len(codings) == 1 else b""
    return coding if coding in decodable_codings() else b""


def _codings(content_encoding: bytes) -> list[bytes]:
    return [coding for coding in coding_of(content_encoding).split(b", ") if coding]


def plain_body(
    body: bytes, content_encoding: bytes, bytes_max: int, members_max: int = MEMBERS_MAX
) -> bytes | None:
    """Return a body without its content coding, or None if it cannot or may not be decoded here.

    Args:
        bytes_max: Most octets of the decoded body.
        members_max: Most members of gzip, or frames of zstd, in one body.
    """
    if not is_encoded(content_encoding):
        return body
    coding = coding_to_decode(content_encoding)
    return decoded(body, coding, bytes_max, members_max) if coding else None


def searchable_body(body: bytes, content_encoding: bytes) -> bytes | None:
    """Return a body without its content coding, to be searched; None if that would take long."""
    return plain_body(body, content_encoding, SEARCHED_BYTES_MAX, SEARCHED_MEMBERS_MAX)


def decoded_form(stored: StoredResponse, body: bytes) -> Form:
    """Return the form of a response for clients that do not accept its coding.

    It has a weak ETag and no fields that describe only the encoded bytes.
    """
    return Form(_decoded_head(stored.head, _weak(stored.etag)), body)


def shown_decoded(stored: StoredResponse, form: Form) -> StoredResponse:
    """Return a stored response as it would be if it had been stored in its decoded form."""
    return stored._replace(
        head=form.head, body=form.body, content_coding=b"", etag=_weak(stored.etag), forms=None
    )


def _weak(etag: bytes) -> bytes:
    return etag if not etag or etag[:2] == b"W/" else b"W/" + etag


def _no_transform(head: bytes) -> bool:
    return parse_cache_control(b", ".join(values_of(head, b"cache-control:"))).no_transform


def _decoded_head(head: bytes, etag: bytes) -> bytes:
    def with_etag(line: bytes) -> bytes:
        return b"ETag: " + etag if line[:5].lower() == b"etag:" else line

    varies = any(varies_already(*field) for field in fields_of(head))
    return without_fields(head, _ENCODED_FIELDS, with_etag) + (b"" if varies else VARY_LINE)
