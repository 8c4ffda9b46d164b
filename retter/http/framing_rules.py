"""Framing rules that are stricter than h11: ambiguous framing is refused, never repaired.

h11 follows RFC 9112 and, like the RFC, allows a recipient some leniency. Each of the following
cases has been read differently by two programs on one path, which makes two requests of one
(request smuggling). A proxy in front of a whole site must be the strictest parser on the path, so
all of them are errors here:

- a bare LF as a line end, in heads, chunk lines and trailers (RFC 9112 section 2.2);
- folded field lines (RFC 9112 section 5.2) and control characters anywhere in a head;
- Content-Length more than once or as a list, even of equal values (RFC 9110 section 8.6), with more
  than 18 digits, or beside Transfer-Encoding (RFC 9112 section 6.3); in requests with a zero before
  other digits, which some read as an octal number;
- Transfer-Encoding in HTTP/1.0 (RFC 9112 section 6.1);
- a Host that is no uri-host [":" port] (RFC 9112 section 3.2);
- in requests, white space after a chunk size; more than 16 digits of it (h11 takes 20), and a chunk
  extension that is not of the grammar, such as one with a bare CR in it (RFC 9112 section 7.1.1);
- a trailer section over a limit, independent of how it is split into segments, and trailer fields
  that frame or route the message (RFC 9110 section 6.5.1).

This module has only pure functions over bytes. Afterwards, h11 checks heads too (in the parsers).
"""

import re
from collections.abc import Iterable

from retter.base.errors import BadRequest, Unsupported, UpstreamMalformed
from retter.http.known_names import ADDRESS_FIELDS, GEO_FIELDS
from retter.http.message import Framing

# All octets below space except CR, LF and HTAB, and also DEL. h11 refuses most of them, but not in
# every place. One search over the whole head is cheaper than to know these places.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# 1*DIGIT (RFC 9110 section 8.6) of at most 18 digits, so that it fits 64 bits everywhere: no sign,
# no list, no leading plus, which some parsers accept.
_LENGTH = re.compile(rb"[0-9]{1,18}")

_LEADING_ZERO = re.compile(rb"0[0-9]")

# uri-host [ ":" port ] (RFC 9110 section 7.2) without userinfo, spaces, commas or path characters.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~!$&'()*+;=%-]{0,255})(?::[0-9]{0,5})?"
)

# Every Content-Length line of a head. h11 merges equal lines, and lists of equal values, into one
# before they can be checked, so they are searched for in the bytes.
_LENGTH_LINES = re.compile(rb"\r\n[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-[Ll][Ee][Nn][Gg][Tt][Hh]:([^\r]*+)")

# chunk-size [ chunk-ext ] (RFC 9112 sections 7.1 and 7.1.1). 16 digits fit 64 bits everywhere.
_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]++"
_PLAIN = rb"[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]*+"
_QUOTED = rb'"' + _PLAIN + rb"(?:\\[\t \x21-\x7e\x80-\xff]" + _PLAIN + rb')*"'
_CHUNK_EXTENSION = (
    rb";[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?"
)
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:" + _CHUNK_EXTENSION + rb"(?:[ \t]*+" + _CHUNK_EXTENSION + rb")*)?"
)
_CHUNK_BYTES_MAX = 2**63 - 1  # the maximum of a signed 64-bit counter behind RETTER

# A trailer field with one of these names is an attempt to change the meaning of the head.
_NEVER_IN_TRAILERS = frozenset({b"content-length", b"transfer-encoding", b"host"})

# RFC 9110 section 6.5.1: fields that control, authenticate or describe the message are not allowed
# in trailers. A recipient that merges trailers into the head would use them, so they are dropped.
_NOT_IN_TRAILERS = frozenset(
    {
        b"age", b"authorization", b"cache-control", b"connection", b"cookie", b"date", b"expect",
        b"expires", b"forwarded", b"keep-alive", b"location", b"max-forwards", b"pragma",
        b"proxy", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"range",
        b"retry-after", b"set-cookie", b"te", b"trailer", b"upgrade", b"vary", b"via", b"warning",
        b"www-authenticate", b"x-circuit", b"x-real-ip", b"x-retter",
    }
)  # fmt: skip
_NOT_IN_TRAILERS_PREFIXES = (b"content-", b"if-", b"x-forwarded-")

# Fields that RETTER writes or that frame the message. Python and PHP applications treat "-" and "_"
# in a field name as the same character. Some gateways (RFC 3875 section 4.1.18) do so with every
# character that is not a letter or a digit. So X_Forwarded_For, or X.Forwarded.For, would be taken
# for RETTER's own field.
_SHADOWED = frozenset(
    {
        *ADDRESS_FIELDS, *GEO_FIELDS, b"connection", b"content-length", b"expect", b"forwarded",
        b"host", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade", b"via", b"x-real-ip",
    }
)  # fmt: skip
# Maps each special character that a name may contain (RFC 9110 section 5.6.2) to "-".
_TAKEN_FOR = bytes.maketrans(b"!#$%&'*+.^_`|~", b"-" * 14)


def line_fault(head: bytes) -> str | None:
    """Return the fault in the line structure of a head, or None.

    The head may be incomplete. A CR at its very end is not a fault, because the LF may be in the
    next segment.
    """
    crlf = head.count(b"\r\n")
    if head.count(b"\n") != crlf:
        return "a line ends in a bare LF"  # RFC 9112 section 2.2 allows it; RETTER does not
    if head.count(b"\r") - head.endswith(b"\r") != crlf:
        return "a bare CR"  # RFC 9112 section 2.2: invalid
    if b"\r\n " in head or b"\r\n\t" in head:
        return "a folded field line"  # RFC 9112 section 5.2
    if _CONTROL.search(head):
        return "a control character"
    return None


def fault_of(error: Exception) -> str:
    """Return what h11 says is wrong, without the malformed line.

    h11 repeats the line, with up to four octets for each: it may be long, and have a secret.
    """
    return str(error).partition(": bytearray(")[0]


def has_control(data: bytes) -> bool:
    """Whether the data contain a control character other than CR, LF and HTAB."""
    return _CONTROL.search(data) is not None


def host_is_valid(host: bytes) -> bool:
    """Whether a Host value or an authority is uri-host [":" port] (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(host) is not None


def length_is_valid(length: bytes) -> bool:
    """Whether a Content-Length value is a plain number (RFC 9110 section 8.6)."""
    return _LENGTH.fullmatch(length) is not None


def length_fault(head: bytes) -> str | None:
    """Return the fault in the Content-Length lines of a whole head, or None."""
    lengths: list[bytes] = _LENGTH_LINES.findall(head)
    if len(lengths) > 1:
        return "more than one Content-Length"  # RFC 9110 section 8.6 would allow equal ones
    if lengths and not length_is_valid(lengths[0].strip(b" \t")):
        return "a malformed Content-Length"
    return None


def has_length(head: bytes) -> bool:
    """Whether a head has a Content-Length line, with any value."""
    return _LENGTH_LINES.search(head) is not None


def may_shadow(names: Iterable[bytes]) -> bool:
    """Whether one of these lower-case field names may be taken for another one. This is rare."""
    together = b" ".join(names)
    return together.translate(_TAKEN_FOR) != together


def shadows(name: bytes) -> bool:
    """Whether a lower-case field name would be taken for one of the protected fields."""
    taken_for = name.translate(_TAKEN_FOR)
    if taken_for == name:
        return False
    return taken_for in _SHADOWED or taken_for.startswith(b"x-forwarded-")


def chunk_size_of(line: bytes) -> int | None:
    """Return the size in a chunk line; None if the line is malformed (RFC 9112 section 7.1)."""
    match = _CHUNK_LINE.fullmatch(line)
    if match is None:
        return None
    size = int(match[1], 16)
    return size if size <= _CHUNK_BYTES_MAX else None


def trailer_fault(trailers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the fault if a trailer field shows that the message is an attack, or None."""
    for name, _ in trailers:
        lower = name.lower().translate(_TAKEN_FOR)
        if lower in _NEVER_IN_TRAILERS:
            return f"{lower.decode()} in the trailers"
    return None


def kept_trailers(trailers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the trailer fields that may be forwarded (RFC 9110 section 6.5.1)."""
    kept: list[tuple[bytes, bytes]] = []
    for name, value in trailers:
        lower = name.lower().translate(_TAKEN_FOR)
        if lower not in _NOT_IN_TRAILERS and not lower.startswith(_NOT_IN_TRAILERS_PREFIXES):
            kept.append((name, value))
    return kept


def _framing(
    fields: Iterable[tuple[bytes, bytes]], http11: bool
) -> tuple[Framing | None, int, str | None]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths:
            return None, 0, "both Transfer-Encoding and Content-Length"  # RFC 9112 section 6.1
        if not http11:
            return None, 0, "Transfer-Encoding in HTTP/1.0"  # RFC 9112 section 6.1
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            return None, 0, "a Transfer-Encoding other than chunked"  # RFC 9112 section 7
        return Framing.CHUNKED, 0, None
    if lengths:
        # RFC 9110 section 8.6 allows equal values to be merged into one. RETTER does not do so.
        if len(lengths) > 1:
            return None, 0, "more than one Content-Length"
        if not length_is_valid(lengths[0]):
            return None, 0, "a malformed Content-Length"
        return Framing.LENGTH, int(lengths[0]), None
    return None, 0, None


def request_framing(fields: Iterable[tuple[bytes, bytes]], http11: bool) -> tuple[Framing, int]:
    """Return how a request's body is framed and its length (RFC 9112 section 6.3).

    Raises:
        BadRequest: The fields contradict each other.
        Unsupported: 501, the coding is unknown.
    """
    framing, length, fault = _framing(fields, http11)
    if fault is not None:
        if fault.endswith("other than chunked"):
            raise Unsupported(fault)
        raise BadRequest(fault)
    if framing is Framing.LENGTH and _LEADING_ZERO.match(_length_of(fields)):
        # RFC 9110 section 8.6 allows it, but a program that reads 010 as an octal number would read
        # another body.
        raise BadRequest("a Content-Length that begins with a zero")
    if framing is None or (framing is Framing.LENGTH and length == 0):
        return Framing.NONE, 0
    return framing, length


def _length_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return next(value for name, value in fields if name == b"content-length")


def response_framing(
    status: int, fields: Iterable[tuple[bytes, bytes]], http11: bool
) -> tuple[Framing, int]:
    """Return how the body of a response to a GET is framed, and its length.

    Raises:
        UpstreamMalformed: The fields contradict each other.
    """
    framing, length, fault = _framing(fields, http11)
    if fault is not None:
        raise UpstreamMalformed(fault)
    if status < 200 or status in (204, 304):
        return Framing.NONE, 0
    if framing is None:
        return Framing.CLOSE, 0
    return framing, length


def check_request_head(head: bytes) -> None:
    """Raise BadRequest if the lines of a request head, or of its beginning, are not plain."""
    if fault := line_fault(head):
        raise BadRequest(fault)


def check_response_head(head: bytes) -> None:
    """Raise UpstreamMalformed if the lines of a response head are not plain."""
    if fault := line_fault(head):
        raise UpstreamMalformed(fault)
