"""The store: what is found for whom, what goes first, and that every byte is counted."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from retter.http.message import Fields, RequestHead, ResponseHead
from retter.store.accounting import OWNER_OVERHEAD_BYTES, SETTLED_AT_ONCE_MAX
from retter.store.changes import CHANGES_REMEMBERED_MAX
from retter.store.owner import OwnerRules
from retter.store.policy import Identity, StorePolicy, identify, invalidated_urls, key_of
from retter.store.record import (
    ENTRY_OVERHEAD_BYTES,
    FORM_OVERHEAD_BYTES,
    IDENTITY,
    Form,
    as_stored,
    bytes_referred,
    entry_bytes,
    facts_of,
)
from retter.store.s3fifo import GHOSTS_MIN
from retter.store.store import ResponseStore, StoredResponse, StoreRules
from retter.store.taken_back import Withdrawn
from tests.support.eviction import NaiveQueues
from tests.support.heads import request_head
from tests.support.heads import response_head as response

SECRET = b"0123456789abcdef"
RULES = OwnerRules(secret=SECRET)
ALICE = (b"cookie", b"PHPSESSID=alice-0123456789abcdef")
BOB = (b"cookie", b"PHPSESSID=bob-0123456789abcdef")
BEARER = (b"authorization", b"Bearer x")


def request(
    *fields: tuple[bytes, bytes], target: bytes = b"/", method: bytes = b"GET"
) -> RequestHead:
    return request_head(*fields, target=target, method=method, host=b"a.b")


def who(asked: RequestHead) -> Identity:
    return identify(asked, RULES)


def make(policy: StorePolicy = StorePolicy.ALL, **limits: float) -> ResponseStore:
    return ResponseStore(StoreRules(secret=SECRET, policy=policy, **limits))  # type: ignore[arg-type]


def put(
    store: ResponseStore,
    asked: RequestHead,
    answered: ResponseHead,
    body: bytes = b"body",
    now: float = 10.0,
    requested_at: float | None = None,
) -> bool:
    asked_at = now if requested_at is None else requested_at
    return store.put(who(asked), asked, answered, body, asked_at, now)


def find(
    store: ResponseStore, asked: RequestHead, now: float = 11.0, *, superseded: bool = False
) -> StoredResponse | None:
    return store.lookup(who(asked), asked, now, superseded=superseded)


def body_for(
    store: ResponseStore, asked: RequestHead, now: float = 11.0, *, superseded: bool = False
) -> bytes | None:
    found = find(store, asked, now, superseded=superseded)
    return None if found is None else found.body


# -- What is kept of a response


def test_what_is_kept() -> None:
    store = make()
    head = response(
        (b"etag", b'"a"'),
        (b"last-modified", b"then"),
        (b"content-encoding", b"GZIP"),
        (b"age", b"5"),
        (b"cache-control", b"no-store"),
        (b"content-length", b"4"),
        status=203,
    )
    assert put(store, request(), head, b"body", requested_at=8.0, now=10.0)
    found = find(store, request(), 13.0)
    assert found is not None
    assert (found.status, found.head, found.body) == (203, head.stored, b"body")
    assert (found.content_coding, found.etag, found.last_modified) == (b"gzip", b'"a"', b"then")
    assert found.no_store
    assert not found.superseded
    # RFC 9111 section 4.2.3: received Age, response delay, time in the store.
    assert (found.stored_at, found.age_s, found.age(13.0)) == (10.0, 7.0, 10.0)


@pytest.mark.parametrize(
    ("ages", "age_s"),
    [
        ((b"5",), 5),
        ((b"5, 9",), 5),
        ((b"5", b"9"), 5),
        ((b"x",), 0),
        ((b"",), 0),
        ((b"-1",), 0),
    ],
)
def test_the_received_age(ages: tuple[bytes, ...], age_s: int) -> None:
    store = make()
    put(store, request(), response(*((b"age", age) for age in ages)))
    found = find(store, request(), 10.0)
    assert found is not None
    assert found.age(10.0) == age_s


def test_vary_star_is_refused() -> None:
    store = make()
    assert not put(store, request(), response((b"vary", b"accept, *")))
    assert store.stats()["refused"] == 1
    assert facts_of(((b"vary", b"*"),), 1.0, shared=False) is None


# -- For whom


def test_each_owner_gets_its_own() -> None:
    store = make()
    asked = {
        name: request(*fields)
        for name, fields in (
            (b"anon", ()),
            (b"alice", (ALICE,)),
            (b"bob", (BOB,)),
            (b"api", (BEARER,)),
            (b"theme", ((b"cookie", b"theme=x"),)),
            (b"both", (ALICE, BEARER)),
        )
    }
    for name, head in asked.items():
        put(store, head, response(), b"for " + name)
    for name, head in asked.items():
        assert body_for(store, head) == b"for " + name
    assert store.stats()["found_own"] == len(asked)


def test_with_cookies_alone_everyones_200_stands_in() -> None:
    store = make()
    put(store, request(), response())
    for cookie in (ALICE, (b"cookie", b"theme=x")):
        assert body_for(store, request(cookie)) == b"body"
    assert store.stats()["found_public"] == 2
    for fields in ((BEARER,), (ALICE, BEARER), ((b"x-api-key", b"1"),)):
        assert body_for(store, request(*fields)) is None
    assert store.stats()["not_found"] == 3


@pytest.mark.parametrize("status", [201, 204, 301, 302])
def test_nothing_but_a_200_stands_in(status: int) -> None:
    store = make()
    put(store, request(), response(status=status))
    assert body_for(store, request(ALICE)) is None
    assert body_for(store, request()) == b"body"


def test_an_owners_answer_is_never_anybody_elses() -> None:
    store = make()
    for fields in ((ALICE,), (BEARER,), ((b"cookie", b"theme=x"),)):
        put(store, request(*fields), response())
    assert body_for(store, request()) is None
    assert body_for(store, request(BOB)) is None
    assert body_for(store, request((b"authorization", b"Bearer y"))) is None
    assert body_for(store, request(ALICE, target=b"/other")) is None


# -- Variants


def test_vary_separates_but_not_by_coding_or_cookie() -> None:
    store = make()
    varies = response((b"vary", b"Accept-Language, Accept-Encoding"), (b"vary", b"Cookie,"))
    german, english = (b"accept-language", b"de"), (b"accept-language", b"en")
    put(store, request(german), varies, b"hallo")
    assert body_for(store, request(english)) is None
    put(store, request(english), varies, b"hello")
    assert body_for(store, request(german, (b"accept-encoding", b"br"))) == b"hallo"
    assert body_for(store, request(english)) == b"hello"
    assert body_for(store, request()) is None
    put(store, request(english), varies, b"hi")
    assert (store.stats()["entries"], store.stats()["keys"]) == (2, 1)


def test_an_absent_field_an_empty_one_and_two_lines_are_three_variants() -> None:
    store = make()
    varies = response((b"vary", b"x, accept"))
    variants: list[Fields] = [
        (),
        ((b"accept", b""),),
        ((b"accept", b"a"), (b"accept", b"b")),
        ((b"accept", b"0:"),),
    ]
    for number, fields in enumerate(variants):
        put(store, request(*fields), varies, b"%d" % number)
    for number, fields in enumerate(variants):
        assert body_for(store, request(*fields)) == b"%d" % number
    # RFC 9110 section 5.3: two lines are one list.
    assert body_for(store, request((b"accept", b"a, b"))) == b"2"


def test_a_credential_that_vary_names_is_kept_as_a_hash() -> None:
    store = make()
    put(store, request((b"authorization", b"topsecret")), response((b"vary", b"authorization")))
    found = find(store, request((b"authorization", b"topsecret")))
    assert found is not None
    assert "topsecret" not in repr(found)


def test_a_fragment_never_stands_in_for_the_page() -> None:
    store = make()
    xhr = (b"x-requested-with", b"XMLHttpRequest")
    put(store, request(xhr), response(), b"fragment")
    assert body_for(store, request()) is None
    assert body_for(store, request(ALICE)) is None
    put(store, request(), response(), b"page")
    assert body_for(store, request(xhr)) == b"fragment"
    assert body_for(store, request(ALICE)) == b"page"
    assert body_for(store, request(ALICE, xhr)) == b"fragment"


def test_a_redirect_to_https_is_not_given_to_https() -> None:
    store = make()
    put(store, request((b"x-forwarded-proto", b"http")), response(status=301))
    assert body_for(store, request((b"x-forwarded-proto", b"https"))) is None


def test_the_oldest_variant_goes_first() -> None:
    store = make(variants_max=2)
    varies = response((b"vary", b"accept"))
    for value in (b"1", b"2", b"3"):
        put(store, request((b"accept", value)), varies, value)
    found = [body_for(store, request((b"accept", value))) for value in (b"1", b"2", b"3")]
    assert found == [None, b"2", b"3"]
    assert store.stats()["evicted_variants"] == 1


def test_what_replaces_is_what_would_have_been_answered() -> None:
    """A response without Vary answers every request, until one with Vary comes."""
    store = make()
    put(store, request((b"accept", b"1")), response(), b"any")
    put(store, request((b"accept", b"2")), response((b"vary", b"accept")), b"two")
    assert body_for(store, request((b"accept", b"2"))) == b"two"
    assert body_for(store, request((b"accept", b"1"))) is None


# -- Age


def test_what_is_too_old_is_gone() -> None:
    store = make(max_stale_s=100.0)
    put(store, request(), response((b"age", b"40")), now=10.0)
    assert body_for(store, request(), 70.0) == b"body"
    assert body_for(store, request(), 70.1) is None
    assert store.stats()["expired"] == 1
    assert store.stats()["entries"] == 0
    put(store, request(), response(), now=100.0)
    assert body_for(store, request(ALICE), 200.0) == b"body"
    assert body_for(store, request(ALICE), 200.1) is None
    assert store.stats()["bytes_used"] == 0


def test_an_old_own_one_gives_way_to_everyones() -> None:
    store = make(max_stale_s=100.0)
    put(store, request(ALICE), response(), b"old", now=0.0)
    put(store, request(), response(), b"new", now=90.0)
    assert body_for(store, request(ALICE), 100.0) == b"old"
    assert body_for(store, request(ALICE), 101.0) == b"new"


@pytest.mark.parametrize(
    ("cache_control", "age_max_s"),
    [
        (b"max-age=60, must-revalidate", 60.0),
        (b"stale-if-error=30", 30.0),
        (b"", 1000.0),
    ],
)
def test_rfc9111_limits_the_age(cache_control: bytes, age_max_s: float) -> None:
    shared, every = make(StorePolicy.RFC9111, max_stale_s=1000.0), make(max_stale_s=1000.0)
    head = response((b"cache-control", cache_control))
    for store in (shared, every):
        put(store, request(), head, now=0.0)
    assert body_for(shared, request(), age_max_s) == b"body"
    assert body_for(shared, request(), age_max_s + 1) is None
    assert body_for(every, request(), 1000.0) == b"body"


# -- Storing the same again


def test_the_same_again_only_makes_it_young() -> None:
    store = make()
    head = response((b"age", b"3"))
    put(store, request(), head, b"x" * 100, now=0.0)
    used = store.stats()["bytes_used"]
    put(store, request(), head, b"x" * 100, requested_at=49.0, now=50.0)
    found = find(store, request(), 50.0)
    assert found is not None
    assert found.age(50.0) == 4.0
    # Equal bytes from another head: its Age is its own.
    put(store, request(), response((b"age", b"7")), b"x" * 100, now=60.0)
    found = find(store, request(), 60.0)
    assert found is not None
    assert found.age(60.0) == 7.0
    stats = store.stats()
    assert (stats["unchanged"], stats["stored"], stats["bytes_used"]) == (2, 1, used)


def test_equal_bodies_are_kept_once() -> None:
    store = make()
    for number in range(50):
        asked = request((b"cookie", b"PHPSESSID=visitor%d" % number))
        put(store, asked, response(), bytes(bytearray(b"x" * 100_000)))
    stats = store.stats()
    assert (stats["entries"], stats["owners"], stats["bodies"]) == (50, 50, 1)
    assert stats["bytes_used"] < 200_000
    for number in range(50):
        store.invalidation.drop_owner(
            who(request((b"cookie", b"PHPSESSID=visitor%d" % number))).owner, 20.0
        )
    assert store.stats()["bodies"] == store.stats()["bytes_used"] == 0


# -- Superseded


def test_a_superseded_response_is_only_for_when_the_application_fails() -> None:
    store = make()
    for fields in ((), (ALICE,), (BOB,)):
        put(store, request(*fields), response())
    assert store.invalidation.supersede(who(request(ALICE, method=b"POST")), [b"a.b/"], 20.0) == 2
    assert body_for(store, request(), 21.0) is None
    # Not the anonymous page either, for somebody who has just changed something.
    assert body_for(store, request(ALICE), 21.0) is None
    assert body_for(store, request(BOB), 21.0) == b"body"
    for fields in ((), (ALICE,)):
        assert body_for(store, request(*fields), 21.0, superseded=True) == b"body"
    assert body_for(store, request((b"cookie", b"x=y")), 21.0) is None
    assert body_for(store, request((b"cookie", b"x=y")), 21.0, superseded=True) == b"body"
    assert store.invalidation.supersede(who(request(ALICE)), [b"a.b/", b"a.b/none"], 22.0) == 0
    put(store, request(ALICE), response(), now=23.0)
    assert body_for(store, request(ALICE), 24.0) == b"body"


def test_a_withdrawn_response_that_is_changed_goes_for_good() -> None:
    store = make()
    put(store, request(), response())
    identity = who(request())
    withdrawn = store.taken_back.withdraw(identity.key, 20.0)
    assert withdrawn is not None
    assert store.stats()["entries"] == 1, "hidden, so that it can be given back"
    assert store.invalidation.supersede(identity, [b"a.b/"], 21.0) == 0
    stats = store.stats()
    assert (stats["entries"], stats["bytes_used"]) == (0, 0)
    store.taken_back.restore(withdrawn)
    store.taken_back.discard(withdrawn)
    assert body_for(store, request(), 22.0, superseded=True) is None


def test_a_response_that_was_on_its_way_is_superseded_too() -> None:
    store = make()
    store.invalidation.supersede(who(request()), [b"a.b/"], 10.0)
    for again in range(2):
        assert put(store, request(), response(), requested_at=9.0, now=11.0 + again)
        assert body_for(store, request(), 13.0) is None
        assert body_for(store, request(), 13.0, superseded=True) == b"body"
    put(store, request(target=b"/other"), response(), requested_at=9.0, now=14.0)
    assert body_for(store, request(target=b"/other"), 15.0) == b"body"
    put(store, request(), response(), requested_at=10.1, now=16.0)
    assert body_for(store, request(), 17.0) == b"body"


def test_a_forgotten_change_counts_for_everything_asked_before() -> None:
    store = make()
    for number in range(CHANGES_REMEMBERED_MAX + 1):
        store.invalidation.supersede(who(request()), [b"a.b/%d" % number], 10.0 + number)
    put(store, request(target=b"/0"), response(), requested_at=9.0, now=3000.0)
    assert body_for(store, request(target=b"/0"), 3000.0) is None
    put(store, request(target=b"/new"), response(), requested_at=10.0, now=3000.0)
    assert body_for(store, request(target=b"/new"), 3000.0) is None
    put(store, request(target=b"/new"), response(), requested_at=10.5, now=3000.0)
    assert body_for(store, request(target=b"/new"), 3000.0) == b"body"


# -- Sessions


def test_a_logout_drops_all_of_one_session() -> None:
    store = make()
    csrf = (b"x-csrf-token", b"1")
    for target in (b"/1", b"/2"):
        for fields in ((), (ALICE,), (ALICE, csrf), (BOB,)):
            put(store, request(*fields, target=target), response())
    assert store.invalidation.drop_owner(who(request(ALICE, csrf)).owner, 20.0) == 4
    assert store.invalidation.drop_owner(who(request(ALICE)).owner, 20.0) == 0
    assert store.stats()["dropped_session"] == 4
    for target in (b"/1", b"/2"):
        assert body_for(store, request(BOB, target=target)) == b"body"
        assert body_for(store, request(ALICE, csrf, target=target)) is None


def test_what_was_on_its_way_to_a_dropped_session_is_not_stored() -> None:
    store = make()
    store.invalidation.drop_owner(who(request(ALICE)).owner, 10.0)
    assert not put(store, request(ALICE), response(), requested_at=9.0, now=11.0)
    assert put(store, request(BOB), response(), requested_at=9.0, now=11.0)
    assert put(store, request(ALICE), response(), requested_at=10.1, now=11.0)


def test_everyone_is_not_one_owner() -> None:
    store = make()
    put(store, request(), response())
    assert store.invalidation.drop_owner(b"", 20.0) == 0
    assert put(store, request(target=b"/2"), response(), requested_at=1.0, now=21.0)
    assert body_for(store, request()) == body_for(store, request(target=b"/2"), 22.0) == b"body"


# -- Refreshing with a 304 (RFC 9111 section 4.3.4)

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


# -- The budget


def test_what_is_asked_for_once_goes_first() -> None:
    store = make(bytes_max=3 * (ENTRY_OVERHEAD_BYTES + 100))
    for target in (b"/1", b"/2", b"/3"):
        put(store, request(target=target), response())
    find(store, request(target=b"/1"))
    find(store, request(ALICE, target=b"/2"))
    put(store, request(target=b"/4"), response())
    kept = [t for t in (b"/1", b"/2", b"/3", b"/4") if find(store, request(target=t)) is not None]
    assert kept == [b"/1", b"/2", b"/4"]
    assert store.stats()["evicted_budget"] == 1


def test_one_owner_pushes_out_its_own() -> None:
    store = make(bytes_max=40_000, owner_share=0.25)
    put(store, request(), response())
    put(store, request(BOB), response())
    for number in range(100):
        put(store, request(ALICE, target=b"/%d" % number), response(), b"%01000d" % number)
        find(store, request(ALICE, target=b"/0"))
    stats = store.stats()
    assert stats["evicted_budget"] == 0
    assert stats["evicted_share"] == 100 - (stats["entries"] - 2) > 80
    assert body_for(store, request()) == body_for(store, request(BOB)) == b"body"
    # Its own least recently used went first: the page that it reads again and again is there.
    assert body_for(store, request(ALICE, target=b"/0")) is not None
    assert body_for(store, request(ALICE, target=b"/1")) is None


def test_what_is_too_large_is_refused_and_what_was_there_stays() -> None:
    store = make(bytes_max=8 * 4096)
    for fields in ((), (ALICE,)):
        assert put(store, request(*fields), response(), b"small")
    assert not put(store, request(), response(), b"x" * 8 * 4096)
    assert not put(store, request(ALICE), response(), b"x" * 4096)
    assert put(store, request(target=b"/1"), response(), b"x" * 4096)
    assert body_for(store, request()) == body_for(store, request(ALICE)) == b"small"
    assert store.stats()["refused"] == 2


def test_no_memory_stores_nothing() -> None:
    store = make(bytes_max=0)
    assert not put(store, request(), response(), b"")
    assert store.stats()["bytes_used"] == 0


@pytest.mark.parametrize(
    "limits",
    [
        {"bytes_max": -1},
        {"variants_max": 0},
        {"max_stale_s": -1.0},
        {"owner_share": 0.0},
        {"owner_share": 1.1},
    ],
)
def test_limits_are_checked(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at"):
        make(**limits)


# -- Purging


def test_purging() -> None:
    alice = who(request(ALICE)).owner

    def filled() -> ResponseStore:
        store = make()
        for target in (b"/a", b"/a/b", b"/c"):
            for fields in ((), (ALICE,), (BOB,)):
                put(store, request(*fields, target=target), response())
        return store

    assert filled().invalidation.purge() == 9
    assert filled().invalidation.purge(url=b"a.b/a") == 3
    assert filled().invalidation.purge(prefix=b"a.b/a") == 6
    assert filled().invalidation.purge(owner=alice) == 3
    assert filled().invalidation.purge(owner=b"") == 3
    assert filled().invalidation.purge(prefix=b"a.b/a", owner=b"") == 2
    assert filled().invalidation.purge(url=b"a.b/none") == 0
    store = filled()
    store.invalidation.purge(prefix=b"a.b/a")
    assert (store.stats()["entries"], store.stats()["purged"]) == (3, 6)


def test_an_unsafe_answer_marks_what_it_names() -> None:
    """From the heads to the marks: policy and store together."""
    store = make()
    put(store, request(target=b"/list"), response())
    put(store, request(target=b"/items"), response())
    post = request(method=b"POST", target=b"/items")
    named = invalidated_urls(post, response((b"location", b"/list"), status=303), RULES)
    assert store.invalidation.supersede(who(post), named, 20.0) == 2


# -- Against a naive model


@dataclass
class Entry:
    """One entry of the model, with the request that it was stored for."""

    accept: bytes
    varies: bool
    size: int
    body: bytes
    stored_at: float
    superseded: bool
    etag: bytes


MODEL_MAX, MODEL_SHARE, MODEL_VARIANTS, MODEL_STALE = 9000, 0.5, 2, 40.0
VISITORS: dict[str, Fields] = {
    "anon": (),
    "alice": (ALICE,),
    "bob": (BOB,),
    "theme": ((b"cookie", b"theme=x"),),
    "api": (BEARER,),
}
visitors = st.sampled_from(sorted(VISITORS))
targets = st.sampled_from([b"/1", b"/2", b"/3", b"/4"])
accepts = st.sampled_from([b"a", b"b", b"c"])
bodies = st.sampled_from([b"", b"x", b"y" * 500, b"z" * 500, b"z" * 2500, b"w" * 5000])


class StoreMachine(RuleBasedStateMachine):
    """The store and a model that keeps plain lists and counts everything anew after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.keys: dict[bytes, list[Entry]] = {}  # least recently used first
        self.queues = NaiveQueues(GHOSTS_MIN)
        self.changes: dict[bytes, float] = {}

    @initialize()
    def start(self) -> None:
        self.store = make(
            bytes_max=MODEL_MAX,
            owner_share=MODEL_SHARE,
            variants_max=MODEL_VARIANTS,
            max_stale_s=MODEL_STALE,
        )

    # The model

    def used(self) -> int:
        entries = [entry for slot in self.keys.values() for entry in slot]
        owners = {key[1:17] for key in self.keys if key[:1] == b"@"}
        return (
            sum(entry.size for entry in entries)
            + sum(map(len, {e.body for e in entries}))
            + OWNER_OVERHEAD_BYTES * len(owners)
        )

    def held(self, owner: bytes) -> int:
        slots = [slot for key, slot in self.keys.items() if key[1:17] == owner and key[:1] == b"@"]
        entries = [entry for slot in slots for entry in slot]
        return sum(entry.size + len(entry.body) for entry in entries) + OWNER_OVERHEAD_BYTES

    def drop_last(self, key: bytes) -> None:
        self.keys[key].pop()
        if not self.keys[key]:
            self.forget(key)

    def forget(self, key: bytes) -> list[Entry]:
        self.queues.remove(key)
        return self.keys.pop(key)

    def size_of(self, key: bytes) -> int:
        return sum(entry.size + len(entry.body) for entry in self.keys[key])

    def make_room(self, owner: bytes) -> None:
        while owner and self.held(owner) > MODEL_MAX * MODEL_SHARE:
            self.drop_last(next(key for key in self.keys if key[1:17] == owner))
        while self.used() > MODEL_MAX:
            queues = self.queues
            queues.probation = [(key, self.size_of(key)) for key, _ in queues.probation]
            key = queues.next_to_go(MODEL_MAX)
            if len(self.keys[key]) == 1 and queues.on_probation(key):
                queues.leave_ghost(key)
            self.drop_last(key)

    def touch(self, key: bytes) -> None:
        self.keys[key] = self.keys.pop(key)
        self.queues.asked.add(key)

    def selected(self, key: bytes, accept: bytes) -> Entry | None:
        for entry in self.keys.get(key, []):
            if not entry.varies or entry.accept == accept:
                return entry
        return None

    def remove(self, key: bytes, entry: Entry) -> None:
        self.keys[key] = [held for held in self.keys[key] if held is not entry]
        if not self.keys[key]:
            self.forget(key)

    # The steps

    def asked(
        self, visitor: str, path: bytes, accept: bytes, *more: tuple[bytes, bytes]
    ) -> tuple[RequestHead, Identity]:
        head = request(*VISITORS[visitor], (b"accept", accept), *more, target=path)
        return head, who(head)

    @rule(
        visitor=visitors,
        path=targets,
        accept=accepts,
        varies=st.booleans(),
        body=bodies,
        delay_s=st.sampled_from([0.0, 0.5, 5.0, 20.0]),
        etag=st.sampled_from([b'"1"', b'"2"']),
    )
    def put(
        self,
        visitor: str,
        path: bytes,
        accept: bytes,
        varies: bool,
        body: bytes,
        delay_s: float,
        etag: bytes,
    ) -> None:
        asked, identity = self.asked(visitor, path, accept)
        fields: list[tuple[bytes, bytes]] = [(b"etag", etag)]
        if varies:
            fields.append((b"vary", b"accept"))
        head = response(*fields)
        body = bytes(bytearray(body))
        requested_at = self.now - delay_s
        stored = self.store.put(identity, asked, head, body, requested_at, self.now)
        key, owner = identity.key, identity.owner
        size = ENTRY_OVERHEAD_BYTES + len(key) + len(head.stored) + len(etag)
        limit = MODEL_MAX * MODEL_SHARE - OWNER_OVERHEAD_BYTES if owner else MODEL_MAX
        late = bool(owner) and requested_at <= self.changes.get(owner, -1.0)
        # The very same again is not weighed: it is there already.
        assert stored is (not late and size + len(body) <= limit)
        if not stored:
            return
        kept = [
            entry for entry in self.keys.get(key, []) if entry.varies and entry.accept != accept
        ]
        new = Entry(
            accept,
            varies,
            size,
            body,
            self.now - delay_s,
            requested_at <= self.changes.get(key, -1.0),
            etag,
        )
        is_new = key not in self.keys
        self.keys.pop(key, None)
        self.keys[key] = [new, *kept[: MODEL_VARIANTS - 1]]
        if not is_new:
            self.queues.add(key, 0)
        self.make_room(owner)
        if is_new:
            self.queues.add(key, 0)

    @rule(visitor=visitors, path=targets, accept=accepts, superseded=st.booleans())
    def lookup(self, visitor: str, path: bytes, accept: bytes, superseded: bool) -> None:
        asked, identity = self.asked(visitor, path, accept)
        found = self.store.lookup(identity, asked, self.now, superseded=superseded)
        expected: Entry | None = None
        for key in (identity.key, identity.public_key):
            entry = None if key is None else self.selected(key, accept)
            if key is None or entry is None:
                continue
            if self.now - entry.stored_at > MODEL_STALE:
                self.remove(key, entry)
                continue
            if superseded or not entry.superseded:
                expected = entry
                self.touch(key)
            break
        if expected is None:
            assert found is None
        else:
            assert found is not None
            assert (found.body, found.superseded, found.etag) == (
                expected.body,
                expected.superseded,
                expected.etag,
            )
            assert found.age(self.now) == pytest.approx(self.now - expected.stored_at)

    @rule(
        visitor=visitors,
        path=targets,
        accept=accepts,
        etag=st.sampled_from([b'"1"', b'"2"']),
        delay_s=st.sampled_from([0.0, 5.0]),
        grown=st.sampled_from([0, 10, 3000]),
    )
    def refresh(
        self, visitor: str, path: bytes, accept: bytes, etag: bytes, delay_s: float, grown: int
    ) -> None:
        asked, identity = self.asked(visitor, path, accept, (b"if-none-match", etag))
        head = response((b"etag", etag), (b"x", b"y" * grown), status=304)
        requested_at = self.now - delay_s
        self.store.refresh(identity, asked, head, requested_at, self.now)
        key = identity.key
        entry = self.selected(key, accept)
        if entry is None or entry.etag != etag:
            return
        vary = len(b"vary: accept\r\n") if entry.varies else 0
        entry.size = (
            ENTRY_OVERHEAD_BYTES
            + len(key)
            + len(response((b"etag", etag)).stored)
            + vary
            + len(b"x: \r\n")
            + grown
            + len(etag)
        )
        entry.stored_at = requested_at
        entry.superseded = entry.superseded and requested_at <= self.changes.get(key, -1.0)
        self.touch(key)
        self.make_room(identity.owner)

    @rule(visitor=visitors, path=targets)
    def supersede(self, visitor: str, path: bytes) -> None:
        _, identity = self.asked(visitor, path, b"a")
        marked = self.store.invalidation.supersede(identity, [identity.url], self.now)
        expected = 0
        for key in {identity.key, key_of(b"", identity.url)}:
            self.changes[key] = self.now
            for entry in self.keys.get(key, []):
                expected += not entry.superseded
                entry.superseded = True
        assert marked == expected

    @rule(visitor=visitors)
    def drop_owner(self, visitor: str) -> None:
        _, identity = self.asked(visitor, b"/1", b"a")
        dropped = self.store.invalidation.drop_owner(identity.owner, self.now)
        mine = [key for key in self.keys if identity.owner and key[1:17] == identity.owner]
        if identity.owner:
            self.changes[identity.owner] = self.now
        assert dropped == sum(len(self.forget(key)) for key in mine)

    @rule(path=targets)
    def purge(self, path: bytes) -> None:
        gone = [key for key in self.keys if key.endswith(b"a.b" + path)]
        assert self.store.invalidation.purge(url=b"a.b" + path) == sum(
            len(self.forget(k)) for k in gone
        )

    @rule(seconds=st.sampled_from([1.0, 5.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def every_byte_is_counted(self) -> None:
        if not hasattr(self, "store"):
            return
        stats = self.store.stats()
        entries = [entry for slot in self.keys.values() for entry in slot]
        assert stats["entries"] == len(entries)
        assert stats["keys"] == len(self.keys)
        assert stats["bodies"] == len({entry.body for entry in entries})
        assert stats["owners"] == len({key[1:17] for key in self.keys if key[:1] == b"@"})
        assert stats["bytes_used"] == self.used() <= MODEL_MAX


StoreMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestStoreMachine = StoreMachine.TestCase


class HidingMachine(StoreMachine):
    """The same with purges of very many: what nobody finds any more is counted for a while."""

    @rule(path=targets)
    def hide(self, path: bytes) -> None:
        gone = [key for key in self.keys if key.endswith(b"a.b" + path)]
        assert self.store.shelves.hide(gone) == sum(len(self.forget(k)) for k in gone)

    @rule()
    def tick(self) -> None:
        self.store.free_some()

    @invariant()
    def every_byte_is_counted(self) -> None:
        if not hasattr(self, "store"):
            return
        if not self.store.shelves._hidden:
            super().every_byte_is_counted()
            return
        stats = self.store.stats()
        assert stats["entries"] == sum([len(slot) for slot in self.keys.values()])
        assert stats["keys"] == len(self.keys)
        assert self.used() <= stats["bytes_used"] <= MODEL_MAX


HidingMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestHidingMachine = HidingMachine.TestCase


def test_a_purge_of_very_many_is_over_for_visitors_at_once_and_counted_with_the_ticks() -> None:
    store = make(bytes_max=64 << 20)
    many = 2 * SETTLED_AT_ONCE_MAX
    for number in range(many):
        put(store, request(target=b"/many/%d" % number), response(), b"%d" % number)
    put(store, request(target=b"/kept"), response())
    used = store.stats()["bytes_used"]
    assert store.invalidation.purge(prefix=b"/many/") == many
    assert store.stats()["entries"] == store.stats()["keys"] == 1
    assert find(store, request(target=b"/many/7")) is None
    assert find(store, request(target=b"/kept")) is not None
    assert put(store, request(target=b"/many/7"), response(), b"new")
    store.free_some()
    assert store.stats()["bytes_used"] > used // 3, "a part of it in each tick"
    store.free_some()
    assert store.stats()["bytes_used"] < used // 100
    found = find(store, request(target=b"/many/7"))
    assert found is not None and found.body == b"new"
    assert store.stats()["bodies"] == store.stats()["entries"] == 2


# -- Whatever comes


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"vary",
                    b"etag",
                    b"age",
                    b"cache-control",
                    b"expires",
                    b"date",
                    b"last-modified",
                    b"content-encoding",
                ]
            ),
            st.binary(max_size=20).filter(lambda value: b"\r" not in value and b"\n" not in value),
        ),
        max_size=5,
    ),
    policy=st.sampled_from(list(StorePolicy)),
)
def test_any_response_is_kept_whole_or_not_at_all(
    fields: list[tuple[bytes, bytes]], policy: StorePolicy
) -> None:
    store = make(policy)
    head = response(*fields)
    kept = put(store, request(), head, now=10.0)
    found = find(store, request(), 10.0)
    if found is not None:
        assert kept
        assert (found.head, found.body) == (head.stored, b"body")
    validated = replace(request(), fields=((b"if-none-match", head.combined(b"etag")),))
    not_modified = response(*fields, status=304)
    store.refresh(who(validated), validated, not_modified, 11.0, 11.0)
    assert store.stats()["bytes_used"] <= 64 * 1024 * 1024
    store.invalidation.purge()
    assert store.stats()["bytes_used"] == 0


def test_the_same_again_keeps_to_the_present_limit_of_age() -> None:
    store = make(max_stale_s=100.0)
    put(store, request(), response(), now=10.0)
    store.reconfigure(StoreRules(secret=SECRET, max_stale_s=20.0))
    put(store, request(), response(), now=11.0)
    assert body_for(store, request(), now=30.0) == b"body"
    assert body_for(store, request(), now=32.0) is None


def test_the_same_again_is_compressed_if_that_is_allowed_now() -> None:
    """Compression has been turned on, or off, in between."""
    store = make()
    for compressible in (False, True, False):
        head = response()
        head.compressible = compressible
        put(store, request(), head)
        found = find(store, request())
        assert found is not None
        assert (found.forms is not None) is compressible


def test_a_form_that_was_made_of_a_body_before_is_one_of_the_present_one() -> None:
    """The thread is slow, and meanwhile the body has gone and come back."""
    store = make()
    put(store, request(), response(), b"x" * 1000)
    before = find(store, request())
    assert before is not None
    store.invalidation.purge()
    put(store, request(), response(), bytes(bytearray(b"x" * 1000)))
    found = find(store, request())
    assert found is not None
    assert found.body is not before.body
    used = store.stats()["bytes_used"]
    store.forms.keep_coded(before.body, b"gzip", before.body)
    assert store.forms.coded_body(found.body, b"gzip") is found.body
    assert store.stats()["bytes_used"] == used
    store.invalidation.purge()
    assert store.stats()["bytes_used"] == 0


@pytest.mark.parametrize("asked", [request(), request(ALICE)])
def test_forms_never_push_out_their_own_response(asked: RequestHead) -> None:
    size = 6000 if not asked.fields else 2500
    store = make(bytes_max=9000, owner_share=0.5)
    head = response()
    head.compressible = True
    assert put(store, asked, head, b"x" * size)
    found = find(store, asked)
    assert found is not None
    coded = b"c" * (size - 100)
    store.forms.keep_coded(found.body, b"gzip", coded)
    kept = store.forms.coded_body(found.body, b"gzip") or b""
    store.forms.attach(who(asked), found, b"gzip", Form(b"head", kept))
    assert body_for(store, asked) == b"x" * size
    assert store.stats()["bytes_used"] <= 9000


def test_what_was_asked_for_before_all_was_dropped_is_not_stored() -> None:
    store = make()
    put(store, request(), response())
    store.invalidation.empty(20.0)
    assert body_for(store, request(), now=21.0) is None
    assert not put(store, request(), response(), requested_at=19.0, now=22.0)
    assert not put(store, request(ALICE), response(), requested_at=20.0, now=22.0)
    assert put(store, request(), response(), requested_at=21.0, now=22.0)


few_visitors = st.sampled_from(["anon", "alice", "theme"])
few_targets = st.just(b"/1")
mostly = st.sampled_from([True, True, True, False])
seldom = mostly.map(lambda often: not often)


class FormsMachine(RuleBasedStateMachine):
    """Forms come and go with their responses, and every byte of them is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.store = make(
            bytes_max=MODEL_MAX,
            owner_share=MODEL_SHARE,
            variants_max=MODEL_VARIANTS,
            max_stale_s=MODEL_STALE,
        )
        self.now = 1000.0
        self.jobs: list[tuple[bytes, bytes]] = []  # bodies in the thread, and the coding

    @rule(
        visitor=few_visitors,
        path=few_targets,
        accept=accepts,
        varies=seldom,
        body=bodies,
        compressible=mostly,
        encoded=seldom,
    )
    def put(
        self,
        visitor: str,
        path: bytes,
        accept: bytes,
        varies: bool,
        body: bytes,
        compressible: bool,
        encoded: bool,
    ) -> None:
        asked = request(*VISITORS[visitor], (b"accept", accept), target=path)
        fields = [(b"vary", b"accept")] if varies else []
        if encoded:
            fields.append((b"content-encoding", b"gzip"))
        head = response((b"etag", b'"1"'), *fields)
        head.compressible = compressible and not encoded
        self.store.put(who(asked), asked, head, bytes(bytearray(body)), self.now, self.now)

    @rule(
        visitor=few_visitors,
        path=few_targets,
        accept=accepts,
        coding=st.sampled_from([b"gzip", b"br"]),
        slow=seldom,
    )
    def ask(self, visitor: str, path: bytes, accept: bytes, coding: bytes, slow: bool) -> None:
        asked = request(*VISITORS[visitor], (b"accept", accept), target=path)
        identity = who(asked)
        found = self.store.lookup(identity, asked, self.now)
        if found is None or found.forms is None or found.form(coding) is not None:
            return
        coded = self.store.forms.coded_body(found.body, coding)
        if coded is None and slow:
            self.jobs.append((found.body, coding))
            return
        if coded is None:
            self.store.forms.keep_coded(
                found.body, coding, coding + found.body[: len(found.body) // 3]
            )
            coded = self.store.forms.coded_body(found.body, coding)
            assert coded is not None
            found = self.store.lookup(identity, asked, self.now)
            if found is None:
                return  # there was no room for both
        form = Form(found.head if coded is found.body else b"coded" + found.head, coded)
        variants = max(
            [
                len(self.store.shelves.slots.get(k, ()))
                for k in (identity.key, identity.public_key)
                if k
            ]
        )
        self.store.forms.attach(identity, found, coding, form)
        if variants == 1:
            assert self.store.lookup(identity, asked, self.now) is not None

    @rule(
        visitor=few_visitors, path=few_targets, accept=accepts, times=st.integers(0, 5), gone=seldom
    )
    def decode(self, visitor: str, path: bytes, accept: bytes, times: int, gone: bool) -> None:
        asked = request(*VISITORS[visitor], (b"accept", accept), target=path)
        identity = who(asked)
        found = self.store.lookup(identity, asked, self.now)
        if found is None or not found.content_coding or found.form(IDENTITY) is not None:
            return
        if gone:
            self.store.invalidation.purge()  # while it was in the thread
        form = Form(b"plain" + found.head, b"identity" + times * found.body)
        kept = self.store.forms.keep_decoded(identity, found, form)
        if gone:
            assert kept
        elif self.store.forms.coded_body(found.body, IDENTITY) == found.body:
            assert not kept

    @rule(number=st.integers(0, 5), share=st.sampled_from([0.0, 0.3, 0.99, 1.0]))
    def work(self, number: int, share: float) -> None:
        if self.jobs:
            body, coding = self.jobs.pop(number % len(self.jobs))
            coded = coding + body[: int(len(body) * share)]
            self.store.forms.keep_coded(body, coding, coded if len(coded) < len(body) else body)

    @rule(visitor=few_visitors, path=few_targets)
    def refresh(self, visitor: str, path: bytes) -> None:
        asked = request(*VISITORS[visitor], (b"if-none-match", b'"1"'), target=path)
        head = response((b"etag", b'"1"'), (b"x", b"y"), status=304)
        self.store.refresh(who(asked), asked, head, self.now, self.now)

    @rule(visitor=few_visitors, way=st.sampled_from(["log out", "purge", "wait"]))
    def drop(self, visitor: str, way: str) -> None:
        if way == "log out":
            self.store.invalidation.drop_owner(who(request(*VISITORS[visitor])).owner, self.now)
        elif way == "purge":
            self.store.invalidation.purge()
        else:
            self.now += 30.0

    @invariant()
    def every_byte_is_counted(self) -> None:
        shelves = self.store.shelves
        entries = [(key, as_stored(r)) for key, slot in shelves.slots.items() for r in slot]
        bodies_held = {entry.body for _, entry in entries}
        assert set(shelves._coded) <= bodies_held
        coded = sum(
            [
                len(other)
                for body, others in shelves._coded.items()
                for other in others.values()
                if other is not shelves._bodies[body]
            ]
        )
        owners: dict[bytes, int] = {}
        for key, entry in entries:
            forms = entry.forms or ()
            plain = entry_bytes(key, entry.head, entry.etag, entry.last_modified, entry.variant_key)
            heads = sum([len(form.head) + FORM_OVERHEAD_BYTES for _, form in forms])
            assert entry.entry_bytes == plain + heads
            for coding, form in forms:
                assert form.head == entry.head or form.body.startswith(coding)
            if key[:1] == b"@":
                held = owners.setdefault(key[1:17], OWNER_OVERHEAD_BYTES)
                owners[key[1:17]] = held + entry.entry_bytes + bytes_referred(entry)
        assert owners == shelves._owner_bytes
        assert all(held <= MODEL_MAX * MODEL_SHARE for held in owners.values())
        used = sum([entry.entry_bytes for _, entry in entries]) + sum(map(len, bodies_held)) + coded
        assert shelves.bytes_used == used + OWNER_OVERHEAD_BYTES * len(owners) <= MODEL_MAX


FormsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFormsMachine = FormsMachine.TestCase


ENCODED = response((b"content-encoding", b"gzip"))


def decoded_of(store: ResponseStore, asked: RequestHead, body: bytes) -> bool:
    """Have what is stored kept as if it decoded to that."""
    found = find(store, asked)
    assert found is not None
    return store.forms.keep_decoded(who(asked), found, Form(b"head", body))


def test_a_decoded_form_stays_when_the_same_is_stored_again() -> None:
    store = make()
    for _ in range(3):
        put(store, request(), ENCODED, b"packed" * 100)
        found = find(store, request())
        assert found is not None
        if found.forms is None:
            assert decoded_of(store, request(), b"plain" * 1000)
    assert found is not None
    assert found.form(IDENTITY) == Form(b"head", b"plain" * 1000)
    assert store.stats()["unchanged"] == 2
    put(store, request(), ENCODED, b"other")
    store.invalidation.purge()
    assert store.stats()["bytes_used"] == 0


def test_what_is_decoded_takes_half_of_the_budget_at_most() -> None:
    store = make(bytes_max=100_000)
    put(store, request(), ENCODED, b"packed" * 1000)
    assert store.forms.form_bytes_max(b"packed" * 1000) == 44_000
    assert not decoded_of(store, request(), bytes(44_001))
    assert store.forms.coded_body(b"packed" * 1000, IDENTITY) == b"packed" * 1000, "not tried again"
    assert store.stats()["bytes_used"] < 10_000
    put(store, request(target=b"/other"), ENCODED, b"PACKED" * 1000)
    found = find(store, request(target=b"/other"))
    assert found is not None
    assert store.forms.keep_decoded(
        who(request(target=b"/other")), found, Form(b"head", bytes(44_000))
    )
    assert store.stats()["bytes_used"] < 100_000


def test_what_is_decoded_for_one_visitor_pushes_out_nobody_elses() -> None:
    """Sixteen times the share of one is twice the whole budget."""
    store = make(bytes_max=200_000, owner_share=0.25)
    for number in range(20):
        put(store, request(target=b"/%d" % number), response(), b"%05d" % number * 1000)
    for number in range(10):
        asked = request(ALICE, target=b"/own/%d" % number)
        put(store, asked, ENCODED, b"%02d" % number * 500)
        decoded_of(store, asked, b"%05d" % number * 4000)
    asked = request(ALICE, target=b"/own/large")
    put(store, asked, ENCODED, b"packed" * 100)
    assert not decoded_of(store, asked, bytes(60_000)), "more than the share of one"
    owners_bytes = store.shelves._owner_bytes[who(asked).owner]
    assert owners_bytes <= 50_000
    kept = [body_for(store, request(target=b"/%d" % number)) for number in range(20)]
    assert None not in kept
    assert store.stats()["evicted_share"] > 5


def test_two_withdrawals_of_one_url_are_given_back_and_removed_each_by_itself() -> None:
    """Where the query is ignored, one URL is asked for in several ways, and each may be refused."""
    rules = OwnerRules(secret=SECRET, ignore_query=True)
    requests = [
        request((b"x-requested-with", name), target=b"/?" + name) for name in (b"first", b"other")
    ]
    first, other = [identify(asked, rules) for asked in requests]

    def twice() -> tuple[ResponseStore, list[Withdrawn]]:
        store, hidden = make(), list[Withdrawn]()
        for identity, asked in zip((first, other), requests, strict=True):
            store.put(identity, asked, response(), asked.target, 1.0, 1.0)
        for identity in (first, other):
            withdrawn = store.taken_back.withdraw(identity.key, 2.0, asked=identity.asked)
            assert withdrawn is not None
            hidden.append(withdrawn)
        return store, hidden

    def found(store: ResponseStore) -> list[bytes]:
        answers = [
            store.lookup(identity, asked, 9.0)
            for identity, asked in zip((first, other), requests, strict=True)
        ]
        return [answer.body for answer in answers if answer is not None]

    for at, left in enumerate((b"/?other", b"/?first")):
        store, hidden = twice()
        assert found(store) == []
        store.taken_back.discard(hidden[at])
        store.taken_back.restore(hidden[1 - at])
        assert found(store) == [left]
        assert store.stats()["entries"] == 1
        store.invalidation.purge()
        assert store.stats()["bytes_used"] == 0
    for order in ((0, 1), (1, 0)):
        store, hidden = twice()
        for at in order:
            store.taken_back.restore(hidden[at])
        assert found(store) == [b"/?first", b"/?other"]
        assert store.stats()["restored"] == 2
