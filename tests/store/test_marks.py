"""Which owners share a session."""

from hypothesis import given
from hypothesis import strategies as st

from retter.store.marks import TUPLE_MAX, OwnerMarks
from tests.support.work import cpu_s_of

owners = st.integers(0, 3 * TUPLE_MAX).map(lambda number: b"%016d" % number)
marks = st.lists(st.integers(0, 3), unique=True, max_size=3).map(tuple)


@given(st.lists(st.tuples(st.booleans(), owners, marks), max_size=120))
def test_the_owners_of_a_mark_are_those_noted_and_not_forgotten(
    changes: "list[tuple[bool, bytes, tuple[int, ...]]]",
) -> None:
    known, model = OwnerMarks(), dict[bytes, tuple[int, ...]]()
    for comes, owner, its in changes:
        if comes:
            known.add(owner, its)
            if its:
                model.setdefault(owner, its)
        else:
            known.forget(owner)
            model.pop(owner, None)
        for mark in range(4):
            assert sorted(known.owners((mark,))) == sorted(
                owner for owner, marked in model.items() if mark in marked
            )
    assert len(known) == len(model)


def test_one_more_owner_costs_no_more_however_many_there_are() -> None:
    def come_and_go() -> None:
        known = OwnerMarks()
        for number in range(30_000):
            known.add(b"%016d" % number, (7,))
        for number in range(30_000):
            known.forget(b"%016d" % number)
        assert not known.owners((7,))

    assert cpu_s_of(come_and_go, times=3, enough_s=0.5) < 1.0  # 0.02 s; else some 20
