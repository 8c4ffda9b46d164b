"""Values of one session, one after the other: who reads what (lineage.py)."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retter.store.lineage import (
    EARLIER_MAX,
    HEIRS_MAX,
    OVERLAP_S,
    VALUES_MAX,
    Lineages,
    Place,
    signed_payload,
)


def make() -> Lineages:
    return Lineages(lambda number: b"L%d" % number)


def reads(reader: Place | None, writer: Place | None) -> bool:
    """Tell whether one reads what the other stores."""
    assert reader is not None and writer is not None
    readable = [(reader.lineage, reader.generation), *reader.earlier]
    return any(writer.lineage == one and writer.generation <= until for one, until in readable)


def chain(lineages: Lineages, *values: bytes, at: float = 0.0) -> list[Place | None]:
    """Let each value be given in place of the one before, and used."""
    lineages.begin(b"s", values[0], at)
    places = [lineages.find(values[0])]
    for old, new in pairwise(values):
        assert lineages.inherit(old, new, at)
        places.append(lineages.find(new))
    return places


def test_a_newer_value_reads_what_the_older_one_stores_and_not_the_other_way() -> None:
    first, second, third = chain(make(), b"a", b"b", b"c")
    assert reads(second, first) and reads(third, first) and reads(third, second)
    assert not (reads(first, second) or reads(first, third) or reads(second, third))


def test_what_was_not_given_here_has_no_place_and_passes_nothing_on() -> None:
    lineages = make()
    assert lineages.find(b"made up") is None
    assert lineages.inherit(b"made up", b"new", 0.0)
    assert lineages.find(b"new") is None
    assert b"new" not in lineages


def test_two_used_heirs_of_one_value_do_not_read_each_other() -> None:
    lineages = make()
    (old,) = chain(lineages, b"old")
    for heir in (b"one", b"other"):
        assert lineages.inherit(b"old", heir, 0.0)
    one, other = lineages.find(b"one"), lineages.find(b"other")
    assert reads(one, old) and reads(other, old)
    assert not reads(one, other) and not reads(other, one)
    lineages.inherit(b"one", b"one 2", 1.0)
    lineages.inherit(b"other", b"other 2", 1.0)
    one2, other2 = lineages.find(b"one 2"), lineages.find(b"other 2")
    assert reads(one2, one) and reads(one2, old) and reads(other2, other) and reads(other2, old)
    for reader, writer in ((one2, other), (one2, other2), (other2, one), (other2, one2)):
        assert not reads(reader, writer)


def test_an_heir_given_by_two_is_nobodys() -> None:
    lineages = make()
    chain(lineages, b"a")
    chain(lineages, b"b")
    assert lineages.inherit(b"a", b"same", 0.0)
    assert lineages.inherit(b"a", b"same", 0.0)  # parallel requests of one
    assert not lineages.inherit(b"b", b"same", 0.0)
    assert lineages.find(b"same") is None


def test_the_old_value_stores_for_ten_seconds_more() -> None:
    lineages = make()
    chain(lineages, b"old")
    assert lineages.may_store(b"old", 1e9)
    lineages.inherit(b"old", b"new", 5.0)
    lineages.inherit(b"old", b"newer", 9.0)
    assert lineages.may_store(b"old", 5.0 + OVERLAP_S)
    assert not lineages.may_store(b"old", 5.1 + OVERLAP_S)
    assert not lineages.may_store(b"unknown", 0.0)


def test_a_replaced_value_and_its_unused_heirs_are_forgotten_after_that() -> None:
    lineages = make()
    chain(lineages, b"old")
    for heir in (b"used", b"unused"):
        lineages.inherit(b"old", heir, 5.0)
    lineages.find(b"used")
    lineages.begin(b"s", b"somebody", 5.0 + OVERLAP_S)
    assert b"old" in lineages and b"unused" in lineages
    lineages.begin(b"s", b"somebody else", 5.1 + OVERLAP_S)
    assert b"old" not in lineages and b"unused" not in lineages
    assert b"used" in lineages


def test_everything_is_bounded() -> None:
    lineages = make()
    chain(lineages, b"a")
    for number in range(HEIRS_MAX * 3):
        lineages.inherit(b"a", b"heir%d" % number, 0.0)
    assert len(lineages) == 1 + HEIRS_MAX
    for number in range(VALUES_MAX + 10):
        lineages.begin(b"s", b"%d" % number, 0.0)
    assert len(lineages) == VALUES_MAX
    # A visitor whose browser always keeps the second value.
    lineages.begin(b"s", b"v0", 0.0)
    for number in range(EARLIER_MAX * 2):
        old = b"v%d" % number
        assert lineages.find(old) is not None
        for new in (b"w%d" % number, b"v%d" % (number + 1)):
            lineages.inherit(old, new, 0.0)
            place = lineages.find(new)
            assert place is not None and len(place.earlier) <= EARLIER_MAX


STEPS = st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.floats(0, 8)), max_size=40)


@given(steps=STEPS)
def test_whatever_is_given_and_used_nobody_reads_but_what_is_before_them(
    steps: list[tuple[int, bool, float]],
) -> None:
    lineages = make()
    before: dict[bytes, set[bytes]] = {}
    places: dict[bytes, Place] = {}
    now = 0.0
    for number, (parent, root, later) in enumerate(steps):
        now += later
        name = b"%d" % number
        old = b"%d" % (parent % max(1, number))
        if root or old not in places or old not in lineages:
            lineages.begin(b"s", name, now)
            before[name] = {name}
        else:
            assert lineages.inherit(old, name, now)
            before[name] = before[old] | {name}
        if (place := lineages.find(name)) is not None:
            places[name] = place
    for reader, place in places.items():
        for writer, other in places.items():
            if reads(place, other):
                assert writer in before[reader]


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (b"eyJ1IjoxfQ.aBcDeF.abcdefghijklmnopqrstuvwxyz0", b"eyJ1IjoxfQ"),
        (b".eJyrVi.aBcDeF.abcdefghijklmnopqrstuvwxyz0", b".eJyrVi"),
        (b'"eyJ1IjoxfQ:1abCdE:abcdefghijklmnopqrstuvwxyz0"', b"eyJ1IjoxfQ"),
        (b"eyJhbGciOiJIUzI1NiJ9.eyJ1IjoxfQ.abcdefghijklmnopqrstuvwxyz0", None),  # a JWT
        (b"eyJ1IjoxfQ.aBcDeF.short", None),
        (b".aBcDeF.abcdefghijklmnopqrstuvwxyz0", None),
        (b"0123456789abcdef0123456789abcdef", None),
        (b"", None),
        (b"a.b.c", None),
        (b"eyJ1IjoxfQ.aB%DeF.abcdefghijklmnopqrstuvwxyz0", None),
    ],
)
def test_what_a_signed_session_holds(value: bytes, payload: bytes | None) -> None:
    assert signed_payload(value) == payload
