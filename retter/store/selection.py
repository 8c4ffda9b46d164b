"""Which of the variants under one key a request selects (RFC 9111 section 4.1).

`secret` keys the hash of what Vary names. A request of a rolling session reads up to its
generation (lineage.py); all others have generation 0.
"""

from hashlib import blake2b

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

    Of several the one that was made for what is most like it.
    """
    best: Record | None = None
    best_likeness = -1
    wanted: Soft | None = None
    for found in slot:
        if not is_for(found, identity, request, secret, generation):
            continue
        if len(slot) == 1:
            return found
        if wanted is None:
            wanted = soft_of(request)
        alike = likeness(found[SOFT], wanted)
        if alike > best_likeness:
            best, best_likeness = found, alike
    return best


def is_for(
    record: Record, identity: Identity, request: RequestHead, secret: bytes, generation: int = 0
) -> bool:
    """Return whether a variant may answer this request, which reads up to that generation."""
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
    """Do the same where there may be nothing, and return it with names."""
    found = None if slot is None else select(slot, identity, request, secret, generation)
    return None if found is None else as_stored(found)


def hashed_vary(names: tuple[bytes, ...], request: RequestHead, secret: bytes) -> bytes:
    """Return the keyed hash of what a request says in the fields that Vary names."""
    # Hashed, because Vary may name a field with a credential in it. The last mark tells an
    # absent field from an empty one.
    values = [
        b"%d:%b" % (len(value), value)
        if (value := request.combined(name))
        else (b"-" if request.first(name) is None else b"0:")
        for name in names
    ]
    return blake2b(b"".join(values), key=secret, digest_size=16).digest()
