"""Stored responses as octets for another process: what comes back is what went in, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.base.frames import PAYLOAD_BYTES_MAX
from retter.store import handover
from retter.store.handover import SlotReader, SlotWriter
from retter.store.policy import key_of
from retter.store.record import NEVER, WITHDRAWN, Record, as_stored
from retter.store.write_behind import Found
from tests.store.test_packing import NOW, OWNER, URL, record

Sent = list[tuple[bool, bytes]]


def sent(writer: SlotWriter, key: bytes, *slot: Record, for_disk: bool = False) -> Sent:
    return list(writer.write(key, slot, (5, -7), NOW, for_disk=for_disk))


def taken(reader: SlotReader, said: Sent, stale_s: float = 1000.0) -> tuple[bytes, Found, bool]:
    for is_slot, payload in said:
        if is_slot:
            return reader.take_slot(payload, NOW, stale_s)
        reader.take_piece(payload)
    raise AssertionError("no slot")


@given(
    owner=st.sampled_from([b"", OWNER]),
    bodies=st.lists(st.binary(max_size=50), min_size=1, max_size=3),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    numbers=st.tuples(st.integers(0, 2**56), st.integers(0, 2**56), st.integers(0, 9)),
    others_at=st.sampled_from([NEVER, 0.0, 4000.5]),
)
def test_what_is_sent_comes_back(
    owner: bytes,
    bodies: list[bytes],
    flags: tuple[bool, ...],
    numbers: tuple[int, ...],
    others_at: float,
) -> None:
    key = key_of(owner, URL)
    superseded, incomplete, no_store, for_disk = flags
    slot = [
        record(
            key,
            body=body,
            superseded=superseded,
            incomplete=incomplete,
            no_store=no_store,
            stored_by=numbers[0],
            given_to=numbers[1],
            generation=numbers[2],
            others_at=others_at,
            forms=None,
            variant_key=b"%d" % place,
        )
        for place, body in enumerate(bodies)
    ]
    said = sent(SlotWriter(), key, *slot, for_disk=for_disk)
    assert taken(SlotReader(), said) == (key, Found(tuple(slot), (5, -7)), for_disk)


@given(st.data())
def test_a_slot_with_an_octet_flipped_is_no_other_slot(data: st.DataObject) -> None:
    """Its frame is checked as well (base/frames.py); this is what is left without that."""
    key = key_of(OWNER, URL)
    said = sent(SlotWriter(), key, record(key))
    octets = bytearray(said[-1][1])
    beside = 2 + handover._beside.size
    at = data.draw(st.integers(beside, len(octets) - 1))
    octets[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ValueError, match="slot"):
        taken(SlotReader(), [*said[:-1], (True, bytes(octets))])


def test_equal_bodies_are_sent_once() -> None:
    body, writer, reader = b"x" * 1000, SlotWriter(), SlotReader()
    keys = [key_of(b"", b"a.example/%d" % number) for number in range(3)]
    for key in keys:
        said = sent(writer, key, record(key, body=body))
        assert len(said) == (2 if key == keys[0] else 1)
        _, found, _ = taken(reader, said)
        assert as_stored(found.slot[0]).body == body


def test_what_is_forgotten_is_sent_again() -> None:
    body, writer, reader = b"x" * 1000, SlotWriter(remembers=False), SlotReader(remembers=False)
    key = key_of(b"", URL)
    for _ in range(3):
        said = sent(writer, key, record(key, body=body))
        assert len(said) == 2
        assert as_stored(taken(reader, said)[1].slot[0]).body == body
        assert not reader._bodies and not writer._numbers


def test_a_large_body_goes_in_pieces() -> None:
    body = bytes(range(256)) * 3000
    key = key_of(b"", URL)
    said = sent(SlotWriter(), key, record(key, body=body))
    assert len(said) == 4
    assert max(len(payload) for _, payload in said) < PAYLOAD_BYTES_MAX
    assert as_stored(taken(SlotReader(), said)[1].slot[0]).body == body


def test_pieces_of_two_bodies_do_not_mix() -> None:
    key = key_of(b"", URL)
    body = bytes(handover.PIECE_BYTES + 1)
    pieces = [payload for _, payload in sent(SlotWriter(), key, record(key, body=body))]
    reader = SlotReader()
    reader.take_piece(pieces[0])
    with pytest.raises(ValueError, match="another body"):
        reader.take_piece(handover._piece.pack(2, 1) + b"x")
    with pytest.raises(ValueError, match="no piece"):
        reader.take_piece(b"short")
    with pytest.raises(ValueError, match="body is missing"):
        reader.take_slot(pieces[-1], NOW, 1000.0)
    with pytest.raises(ValueError, match="no slot"):
        reader.take_slot(b"", NOW, 1000.0)


def test_what_may_not_be_served_is_not_given_on() -> None:
    key = key_of(b"", URL)
    gone = record(key, age_max_s=WITHDRAWN, variant_key=b"gone")
    assert taken(SlotReader(), sent(SlotWriter(), key, gone))[1].slot == ()
    good = record(key)
    assert taken(SlotReader(), sent(SlotWriter(), key, gone, good))[1].slot == (good,)
    too_old = taken(SlotReader(), sent(SlotWriter(), key, good), stale_s=9.0)
    assert too_old[1].slot == ()


def test_that_nothing_is_there_any_more_is_told_too() -> None:
    key = key_of(OWNER, URL)
    said = sent(SlotWriter(), key, for_disk=True)
    assert taken(SlotReader(), said) == (key, Found((), ()), True)


def test_heads_that_are_too_long_for_a_frame_are_left_out_with_their_bodies() -> None:
    writer, key = SlotWriter(), key_of(b"", URL)
    body = b"a body of its own"
    huge = record(key, head=b"h" * PAYLOAD_BYTES_MAX, body=body)
    assert sent(writer, key, huge) == []
    said = sent(writer, key, record(key, body=body))
    assert len(said) == 2, "the body was not sent before"
