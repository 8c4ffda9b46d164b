"""Stored responses as values at the server, and back.

An entry holds the heads of all variants of a key, packed as for a disk (packing.py), and the place
in the order of changes that its box had heard of. A body has a name of its own, its keyed hash, so
equal bodies are there once. `wall` is seconds since the epoch by the server's clock.
"""

import zlib
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import PathFinder
from math import ceil
from typing import Any, Final, NamedTuple

from retter.far.changes import PLACE_BYTES
from retter.far.keys import Keys
from retter.store.packing import Unpacked, body_hash, pack, servable, unpack
from retter.store.record import AGE_MAX, BODY, CODING, Record, as_stored
from retter.store.write_behind import Slot

# Smaller bodies stay as they are: an entry of this size is one packet either way.
COMPRESSED_BYTES_MIN: Final = 512

# A format that every box can read. zlib has it in the standard library, and ISA-L makes the same
# 3.6 times as fast. zstd would take 4 % less room, but Python has it only since 3.14.
_PLAIN, _DEFLATED = b"\0", b"\1"


class Packed(NamedTuple):
    """The responses under a key, ready for the server."""

    name: bytes
    value: bytes
    bodies: tuple[tuple[bytes, bytes, bool], ...]  # hash, body, whether it may be compressed
    ttl_s: int  # after that none of them may be served any more


class Opened(NamedTuple):
    """The responses under a key, from the server."""

    heard: bytes  # the place of the last change that its box knew
    found: Unpacked


def deflater() -> Callable[[bytes], bytes]:
    """Return the fastest function here that compresses to zlib's format."""
    if PathFinder.find_spec("isal") is not None:
        isal: Any = import_module("isal.isal_zlib")
        return lambda body: bytes(isal.compress(body, 1))
    return lambda body: zlib.compress(body, 1)


def packed(
    keys: Keys,
    key: bytes,
    slot: Slot,
    marks: tuple[int, ...],
    heard: bytes,
    now: float,
    wall: float,
) -> Packed | None:
    """Return the value for the responses under a key; None if none of them may be shared."""
    made = pack(key, slot, marks, now, wall, lambda body: body_hash(body, keys.bodies))
    ttl_s = ceil(max([_left_s(one, now) for one in slot], default=0.0))
    if not made.data or ttl_s <= 0:
        return None
    plain = {body_hash(one[2], keys.bodies) for one in slot if not one[CODING]}
    bodies = {name: (name, body, name in plain) for name, body in made.bodies}
    name = keys.entry(key)
    return Packed(name, keys.seal(name, heard + made.data), tuple(bodies.values()), ttl_s)


def _left_s(record: Record, now: float) -> float:
    left_s: float = record[AGE_MAX] - as_stored(record).age(now)
    return left_s


def opened(
    keys: Keys, key: bytes, value: bytes, now: float, wall: float, max_stale_s: float
) -> Opened | None:
    """Return the responses that a value holds for a key; None if it was not made for it."""
    data = keys.opened(keys.entry(key), value)
    if data is None:
        return None
    found = unpack(data[PLACE_BYTES:], now, wall, max_stale_s)
    if found is None or found.key != key:
        return None
    return Opened(data[:PLACE_BYTES], found)


def with_bodies(found: Unpacked, bodies: list[bytes], now: float) -> Slot:
    """Return the variants that may still be served, with their bodies."""
    variants = [
        (*one[:BODY], body, *one[BODY + 1 :])
        for one, body in zip(found.variants, bodies, strict=True)
    ]
    return servable(tuple(variants), now)


def packed_body(
    keys: Keys, name: bytes, body: bytes, compress: Callable[[bytes], bytes] | None
) -> bytes:
    """Return the value for a body.

    Args:
        compress: None if the body is coded already.
    """
    data = _PLAIN + body
    if compress is not None and len(body) >= COMPRESSED_BYTES_MIN:
        smaller = _DEFLATED + compress(body)
        data = min(data, smaller, key=len)
    return keys.seal(keys.body(name), data)


def opened_body(keys: Keys, name: bytes, value: bytes, length: int) -> bytes | None:
    """Return the body that a value holds; None if that is not the one with this name."""
    data = keys.opened(keys.body(name), value)
    if data is None:
        return None
    body = data[1:]
    if data[:1] == _DEFLATED:
        try:
            body = zlib.decompressobj().decompress(body, length + 1)
        except zlib.error:
            return None
    return body if len(body) == length else None
