"""The bytes of RETTER's own answers: stored responses, errors, and the fields that it adds.

The caller gives the Date of an error answer. The added fields depend on the circuit's state, the
reason and the connection option alone. So there are a few dozen endings in all, which are made
once, and an answer is a join of ready pieces.
"""

from enum import Enum
from json import dumps
from typing import TYPE_CHECKING, Final

from retter.base.reason import Reason
from retter.breaker import Kind, State
from retter.http.message import RequestHead
from retter.store.conditional import Answer, answer
from retter.store.store import StoredResponse

if TYPE_CHECKING:
    from retter.proxy.waiting_page import Wait


class Persistence(Enum):
    """The connection option of a response (RFC 9112 section 9.3)."""

    KEEP = b""  # HTTP/1.1: persistent unless said otherwise
    CLOSE = b"Connection: close\r\n"
    KEEP_HTTP10 = b"Connection: keep-alive\r\n"  # HTTP/1.0 has to be told


_KEEP: Final = Persistence.KEEP
_GET: Final = Kind.GET

# For a person who sees it. What went wrong in detail is in the log, not on the page.
# As RFC 9110 has them; before Python 3.13 the standard library has older ones.
# Of all that RETTER itself answers (RFC 9110 section 15, RFC 6585). The standard library's http
# would bring 0.1 MB with it, for these.
_PHRASES: Final = {
    308: "Permanent Redirect",
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    508: "Loop Detected",
}

_SENTENCES: Final = {
    502: "The application did not answer as it should.",
    503: "The application has as much to do as it can. Please try again in a moment.",
    504: "The application did not answer in time.",
}
_SENTENCES_BY_REASON: Final = {
    Reason.CONNECT_REFUSED: "The application is not running, or is just being started: it takes no "
    "connections. Please try again in a moment.",
    Reason.CONNECT_TIMEOUT: "The application cannot be reached. Please try again later.",
    Reason.NO_DESCRIPTORS: "This server has more visitors than it can serve. Please try again in a "
    "moment.",
    Reason.PAUSED: "The application is being worked on. Please try again in a moment.",
    Reason.UPSTREAM_MALFORMED: "The application gave an answer that cannot be understood.",
    Reason.UPSTREAM_RESET: "The application broke off before its answer was complete.",
    Reason.UPSTREAM_TLS: "There is no secure connection to the application.",
}


def _escaped(text: str) -> str:
    # The html module has this function, but also 0.3 MB of entities.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# Ages and lengths whose lines are kept: 0.2 MB of each kind.
NUMBERS_MAX: Final = 1024


class _NumberedLines(dict[int, bytes]):
    """Lines of a numeric field, made once for each number, together with what follows them."""

    def __init__(self, name: bytes, end: bytes = b"") -> None:
        super().__init__()
        self._name = name
        self._end = end

    def __missing__(self, number: int) -> bytes:
        if len(self) >= NUMBERS_MAX:
            self.clear()
        line = self[number] = b"%b: %d\r\n%b" % (self._name, number, self._end)
        return line


class AnswerWriter:
    """Composes answers for one process.

    Args:
        headers: Add X-Retter, X-Circuit and Cache-Status (`--headers`).
        error_page: HTML shown instead of the built-in text for 502, 503 and 504, or None.

    Attributes:
        forwarded_keep: The result of `forwarded_end` for the usual answer to a GET. To read it
            saves a call, 350 instructions of the processor.
    """

    __slots__ = (
        "_error_page", "_forwarded", "_headers", "_last", "_last_age", "_last_body", "_last_head",
        "_last_reason", "_lengths", "_seen_body", "_state", "_stored", "_stored_keep",
        "forwarded_keep",
    )  # fmt: skip

    def __init__(self, *, headers: bool, error_page: bytes | None) -> None:
        self._state = State.CLOSED
        self._lengths = _NumberedLines(b"Content-Length")
        self.configure(headers=headers, error_page=error_page)

    def configure(self, *, headers: bool, error_page: bytes | None) -> None:
        """Use other settings."""
        self._headers = headers
        self._error_page = error_page
        self.set_state(self._state)

    def set_state(self, state: State) -> None:
        """Name this state of the circuit in answers from now on."""
        self._state = state
        self._forwarded: dict[tuple[Kind, Persistence], bytes] = {}
        self._stored: dict[tuple[Reason, Persistence], _NumberedLines] = {}
        # The common endings are attributes: a tuple of enum members as a key costs
        # 0.4 us to hash.
        self.forwarded_keep = self._circuit_fields(b"backend") + b"\r\n"
        self._stored_keep: dict[Reason, _NumberedLines] = {}
        # The body that was sent last, and the last answer with a body that was sent twice in a row,
        # with what it was joined from. `b""` is one object, so `_last_reason` is what says that
        # there is none.
        self._seen_body: bytes = b""
        self._last_head: bytes = b""
        self._last_body: bytes = b""
        self._last: bytes = b""
        self._last_age = 0
        self._last_reason: Reason | None = None

    def forwarded_end(self, kind: Kind, persistence: Persistence) -> bytes:
        """Return what follows ResponseHead.forward, with the empty line."""
        if persistence is _KEEP:
            return self.forwarded_keep if kind is _GET else b"\r\n"
        ending = self._forwarded.get((kind, persistence))
        if ending is None:
            fields = self._circuit_fields(b"backend") if kind is _GET else b""
            ending = self._forwarded[kind, persistence] = fields + persistence.value + b"\r\n"
        return ending

    def _circuit_fields(self, source: bytes) -> bytes:
        if not self._headers:
            return b""
        return b"X-Retter: %b\r\nX-Circuit: %b\r\n" % (source, self._state.value.encode())

    def _stored_ends(self, reason: Reason, persistence: Persistence) -> _NumberedLines:
        lines = self._stored.get((reason, persistence))
        if lines is None:
            end = self._make_stored_end(reason, persistence)
            lines = self._stored[reason, persistence] = _NumberedLines(b"Age", end)
        if persistence is _KEEP:
            self._stored_keep[reason] = lines
        return lines

    def _make_stored_end(self, reason: Reason, persistence: Persistence) -> bytes:
        fields = b""
        if self._headers:
            # RFC 9211 section 2: the one member says that the store answered, and why.
            fields = b"Cache-Status: retter; hit; detail=%b\r\n" % reason.encode()
            fields += self._circuit_fields(b"cache")
        return fields + persistence.value + b"\r\n"

    def stored_whole(
        self, head: bytes, body: bytes, age_s: float, reason: Reason, persistence: Persistence
    ) -> bytes:
        """Return a stored response in one piece, whole.

        It is joined from ready lines: 0.3 us. To format the numbers and then join head and body
        took 0.75. In a rush on one page, it is the same answer for a second: from the third one on
        it is not joined again, which takes 2,400 of 25,300 instructions of the processor. An answer
        for another page takes 7 instructions of the interpreter more.

        Args:
            head: Without Content-Length and Age.
            age_s: The age of the response now (RFC 9111 section 4.2.3).
        """
        if body is self._seen_body:
            age = int(age_s)
            if (
                body is self._last_body
                and head is self._last_head
                and age == self._last_age
                and reason is self._last_reason
                and persistence is _KEEP
            ):
                return self._last
            whole = self._joined(head, body, age, reason, persistence)
            if persistence is _KEEP:
                self._last, self._last_age, self._last_reason = whole, age, reason
                self._last_head, self._last_body = head, body
            return whole
        self._seen_body = body
        ends = self._stored_keep.get(reason) if persistence is _KEEP else None
        if ends is None:
            ends = self._stored_ends(reason, persistence)
        return b"".join((head, self._lengths[len(body)], ends[int(age_s)], body))

    def _joined(
        self, head: bytes, body: bytes, age: int, reason: Reason, persistence: Persistence
    ) -> bytes:
        ends = self._stored_ends(reason, persistence)
        return b"".join((head, self._lengths[len(body)], ends[age], body))

    def stored(
        self, shown: StoredResponse, reason: Reason, persistence: Persistence, now: float
    ) -> tuple[bytes, bytes]:
        """Return head and body of a stored response, whole."""
        ends = self._stored_ends(reason, persistence)
        length = self._lengths[len(shown.body)]
        return b"".join((shown.head, length, ends[int(shown.age(now))])), shown.body

    def stored_conditionally(
        self,
        request: RequestHead,
        stored: StoredResponse,
        reason: Reason,
        persistence: Persistence,
        now: float,
    ) -> tuple[bytes, bytes | memoryview]:
        """Return head and body for a request with conditions or a range: 200, 206, 304, 416."""
        chosen: Answer = answer(request, stored)
        ends = self._stored_ends(reason, persistence)
        return chosen.head + ends[int(stored.age(now))], chosen.body

    def error(
        self,
        request: RequestHead | None,
        status: int,
        reason: Reason,
        persistence: Persistence,
        *,
        date: str,
        retry_after_s: int | None = None,
        detail: str = "",
        wait: "Wait | None" = None,
    ) -> bytes:
        """Return a whole error answer, in the form that the client prefers.

        Args:
            request: The request, or None if its head could not be read.
            retry_after_s: Whole seconds for Retry-After (RFC 9110 section 10.2.3).
            detail: The mistake in a client's request.
            wait: The page for a visitor who has to wait, unless the operator has an error page.
        """
        phrase = _PHRASES.get(status, "Error")
        sentence = detail or _SENTENCES_BY_REASON.get(reason) or _SENTENCES.get(status, phrase)
        if wait is not None and self._error_page is None:
            kind, body = "text/html; charset=utf-8", wait.page
            retry_after_s = wait.again_s
        else:
            if wait is not None and retry_after_s is None:
                retry_after_s = wait.again_s  # the page is the operator's
            kind, body = self._error_body(request, status, phrase, sentence, reason)
        lines = [
            f"HTTP/1.1 {status} {phrase}",
            f"Date: {date}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Via: 1.1 retter",
        ]
        if status == 405:
            lines.append("Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS")
        if retry_after_s is not None:
            lines.append(f"Retry-After: {retry_after_s}")
        if wait is not None:
            lines += self._waiting_fields(wait)
        if self._headers:
            # RFC 9211 section 2.3: not answered by the store, and why not.
            lines.append(f"Cache-Status: retter; fwd=miss; detail={reason}")
            lines.append(f"X-Circuit: {self._state.value}")
        head = "\r\n".join(lines).encode() + b"\r\n" + persistence.value + b"\r\n"
        if request is not None and request.method == b"HEAD":
            return head
        return head + body

    def _waiting_fields(self, wait: "Wait") -> list[str]:
        lines = [f"Set-Cookie: {wait.set_cookie}"] if wait.set_cookie else []
        if self._error_page is None:
            lines.append(f"Refresh: {wait.again_s}")
            lines.append(
                "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
                "frame-ancestors 'self'"
            )
        return lines

    def _error_body(
        self, request: RequestHead | None, status: int, phrase: str, sentence: str, reason: Reason
    ) -> tuple[str, bytes]:
        accept = request.combined(b"accept").lower() if request is not None else b""
        if b"text/html" in accept:
            if self._error_page is not None and status in _SENTENCES:
                return "text/html; charset=utf-8", self._error_page
            title = f"{status} {phrase}"
            page = (
                f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
                '<meta name="viewport" content="width=device-width">\n'
                f"<h1>{title}</h1>\n<p>{_escaped(sentence)}</p>\n</html>\n"
            )
            return "text/html; charset=utf-8", page.encode()
        if b"json" in accept:
            problem = {"status": status, "title": phrase, "detail": sentence, "reason": reason}
            kind = "application/problem+json" if b"problem+json" in accept else "application/json"
            return kind, dumps(problem).encode() + b"\n"
        return "text/plain; charset=utf-8", f"{status} {phrase}: {sentence}\n".encode()
