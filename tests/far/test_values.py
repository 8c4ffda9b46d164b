"""Names, seals and records: what stands at the server, and what is believed of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.far import keys
from retter.far.changes import NO_PLACE, Message, id_of, message_of, place_of
from retter.far.keys import SEAL_BYTES, STEP_BYTES, Keys
from retter.far.records import deflater, opened, opened_body, packed, packed_body, with_bodies
from retter.store.packing import FORMAT_VERSION
from retter.store.write_behind import Purge, Removals
from tests.store.test_packing import record
from tests.support.far import SECRET

NOW, WALL = 1000.0, 1_700_001_000.0
OWNED = b"@" + b"o" * 16 + b"a.b/account"
PUBLIC = b"*a.b/"
KEYS = Keys(SECRET)


def test_the_same_secret_makes_the_same_keys_and_another_one_other_keys() -> None:
    again, other = Keys(SECRET), Keys(SECRET + b"4")
    assert (KEYS.owner, KEYS.public, KEYS.prefix) == (again.owner, again.public, again.prefix)
    assert KEYS.entry(PUBLIC) == again.entry(PUBLIC)
    assert len({KEYS.owner, KEYS.public, KEYS.tickets, other.owner, other.public}) == 5
    assert KEYS.prefix != other.prefix


def test_boxes_that_hash_owners_otherwise_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logout at one of them could not drop the pages of the other."""
    monkeypatch.setattr(keys, "FORMAT_VERSION", FORMAT_VERSION + 1)
    other = Keys(SECRET)
    assert KEYS.prefix.startswith(b"retter:1:{")  # an access list names it
    assert other.prefix.startswith(b"retter:1:{")
    assert KEYS.prefix != other.prefix
    assert KEYS.owner != other.owner
    names = (KEYS.entry(OWNED), KEYS.dropped(OWNED), KEYS.superseded(OWNED), KEYS.body(b"b" * 16))
    assert all(name.startswith(KEYS.prefix) for name in names)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        Keys(b"short")


def test_all_names_have_one_hash_tag_and_show_nothing() -> None:
    names = [KEYS.entry(OWNED), KEYS.dropped(OWNED), KEYS.superseded(OWNED), KEYS.body(b"b" * 16)]
    for name in names:
        assert name.startswith(KEYS.prefix) and name.count(b"{") == 1
        assert b"account" not in name and b"oooo" not in name
    assert len(set(names)) == 4


def test_boxes_with_other_rules_use_other_names_for_responses_and_hear_the_same_changes() -> None:
    strict, lax = Keys(SECRET), Keys(SECRET)
    strict.follow(b'{"ignore_cookies": []}')
    lax.follow(b'{"ignore_cookies": ["theme"]}')
    assert strict.entry(PUBLIC) != lax.entry(PUBLIC)
    assert strict.dropped(PUBLIC) == lax.dropped(PUBLIC)


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_what_is_sealed_can_be_opened_under_its_name_alone(data: bytes, name: bytes) -> None:
    value = KEYS.seal(name, data)
    assert len(value) == SEAL_BYTES + len(data)
    assert KEYS.opened(name, value) == data
    assert KEYS.opened(name + b"x", value) is None
    assert Keys(SECRET + b"4").opened(name, value) is None


@given(st.binary(max_size=100), st.data())
def test_a_changed_value_does_not_exist(data: bytes, draws: st.DataObject) -> None:
    value = bytearray(KEYS.seal(b"name", data))
    at = draws.draw(st.integers(0, len(value) - 1))
    value[at] ^= 1 << draws.draw(st.integers(0, 7))
    assert KEYS.opened(b"name", bytes(value)) is None
    assert KEYS.opened(b"name", bytes(value[: len(value) // 2])) is None


def test_what_takes_several_steps_has_no_keystream_twice() -> None:
    data = bytes(3 * STEP_BYTES + 7)
    value = KEYS.seal(b"name", data)
    assert KEYS.opened(b"name", value) == data
    hidden = value[SEAL_BYTES:]
    steps = {hidden[at : at + STEP_BYTES][:7] for at in range(0, len(hidden), STEP_BYTES)}
    assert len(hidden) == len(data) and len(steps) == 4


def test_two_seals_of_the_same_octets_have_nothing_in_common() -> None:
    one, two = KEYS.seal(b"name", bytes(64)), KEYS.seal(b"name", bytes(64))
    assert one[SEAL_BYTES:] != two[SEAL_BYTES:] and one[:16] != two[:16]


@pytest.mark.parametrize("key", [OWNED, PUBLIC])
@pytest.mark.parametrize("body", [b"", b"short", b"<p>page</p>" * 1000])
def test_a_record_comes_back_as_it_was(key: bytes, body: bytes) -> None:
    place = place_of(b"1700000000000-3")
    slot = (record(key, body=body, stored_at=NOW - 10.0, age_max_s=500.0),)
    made = packed(KEYS, key, slot, (7, -9), place, NOW, WALL)
    assert made is not None and made.ttl_s <= 490
    ((name, stored, plain),) = made.bodies
    value = packed_body(KEYS, name, stored, deflater() if plain else None)
    assert len(value) <= SEAL_BYTES + 1 + len(body)
    found = opened(KEYS, key, made.value, NOW, WALL, 1000.0)
    assert found is not None and found.heard == place and found.found.marks == (7, -9)
    again = opened_body(KEYS, name, value, len(body))
    assert again == body
    (back,) = with_bodies(found.found, [again], NOW)
    assert back[:3] == slot[0][:3] and back[6] == pytest.approx(slot[0][6])


def test_a_record_of_another_key_does_not_exist() -> None:
    slot = (record(PUBLIC, body=b"x", stored_at=NOW, age_max_s=500.0),)
    made = packed(KEYS, PUBLIC, slot, (), NO_PLACE, NOW, WALL)
    assert made is not None
    assert opened(KEYS, OWNED, made.value, NOW, WALL, 1000.0) is None
    # Even where the seal is right.
    moved = KEYS.seal(KEYS.entry(OWNED), KEYS.opened(made.name, made.value) or b"")
    assert opened(KEYS, OWNED, moved, NOW, WALL, 1000.0) is None


def test_no_store_and_what_is_too_old_has_no_record() -> None:
    one = record(PUBLIC, stored_at=NOW, age_max_s=500.0)
    private = record(PUBLIC, stored_at=NOW, age_max_s=500.0, no_store=True)
    assert packed(KEYS, PUBLIC, (private,), (), NO_PLACE, NOW, WALL) is None
    assert packed(KEYS, PUBLIC, (one,), (), NO_PLACE, NOW + 501, WALL) is None
    assert packed(KEYS, PUBLIC, (one, private), (), NO_PLACE, NOW, WALL) is not None


def test_a_body_of_another_length_does_not_exist() -> None:
    value = packed_body(KEYS, b"n" * 16, b"<p>page</p>" * 1000, deflater())
    assert opened_body(KEYS, b"n" * 16, value, 10) is None, "however much it would unpack to"
    assert opened_body(KEYS, b"m" * 16, value, 11_000) is None
    broken = KEYS.seal(KEYS.body(b"n" * 16), b"\1no deflate")
    assert opened_body(KEYS, b"n" * 16, broken, 10) is None


def test_a_message_comes_back_as_it_was() -> None:
    removals = Removals(
        owners={b"o" * 16},
        marks={-3, 5},
        keys={OWNED},
        superseded={PUBLIC},
        purges=[Purge(b"a.b/x", None, None)],
    )
    message = Message("one", removals, [{"order": "pause", "until": 3.5, "id": "a"}], [b"sid"])
    assert message_of(message.packed()) == message
    assert not message_of(Message("one").packed())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"box": 1, "names": [3]}', b'{"box": "a", "orders": 3}']
)
def test_what_is_no_message_is_none(data: bytes) -> None:
    assert message_of(data) is None


def test_places_are_in_the_order_of_the_stream() -> None:
    ids = [b"0-1", b"5-0", b"5-10", b"1700000000000-0", b"1700000000000-2", b"1700000000001-0"]
    places = [place_of(one) for one in ids]
    assert places == sorted(places) and places[0] > NO_PLACE
    assert [id_of(place) for place in places] == ids
    assert place_of(b"nonsense") == NO_PLACE
