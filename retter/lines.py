"""Heads that never repeat, a line at a time: most lines of a new head are old acquaintances.

A browser's User-Agent and Accept fields are the same in every request; what changes are the
request line, the Referer, a cookie. So what a *line* means is remembered under its exact bytes,
and a new head costs one look-up a line instead of 25 us in h11.

The grammar here is RFC 9110's in its plainest form and deliberately smaller than h11's: a line
that does not match is no error, it only sends the whole head to h11, which has the last word on
everything unusual. So the two can differ in cost only; tests/test_lines.py holds them together.
"""

import re
from typing import Final, Generic, TypeVar

# RFC 9110 section 5.5: field-name ":" OWS field-value OWS, without obs-fold. The value begins and
# ends with a visible octet (or obs-text), and control characters are in neither part.
FIELD_LINE: Final = re.compile(
    rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \t]*"
    rb"([\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?[ \t]*"
)

# RFC 9112 section 3, origin-form alone; the fragment sign is no part of it.
REQUEST_LINE: Final = re.compile(
    rb"([-!#$%&'*+.^_`|~0-9A-Za-z]+) (/[\x21\x22\x24-\x7e]*) HTTP/1\.1"
)

# RFC 9112 section 4.
STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ([\t\x20-\x7e\x80-\xff]*)")

# A remembered line costs about this much beside its own bytes: its tuples and a dict entry.
_ENTRY_BYTES: Final = 450

# Lines longer than this are mostly a visitor's own (long cookies): they would only push out others.
LINE_BYTES_MAX: Final = 1024

Meaning = TypeVar("Meaning")


def lines_of(head: bytes) -> list[bytes]:
    """Split a whole head into its lines, without the empty one.

    A bare CR or LF stays inside a line, and no line with one matches the grammars above.
    """
    return head[:-4].split(b"\r\n")


class LineMemo(Generic[Meaning]):
    """A bounded map from exact line bytes to what they mean.

    Like heads.HeadMemo: a full young dict becomes the old one, and what is asked for moves back.
    """

    __slots__ = ("_bytes", "_bytes_max", "_old", "young")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max // 2
        self._bytes = 0
        self.young: dict[bytes, Meaning] = {}
        self._old: dict[bytes, Meaning] = {}

    def older(self, line: bytes) -> Meaning | None:
        """Look among the older lines for one that is not in `young`."""
        found = self._old.pop(line, None)
        if found is not None:
            self.put(line, found)
        return found

    def put(self, line: bytes, meaning: Meaning) -> None:
        """Remember what a line means."""
        cost = 4 * len(line) + _ENTRY_BYTES
        if len(line) > LINE_BYTES_MAX or cost > self._bytes_max:
            return
        if self._bytes + cost > self._bytes_max:
            self._old, self.young, self._bytes = self.young, {}, 0
        self.young[line] = meaning
        self._bytes += cost

    def __len__(self) -> int:
        return len(self.young) + len(self._old)
