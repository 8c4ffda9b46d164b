"""An application's answer without Date gets that of its receipt (RFC 9110 section 6.6.1)."""

import gzip
from itertools import count

import pytest

from retter.breaker import Mode
from retter.http.message import ResponseHead
from retter.http.response_parser import ResponseParser, dated, parse_response
from retter.proxy.exchange import Exchange
from tests.support.compiled import attributes, replaces_parts
from tests.support.harness import DATE, FakeProxy, body_of, field, get, reply, status_of
from tests.support.memos import WAYS, set_memos

# Of three moments at which answers come.
FIRST, SECOND, THIRD = (f"Mon, 07 Nov 1994 08:49:3{second} GMT" for second in range(3))

HTML = {"Content-Type": "text/html", "ETag": '"a"'}
PAGE = b"<p>All is well.</p>\n" * 100

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
UNTIL_THE_END = b"HTTP/1.0 200 OK\r\n\r\nhello"


def dates_in(message: bytes) -> list[str]:
    """Return what all Date lines of the first head say."""
    lines = message.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return [line[6:] for line in lines if line.lower().startswith("date: ")]


def answered(proxy: FakeProxy, date: str, request: bytes, answer: bytes) -> bytes:
    """Let a client ask and, if that reaches the application, let it answer at this moment."""
    proxy.date = date
    client = proxy.client(request)
    if answer:
        proxy.upstreams[-1].sends(answer)
        if answer == UNTIL_THE_END:
            proxy.upstreams[-1].ends()
    return client.written()


def stored_answer(proxy: FakeProxy, request: bytes) -> bytes:
    """Return what the store answers much later."""
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
    proxy.advance(5)
    answer = answered(proxy, DATE, request, b"")
    assert field(answer, "X-Retter") == "cache"
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
    return answer


@pytest.mark.parametrize("memos", WAYS)
@pytest.mark.parametrize("answer", [
    reply(dated=False), reply(dated=False, headers={"Vary": "Accept"}),
    reply(dated=False).replace(b"HTTP/1.1", b"HTTP/1.0"), CHUNKED, UNTIL_THE_END,
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + reply(dated=False),
])  # fmt: skip
def test_it_is_forwarded_and_stored_with_the_date_of_its_receipt(memos: str, answer: bytes) -> None:
    """However often it comes: what is remembered of its head is not when that came."""
    proxy = FakeProxy()
    set_memos(proxy.proxy, memos)
    for date in (FIRST, SECOND, SECOND, THIRD):
        seen = answered(proxy, date, get(), answer)
        if b" 103 " in answer:
            hints, _, seen = seen.partition(b"\r\n\r\n")
            assert b"Date" not in hints
        assert status_of(seen) == 200 and b"hello" in body_of(seen)
        assert dates_in(seen) == [date]
        assert dates_in(stored_answer(proxy, get())) == [date]
    proxy.assert_at_rest()


@pytest.mark.parametrize("date", [FIRST, "yesterday", "0"])
def test_the_applications_own_is_left_as_it_is(date: str) -> None:
    proxy = FakeProxy()
    for name in ("Date", "date", "DATE"):
        seen = answered(proxy, SECOND, get(), reply(dated=False, headers={name: date}))
        assert f"\r\n{name}: {date}\r\n".encode() in seen
        assert dates_in(seen) == dates_in(stored_answer(proxy, get())) == [date]


def test_an_empty_one_too() -> None:
    proxy = FakeProxy()
    seen = answered(proxy, FIRST, get(), reply(dated=False, headers={"Date": ""}))
    assert dates_in(seen) == [""]


@pytest.mark.parametrize(
    "status",
    [
        "204 None",
        "206 Part",
        "301 Moved",
        "404 No",
        "500 Oops",
        "503 Busy",
    ],
)
def test_whatever_its_status(status: str) -> None:
    answer = reply(b"" if status[:3] == "204" else b"x", status=status, dated=False)
    assert dates_in(answered(FakeProxy(), FIRST, get(), answer)) == [FIRST]


def test_a_head_has_the_date_of_its_own_receipt() -> None:
    proxy = FakeProxy()
    head = reply(dated=False).removesuffix(b"hello")
    request = get().replace(b"GET", b"HEAD")
    seen = answered(proxy, FIRST, request, head)
    assert (dates_in(seen), body_of(seen)) == ([FIRST], b"")
    assert field(seen, "Content-Length") == "5"
    assert dates_in(answered(proxy, SECOND, request, head)) == [SECOND]


def test_a_304_renews_the_date_of_what_is_stored() -> None:
    """RFC 9111 section 3.2: its fields replace those of the stored response."""
    proxy = FakeProxy()
    answered(proxy, FIRST, get(), reply(b"page", headers=HTML, dated=False))
    assert dates_in(stored_answer(proxy, get())) == [FIRST]
    asks = get(headers={"If-None-Match": '"a"'})
    seen = answered(proxy, SECOND, asks, b'HTTP/1.1 304 Same\r\nETag: "a"\r\n\r\n')
    assert (status_of(seen), dates_in(seen)) == (304, [SECOND])
    answer = stored_answer(proxy, get())
    assert (dates_in(answer), body_of(answer)) == ([SECOND], b"page")
    # A 304 of the store is about what it has stored.
    assert dates_in(stored_answer(proxy, asks)) == [SECOND]


def test_compressed_forms_have_it_too() -> None:
    proxy = FakeProxy(compress="gzip")
    asks = get(headers={"Accept-Encoding": "gzip"})
    for date in (FIRST, SECOND):
        seen = answered(proxy, date, asks, reply(PAGE, headers=HTML, dated=False))
        assert gzip.decompress(body_of(seen)) == PAGE
        assert dates_in(seen) == [date]
        client = proxy.client()
        proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.OPEN)
        for _ in range(2):  # made, and made before
            proxy.date = DATE
            client.sends(asks)
            proxy.workers.work()
            answer = client.written()
            assert gzip.decompress(body_of(answer)) == PAGE
            assert (field(answer, "X-Retter"), dates_in(answer)) == ("cache", [date])
        proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
    assert proxy.services.compression.stats()["stored_forms"] == 1, "the body is the same"


def test_a_switch_of_protocols_is_not_dated() -> None:
    proxy = FakeProxy()
    asks = get(headers={"Connection": "Upgrade", "Upgrade": "x"})
    switch = b"HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    seen = answered(proxy, FIRST, asks, switch)
    assert (status_of(seen), dates_in(seen)) == (101, [])


def test_the_date_is_asked_for_by_the_answers_without_alone() -> None:
    """An answer with a Date costs no more than before."""
    proxy = FakeProxy()
    asked = count()
    proxy.services.http_date = lambda: str(next(asked))
    client = proxy.client()
    without = reply(dated=False)
    for answer, date in (
        (reply(), DATE), (without, "0"), (reply(), DATE), (reply(), DATE), (without, "1"),
    ):  # fmt: skip
        client.sends(get())
        proxy.upstream.sends(answer)
        assert dates_in(client.written()) == [date]
    assert next(asked) == 2


@replaces_parts
def test_only_those_without_go_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[ResponseHead] = []
    forward = Exchange.response_whole

    def response_whole(self: Exchange, head: ResponseHead, body: bytes, now: float) -> None:
        whole.append(head)
        forward(self, head, body, now)

    monkeypatch.setattr(Exchange, "response_whole", response_whole)
    proxy = FakeProxy()
    for answer, taken in ((reply(), True), (reply(dated=False), False)):
        whole.clear()
        for _ in range(5):
            answered(proxy, FIRST, get(), answer)
        assert bool(whole) is taken


def test_a_dated_head_is_what_one_with_that_date_at_its_end_comes_to() -> None:
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "a"\r\nVia: 1.0 x\r\n\r\n'
    with_date = head[:-2] + f"Date: {FIRST}\r\n\r\n".encode()
    for parse in (ResponseParser().parse, parse_response):
        undated, expected = parse(head), parse(with_date)
        assert (undated.undated, undated.plain) == (True, False)
        assert (expected.undated, expected.plain) == (False, True)
        got = dated(undated, FIRST.encode())
        line = f"Date: {FIRST}\r\n".encode()
        for name in set(attributes(ResponseHead)) - {"plain", "forward", "stored"}:
            assert getattr(got, name) == getattr(expected, name), name
        for name in ("forward", "stored"):
            assert getattr(got, name) == getattr(undated, name) + line
            assert getattr(expected, name).replace(line, b"") == getattr(undated, name)
        assert b"Date" not in undated.forward, "the one that is remembered is as it was"
