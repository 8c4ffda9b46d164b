"""Coded and decoded forms of a stored response come and go with it, and every byte is counted."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retter.http.message import RequestHead
from retter.store.accounting import OWNER_OVERHEAD_BYTES
from retter.store.record import (
    FORM_OVERHEAD_BYTES,
    IDENTITY,
    Form,
    as_stored,
    bytes_referred,
    entry_bytes,
)
from retter.store.store import ResponseStore
from tests.support.heads import response_head as response
from tests.support.stores import (
    ALICE,
    MODEL_MAX,
    MODEL_SHARE,
    MODEL_STALE,
    MODEL_VARIANTS,
    VISITORS,
    accepts,
    bodies,
    body_for,
    find,
    make,
    put,
    request,
    who,
)
from tests.support.tracing import untraced


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
        assert owners == {one: shelves.owner_bytes(one) for one in shelves.owner_keys}
        assert all(held <= MODEL_MAX * MODEL_SHARE for held in owners.values())
        used = sum([entry.entry_bytes for _, entry in entries]) + sum(map(len, bodies_held)) + coded
        assert shelves.bytes_used == used + OWNER_OVERHEAD_BYTES * len(owners) <= MODEL_MAX


FormsMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFormsMachine = untraced(FormsMachine.TestCase)


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


def test_the_form_of_the_same_with_another_date_has_that_date() -> None:
    store, dates = make(), [b"Tue, 01 Dec 2026 01:00:0%d GMT" % second for second in (1, 2)]
    for date in dates:
        head = response((b"date", date))
        head.compressible = True
        put(store, request(), head, b"body" * 100)
        found = find(store, request())
        assert found is not None
        if not found.forms:
            form = Form(b"%bContent-Encoding: gzip\r\n" % found.head, b"packed")
            store.forms.attach(who(request()), found, b"gzip", form)
    assert store.stats()["unchanged"] == 1
    assert found is not None
    form = Form(b"%bContent-Encoding: gzip\r\n" % found.head, b"packed")
    assert dates[1] in form.head
    assert found.form(b"gzip") == form
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
    owners_bytes = store.shelves.owner_bytes(who(asked).owner)
    assert owners_bytes <= 50_000
    kept = [body_for(store, request(target=b"/%d" % number)) for number in range(20)]
    assert None not in kept
    assert store.stats()["evicted_share"] > 5
