"""A 304 refreshes what is stored (RFC 9111 section 4.3.4)."""

import pytest

from retter.store.policy import StorePolicy
from retter.store.record import (
    ENTRY_OVERHEAD_BYTES,
)
from retter.store.store import StoredResponse
from tests.support.heads import response_head as response
from tests.support.stores import ALICE, find, make, put, request, who

ETAG, OTHER_ETAG = (b"etag", b'"a"'), (b"etag", b'"b"')
MODIFIED = (b"last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT")


def refreshed(
    stored: tuple[tuple[bytes, bytes], ...],
    asked: tuple[tuple[bytes, bytes], ...],
    answered: tuple[tuple[bytes, bytes], ...],
    policy: StorePolicy = StorePolicy.ALL,
) -> StoredResponse | None:
    """Return what is stored after a 304, asked for at 99 and answered at 100."""
    store = make(policy)
    put(store, request(), response(*stored), now=10.0)
    store.invalidation.supersede(who(request()), [b"a.b/"], 20.0)
    conditional = request(*asked)
    store.refresh(who(conditional), conditional, response(*answered, status=304), 99.0, 100.0)
    return find(store, request(), 100.0, superseded=True)


@pytest.mark.parametrize(
    ("stored", "asked", "answered", "validates"),
    [
        ((ETAG,), ((b"if-none-match", b'"a"'),), (ETAG,), True),
        ((ETAG,), ((b"if-none-match", b'"a", "b"'),), (ETAG,), True),
        ((ETAG,), ((b"if-none-match", b'"b"'),), (OTHER_ETAG,), False),
        ((ETAG,), ((b"if-none-match", b'W/"a"'),), ((b"etag", b'W/"a"'),), False),
        ((ETAG,), ((b"if-none-match", b'"a"'),), (), True),
        ((ETAG,), ((b"if-none-match", b'"a", "b"'),), (), False),
        ((ETAG,), ((b"if-none-match", b"*"),), (), False),
        ((ETAG,), ((b"if-none-match", b'"b"'),), (), False),
        ((MODIFIED,), ((b"if-modified-since", MODIFIED[1]),), (), True),
        ((MODIFIED,), ((b"if-modified-since", MODIFIED[1]),), (MODIFIED,), True),
        ((MODIFIED,), ((b"if-modified-since", b"later"),), (), False),
        ((MODIFIED,), ((b"if-none-match", b'"a"'), (b"if-modified-since", MODIFIED[1])), (), False),
        ((MODIFIED,), ((b"if-modified-since", b"x"),), ((b"last-modified", b"x"),), False),
        ((), (), (), False),
        ((), ((b"if-none-match", b'"a"'),), (ETAG,), False),
    ],
)
def test_a_304_refreshes_what_it_validates(
    stored: tuple[tuple[bytes, bytes], ...],
    asked: tuple[tuple[bytes, bytes], ...],
    answered: tuple[tuple[bytes, bytes], ...],
    validates: bool,
) -> None:
    found = refreshed(stored, asked, answered)
    assert found is not None
    assert (found.stored_at, found.age_s) == ((100.0, 1.0) if validates else (10.0, 0.0))
    assert found.superseded is not validates
    assert found.body == b"body"


def test_a_304_updates_fields_but_not_those_about_the_body() -> None:
    found = refreshed(
        (
            ETAG,
            (b"date", b"1"),
            (b"x-a", b"1"),
            (b"x-a", b"2"),
            (b"x-b", b"1"),
            (b"content-type", b"text/html"),
        ),
        ((b"if-none-match", b'"a"'),),
        (
            ETAG,
            (b"date", b"2"),
            (b"x-a", b"3"),
            (b"x-c", b"1"),
            (b"content-type", b"x"),
            (b"content-length", b"0"),
            (b"content-encoding", b"br"),
            (b"set-cookie", b"x"),
            (b"age", b"7"),
            (b"cache-control", b"no-store"),
            (b"via", b"1.1 x"),
        ),
    )
    assert found is not None
    assert found.head == (
        b"HTTP/1.1 200 Fine\r\nx-b: 1\r\ncontent-type: text/html\r\n"
        b'etag: "a"\r\ndate: 2\r\nx-a: 3\r\nx-c: 1\r\ncache-control: no-store\r\n'
    )
    assert (found.age_s, found.no_store, found.content_coding) == (8.0, True, b"")


def test_a_304_that_says_it_may_not_be_kept_drops_it() -> None:
    asked = ((b"if-none-match", b'"a"'),)
    for field in ((b"vary", b"*"), (b"vary", b"accept")):
        assert refreshed((ETAG,), asked, (ETAG, field)) is None
    no_store = (ETAG, (b"cache-control", b"no-store"))
    assert refreshed((ETAG,), asked, no_store, StorePolicy.RFC9111) is None
    same_vary = (ETAG, (b"vary", b"accept-encoding"))
    assert refreshed(same_vary, asked, same_vary) is not None


def test_a_304_asked_for_before_a_change_does_not_undo_it() -> None:
    store = make()
    put(store, request(), response(ETAG))
    store.invalidation.supersede(who(request()), [b"a.b/"], 20.0)
    asked = request((b"if-none-match", b'"a"'))
    store.refresh(who(asked), asked, response(ETAG, status=304), 19.0, 21.0)
    found = find(store, request(), 22.0, superseded=True)
    assert found is not None
    assert found.superseded


def test_a_304_never_refreshes_everyones_for_somebody() -> None:
    store = make()
    put(store, request(), response(ETAG))
    asked = request(ALICE, (b"if-none-match", b'"a"'))
    store.refresh(who(asked), asked, response(ETAG, status=304), 19.0, 20.0)
    found = find(store, request(ALICE), 20.0)
    assert found is not None
    assert found.stored_at == 10.0


def test_a_304_refreshes_the_variant_that_was_asked_for() -> None:
    store = make()
    varies = response(ETAG, (b"vary", b"accept"))
    for value in (b"1", b"2"):
        put(store, request(ALICE, (b"accept", value)), varies, value)
    asked = request(ALICE, (b"accept", b"1"), (b"if-none-match", b'"a"'))
    store.refresh(who(asked), asked, response(ETAG, status=304), 20.0, 20.0)
    ages = [
        found.stored_at
        for value in (b"1", b"2")
        if (found := find(store, request(ALICE, (b"accept", value)))) is not None
    ]
    assert ages == [20.0, 10.0]


def test_a_304_that_makes_a_head_too_large_costs_the_entry() -> None:
    store = make(bytes_max=ENTRY_OVERHEAD_BYTES + 200)
    put(store, request(), response(ETAG))
    asked = request((b"if-none-match", b'"a"'))
    store.refresh(who(asked), asked, response(ETAG, (b"x", b"y" * 200), status=304), 20.0, 20.0)
    assert store.stats()["entries"] == store.stats()["bytes_used"] == 0
    assert store.stats()["evicted_budget"] == 1
