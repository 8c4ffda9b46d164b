"""What one worker learns of sessions, another one knows before it looks at the next request."""

from math import inf
from random import Random

import pytest

from retter.base.shared_memory import SharedMemory, bytes_for, divided
from retter.store.known_sessions import GIVEN_MAX, ISSUED, ISSUED_MAX, KEPT, KEPT_S, UNKNOWN
from retter.store.lineage import HEIRS_MAX, OVERLAP_S, VALUES_MAX, Facts, Place
from retter.store.owner import OwnerRules
from retter.store.shared_sessions import SharedSessions, packed, unpacked
from tests.support.stores import SECRET
from tests.support.tracing import untraced

OLD, NEW, NEWER = (bytes([number]) * 16 for number in (1, 2, 3))
NAME = b"session"


class Worker:
    """The sessions of one worker."""

    def __init__(self, shared: SharedMemory, place: int) -> None:
        self.rules = OwnerRules(secret=SECRET, lasting=True, origin=bytes([place]))
        self.lineages, self.seen = self.rules.lineages, self.rules.seen
        self.is_locked = False  # by another one
        self.locks = 0
        self.forgot = 0
        self.sessions = SharedSessions(
            shared.sessions,
            shared.learnt,
            shared.since,
            place,
            self.rules,
            self._lock,
            self._unlock,
            self._forget,
        )

    def _lock(self) -> bool:
        self.locks += 1
        return not self.is_locked

    def _unlock(self) -> None:
        self.locks -= 1

    def _forget(self) -> None:
        self.forgot += 1

    def place_of(self, value: bytes) -> Place | None:
        self.sessions.look()
        return self.lineages.find(value)


@pytest.fixture
def shared() -> SharedMemory:
    return divided(memoryview(bytearray(bytes_for(2))), 2)


@pytest.fixture
def one(shared: SharedMemory) -> Worker:
    return Worker(shared, 0)


@pytest.fixture
def other(shared: SharedMemory) -> Worker:
    return Worker(shared, 1)


# -- rolling sessions


def test_a_value_and_its_heirs_have_the_same_places_in_all_workers(
    one: Worker, other: Worker
) -> None:
    one.lineages.begin(NAME, OLD, 0.0)
    assert other.place_of(OLD) == one.place_of(OLD)
    assert NAME in other.lineages.names and other.forgot == 1
    other.lineages.inherit(OLD, NEW, 1.0)
    first = one.place_of(OLD)
    assert first is not None
    assert one.place_of(NEW) == other.place_of(NEW) == Place(first.lineage, 1, ())
    assert one.lineages.may_store(OLD, 1.0 + OVERLAP_S)
    assert not one.lineages.may_store(OLD, 1.1 + OVERLAP_S)


def test_the_second_heir_that_is_used_begins_a_branch_in_whichever_worker(
    one: Worker, other: Worker
) -> None:
    one.lineages.begin(NAME, OLD, 0.0)
    other.sessions.look()
    one.lineages.inherit(OLD, NEW, 1.0)
    other.lineages.inherit(OLD, NEWER, 1.0)  # the response to a parallel request
    root = one.place_of(OLD)
    assert root is not None
    assert one.place_of(NEW) == Place(root.lineage, 1, ())
    branch = other.lineages.find(NEWER)  # without a look: its first use looks
    assert branch is not None and branch.lineage != root.lineage
    assert branch.earlier == ((root.lineage, 0),)
    assert one.place_of(NEWER) == branch


def test_who_cannot_get_the_lock_begins_a_branch_and_waits_for_nobody(
    one: Worker, other: Worker
) -> None:
    """The other worker may be about to give this place to another value."""
    one.lineages.begin(NAME, OLD, 0.0)
    one.lineages.inherit(OLD, NEW, 1.0)
    one.lineages.inherit(OLD, NEWER, 1.0)
    root = other.place_of(OLD)
    assert root is not None
    other.is_locked = True
    branch = other.place_of(NEW)
    assert branch is not None and branch.earlier == ((root.lineage, 0),)
    assert branch.lineage != root.lineage
    assert one.place_of(NEWER) == Place(root.lineage, 1, ()), "nobody has continued it"
    assert one.locks == other.locks == 0


def test_a_value_that_replaces_two_others_belongs_to_nobody(one: Worker, other: Worker) -> None:
    for value in (OLD, NEW):
        one.lineages.begin(NAME, value, 0.0)
    other.sessions.look()
    one.lineages.inherit(OLD, NEWER, 1.0)
    other.lineages.inherit(NEW, NEWER, 1.0)
    for worker in (one, other):
        worker.sessions.look()
        assert NEWER not in worker.lineages and NEWER in worker.seen.shared
        assert worker.forgot


def test_the_heirs_of_two_workers_are_as_few_as_those_of_one(one: Worker, other: Worker) -> None:
    one.lineages.begin(NAME, OLD, 0.0)
    other.sessions.look()
    for number in range(HEIRS_MAX):
        one.lineages.inherit(OLD, bytes([10 + number]) * 16, 1.0)
    for number in range(HEIRS_MAX):
        other.lineages.inherit(OLD, bytes([50 + number]) * 16, 1.0)
    one.sessions.look()
    facts = one.lineages.facts_of(OLD)
    assert facts is not None and len(facts[4]) == HEIRS_MAX


def test_a_value_is_forgotten_when_another_worker_saw_its_heir_used(
    one: Worker, other: Worker
) -> None:
    one.lineages.begin(NAME, OLD, 0.0)
    one.lineages.inherit(OLD, NEW, 1.0)
    one.place_of(NEW)
    other.sessions.look()
    other.lineages.begin(NAME, NEWER, 2.0 + OVERLAP_S)
    assert OLD not in other.lineages and NEW in other.lineages


# -- names, shared values, known sessions


def test_a_name_and_a_shared_value_are_known_everywhere_and_owners_are_made_anew(
    one: Worker, other: Worker
) -> None:
    one.seen.learn_name(NAME)
    one.seen.issued(OLD)
    one.seen.issued(OLD)
    other.sessions.look()
    assert NAME in other.seen.names and OLD in other.seen.shared
    assert other.forgot == 1
    other.sessions.look()
    assert other.forgot == 1 and one.forgot == 0


def test_a_value_that_two_workers_saw_set_for_one_visitor_each_is_shared(
    one: Worker, other: Worker
) -> None:
    one.seen.issued(OLD)
    other.sessions.look()
    assert not other.seen.shared
    assert other.seen.issued(OLD)
    one.sessions.look()
    assert OLD in one.seen.shared and OLD in other.seen.shared and one.forgot == 1


def test_it_is_shared_also_if_both_saw_it_before_they_heard_of_each_other(
    one: Worker, other: Worker
) -> None:
    one.seen.issued(OLD)
    other.seen.issued(OLD)
    for worker in (one, other):
        worker.sessions.look()
        assert OLD in worker.seen.shared


def test_whoever_is_known_to_one_worker_is_to_all(one: Worker, other: Worker) -> None:
    one.seen.known.given(1)
    one.seen.known.given(2)
    one.seen.known.answered((2,), 5.0)
    one.seen.known.answered((3,), 5.0)
    other.sessions.look()
    known = other.seen.known
    assert [known.standing_of((mark,), 6.0) for mark in (1, 2, 3)] == [
        (ISSUED, 1),
        (ISSUED, 2),
        (UNKNOWN, 0),
    ]
    assert known.standing_of((3,), 5.0 + KEPT_S) == (KEPT, 3)


def test_the_tables_stay_as_small_as_those_of_one_process(one: Worker, other: Worker) -> None:
    for mark in range(ISSUED_MAX + 10):
        one.seen.known.given(mark)
        one.seen.known.answered((mark,), 1.0)
        other.sessions.look()
    for mark in range(GIVEN_MAX + 10):
        one.seen.known.given(-1 - mark)
        other.sessions.look()
    assert len(other.seen.known) == ISSUED_MAX + GIVEN_MAX
    assert other.seen.known.standing_of((ISSUED_MAX + 9,), 1.0)[0] == ISSUED


def test_what_was_told_is_not_told_again(one: Worker, other: Worker, shared: SharedMemory) -> None:
    one.seen.learn_name(NAME)
    one.seen.known.given(1)
    one.seen.issued(OLD)
    one.lineages.begin(NAME, OLD, 0.0)
    other.sessions.look()
    assert shared.learnt[1] == 0
    before = shared.learnt[0]
    one.seen.learn_name(NAME)
    one.seen.known.given(1)
    assert shared.learnt[0] == before


# -- workers that begin, and memory that is not what it should be


def test_a_worker_that_begins_knows_what_all_have_learnt_and_itself_before_it_died(
    shared: SharedMemory, one: Worker, other: Worker
) -> None:
    one.lineages.begin(NAME, OLD, 0.0)
    other.sessions.look()
    other.lineages.inherit(OLD, NEW, 1.0)
    place = other.place_of(NEW)
    again = Worker(shared, 1)
    assert again.place_of(NEW) == place
    assert again.sessions._is_new is False and again.forgot == 1


def test_a_worker_that_begins_reads_the_last_half_of_a_ring_that_went_round(
    shared: SharedMemory, one: Worker
) -> None:
    values = [number.to_bytes(16) for number in range(1, 9000)]
    for value in values:
        one.lineages.begin(NAME, value, 0.0)
    assert shared.learnt[0] > 2 * shared.sessions[0].nbytes
    late = Worker(shared, 1)
    assert values[-1] in late.lineages
    assert 500 < len(late.lineages) < len(values)


def test_who_missed_messages_goes_on_with_the_next_ones(one: Worker, other: Worker) -> None:
    for number in range(1, 9000):
        one.lineages.begin(NAME, number.to_bytes(16), 0.0)
    other.sessions.look()
    one.lineages.begin(NAME, OLD, 0.0)
    assert other.place_of(OLD) == one.place_of(OLD)


def overwrite(one: Worker) -> None:
    """Tell so much that what was told before is overwritten."""
    for number in range(1, 9000):
        one.lineages.begin(NAME, number.to_bytes(16), 2.0)


@pytest.mark.parametrize("begins_anew", [False, True])
def test_who_missed_which_value_goes_on_gives_its_place_to_no_other_one(
    shared: SharedMemory, one: Worker, other: Worker, begins_anew: bool
) -> None:
    """Otherwise whoever planted the old value in a browser reads what the visitor stores."""
    one.lineages.begin(NAME, OLD, 0.0)
    other.sessions.look()
    other.lineages.inherit(OLD, NEW, 1.0)
    other.lineages.inherit(OLD, NEWER, 1.0)
    place = one.place_of(NEW)
    assert place is not None
    overwrite(one)
    late = Worker(shared, 1) if begins_anew else other
    branch = late.place_of(NEWER)
    assert branch is not None
    assert branch.lineage != place.lineage
    assert place.lineage not in {lineage for lineage, until in branch.earlier if until > 0}


@pytest.mark.parametrize("begins_anew", [False, True])
def test_names_and_shared_values_are_told_again_to_whoever_missed_them(
    shared: SharedMemory, one: Worker, other: Worker, begins_anew: bool
) -> None:
    """Otherwise a value that many visitors have is a session there, and their pages are mixed."""
    names = {b"name-%d" % number for number in range(100)}
    for name in names:
        one.seen.learn_name(name)
    one.seen.issued(OLD)
    one.seen.issued(OLD)
    overwrite(one)
    late = Worker(shared, 1) if begins_anew else other
    late.sessions.tick()
    assert OLD not in late.seen.shared
    for _ in range(4):
        one.sessions.tick()
        late.sessions.tick()
    assert OLD in late.seen.shared
    assert late.seen.names == names
    before = shared.learnt[0]
    one.sessions.tick()
    assert shared.learnt[0] == before  # it is told once


@untraced
def test_who_only_learns_forgets_which_values_were_replaced(one: Worker, other: Worker) -> None:
    value = bytes(16)
    one.lineages.begin(NAME, value, 0.0)
    for number in range(1, VALUES_MAX + 1000):
        heir = number.to_bytes(16)
        one.lineages.inherit(value, heir, number)
        one.place_of(heir)
        other.sessions.look()
        value = heir
    assert len(other.lineages._replaced) <= VALUES_MAX


@pytest.mark.parametrize(
    "message", [b"\x00", b"\x03short", b"\x04", b"\x05\x09" + bytes(16), b"\x06", b"\x06" * 90]
)
def test_what_is_no_message_is_passed_over(one: Worker, other: Worker, message: bytes) -> None:
    one.sessions._tell(message)
    one.seen.learn_name(NAME)
    other.sessions.look()
    assert other.seen.names == {NAME}


def test_a_name_that_is_longer_than_a_ring_is_not_told(one: Worker, other: Worker) -> None:
    one.lineages.begin(b"n" * (1 << 20), OLD, 0.0)
    other.sessions.look()
    assert OLD in other.lineages and not other.lineages.names


@pytest.mark.parametrize(
    "facts",
    [
        (OLD, None, b"", False, (), inf),
        (OLD, Place(NEW, 7, ()), NEWER, True, (NEW, NEWER), 12.5),
        (OLD, Place(NEW, 1 << 40, ((NEWER, 3), (OLD, 0))), b"", False, (NEW,), 0.0),
    ],
)
def test_facts_come_as_they_were(facts: Facts) -> None:
    assert unpacked(packed(facts)) == facts


def test_garbage_in_the_memory_neither_stops_a_worker_nor_teaches_it_anything(
    shared: SharedMemory, one: Worker, other: Worker
) -> None:
    random = Random(1)
    for numbers in (shared.learnt, shared.since):
        for place in (1, 2, 3):
            numbers[place] = random.getrandbits(62)
    for ring in shared.sessions[1:]:
        ring[:] = random.randbytes(ring.nbytes)
    one.seen.learn_name(NAME)
    one.sessions.look()
    again = Worker(shared, 1)
    again.sessions.look()
    for place in (1, 2, 3):
        shared.learnt[place] = shared.since[place] + random.randrange(1 << 20)
    one.sessions.look()
    assert one.seen.names == again.seen.names == {NAME}
    assert not one.seen.shared and not len(one.lineages) and not len(one.seen.known)
