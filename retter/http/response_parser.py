"""The parser of response heads: from bytes to a ResponseHead. All response heads are parsed here.

As in request_parser.py, a head that was seen before is remembered. A new plain head is parsed as a
known form with other values, and h11 decides about everything unusual. This module removes and adds
fields on the way to the client.
"""

import re
from dataclasses import replace
from typing import Final

import h11

from retter.base.errors import UpstreamMalformed
from retter.http.content_coding import (
    VARY_LINE,
    Eligibility,
    compressible_status,
    forbids_coding,
    varies_already,
)
from retter.http.framing_rules import (
    check_response_head,
    length_fault,
    length_is_valid,
    response_framing,
)
from retter.http.hop_by_hop import (
    HOP_BY_HOP,
    SIMPLE_CONNECTION,
    keeps_alive,
    named_by_connection,
    names_a_field,
    passed_protocols,
    stays_here,
    too_many_members,
)
from retter.http.known_names import is_token_field
from retter.http.message import Fields, Framing, ResponseHead, field_lines
from retter.http.templates import (
    OWN_RESPONSE_FIELDS,
    STATUS_LINE,
    FormMemo,
    HeadTemplate,
    Lines,
    form_cutter,
    lines_of,
)

# RETTER's own fields. They are removed from responses, so that only RETTER can set them.
_OUR_RESPONSE_FIELDS: Final = frozenset({b"x-retter", b"x-circuit"})

# h11 accepts a 1xx only as the response to a request, and a 101 only if the request asked for it.
# The exchange checks whether the real request did.
_ANY_REQUEST: Final = h11.Request(
    method="GET", target="/", headers=[("Host", "x"), ("Connection", "upgrade"), ("Upgrade", "x")]
)
_INFORMATIONAL: Final = re.compile(rb"HTTP/1\.[01] 1[0-9][0-9][ \r]")


def _h11_response(head: bytes) -> h11.Response | h11.InformationalResponse:
    connection = h11.Connection(h11.CLIENT)
    if _INFORMATIONAL.match(head):
        connection.send(_ANY_REQUEST)
        connection.send(h11.EndOfMessage())
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        raise UpstreamMalformed(str(error)) from error
    if not isinstance(event, (h11.Response, h11.InformationalResponse)):
        raise UpstreamMalformed("not a response")
    return event


# If the method is unsafe, the URLs in these fields have changed too (RFC 9111 section 4.4).
_PLACES: Final = frozenset({b"location", b"content-location"})
_JUDGED_IN_RESPONSES: Final = frozenset({b"transfer-encoding", b"upgrade", b"clear-site-data"})

# Fields that are not part of a stored response. Upgrade and its Connection are an offer for that
# one connection only. Clear-Site-Data is an order to the browser of one visitor, as Set-Cookie is.
_NOT_STORED: Final = frozenset(
    {b"content-length", b"set-cookie", b"age", b"upgrade", b"connection", b"clear-site-data"}
)
_BODILESS: Final = frozenset({b"204", b"304"})
_VIA: Final = b"Via: 1.1 retter\r\n"
_VIA_VARY: Final = _VIA + VARY_LINE
_cut_response: Final = form_cutter(OWN_RESPONSE_FIELDS)


class _ResponseForm:
    """The meaning of a form of responses, for all values that may be filled in.

    Args:
        lines: The lines of the form.
        eligibility: The responses that are compressed; None: none of them.
    """

    __slots__ = (
        "_cookies_at",
        "_fields",
        "_own",
        "compressible",
        "forward",
        "gives_token",
        "keep_alive",
        "length_at",
        "names_place",
        "needs_full_parse",
        "plain",
        "stored",
        "undated",
        "varies",
    )

    def __init__(self, lines: Lines, eligibility: Eligibility | None) -> None:
        names = [name.lower() for name, _ in lines]
        connections = [v.lower() for n, v in lines if n.lower() == b"connection" and v is not None]
        self._fields = [(name.lower(), value or b"") for name, value in lines]
        self._own = [(at, names[at]) for at, (_, value) in enumerate(lines) if value is None]
        self._cookies_at = [at for at, name in enumerate(names) if name == b"set-cookie"]
        self.keep_alive = b"close" not in connections
        self.undated = b"date" not in names
        self.names_place = not _PLACES.isdisjoint(names)
        self.gives_token = any(map(is_token_field, names))
        self.plain = not (self._cookies_at or self.undated or b"vary" in names)
        self.length_at = names.index(b"content-length") if b"content-length" in names else 0
        self.needs_full_parse = (
            names.count(b"content-length") != 1
            or not SIMPLE_CONNECTION.issuperset(connections)
            or names_a_field(connections, names)
            or not _JUDGED_IN_RESPONSES.isdisjoint(names)
            or any(_is_event_stream(name, value) for name, value in self._fields)
        )
        # Only the status and the length vary within a form. All else that decides about compression
        # is part of the form.
        types = [value for name, value in self._fields if name == b"content-type"]
        self.compressible = (
            eligibility is not None
            and len(types) == 1
            and eligibility.fits(types[0])
            and not any(forbids_coding(name, value) for name, value in self._fields)
        )
        self.varies = any(varies_already(name, value) for name, value in self._fields)
        ends_here = _OUR_RESPONSE_FIELDS | HOP_BY_HOP
        not_stored = ends_here | _NOT_STORED
        self.forward = HeadTemplate(lines, [name not in ends_here for name in names])
        self.stored = HeadTemplate(lines, [name not in not_stored for name in names])

    def fields(self, values: list[bytes]) -> Fields:
        """Return the fields with these values."""
        fields = self._fields.copy()
        for (at, name), value in zip(self._own, values, strict=True):
            fields[at] = (name, value)
        return tuple(fields)

    def set_cookies(self, fields: Fields) -> tuple[bytes, ...]:
        """Return the values of Set-Cookie."""
        return tuple([fields[at][1] for at in self._cookies_at])


class ResponseParser:
    """Parses response heads for one RETTER process.

    Args:
        form_bytes_max: Octets that remembered forms may take; with 0, h11 parses every head.
        fields_max: The maximum number of field lines of a head; 0 is no limit.
        eligibility: The responses that are compressed; None: none of them.
    """

    def __init__(
        self,
        form_bytes_max: int = 512 * 1024,
        fields_max: int = 0,
        eligibility: Eligibility | None = None,
    ) -> None:
        self._forms: FormMemo[_ResponseForm] | None = None
        if form_bytes_max:
            self._forms = FormMemo(form_bytes_max)
        self.configure(fields_max, eligibility)

    def configure(self, fields_max: int, eligibility: Eligibility | None) -> None:
        """Set these arguments of the constructor anew."""
        self._fields_max = fields_max
        self._eligibility = eligibility
        self._coded_bytes_min = eligibility.bytes_min if eligibility is not None else 0
        if self._forms is not None:
            self._forms.clear()  # the meaning of a form may have changed

    def parse(self, head: bytes) -> ResponseHead:
        """Parse one whole response head, from the status line to the empty line.

        Raises:
            UpstreamMalformed: It is not HTTP/1.x, its framing is ambiguous, or it has too many
                fields.
        """
        if self._fields_max and head.count(b"\r\n") - 2 > self._fields_max:
            raise UpstreamMalformed("too many header fields")
        if self._forms is not None:
            parsed = self._parse_form(head, self._forms)
            if parsed is not None:
                return parsed
        return parse_response(head, self._eligibility)

    def _parse_form(self, head: bytes, memo: FormMemo[_ResponseForm]) -> ResponseHead | None:
        """Parse a head of plain lines with one Content-Length; None if h11 must parse it."""
        end = head.index(b"\r\n")
        match = STATUS_LINE.fullmatch(head, 0, end)
        if match is None or match[1] in _BODILESS:
            return None
        pieces = _cut_response(head[end:-2])
        values = pieces[2::3]
        del pieces[2::3]
        key = b"".join(pieces)
        form = memo.young.get(key) or memo.get(key)
        if form is None:
            lines = lines_of(pieces)
            if not lines:
                return None
            form = _ResponseForm(lines, self._eligibility)
            memo.offer(key, form)
        if form.needs_full_parse:
            return None
        fields = form.fields(values)
        length = fields[form.length_at][1]
        if not length_is_valid(length):
            return None
        status, status_line, octets = int(match[1]), head[: end + 2], int(length)
        compressible = (
            form.compressible and octets >= self._coded_bytes_min and compressible_status(status)
        )
        last = _VIA_VARY if compressible and not form.varies else _VIA
        return ResponseHead(
            status=status,
            fields=fields,
            framing=Framing.LENGTH,
            content_length=octets,
            keep_alive=form.keep_alive,
            forward=form.forward.fill(status_line, values) + last,
            stored=form.stored.fill(status_line, values) + last,
            set_cookies=form.set_cookies(fields),
            event_stream=False,
            plain=form.plain and _is_good(status),
            undated=form.undated,
            names_place=form.names_place,
            compressible=compressible,
            gives_token=form.gives_token,
        )


def _is_good(status: int) -> bool:  # as in policy.py, but a redirect may be a step of a login
    return 200 <= status < 300 and status not in (204, 205, 206)


def _is_plain(status: int, fields: Fields) -> bool:
    return _is_good(status) and not any(
        name in (b"set-cookie", b"vary") or _is_event_stream(name, value) for name, value in fields
    )


def _announces_body(fields: Fields) -> bool:
    # RFC 9110 section 8.6 and RFC 9112 section 6.1 forbid this in a 204. An application that does
    # it may also send the body, which would be read as the next response.
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in fields
    )


def _is_event_stream(name: bytes, value: bytes) -> bool:
    return name == b"content-type" and value[:17].lower() == b"text/event-stream"


def parse_response(head: bytes, eligibility: Eligibility | None = None) -> ResponseHead:
    """Parse one whole response head by h11.

    Args:
        eligibility: The responses that are compressed; None: none of them.

    Raises:
        UpstreamMalformed: It is not HTTP/1.x, or its framing is ambiguous.
    """
    check_response_head(head)
    if fault := length_fault(head):
        raise UpstreamMalformed(fault)
    if too_many_members(head):
        raise UpstreamMalformed("too many members in Connection and Upgrade")
    response = _h11_response(head)
    raw = list(response.headers.raw_items())
    http11 = response.http_version != b"1.0"
    if not response.http_version.startswith(b"1."):
        raise UpstreamMalformed("only HTTP/1.x is spoken here")
    status = response.status_code
    fields: Fields = tuple([(name.lower(), value) for name, value in raw])
    framing, length = response_framing(status, fields, http11)
    connection = named_by_connection(fields)
    kept = _kept_of_response(raw, status, connection)
    status_line = b"HTTP/1.1 %d %b\r\n" % (status, bytes(response.reason))
    undated = not any(name == b"date" for name, _ in fields)
    clears_cookies = any(
        name == b"clear-site-data" and (b'"cookies"' in value or b'"*"' in value)
        for name, value in fields
    )
    known_length = None if framing in (Framing.CHUNKED, Framing.CLOSE) else length
    compressible = eligibility is not None and eligibility.judges(status, known_length, fields)
    via = b"" if status < 200 else _VIA
    if compressible and not any(varies_already(name, value) for name, value in fields):
        via = _VIA_VARY
    return ResponseHead(
        status=status,
        fields=fields,
        framing=framing,
        content_length=length,
        keep_alive=framing is not Framing.CLOSE
        and keeps_alive(connection, http11)
        and not (status == 204 and _announces_body(fields)),
        forward=status_line + field_lines(kept) + via,
        stored=status_line
        + field_lines([(name, value) for name, value in kept if name.lower() not in _NOT_STORED])
        + via,
        set_cookies=tuple([value for name, value in fields if name == b"set-cookie"]),
        event_stream=any(_is_event_stream(name, value) for name, value in fields),
        plain=(
            framing is Framing.LENGTH
            and not (undated or clears_cookies)
            and _is_plain(status, fields)
        ),
        undated=undated,
        names_place=any(name in _PLACES for name, _ in fields),
        clears_cookies=clears_cookies,
        compressible=compressible,
        gives_token=any(is_token_field(name) for name, _ in fields),
    )


def dated(head: ResponseHead, date: bytes) -> ResponseHead:
    """Return an undated head with the HTTP-date of its receipt (RFC 9110 section 6.6.1).

    This is a copy, since the memo's head belongs to all responses with the same bytes, at any time.
    """
    line = b"Date: %b\r\n" % date
    return replace(
        head,
        fields=(*head.fields, (b"date", date)),
        forward=head.forward + line,
        stored=head.stored + line,
        undated=False,
    )


def _forwarded_protocols(status: int, value: bytes) -> bytes:
    """Return the protocols in a response's Upgrade field that are forwarded to the client.

    A 101 names the new protocol of the connection, and a 426 must name the required protocols
    (RFC 9110 section 15.5.22). Any other response may advertise protocols (section 7.8). Of these,
    only the protocols that a request can ask for through RETTER are forwarded.
    """
    if status in (101, 426):
        return value
    return b"" if status < 200 else passed_protocols(value)


def _kept_of_response(
    raw: list[tuple[bytes, bytes]], status: int, connection: frozenset[bytes]
) -> list[tuple[bytes, bytes]]:
    kept: list[tuple[bytes, bytes]] = []
    for raw_name, value in raw:
        name = raw_name.lower()
        if name in _OUR_RESPONSE_FIELDS:
            continue
        if name == b"content-length" and (status < 200 or status == 204):
            continue  # RFC 9110 section 8.6: must not be sent
        if name == b"upgrade":
            if value := _forwarded_protocols(status, value):
                kept += [(b"Connection", b"Upgrade"), (raw_name, value)]
        elif not stays_here(name, connection):
            kept.append((raw_name, value))
    return kept
