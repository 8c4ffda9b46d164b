"""Where RETTER is stricter than h11: ambiguous framing is refused, never repaired.

h11 follows RFC 9112 and, like the RFC, allows a recipient some leniency: bare LF as a line end,
folded lines, Content-Length repeated with equal values, Content-Length beside Transfer-Encoding.
Each of these has been read differently by two programs on one path, which is how one request
becomes two. A proxy in front of a whole site has to be the strictest parser on the path, so all
of them are errors here. Pure functions over bytes; h11 has its say afterwards (heads.py).
"""

import re
from collections.abc import Iterable

from retter.errors import BadRequest, UpstreamMalformed
from retter.message import Framing

# Everything below space but CR, LF and HTAB, and DEL. h11 refuses most of these, but not in every
# place; one search over the whole head is cheaper than knowing where.
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# 1*DIGIT (RFC 9110 section 8.6) of at most 18 digits, so that it fits 64 bits everywhere: no sign,
# no list, no leading plus, which some parsers accept.
_LENGTH = re.compile(rb"[0-9]{1,18}")

# uri-host [ ":" port ] (RFC 9110 section 7.2) without userinfo, spaces, commas or path characters.
_HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~!$&'()*+;=%-]{0,255})(?::[0-9]{0,5})?"
)


def line_fault(head: bytes) -> str | None:
    """Say what is wrong with the line structure of a head, or return None.

    Works on an incomplete head too, except that a CR at its very end is given the benefit of the
    doubt: the LF may be in the next segment.
    """
    crlf = head.count(b"\r\n")
    if head.count(b"\n") != crlf:
        return "a line ends in a bare LF"  # RFC 9112 section 2.2 lets us accept it; we do not
    if head.count(b"\r") - head.endswith(b"\r") != crlf:
        return "a bare CR"  # RFC 9112 section 2.2: invalid
    if b"\r\n " in head or b"\r\n\t" in head:
        return "a folded field line"  # RFC 9112 section 5.2
    if _CONTROL.search(head):
        return "a control character"
    return None


def host_is_valid(host: bytes) -> bool:
    """Whether a Host value or an authority is uri-host [":" port] (RFC 9110 section 7.2)."""
    return _HOST.fullmatch(host) is not None


def length_is_valid(length: bytes) -> bool:
    """Whether a Content-Length value is a plain number (RFC 9110 section 8.6)."""
    return _LENGTH.fullmatch(length) is not None


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
        # RFC 9110 section 8.6 lets us fold equal values into one; we do not.
        if len(lengths) > 1:
            return None, 0, "more than one Content-Length"
        if not length_is_valid(lengths[0]):
            return None, 0, "a malformed Content-Length"
        return Framing.LENGTH, int(lengths[0]), None
    return None, 0, None


def request_framing(
    fields: Iterable[tuple[bytes, bytes]], http11: bool
) -> tuple[Framing, int]:
    """Return how a request's body is framed and its length (RFC 9112 section 6.3).

    Raises:
        BadRequest: The fields contradict each other (400), or the coding is unknown (501).
    """
    framing, length, fault = _framing(fields, http11)
    if fault is not None:
        status = 501 if fault.endswith("other than chunked") else 400
        raise BadRequest(fault, status)
    if framing is None or (framing is Framing.LENGTH and length == 0):
        return Framing.NONE, 0
    return framing, length


def response_framing(
    status: int, fields: Iterable[tuple[bytes, bytes]], http11: bool
) -> tuple[Framing, int]:
    """Return how the body of an answer to a GET is framed, and its length.

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

