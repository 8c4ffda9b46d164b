"""The variant under a key that a request selects (RFC 9111 section 4.1).

`secret` is the key of the hash of the fields that Vary names. A request of a rolling session may
get variants up to its generation (lineage.py); all others have generation 0.
"""

from retter.base.hashing import blake2b
from retter.http.message import RequestHead, Soft
from retter.http.variants import likeness, soft_of
from retter.store.policy import Identity
from retter.store.record import (
    GENERATION,
    SOFT,
    VARIANT_KEY,
    VARY,
    VARY_NAMES,
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
    for record in slot:
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
