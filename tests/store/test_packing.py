"""Stored responses as octets: what comes back is what went in, or nothing."""

from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st

from retter.store.packing import (
    KEY_BYTES,
    Unpacked,
    body_name,
    is_everyones,
    key_of_packed,
    pack,
    pack_body,
    servable,
    slot_key,
    superseded,
    unpack,
    unpack_body,
)
from retter.store.policy import key_of
from retter.store.record import WITHDRAWN, Record, StoredResponse, as_stored, entry_bytes

SITE = b"0123456789abcdef"
OWNER = b"owner-of-16-byte"
URL = b"example.com/" + b"x" * 3000  # longer than a key of LMDB may be
NOW, WALL = 5000.0, 1_700_000_000.0

octets = st.binary(max_size=30)


def name_of(body: bytes) -> bytes:
    return body_name(body, crc32(body), 0)


def with_bodies(found: Unpacked, bodies: list[bytes], now: float) -> tuple[Record, ...]:
    """Return what may still be served of a slot that was unpacked without its bodies."""
    whole = [one._replace(body=body) for one, body in zip(found.variants, bodies, strict=True)]
    return servable(tuple(map(tuple, whole)), now)


def record(key: bytes, **changes: object) -> Record:
    one = StoredResponse(
        status=200, head=b"HTTP/1.1 200 Fine\r\nA: b\r\n", body=b"hello", content_coding=b"gzip",
        etag=b'"1"', last_modified=b"Sun, 06 Nov 1994 08:49:37 GMT", stored_at=NOW - 7.0, age_s=3.0,
        superseded=False, no_store=False, age_max_s=100.0, variant_key=b"s",
        vary_names=(b"a", b"b"),
        vary=b"v" * 16, received_age_s=2, entry_bytes=0, forms=(), public=key.startswith(b"*"),
        soft=(b"en", b"m", b"DE"),
    )._replace(**changes)  # type: ignore[arg-type]  # fmt: skip
    size = entry_bytes(key, one.head, one.etag, one.last_modified, one.variant_key)
    return tuple(one._replace(entry_bytes=size))


@given(
    owner=st.sampled_from([b"", OWNER]),
    bodies=st.lists(st.binary(max_size=50), min_size=1, max_size=3),
    texts=st.tuples(octets, octets, octets, octets, octets),
    numbers=st.tuples(st.integers(200, 308), st.integers(0, 9), st.integers(0, 2**31)),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    marks=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=16),
)
def test_what_is_packed_comes_back(
    owner: bytes,
    bodies: list[bytes],
    texts: tuple[bytes, ...],
    numbers: tuple[int, ...],
    flags: tuple[bool, ...],
    marks: list[int],
) -> None:
    key = key_of(owner, URL)
    coding, etag, modified, variant_key, language = texts
    status, generation, age = numbers
    slot = tuple([
        record(
            key, body=body, content_coding=coding, etag=etag, last_modified=modified,
            variant_key=variant_key,
            soft=(language, b"", b""), status=status, generation=generation, received_age_s=age,
            superseded=flags[0], incomplete=flags[1], forms=() if flags[2] else None,
        )
        for body in bodies
    ])  # fmt: skip
    packed = pack(key, slot, tuple(marks), NOW, WALL, name_of)
    assert [body for _, body in packed.bodies] == bodies
    found = unpack(packed.data, NOW, WALL, 1000.0)
    assert found is not None
    assert (found.key, found.marks) == (key, tuple(marks))
    assert with_bodies(found, bodies, NOW) == slot
    assert key_of_packed(packed.data) == key


def test_a_slot_is_found_by_a_key_that_is_short_and_begins_with_the_owner() -> None:
    mine, public = slot_key(key_of(OWNER, URL), SITE), slot_key(key_of(b"", URL), SITE)
    assert len(mine) == len(public) == KEY_BYTES
    assert mine.startswith(OWNER)
    assert is_everyones(public) and not is_everyones(mine)
    assert slot_key(key_of(b"", URL), SITE[::-1]) != public  # nobody can make two of them meet


def test_what_said_no_store_is_not_packed() -> None:
    key = key_of(b"", URL)
    slot = (record(key, no_store=True, body=b"secret"), record(key, body=b"fine"))
    packed = pack(key, slot, (), NOW, WALL, name_of)
    assert [body for _, body in packed.bodies] == [b"fine"]
    assert b"secret" not in packed.data
    assert pack(key, slot[:1], (), NOW, WALL, name_of) == (b"", ())


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_seen(at: int, bit: int) -> None:
    key = key_of(b"", b"a.b/")
    data = bytearray(pack(key, (record(key),), (1,), NOW, WALL, name_of).data)
    data[at % len(data)] ^= 1 << bit
    assert unpack(bytes(data), NOW, WALL, 1000.0) is None
    body = bytearray(pack_body(b"hello, body", crc32(b"hello, body")))
    body[at % len(body)] ^= 1 << bit
    assert unpack_body(memoryview(bytes(body)), 11) is None


@given(data=st.binary(max_size=300), cut=st.integers(0, 200))
def test_nothing_that_is_read_raises(data: bytes, cut: int) -> None:
    key = key_of(b"", b"a.b/")
    whole = pack(key, (record(key),), (1,), NOW, WALL, name_of).data
    assert unpack(whole[: cut % len(whole)], NOW, WALL, 1.0) is None
    assert unpack(data, NOW, WALL, 1.0) is None
    assert superseded(data) == b""
    key_of_packed(data)
    if len(data) < 4:
        assert unpack_body(memoryview(data), 0) is None


def test_a_body_of_another_length_is_none() -> None:
    packed = memoryview(pack_body(b"hello", crc32(b"hello")))
    assert unpack_body(packed, 5) == b"hello"
    assert unpack_body(packed, 4) is None


def test_ages_are_those_of_the_wall_clock() -> None:
    key = key_of(b"", b"a.b/")
    data = pack(key, (record(key),), (), NOW, WALL, name_of).data  # 7 s ago, and 3 s old then
    later = unpack(data, 20.0, WALL + 50.0, 1000.0)  # another process, with another clock
    assert later is not None
    assert later.variants[0].age(20.0) == 60.0


def test_a_time_in_the_future_counts_as_now() -> None:
    """The clock has been set back, or this machine has none and begins in 1970."""
    key = key_of(b"", b"a.b/")
    data = pack(key, (record(key),), (), NOW, WALL, name_of).data
    for wall in (WALL - 3600.0, 0.0):
        found = unpack(data, 20.0, wall, 1000.0)
        assert found is not None
        assert found.variants[0].age(20.0) == 3.0
        assert with_bodies(found, [b"hello"], 20.0)


def test_a_clock_that_has_jumped_ahead_makes_it_too_old() -> None:
    key = key_of(b"", b"a.b/")
    data = pack(key, (record(key),), (), NOW, WALL, name_of).data
    found = unpack(data, 20.0, WALL + 1e9, 1000.0)
    assert found is not None
    assert with_bodies(found, [b"hello"], 20.0) == ()


def test_a_shorter_max_stale_holds_for_what_is_there() -> None:
    key = key_of(b"", b"a.b/")
    data = pack(key, (record(key, age_max_s=1e6),), (), NOW, WALL, name_of).data
    found = unpack(data, NOW, WALL, 9.0)  # it is 10 s old
    assert found is not None
    assert with_bodies(found, [b"hello"], NOW) == ()


def test_what_the_application_has_taken_back_stays_taken_back() -> None:
    key = key_of(b"", b"a.b/")
    data = pack(key, (record(key, age_max_s=WITHDRAWN),), (), NOW, WALL, name_of).data
    found = unpack(data, NOW, WALL, 1000.0)
    assert found is not None
    assert with_bodies(found, [b"hello"], NOW) == ()


def test_superseding_marks_every_variant_and_changes_nothing_else() -> None:
    key = key_of(OWNER, URL)
    slot = (record(key, body=b"1"), record(key, body=b"22", etag=b"", superseded=True))
    data = superseded(pack(key, slot, (7, -7), NOW, WALL, name_of).data)
    found = unpack(data, NOW, WALL, 1000.0)
    assert found is not None
    expected = tuple([tuple(as_stored(one)._replace(superseded=True)) for one in slot])
    assert with_bodies(found, [b"1", b"22"], NOW) == expected
