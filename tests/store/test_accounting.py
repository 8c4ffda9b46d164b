"""Where stored responses lie: every byte is counted once, and what goes first when room is made."""

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retter.store.accounting import (
    FREED_AT_ONCE_MAX,
    OWNER_OVERHEAD_BYTES,
    SETTLED_AT_ONCE_MAX,
    Shelves,
)
from retter.store.owner import OWNER_BYTES
from retter.store.policy import key_of
from retter.store.record import BODY, Form, Record, StoredResponse, as_stored

ALICE, BOB, EVERYONE = b"a" * OWNER_BYTES, b"b" * OWNER_BYTES, b""
SIZE = 1000  # of an entry, beside its body


def record_of(body: bytes, vary: bytes = b"") -> Record:
    return tuple(
        StoredResponse(
            200, b"", body, b"", b"", b"", 0.0, 0.0, False, False, 60.0, b"", (), vary, 0, SIZE
        )
    )


def put(shelves: Shelves, owner: bytes, url: bytes, body: bytes, vary: bytes = b"") -> bytes:
    """Store a response before the other variants of its key, as the store does."""
    key = key_of(owner, url)
    record = record_of(shelves.acquire_body(body), vary)
    shelves.insert(key, owner, shelves.slots.get(key, ()), record, SIZE)
    return key


def all_of(shelves: Shelves) -> list[bytes]:
    return [record[BODY] for slot in shelves.slots.values() for record in slot]


# -- what things cost -----------------------------------------------------------------------------


def test_equal_bodies_are_kept_and_counted_once() -> None:
    shelves = Shelves(100_000, 100_000)
    first = put(shelves, EVERYONE, b"/1", b"x" * 500)
    second = put(shelves, EVERYONE, b"/2", b"x" * 500)
    assert (shelves.entries, shelves.bodies, shelves.bytes_used) == (2, 1, 2 * SIZE + 500)
    one, two = all_of(shelves)
    assert one is two
    shelves.remove_key(first)
    assert (shelves.bodies, shelves.bytes_used) == (1, SIZE + 500)
    shelves.remove_key(second)
    assert (shelves.entries, shelves.bodies, shelves.bytes_used) == (0, 0, 0)


def test_an_owner_costs_something_until_its_last_entry_goes() -> None:
    shelves = Shelves(100_000, 100_000)
    keys = [put(shelves, ALICE, b"/%d" % number, b"x") for number in range(2)]
    shelves.marks.add(ALICE, (1,))
    assert shelves.bytes_used == 2 * SIZE + 1 + OWNER_OVERHEAD_BYTES
    shelves.remove_key(keys[0])
    assert shelves.marks.owners((1,)) == [ALICE]
    shelves.remove_key(keys[1])
    assert (shelves.bytes_used, shelves.owner_keys) == (0, {})
    assert shelves.marks.owners((1,)) == []


def test_a_form_goes_with_its_body() -> None:
    shelves = Shelves(100_000, 100_000)
    key = put(shelves, EVERYONE, b"/", b"x" * 500)
    (body,) = all_of(shelves)
    shelves.add_coded(body, b"gzip", b"packed")
    shelves.add_coded(body, b"gzip", b"another")  # the first one is kept
    shelves.add_coded(body, b"br", body)  # gains nothing, and costs nothing
    assert shelves.coded(body, b"gzip") == b"packed"
    assert shelves.coded(body, b"br") is body
    assert shelves.coded(body, b"zstd") is None
    assert shelves.bytes_used == SIZE + 500 + len(b"packed")
    shelves.remove_key(key)
    assert shelves.bytes_used == 0
    shelves.add_coded(body, b"gzip", b"late")
    assert (shelves.bytes_used, shelves.coded(body, b"gzip")) == (0, None), "nobody has that body"


def test_a_body_and_its_forms_take_half_of_the_budget_at_most() -> None:
    shelves = Shelves(10_000, 10_000)
    put(shelves, EVERYONE, b"/", b"x" * 4000)
    (body,) = all_of(shelves)
    assert shelves.coded_bytes_max(body) == 1000
    shelves.add_coded(body, b"gzip", b"y" * 1001)
    assert shelves.coded(body, b"gzip") is body, "noted, so that it is not made again"
    shelves.add_coded(body, b"br", b"y" * 900)
    assert shelves.coded_bytes_max(body) == 100


def test_what_fits() -> None:
    shelves = Shelves(10_000, 5_000)
    assert shelves.fits(EVERYONE, 10_000) and not shelves.fits(EVERYONE, 10_001)
    share = 5_000 - OWNER_OVERHEAD_BYTES
    assert shelves.fits(ALICE, share) and not shelves.fits(ALICE, share + 1)


# -- what goes first ------------------------------------------------------------------------------


def test_what_has_been_asked_for_stays() -> None:
    shelves = Shelves(3 * SIZE + 3, 100_000)
    keys = [put(shelves, EVERYONE, b"/%d" % number, b"%d" % number) for number in range(3)]
    shelves.touch(keys[0], EVERYONE)
    put(shelves, EVERYONE, b"/3", b"3")
    assert all_of(shelves) == [b"0", b"2", b"3"]
    assert (shelves.evicted_budget, shelves.evicted_share) == (1, 0)


def test_of_a_key_the_oldest_variant_goes_first() -> None:
    shelves = Shelves(2 * SIZE + 2, 100_000)
    key = put(shelves, EVERYONE, b"/", b"1", vary=b"1")
    put(shelves, EVERYONE, b"/", b"2", vary=b"2")
    shelves.bring_forward(key, shelves.slots[key][1])
    assert all_of(shelves) == [b"1", b"2"]
    put(shelves, EVERYONE, b"/", b"3", vary=b"3")
    assert all_of(shelves) == [b"3", b"1"]


def test_an_owner_over_its_share_pays_with_its_own() -> None:
    shelves = Shelves(100_000, OWNER_OVERHEAD_BYTES + 2 * (SIZE + 100))
    put(shelves, EVERYONE, b"/", b"e" * 100)
    put(shelves, BOB, b"/", b"b" * 100)
    for number in range(3):
        put(shelves, ALICE, b"/%d" % number, b"%d" % number * 100)
    assert all_of(shelves) == [b"e" * 100, b"b" * 100, b"1" * 100, b"2" * 100]
    assert (shelves.evicted_budget, shelves.evicted_share) == (0, 1)


def test_a_replacement_changes_what_an_owner_pays() -> None:
    shelves = Shelves(100_000, 100_000)
    key = put(shelves, ALICE, b"/", b"x" * 100)
    old = as_stored(shelves.slots[key][0])
    form = Form(b"", b"y" * 40)
    shelves.add_coded(old.body, b"gzip", form.body)
    new = old._replace(forms=((b"gzip", form),), entry_bytes=SIZE + 7)
    shelves.replace(key, old, new)
    assert shelves.slots[key] == (tuple(new),)
    assert shelves.bytes_used == OWNER_OVERHEAD_BYTES + SIZE + 7 + 100 + 40
    assert shelves.owner_bytes(ALICE) == shelves.bytes_used


# -- little by little -----------------------------------------------------------------------------


def test_clearing_frees_little_by_little() -> None:
    count = FREED_AT_ONCE_MAX // 2
    shelves = Shelves(10**9, 10**9)
    for number in range(count):
        put(shelves, EVERYONE, b"/%d" % number, b"%d" % number)
    assert shelves.clear() == count
    assert (shelves.entries, shelves.bytes_used, shelves.bodies, len(shelves.slots)) == (0, 0, 0, 0)
    left = sum(len(shelf) for shelf in shelves._cleared)
    assert left == 4 * count  # the places, their order, the bodies, and their uses
    shelves.free_some()
    assert sum(len(shelf) for shelf in shelves._cleared) == left - FREED_AT_ONCE_MAX
    shelves.free_all()
    assert shelves._cleared == []


def test_a_smaller_budget_is_reached_little_by_little() -> None:
    count = 2 * SETTLED_AT_ONCE_MAX
    shelves = Shelves(10**9, 10**9)
    for number in range(count):
        put(shelves, EVERYONE, b"/%d" % number, b"x")
    shelves.resize(10 * SIZE + 1, 10**9)
    assert shelves.entries == count
    shelves.free_some()
    assert shelves.entries == count - SETTLED_AT_ONCE_MAX
    put(shelves, EVERYONE, b"/new", b"x")  # room for it is there meanwhile
    assert shelves.entries <= count - SETTLED_AT_ONCE_MAX + 1
    for _ in range(3):
        shelves.free_some()
    assert (shelves.entries, shelves.bytes_used) == (10, 10 * SIZE + 1)


def test_what_is_hidden_is_not_found_and_is_counted_until_it_is_settled() -> None:
    shelves = Shelves(100_000, 100_000)
    key = put(shelves, ALICE, b"/", b"x")
    before = shelves.bytes_used
    assert shelves.hide([key]) == 1
    assert (shelves.entries, list(shelves.slots), shelves.bytes_used) == (0, [], before)
    shelves.free_some()
    assert (shelves.bytes_used, shelves.owner_keys) == (0, {})


def test_what_is_hidden_twice_is_settled_twice() -> None:
    """It has been stored again in between."""
    shelves = Shelves(100_000, 100_000)
    for body in (b"first", b"second"):
        assert shelves.hide([put(shelves, ALICE, b"/", body)]) == 1
    assert shelves.bodies == 1, "the first one is settled when the key is hidden again"
    shelves.free_some()
    assert (shelves.bytes_used, shelves.bodies, shelves.owner_keys) == (0, 0, {})


# -- every byte -----------------------------------------------------------------------------------


class Kept(NamedTuple):
    """An entry of the model."""

    owner: bytes
    url: bytes
    body: bytes
    vary: bytes


OWNERS = st.sampled_from([EVERYONE, ALICE, BOB])
URLS = st.sampled_from([b"/1", b"/2", b"/3"])
BODIES = st.sampled_from([b"", b"x" * 100, b"y" * 300])


class Accounts(RuleBasedStateMachine):
    """Whatever is done: the totals are what a count of everything that is kept comes to."""

    def __init__(self) -> None:
        super().__init__()
        self.shelves = Shelves(8_000, 4_000)
        self.stored = 0

    @rule(owner=OWNERS, url=URLS, body=BODIES)
    def puts(self, owner: bytes, url: bytes, body: bytes) -> None:
        self.stored += 1
        put(self.shelves, owner, url, body, vary=b"%d" % self.stored)

    @rule(owner=OWNERS, url=URLS)
    def removes(self, owner: bytes, url: bytes) -> None:
        self.shelves.remove_key(key_of(owner, url))

    @rule(owner=OWNERS, url=URLS)
    def hides(self, owner: bytes, url: bytes) -> None:
        key = key_of(owner, url)
        if key in self.shelves.slots:
            self.shelves.hide([key])

    @rule(owner=OWNERS, url=URLS)
    def uses(self, owner: bytes, url: bytes) -> None:
        key = key_of(owner, url)
        if key in self.shelves.slots:
            self.shelves.touch(key, owner)

    @rule(body=BODIES, coded=st.sampled_from([b"", b"p" * 50]))
    def codes(self, body: bytes, coded: bytes) -> None:
        self.shelves.add_coded(body, b"gzip", coded)

    @rule()
    def clears(self) -> None:
        self.shelves.clear()

    @rule(bytes_max=st.integers(3_000, 9_000))
    def resizes(self, bytes_max: int) -> None:
        self.shelves.resize(bytes_max, 4_000)

    @rule()
    def ticks(self) -> None:
        self.shelves.free_some()

    @invariant()
    def every_byte_is_counted_once(self) -> None:
        shelves = self.shelves
        slots = [*shelves.slots.items(), *shelves._hidden.items()]
        owners = {key[1 : 1 + OWNER_BYTES] for key, _ in slots if key[:1] != b"*"}
        records = [record for _, slot in slots for record in slot]
        bodies = {record[BODY] for record in records}
        forms = [
            coded
            for body in bodies
            for coded in shelves._coded.get(body, {}).values()
            if coded is not shelves._bodies[body]
        ]
        assert shelves.bytes_used == (
            len(records) * SIZE
            + len(owners) * OWNER_OVERHEAD_BYTES
            + sum(len(octets) for octets in (*bodies, *forms))
        )
        assert shelves.entries == sum(len(slot) for slot in shelves.slots.values())
        assert shelves.bodies == len(bodies)
        assert shelves._last_body is None or shelves._last_body in bodies
        queues = shelves.queues
        assert {*queues.probation, *queues.main} == set(shelves.slots)
        assert queues.asked.keys() <= shelves.slots.keys()
        assert dict(queues.probation) == {
            key: sum(SIZE + len(record[BODY]) for record in shelves.slots[key])
            for key in queues.probation
        }
        assert set(shelves.owner_keys) == owners
        for owner in owners:
            own = [record for key, slot in slots if key[1:].startswith(owner) for record in slot]
            referred = sum(SIZE + len(record[BODY]) for record in own)
            assert shelves.owner_bytes(owner) == OWNER_OVERHEAD_BYTES + referred


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(deadline=None)
