"""The store: which entry a client gets, the order of eviction, and that every byte is counted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.http.message import Fields, ResponseHead
from retter.store.accounting import SETTLED_AT_ONCE_MAX
from retter.store.changes import CHANGES_REMEMBERED_MAX
from retter.store.owner import OwnerRules
from retter.store.policy import StorePolicy, identify, invalidated_urls
from retter.store.record import (
    ENTRY_OVERHEAD_BYTES,
    facts_of,
)
from retter.store.store import ResponseStore, StoreRules
from retter.store.taken_back import Withdrawn
from tests.support.heads import response_head as response
from tests.support.stores import (
    ALICE,
    BEARER,
    BOB,
    RULES,
    SECRET,
    body_for,
    find,
    make,
    put,
    request,
    who,
)

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


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),  # the client
            st.sampled_from([b"x", b"x", b"x", b"y"]),  # the body
            st.sampled_from(["stored", "stored", "stored", "changed", "withdrawn", "later"]),
        ),
        max_size=30,
    )
)
def test_what_comes_at_the_same_moment_is_as_good_as_stored(
    steps: list[tuple[int, bytes, str]],
) -> None:
    """One store has a clock of whole milliseconds, for the other each response is later a bit."""
    asked, head = request(ALICE), response()
    identity = who(asked)
    key, variant_key = identity.key, identity.variant_key
    coarse, fine = make(), make()
    began = 10.0
    for number, (client, body, what) in enumerate(steps):
        began += 0.001 * (what == "later")
        for store, now in ((coarse, began), (fine, began + number * 1e-9)):
            if what == "changed":
                store.invalidation.supersede(identity, [identity.url], now)
            elif what == "withdrawn":
                store.taken_back.withdraw(identity.key, now)
            else:
                store.put(identity, asked, head, body, began - 0.0005, now, False, client)
        good = [
            [store.taken_back.last_good(key, variant_key, one) for one in (1, 2, 3)]
            for store in (coarse, fine)
        ]
        for one, other in zip(*good, strict=True):
            assert one == pytest.approx(other, abs=1e-6)
        found, its = (find(store, asked, began + 1.0) for store in (coarse, fine))
        assert (found is None) is (its is None)
        if found is not None and its is not None:
            assert (found.body, found.superseded) == (its.body, its.superseded)
            assert found.age(began) == pytest.approx(its.age(began), abs=1e-6)
    ours, theirs = coarse.stats(), fine.stats()
    for name in ("stored", "unchanged", "refused", "entries", "bytes_used"):
        assert ours[name] == theirs[name]


def test_what_comes_at_the_same_moment_makes_no_new_record() -> None:
    """Only the second client's is needed: from the third on, nothing would follow from it."""
    store, asked = make(), request(ALICE)
    identity, head = who(asked), response()
    records: list[object] = []
    for client in (1, 1, 2, 3, 1):
        store.put(identity, asked, head, b"body", 9.999, 10.0, False, client)
        records.append(store.shelves.slots[identity.key][0])
    assert records[0] is records[1]
    assert records[1] is not records[2]
    assert records[2] is records[3] is records[4]
    assert store.stats()["unchanged"] == 4


def timed(second: int, *more: tuple[bytes, bytes]) -> ResponseHead:
    times = [
        (name, b"Tue, 01 Dec 2026 01:00:%02d GMT" % (second + later))
        for name, later in ((b"date", 0), (b"expires", 30))
    ]
    return response(*times, *more)


def test_the_same_with_other_times_is_the_same_with_those_times() -> None:
    """Most applications send another Date each second."""
    store = make()
    put(store, request(), timed(1), b"x" * 100, now=0.0)
    used = store.stats()["bytes_used"]
    put(store, request(), timed(2), b"x" * 100, requested_at=49.0, now=50.0)
    found = find(store, request(), 50.0)
    assert found is not None
    assert (found.head, found.age(50.0)) == (timed(2).stored, 1.0)
    stats = store.stats()
    assert (stats["unchanged"], stats["stored"], stats["bytes_used"]) == (1, 1, used)


@pytest.mark.parametrize(
    "other", [timed(2, (b"x-a", b"c")), timed(2, (b"x-a", b"bb")), timed(2), response()]
)
def test_the_same_with_another_head_is_another_one(other: ResponseHead) -> None:
    store = make()
    put(store, request(), timed(1, (b"x-a", b"b")), b"x" * 100)
    put(store, request(), other, b"x" * 100)
    found = find(store, request())
    assert found is not None
    assert found.head == other.stored
    assert store.stats()["unchanged"] == 0


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
    key = (b"x-api-key", b"1")
    for target in (b"/1", b"/2"):
        for fields in ((), (ALICE,), (ALICE, key), (BOB,)):
            put(store, request(*fields, target=target), response())
    assert store.invalidation.drop_owner(who(request(ALICE, key)).owner, 20.0) == 4
    assert store.invalidation.drop_owner(who(request(ALICE)).owner, 20.0) == 0
    assert store.stats()["dropped_session"] == 4
    for target in (b"/1", b"/2"):
        assert body_for(store, request(BOB, target=target)) == b"body"
        assert body_for(store, request(ALICE, key, target=target)) is None


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
    validated = request((b"if-none-match", head.combined(b"etag")))
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


def test_a_smaller_limit_of_age_holds_at_once_for_what_is_stored() -> None:
    """A larger one holds for what is stored from then on."""
    store = make(max_stale_s=100.0)
    put(store, request(), response(), now=10.0)
    put(store, request(ALICE), response(), b"hers", now=15.0)
    used = store.stats()["bytes_used"]
    store.reconfigure(StoreRules(secret=SECRET, max_stale_s=20.0))
    assert store.stats()["bytes_used"] == used
    assert body_for(store, request(), now=30.0) == b"body"
    assert body_for(store, request(), now=31.0) is None
    store.reconfigure(StoreRules(secret=SECRET, max_stale_s=1000.0))
    assert body_for(store, request(ALICE), now=35.0) == b"hers"
    assert body_for(store, request(ALICE), now=36.0) is None


def test_what_was_asked_for_before_all_was_dropped_is_not_stored() -> None:
    store = make()
    put(store, request(), response())
    store.invalidation.empty(20.0)
    assert body_for(store, request(), now=21.0) is None
    assert not put(store, request(), response(), requested_at=19.0, now=22.0)
    assert not put(store, request(ALICE), response(), requested_at=20.0, now=22.0)
    assert put(store, request(), response(), requested_at=21.0, now=22.0)


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
