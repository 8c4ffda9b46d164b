"""Whether an answer with a good status is a good answer.

A status says what the application meant to send, not what it sent: PHP without its database sends
`200 DB error: too many connections`, a worker that runs out of memory an empty 200, a theme whose
query has failed a page without its articles. None of them may take the place of the good page that
is stored. So an answer is judged by its body and by what is stored for the same request:

- An *error page in disguise* is small (under 16 KiB, and under half of the stored response) and
  contains one of the failure texts. It is a failure: the stored response is sent instead. A page
  *about* such an error is as large as other pages.
- An answer that *may be a torso* does not replace the stored response, but is delivered: an empty
  or blank one, one that ends with its connection at less than half of the stored length (RFC
  9112 section 8 knows no way to tell whether it is whole), and one that has no `</html>` where the
  stored one ends with it: PHP sends what there is when it dies. The third in a row is believed. But
  a content coding tells where it ends: what is cut by it is never stored, whatever its length is.
- A *redirect to an error page* (`/maintenance`, `?aspxerrorpath=`) in place of a page is a failure.
- *In trouble* (the circuit is not closed, or something failed a moment ago) no answer of less than
  half of the stored length replaces it, nor does a redirect.

Any other answer that is equal to what is stored, or at least half as long, needs no judgement: see
`has_shrunk`.
Lengths are those of the bodies without gzip, and without other codings if the two have different
ones. `now` is monotonic seconds.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from enum import Enum, auto
from math import inf
from typing import Final

from retter.compression.compressors import available, decoded, is_cut
from retter.http.cache_control import coding_of
from retter.http.content_coding import canonical
from retter.http.message import Framing, ResponseHead
from retter.store.record import StoredResponse
from retter.store.target import changes_person

# Error pages are a few hundred octets, with a designer's hand 10 KiB; pages about errors are more.
SMALL_BYTES_MAX: Final = 16 * 1024
# Without a stored response to compare: in a body this small, the text is most of it, or all.
NEW_BYTES_MAX: Final = 4 * 1024
# PHP sends the line ends around its code even if that has died. A page has more than this.
BLANK_BYTES_MAX: Final = 64
# Twice a small page: a body is decoded to this at most, to be compared with another one.
COMPARED_BYTES_MAX: Final = 2 * SMALL_BYTES_MAX
# To find the end of a coded body, at most this many octets of it are decoded: 1 ms.
FOLLOWED_BYTES_MAX: Final = 512 * 1024
BELIEVED_AFTER: Final = 3  # torsos in a row: then the page has become that short
# Pages whose last answer may have been a torso; 200 octets each. The oldest is forgotten.
TORSOS_MAX: Final = 1024
TROUBLE_S: Final = 10.0  # after a failure: a second one in that time is hardly chance
LATELY_S: Final = 60.0  # after a failure: answers are held back until they are whole

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_BYTES_MIN: Final = 20  # of an empty body (RFC 1952)
_BLANKS: Final = b" \t\r\n\x00\xef\xbb\xbf"  # with the octets of a byte order mark in UTF-8
_TEXT_TYPES: Final = (b"text/", b"application/json", b"application/xml", b"application/xhtml+xml")
_TEXT_SUFFIXES: Final = (b"+json", b"+xml")
_JUDGED: Final = frozenset({200, 201, 202, 203, 204, 205})  # not parts

_REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})

_END_OF_PAGE: Final = b"</html>"
# The last octets of nearly all pages: many end with a comment of a cache or a profiler.
PAGE_ENDS: Final = (_END_OF_PAGE, b"</html>\n", b"</html>\r\n", b"-->", b"-->\n")
# The end of a page, and what caches and profilers write behind it.
TAIL_BYTES: Final = 1024

# The end of the path of an error page for failures, and not for what is missing. A number alone may
# be that of an article.
_is_failure_place: Final = re.compile(
    rb"(?:[^/]*+/)?+(?:(?:under[-_]?)?+maintenance(?:[-_]?(?:mode|page))?+|err(?:or)?[-_]?50[0234]"
    rb"|50[0234]\.[a-z]{1,5}+|(?:service|site|temporarily|database|db|server)[-_]?"
    rb"(?:unavailable|down|offline)|offline|(?:(?:internal[-_]?)?+server|database|db)[-_]?error)"
    rb"(?:\.[a-z]{1,5}+)?+"
    rb"|err(?:or)?s?[a-z]{0,16}+/50[0234](?:\.[a-z]{1,5}+)?+"
).fullmatch
# ASP.NET writes the failed path into this parameter, also if it is of a page that is missing.
_FAILED_PATH: Final = b"aspxerrorpath="
_is_missing_place: Final = re.compile(rb"4[01][0-9]|not[-_]?found|missing").search
# The path of an error page of any kind.
_may_be_failure_place: Final = re.compile(
    rb"(?:[^/]*+/)?+(?:err(?:or)?s?|sorry|oops|busy|unavailable)(?:\.[a-z]{1,5}+)?+"
).fullmatch
# A longer Location leads to no error page.
PLACE_BYTES_MAX: Final = 512


class Verdict(Enum):
    """The verdict about a response."""

    GOOD = auto()  # to be delivered and stored
    NOT_STORED = auto()  # to be delivered; what is stored stays
    UNCLEAR = auto()  # the same, and it says nothing about the application
    FAILED = auto()  # a failure: the stored response stands in for it


def length_of(body: bytes) -> int:
    """Return the length of a body in octets; for gzip about that of its decoded form.

    The last four octets have it (RFC 1952 section 2.3.1), modulo 4 GiB, for the last member alone:
    enough to compare two answers of one application.
    """
    if body[:2] == _GZIP_MAGIC and len(body) >= _GZIP_BYTES_MIN:
        return max(len(body) - _GZIP_BYTES_MIN, int.from_bytes(body[-4:], "little"))
    return len(body)


def has_shrunk(
    body: bytes, stored_body: bytes, coding: bytes = b"", stored_coding: bytes = b""
) -> bool:
    """Return whether a body is under half of the stored one.

    The time is constant, unless the two have different codings, of which one does not tell the
    length: an error page of 1 KiB is small beside a page that brotli has made as small.
    """
    length, stored_length = length_of(body), length_of(stored_body)
    shrunk = 2 * length < stored_length
    if coding == stored_coding:
        return shrunk
    coding, stored_coding = canonical(coding), canonical(stored_coding)
    if not shrunk and _hides_length(stored_coding) and 2 * length <= COMPARED_BYTES_MAX:
        return decoded(stored_body, stored_coding, 2 * length) is None  # it becomes larger
    if shrunk and _hides_length(coding) and stored_length <= COMPARED_BYTES_MAX:
        return decoded(body, coding, stored_length // 2) is not None
    return shrunk


def has_lost_end(body: bytes, stored_body: bytes) -> bool:
    """Return whether a body without coding does not end as a page, while the stored one does."""
    return (
        stored_body.endswith(PAGE_ENDS)
        and not body.endswith(PAGE_ENDS)
        and body.find(_END_OF_PAGE, -TAIL_BYTES) < 0
        and stored_body.find(_END_OF_PAGE, -TAIL_BYTES) >= 0
    )


def _hides_length(coding: bytes) -> bool:
    """Return whether `length_of` is wrong for a coding, and decoding shows the length."""
    return coding == b"deflate" or (coding in (b"br", b"zstd") and available(coding))


class Goodness:
    """Judges answers, and remembers where and when one was not good."""

    def __init__(self, failure_texts: Sequence[bytes] = ()) -> None:
        # By key: when what is stored there was received, and so many torsos since.
        self.torsos: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._failed_at = -inf
        self._texts: tuple[bytes, ...] = ()
        self.configure(failure_texts)

    def configure(self, failure_texts: Sequence[bytes]) -> None:
        """Set the texts that mark an error page; their case does not matter."""
        self._texts = tuple([text.lower() for text in failure_texts])

    def failed(self, now: float) -> None:
        """Record that the application failed or was late: answers are checked for a while."""
        self._failed_at = now

    def in_trouble(self, now: float) -> bool:
        """Return whether something has failed within the last seconds."""
        return now - self._failed_at < TROUBLE_S

    def failed_lately(self, now: float) -> bool:
        """Return whether something has failed within the last minute."""
        return now - self._failed_at < LATELY_S

    def judge(
        self,
        key: bytes,
        head: ResponseHead,
        body: bytes,
        stored: StoredResponse | None,
        *,
        trouble: bool,
    ) -> Verdict:
        """Judge a whole answer to a GET.

        Args:
            key: The key under which it would be stored.
            body: As the application sent it.
            stored: The stored response that would be sent in its place.
            trouble: The circuit is not closed, or `in_trouble`.
        """
        if head.status not in _JUDGED:
            if stored is None or stored.status >= 300 or head.status not in _REDIRECTS:
                return Verdict.GOOD
            return self._judge_redirect(key, head, stored, trouble=trouble)
        coding = canonical(coding_of(head.combined(b"content-encoding")))
        if coding and head.framing is Framing.CLOSE and is_cut(body, coding, FOLLOWED_BYTES_MAX):
            return Verdict.NOT_STORED
        if stored is None:
            new = trouble and len(body) < NEW_BYTES_MAX and self._admits_failure(head, body)
            return Verdict.UNCLEAR if new else Verdict.GOOD
        if not has_shrunk(body, stored.body, coding, stored.content_coding):
            return self._judge_large(key, head, body, stored, coding, trouble=trouble)
        if len(body) < SMALL_BYTES_MAX and self._admits_failure(head, body):
            return Verdict.FAILED
        if trouble:
            return Verdict.NOT_STORED
        if head.framing is not Framing.CLOSE and not _is_blank(body, coding):
            return Verdict.GOOD
        return self._torso(key, stored.stored_at)

    def _judge_large(
        self,
        key: bytes,
        head: ResponseHead,
        body: bytes,
        stored: StoredResponse,
        coding: bytes,
        *,
        trouble: bool,
    ) -> Verdict:
        """Judge an answer of at least half of the stored length."""
        if coding or stored.content_coding:
            return Verdict.GOOD  # to look into both would take too long
        if has_lost_end(body, stored.body):
            if self._admits_failure(head, body[-NEW_BYTES_MAX:]):
                return Verdict.FAILED
            return Verdict.NOT_STORED if trouble else self._torso(key, stored.stored_at)
        return Verdict.GOOD

    def _judge_redirect(
        self, key: bytes, head: ResponseHead, stored: StoredResponse, *, trouble: bool
    ) -> Verdict:
        """Judge a redirect that would replace a page."""
        place = (head.first(b"location") or b"").lower()
        if len(place) <= PLACE_BYTES_MAX:
            path, _, query = place.partition(b"#")[0].partition(b"?")
            path = b"/".join(path.rstrip(b"/").rsplit(b"/", 2)[-2:])
            if _is_failure_place(path) or (_FAILED_PATH in query and not _is_missing_place(path)):
                return Verdict.FAILED
            if not trouble and _may_be_failure_place(path):
                return self._torso(key, stored.stored_at)
        # Who is led to a login has no session any more, and does not see its page again.
        if trouble and (stored.public or not changes_person(place[:PLACE_BYTES_MAX])):
            return Verdict.NOT_STORED
        return Verdict.GOOD

    def _torso(self, key: bytes, stored_at: float) -> Verdict:
        before, count = self.torsos.pop(key, (stored_at, 0))
        if before != stored_at:
            count = 0  # a whole one has come in between
        if count + 1 >= BELIEVED_AFTER:
            return Verdict.GOOD
        self.torsos[key] = stored_at, count + 1
        if len(self.torsos) > TORSOS_MAX:
            self.torsos.popitem(last=False)
        return Verdict.NOT_STORED

    def _admits_failure(self, head: ResponseHead, body: bytes) -> bool:
        """Return whether a small body contains one of the texts. Linear in its length.

        With a 200, Retry-After has no meaning (RFC 9110 section 10.2.3): a page with it is one of
        maintenance. Programs that ask for the state of a job may get both.
        """
        if head.status == 200 and head.first(b"retry-after") is not None and _is_page(head):
            return True
        if not self._texts or not _is_text(head):
            return False
        if coding := coding_of(head.combined(b"content-encoding")):
            plain = decoded(body, canonical(coding), SMALL_BYTES_MAX)
            if plain is None:
                return False  # not to be read here, or not small
            body = plain
        find = body.lower().find  # `in` takes 0.4 us more for each text
        return any(find(text) >= 0 for text in self._texts)


def _is_blank(body: bytes, coding: bytes) -> bool:
    """Return whether a body is empty, or blanks and line ends alone."""
    plain = decoded(body, coding, BLANK_BYTES_MAX) if coding else body
    if plain is None:
        return not length_of(body)
    return len(plain) <= BLANK_BYTES_MAX and not plain.strip(_BLANKS)


def _is_page(head: ResponseHead) -> bool:
    essence = (head.first(b"content-type") or b"").partition(b";")[0]
    return essence.strip(b" \t").lower() == b"text/html"


def _is_text(head: ResponseHead) -> bool:
    """Return whether the content type is one of texts; one that is not given may be anything."""
    value = head.first(b"content-type")
    if value is None:
        return True
    essence = value.partition(b";")[0].strip(b" \t").lower()
    return essence.startswith(_TEXT_TYPES) or essence.endswith(_TEXT_SUFFIXES)
