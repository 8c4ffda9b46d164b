"""The index of a disk: a dictionary of numbers, only smaller."""

from hypothesis import given
from hypothesis import strategies as st

from retter.store.key_table import PARTS, PLACES_MIN, KeyTable

# Few of them, near to each other and of one part: they meet. 0 and 1 mean something inside.
KEYS = st.one_of(
    st.integers(0, 40),
    st.integers(0, 40).map(lambda number: number << 56),
    st.integers(0, 2**64 - 1),
)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["set", "discard", "clear"]), KEYS, st.integers(0, 2**32 - 1)),
        max_size=300,
    )
)
def test_it_holds_what_a_dictionary_does(steps: list[tuple[str, int, int]]) -> None:
    table, model = KeyTable(), dict[int, int]()
    for step, key, note in steps:
        # 0 and 1 stand for 2 and 3 inside, as 64 bits of a hash may.
        key = key if key > 1 else key + 2
        if step == "set":
            table.set(key, note)
            model[key] = note
        elif step == "discard":
            table.discard(key)
            model.pop(key, None)
        elif len(model) > 20:
            table.clear()
            model.clear()
        assert len(table) == len(model)
    for key in {*[key for _, key, _ in steps], *model}:
        key = key if key > 1 else key + 2
        assert table.get(key) == model.get(key, -1)


def test_coming_and_going_does_not_make_it_grow() -> None:
    table = KeyTable()
    for number in range(20_000):
        table.set(number + 2, 0)
        table.discard(number + 2)
    assert len(table) == 0
    assert table.bytes_used == 12 * PLACES_MIN * PARTS


def test_it_takes_some_dozen_octets_for_each_of_many() -> None:
    table = KeyTable()
    for number in range(50_000):
        table.set((number * 0x9E3779B97F4A7C15 + 2) % 2**64, number)
    assert len(table) == 50_000
    assert table.bytes_used <= 50 * 50_000


@given(st.sets(st.integers(4, 2**64 - 1), max_size=400))
def test_a_table_that_is_filled_at_once_is_the_same(keys: set[int]) -> None:
    table = KeyTable()
    breaks = len(list(table.fill(keys)))
    assert breaks >= 256, "others have their turn at least with each part"
    assert len(table) == len(keys)
    assert all(table.get(key) == 0 for key in keys)
    assert table.get(7) == (0 if 7 in keys else -1)
    for key in keys:
        table.set(key, 5)
    assert sorted(note for _, note in table.items()) == [5] * len(keys)
    for key in keys:
        table.discard(key)
    assert len(table) == 0
