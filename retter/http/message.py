"""Parsed heads: immutable, free of I/O, and shared by every request with the same bytes.

request_parser.py and response_parser.py make the heads; all other modules only read them. A head
may be shared between connections through the memo, so it is never changed after it is made. The
state of a single request is in its Exchange. Nevertheless the classes are not frozen: a frozen
dataclass takes three times as long to fill (1.6 us against 0.5 us for a RequestHead), and a new
head must be made in a few microseconds.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

Fields = tuple[tuple[bytes, bytes], ...]
"""Field lines in the order received: (lower-case name, value without surrounding white space)."""


Soft = tuple[bytes, bytes, bytes]
"""The audience of a response, as far as known: primary language, device, country."""


# Octets as numbers. `b"?" in target` first tries to convert b"?" to a number, fails, and formats an
# error message that is never shown (CPython 3.11 to 3.13). This takes 0.4 us; with a number it
# takes 0.03.
QUESTION_MARK: Final = 0x3F
SEMICOLON: Final = 0x3B
SLASH: Final = 0x2F
QUOTE: Final = 0x22
APOSTROPHE: Final = 0x27
COMMA: Final = 0x2C
PERCENT: Final = 0x25
PLUS: Final = 0x2B
DOT: Final = 0x2E
LESS_THAN: Final = 0x3C


class Framing(Enum):
    """How the end of a message body is known (RFC 9112 section 6.3)."""

    NONE = "none"  # no body, independent of the fields
    LENGTH = "length"  # Content-Length octets
    CHUNKED = "chunked"  # chunked transfer coding
    CLOSE = "close"  # a response that ends when the connection closes


_NO_VALUES: list[bytes] = []  # of heads without a form


def field_lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return field lines as they are sent (RFC 9112 section 5)."""
    return b"".join([b"%b: %b\r\n" % field for field in fields])


def _first(fields: Fields, name: bytes) -> bytes | None:
    for field_name, value in fields:
        if field_name == name:
            return value
    return None


def _combined(fields: Fields, name: bytes) -> bytes:
    return b", ".join([value for field_name, value in fields if field_name == name])


class HeadForm:
    """What heads of one form have in common (request_parser.py): it makes the rest from values."""

    __slots__ = ()

    def fields(self, values: list[bytes]) -> Fields:
        """Return `RequestHead.fields` of the head with these values."""
        raise NotImplementedError

    def forward(self, method: bytes, target: bytes, values: list[bytes]) -> bytes:
        """Return `RequestHead.forward` of the head with these values."""
        raise NotImplementedError

    def soft(self, values: list[bytes]) -> Soft:
        """Return `RequestHead.soft` of the head with these values."""
        raise NotImplementedError


@dataclass(slots=True, eq=False, init=False)
class RequestHead:
    """A request's head, validated, with its framing and its bytes ready for the application.

    A head of a known form keeps its values, and makes `fields`, `forward` and `soft` of them when
    they are first read. Most requests need no `fields`, and those that are answered from the store
    no `forward`: that saves 4,000 of 207,000 instructions of the processor for a new head that is
    forwarded, 6,500 of 126,000 for one that is answered from the store.
    """

    method: bytes
    target: bytes  # origin-form (absolute-form is rewritten) or "*", bytes untouched
    http11: bool
    host: bytes  # the requested authority, as sent; b"" for HTTP/1.0 without Host
    framing: Framing  # NONE, LENGTH or CHUNKED
    content_length: int  # octets; 0 unless framing is LENGTH
    keep_alive: bool  # the client allows a persistent connection (RFC 9112 section 9.3)
    expect_continue: bool
    upgrade: bytes  # the Upgrade field if Connection names it, else b""
    conditional: bool  # has conditions or a range (RFC 9110 sections 13 and 14)
    identity_fields: Fields  # the fields that may identify the client (owner.py)
    variant_key: bytes  # separates variants of the response (variants.py); usually b""
    country: bytes  # of the client, according to a trusted CDN; b"" is unknown
    ids: tuple[bytes, ...]  # request ids that the client may have chosen
    soft_at: tuple[int, ...]  # places of the fields for language and device; -1: none
    accepts_events: bool  # Accept names an event stream and nothing else
    # The meaning of those fields, computed at the first use (variants.soft_of).
    soft: Soft | None = field(init=False, compare=False)
    form: HeadForm | None  # of which `values` are; None: `fields` and `forward` are made
    values: list[bytes]
    made_fields: Fields | None
    made_forward: bytes  # b"": not made yet. To read it first saves the hot path a call

    # Written by hand, as in other classes with an instance for each request: a constructor that
    # `dataclass` generates is not compiled (setup.py), and that of a named tuple takes twice as
    # long.
    def __init__(
        self,
        method: bytes,
        target: bytes,
        http11: bool,
        host: bytes,
        fields: Fields | None,
        framing: Framing,
        content_length: int,
        keep_alive: bool,
        expect_continue: bool,
        upgrade: bytes,
        conditional: bool,
        forward: bytes,
        identity_fields: Fields,
        variant_key: bytes = b"",
        country: bytes = b"",
        ids: tuple[bytes, ...] = (),
        soft_at: tuple[int, ...] = (),
        accepts_events: bool = False,
        form: HeadForm | None = None,
        values: list[bytes] = _NO_VALUES,
    ) -> None:
        self.method = method
        self.target = target
        self.http11 = http11
        self.host = host
        self.made_fields = fields
        self.framing = framing
        self.content_length = content_length
        self.keep_alive = keep_alive
        self.expect_continue = expect_continue
        self.upgrade = upgrade
        self.conditional = conditional
        self.made_forward = forward
        self.identity_fields = identity_fields
        self.variant_key = variant_key
        self.country = country
        self.ids = ids
        self.soft_at = soft_at
        self.accepts_events = accepts_events
        self.soft = None
        self.form = form
        self.values = values

    @property
    def fields(self) -> Fields:
        """All fields, hop-by-hop ones too."""
        fields = self.made_fields
        if fields is None:
            assert self.form is not None, "fields or a form that makes them"
            fields = self.made_fields = self.form.fields(self.values)
        return fields

    @property
    def forward(self) -> bytes:
        """Request line and end-to-end fields for the application, CRLF-ended.

        forwarding.py adds Via, X-Forwarded-For, -Proto, X-Real-IP and the empty line, which depend
        on the connection.
        """
        return self.made_forward or self.make_forward()

    def make_forward(self) -> bytes:
        """Make `made_forward`. CPython calls a method for 500 instructions less than a property."""
        if self.form is not None:
            self.made_forward = self.form.forward(self.method, self.target, self.values)
        return self.made_forward

    def with_target(self, target: bytes) -> "RequestHead":
        """Return the head of a request that asks for another target; not to be forwarded."""
        return RequestHead(
            self.method, target, self.http11, self.host, self.fields, self.framing,
            self.content_length, self.keep_alive, self.expect_continue, self.upgrade,
            self.conditional, b"", self.identity_fields, self.variant_key, self.country, self.ids,
            self.soft_at, self.accepts_events,
        )  # fmt: skip

    def first(self, name: bytes) -> bytes | None:
        """Return the first field line of that lower-case name, or None."""
        return _first(self.fields, name)

    def combined(self, name: bytes) -> bytes:
        """Return all field lines of that lower-case name as one list (RFC 9110 section 5.3)."""
        return _combined(self.fields, name)


def refused_head(method: bytes, target: bytes) -> RequestHead:
    """Return what is known of a request that is refused for its method or its fields."""
    return RequestHead(
        method, target, True, b"", (), Framing.NONE, 0, False, False, b"", False, b"", ()
    )


@dataclass(slots=True, kw_only=True, eq=False)
class ResponseHead:
    """A response's head, validated, with its framing and its bytes ready for a client."""

    status: int
    fields: Fields  # all of them, hop-by-hop ones too
    framing: Framing  # as for the response to a GET; for a HEAD it is NONE
    content_length: int  # octets; 0 unless framing is LENGTH
    keep_alive: bool  # the upstream connection may be used again
    forward: bytes  # status line and end-to-end fields for the client, CRLF-ended, with
    # Via and Content-Length (if LENGTH), without the empty line
    stored: bytes  # the same without Content-Length, Set-Cookie and Age
    set_cookies: tuple[bytes, ...]
    event_stream: bool  # Content-Type: text/event-stream
    plain: bool  # a good response to a GET whose head needs no further checks:
    # 2xx or 3xx (not 204 to 206, 304), LENGTH, with a Date, no
    # Set-Cookie, Vary or stream
    undated: bool = False  # without Date: it gets the time of its receipt (response_parser.dated)
    names_place: bool = True  # has Location or Content-Location; False only if it has neither
    clears_cookies: bool = False  # Clear-Site-Data: the browser forgets who its user is
    compressible: bool = False  # compressed for clients that accept it (content_coding.py)
    gives_token: bool = False  # a field is named like a token of the client (known_names.py)

    def first(self, name: bytes) -> bytes | None:
        """Return the first field line of that lower-case name, or None."""
        return _first(self.fields, name)

    def combined(self, name: bytes) -> bytes:
        """Return all field lines of that lower-case name as one list (RFC 9110 section 5.3)."""
        return _combined(self.fields, name)
