"""Parsed heads: immutable, free of I/O, and shared by every request with the same bytes.

request_parser.py and response_parser.py make the heads; all other modules only read them. A head
may be shared between connections through the memo, so it is never changed after it is made. The
state of a single request is in its Exchange. Nevertheless the classes are not frozen: a frozen
dataclass takes three times as long to fill (1.6 us against 0.5 us for a RequestHead), and a new
head must be made in a few microseconds.
"""

from dataclasses import dataclass
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
    """What heads of one form have in common (request_parser.py); it makes the rest from values.

    A head without a form has an object of this class for itself, and its fields ready.
    """

    __slots__ = (
        "accepts_events", "conditional", "content_length", "country", "expect_continue", "framing",
        "host", "http11", "keep_alive", "soft_at", "upgrade",
    )  # fmt: skip

    def __init__(
        self,
        *,
        host: bytes,
        http11: bool = True,
        framing: Framing = Framing.NONE,
        content_length: int = 0,
        keep_alive: bool = True,
        expect_continue: bool = False,
        upgrade: bytes = b"",
        conditional: bool = False,
        country: bytes = b"",
        soft_at: tuple[int, ...] = (),
        accepts_events: bool = False,
    ) -> None:
        self.http11 = http11
        self.host = host  # the requested authority, as sent; b"" for HTTP/1.0 without Host
        self.framing = framing  # NONE, LENGTH or CHUNKED
        self.content_length = content_length  # octets; 0 unless framing is LENGTH
        # The client allows a persistent connection (RFC 9112 section 9.3).
        self.keep_alive = keep_alive
        self.expect_continue = expect_continue
        self.upgrade = upgrade  # the Upgrade field if Connection names it, else b""
        self.conditional = conditional  # has conditions or a range (RFC 9110 sections 13 and 14)
        self.country = country  # of the client, according to a trusted CDN; b"" is unknown
        self.soft_at = soft_at  # places of the fields for language and device; -1: none
        self.accepts_events = accepts_events  # Accept names an event stream and nothing else

    def fields(self, values: list[bytes]) -> Fields:
        """Return `RequestHead.fields` of the head with these values."""
        raise NotImplementedError

    def forward(self, method: bytes, target: bytes, values: list[bytes]) -> bytes:
        """Return `RequestHead.forward` of the head with these values; b"" if it is refused."""
        return b""

    def soft(self, values: list[bytes]) -> Soft:
        """Return `RequestHead.soft` of the head with these values."""
        raise NotImplementedError


class RequestHead:
    """A request's head, validated, with its framing and its bytes ready for the application.

    A head of a known form keeps its values, and makes `fields`, `forward` and `soft` of them when
    they are first read. Most requests need no `fields`, and those that are answered from the store
    no `forward`: that saves 4,000 of 207,000 instructions of the processor for a new head that is
    forwarded, 6,500 of 126,000 for one that is answered from the store.

    What is the same for all heads of a form is an attribute of the form: to copy the eleven of them
    into each head takes 1,400 of 175,000. They can be read here as well, but for a request that is
    one of many, they are read there: CPython calls a property for 500 instructions.

    Attributes:
        method: As sent.
        target: In origin-form (absolute-form is rewritten) or "*", bytes untouched.
        form: Of which `values` are.
        identity_fields: The fields that may identify the client (owner.py).
        variant_key: Separates variants of the response (variants.py); usually b"".
        ids: Request ids that the client may have chosen.
        soft: The meaning of the fields for language and device, computed at the first use
            (`variants.soft_of`).
        made_fields: `fields`; None: not made yet.
        made_forward: `forward`; b"": not made yet. The hot path makes it without a property.
    """

    __slots__ = (
        "form", "identity_fields", "ids", "made_fields", "made_forward", "method", "soft", "target",
        "values", "variant_key",
    )  # fmt: skip

    # Written by hand, as in other classes with an instance for each request: a constructor that
    # `dataclass` generates is not compiled (setup.py), and that of a named tuple takes twice as
    # long.
    def __init__(
        self,
        method: bytes,
        target: bytes,
        form: HeadForm,
        identity_fields: Fields,
        variant_key: bytes = b"",
        ids: tuple[bytes, ...] = (),
        values: list[bytes] = _NO_VALUES,
        fields: Fields | None = None,
        forward: bytes = b"",
    ) -> None:
        self.method = method
        self.target = target
        self.form = form
        self.identity_fields = identity_fields
        self.variant_key = variant_key
        self.ids = ids
        self.values = values
        self.soft: Soft | None = None
        self.made_fields = fields
        self.made_forward = forward

    @property
    def http11(self) -> bool:
        return self.form.http11

    @property
    def host(self) -> bytes:
        return self.form.host

    @property
    def framing(self) -> Framing:
        return self.form.framing

    @property
    def content_length(self) -> int:
        return self.form.content_length

    @property
    def keep_alive(self) -> bool:
        return self.form.keep_alive

    @property
    def expect_continue(self) -> bool:
        return self.form.expect_continue

    @property
    def upgrade(self) -> bytes:
        return self.form.upgrade

    @property
    def conditional(self) -> bool:
        return self.form.conditional

    @property
    def country(self) -> bytes:
        return self.form.country

    @property
    def soft_at(self) -> tuple[int, ...]:
        return self.form.soft_at

    @property
    def accepts_events(self) -> bool:
        return self.form.accepts_events

    @property
    def fields(self) -> Fields:
        """All fields, hop-by-hop ones too."""
        fields = self.made_fields
        if fields is None:
            fields = self.made_fields = self.form.fields(self.values)
        return fields

    @property
    def forward(self) -> bytes:
        """Request line and end-to-end fields for the application, CRLF-ended.

        forwarding.py adds Via, X-Forwarded-For, -Proto, X-Real-IP and the empty line, which depend
        on the connection.
        """
        if not self.made_forward:
            self.made_forward = self.form.forward(self.method, self.target, self.values)
        return self.made_forward

    def with_target(self, target: bytes) -> "RequestHead":
        """Return the head of a request that asks for another target; not to be forwarded."""
        return RequestHead(
            self.method, target, self.form, self.identity_fields, self.variant_key, self.ids,
            self.values, self.fields,
        )  # fmt: skip

    def first(self, name: bytes) -> bytes | None:
        """Return the first field line of that lower-case name, or None."""
        return _first(self.fields, name)

    def combined(self, name: bytes) -> bytes:
        """Return all field lines of that lower-case name as one list (RFC 9110 section 5.3)."""
        return _combined(self.fields, name)


def refused_head(method: bytes, target: bytes) -> RequestHead:
    """Return what is known of a request that is refused for its method or its fields."""
    return RequestHead(method, target, HeadForm(host=b"", keep_alive=False), (), fields=())


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
