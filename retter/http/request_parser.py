"""The parser of request heads: from bytes to a RequestHead. All request heads are parsed here.

h11 needs about 25 us for a browser's head, more than the whole rest of a request. So no head is
parsed twice: `HeadMemo` (memo.py) keeps the result under the exact bytes of the head. The memo
changes no result, since equal bytes have equal meaning. A new head is parsed fast, as a known form
with other values (templates.py), if all of its lines are plain. Otherwise h11 parses it.

framing_rules.py rejects heads that h11 accepts and RETTER does not. This module removes, renames
and adds fields on the way to the application.
"""

import re
from collections.abc import Callable, Collection, Sequence
from operator import itemgetter
from typing import Final

import h11

from retter.base.errors import BadRequest, DownstreamError, LoopDetected, Unsupported
from retter.http.content_coding import reduced_accept_encoding
from retter.http.framing_rules import (
    check_request_head,
    fault_of,
    has_length,
    host_is_valid,
    length_fault,
    may_shadow,
    request_framing,
    shadows,
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
from retter.http.known_names import ADDRESS_FIELDS, GEO_FIELDS, REQUEST_ID_FIELDS
from retter.http.message import (
    COMMA,
    SLASH,
    Fields,
    Framing,
    HeadForm,
    RequestHead,
    Soft,
    field_lines,
)
from retter.http.templates import (
    FORM_BYTES_MAX,
    OTHERS_MARKED,
    OWN_REQUEST_FIELDS,
    REQUEST_LINE,
    FormMemo,
    HeadTemplate,
    Lines,
    Outline,
    form_cutter,
    lines_of,
    picker,
    start_of,
)
from retter.http.variants import VariantRules, country, soft_from, soft_places

# forwarding.py writes these fields anew for every request, from the facts about the connection.
# Proxy has no meaning in HTTP, but a CGI program would get it as HTTP_PROXY and send its own
# requests there.
_FORWARDED_ANEW: Final = frozenset(
    {b"x-forwarded-for", b"x-real-ip", b"x-forwarded-proto", b"proxy"}
)

# Who the client is, where it is, and what it requested, according to the peer. These fields are
# forwarded if the peer is a trusted proxy, else dropped.
_FORWARDING: Final = _FORWARDED_ANEW.union(ADDRESS_FIELDS, GEO_FIELDS) | {
    b"forwarded", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-server",
    b"x-forwarded-ssl", b"x-forwarded-scheme", b"x-forwarded-prefix", b"x-forwarded-protocol",
    b"x-url-scheme", b"x-scheme", b"front-end-https", b"cf-visitor",
}  # fmt: skip

# Forms that are kept ready. A site's visitors have some dozens of browsers, and each of these has a
# few forms of requests: for pages, pictures and data.
LATEST_MAX: Final = 256
# Of one kind. To pass over one takes a look at one line (`Outline.told_by`).
LATEST_OF_KIND_MAX: Final = 8

# Languages and devices that are remembered for one form, and the octets from which one was read:
# 2 MB for all forms that are kept ready, if strangers fill them. Without them, four of ten heads of
# forty kinds of browsers are read again, which takes 2,500 instructions of the processor a request.
SOFTS_REMEMBERED_MAX: Final = 16
SOFT_BYTES_REMEMBERED_MAX: Final = 320

# More hops than any way has. A larger number becomes this one, as RFC 9110 allows.
_HOPS_MAX: Final = 1000
_HOPS_DIGITS_MAX: Final = 9

_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]*+)([^#]*+)", re.IGNORECASE)
_VERSION: Final = re.compile(rb" HTTP/([0-9]\.[0-9])")


def _h11_request(head: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        if error.error_status_hint == 501 and has_length(head):
            # an error with any transfer coding (RFC 9112 section 6.1)
            raise BadRequest("both Transfer-Encoding and Content-Length") from error
        if error.error_status_hint == 501:
            raise Unsupported(str(error)) from error
        raise BadRequest(fault_of(error), error.error_status_hint) from error
    if not isinstance(event, h11.Request):  # cannot be NEED_DATA: the head ends in an empty line
        raise BadRequest("not a request")
    return event


def _check_version(head: bytes) -> None:
    # RFC 9112 section 2.3: a recipient of 1.x accepts any minor version. Another major version gets
    # a 505.
    end = head.index(b"\r\n")
    match = _VERSION.fullmatch(head, max(0, end - len(b" HTTP/1.1")), end)
    if match and not match[1].startswith(b"1."):
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
    # RFC 9110 section 7.8. h2c is not forwarded: an application that accepts it would get a tunnel
    # of requests that no proxy in front of it can read.
    if not http11 or b"upgrade" not in connection:
        return b""
    return passed_protocols(b",".join([value for name, value in fields if name == b"upgrade"]))


def _takes_trailers(te: bytes) -> bool:
    return b"trailers" in [member.strip() for member in te.lower().split(b",")]


def _expects_continue(fields: Fields, http11: bool) -> bool:
    expects = [value.lower() for name, value in fields if name == b"expect"]
    if not expects or not http11:  # RFC 9110 section 10.1.1: ignored from HTTP/1.0
        return False
    if expects != [b"100-continue"]:
        raise BadRequest("an unknown expectation", 417)
    return True


def _hops_left(name: bytes, value: bytes) -> bytes:
    """Return the value of a lower-case field for the next hop (RFC 9110 section 7.6.2).

    Raises:
        Unsupported: 501, the request is for RETTER itself, which has no options of its own.
    """
    if name != b"max-forwards" or not value.isdigit():
        return value
    hops = value.lstrip(b"0")
    if not hops:
        raise Unsupported("Max-Forwards is 0, and RETTER itself answers no OPTIONS")
    return b"%d" % (min(int(hops[:_HOPS_DIGITS_MAX]), _HOPS_MAX) - 1)


def _accepts_events(fields: Fields) -> bool:
    """Return whether the client accepts an event stream and nothing else.

    If it accepts other types too, the response decides, because the client may expect a page.
    """
    accepted = [value for name, value in fields if name == b"accept"]
    if len(accepted) != 1 or COMMA in accepted[0]:
        return False
    return accepted[0].partition(b";")[0].rstrip(b" \t").lower() == b"text/event-stream"


# Fields that need an evaluation before the store answers. Only the application evaluates If-Match,
# but it may contain a tag that RETTER has weakened.
_CONDITIONS: Final = frozenset({b"if-none-match", b"if-match", b"if-modified-since", b"range"})

# Fields that determine how the request is framed, forwarded or refused.
_JUDGED_IN_REQUESTS: Final = frozenset(
    {
        b"content-length",
        b"transfer-encoding",
        b"te",
        b"upgrade",
        b"expect",
        b"max-forwards",
        b"via",
        b"x-forwarded-host",
    }
)
_REQUEST_IDS: Final = frozenset(REQUEST_ID_FIELDS)

# CONNECT makes a tunnel to any host. TRACE shows a script the cookies that it may not read.
_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
# The statuses of errors that are found after h11 has accepted the request line.
_READ_AND_REFUSED: Final = frozenset({405, 417, 501, 508})
_CODINGS: Final = b"accept-encoding"
_NO_BODY: Final = Framing.NONE  # access to an attribute of an Enum class costs as much as a call
_G: Final = 0x47
# `GET / HTTP/1.1`. What is shorter has no form. Compiled, a slice that ends before its beginning is
# an error, and not empty.
_LINE_BYTES_MIN: Final = 14
_cut_request: Final = form_cutter(OWN_REQUEST_FIELDS)


def _codings(
    lines: Sequence[tuple[bytes, bytes | None]], decodable: Collection[bytes]
) -> dict[int, bytes]:
    """Return the value that the application gets for each line of Accept-Encoding, by its place."""
    lists = {
        at: value
        for at, (name, value) in enumerate(lines)
        if value is not None and name.lower() == _CODINGS
    }
    if not lists:
        return lists
    return dict(zip(lists, reduced_accept_encoding([*lists.values()], decodable), strict=True))


def _is_seen(name: bytes, ends_here: Collection[bytes], trusted: bool) -> bool:
    """Return whether the application gets a field with this lower-case name, or its value."""
    if trusted and name == b"x-forwarded-proto":
        return True  # written anew, with the same value
    return not (name in ends_here or shadows(name))


def _unseen(
    names: frozenset[bytes], ends_here: frozenset[bytes], trusted: bool
) -> frozenset[bytes]:
    """Return the lower-case names of the fields that the application does not get at all."""
    unseen = names & ends_here
    if may_shadow(names):
        unseen |= {name for name in names if shadows(name)}
    if trusted:
        unseen -= {b"x-forwarded-proto"}
    return unseen


class _RequestForm(HeadForm):
    """The meaning of a form of requests, for all values that may be filled in.

    Args:
        lines: The lines of the form.
        outline: Cuts heads of the form.
        octets: The length of the form.
        ends_here: The fields that are not forwarded to the application.
        is_identity_field: Whether a field may identify the client.
        decodable: The content codings that the application may be asked for.
        variant_rules: The rules for what separates variants.
        trusted: Whether the request comes from a trusted proxy.
    """

    __slots__ = (
        "_fields",
        "_forwarded",
        "_has_identity",
        "_id_places",
        "_identity",
        "_identity_at",
        "_lines",
        "_own",
        "_seen",
        "_soft",
        "_soft_places",
        "_soft_read",
        "_soft_values",
        "_softs",
        "_variant_key",
        "_variant_rules",
        "_written",
        "needs_full_parse",
        "octets",
        "outline",
    )

    def __init__(
        self,
        lines: Lines,
        outline: Outline,
        octets: int,
        ends_here: frozenset[bytes],
        is_identity_field: Callable[[bytes], bool],
        decodable: Collection[bytes],
        variant_rules: VariantRules,
        trusted: bool,
    ) -> None:
        # A stranger may send 120 unknown names, so each of them is checked only a few times.
        names = [name.lower() for name, _ in lines]
        present = frozenset(names)
        hosts = [value for name, (_, value) in zip(names, lines, strict=True) if name == b"host"]
        connections: list[bytes] = []
        if b"connection" in present:
            connections = [
                value.lower()
                for name, (_, value) in zip(names, lines, strict=True)
                if name == b"connection" and value is not None
            ]
        super().__init__(
            host=(hosts[0] if len(hosts) == 1 else None) or b"",
            keep_alive=b"close" not in connections,
            conditional=not _CONDITIONS.isdisjoint(present),
            soft_at=soft_places(names),
        )
        self._lines = lines
        self.outline = outline
        self.octets = octets
        values = [value for _, value in lines]
        fields = tuple([(name, value or b"") for name, value in zip(names, values, strict=True)])
        self._fields = list(fields)
        own = [at for at, value in enumerate(values) if value is None]
        self._own = [(at, names[at], index) for index, at in enumerate(own)]
        # Fields that the application does not get have no meaning.
        unseen = _unseen(present, ends_here, trusted)
        seen = [at for at, name in enumerate(names) if name not in unseen]
        self._seen = picker(seen)
        identity = [at for at in seen if is_identity_field(names[at])]
        self._identity = picker(identity)
        # Nearly always a Cookie line, or nothing: its place among the values, -1 if it is more.
        self._has_identity = bool(identity)
        self._identity_at = -1
        if len(identity) == 1 and names[identity[0]] == b"cookie" and identity[0] in own:
            self._identity_at = own.index(identity[0])
        self._soft_places = [own.index(at) for at in self.soft_at if at in own]
        self._soft_values: Callable[[list[bytes]], object] = type  # anything that is always equal
        if self._soft_places:
            self._soft_values = itemgetter(*self._soft_places)
        # By the values that it is read from: browsers of one form speak some languages.
        self._softs: dict[object, Soft] = {}
        self._soft: Soft | None = None  # the latest
        self._soft_read: object = None
        self.accepts_events = _accepts_events(fields)
        self._id_places: list[int] = []
        if trusted:
            self.country = country(self._seen(fields))
        elif not _REQUEST_IDS.isdisjoint(present):
            self._id_places = [at for at in seen if names[at] in _REQUEST_IDS]
        self._variant_rules = variant_rules
        # Computed once, unless it depends on the values that are filled in.
        counted = variant_rules.counted
        variant_places = [at for at in seen if names[at] in counted]
        self._variant_key: bytes | None = None
        if all(values[at] is not None for at in variant_places):
            variants = tuple([fields[at] for at in variant_places])
            self._variant_key = variant_rules.variant_key(variants)
        # Some lines change the meaning of others: then all of them are checked for each request.
        self.needs_full_parse = (
            len(hosts) != 1
            or not host_is_valid(self.host)
            or not SIMPLE_CONNECTION.issuperset(connections)
            or names_a_field(connections, names)
            or not _JUDGED_IN_REQUESTS.isdisjoint(present)
        )
        forwarded_lines = lines
        if _CODINGS in present:
            codings = _codings(lines, decodable)
            forwarded_lines = [
                (name, codings.get(at, value)) for at, (name, value) in enumerate(lines)
            ]
        kept = present - unseen - ends_here
        self._forwarded, self._written = HeadTemplate(
            forwarded_lines,
            [name in kept for name in names],
            b"X-Forwarded-Host: %b\r\n" % self.host if self.host else b"",
        ).of_request()

    def filled_in(self, method: bytes, target: bytes, values: list[bytes]) -> RequestHead:
        """Return the head of this form with these values, if it needs no full parse."""
        variant_key = self._variant_key
        if variant_key is None:
            variant_key = self._variant_rules.variant_key(self._seen(self.fields(values)))
        place = self._identity_at
        return RequestHead(
            method,
            target,
            self,
            ((b"cookie", values[place]),) if place >= 0 else self._identity_fields(values),
            variant_key,
            self._ids(values) if self._id_places else (),
            values,
        )

    def fields(self, values: list[bytes]) -> Fields:
        fields = self._fields.copy()
        for at, name, index in self._own:
            fields[at] = (name, values[index])
        return tuple(fields)

    def forward(self, method: bytes, target: bytes, values: list[bytes]) -> bytes:
        pieces = self._forwarded.copy()
        pieces[0] = method
        pieces[2] = target
        if self._written is not None:
            values = [v for v, written in zip(values, self._written, strict=True) if written]
        pieces[4::2] = values
        return b"".join(pieces)

    def soft(self, values: list[bytes]) -> Soft:
        read, soft = self._soft_values(values), self._soft
        if soft is not None and read == self._soft_read:
            return soft  # as in the last head, without a hash of 150 octets
        soft = self._softs.get(read)
        if soft is None:
            soft = soft_from(self.fields(values), self.soft_at, self.country)
            if len(self._softs) >= SOFTS_REMEMBERED_MAX:
                self._softs.clear()
            if sum([len(values[at]) for at in self._soft_places]) <= SOFT_BYTES_REMEMBERED_MAX:
                self._softs[read] = soft
        self._soft, self._soft_read = soft, read
        return soft

    def _identity_fields(self, values: list[bytes]) -> Fields:
        """Return the fields that may identify the client, if they are not one Cookie line."""
        if not self._has_identity:
            return ()
        identity: Fields = self._identity(self.fields(values))
        return identity

    def _ids(self, values: list[bytes]) -> tuple[bytes, ...]:
        """Return the request ids that the client may have chosen."""
        fields = self.fields(values)
        return tuple([fields[at][1] for at in self._id_places])

    def raw(self, fields: Fields) -> list[tuple[bytes, bytes]]:
        """Return the filled-in fields with the names as sent."""
        return [(line[0], field[1]) for line, field in zip(self._lines, fields, strict=True)]


class RequestParser:
    """Parses request heads for one RETTER process.

    Args:
        fields_max: The maximum number of field lines; a head with more gets a 431.
        target_bytes_max: The maximum length of the request target; a longer one gets a 414.
        instance: This process's own id in Via, to detect a forwarding loop.
        trusted: Whether the peers are trusted proxies, so that their X-Forwarded-* are used.
        authority: The Host that the application gets if an HTTP/1.0 request has none.
        decodable: The content codings that the application may be asked for.
        form_bytes_max: Octets that remembered forms may take; with 0, h11 parses every head.
        is_identity_field: Whether a field with this lower-case name may identify the client
            (owner.py).
        variant_rules: The rules for what separates variants of a response.
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
        form_bytes_max: int = 512 * 1024,
        is_identity_field: Callable[[bytes], bool] = lambda name: True,
        variant_rules: VariantRules | None = None,
    ) -> None:
        self._is_identity_field = is_identity_field
        self._variant_rules = variant_rules or VariantRules()
        self._trusted = trusted
        self._forms: FormMemo[_RequestForm] | None = None
        if form_bytes_max:
            self._forms = FormMemo(form_bytes_max)
        # The forms that are kept ready, by the kind of head; the newest first.
        self._latest: dict[tuple[int, bytes], list[_RequestForm]] = {}
        self._latest_count = 0
        # The same forms, each after a line that tells it from the others of its kind, and that
        # line's place; last those that no line tells.
        self._told: dict[tuple[int, bytes], list[tuple[int, bytes, _RequestForm]]] = {}
        self._authority = authority
        self._decodable = decodable
        self._dropped = _FORWARDED_ANEW if trusted else _FORWARDING
        self._ends_here = self._dropped | HOP_BY_HOP
        self._fields_max = fields_max
        self._target_bytes_max = target_bytes_max
        self._via_mark = b"(" + instance + b")"

    def parse(self, head: bytes) -> RequestHead:
        """Parse one whole head, from the request line to the empty line.

        Raises:
            DownstreamError: With the status that the client gets.
        """
        return self.parse_plain(head) or self._parse_new(head)

    def parse_plain(self, data: bytes) -> RequestHead | None:
        """Do the same for bytes that may be one whole head; None if they have no form kept ready.

        The caller need not look for the end of a head in them, which would take 2,500 instructions
        of the processor.
        """
        lines = data.split(b"\r\n")
        told, line = self._told.get((len(lines), lines[3] if len(lines) > 3 else b"")), lines[0]
        if told is None or not _LINE_BYTES_MIN <= len(line) <= self._target_bytes_max:
            return None
        # Nearly all are GETs. That the line has nothing else is seen with the rest of the head: to
        # look at its beginning and at its end takes 800 instructions of the processor each.
        method, target = (b"GET", line[4:-9]) if line[0] == _G else start_of(line)
        for at, text, form in told:
            if lines[at] == text:
                values = form.outline.values(data, lines, method, target)
                if values is not None:
                    break
        else:
            return None
        if not target or target[0] != SLASH or target.translate(OTHERS_MARKED) != target:
            return None
        if form.needs_full_parse or method in _REFUSED_METHODS:
            return self._filled_in(data, form, method, target, values)
        return form.filled_in(method, target, values)  # `_filled_in`, without a call

    def _parse_new(self, head: bytes) -> RequestHead:
        """Parse a head whose form is not kept ready, or whose lines change each other's meaning."""
        memo = self._forms
        lines = head.split(b"\r\n")
        match = REQUEST_LINE.fullmatch(lines[0])
        if (
            memo is None
            or match is None
            or len(lines) - 3 > self._fields_max
            or len(lines[0]) > self._target_bytes_max
        ):
            return self.parse_by_h11(head)
        pieces = _cut_request(head[len(lines[0]) : -2])
        values = pieces[2::3]
        del pieces[2::3]
        form = self._form_of(pieces, memo)
        if form is None:
            return self.parse_by_h11(head)
        # Browsers differ in their third field, and what they ask for in the number of fields.
        kind = len(lines), lines[3] if len(lines) > 3 else b""
        if form not in self._latest.get(kind, ()):
            self._have_at_hand(kind, form)
        return self._filled_in(head, form, match[1], match[2], values)

    def _filled_in(
        self, head: bytes, form: _RequestForm, method: bytes, target: bytes, values: list[bytes]
    ) -> RequestHead:
        if form.needs_full_parse or method in _REFUSED_METHODS:
            try:
                if not too_many_members(head):
                    fields = form.fields(values)
                    return self._head(method, target, True, form.raw(fields), fields)
            except DownstreamError:
                # If there are several faults, h11 may report another one first. All errors come
                # from `parse_by_h11`, so a client cannot find out which forms RETTER remembers.
                pass
            return self.parse_by_h11(head)
        return form.filled_in(method, target, values)

    def _have_at_hand(self, kind: tuple[int, bytes], form: _RequestForm) -> None:
        if form.octets > FORM_BYTES_MAX:
            return  # it contains values of one visitor
        if self._latest_count >= LATEST_MAX:
            self._latest.clear()
            self._told.clear()
            self._latest_count = 0
        latest = self._latest.setdefault(kind, [])
        if len(latest) >= LATEST_OF_KIND_MAX:
            latest.pop()
            self._latest_count -= 1
        latest.insert(0, form)
        self._latest_count += 1
        told: list[tuple[int, bytes, _RequestForm]] = []
        for one in latest:
            others = [other.outline for other in latest if other is not one]
            at, line = one.outline.told_by(others)
            told.append((at, line, one))
        # A place below 0 is that of a line which heads of all forms have.
        told.sort(key=lambda one: one[0] < 0)
        self._told[kind] = told

    def _form_of(self, pieces: list[bytes], memo: FormMemo[_RequestForm]) -> _RequestForm | None:
        """Return the form with these bytes around its values; None if its lines are not plain."""
        key = b"".join(pieces)
        form = memo.young.get(key) or memo.get_old(key)
        if form is None:
            lines = lines_of(pieces)
            if not lines:
                return None
            form = _RequestForm(
                lines,
                Outline(pieces),
                len(key),
                self._ends_here,
                self._is_identity_field,
                self._decodable,
                self._variant_rules,
                self._trusted,
            )
            memo.offer(key, form)
        return form

    def parse_by_h11(self, head: bytes) -> RequestHead:
        """Do the same as `parse`, always by h11."""
        try:
            return self._parsed_by_h11(head)
        except DownstreamError as error:
            if error.status in _READ_AND_REFUSED:
                method, target, _ = head.partition(b"\r\n")[0].split(b" ")
                if b"@" not in target or target.startswith(b"/"):  # else it may have a password
                    error.request_line = method, target
            raise

    def _parsed_by_h11(self, head: bytes) -> RequestHead:
        if len(head.partition(b"\r\n")[0]) > self._target_bytes_max + 40:
            raise BadRequest("the request target is too long", 414)
        if self._has_too_many_fields(head):
            raise BadRequest("too many header fields", 431)
        check_request_head(head)
        if fault := length_fault(head):
            raise BadRequest(fault)
        if too_many_members(head):
            raise BadRequest("too many members in Connection, TE, Upgrade and Expect", 431)
        _check_version(head)
        request = _h11_request(head)
        if len(request.target) > self._target_bytes_max:
            raise BadRequest("the request target is too long", 414)
        raw = list(request.headers.raw_items())
        http11 = request.http_version != b"1.0"
        fields: Fields = tuple([(name.lower(), value) for name, value in raw])
        return self._head(bytes(request.method), bytes(request.target), http11, raw, fields)

    def _has_too_many_fields(self, head: bytes) -> bool:
        return head.count(b"\r\n") - 2 > self._fields_max

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
        connection = named_by_connection(fields)
        # Fields that the application does not get must not determine the owner either.
        fields = tuple(
            [(n, v) for n, v in fields if n in HOP_BY_HOP or not stays_here(n, connection)]
        )
        seen = tuple(
            [field for field in fields if _is_seen(field[0], self._ends_here, self._trusted)]
        )
        upgrade = _upgrade_of(fields, connection, http11)
        if any(name == b"via" and self._via_mark in value for name, value in fields):
            raise LoopDetected("this request has passed here before")
        if method == b"OPTIONS":
            raw = [(name, _hops_left(name.lower(), value)) for name, value in raw]
        form = HeadForm(
            host=host or b"",
            http11=http11,
            framing=framing,
            content_length=length,
            keep_alive=keeps_alive(connection, http11),
            expect_continue=_expects_continue(fields, http11),
            upgrade=upgrade,
            conditional=any(name in _CONDITIONS for name, _ in fields),
            country=country(seen) if self._trusted else b"",
            soft_at=soft_places([name for name, _ in fields]),
            accepts_events=_accepts_events(fields),
        )
        return RequestHead(
            method,
            target,
            form,
            tuple([field for field in seen if self._is_identity_field(field[0])]),
            self._variant_rules.variant_key(seen),
            () if self._trusted else tuple([value for name, value in seen if name in _REQUEST_IDS]),
            fields=fields,
            forward=b"%b %b HTTP/1.1\r\n%b"
            % (
                method,
                target,
                field_lines(self._kept(raw, http11, host, connection, framing, upgrade)),
            ),
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
        has_forwarded_host = False
        codings = _codings(raw, self._decodable)
        if not any(raw_name.lower() == b"host" for raw_name, _ in raw):
            kept.append((b"Host", host or self._authority))  # required in HTTP/1.1
        for at, (raw_name, value) in enumerate(raw):
            name = raw_name.lower()
            if name == b"host":
                kept.append((raw_name, host or b""))  # absolute-form: use the target's authority
            elif name == b"expect" and not http11:
                continue  # RFC 9110 section 10.1.1: ignored, and RETTER forwards HTTP/1.1
            elif not (name in self._dropped or shadows(name) or stays_here(name, connection)):
                kept.append((raw_name, codings.get(at, value)))
                has_forwarded_host = has_forwarded_host or name == b"x-forwarded-host"
        if host and not has_forwarded_host:
            kept.append((b"X-Forwarded-Host", host))
        if framing is Framing.CHUNKED:
            kept.append((b"Transfer-Encoding", b"chunked"))
        if http11 and any(raw_name.lower() == b"te" and _takes_trailers(v) for raw_name, v in raw):
            # RFC 9110 section 10.1.4: RETTER forwards trailers, so it may also forward this.
            kept += [(b"TE", b"trailers"), (b"Connection", b"TE, Upgrade" if upgrade else b"TE")]
        elif upgrade:
            kept.append((b"Connection", b"Upgrade"))
        if upgrade:
            kept.append((b"Upgrade", upgrade))
        return kept
