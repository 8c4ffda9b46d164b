"""Forms of heads: parsing a new head is cheap if its form is known.

The requests of a browser differ only in the request line, the Referer and cookies. So these values
are cut out of a head, like the entries of a filled-in form. The meaning of the empty *form* is
memoised under its exact bytes. A new head then costs one cut, one look-up and one join, instead of
25 us in h11.

The grammar here is a strict subset of RFC 9110, and smaller than that of h11. A line that does not
match is not an error: h11 parses the whole head, and decides about everything unusual. So the two
ways can differ only in cost; tests/http/test_templates.py compares their results.
"""

import re
from collections.abc import Callable, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, TypeVar

from retter.http.memo import Memo

# No pattern may backtrack, since strangers send these octets: 60,000 spaces in a field would take
# twenty seconds. So each repetition is possessive (`*+`) and repeats a set of characters.

# RFC 9110 section 5.5: a value begins with a visible octet (or obs-text) and has no control
# characters. It also ends with a visible octet; the users of this pattern check that.
_VALUE: Final = rb"[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*+"

# RFC 9110 section 5.5: field-name ":" OWS field-value OWS, without obs-fold. The OWS at the end is
# read as part of the value.
_FIELD_LINE: Final = re.compile(rb"([-!#$%&'*+.^_`|~0-9A-Za-z]++):[ \t]*+(" + _VALUE + rb")?")

# RFC 9112 section 3, only the origin-form; it has no fragment.
REQUEST_LINE: Final = re.compile(
    rb"([-!#$%&'*+.^_`|~0-9A-Za-z]++) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.1"
)

# RFC 9112 section 4.
STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*+)")

# Fields whose values differ between visitors or pages, with their names as written by browsers and
# by front ends for HTTP/2. If a name is missing here, each of its values makes another form. That
# costs only time.
OWN_REQUEST_FIELDS: Final = (
    b"Cookie", b"Referer", b"User-Agent", b"Accept-Language", b"If-None-Match",
    b"If-Modified-Since", b"Content-Length", b"Authorization", b"X-Forwarded-For", b"X-Real-IP",
    b"X-Request-ID", b"X-Request-Id", b"cookie", b"referer", b"user-agent", b"accept-language",
    b"if-none-match", b"if-modified-since", b"content-length", b"authorization", b"traceparent",
)  # fmt: skip
OWN_RESPONSE_FIELDS: Final = (
    b"Date", b"Content-Length", b"ETag", b"Last-Modified", b"Set-Cookie", b"Expires", b"Location",
    b"X-Request-Id", b"X-Runtime", b"date", b"content-length", b"etag", b"last-modified",
    b"set-cookie", b"expires", b"location",
)  # fmt: skip

# The approximate cost of a memoised form in addition to its bytes: its tuples and a dict entry.
_ENTRY_BYTES: Final = 1000
# A longer form is not memoised: it contains values of one visitor, and would only displace others.
FORM_BYTES_MAX: Final = 4096

# Field lines in their order: the name as sent, and the value, or None if it is cut out.
Lines = list[tuple[bytes, bytes | None]]
Meaning = TypeVar("Meaning")


def form_cutter(own_fields: Sequence[bytes]) -> Callable[[bytes], list[bytes]]:
    """Return a function that cuts field lines (with a CRLF before and after) around the values.

    The pieces are: the bytes before the first name, that name, its value, the bytes up to the next
    name, and so on. All pieces joined are the original bytes. All pieces except the values, joined,
    are the form. Heads with equal forms differ only in these values.
    """
    names = b"|".join(own_fields)
    # A value may be empty. Otherwise an empty one would stay in the form and look like a cut one.
    return re.compile(
        rb"(\r\n(?:" + names + rb"): )((?:" + _VALUE + rb"(?<![ \t]))?)(?=\r\n)"
    ).split


def field_of(line: bytes) -> tuple[bytes, bytes] | None:
    """Return name and value of a plain field line; None if it is not plain."""
    match = _FIELD_LINE.fullmatch(line)
    if match is None:
        return None
    name: bytes
    value: bytes | None
    name, value = match.groups()
    return name, b"" if value is None else value.rstrip(b" \t")


def lines_of(form: list[bytes]) -> Lines | None:
    """Return the lines of a form, given as its pieces; None if one of them is not plain."""
    lines: Lines = []
    last = len(form) - 1
    for index, piece in enumerate(form):
        if index % 2:
            lines.append((piece[2:-2], None))
            continue
        rest = piece[:-2] if index == last else piece  # of its two CRLFs
        if not rest:
            continue
        if not rest.startswith(b"\r\n"):
            return None  # a bare CR has ended a value
        for line in rest[2:].split(b"\r\n"):
            field = field_of(line)
            if field is None:
                return None
            lines.append(field)
    return lines


class HeadTemplate:
    """Lines without their values, ready to be filled in and written.

    Args:
        lines: All lines of a form.
        kept: Whether each of them is written.
        end: The bytes that follow the lines, if they are always the same.
    """

    __slots__ = ("_filled_in", "_pieces")

    def __init__(self, lines: Lines, kept: Sequence[bool], end: bytes = b"") -> None:
        # The first place is for the request or status line, then every second one for a value.
        self._pieces: list[bytes] = [b""]
        self._filled_in: list[bool] | None = None  # which values are written; None is all of them
        filled_in: list[bool] = []
        text: list[bytes] = []
        for (name, value), keep in zip(lines, kept, strict=True):
            if value is None:
                filled_in.append(keep)
                if keep:
                    text += (name, b": ")
                    self._pieces += (b"".join(text), b"")
                    text = [b"\r\n"]
            elif keep:
                text += (name, b": ", value, b"\r\n")
        text.append(end)
        self._pieces.append(b"".join(text))
        if not all(filled_in):
            self._filled_in = filled_in

    def fill(self, start_line: bytes, values: list[bytes]) -> bytes:
        """Return the start line (with its CRLF) and the lines with these values."""
        pieces = self._pieces.copy()
        pieces[0] = start_line
        if self._filled_in is not None:
            values = [v for v, written in zip(values, self._filled_in, strict=True) if written]
        pieces[2::2] = values
        return b"".join(pieces)

    def of_request(self) -> tuple[list[bytes], list[bool] | None]:
        """Return the pieces with places for a method (0), a target (2) and values (4, 6 ...).

        Also, which of the values have a place; None is all of them.
        """
        return [
            b"",
            b" ",
            b"",
            b" HTTP/1.1\r\n" + self._pieces[1],
            *self._pieces[2:],
        ], self._filled_in


def picker(places: Sequence[int]) -> Callable[[Sequence[Any]], Any]:
    """Return a function that picks the items at these places of a sequence, as a sequence.

    It does so in one call, where a loop takes 5 for each item.
    """
    if len(places) > 1:
        return itemgetter(*places)
    # itemgetter returns a single item without a tuple, and does not allow zero items.
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))


# Lines that are compared with those of other forms, to find one that tells a form from them.
TELLING_LINES_MAX: Final = 24
LAST_LINE: Final = (-1, b"")


class Outline:
    """The bytes of a form around its values: reads a head of this form without a pattern.

    The head is split into lines. The values are what follows the names in their lines. If the
    constant bytes with these values are the head again, and no value has a control character or
    white space around it, the cutter would have cut it in the same way.

    Args:
        form: The pieces of a head around its values, as `form_cutter` has cut them.

    Attributes:
        constant: The lines without own values, by their place in the head.
    """

    __slots__ = ("_pieces", "_places", "_size", "constant")

    def __init__(self, form: list[bytes]) -> None:
        # Method, blank and target, then constants and values in turns.
        self._pieces: list[bytes] = [b"", b" ", b""]
        self._places: list[tuple[int, int]] = []  # of each value: its line, and where in it
        line = 0
        for at in range(0, len(form) - 1, 2):
            before, name = form[at : at + 2]
            text = before + name
            self._pieces += (text if at else b" HTTP/1.1" + text, b"")
            line += before.count(b"\r\n") + 1
            self._places.append((line, len(name) - 2))
        text = form[-1] + b"\r\n"
        self._pieces.append(text if self._places else b" HTTP/1.1" + text)
        self._size = line + text.count(b"\r\n") + 1  # what a head is split into
        lines = b"".join(self._pieces).split(b"\r\n")
        own = {line for line, _ in self._places}
        self.constant = {at: lines[at] for at in range(1, self._size - 2) if at not in own}

    def told_by(self, others: "list[Outline]") -> tuple[int, bytes]:
        """Return a line that heads of this form have and heads of the other forms have not.

        To look at this line alone saves `values` of the other forms, and nothing else: whether a
        head is of this form, `values` decides. To compare all constant lines took 7,000 of 196,000
        instructions of the processor for forty kinds of heads.

        Returns:
            The place of the line, and the line. If there is none: the last line, which is empty in
            all heads.
        """
        for at, line in islice(self.constant.items(), TELLING_LINES_MAX):
            for other in others:
                if other.constant.get(at) == line:
                    break
            else:
                return at, line
        return LAST_LINE

    def values(
        self, head: bytes, lines: list[bytes], method: bytes, target: bytes
    ) -> list[bytes] | None:
        """Return the values in a head, which is split at each CRLF.

        Returns:
            None if the form is another, or if the first line is not `method target HTTP/1.1`.
        """
        if len(lines) != self._size:
            return None
        values: list[bytes] = []
        for line, at in self._places:  # not a comprehension: that would be a call
            values.append(lines[line][at:].strip())
        pieces = self._pieces.copy()
        pieces[0] = method
        pieces[2] = target
        pieces[4::2] = values
        if b"".join(pieces) != head:
            return None
        text = b"".join(values)
        return values if text.translate(_CONTROLS_MARKED) == text else None


# Changes all that no value contains (`_VALUE`): control characters.
_CONTROLS_MARKED: Final = bytes(
    [63 if octet == 127 or (octet < 32 and octet != 9) else octet for octet in range(256)]
)
# And all that no target contains (`REQUEST_LINE`).
OTHERS_MARKED: Final = bytes(
    [octet if 32 < octet < 127 and octet != 35 else 32 - (octet == 32) for octet in range(256)]
)
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


def start_of(line: bytes) -> tuple[bytes, bytes]:
    """Return what may be the method and the target of a request line; b"": none that is usual.

    Whether the line has nothing else, `Outline.values` decides.
    """
    method, _, rest = line.partition(b" ")
    return (method, rest[:-9]) if method in _METHODS else (b"", b"")


class FormMemo(Memo[Meaning]):
    """A bounded map from the exact bytes of a form to its meaning."""

    __slots__ = ()

    def __init__(self, bytes_max: int) -> None:
        super().__init__(
            bytes_max, cost_per_byte=8, entry_bytes=_ENTRY_BYTES, key_bytes_max=FORM_BYTES_MAX
        )
