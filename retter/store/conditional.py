"""The response that a client gets from a stored one: all of it, a 304, or a part (206, 416).

Conditions are evaluated in the order of RFC 9110 section 13.2.2. If-Match and If-Unmodified-Since
are only for the origin (RFC 9111 section 4.3.2) and are ignored here. Only a stored 200 is ever
answered as a part or as not modified.
"""

import re
from typing import Final, NamedTuple

from retter.base.limits import LIST_MEMBERS_MAX
from retter.http.dates import parse_http_date
from retter.http.head_edit import values_of, with_start_line, without_fields
from retter.http.message import RequestHead
from retter.store.record import StoredResponse

# A smaller part is copied, because it is written in one piece with its head, like a body.
VIEW_BYTES_MIN: Final = 64 * 1024


class Answer(NamedTuple):
    """A response. `head` is the status line and the fields, without Age and the empty line."""

    status: int
    head: bytes
    body: bytes | memoryview  # not copied if large: a slow client would keep the copy long


_TAG = rb"(?:W/)?\"[!#-~\x80-\xff]*+\""
_entity_tag_list = re.compile(rb"[ \t,]*+" + _TAG + rb"(?:[ \t]*+,[ \t,]*+" + _TAG + rb")*[ \t,]*+")
_entity_tag = re.compile(_TAG)
# One range of octets. 18 digits are enough for any file; a longer number is not read as a range.
_single_range = re.compile(rb"bytes=[ \t]*+([0-9]{0,18})-([0-9]{0,18})[ \t]*+", re.IGNORECASE)

# RFC 9110 section 15.4.5: a 304 does not describe the representation that the client has.
_NOT_IN_304: Final = (
    b"content-type:",
    b"content-encoding:",
    b"content-language:",
    b"content-range:",
    b"content-length:",
    b"content-disposition:",
    b"content-md5:",
    b"content-digest:",
    b"repr-digest:",
    b"digest:",
    b"accept-ranges:",
)
_ABOUT_WHOLE_BODY: Final = (b"content-md5:", b"content-digest:")
_ABOUT_REPRESENTATION: Final = (*_NOT_IN_304, b"etag:", b"last-modified:")


def answer(request: RequestHead, stored: StoredResponse) -> Answer:
    """Decide 200, 304, 206 or 416 for a GET or HEAD that is answered from the store.

    The caller adds Age, Via and RETTER's own fields.
    """
    if stored.status != 200:
        return _whole(stored)
    if _not_modified(request, stored):
        return Answer(304, _not_modified_head(stored), b"")
    # RFC 9110 section 14.2: Range is defined only for GET.
    asks_part = request.method == b"GET" and request.first(b"range") is not None
    if asks_part and _if_range_holds(request, stored):
        return _ranged(request.combined(b"range"), stored)
    return _whole(stored)


def _whole(stored: StoredResponse) -> Answer:
    if stored.status == 204:  # RFC 9110 section 8.6: never a Content-Length
        return Answer(204, stored.head, b"")
    length = b"Content-Length: %d\r\n" % len(stored.body)
    return Answer(stored.status, stored.head + length, stored.body)


def _not_modified(request: RequestHead, stored: StoredResponse) -> bool:
    """Evaluate If-None-Match, or else If-Modified-Since (RFC 9110 sections 13.1.2 and 13.1.3)."""
    if request.first(b"if-none-match") is not None:
        return _matches_weakly(request.combined(b"if-none-match"), stored.etag)
    if (since := request.first(b"if-modified-since")) is None:
        return False
    if since == stored.last_modified:
        return True
    # Without Last-Modified, the Date is used (RFC 9111 section 4.3.2).
    changed_at = parse_http_date(stored.last_modified or _field(stored.head, b"date:"))
    known_at = parse_http_date(request.combined(b"if-modified-since"))
    return changed_at is not None and known_at is not None and changed_at <= known_at


def _matches_weakly(value: bytes, etag: bytes) -> bool:
    if value == b"*":
        return True
    if not etag or value.count(b",") >= LIST_MEMBERS_MAX or not _entity_tag_list.fullmatch(value):
        return False
    opaque = etag.removeprefix(b"W/")
    if len(opaque) < 2 or opaque[:1] != b'"' or opaque[-1:] != b'"':
        return False
    # No tag in the list contains a quote, so every second piece between quotes is a tag.
    return opaque[1:-1] in value.split(b'"')[1::2]


def _if_range_holds(request: RequestHead, stored: StoredResponse) -> bool:
    """Evaluate If-Range (RFC 9110 section 13.1.5): strong comparison, an exact date."""
    if request.first(b"if-range") is None:
        return True
    value = request.combined(b"if-range")
    if _entity_tag.fullmatch(value):
        return value == stored.etag and not value.startswith(b"W/")
    if not value or value != stored.last_modified:
        return False
    # Section 8.8.2.2: a date is strong if the response was made at least a second later.
    modified, made = parse_http_date(value), parse_http_date(_field(stored.head, b"date:"))
    return modified is not None and made is not None and made - modified >= 1


def _ranged(value: bytes, stored: StoredResponse) -> Answer:
    """Answer a Range field (RFC 9110 section 14.2); an unsupported one gets the whole response."""
    match = _single_range.fullmatch(value)
    if match is None:
        return _whole(stored)
    first, last, length = match[1], match[2], len(stored.body)
    if first:
        start, end = int(first), int(last) if last else length - 1
        if end < start and last:
            return _whole(stored)  # section 14.1.1: invalid, so it is ignored
        if start >= length:
            return _unsatisfiable(stored)
        end = min(end, length - 1)
    elif not last or not length:
        # Neither number, or the last bytes of an empty body: no Content-Range can express that.
        return _whole(stored)
    else:
        if int(last) == 0:
            return _unsatisfiable(stored)
        start, end = max(0, length - int(last)), length - 1
    part: bytes | memoryview = (
        stored.body[start : end + 1]
        if end - start < VIEW_BYTES_MIN
        else (memoryview(stored.body)[start : end + 1])
    )
    head = _rewritten(stored.head, b"HTTP/1.1 206 Partial Content", _ABOUT_WHOLE_BODY)
    head += b"Content-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n" % (
        start,
        end,
        length,
        len(part),
    )
    return Answer(206, head, part)


def _unsatisfiable(stored: StoredResponse) -> Answer:
    head = _rewritten(stored.head, b"HTTP/1.1 416 Range Not Satisfiable", _ABOUT_REPRESENTATION)
    head += b"Content-Range: bytes */%d\r\nContent-Length: 0\r\n" % len(stored.body)
    return Answer(416, head, b"")


def _not_modified_head(stored: StoredResponse) -> bytes:
    # Last-Modified only helps a client that has no tag to compare.
    without = (*_NOT_IN_304, b"last-modified:") if stored.etag else _NOT_IN_304
    return _rewritten(stored.head, b"HTTP/1.1 304 Not Modified", without)


def _rewritten(head: bytes, status_line: bytes, without: tuple[bytes, ...]) -> bytes:
    return with_start_line(without_fields(head, without), status_line)


def _field(head: bytes, name: bytes) -> bytes:
    values = values_of(head, name)
    return values[0] if values else b""
