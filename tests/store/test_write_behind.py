"""When a batch is due."""

from typing import Any

import pytest

from retter.store.packed_removals import packed_removals, unpacked_removals
from retter.store.record import BODY
from retter.store.write_behind import (
    COMMIT_BYTES,
    REMOVALS_MAX,
    WRITTEN_BYTES_PER_S,
    Found,
    Removals,
    WriteBehind,
)
from tests.store.test_packing import record
from tests.support.heads import response_head
from tests.support.stores import make, put, request, who


class Nothing:
    """A disk with nothing on it, or with something under each key."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full

    def read(self, key: bytes, now: float) -> Found | None:
        return None

    def knows(self, key: bytes) -> bool:
        return self.full

    def note(self, removals: Removals) -> None:
        pass


def change(behind: WriteBehind, number: int, size: int, now: float) -> None:
    key = b"*a.b/%d" % number
    one: Any = record(key, body=b"x" * size, stored_at=now, age_max_s=86400.0)
    behind.changed(key, (one,), (), now)


def test_what_changes_fast_is_written_no_faster_than_the_disk_may_be_used() -> None:
    behind = WriteBehind(Nothing(full=True))
    change(behind, 1, COMMIT_BYTES, 10.0)
    assert behind.is_due(10.0)
    size = behind.bytes_waiting
    assert behind.take(10.0) is not None and behind.done()
    change(behind, 1, COMMIT_BYTES, 10.01)
    pause_s = size / WRITTEN_BYTES_PER_S
    assert not behind.is_due(10.0 + pause_s - 0.01)
    change(behind, 1, COMMIT_BYTES, 10.02)
    assert behind.is_due(10.0 + pause_s)
    batch = behind.take(10.0 + pause_s)
    assert batch is not None and len(batch.slots) == 1, "what has changed twice is written once"


def test_what_is_not_on_disk_yet_does_not_wait_and_nothing_is_dropped_for_the_pace() -> None:
    behind = WriteBehind(Nothing())
    change(behind, 1, COMMIT_BYTES, 10.0)
    behind.take(10.0)
    behind.done()
    change(behind, 2, COMMIT_BYTES, 10.01)
    assert behind.is_due(10.01), "it is new"
    behind = WriteBehind(Nothing(full=True))
    for number in range(100):
        change(behind, number, COMMIT_BYTES // 2, 10.0)
        if behind.is_due(10.0):
            assert behind.take(10.0) is not None
            behind.done()
    assert behind.not_kept == 0


def test_what_is_taken_back_does_not_wait_for_its_turn() -> None:
    behind = WriteBehind(Nothing(full=True))
    change(behind, 1, COMMIT_BYTES, 10.0)
    behind.take(10.0)
    behind.done()
    change(behind, 2, COMMIT_BYTES, 10.01)
    assert not behind.is_due(10.01)
    behind.withdrawn(b"*a.b/1", 10.01)
    assert behind.is_due(10.01)


def test_little_waits_for_five_seconds() -> None:
    behind = WriteBehind(Nothing())
    change(behind, 1, 100, 10.0)
    assert not behind.is_due(14.9)
    assert behind.is_due(15.0)


def test_what_is_read_while_its_removal_is_under_way_is_not_there() -> None:
    """The disk still has it, until the batch is written."""
    behind = WriteBehind(Nothing())
    owner = b"o" * 16
    key = b"@" + owner + b"a.b/mine"
    one: Any = record(key, body=b"mine", stored_at=10.0, age_max_s=86400.0)
    found = Found((one,), (7,))
    assert behind.checked(key, found) == found
    behind.drop_owners([owner], (), 10.0)
    assert behind.take(10.0) is not None
    assert behind.checked(key, found) is None
    behind.done()
    behind.drop_owners([], (7,), 11.0)
    behind.take(11.0)
    assert behind.checked(key, found) is None, "by the mark of its session"


class Everything(Nothing):
    """A disk that has the same entry under each key."""

    def __init__(self, found: Found) -> None:
        super().__init__(full=True)
        self.found = found

    def read(self, key: bytes, now: float) -> Found | None:
        return self.found


@pytest.mark.parametrize("removed", [False, True])
def test_what_was_removed_since_it_was_read_is_not_copied_to_memory(removed: bool) -> None:
    """Its compressed form is made in a thread, for instance, and a logout comes meanwhile."""
    earlier, store, asked = make(), make(), request()
    assert put(earlier, asked, response_head())
    slot = earlier.shelves.slots[who(asked).key]
    store.put_behind(WriteBehind(Everything(Found(slot, (), often=False))))
    found = store.find(who(asked), asked, 11.0)
    assert found is not None and not store.shelves.slots, "it is read and not copied"
    if removed:
        store.invalidation.purge(url=b"/elsewhere", now=11.5)
    store.keep_borrowed(found[BODY])
    assert bool(store.shelves.slots) is not removed


def test_what_a_form_has_changed_is_packed_like_anything_else() -> None:
    key = b"*https://shop.example/a\xff\x00b"
    for removals in (
        Removals(superseded={key}),
        Removals(superseded={key, b"*b"}),
        Removals(superseded={key}, keys={b"*c"}),
        Removals(superseded={key}, personal=True),
    ):
        assert unpacked_removals(packed_removals(removals)) == removals


def test_what_forms_have_changed_is_added_within_the_limit() -> None:
    removals = Removals(keys={b"*gone"})
    for number in range(REMOVALS_MAX - 1):
        removals.add(Removals(superseded={b"*%d" % number}))
    assert len(removals.superseded) == REMOVALS_MAX - 1 and not removals.everything
    removals.add(Removals(superseded={b"*one more"}))
    assert removals == Removals(everything=True)
    removals.add(Removals(superseded={b"*another"}))
    assert removals == Removals(everything=True)


def test_in_memory_a_new_page_does_not_wait_for_five_seconds_and_a_known_one_does() -> None:
    behind = WriteBehind(Nothing())
    behind.new_every_s = 0.2
    change(behind, 1, 100, 10.0)
    assert not behind.is_due(10.1) and behind.is_due(10.2)
    assert behind.take(10.2) is not None and behind.done()
    change(behind, 2, 100, 12.0)
    assert not behind.is_due(12.1), "it is counted anew"
    behind = WriteBehind(Nothing(full=True))
    behind.new_every_s = 0.2
    change(behind, 1, 100, 10.0)
    assert not behind.is_due(14.9) and behind.is_due(15.0)


def test_what_a_worker_knows_of_a_key_goes_with_its_entries() -> None:
    behind, key = WriteBehind(Nothing()), b"*a.b/1"
    change(behind, 1, 100, 10.0)
    batch = behind.take(10.0)
    assert batch is not None and batch.slots[key].new and not batch.slots[key].whole
    behind = WriteBehind(Nothing(full=True))
    one: Any = record(key, stored_at=10.0, age_max_s=86400.0)
    secret: Any = record(key, no_store=True, stored_at=10.0, age_max_s=86400.0)
    behind.changed(key, (one, secret), (), 10.0)
    behind.changed(key, (one,), (), 10.1)
    batch = behind.take(10.1)
    assert batch is not None and not batch.slots[key].new
    assert batch.slots[key].whole, "the one with no-store has replaced one on disk"
