"""The variants of a key that a new response replaces, and the one that makes room for it."""

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
    Record,
)
from retter.store.selection import is_for


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

    These are the one made for the same language, device and country, and those that turn out
    to be equal to it: nothing depends on these, then.
    """
    only = slot[0]
    if (
        len(slot) == 1
        and only[SOFT] == soft
        and is_for(only, identity, request, secret, generation)
    ):
        shelves.release(identity.owner, only)  # nearly always
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
    """Return the variants of a key that make room for one more.

    The least recently used one goes: of the client that has most of them, if one has several,
    and never the plain one, which most visitors want.
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
    """Return how many of the variants are of this one's client, the new one included."""
    client: int = record[STORED_BY]
    if not client:
        return 1
    theirs = [one for one in records if one[STORED_BY] == client]
    return len(theirs) + (client == newcomer)
