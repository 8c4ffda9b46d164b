"""RETTER's own answers: stored responses, errors in every form, the fields that it adds."""

import json
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.errors import RetterError
from retter.base.reason import Reason
from retter.breaker import Kind, State
from retter.http.message import RequestHead
from retter.http.request_parser import RequestParser
from retter.proxy.responses import AnswerWriter, Persistence
from retter.store.record import StoredResponse
from tests.support.harness import body_of, field, status_of

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


def request(method: str = "GET", **fields: str) -> RequestHead:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    parser = RequestParser(fields_max=50, target_bytes_max=100, instance=b"me", trusted=False)
    return parser.parse(f"{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode())


def stored(body: bytes = b"good", etag: bytes = b'"1"') -> StoredResponse:
    return StoredResponse(
        status=200, head=b"HTTP/1.1 200 OK\r\nETag: " + etag + b"\r\n", body=body,
        content_coding=b"", etag=etag, last_modified=b"", stored_at=100.0, age_s=2.0,
        superseded=False, no_store=False, age_max_s=1e9, variant_key=b"", vary_names=(), vary=b"",
        received_age_s=0, entry_bytes=0,
    )  # fmt: skip


def writer(*, headers: bool = True, error_page: bytes | None = None) -> AnswerWriter:
    return AnswerWriter(headers=headers, error_page=error_page)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("persistence", list(Persistence))
@pytest.mark.parametrize("headers", [True, False])
def test_the_end_of_a_forwarded_head(kind: Kind, persistence: Persistence, headers: bool) -> None:
    answers = writer(headers=headers)
    for state in State:
        answers.set_state(state)
        for _ in range(2):  # made, and remembered
            end = answers.forwarded_end(kind, persistence)
            told = headers and kind is Kind.GET
            assert (b"X-Retter: backend\r\n" in end) is told
            assert (b"X-Circuit: %b\r\n" % state.value.encode() in end) is told
            assert end.endswith(persistence.value + b"\r\n")


@pytest.mark.parametrize("persistence", list(Persistence))
def test_a_stored_response(persistence: Persistence) -> None:
    answers = writer()
    answers.set_state(State.OPEN)
    for _ in range(2):
        head, body = answers.stored(stored(), Reason.OPEN, persistence, 107.9)
        assert head == (
            b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 4\r\nAge: 9\r\n'
            b"Cache-Status: retter; hit; detail=open\r\nX-Retter: cache\r\nX-Circuit: OPEN\r\n"
            + persistence.value
            + b"\r\n"
        )
        assert body == b"good"
        one = stored()
        whole = answers.stored_whole(one.head, one.body, 9.9, Reason.OPEN, persistence)
        assert whole == head + body


HEADS = [b"HTTP/1.1 200 OK\r\nETag: %d\r\n" % number for number in range(2)]
BODIES = [b"good", b"better", bytes(bytearray(b"good"))]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(HEADS),
            st.sampled_from(BODIES),
            st.sampled_from([0.0, 0.9, 1.0]),
            st.sampled_from([Reason.OPEN, Reason.LIMIT]),
            st.sampled_from(Persistence),
            st.sampled_from([None, State.OPEN, State.LIMITING]),
        ),
        max_size=30,
    )
)
def test_an_answer_that_is_sent_again_is_the_one_that_would_be_joined(
    asked: list[tuple[bytes, bytes, float, Reason, Persistence, State | None]],
) -> None:
    """Whatever came before it."""
    answers, state = writer(), State.CLOSED
    for head, body, age_s, reason, persistence, changed in asked:
        if changed is not None:
            state = changed
            answers.set_state(state)
        fresh = writer()
        fresh.set_state(state)
        for _ in range(3):
            given_now = answers.stored_whole(head, body, age_s, reason, persistence)
            assert given_now == fresh.stored_whole(head, body, age_s, reason, persistence)


def test_in_a_rush_on_one_page_an_answer_is_joined_once() -> None:
    answers, one = writer(), stored()
    sent = [
        answers.stored_whole(one.head, one.body, 1.0, Reason.OPEN, Persistence.KEEP)
        for _ in range(4)
    ]
    assert sent[1] is sent[2] is sent[3]


def test_a_stored_response_without_our_fields() -> None:
    head, _ = writer(headers=False).stored(stored(), Reason.OPEN, Persistence.KEEP, 100.0)
    assert head == b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 4\r\nAge: 2\r\n\r\n'


def test_a_condition_is_answered_by_the_store() -> None:
    answers = writer()
    head, body = answers.stored_conditionally(
        request(If_None_Match='W/"1"'), stored(), Reason.LIMIT, Persistence.CLOSE, 103.0
    )
    assert status_of(head) == 304
    assert field(head, "age") == "5"
    assert field(head, "cache-status") == "retter; hit; detail=limit"
    assert field(head, "connection") == "close"
    assert body == b""
    head, body = answers.stored_conditionally(
        request(Range="bytes=1-2"), stored(), Reason.LIMIT, Persistence.KEEP, 103.0
    )
    assert (status_of(head), body) == (206, b"oo")


def error(request: RequestHead | None, status: int = 503, **more: object) -> bytes:
    answers = writer(error_page=more.pop("error_page", None))  # type: ignore[arg-type]
    return answers.error(
        request,
        status,
        Reason.OPEN,
        Persistence.KEEP,
        date=DATE,
        **more,  # type: ignore[arg-type]
    )


def test_an_error_for_a_program() -> None:
    answer = error(request(), retry_after_s=3)
    assert answer == (
        b"HTTP/1.1 503 Service Unavailable\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Length: 100\r\n"
        b"Cache-Control: no-store\r\nVia: 1.1 retter\r\nRetry-After: 3\r\n"
        b"Cache-Status: retter; fwd=miss; detail=open\r\nX-Circuit: CLOSED\r\n\r\n"
        b"503 Service Unavailable: The application has as much to do as it can."
        b" Please try again in a moment.\n"
    )


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (502, Reason.CONNECT_REFUSED, "The application is not running, or is just being started"),
        (502, Reason.UPSTREAM_RESET, "broke off before its answer was complete"),
        (502, Reason.UPSTREAM_TLS, "no secure connection to the application"),
        (504, Reason.CONNECT_TIMEOUT, "cannot be reached"),
        (504, Reason.UPSTREAM_TIMEOUT, "did not answer in time"),
        (503, Reason.PAUSED, "is being worked on"),
        (503, Reason.LIMIT, "as much to do as it can"),
    ],
)
def test_a_visitor_is_told_what_is_the_matter(status: int, reason: Reason, words: str) -> None:
    answer = writer().error(request(), status, reason, Persistence.KEEP, date=DATE)
    assert words in body_of(answer).decode()


def test_an_error_for_a_person() -> None:
    answer = error(request(Accept="text/html,*/*"), 400, detail="<script>&")
    assert field(answer, "content-type") == "text/html; charset=utf-8"
    assert b"&lt;script&gt;&amp;" in body_of(answer), "what the client sent is no markup"
    assert int(field(answer, "content-length") or 0) == len(body_of(answer))


def test_an_error_page_of_ones_own() -> None:
    html = request(Accept="text/html")
    for status in (502, 503, 504):
        assert body_of(error(html, status, error_page=b"<p>Sorry")) == b"<p>Sorry"
    assert body_of(error(html, 400, error_page=b"<p>Sorry")) != b"<p>Sorry"
    assert body_of(error(request(), 503, error_page=b"<p>Sorry")) != b"<p>Sorry"


@pytest.mark.parametrize("kind", ["application/json", "application/problem+json"])
def test_an_error_as_json(kind: str) -> None:
    answer = error(request(Accept=kind), 502)
    assert field(answer, "content-type") == kind
    assert json.loads(body_of(answer)) == {
        "status": 502,
        "title": "Bad Gateway",
        "reason": "open",
        "detail": "The application did not answer as it should.",
    }


def test_an_error_to_head_has_no_body() -> None:
    answer = error(request("HEAD"))
    assert body_of(answer) == b""
    assert int(field(answer, "content-length") or 0) > 0


def test_an_error_without_a_request() -> None:
    answer = error(None, 405)
    assert field(answer, "allow") == "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS"
    assert body_of(answer) == b"405 Method Not Allowed: Method Not Allowed\n"


def test_our_fields_can_be_left_out() -> None:
    answer = writer(headers=False).error(None, 503, Reason.OPEN, Persistence.CLOSE, date=DATE)
    assert field(answer, "cache-status") is None
    assert field(answer, "x-circuit") is None
    assert field(answer, "connection") == "close"


def test_every_status_of_ours_has_its_phrase() -> None:
    def subclasses(of: type[RetterError]) -> Iterator[type[RetterError]]:
        yield of
        for one in of.__subclasses__():
            yield from subclasses(one)

    ours = {one.status for one in subclasses(RetterError)} | {308, 405, 414, 417, 431, 505}
    for status in ours:
        phrase = error(None, status).partition(b"\r\n")[0].partition(b" %d " % status)[2].decode()
        known = {413: "Content Too Large", 414: "URI Too Long"}
        assert phrase == known.get(status, HTTPStatus(status).phrase)
