"""Stored responses as octets for a disk, and back.

One packed slot is a key with all its variants: their numbers, heads and the hashes of their
bodies, under one checksum. Bodies are packed separately, by their hash, so that equal ones are
written once. If data do not verify, the result is None and never an exception, because a disk may
return anything.

Ages are kept in wall time, since monotonic seconds have no meaning for the next process. `wall` is
seconds since the epoch and `now` is monotonic seconds, both of the same moment.
"""

from collections.abc import Callable
from hashlib import blake2b, sha256
from math import inf, isfinite
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple
from zlib import crc32

from retter.store.owner import OWNER_BYTES
from retter.store.policy import key_parts
from retter.store.record import (
    AGE,
    AGE_MAX,
    ENTRY_OVERHEAD_BYTES,
    NEVER,
    NO_STORE,
    STORED_AT,
    WITHDRAWN,
    Record,
    StoredResponse,
    as_stored,
)

# The format of the whole database, and how its owners and marks are hashed (owner.py). A database
# with another version is set aside: nobody's pages could be found in it, and no logout could drop
# them. 2: the secret is the beginning of what is hashed.
FORMAT_VERSION: Final = 2

HASH_BYTES: Final = 16  # 128 bits, keyed: nobody can make two URLs with one hash
KEY_BYTES: Final = OWNER_BYTES + HASH_BYTES  # of a packed slot; LMDB allows 511 at most

# Returns a body for its name and length; None if it does not verify.
BodyOf = Callable[[bytes, int], bytes | None]

_EVERYONE: Final = bytes(OWNER_BYTES)
_PUBLIC: Final = b"*"  # begins the key of a public entry (policy.py)
_NO_SOFT: Final = (b"", b"", b"")

_checksum = Struct("<I")
CHECKSUM_BYTES: Final = 4  # before each packed slot and body
AFTER_CHECKSUM: Final = slice(CHECKSUM_BYTES, None)
_slot = Struct("<BBBxI")  # format, variants, marks, length of the key
_name = Struct("<IIII")
_begin = Struct("<IBBBxI")  # the checksum and these
_mark = Struct("<q")
# status, flags, stored at (wall), age, age_max, received age, generation, lengths: body, head,
# etag, last_modified, variant key, vary names, coding, vary, three of soft
_variant = Struct("<HBxdddIIIIIIIIHHHHH16s")
_SUPERSEDED, _INCOMPLETE, _COMPRESSIBLE, _WITHDRAWN = 1, 2, 4, 8

# If a received Age or a generation is larger, the entry is not kept.
_NUMBER_MAX: Final = 2**32 - 1

# What is stored so much later than now was stored while the clock was wrong. It is set by less than
# that all the time.
FUTURE_S: Final = 60.0


class Packed(NamedTuple):
    """A slot for the disk."""

    data: bytes
    bodies: tuple[tuple[bytes, bytes], ...]  # hash and body of each variant


class UnpackedSlot(NamedTuple):
    """A slot from the disk."""

    key: bytes
    marks: tuple[int, ...]
    variants: tuple[Record, ...]
    data: bytes  # as it was packed


class Unpacked(NamedTuple):
    """A slot from the disk, without its bodies."""

    key: bytes
    marks: tuple[int, ...]
    variants: tuple[StoredResponse, ...]  # with the hash instead of the body
    body_lengths: tuple[int, ...]


def slot_key(key: bytes, site_key: bytes) -> bytes:
    """Return the key on disk for a store key: the owner and the hash of the URL.

    The owner comes first, so that all entries of one owner are next to each other.
    """
    owner, url = key_parts(key)
    return (owner or _EVERYONE) + blake2b(url, key=site_key, digest_size=HASH_BYTES).digest()


def is_everyones(packed_key: bytes) -> bool:
    """Return whether a slot belongs to everyone, and not to an owner."""
    return packed_key.startswith(_EVERYONE)


def body_name(body: bytes, checksum: int, number: int) -> bytes:
    """Return a name for a body on disk; different bodies may have the same.

    A hash of the whole body, with which this could not happen, takes 8 us for 12 KiB: as long as
    all the rest of writing it. So the writer compares the bodies.

    Args:
        number: The number of bodies that have the same checksum and length.
    """
    return _name.pack((checksum + number) & 0xFFFFFFFF, len(body), checksum, number)


def body_hash(body: bytes, site_key: bytes) -> bytes:
    """Return the keyed hash of a body, for one that has no other name."""
    # SHA-256 takes half the time of BLAKE2 for 12 KiB, since processors have instructions for it.
    # As the hash is truncated, a prefix is enough to key it.
    hasher = sha256(site_key)
    hasher.update(body)
    return hasher.digest()[:HASH_BYTES]


def may_be_kept(record: Record) -> bool:
    """Return whether a response may be on disk: not one with no-store (RFC 9111 5.2.2.5)."""
    return not record[NO_STORE]


def pack(
    key: bytes,
    slot: tuple[Record, ...],
    marks: tuple[int, ...],
    now: float,
    wall: float,
    name_of: Callable[[bytes], bytes],
) -> Packed:
    """Pack the variants of a key that may be kept; if there are none, the data are empty.

    Args:
        name_of: Returns the name of a body, of HASH_BYTES. It is called once for each variant.
    """
    pieces: list[bytes] = []
    bodies: list[tuple[bytes, bytes]] = []
    for record in slot:
        (
            status, head, body, coding, etag, last_modified, stored_at, age_s, superseded,
            no_store, age_max_s, variant_key, vary_names, vary, received_age_s, _,
            forms, incomplete, _, (soft_0, soft_1, soft_2), generation, *_,
        ) = record  # fmt: skip
        if no_store or received_age_s > _NUMBER_MAX or generation > _NUMBER_MAX:
            continue
        if max(len(coding), len(vary), len(soft_0), len(soft_1), len(soft_2)) > 0xFFFF:
            continue
        name = name_of(body)
        flags = (
            _SUPERSEDED * superseded
            | _INCOMPLETE * incomplete
            | _COMPRESSIBLE * (forms is not None)
            | _WITHDRAWN * (age_max_s == WITHDRAWN)
        )
        names = b",".join(vary_names)
        pieces += (
            _variant.pack(
                status, flags, wall - (now - stored_at), age_s, age_max_s, received_age_s,
                generation, len(body), len(head), len(etag), len(last_modified), len(variant_key),
                len(names), len(coding), len(vary), len(soft_0), len(soft_1), len(soft_2), name,
            ),
            head, etag, last_modified, variant_key, names, coding, vary, soft_0, soft_1, soft_2,
        )  # fmt: skip
        bodies.append((name, body))
    if not bodies:
        return Packed(b"", ())
    data = b"".join(
        [
            _slot.pack(FORMAT_VERSION, len(bodies), len(marks), len(key)),
            key,
            *[_mark.pack(mark) for mark in marks],
            *pieces,
        ]
    )
    return Packed(_checksum.pack(crc32(data)) + data, tuple(bodies))


def unpack(data: bytes, now: float, wall: float, max_stale_s: float) -> Unpacked | None:
    """Return the unpacked slot without its bodies; None if the data do not verify."""
    lengths: list[int] = []

    def name_of(name: bytes, length: int) -> bytes:
        lengths.append(length)
        return name

    unpacked = unpack_slot(data, now, wall, max_stale_s, name_of)
    if unpacked is None:
        return None
    return Unpacked(*unpacked[:2], tuple(map(as_stored, unpacked.variants)), tuple(lengths))


def unpack_slot(
    data: bytes, now: float, wall: float, max_stale_s: float, body_of: BodyOf
) -> UnpackedSlot | None:
    """Return the unpacked slot; None if the data or a body do not verify.

    A time in the future counts as now: the clock has been set back since then, or it was wrong
    then. `max_stale_s` limits the age up to which each variant may be served.
    """
    try:
        return _unpack(data, now, wall, max_stale_s, body_of)
    except (StructError, IndexError, ValueError, OverflowError):
        return None


def _unpack(
    data: bytes, now: float, wall: float, max_stale_s: float, body_of: BodyOf
) -> UnpackedSlot | None:
    checksum, version, count, marked, key_length = _begin.unpack_from(data)
    if crc32(memoryview(data)[4:]) != checksum or version != FORMAT_VERSION:
        return None
    at = _begin.size + key_length
    key = data[_begin.size : at]
    marks: tuple[int, ...] = ()
    if marked:
        marks = tuple([_mark.unpack_from(data, at + 8 * number)[0] for number in range(marked)])
        at += 8 * marked
    if count == 1:  # mostly
        one = _variant_at(data, at, key, now, wall, max_stale_s, body_of)
        return None if one is None else UnpackedSlot(key, marks, (one[0],), data)
    variants: list[Record] = []
    for _ in range(count):
        one = _variant_at(data, at, key, now, wall, max_stale_s, body_of)
        if one is None:
            return None
        record, at = one
        variants.append(record)
    return UnpackedSlot(key, marks, tuple(variants), data)


def _variant_at(
    data: bytes, at: int, key: bytes, now: float, wall: float, max_stale_s: float, body_of: BodyOf
) -> tuple[Record, int] | None:
    """Return the variant at a place in a packed slot, and the place after it."""
    # Written line by line: a list of the texts takes twice as long, and each hit does this.
    (
        status, flags, stored_wall, age_s, age_max_s, received_age_s, generation, body_length,
        head_length, etag_length, modified_length, variant_length, names_length,
        coding_length, vary_length, soft_0, soft_1, soft_2, name,
    ) = _variant.unpack_from(data, at)  # fmt: skip
    at += _variant.size
    head = data[at : (at := at + head_length)]
    etag = data[at : (at := at + etag_length)]
    last_modified = data[at : (at := at + modified_length)]
    variant_key = data[at : (at := at + variant_length)]
    names: tuple[bytes, ...] = ()
    coding, vary, soft = b"", b"", _NO_SOFT
    if names_length or coding_length or vary_length:
        text = data[at : (at := at + names_length)]
        names = tuple(text.split(b",")) if text else ()
        coding = data[at : (at := at + coding_length)]
        vary = data[at : (at := at + vary_length)]
    if soft_0 or soft_1 or soft_2:
        soft = (
            data[at : (at := at + soft_0)],
            data[at : (at := at + soft_1)],
            data[at : (at := at + soft_2)],
        )
    body = body_of(name, body_length)
    if body is None or at > len(data) or not isfinite(stored_wall + age_s):
        return None
    ago_s = wall - stored_wall
    if flags & _WITHDRAWN:
        age_max_s = WITHDRAWN
    elif age_max_s > max_stale_s:
        age_max_s = max_stale_s
    texts_bytes = len(key) + head_length + etag_length + modified_length + variant_length
    record: Record = (
        status, head, body, coding, etag, last_modified,
        now - ago_s if ago_s > 0.0 else now, age_s,
        flags & _SUPERSEDED > 0, False, age_max_s, variant_key, names, vary, received_age_s,
        ENTRY_OVERHEAD_BYTES + texts_bytes,  # entry_bytes(), inlined
        () if flags & _COMPRESSIBLE else None, flags & _INCOMPLETE > 0, key[:1] == _PUBLIC,
        soft, generation, 0, 0, NEVER, 0,
    )  # fmt: skip
    return record, at


def bodies_of_packed(data: bytes) -> list[tuple[bytes, int]]:
    """Return names and lengths of the bodies of a packed slot; none if it is damaged."""
    try:
        if crc32(memoryview(data)[4:]) != _checksum.unpack_from(data)[0]:
            return []
        _, count, marked, key_length = _slot.unpack_from(data, 4)
        at = 4 + _slot.size + key_length + 8 * marked
        hashes: list[tuple[bytes, int]] = []
        for _ in range(count):
            numbers = _variant.unpack_from(data, at)
            hashes.append((numbers[-1], numbers[7]))
            at += _variant.size + sum(numbers[8:-1])
    except StructError:
        return []
    return hashes


class PackedVariant(NamedTuple):
    """A variant of a packed slot."""

    record: Record  # with the name in place of the body
    body_bytes: int
    data: bytes  # as it is packed


def variants_of_packed(data: bytes, now: float, wall: float) -> list[PackedVariant]:
    """Return the variants of a packed slot that may be served; none if it is damaged."""
    found: list[PackedVariant] = []
    unpacked = unpack(data, now, wall, inf)
    if unpacked is None:
        return found
    at = CHECKSUM_BYTES + _slot.size + len(unpacked.key) + 8 * len(unpacked.marks)
    for stored, length in zip(unpacked.variants, unpacked.body_lengths, strict=True):
        end = at + _variant.size + sum(_variant.unpack_from(data, at)[8:-1])
        if servable((tuple(stored),), now):
            found.append(PackedVariant(tuple(stored), length, data[at:end]))
        at = end
    return found


def with_variants(data: bytes, more: list[PackedVariant]) -> bytes:
    """Return a packed slot with further variants at its end."""
    version, count, marked, key_length = _slot.unpack_from(data, CHECKSUM_BYTES)
    joined = b"".join(
        [
            _slot.pack(version, count + len(more), marked, key_length),
            data[CHECKSUM_BYTES + _slot.size :],
            *[one.data for one in more],
        ]
    )
    return _checksum.pack(crc32(joined)) + joined


def key_of_packed(data: bytes | memoryview) -> bytes:
    """Return the key of a packed slot, unverified; empty if it is damaged."""
    try:
        length = _slot.unpack_from(data, 4)[3]
    except StructError:
        return b""
    at = 4 + _slot.size
    return bytes(data[at : at + length])


def newest_of_packed(data: bytes) -> tuple[bytes, float] | None:
    """Return the key of a packed slot, and when its first variant was stored (wall), unverified.

    None if it is damaged.
    """
    try:
        _, _, marked, length = _slot.unpack_from(data, CHECKSUM_BYTES)
        at = CHECKSUM_BYTES + _slot.size
        stored_wall: float = _variant.unpack_from(data, at + length + 8 * marked)[2]
    except StructError:
        return None
    return (data[at : at + length], stored_wall) if isfinite(stored_wall) else None


def superseded(data: bytes) -> bytes:
    """Return a packed slot whose variants are all marked as superseded; empty if it is damaged."""
    unpacked = unpack(data, 0.0, 0.0, 0.0)
    if unpacked is None:
        return b""
    changed = bytearray(data)
    at = 4 + _slot.size + len(unpacked.key) + 8 * len(unpacked.marks)
    for _ in unpacked.variants:
        changed[at + 2] |= _SUPERSEDED
        numbers = _variant.unpack_from(changed, at)
        at += _variant.size + sum(numbers[8:-1])
    changed[:4] = _checksum.pack(crc32(memoryview(changed)[4:]))
    return bytes(changed)


def without_future(data: bytes, wall: float) -> bytes:
    """Return a packed slot whose variants that are stored in the future are stored now.

    Empty if there is none, or if it is damaged.
    """
    unpacked = unpack(data, 0.0, wall, 0.0)
    if unpacked is None:
        return b""
    changed, found = bytearray(data), False
    at = CHECKSUM_BYTES + _slot.size + len(unpacked.key) + 8 * len(unpacked.marks)
    for _ in unpacked.variants:
        status, flags, stored_wall, *numbers = _variant.unpack_from(changed, at)
        if stored_wall > wall + FUTURE_S:
            _variant.pack_into(changed, at, status, flags, wall, *numbers)
            found = True
        at += _variant.size + sum(numbers[5:-1])
    if not found:
        return b""
    changed[:CHECKSUM_BYTES] = _checksum.pack(crc32(memoryview(changed)[CHECKSUM_BYTES:]))
    return bytes(changed)


def servable(variants: tuple[Record, ...], now: float) -> tuple[Record, ...]:
    """Return the variants that may still be served."""
    # A withdrawn one has an age limit below zero.
    if len(variants) == 1:
        one = variants[0]
        return variants if now - one[STORED_AT] + one[AGE] <= one[AGE_MAX] else ()
    return tuple([one for one in variants if now - one[STORED_AT] + one[AGE] <= one[AGE_MAX]])


def pack_body(body: bytes, checksum: int) -> bytes:
    """Return a body with its checksum (CRC-32) before it."""
    return _checksum.pack(checksum) + body


def unpack_body(
    data: memoryview, length: int, checksum: Callable[[bytes | memoryview], int] = crc32
) -> bytes | None:
    """Return a packed body; None if it does not verify.

    Args:
        checksum: A faster function with the same result as zlib's, if there is one.
    """
    if len(data) != CHECKSUM_BYTES + length:
        return None
    body = data[AFTER_CHECKSUM].tobytes()  # a third of the time that bytes() takes
    return body if checksum(body) == _checksum.unpack_from(data)[0] else None
