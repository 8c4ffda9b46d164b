"""From head bytes to RequestHead and ResponseHead: the one place where heads are parsed.

h11 needs about 25 us for a browser's head, more than the whole rest of a request, so no head is
parsed twice: `HeadMemo` keeps the result under the exact bytes it was made from. That makes the
memo invisible, since equal bytes have equal meaning. A head that is new goes the short way, a
remembered line at a time (lines.py), if all of it is plain, and through h11 if anything is not.
What h11 lets pass and we do not is in strict.py; what is removed, renamed and added on the way to
the other side is here.
"""

import re
from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Generic, NamedTuple, TypeVar, cast

import h11

from retter.errors import BadRequest, DownstreamError, LoopDetected, Unsupported, UpstreamMalformed
from retter.lines import FIELD_LINE, REQUEST_LINE, STATUS_LINE, LineMemo, lines_of
from retter.message import Fields, Framing, RequestHead, ResponseHead
from retter.negotiation import (
    VARY_LINE,
    Eligibility,
    compressible_status,
    forbids_coding,
    reduced_accept_encoding,
    varies_already,
)
from retter.strict import (
    check_request_head,
    check_response_head,
    has_length,
    host_is_valid,
    length_fault,
    length_is_valid,
    request_framing,
    response_framing,
    shadows,
)

# RFC 9110 section 7.6.1: fields that concern one connection. Upgrade is put back when it is meant
# for the application; Transfer-Encoding is rewritten because the body is framed anew.
HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"}
)

# What a client must not be able to remove by naming it in Connection: that trick takes the
# credentials or the address away from the request after someone in front has checked them.
_PROTECTED = frozenset(
    {
        b"host", b"cookie", b"set-cookie", b"authorization", b"via", b"forwarded", b"x-real-ip",
        b"cache-control", b"date", b"expect", b"location",
    }
)  # fmt: skip
_PROTECTED_PREFIXES = (b"content-", b"x-forwarded-")

# Written anew for every request by forwarding.py, with what the connection knows.
_FORWARDED_ANEW = frozenset({b"x-forwarded-for", b"x-real-ip", b"x-forwarded-proto"})

# Who the client is and what it asked for, as told by whoever is in front: passed on if that is a
# trusted proxy, else dropped.
_FORWARDING = _FORWARDED_ANEW | {
    b"forwarded", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-server",
    b"x-forwarded-ssl", b"x-forwarded-scheme", b"x-forwarded-prefix",
}  # fmt: skip

# Ours, so that nobody else's can be taken for them.
_OUR_RESPONSE_FIELDS = frozenset({b"x-retter", b"x-circuit"})

_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)
_SCHEME = re.compile(rb"https?://", re.IGNORECASE)
_VERSION = re.compile(rb"[^\r\n]* HTTP/([0-9]\.[0-9])\r\n")

Parsed = TypeVar("Parsed")

# Hashes of heads that have come once: half a megabyte, and some seconds of traffic.
SEEN_HEADS_MAX = 8192


class HeadMemo(Generic[Parsed]):
    """A bounded map from exact head bytes to what they parse to.

    Two dicts take turns: a full young one becomes the old one, and what is asked for again moves
    back. That is nearly least-recently-used, and a hit costs one dict look-up and no bookkeeping.
    """

    __slots__ = ("_bytes", "_bytes_max", "_old", "_seen", "hits", "misses", "young")

    # What an entry holds beside its key, per byte of head: the field tuples, the rewritten bytes.
    # Counted with sys.getsizeof over browser heads: 4.5 to 6 bytes a byte.
    COST_PER_BYTE = 6

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max // 2
        self._bytes = 0
        self.young: dict[bytes, Parsed] = {}
        self._old: dict[bytes, Parsed] = {}
        self._seen: set[int] = set()
        self.hits = 0
        self.misses = 0

    def get(self, head: bytes) -> Parsed | None:
        """Return what these bytes parsed to, or None."""
        found = self.young.get(head)
        if found is not None:
            self.hits += 1
            return found
        found = self._old.pop(head, None)
        if found is not None:
            self.hits += 1
            self.put(head, found)
            return found
        self.misses += 1
        return None

    def put(self, head: bytes, parsed: Parsed) -> None:
        """Remember what these bytes parsed to."""
        cost = len(head) * self.COST_PER_BYTE + 500
        if cost > self._bytes_max:
            return
        if self._bytes + cost > self._bytes_max:
            self._old, self.young, self._bytes = self.young, {}, 0
        self.young[head] = parsed
        self._bytes += cost

    def offer(self, head: bytes, parsed: Parsed) -> None:
        """Remember what these bytes parsed to if they have been offered before.

        Most heads with a cookie or a query of their own never come again; kept, they would push
        out those that do. A hash that two heads share only lets one in a little early.
        """
        mark = hash(head)
        if mark in self._seen:
            self.put(head, parsed)
            return
        if len(self._seen) >= SEEN_HEADS_MAX:
            self._seen.clear()
        self._seen.add(mark)

    def clear(self) -> None:
        """Forget everything."""
        self.young.clear()
        self._old.clear()
        self._seen.clear()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.young) + len(self._old)


def _named_by_connection(fields: Fields) -> frozenset[bytes]:
    """Return the lower-case options of all Connection fields (RFC 9110 section 7.6.1)."""
    options: set[bytes] = set()
    for name, value in fields:
        if name == b"connection":
            options.update(option.strip().lower() for option in value.split(b","))
    return frozenset(options)


def _stays_here(name: bytes, connection: frozenset[bytes]) -> bool:
    """Whether a field of that lower-case name ends at this hop."""
    if name in HOP_BY_HOP:
        return True
    if name not in connection:
        return False
    return name not in _PROTECTED and not name.startswith(_PROTECTED_PREFIXES)


def _keeps_alive(connection: frozenset[bytes], http11: bool) -> bool:
    # RFC 9112 section 9.3
    if b"close" in connection:
        return False
    return http11 or b"keep-alive" in connection


def _lines(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % field for field in fields])


# -- requests ---------------------------------------------------------------------------------


def _h11_request(head: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == 501 and has_length(head):
            # whatever the coding (RFC 9112 section 6.1)
            raise BadRequest("both Transfer-Encoding and Content-Length") from error
        raise BadRequest(str(error), error.error_status_hint) from error
    if not isinstance(event, h11.Request):  # cannot be NEED_DATA: the head ends in an empty line
        raise BadRequest("not a request")
    return event


def _check_version(head: bytes) -> None:
    # RFC 9112 section 2.3: a recipient of 1.x takes any minor version; another major is 505.
    if (match := _VERSION.match(head)) and not match[1].startswith(b"1."):
        raise Unsupported("only HTTP/1.x is spoken here", 505)


def _origin_form(method: bytes, target: bytes, host: bytes | None) -> tuple[bytes, bytes | None]:
    """Return target and host with an absolute-form target rewritten (RFC 9112 section 3.2.2)."""
    if target.startswith(b"/"):
        if b"#" in target:
            raise BadRequest("a fragment in the request target")
        return target, host
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest("the asterisk form is for OPTIONS alone")
        return target, host
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not match[1]:
        raise BadRequest("the request target is neither a path nor an http URL")
    path = match[2]
    if not path:
        path = b"*" if method == b"OPTIONS" else b"/"  # RFC 9112 section 3.2.4
    elif path.startswith(b"?"):
        path = b"/" + path
    return path, match[1]


def _upgrade_of(fields: Fields, connection: frozenset[bytes], http11: bool) -> bytes:
    # RFC 9110 section 7.8. h2c is left out: an application that takes it would get a tunnel of
    # requests that nobody in front can read any more.
    if not http11 or b"upgrade" not in connection:
        return b""
    offers = [
        offer.strip()
        for name, value in fields
        if name == b"upgrade"
        for offer in value.split(b",")
    ]
    return b", ".join(
        [o for o in offers if o and not o.lower().startswith((b"h2", b"tls", b"http/2"))]
    )


def _takes_trailers(te: bytes) -> bool:
    return b"trailers" in [member.strip() for member in te.lower().split(b",")]


def _expects_continue(fields: Fields, http11: bool) -> bool:
    expects = [value.lower() for name, value in fields if name == b"expect"]
    if not expects or not http11:  # RFC 9110 section 10.1.1: ignored from HTTP/1.0
        return False
    if expects != [b"100-continue"]:
        raise BadRequest("an unknown expectation", 417)
    return True


class _Part(IntEnum):
    """What a line asks of whoever puts a head together."""

    PLAIN = 0           # nothing: it stands for itself
    HOST = 1            # a valid Host, of which there must be one
    KEEP_ALIVE = 2      # Connection: keep-alive
    CLOSE = 3           # Connection: close
    LENGTH = 4          # of a response: a valid Content-Length
    COOKIE = 5          # of a response: Set-Cookie
    CONDITION = 6       # of a request: If-None-Match and the like, or Range
    JUDGED = 7          # bears on the meaning of other lines: they are judged together
    TYPE = 8            # of a response: a Content-Type that gains by compression
    UNTOUCHED = 9       # of a response: its body is to be left alone
    VARIES = 10         # of a response: a Vary with Accept-Encoding


class _RequestLine(NamedTuple):
    """What one field line of a request means."""

    field: tuple[bytes, bytes]      # lower-case name, value
    raw: tuple[bytes, bytes]        # name as sent, value
    forward: bytes                  # the line for the application; b"" if it ends here
    part: int


(
    _PLAIN, _HOST, _KEEP_ALIVE, _CLOSE, _LENGTH, _COOKIE, _CONDITION, _JUDGED,
    _TYPE, _UNTOUCHED, _VARIES,
) = map(int, _Part)  # fmt: skip

# What makes the store think before it answers. If-Match is the application's alone, but it may
# name a tag that RETTER has weakened.
_CONDITIONS = frozenset({b"if-none-match", b"if-match", b"if-modified-since", b"range"})

# Fields that decide how the request is framed, forwarded or refused.
_JUDGED_IN_REQUESTS = frozenset(
    {
        b"content-length", b"transfer-encoding", b"te", b"upgrade", b"expect", b"via",
        b"x-forwarded-host",
    }
)  # fmt: skip
_CODINGS = b"accept-encoding"
# CONNECT makes a tunnel to anywhere, TRACE shows a script the cookies that it may not read.
_REFUSED_METHODS = frozenset({b"CONNECT", b"TRACE"})
_SIMPLE_CONNECTION = {b"keep-alive": _KEEP_ALIVE, b"close": _CLOSE}


class RequestParser:
    """Parses request heads for one RETTER process.

    Args:
        fields_max: Field lines a head may have; more is 431.
        target_bytes_max: Octets of the request target; more is 414.
        instance: This process's own Via id, to see a request that comes round again.
        trusted: Whether the peers are trusted proxies, whose X-Forwarded-* are believed.
        authority: The Host told to the application when HTTP/1.0 names none.
        decodable: Content codings that the application may be asked for.
        line_bytes_max: Octets that remembered lines may take; 0 sends every head to h11.
    """

    def __init__(
        self,
        *,
        fields_max: int,
        target_bytes_max: int,
        instance: bytes,
        trusted: bool,
        authority: bytes = b"upstream",
        decodable: Collection[bytes] = (b"gzip", b"deflate"),
        line_bytes_max: int = 1024 * 1024,
    ) -> None:
        self._lines: LineMemo[_RequestLine] | None = None
        if line_bytes_max:
            self._lines = LineMemo(line_bytes_max)
        self._authority = authority
        self._decodable = decodable
        self._dropped = _FORWARDED_ANEW if trusted else _FORWARDING
        self._fields_max = fields_max
        self._target_bytes_max = target_bytes_max
        self._via_mark = b"(" + instance + b")"

    def parse(self, head: bytes) -> RequestHead:
        """Parse one whole head, from the request line to the empty line.

        Raises:
            DownstreamError: With the status that the client is to get.
        """
        if self._lines is not None:
            try:
                parsed = self._parse_lines(head, self._lines)
            except DownstreamError:
                # Of several faults the long way may name another first. Told by it alone, a client
                # cannot see which lines RETTER knows.
                parsed = None
            if parsed is not None:
                return parsed
        return self.parse_by_h11(head)

    def parse_by_h11(self, head: bytes) -> RequestHead:
        """Do the same as `parse`, the long way."""
        if len(head.partition(b"\r\n")[0]) > self._target_bytes_max + 40:
            raise BadRequest("the request target is too long", 414)
        check_request_head(head)
        if fault := length_fault(head):
            raise BadRequest(fault)
        _check_version(head)
        request = _h11_request(head)
        if len(request.target) > self._target_bytes_max:
            raise BadRequest("the request target is too long", 414)
        raw = list(request.headers.raw_items())
        if len(raw) > self._fields_max:
            raise BadRequest("too many header fields", 431)
        http11 = request.http_version != b"1.0"
        fields: Fields = tuple([(name.lower(), value) for name, value in raw])
        return self._head(bytes(request.method), bytes(request.target), http11, raw, fields)

    def _parse_lines(self, head: bytes, memo: LineMemo[_RequestLine]) -> RequestHead | None:
        """Parse a head of plain lines; None if it is for h11 to judge."""
        lines = lines_of(head)
        request_line = lines.pop(0)
        match = REQUEST_LINE.fullmatch(request_line)
        if match is None or len(request_line) > self._target_bytes_max:
            return None
        if not 0 < len(lines) <= self._fields_max:
            return None
        method, target = match.groups()
        # map and zip run their loops in C: with statements here this is three times as dear.
        meanings = list(map(memo.young.get, lines))
        if None in meanings:
            meanings = [
                meaning or self._meaning(line, memo)
                for meaning, line in zip(meanings, lines, strict=True)
            ]
            if None in meanings:
                return None
        known = cast("list[_RequestLine]", meanings)
        fields, raw, forward, parts = zip(*known, strict=True)
        if _JUDGED in parts or parts.count(_HOST) != 1 or method in _REFUSED_METHODS:
            return self._head(method, target, True, list(raw), fields)
        host = fields[parts.index(_HOST)][1]
        return RequestHead(
            method=method,
            target=target,
            http11=True,
            host=host,
            fields=fields,
            framing=Framing.NONE,
            content_length=0,
            keep_alive=_CLOSE not in parts,
            expect_continue=False,
            upgrade=b"",
            conditional=_CONDITION in parts,
            forward=b"%b %b HTTP/1.1\r\n%b%b"
            % (
                method,
                target,
                b"".join(forward),
                b"X-Forwarded-Host: %b\r\n" % host if host else b"",
            ),
        )

    def _meaning(self, line: bytes, memo: LineMemo[_RequestLine]) -> _RequestLine | None:
        meaning = memo.older(line)
        if meaning is not None:
            return meaning
        match = FIELD_LINE.fullmatch(line)
        if match is None:
            return None
        raw_name, value = match[1], match[2] or b""
        name = raw_name.lower()
        part = _PLAIN
        if name == b"host":
            part = _HOST if host_is_valid(value) else _JUDGED
        elif name == b"connection":
            part = _SIMPLE_CONNECTION.get(value.lower(), _JUDGED)
        elif name in _JUDGED_IN_REQUESTS:
            part = _JUDGED
        elif name in _CONDITIONS:
            part = _CONDITION
        dropped = name in self._dropped or name in HOP_BY_HOP or shadows(name)
        told = reduced_accept_encoding(value, self._decodable) if name == _CODINGS else value
        forward = b"" if dropped else b"%b: %b\r\n" % (raw_name, told)
        meaning = _RequestLine((name, value), (raw_name, value), forward, part)
        memo.put(line, meaning)
        return meaning

    def _head(
        self,
        method: bytes,
        target: bytes,
        http11: bool,
        raw: list[tuple[bytes, bytes]],
        fields: Fields,
    ) -> RequestHead:
        if method in _REFUSED_METHODS:
            raise Unsupported(f"{method.decode()} is not forwarded", 405)
        hosts = [value for name, value in fields if name == b"host"]
        if len(hosts) > 1 or (http11 and not hosts):
            raise BadRequest("exactly one Host field is needed")  # RFC 9112 section 3.2
        target, host = _origin_form(method, target, hosts[0] if hosts else None)
        if host is not None and not host_is_valid(host):
            raise BadRequest("a malformed Host")
        framing, length = request_framing(fields, http11)
        connection = _named_by_connection(fields)
        # What the application does not see must not decide who a stored response is for either.
        fields = tuple(
            [(n, v) for n, v in fields if n in HOP_BY_HOP or not _stays_here(n, connection)]
        )
        upgrade = _upgrade_of(fields, connection, http11)
        if any(name == b"via" and self._via_mark in value for name, value in fields):
            raise LoopDetected("this request has passed here before")
        return RequestHead(
            method=method,
            target=target,
            http11=http11,
            host=host or b"",
            fields=fields,
            framing=framing,
            content_length=length,
            keep_alive=_keeps_alive(connection, http11),
            expect_continue=_expects_continue(fields, http11),
            upgrade=upgrade,
            conditional=any(name in _CONDITIONS for name, _ in fields),
            forward=b"%b %b HTTP/1.1\r\n%b"
            % (method, target, _lines(self._kept(raw, http11, host, connection, framing, upgrade))),
        )

    def _kept(
        self,
        raw: list[tuple[bytes, bytes]],
        http11: bool,
        host: bytes | None,
        connection: frozenset[bytes],
        framing: Framing,
        upgrade: bytes,
    ) -> list[tuple[bytes, bytes]]:
        kept: list[tuple[bytes, bytes]] = []
        host_told = False
        if not any(raw_name.lower() == b"host" for raw_name, _ in raw):
            kept.append((b"Host", host or self._authority))  # needed in HTTP/1.1
        for raw_name, value in raw:
            name = raw_name.lower()
            if name == b"host":
                kept.append((raw_name, host or b""))  # absolute-form: the target's authority wins
            elif name == b"expect" and not http11:
                continue  # RFC 9110 section 10.1.1: ignored, and we speak HTTP/1.1 for the client
            elif not (name in self._dropped or shadows(name) or _stays_here(name, connection)):
                if name == _CODINGS:
                    value = reduced_accept_encoding(value, self._decodable)
                kept.append((raw_name, value))
                host_told = host_told or name == b"x-forwarded-host"
        if host and not host_told:
            kept.append((b"X-Forwarded-Host", host))
        if framing is Framing.CHUNKED:
            kept.append((b"Transfer-Encoding", b"chunked"))
        if http11 and any(raw_name.lower() == b"te" and _takes_trailers(v) for raw_name, v in raw):
            # RFC 9110 section 10.1.4: we pass trailers on, so we may say so in the client's name.
            kept += [(b"TE", b"trailers"), (b"Connection", b"TE, Upgrade" if upgrade else b"TE")]
        elif upgrade:
            kept.append((b"Connection", b"Upgrade"))
        if upgrade:
            kept.append((b"Upgrade", upgrade))
        return kept


# -- responses --------------------------------------------------------------------------------

# h11 takes a 1xx only as the answer to a request, and a 101 only if that asked for it. Whether ours
# did is the exchange's to judge.
_ANY_REQUEST = h11.Request(
    method="GET", target="/", headers=[("Host", "x"), ("Connection", "upgrade"), ("Upgrade", "x")]
)
_INFORMATIONAL = re.compile(rb"HTTP/1\.[01] 1[0-9][0-9][ \r]")


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


class _ResponseLine(NamedTuple):
    """What one field line of a response means."""

    field: tuple[bytes, bytes]      # lower-case name, value
    forward: bytes                  # the line for the client; b"" if it ends here
    stored: bytes                   # the line for the store
    part: int


_JUDGED_IN_RESPONSES = frozenset({b"transfer-encoding", b"upgrade"})
_NOT_STORED = frozenset({b"content-length", b"set-cookie", b"age"})
_BODILESS = frozenset({b"204", b"304"})
_VIA = b"Via: 1.1 retter\r\n"
_VIA_VARY = _VIA + VARY_LINE


class ResponseParser:
    """Parses response heads for one RETTER process.

    Args:
        line_bytes_max: Octets that remembered lines may take; 0 sends every head to h11.
        fields_max: Field lines a head may have; 0 is no limit.
        eligibility: Which answers are compressed; None is none.
    """

    def __init__(
        self,
        line_bytes_max: int = 1024 * 1024,
        fields_max: int = 0,
        eligibility: Eligibility | None = None,
    ) -> None:
        self._fields_max = fields_max
        self._eligibility = eligibility
        self._coded_bytes_min = eligibility.bytes_min if eligibility is not None else 0
        self._lines: LineMemo[_ResponseLine] | None = None
        if line_bytes_max:
            self._lines = LineMemo(line_bytes_max)

    def parse(self, head: bytes) -> ResponseHead:
        """Parse one whole response head, from the status line to the empty line.

        Raises:
            UpstreamMalformed: It is not HTTP/1.x, its framing is ambiguous, or it has too many
                fields.
        """
        if self._fields_max and head.count(b"\r\n") - 2 > self._fields_max:
            raise UpstreamMalformed("too many header fields")
        if self._lines is not None:
            parsed = self._parse_lines(head, self._lines)
            if parsed is not None:
                return parsed
        return parse_response(head, self._eligibility)

    def _parse_lines(self, head: bytes, memo: LineMemo[_ResponseLine]) -> ResponseHead | None:
        """Parse a head of plain lines with one Content-Length; None if it is for h11 to judge."""
        lines = lines_of(head)
        status_line = lines.pop(0)
        match = STATUS_LINE.fullmatch(status_line)
        if match is None or match[1] in _BODILESS or not lines:
            return None
        meanings = list(map(memo.young.get, lines))
        if None in meanings:
            meanings = [
                meaning or self._meaning(line, memo)
                for meaning, line in zip(meanings, lines, strict=True)
            ]
            if None in meanings:
                return None
        known = cast("list[_ResponseLine]", meanings)
        fields, forward, stored, parts = zip(*known, strict=True)
        if _JUDGED in parts or parts.count(_LENGTH) != 1:
            return None
        status, length = int(match[1]), int(fields[parts.index(_LENGTH)][1])
        compressible = (
            _TYPE in parts
            and length >= self._coded_bytes_min
            and _UNTOUCHED not in parts
            and compressible_status(status)
            and parts.count(_TYPE) == 1
        )
        end = _VIA_VARY if compressible and _VARIES not in parts else _VIA
        return ResponseHead(
            status=status,
            fields=fields,
            framing=Framing.LENGTH,
            content_length=length,
            keep_alive=_CLOSE not in parts,
            forward=b"%b\r\n%b%b" % (status_line, b"".join(forward), end),
            stored=b"%b\r\n%b%b" % (status_line, b"".join(stored), end),
            set_cookies=()
            if _COOKIE not in parts
            else tuple([field[1] for field in fields if field[0] == b"set-cookie"]),
            event_stream=False,
            plain=_is_plain(status, fields),
            compressible=compressible,
        )

    def _meaning(self, line: bytes, memo: LineMemo[_ResponseLine]) -> _ResponseLine | None:
        meaning = memo.older(line)
        if meaning is not None:
            return meaning
        match = FIELD_LINE.fullmatch(line)
        if match is None:
            return None
        raw_name, value = match[1], match[2] or b""
        name = raw_name.lower()
        part = _PLAIN
        if name == b"content-length":
            part = _LENGTH if length_is_valid(value) else _JUDGED
        elif name == b"set-cookie":
            part = _COOKIE
        elif name == b"connection":
            part = _SIMPLE_CONNECTION.get(value.lower(), _JUDGED)
        elif name in _JUDGED_IN_RESPONSES or _is_event_stream(name, value):
            part = _JUDGED
        elif self._eligibility is not None:
            part = self._coding_part(name, value, self._eligibility)
        dropped = name in _OUR_RESPONSE_FIELDS or name in HOP_BY_HOP
        forward = b"" if dropped else b"%b: %b\r\n" % (raw_name, value)
        stored = b"" if name in _NOT_STORED else forward
        meaning = _ResponseLine((name, value), forward, stored, part)
        memo.put(line, meaning)
        return meaning

    @staticmethod
    def _coding_part(name: bytes, value: bytes, eligibility: Eligibility) -> int:
        """Return what a line says about compressing the body."""
        if name == b"content-type":
            return _TYPE if eligibility.fits(value) else _UNTOUCHED
        if forbids_coding(name, value):
            return _UNTOUCHED
        return _VARIES if varies_already(name, value) else _PLAIN


def _is_plain(status: int, fields: Fields) -> bool:
    if not 200 <= status < 400 or status in (206, 304):
        return False
    return not any(
        name in (b"set-cookie", b"vary") or _is_event_stream(name, value) for name, value in fields
    )


def _announces_body(fields: Fields) -> bool:
    # RFC 9110 section 8.6 and RFC 9112 section 6.1 forbid it in a 204: an application that does so
    # may send the body too, and it would be taken for the next answer.
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in fields
    )


def _is_event_stream(name: bytes, value: bytes) -> bool:
    return name == b"content-type" and value[:17].lower() == b"text/event-stream"


def parse_response(head: bytes, eligibility: Eligibility | None = None) -> ResponseHead:
    """Parse one whole response head by h11, the long way.

    Args:
        eligibility: Which answers are compressed; None is none.

    Raises:
        UpstreamMalformed: It is not HTTP/1.x, or its framing is ambiguous.
    """
    check_response_head(head)
    if fault := length_fault(head):
        raise UpstreamMalformed(fault)
    response = _h11_response(head)
    raw = list(response.headers.raw_items())
    http11 = response.http_version != b"1.0"
    if not response.http_version.startswith(b"1."):
        raise UpstreamMalformed("only HTTP/1.x is spoken here")
    status = response.status_code
    fields: Fields = tuple([(name.lower(), value) for name, value in raw])
    framing, length = response_framing(status, fields, http11)
    connection = _named_by_connection(fields)
    kept = _kept_of_response(raw, status, connection)
    status_line = b"HTTP/1.1 %d %b\r\n" % (status, bytes(response.reason))
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
        and _keeps_alive(connection, http11)
        and not (status == 204 and _announces_body(fields)),
        forward=status_line + _lines(kept) + via,
        stored=status_line
        + _lines([(name, value) for name, value in kept if name.lower() not in _NOT_STORED])
        + via,
        set_cookies=tuple([value for name, value in fields if name == b"set-cookie"]),
        event_stream=any(_is_event_stream(name, value) for name, value in fields),
        plain=framing is Framing.LENGTH and _is_plain(status, fields),
        compressible=compressible,
    )


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
        if status == 101 and name == b"upgrade":
            kept += [(b"Connection", b"Upgrade"), (raw_name, value)]
        elif not _stays_here(name, connection):
            kept.append((raw_name, value))
    return kept


# -- the end of a head in a stream ------------------------------------------------------------


def end_of_head(buffer: bytes, bytes_max: int, check: Callable[[bytes], None]) -> int:
    """Return where the first head in the buffer ends, or 0 while it is incomplete.

    A fault that no further bytes can mend is reported at once, so that a peer who ends lines with
    a bare LF gets its 400 instead of waiting for a head that never ends.

    Raises:
        DownstreamError: (or whatever `check` raises) The lines are malformed.
        BadRequest: 431, more than bytes_max octets.
    """
    end = buffer.find(b"\r\n\r\n") + 4
    if end > 3:
        if end > bytes_max:
            raise BadRequest("the request head is too large", 431)
        return end
    if len(buffer) > bytes_max:
        raise BadRequest("the request head is too large", 431)
    check(buffer)
    return 0
