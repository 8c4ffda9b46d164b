"""Entries that a new response replaces: an equal one, variants of its key, evicted variants."""

from retter.http.head_edit import differ_only_in_times, with_times_of
from retter.http.message import RequestHead, ResponseHead, Soft
from retter.http.variants import is_plain
from retter.store.accounting import Shelves
from retter.store.policy import Identity
from retter.store.record import (
    AGE_MAX,
    BODY,
    HEAD,
    SOFT,
    STORED_BY,
    VARIANT_KEY,
    VARY_NAMES,
    WITHDRAWN,
    Facts,
    Form,
    Record,
)
from retter.store.selection import is_for


def given_again(
    slot: tuple[Record, ...],
    identity: Identity,
    response: ResponseHead,
    body: bytes,
    facts: Facts,
    age_s: float,
    now: float,
    superseded: bool,
    incomplete: bool,
    client: int,
) -> Record | None:
    """Return the updated record if the new response is equal to the only one of its key, or None.

    Age, Date and Expires are not compared: most applications send another Date each second. The
    record gets the new head object, which other responses may share.
    """
    # All fields in their order (StoredResponse): to take the record apart and to put another one
    # together saves 5,000 of 78,000 instructions of the processor, beside slices of it.
    (
        status, old_head, kept, coding, etag, last_modified, stored_at, _, _, no_store, age_max_s,
        variant_key, vary_names, vary, _, size, forms, was_incomplete, public, soft, generation,
        stored_by, given_to, others_at, _,
    ) = slot[0]  # fmt: skip
    head = response.stored
    if not (
        kept == body
        and len(slot) == 1
        and not vary_names
        and variant_key == identity.variant_key
        and was_incomplete is incomplete
        # New settings may have changed these.
        and age_max_s == facts.age_max_s
        and ((forms is None) is not response.compressible or coding)
    ):
        return None
    if old_head is not head and old_head != head:
        if not differ_only_in_times(old_head, head):
            return None
        if forms:
            forms = tuple([(name, _of_time(form, head)) for name, form in forms])
    return (
        status, head, kept, coding, etag, last_modified, now, age_s, superseded, no_store,
        age_max_s, variant_key, vary_names, vary, facts.received_age_s, size, forms, incomplete,
        public, soft, generation, stored_by, client,
        others_at if given_to == client else stored_at, identity.asked,
    )  # fmt: skip


def _of_time(form: Form, head: bytes) -> Form:
    return Form(with_times_of(form.head, head), form.body)


def without_replaced(
    shelves: Shelves,
    slot: tuple[Record, ...],
    identity: Identity,
    request: RequestHead,
    response: ResponseHead,
    body: bytes,
    soft: Soft,
    generation: int,
    secret: bytes,
) -> tuple[Record, ...]:
    """Release the variants that a new response replaces; return the others.

    These are the variant for the same language, device and country, and the variants that are
    equal to the new response: the response does not depend on these three, then.
    """
    only = slot[0]
    if (
        len(slot) == 1
        and only[SOFT] == soft
        and is_for(only, identity, request, secret, generation)
    ):
        shelves.release(identity.owner, only)  # nearly always the case
        return ()
    kept: list[Record] = []
    for record in slot:
        replaced = record[AGE_MAX] == WITHDRAWN or (
            is_for(record, identity, request, secret, generation)
            and (record[SOFT] == soft or (record[BODY] == body and record[HEAD] == response.stored))
        )
        if replaced:
            shelves.release(identity.owner, record)
        else:
            kept.append(record)
    return tuple(kept)


def victims(others: tuple[Record, ...], variants_max: int, stored_by: int) -> list[Record]:
    """Return the variants of a key that are evicted to make room for one more.

    The least recently used one is evicted. If a client has stored several, it is one of the client
    that has stored most. It is not the plain one, which most visitors request, unless all are.
    """
    going: list[Record] = []
    kept = list(others)
    while len(kept) >= variants_max:
        able = [
            record for record in kept if record[VARY_NAMES] or not is_plain(record[VARIANT_KEY])
        ] or kept
        held = [_held(able, record, stored_by) for record in able]
        _, last = max(zip(held, range(len(held)), strict=True))
        going.append(able[last])
        kept = [record for record in kept if record is not able[last]]
    return going


def _held(records: list[Record], record: Record, newcomer: int) -> int:
    """Return how many of the variants, and of the new one, the client of this variant stored."""
    client: int = record[STORED_BY]
    if not client:
        return 1
    theirs = [one for one in records if one[STORED_BY] == client]
    return len(theirs) + (client == newcomer)
