"""Whether an answer with a good status is a good answer.

A status says what the application meant to send, not what it sent: PHP without its database sends
`200 DB error: too many connections`, a worker that runs out of memory an empty 200, a theme whose
query has failed a page without its articles. None of them may take the place of the good page that
is stored. So an answer is judged by its body and by what is stored for the same request:

- An *error page in disguise* is small (under 16 KiB, and under half of the stored response) and
  contains one of the failure texts. It is a failure: the stored response is sent instead. A page
  *about* such an error is as large as other pages.
- An answer that *may be a torso* does not replace the stored response, but is delivered: one that
  says nothing (empty, blanks, tags alone, `null`, `[]`), one that ends with its connection at less
  than half of the stored length (RFC 9112 section 8 knows no way to tell whether it is whole), and
  one that has no `</html>` where the stored one ends with it, or JSON or XML without its last
  bracket: PHP sends what there is when it dies. So may be one of under half that is of another type
  (`Service Unavailable` as plain text) or is JSON that tells of an error (`{"error":`, `{"success":
  false`). The third in a row is believed.
  But a content coding tells where it ends: what is cut by it is never stored, whatever its length.
- A *redirect to an error page* (`/maintenance`, `?aspxerrorpath=`) in place of a page is a failure,
  also one that the page itself orders (`<meta http-equiv="refresh">`).
- A *challenge* (is this client a robot?) is for its client alone. It replaces nothing.
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
from retter.http.head_edit import fields_of
from retter.http.known_names import CHALLENGE_TEXTS
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
# A failure text that stands in the stored page too, between these octets, is a part of the page: of
# the sentences for a script, say. So many octets of that page are searched, and so many places of
# the answer. A visitor who writes the text of an error page into a comment has not its tags around.
AROUND_BYTES: Final = 64
KNOWN_BYTES_MAX: Final = 128 * 1024
KNOWN_PLACES_MAX: Final = 16
# To find the end of a coded body, at most this many octets of it are decoded: 1 ms.
FOLLOWED_BYTES_MAX: Final = 512 * 1024
BELIEVED_AFTER: Final = 3  # torsos in a row: then the page has become that short
# Pages whose last answer may have been a torso; 200 octets each. The oldest is forgotten.
TORSOS_MAX: Final = 1024
FAILING_MAX: Final = 256  # URLs that failed lately
TROUBLE_S: Final = 10.0  # after a failure: a second one in that time is hardly chance
LATELY_S: Final = 60.0  # after a failure: answers are held back until they are whole

_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_BYTES_MIN: Final = 20  # of an empty body (RFC 1952)
_BLANKS: Final = b" \t\r\n\x00\xef\xbb\xbf"  # with the octets of a byte order mark in UTF-8
# Tags alone, or JSON without any value.
_says_nothing: Final = re.compile(rb"(?:[\s\[\]{}\",]|null|<[^>]*+>)*+").fullmatch
_TEXT_TYPES: Final = (b"text/", b"application/json", b"application/xml", b"application/xhtml+xml")
_TEXT_SUFFIXES: Final = (b"+json", b"+xml")
_JUDGED: Final = frozenset({200, 201, 202, 203, 204, 205})  # not parts

_REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})

_END_OF_PAGE: Final = b"</html>"
# The last octets of nearly all pages: many end with a comment of a cache or a profiler.
PAGE_ENDS: Final = (_END_OF_PAGE, b"</html>\n", b"</html>\r\n", b"-->", b"-->\n")
# The end of a page, and what caches and profilers write behind it.
TAIL_BYTES: Final = 1024
# The last octets of JSON and XML.
DATA_ENDS: Final = (b"}", b"]", b">", b"}\n", b"]\n", b">\n", b">\r\n")
ENDS: Final = (*PAGE_ENDS, *DATA_ENDS)
_DATA_TYPES: Final = (b"json", b"xml")

# JSON that has an error instead of what was asked for, in lower case: of itself, of JSON-RPC and
# GraphQL, or as `{"success": false`, `{"status": "error"` and `{"statusCode": 503`.
_is_json_error: Final = re.compile(
    rb"\s*+\{\s*+(?:\"jsonrpc\"\s*+:\s*+\"[0-9.]{1,8}+\"\s*+,\s*+)?+\""
    rb"(?:(?:errors?|exception|fault|odata\.error)\"|(?:success|ok)\"\s*+:\s*+(?:false|0)"
    rb"|(?:status|result)\"\s*+:\s*+(?:\"(?:error|fail(?:ed)?+|failure)\"|false)"
    rb"|(?:status|status_?code|code)\"\s*+:\s*+\"?+50[0-9]|(?:data|result)\"\s*+:\s*+null)"
).match
# GraphQL may give a part of the data, and then its errors.
_is_graphql: Final = re.compile(rb"\s*+\{\s*+\"data\"\s*+:").match
_has_graphql_errors: Final = re.compile(rb"\"errors\"\s*+:\s*+\[\s*+\{").search
# A redirect by the page itself (HTML, 4.2.5.3).
_refreshes_to: Final = re.compile(
    rb"http-equiv=[\"']?refresh[\"']?[^<>]{1,64}?url=[\"']?+([^\"'<> ]{1,512})"
).search

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


_CHALLENGES: Final = tuple([text.lower().encode() for text in CHALLENGE_TEXTS])


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
        self._failed_at = self._troubled_at = -inf
        self._failing: OrderedDict[bytes, float] = OrderedDict()  # by URL: when; oldest first
        self._texts: tuple[bytes, ...] = ()
        self.configure(failure_texts)

    def configure(self, failure_texts: Sequence[bytes]) -> None:
        """Set the texts that mark an error page; their case does not matter."""
        self._texts = tuple([text.lower() for text in failure_texts])

    def failed(self, now: float, url: bytes = b"", good_at: float = -inf) -> None:
        """Record that the application failed or was late: answers are checked for a while.

        A URL that fails again, while others get good answers, is broken by itself. That is no
        trouble: all visitors' browsers may ask for it again and again.

        Args:
            good_at: When another client got a good answer last.
        """
        self._failed_at = now
        before = self._failing.pop(url, -inf)
        if good_at <= before or now - before > LATELY_S:
            self._troubled_at = now
        if url:
            self._failing[url] = now
            if len(self._failing) > FAILING_MAX:
                self._failing.popitem(last=False)

    def in_trouble(self, now: float) -> bool:
        """Return whether something has failed within the last seconds."""
        return now - self._troubled_at < TROUBLE_S

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
            if not trouble or len(body) >= NEW_BYTES_MAX:
                return Verdict.GOOD
            text = _text_of(head, body, coding)
            return Verdict.UNCLEAR if self._admits_failure(head, text) else Verdict.GOOD
        if not has_shrunk(body, stored.body, coding, stored.content_coding):
            return self._judge_large(key, head, body, stored, coding, trouble=trouble)
        text = b""
        if len(body) < SMALL_BYTES_MAX:
            text = _text_of(head, body, coding)
            if (
                self._admits_failure(head, text) and not self._is_of_page(head, text, stored)
            ) or _leads_to_failure(text):
                return Verdict.FAILED
        if trouble or any(text.find(words) >= 0 for words in _CHALLENGES):
            return Verdict.NOT_STORED
        if (
            head.framing is Framing.CLOSE
            or _is_blank(head, body, coding)
            or _is_json_error(text)
            or (_is_graphql(text) and _has_graphql_errors(text))
            or _is_of_other_type(head, stored)
        ):
            return self._torso(key, stored.stored_at)
        return Verdict.GOOD

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
        if has_lost_end(body, stored.body) or _has_lost_bracket(head, body, stored.body):
            if self._admits_failure(head, _text_of(head, body[-NEW_BYTES_MAX:], coding)):
                return Verdict.FAILED
            return Verdict.NOT_STORED if trouble else self._torso(key, stored.stored_at)
        return Verdict.GOOD

    def _judge_redirect(
        self, key: bytes, head: ResponseHead, stored: StoredResponse, *, trouble: bool
    ) -> Verdict:
        """Judge a redirect that would replace a page."""
        place = (head.first(b"location") or b"").lower()
        if len(place) <= PLACE_BYTES_MAX:
            if _is_failure_page(place):
                return Verdict.FAILED
            if not trouble and _may_be_failure_place(_end_of_path(place)[0]):
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

    def _admits_failure(self, head: ResponseHead, text: bytes) -> bool:
        """Return whether a small body contains one of the texts. Linear in its length.

        With a 200, Retry-After has no meaning (RFC 9110 section 10.2.3): a page with it is one of
        maintenance. Programs that ask for the state of a job may get both.

        Args:
            text: The body as `_text_of` returns it.
        """
        if _is_maintenance(head):
            return True
        if not text:
            return False
        find = text.find  # `in` takes 0.4 us more for each text
        return any(find(one) >= 0 for one in self._texts)

    def _is_of_page(self, head: ResponseHead, text: bytes, stored: StoredResponse) -> bool:
        """Return whether each failure text in a small body stands in the stored page as well."""
        if _is_maintenance(head):
            return False
        known = stored.body
        if stored.content_coding:
            known = decoded(known, canonical(stored.content_coding), KNOWN_BYTES_MAX) or b""
        if len(known) > KNOWN_BYTES_MAX:
            return False
        known, places = known.lower(), KNOWN_PLACES_MAX
        for one in self._texts:
            at = text.find(one)
            while at >= 0:
                around = text[max(0, at - AROUND_BYTES) : at + len(one) + AROUND_BYTES]
                places -= 1
                if not places or len(around) < len(one) + 2 * AROUND_BYTES or around not in known:
                    return False
                at = text.find(one, at + 1)
        return True


def _text_of(head: ResponseHead, body: bytes, coding: bytes) -> bytes:
    """Return a text in lower case, without its coding; b"" if it cannot be read, or is no text."""
    if not _is_text(head):
        return b""
    if coding:
        plain = decoded(body, coding, SMALL_BYTES_MAX)
        if plain is None:
            return b""  # not to be read here, or not small
        body = plain
    return body.lower()


def _leads_to_failure(text: bytes) -> bool:
    """Return whether a page itself redirects to an error page."""
    place = _refreshes_to(text)
    return place is not None and _is_failure_page(place[1])


def _is_failure_page(place: bytes) -> bool:
    """Return whether a URL in lower case is that of an error page for failures."""
    path, query = _end_of_path(place)
    return _is_failure_place(path) is not None or (
        _FAILED_PATH in query and _is_missing_place(path) is None
    )


def _end_of_path(place: bytes) -> tuple[bytes, bytes]:
    """Return the last two segments of the path of a URL, and its query."""
    path, _, query = place.partition(b"#")[0].partition(b"?")
    return b"/".join(path.rstrip(b"/").rsplit(b"/", 2)[-2:]), query


def _is_blank(head: ResponseHead, body: bytes, coding: bytes) -> bool:
    """Return whether a body is empty, or says nothing.

    An order that was accepted (202) may have nothing to say yet.
    """
    plain = decoded(body, coding, BLANK_BYTES_MAX) if coding else body
    if plain is None:
        return not length_of(body)
    if len(plain) > BLANK_BYTES_MAX:
        return False
    plain = plain.strip(_BLANKS)
    return not plain or (head.status == 200 and _says_nothing(plain) is not None)


def _has_lost_bracket(head: ResponseHead, body: bytes, stored_body: bytes) -> bool:
    """Return whether JSON or XML without coding does not end, while the stored one does."""
    return (
        stored_body.endswith(DATA_ENDS)
        and not body.rstrip().endswith(DATA_ENDS)
        and _essence(head.first(b"content-type")).endswith(_DATA_TYPES)
    )


def _is_of_other_type(head: ResponseHead, stored: StoredResponse) -> bool:
    """Return whether a response has another content type than the stored one."""
    given = _essence(head.first(b"content-type"))
    for name, value in fields_of(stored.head):
        if name == b"content-type":
            return bool(given) and given != _essence(value)
    return False


def _is_maintenance(head: ResponseHead) -> bool:
    """Return whether a page comes with Retry-After."""
    return head.status == 200 and head.first(b"retry-after") is not None and _is_page(head)


def _is_page(head: ResponseHead) -> bool:
    return _essence(head.first(b"content-type")) == b"text/html"


def _is_text(head: ResponseHead) -> bool:
    """Return whether the content type is one of texts; one that is not given may be anything."""
    value = head.first(b"content-type")
    if value is None:
        return True
    essence = _essence(value)
    return essence.startswith(_TEXT_TYPES) or essence.endswith(_TEXT_SUFFIXES)


def _essence(content_type: bytes | None) -> bytes:
    """Return a content type in lower case without its parameters."""
    return (content_type or b"").partition(b";")[0].strip(b" \t").lower()
