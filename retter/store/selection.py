"""The variant under a key that a request selects (RFC 9111 section 4.1).

`secret` is the key of the hash of the fields that Vary names. A request of a rolling session may
get variants up to its generation (lineage.py); all others have generation 0.
"""

from typing import Final

from retter.base.hashing import blake2b
from retter.http.message import RequestHead, Soft
from retter.http.variants import (
    ODD_DEVICE,
    accepts_anything,
    key_of_other_browsers,
    keys_of_browsers,
    likeness,
    soft_of,
)
from retter.store.policy import Identity
from retter.store.record import (
    AGE_MAX,
    GENERATION,
    SOFT,
    STATUS,
    VARIANT_KEY,
    VARY,
    VARY_NAMES,
    WITHDRAWN,
    Record,
    StoredResponse,
    as_stored,
)


def select(
    slot: tuple[Record, ...],
    identity: Identity,
    request: RequestHead,
    secret: bytes,
    generation: int = 0,
) -> Record | None:
    """Return the variant that this request selects (RFC 9111 section 4.1).

    Of several, it is the one whose request was most similar.
    """
    best: Record | None = None
    best_likeness = -1
    wanted: Soft | None = None
    variant_key = identity.variant_key
    for record in slot:
        # A look at the first condition of `is_for`, which most entries of others do not meet.
        if record[VARIANT_KEY] != variant_key:
            continue
        if not is_for(record, identity, request, secret, generation):
            continue
        if len(slot) == 1:
            return record
        if wanted is None:
            wanted = soft_of(request)
        alike = likeness(record[SOFT], wanted)
        if alike > best_likeness:
            best, best_likeness = record, alike
    return best


def select_or_near(
    slot: tuple[Record, ...],
    identity: Identity,
    request: RequestHead,
    secret: bytes,
    generation: int = 0,
    shared: bool = False,
) -> Record | None:
    """Return the variant that this request selects, else a 200 that suits it as well.

    A client that accepts anything (curl, a monitor, a library) gets what was stored for a browser:
    by its own word that is acceptable (RFC 9110 section 12.5.1), and better than an error. Not so
    if the response varies by Accept (RFC 9111 section 4.1). A browser gets the page of another one
    that differs in Upgrade-Insecure-Requests alone. Where a response varies by User-Agent or
    Accept-Language, the same kind of device and the same language are enough: there are thousands
    of values, and few kinds of pages. Owner and generation are the same, so nobody sees more than
    with another browser.

    Args:
        shared: The rules for shared caches apply, so Vary must be obeyed exactly.
    """
    record = select(slot, identity, request, secret, generation)
    if record is not None:
        return record
    variant_key = identity.variant_key
    wanted: tuple[bytes, ...]
    if accepts_anything(request, variant_key):
        wanted = (variant_key, *keys_of_browsers(variant_key))
    else:
        other = key_of_other_browsers(variant_key)
        wanted = (variant_key,) if other is None else (variant_key, other)
    soft = soft_of(request)
    near = tuple(
        [
            one
            for one in slot
            if one[VARIANT_KEY] in wanted
            and one[STATUS] == 200
            and one[AGE_MAX] != WITHDRAWN
            and one[GENERATION] <= generation
            and (
                not one[VARY_NAMES]
                or (not shared and _is_of_same_kind(one, soft))
                or one[VARY] == hashed_vary(one[VARY_NAMES], request, secret)
            )
        ]
    )
    if len(near) > 1:
        return max(near, key=lambda one: likeness(one[SOFT], soft))
    return near[0] if near else None


_KNOWN_KINDS: Final = frozenset((b"accept-language", b"user-agent"))


def _is_of_same_kind(record: Record, soft: Soft) -> bool:
    """Return whether a response varies only by language and browser, and these are of one kind.

    Programs and very old browsers are of no kind: each may get something else.
    """
    names: tuple[bytes, ...] = record[VARY_NAMES]
    language, device, _ = record[SOFT]
    return (
        _KNOWN_KINDS.issuperset(names)
        and (b"user-agent" not in names or device == soft[1] != ODD_DEVICE)
        and (b"accept-language" not in names or (bool(language) and language == soft[0]))
    )


def is_for(
    record: Record, identity: Identity, request: RequestHead, secret: bytes, generation: int = 0
) -> bool:
    """Return whether a variant may answer this request, which has that generation."""
    names = record[VARY_NAMES]
    return (
        record[VARIANT_KEY] == identity.variant_key
        and record[GENERATION] <= generation
        and (not names or record[VARY] == hashed_vary(names, request, secret))
    )


def is_same_request(one: Record, other: Record) -> bool:
    """Return whether two variants answer the same requests, language, device and country aside."""
    return bool(
        one[VARIANT_KEY] == other[VARIANT_KEY]
        and one[GENERATION] == other[GENERATION]
        and one[VARY_NAMES] == other[VARY_NAMES]
        and one[VARY] == other[VARY]
    )


def selected(
    slot: tuple[Record, ...] | None,
    identity: Identity,
    request: RequestHead,
    secret: bytes,
    generation: int = 0,
) -> StoredResponse | None:
    """Return the selected variant with named fields; None if there is no slot or no variant."""
    record = None if slot is None else select(slot, identity, request, secret, generation)
    return None if record is None else as_stored(record)


def selected_or_near(
    slot: tuple[Record, ...] | None,
    identity: Identity,
    request: RequestHead,
    secret: bytes,
    generation: int = 0,
    shared: bool = False,
) -> StoredResponse | None:
    """Return the variant of `select_or_near` with named fields."""
    record = (
        None
        if slot is None
        else select_or_near(slot, identity, request, secret, generation, shared)
    )
    return None if record is None else as_stored(record)


def hashed_vary(names: tuple[bytes, ...], request: RequestHead, secret: bytes) -> bytes:
    """Return the keyed hash of the request's values for the fields that Vary names."""
    # Hashed, because Vary may name a field with a credential. `-` and `0:` distinguish an absent
    # field from an empty one.
    values = [
        b"%d:%b" % (len(value), value)
        if (value := request.combined(name))
        else (b"-" if request.first(name) is None else b"0:")
        for name in names
    ]
    return blake2b(b"".join(values), key=secret, digest_size=16).digest()
