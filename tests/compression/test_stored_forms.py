"""Forms of stored answers: how they are made and counted, and what conditions and ranges find."""

import gzip
import random
from collections.abc import Callable
from typing import Any

import pytest

from retter.breaker import Mode
from retter.compression.compressors import available, decoded
from retter.compression.pipeline import (
    JOBS_MAX,
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
    ungzipped,
)
from tests.support.harness import FakeProxy, body_of, field, get, reply, status_of


def stored_proxy(*answers: bytes, **settings: Any) -> FakeProxy:
    """Return a proxy with an open circuit that has stored these at /0, /1 ..."""
    proxy = make(**settings)
    for number, answer in enumerate(answers):
        answer_to(proxy, get(f"/{number}"), answer)
    open_circuit(proxy)
    return proxy


def test_a_small_stored_page_is_compressed_at_once_and_once() -> None:
    proxy = stored_proxy(reply(PAGE, headers={**HTML, "ETag": '"a"', "Digest": "x"}))
    first = answer_to(proxy, get("/0", headers=GZIP))
    assert ungzipped(first) == PAGE
    assert field(first, "ETag") == 'W/"a"' and field(first, "Vary") == "Accept-Encoding"
    assert field(first, "Digest") is None and field(first, "X-Retter") == "cache"
    assert answer_to(proxy, get("/0", headers=GZIP)) == first
    assert proxy.services.compression.stats()["stored_forms"] == 1
    plain = answer_to(proxy, get("/0"))
    assert body_of(plain) == PAGE and field(plain, "ETag") == '"a"'
    assert field(plain, "Vary") == "Accept-Encoding" and field(plain, "Digest") == "x"


def test_a_large_stored_page_is_compressed_in_the_thread() -> None:
    proxy = stored_proxy(reply(LARGE, headers=HTML))
    for _ in range(3):
        assert body_of(proxy_answer(proxy, "/0")) == LARGE  # meanwhile
    assert proxy.workers.work() == 1
    assert ungzipped(proxy_answer(proxy, "/0")) == LARGE
    assert proxy.workers.work() == 0


def proxy_answer(proxy: FakeProxy, path: str, **fields: str) -> bytes:
    """Return an answer from the store without letting the thread work."""
    client = proxy.client(get(path, headers={**GZIP, **fields}))
    return client.received()


def test_a_thread_that_fails_or_has_too_much_to_do_costs_nothing_but_size() -> None:
    proxy = stored_proxy(reply(LARGE, headers=HTML))
    proxy_answer(proxy, "/0")
    proxy.workers.work(fail=True)
    proxy.workers.waiting = JOBS_MAX
    assert body_of(proxy_answer(proxy, "/0")) == LARGE
    proxy.workers.waiting = 0
    proxy_answer(proxy, "/0")
    assert proxy.workers.work() == 1
    assert ungzipped(proxy_answer(proxy, "/0")) == LARGE


def test_forms_are_counted_in_the_budget_and_go_with_the_entry() -> None:
    proxy = stored_proxy(*[reply(page_of(9000, n), headers=HTML) for n in range(3)])
    store = proxy.services.store
    before = store.stats()["bytes_used"]
    forms = [body_of(proxy_answer(proxy, f"/{n}")) for n in range(3)]
    added = store.stats()["bytes_used"] - before
    heads = added - sum(map(len, forms))
    assert 3 * 300 < heads < 3 * 800
    assert store.invalidation.purge() == 3
    assert store.stats()["bytes_used"] == 0


def test_forms_push_out_what_is_least_recently_used() -> None:
    pages = [page_of(9000, n) for n in range(8)]
    proxy = stored_proxy(
        *[reply(page, headers=HTML) for page in pages],
        store_memory_bytes=85_000,
        store_object_bytes_max=10_000,
    )
    store = proxy.services.store
    assert store.stats()["entries"] == 8
    for n in range(7, 3, -1):
        assert ungzipped(proxy_answer(proxy, f"/{n}")) == pages[n]
    stats = store.stats()
    assert stats["bytes_used"] <= 85_000 and stats["evicted_budget"] > 0
    assert ungzipped(proxy_answer(proxy, "/4")) == pages[4]


def test_an_owners_share_counts_forms_too() -> None:
    proxy = make(store_memory_bytes=160_000, store_object_bytes_max=10_000)
    cookie = {"Cookie": "PHPSESSID=0123456789abcdef", **GZIP}
    answer_to(proxy, get("/", headers=cookie), reply(page_of(9000), headers=HTML))
    open_circuit(proxy)
    for _ in range(2):
        assert ungzipped(answer_to(proxy, get("/", headers=cookie))) == page_of(9000)
    proxy.services.store.invalidation.purge()
    stats = proxy.services.store.stats()
    assert (stats["bytes_used"], stats["owners"]) == (0, 0)


def test_a_page_that_comes_again_is_not_compressed_again() -> None:
    """Each answer has a new Date, and so a new head; the body is the same."""
    proxy = make()
    for second in range(3):
        date = {"Date": f"Sun, 06 Nov 1994 08:49:3{second} GMT"}
        proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
        answer_to(proxy, get(), reply(PAGE, headers={**HTML, **date}))
        open_circuit(proxy)
        answer = answer_to(proxy, get(headers=GZIP))
        assert ungzipped(answer) == PAGE and field(answer, "Date") == date["Date"]
    assert proxy.services.compression.stats()["stored_forms"] == 1
    # Nor is it for another visitor who has the same page.
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
    cookie = {"Cookie": "PHPSESSID=0123456789abcdef"}
    answer_to(proxy, get(headers=cookie), reply(PAGE, headers=HTML))
    open_circuit(proxy)
    assert ungzipped(answer_to(proxy, get(headers={**cookie, **GZIP}))) == PAGE
    assert proxy.services.compression.stats()["stored_forms"] == 1


def test_a_304_that_refreshes_a_page_renews_the_heads_of_its_forms() -> None:
    proxy = stored_proxy(reply(PAGE, headers={**HTML, "ETag": '"a"', "X-Age": "old"}))
    assert ungzipped(proxy_answer(proxy, "/0")) == PAGE
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
    answer_to(
        proxy,
        get("/0", headers={"If-None-Match": '"a"'}),
        b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nX-Age: new\r\n\r\n',
    )
    open_circuit(proxy)
    answer = proxy_answer(proxy, "/0")
    assert ungzipped(answer) == PAGE and field(answer, "X-Age") == "new"
    proxy.services.store.invalidation.purge()
    assert proxy.services.store.stats()["bytes_used"] == 0


def test_what_does_not_gain_is_found_out_once() -> None:
    noise = random.Random(5).randbytes(3000)
    proxy = stored_proxy(reply(noise, headers=HTML), CHUNKED_HEAD + chunked(b"tiny"))
    for _ in range(3):
        assert body_of(proxy_answer(proxy, "/0")) == noise
        assert body_of(proxy_answer(proxy, "/1")) == b"tiny"
    assert proxy.services.compression.stats()["stored_forms"] == 1
    proxy.services.store.invalidation.purge()
    assert proxy.services.store.stats()["bytes_used"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"Content-Type": "image/png"},
        {**HTML, "Cache-Control": "no-transform"},
        {**HTML, "Content-Encoding": "compress"},
    ],
)
def test_stored_answers_that_are_left_alone(fields: dict[str, str]) -> None:
    proxy = stored_proxy(reply(PAGE, headers=fields))
    answer = proxy_answer(proxy, "/0", **{"Accept-Encoding": "gzip, compress"})
    assert body_of(answer) == PAGE
    assert field(answer, "Content-Encoding") == fields.get("Content-Encoding")


def test_excluded_paths_are_not_compressed_from_the_store_either() -> None:
    proxy = stored_proxy(reply(PAGE, headers=HTML), compress_exclude="/0")
    assert body_of(proxy_answer(proxy, "/0")) == PAGE


def test_the_best_form_is_made_in_the_thread_and_another_serves_meanwhile() -> None:
    if not available(b"br"):
        pytest.skip("the package Brotli is not installed")
    proxy = stored_proxy(reply(PAGE, headers=HTML), compress="gzip,br")
    both = {"Accept-Encoding": "gzip, br"}
    assert ungzipped(proxy_answer(proxy, "/0", **both)) == PAGE
    assert proxy.workers.work() == 1
    answer = proxy_answer(proxy, "/0", **both)
    assert field(answer, "Content-Encoding") == "br"
    assert decoded(body_of(answer), b"br", 1 << 20) == PAGE
    assert ungzipped(proxy_answer(proxy, "/0")) == PAGE


def test_what_the_application_compressed_is_one_entry_for_all_clients() -> None:
    packed = gzip.compress(PAGE)
    fields = {**HTML, "Content-Encoding": "gzip", "ETag": '"a"'}
    proxy = make()
    answer_to(proxy, get(headers=GZIP), reply(packed, headers=fields))
    open_circuit(proxy)
    assert body_of(proxy_answer(proxy, "/")) == packed
    plain = answer_to(proxy, get())
    assert body_of(plain) == PAGE
    assert field(plain, "ETag") == 'W/"a"' and field(plain, "Vary") == "Accept-Encoding"
    assert proxy.services.store.stats()["entries"] == 1


# -- conditions and ranges


def test_the_application_gets_the_tag_that_it_knows() -> None:
    proxy = make()
    page = reply(PAGE, headers={**HTML, "ETag": '"a"'})
    weak = reply(PAGE, headers={**HTML, "ETag": 'W/"b"'})
    assert field(answer_to(proxy, get(headers=GZIP), page), "ETag") == 'W/"a"'
    assert field(answer_to(proxy, get("/b", headers=GZIP), weak), "ETag") == 'W/"b"'
    client = proxy.client(get(headers={**GZIP, "If-None-Match": 'W/"a", W/"b"'}))
    assert b'If-None-Match: "a", W/"b"\r\n' in proxy.upstream.received()
    proxy.upstream.sends(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n')
    assert status_of(client.received()) == 304
    put = b'PUT / HTTP/1.1\r\nHost: a\r\nIf-Match: W/"a"\r\nContent-Length: 0\r\n\r\n'
    client.sends(put)
    assert b'If-Match: "a"\r\n' in proxy.upstream.received()


@pytest.mark.parametrize(
    ("asked", "fields", "etag", "vary"),
    [
        ('W/"a"', b'ETag: "a"\r\nContent-MD5: x\r\n', 'W/"a"', ["Accept-Encoding"]),
        ('W/"a"', b'ETag: "a"\r\nVary: Accept-Encoding\r\n', 'W/"a"', ["Accept-Encoding"]),
        ('"a"', b'ETag: "a"\r\n', '"a"', []),          # the client has it as it was sent
        ('W/"b"', b'ETag: W/"b"\r\n', 'W/"b"', []),    # weak by itself
        ('W/"c"', b'ETag: "c"\r\n', '"c"', []),        # never weakened here
        ('W/"a"', b"", "", []),
    ],
)  # fmt: skip
def test_the_client_of_a_304_gets_the_tag_that_it_knows(
    asked: str, fields: bytes, etag: str, vary: list[str]
) -> None:
    """With the application's tag it would take plain octets for the rest of compressed ones."""
    proxy = make()
    answer_to(proxy, get(headers=GZIP), reply(PAGE, headers={**HTML, "ETag": '"a"'}))
    client = proxy.client(get(headers={**GZIP, "If-None-Match": asked}))
    proxy.upstream.sends(b"HTTP/1.1 304 Not Modified\r\nX: y\r\n" + fields + b"\r\n")
    lines = client.received().decode().split("\r\n")
    assert lines[:2] == ["HTTP/1.1 304 Not Modified", "X: y"]
    assert [line for line in lines if line.startswith("ETag: ")] == [f"ETag: {etag}"] * bool(etag)
    assert [line.removeprefix("Vary: ") for line in lines if line.startswith("Vary: ")] == vary
    assert not (vary and any(line.startswith("Content-MD5") for line in lines))
    assert lines.count("X-Retter: backend") == 1
    assert lines[-2:] == ["", ""]


def test_the_tag_is_known_by_whatever_way_it_was_weakened() -> None:
    condition = get(headers={"If-None-Match": 'W/"a"'})
    page = reply(LARGE, headers={**HTML, "ETag": '"a"'})

    def streamed(proxy: FakeProxy) -> None:
        answer_to(proxy, get(headers=GZIP), *cut(page, 50_000))

    def stored(proxy: FakeProxy) -> None:
        answer_to(proxy, get(), page)
        open_circuit(proxy)
        for _ in range(2):
            answer_to(proxy, get(headers=GZIP))
        proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)

    def untouched(proxy: FakeProxy) -> None:
        answer_to(proxy, get(), page)

    expected: list[tuple[Callable[[FakeProxy], None], bytes]] = [
        (streamed, b'"a"'),
        (stored, b'"a"'),
        (untouched, b'W/"a"'),
    ]
    for act, tag in expected:
        proxy = make()
        act(proxy)
        proxy.upstream.received()
        proxy.client(condition)
        assert b"If-None-Match: " + tag + b"\r\n" in proxy.upstream.received()


def test_if_range_stays_weak_so_that_no_part_continues_other_octets() -> None:
    proxy = make()
    answer_to(proxy, get(headers=GZIP), reply(PAGE, headers={**HTML, "ETag": '"a"'}))
    asked = {**GZIP, "Range": "bytes=5-", "If-Range": 'W/"a"'}
    client = proxy.client(get(headers=asked))
    assert b'If-Range: W/"a"\r\n' in proxy.upstream.received()
    proxy.upstream.sends(reply(PAGE, headers={**HTML, "ETag": '"a"'}))
    assert body_of(client.received()) == PAGE
    open_circuit(proxy)
    answer = answer_to(proxy, get(headers=asked))
    assert (status_of(answer), body_of(answer)) == (200, PAGE)


def test_a_stored_page_answers_conditions_with_the_tag_of_the_form() -> None:
    proxy = stored_proxy(reply(PAGE, headers={**HTML, "ETag": '"a"'}))
    for tag in ('W/"a"', '"a"', "*"):
        answer = proxy_answer(proxy, "/0", **{"If-None-Match": tag})
        assert (status_of(answer), field(answer, "ETag")) == (304, 'W/"a"')
        assert field(answer, "Vary") == "Accept-Encoding"
        assert field(answer, "Content-Encoding") is None
    other = proxy_answer(proxy, "/0", **{"If-None-Match": '"b"'})
    assert ungzipped(other) == PAGE


def test_a_range_of_a_stored_page_is_one_of_the_applications_octets() -> None:
    proxy = stored_proxy(reply(PAGE, headers={**HTML, "ETag": '"a"'}))
    proxy_answer(proxy, "/0")
    answer = proxy_answer(proxy, "/0", Range="bytes=3-9")
    assert (status_of(answer), body_of(answer)) == (206, PAGE[3:10])
    assert field(answer, "ETag") == '"a"' and field(answer, "Content-Encoding") is None
    answer = proxy_answer(proxy, "/0", **{"Range": "bytes=3-9", "If-Range": '"a"'})
    assert status_of(answer) == 206


def test_a_forwarded_page_that_comes_again_is_not_compressed_again() -> None:
    """The compressed form of a response that equals the stored one is kept with the stored one."""
    proxy = make()
    compression = proxy.services.compression
    made, answers = [], []
    for _ in range(5):  # a head that has come twice takes the short way
        answers.append(answer_to(proxy, get(headers=GZIP), reply(PAGE, headers=HTML)))
        assert ungzipped(answers[-1]) == PAGE
        made.append(compression.stats()["stored_forms"])
    assert made == [0, 0, 1, 1, 1]
    coded = proxy.services.store.forms.coded_body(PAGE, b"gzip")
    assert coded is not None and body_of(answers[-1]) == coded
    # It is ready when the store has to answer, and a page that has changed is compressed anew.
    open_circuit(proxy)
    assert body_of(answer_to(proxy, get(headers=GZIP))) == coded
    assert compression.stats()["stored_forms"] == 1
    proxy.services.breaker.circuit.set_mode(proxy.loop.now, Mode.CLOSED)
    changed = PAGE.replace(b"a", b"b")
    assert ungzipped(answer_to(proxy, get(headers=GZIP), reply(changed, headers=HTML))) == changed


def test_what_does_not_shrink_is_not_tried_again() -> None:
    proxy = make()
    noise = random.Random(1).randbytes(2000)
    for _ in range(3):
        answer = answer_to(proxy, get(headers=GZIP), reply(noise, headers=HTML))
        assert body_of(answer) == noise and field(answer, "Content-Encoding") is None
    assert proxy.services.compression.stats()["stored_forms"] == 1
