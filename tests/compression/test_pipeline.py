"""Answers that are compressed on their way and in the store: bytes in, bytes out."""

import asyncio
import gzip
import random
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from retter.compression.compressors import available, decoded
from retter.compression.pipeline import (
    ENCODERS_BYTES_MAX,
    FLUSH_PAUSE_S,
    JOBS_MAX,
    LAG_S_MAX,
    ThreadWorker,
)
from tests.support.compressing import (
    CHUNKED_HEAD,
    GZIP,
    HTML,
    LARGE,
    PAGE,
    answer_to,
    chunked,
    cut,
    make,
    open_circuit,
    page_of,
    so_far,
    unchunked,
    ungzipped,
)
from tests.support.harness import FakePeer, FakeProxy, body_of, field, get, reply

# -- which answers


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "404 Not Found", "403 No", "301 M"])
def test_a_page_is_compressed(status: str) -> None:
    head = {**HTML, "ETag": '"a"', "X-Mine": "1"}
    answer = answer_to(make(), get(headers=GZIP), reply(PAGE, status=status, headers=head))
    assert ungzipped(answer) == PAGE
    assert len(body_of(answer)) < len(PAGE) / 5
    assert field(answer, "ETag") == 'W/"a"'
    assert field(answer, "Vary") == "Accept-Encoding"
    assert field(answer, "X-Mine") == "1"
    assert field(answer, "Content-Type") == HTML["Content-Type"]


def test_the_remembered_head_and_the_new_one_come_to_the_same() -> None:
    proxy = make()
    answers = {
        answer_to(proxy, get(headers=GZIP), reply(PAGE, headers={**HTML, "ETag": '"a"'}))
        for _ in range(4)
    }
    assert len(answers) == 1
    assert ungzipped(answers.pop()) == PAGE


def test_any_method_but_head_has_its_answer_compressed() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"
    assert ungzipped(answer_to(make(), post, reply(PAGE, headers=HTML))) == PAGE


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"Accept-Encoding": "identity"},
        {"Accept-Encoding": "gzip;q=0"},
        {"Accept-Encoding": "br"},
        {"Accept-Encoding": "identity, gzip;q=0.1"},
    ],
)
def test_clients_that_do_not_ask_get_it_as_it_is_and_are_told_that_it_varies(
    fields: dict[str, str],
) -> None:
    answer = answer_to(make(), get(headers=fields), reply(PAGE, headers={**HTML, "ETag": '"a"'}))
    assert body_of(answer) == PAGE
    assert field(answer, "Content-Encoding") is None
    assert field(answer, "ETag") == '"a"'
    assert field(answer, "Vary") == "Accept-Encoding"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (get(headers={**GZIP, "Range": "bytes=0-1"}), reply(PAGE, headers=HTML)),
        (get(headers=GZIP, version="1.0"), reply(PAGE, headers=HTML)),
        (get("/account/1?x=1", headers=GZIP), reply(PAGE, headers=HTML)),
    ],
)
def test_requests_whose_answers_are_left_as_they_are(request_: bytes, answer: bytes) -> None:
    through = answer_to(make(compress_exclude="/account/*"), request_, answer)
    assert body_of(through) == PAGE
    assert field(through, "Content-Encoding") is None


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        ("200 OK", {"Content-Type": "image/png"}, PAGE),
        ("200 OK", {}, PAGE),
        ("200 OK", HTML, PAGE[:299]),
        ("200 OK", {**HTML, "Cache-Control": "public, no-transform"}, PAGE),
        ("200 OK", {**HTML, "Content-Encoding": "br"}, PAGE),
        ("200 OK", {**HTML, "Content-Encoding": "gzip"}, gzip.compress(PAGE * 9)),
        ("206 Partial Content", {**HTML, "Content-Range": "bytes 0-9/99"}, PAGE),
        ("205 Reset", HTML, b""),
    ],
)
def test_answers_that_are_left_alone(status: str, fields: dict[str, str], body: bytes) -> None:
    fields = {**fields, "ETag": '"a"', "Content-MD5": "x", "Digest": "y", "Accept-Ranges": "bytes"}
    plain = answer_to(
        FakeProxy(compress="off"), get(headers=GZIP), reply(body, status=status, headers=fields)
    )
    answer = answer_to(make(), get(headers=GZIP), reply(body, status=status, headers=fields))
    assert answer == plain
    assert field(answer, "Vary") is None


@pytest.mark.parametrize(
    "head",
    [
        b'HTTP/1.1 204 No Content\r\nContent-Type: text/html\r\nETag: "a"\r\n\r\n',
        b'HTTP/1.1 304 Not Modified\r\nContent-Type: text/html\r\nETag: "a"\r\n\r\n',
    ],
)
def test_answers_without_a_body_are_left_alone(head: bytes) -> None:
    plain = answer_to(FakeProxy(compress="off"), get(headers=GZIP), head)
    assert answer_to(make(), get(headers=GZIP), head) == plain


def test_head_is_answered_as_the_application_does() -> None:
    request = b"HEAD / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n"
    head = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\nETag: "a"\r\n'
    answer = answer_to(make(), request, head + b"\r\n")
    assert field(answer, "Content-Length") == "5000"
    assert field(answer, "ETag") == '"a"'
    assert field(answer, "Content-Encoding") is None
    assert field(answer, "Vary") == "Accept-Encoding"  # as it is for GET
    assert body_of(answer) == b""


def test_what_is_true_of_other_octets_is_taken_away() -> None:
    digests = {
        "Content-MD5": "a",
        "Digest": "b",
        "Repr-Digest": "c",
        "Content-Digest": "d",
        "Accept-Ranges": "bytes",
    }
    answer = answer_to(make(), get(headers=GZIP), reply(PAGE, headers={**HTML, **digests}))
    assert ungzipped(answer) == PAGE
    assert not [name for name in digests if field(answer, name) is not None]


@pytest.mark.parametrize("vary", ["Accept-Encoding", "Cookie, accept-encoding", "*"])
def test_a_vary_that_says_it_is_not_repeated(vary: str) -> None:
    answer = answer_to(make(), get(headers=GZIP), reply(PAGE, headers={**HTML, "Vary": vary}))
    assert ungzipped(answer) == PAGE
    assert answer.lower().count(b"\r\nvary:") == 1
    other = answer_to(make(), get(headers=GZIP), reply(PAGE, headers={**HTML, "Vary": "Cookie"}))
    assert b"\r\nVary: Cookie\r\n" in other and b"\r\nVary: Accept-Encoding\r\n" in other


def test_what_does_not_shrink_is_sent_as_it_is() -> None:
    noise = random.Random(3).randbytes(2000)
    answer = answer_to(make(), get(headers=GZIP), reply(noise, headers={**HTML, "ETag": '"a"'}))
    assert body_of(answer) == noise
    assert field(answer, "Content-Encoding") is None and field(answer, "ETag") == '"a"'


def test_off_is_off() -> None:
    answer = answer_to(FakeProxy(compress="off"), get(headers=GZIP), reply(PAGE, headers=HTML))
    assert body_of(answer) == PAGE and field(answer, "Vary") is None


def test_types_and_the_least_size_may_be_chosen() -> None:
    proxy = make(compress_types="image/*", compress_min_bytes=10)
    image = {"Content-Type": "image/x-foo"}
    small = b"abc" * 20
    assert ungzipped(answer_to(proxy, get(headers=GZIP), reply(small, headers=image))) == small
    assert body_of(answer_to(proxy, get("/2", headers=GZIP), reply(PAGE, headers=HTML))) == PAGE


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_other_codings_where_they_are_installed(coding: str) -> None:
    if not available(coding.encode()):
        pytest.skip(f"the package for {coding} is not installed")
    proxy = make(compress=f"gzip,{coding}")
    asked = {"Accept-Encoding": f"gzip;q=0.5, {coding}"}
    answer = answer_to(proxy, get(headers=asked), reply(PAGE, headers=HTML))
    assert field(answer, "Content-Encoding") == coding
    assert decoded(body_of(answer), coding.encode(), 1 << 20) == PAGE
    answer = answer_to(
        proxy, get("/large", headers=asked), *cut(reply(LARGE, headers=HTML), 90_000)
    )
    assert field(answer, "Content-Encoding") == coding
    body, complete = unchunked(body_of(answer))
    assert complete and decoded(body, coding.encode(), 1 << 20) == LARGE
    assert proxy.workers.done


# -- bodies in pieces


CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"


@pytest.mark.parametrize("size", [1000, 7777, 60_000, 200_000, 500_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_large_body_however_it_is_cut(size: int, framing: str) -> None:
    whole = reply(LARGE, headers=HTML)
    if framing == "chunked":
        whole = CHUNKED_HEAD + chunked(*cut(LARGE, 50_001))
    proxy = make()
    answer = answer_to(proxy, get(headers=GZIP), *cut(whole, size))
    assert ungzipped(answer) == LARGE
    assert len(answer) < len(zlib.compress(LARGE, 1)) * 1.15
    assert proxy.services.store.stats()["stored"] == 1  # as the application sent it
    open_circuit(proxy)
    assert body_of(answer_to(proxy, get())) == LARGE


def test_a_body_that_ends_with_its_connection() -> None:
    proxy = make()
    client = proxy.client(get(headers=GZIP))
    proxy.upstream.sends(CLOSE_HEAD + PAGE)
    proxy.upstream.sends(PAGE)
    proxy.upstream.ends()
    assert ungzipped(client.received()) == PAGE * 2
    assert not client.closed


def test_an_answer_that_is_cut_looks_like_one() -> None:
    proxy = make()
    client = proxy.client(get(headers=GZIP))
    proxy.upstream.sends(reply(PAGE, headers=HTML)[:-1])
    proxy.upstream.resets()
    assert so_far(body_of(client.received())) == PAGE[:-1]
    assert client.transport.aborted
    proxy.settle()
    proxy.assert_at_rest()
    assert proxy.services.compression.stats()["encoder_bytes"] == 0


def test_a_chunked_answer_that_is_whole_and_small_has_a_length() -> None:
    answer = answer_to(make(), get(headers=GZIP), CHUNKED_HEAD + chunked(PAGE))
    assert ungzipped(answer) == PAGE
    assert field(answer, "Content-Length") is not None
    answer = answer_to(make(), get(headers=GZIP), CHUNKED_HEAD + chunked(b"tiny"))
    assert field(answer, "Content-Encoding") is None and b"tiny" in answer


def test_trailers_come_after_it_but_for_digests() -> None:
    trailers = b"X-Sum: 1\r\nRepr-Digest: x\r\nDigest: y\r\n"
    answer = answer_to(make(), get(headers=GZIP), CHUNKED_HEAD + chunked(PAGE, trailers=trailers))
    assert ungzipped(answer) == PAGE
    assert answer.endswith(b"\r\n0\r\nX-Sum: 1\r\n\r\n")


def test_what_is_written_reaches_the_client() -> None:
    """The application writes the top of a page, and thinks."""
    proxy = make()
    client = proxy.client(get(headers=GZIP))
    proxy.upstream.sends(CHUNKED_HEAD)
    body = b""
    proxy.upstream.sends(b"4\r\ntop \r\n")
    body += body_of(client.received())
    assert so_far(body) == b"top "
    proxy.upstream.sends(b"5\r\nquick\r\n")
    proxy.upstream.sends(b"1\r\n!\r\n")
    proxy.advance(0.06)  # at the latest with the next tick
    body += client.received()
    assert so_far(body) == b"top quick!"
    proxy.advance(1.0)
    assert client.received() == b""  # and only once
    proxy.upstream.sends(b"6\r\nbottom\r\n")  # after a pause: at once
    body += client.received()
    assert so_far(body) == b"top quick!bottom"
    proxy.upstream.sends(b"0\r\n\r\n")
    body += client.received()
    coded, complete = unchunked(body)
    assert complete and gzip.decompress(coded) == b"top quick!bottom"
    proxy.assert_at_rest()


def test_a_page_that_is_written_word_by_word_shrinks_all_the_same() -> None:
    proxy = make()
    client = proxy.client(get(headers=GZIP))
    proxy.upstream.sends(CHUNKED_HEAD)
    text = page_of(40_000)
    for piece in cut(text, 20):
        proxy.upstream.sends(b"%x\r\n%b\r\n" % (len(piece), piece))
        proxy.loop.now += FLUSH_PAUSE_S / 10
    proxy.upstream.sends(b"0\r\n\r\n")
    answer = client.received()
    assert ungzipped(answer) == text
    assert len(answer) < len(zlib.compress(text, 1)) * 1.1


def test_an_event_stream_is_never_compressed() -> None:
    proxy = make(compress_types="text/*,*/*")
    client = proxy.client(get(headers=GZIP))
    proxy.upstream.sends(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"8\r\ndata: 1\n\r\n"
    )
    answer = client.received()
    assert field(answer, "Content-Encoding") is None and field(answer, "Vary") is None
    assert answer.endswith(b"8\r\ndata: 1\n\r\n")


def test_an_answer_that_was_held_back_is_compressed_too() -> None:
    """With a stored response it is held until it is whole, or for a quarter of a second."""
    proxy = make()
    answer_to(proxy, get(headers=GZIP), reply(PAGE, headers=HTML))
    whole = reply(PAGE * 2, headers=HTML)
    assert ungzipped(answer_to(proxy, get(headers=GZIP), whole[:900], whole[900:])) == PAGE * 2
    client = proxy.client(get(headers=GZIP))
    proxy.upstream.sends(whole[:900])
    proxy.advance(0.4)
    proxy.upstream.sends(whole[900:])
    assert ungzipped(client.received()) == PAGE * 2


# -- the thread, and backpressure


def begun(proxy: FakeProxy) -> tuple[FakePeer, list[bytes]]:
    """Begin an answer whose first piece is in the thread; return what is still to come."""
    client = proxy.client(get(headers=GZIP))
    pieces = cut(reply(LARGE, headers=HTML), 133_400)  # each of them large
    proxy.upstream.sends(pieces[0])
    return client, pieces[1:]


def test_while_a_piece_is_in_the_thread_the_application_waits_with_the_next() -> None:
    proxy = make()
    client, rest = begun(proxy)
    assert not proxy.upstream.transport.reading
    assert body_of(client.received()) == b""
    for piece in rest:
        assert proxy.workers.work() == 1
        assert proxy.upstream.transport.reading
        proxy.upstream.sends(piece)
        if piece is not rest[-1]:
            assert not proxy.upstream.transport.reading
    proxy.workers.work()
    proxy.assert_at_rest()


def test_two_reasons_to_wait_are_two() -> None:
    """The client does not read, and a piece is in the thread: both have to end."""
    proxy = make(buffer_answer_bytes=0)
    client, rest = begun(proxy)
    client.blocks()
    proxy.workers.work()
    assert not proxy.upstream.transport.reading
    client.unblocks()
    assert proxy.upstream.transport.reading
    proxy.upstream.sends(rest[0])
    client.blocks()
    client.unblocks()
    assert not proxy.upstream.transport.reading
    proxy.workers.work()
    assert proxy.upstream.transport.reading
    for piece in rest[1:]:
        proxy.upstream.sends(piece)
    proxy.workers.work()
    assert ungzipped(client.received()) == LARGE


def test_the_next_request_waits_for_the_end_of_the_answer() -> None:
    proxy = make()
    client, rest = begun(proxy)
    client.sends(get("/next", headers=GZIP))
    for piece in rest:
        proxy.workers.work()
        proxy.upstream.sends(piece)
    # The application is done, and its place is free; the client's answer is not.
    assert proxy.proxy.stats()["exchanges"] == 0
    assert b"/next" not in proxy.upstream.transport.buffer
    proxy.workers.work()
    assert ungzipped(client.received()) == LARGE
    assert b"GET /next" in proxy.upstream.transport.buffer
    proxy.upstream.sends(reply(PAGE, headers=HTML))
    assert ungzipped(client.received()) == PAGE


STEPS = st.lists(
    st.sampled_from([1, 300, 5000, 140_000, 200_000, "work", "block", "unblock", "tick", "pause"]),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, coding=st.sampled_from(["gzip", "br", "zstd"]), chunks=st.booleans())
def test_whatever_happens_in_between_the_client_gets_the_whole(
    steps: list[int | str], coding: str, chunks: bool
) -> None:
    """Pieces of all sizes, with the thread, the client and the clock taking their turns."""
    assume(available(coding.encode()))
    proxy = make(compress=coding)
    client = proxy.client(get(headers={"Accept-Encoding": coding}))
    sizes = [step for step in steps if isinstance(step, int)]
    body = page_of(sum(sizes) + 1000)
    upstream = proxy.upstream
    upstream.sends(CHUNKED_HEAD if chunks else reply(body, headers=HTML).removesuffix(body))
    at, blocked = 0, False

    def send(size: int) -> None:
        nonlocal at
        piece = body[at : at + size]
        at += len(piece)
        if not upstream.transport.reading:  # the socket keeps it until then
            if blocked:
                unblock()
            proxy.workers.work()
        assert upstream.transport.reading
        upstream.sends(b"%x\r\n%b\r\n" % (len(piece), piece) if chunks else piece)

    def unblock() -> None:
        nonlocal blocked
        blocked = False
        client.unblocks()

    for step in steps:
        if isinstance(step, int):
            send(step)
        elif step == "work":
            proxy.workers.work()
        elif step == "block" and not blocked:
            blocked = True
            client.blocks()
        elif step == "unblock" and blocked:
            unblock()
        elif step == "tick":
            proxy.advance(0.05)
        elif step == "pause":
            proxy.loop.now += FLUSH_PAUSE_S
    send(1000)
    if chunks:
        upstream.sends(b"0\r\n\r\n")
    while proxy.workers.work():
        pass
    coded, complete = unchunked(body_of(client.received()))
    assert complete and decoded(coded, coding.encode(), 1 << 24) == body
    if blocked:
        unblock()
    proxy.assert_at_rest()
    assert proxy.services.compression.stats()["encoder_bytes"] == 0
    assert not proxy.services.compression.unflushed
    client.sends(get("/next"))
    assert b"GET /next" in upstream.transport.buffer or len(proxy.upstreams) > 1


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_client_that_leaves_while_a_piece_is_in_the_thread(left: int) -> None:
    proxy = make()
    client, rest = begun(proxy)
    for piece in rest[: len(rest) - left]:
        proxy.workers.work()
        proxy.upstream.sends(piece)
    client.resets()
    proxy.workers.work()
    for piece in rest[len(rest) - left :]:
        proxy.upstream.sends(piece)
    proxy.assert_at_rest()
    assert proxy.services.compression.stats()["encoder_bytes"] == 0
    assert proxy.services.store.stats()["stored"] == 1  # it refreshes the store all the same


def test_an_application_that_resets_while_a_piece_is_in_the_thread() -> None:
    proxy = make()
    client, _ = begun(proxy)
    proxy.upstream.resets()
    assert client.transport.aborted
    proxy.workers.work()
    proxy.settle()
    proxy.assert_at_rest()
    assert proxy.services.compression.stats()["encoder_bytes"] == 0


def test_the_access_log_tells_an_answer_once_it_is_compressed(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    proxy = make(access_log=str(log))
    for leaves in (False, True):
        client, rest = begun(proxy)
        for piece in rest:
            proxy.workers.work()
            proxy.upstream.sends(piece)
        if leaves:
            client.resets()
        proxy.workers.work()
        proxy.advance(0.1)
        lines = log.read_text().splitlines()
        assert len(lines) == 1 + leaves
        if leaves:
            assert "client-gone" in lines[-1]
        else:
            assert f'"bytes": {len(body_of(client.received()))},' in lines[-1]


def test_work_that_fails_cuts_the_answer() -> None:
    for last in (False, True):
        proxy = make()
        client, rest = begun(proxy)
        if last:
            for piece in rest:
                proxy.workers.work()
                proxy.upstream.sends(piece)
        proxy.workers.work(fail=True)
        assert client.transport.aborted
        proxy.settle()
        proxy.assert_at_rest()
        assert proxy.services.compression.stats()["encoder_bytes"] == 0


def test_the_end_of_all_waits_for_no_thread() -> None:
    proxy = make()
    begun(proxy)
    proxy.proxy.close()
    assert proxy.workers.closed
    proxy.workers.work()


# -- too much to do


def test_when_the_loop_lags_answers_go_out_as_they_come() -> None:
    proxy = make()
    proxy.services.compression.note_lag(LAG_S_MAX * 1.01)
    for answer in (reply(PAGE, headers=HTML), reply(LARGE, headers=HTML)):
        assert body_of(answer_to(proxy, get(headers=GZIP), answer)) == body_of(answer)
    assert proxy.services.compression.stats()["refrained"] == 2
    proxy.services.compression.note_lag(LAG_S_MAX / 2)
    assert ungzipped(answer_to(proxy, get(headers=GZIP), reply(PAGE, headers=HTML))) == PAGE


def test_when_the_thread_has_too_much_to_do_answers_go_out_as_they_come() -> None:
    proxy = make()
    proxy.workers.waiting = JOBS_MAX
    large, small = reply(LARGE, headers=HTML), reply(PAGE, headers=HTML)
    assert body_of(answer_to(proxy, get(headers=GZIP), *cut(large, 90_000))) == LARGE
    assert ungzipped(answer_to(proxy, get(headers=GZIP), small)) == PAGE  # needs no thread


def test_encoders_are_bounded() -> None:
    proxy = make(circuit="observe")
    compression = proxy.services.compression
    head = reply(LARGE, headers=HTML)[:1000]
    clients = []
    while not compression.refrained:
        clients.append(proxy.client(get(headers=GZIP)))
        proxy.upstream.sends(head)
        assert len(clients) < 1000
    assert compression.stats()["encoder_bytes"] <= ENCODERS_BYTES_MAX
    assert field(clients[-1].received(), "Content-Encoding") is None
    for client in clients:
        client.resets()
    assert compression.stats()["encoder_bytes"] == 0


# -- the request


def test_the_application_is_asked_for_what_can_be_decoded_here() -> None:
    for sent in ("gzip, deflate, br, zstd, x-new", "x-new"):
        proxy = make()
        proxy.client(get(headers={"Accept-Encoding": sent}))
        request = proxy.upstream.received()
        asked = field(request, "Accept-Encoding")
        assert asked is not None and "x-new" not in asked
        assert asked.startswith("gzip, deflate") or asked == "identity"


def test_variants_do_not_multiply() -> None:
    """One entry a page, whatever its clients accept, and even if the application varies by it."""
    proxy = make()
    for accepts in ("gzip", "br", "deflate", "gzip, br", ""):
        asked = {"Accept-Encoding": accepts} if accepts else {}
        varies = {**HTML, "Vary": "Accept-Encoding"}
        answer_to(proxy, get(headers=asked), reply(PAGE, headers=varies))
    assert proxy.services.store.stats()["entries"] == 1


# -- the real thread


@pytest.mark.parametrize("closed", [False, True])
def test_the_thread_hands_its_work_over_on_the_loop(closed: bool) -> None:
    told: list[tuple[bytes | None, str]] = []
    complaints: list[object] = []

    def fail() -> bytes:
        raise MemoryError("no memory")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, about: complaints.append(about["exception"]))
        worker = ThreadWorker(loop)
        worker.close()  # before it has begun
        worker = ThreadWorker(loop)
        gate, all_done = threading.Event(), asyncio.Event()

        def note(result: bytes | None) -> None:
            told.append((result, threading.current_thread().name))
            if worker.waiting == 0:
                all_done.set()

        def wait() -> bytes:
            gate.wait(30)
            return threading.current_thread().name.encode()

        worker.submit(wait, note)
        worker.submit(fail, note)
        worker.submit(lambda: b"last", note)
        assert worker.waiting == 3
        if closed:
            worker.close()
        gate.set()
        if closed:
            await asyncio.sleep(0.05)  # it would have told by now
        else:
            await asyncio.wait_for(all_done.wait(), 30)
            worker.close()

    asyncio.run(main())
    if closed:
        assert told == [] and complaints == []
        return
    assert [thread for _, thread in told] == [threading.main_thread().name] * 3
    assert [result for result, _ in told] == [b"compress_0", None, b"last"]
    assert [type(error) for error in complaints] == [MemoryError]


@pytest.mark.parametrize("path", ["/login", "/%6Cogin", "//login", "/%2flogin", "/login?a=/x"])
def test_an_excluded_path_is_excluded_in_all_its_spellings(path: str) -> None:
    """An attacker who measures compressed sizes can choose the spelling of the path."""
    proxy = make(compress_exclude="/login")
    answer = answer_to(proxy, get(path, headers=GZIP), reply(PAGE, headers=HTML))
    assert body_of(answer) == PAGE


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no memory for one: whoever waits is told."""
    told: list[bytes | None] = []

    def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        worker = ThreadWorker(asyncio.get_running_loop())
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        worker.submit(lambda: b"done", told.append)
        assert worker.waiting == 0
        assert told == [], "never before submit has returned"
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        worker.close()

    asyncio.run(main())
    assert told == [None]
