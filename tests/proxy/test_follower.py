"""A follower of a store gets the same changes as the disk, and does not affect these."""

from retter.proxy.follower import Follower
from retter.store.policy import key_of
from retter.store.record import Record
from retter.store.write_behind import Found, Purge, Removals, WriteBehind
from tests.store.test_packing import NOW, OWNER, record

KEY = key_of(OWNER, b"a.example/")


class Shelf:
    """A disk on which everything may stand."""

    def __init__(self, slot: tuple[Record, ...]) -> None:
        self.slot = slot
        self.noted: list[Removals] = []

    def read(self, key: bytes, now: float) -> Found | None:
        return Found(self.slot, ())

    def knows(self, key: bytes) -> bool:
        return True

    def note(self, removals: Removals) -> None:
        self.noted.append(removals)


class Heard:
    def __init__(self) -> None:
        self.changes: list[bytes] = []
        self.removals: list[Removals] = []

    def changed(self, key: bytes) -> None:
        self.changes.append(key)

    def removed(self, removals: Removals) -> None:
        self.removals.append(removals)


def test_the_disk_and_the_follower_hear_the_same() -> None:
    slot = (record(KEY),)
    shelf, heard = Shelf(slot), Heard()
    follower = Follower(WriteBehind(shelf))
    follower.listeners.append(heard)
    assert follower.may_have(KEY)
    assert follower.fetch(KEY, NOW) == Found(slot, ())
    follower.changed(KEY, slot, (7,), NOW)
    follower.supersede(KEY, NOW)
    follower.withdrawn(KEY, NOW)
    follower.drop_owners([OWNER], [7], NOW)
    follower.drop_personal(NOW)
    follower.purge(Purge(None, b"/", None), NOW)
    follower.purge(Purge(None, None, None), NOW)
    assert heard.changes == [KEY]
    assert heard.removals == shelf.noted
    assert heard.removals == [
        Removals(superseded={KEY}),
        Removals(keys={KEY}),
        Removals(owners={OWNER}, marks={7}),
        Removals(personal=True),
        Removals(purges=[Purge(None, b"/", None)]),
        Removals(everything=True),
    ]
    assert follower.fetch(KEY, NOW) is None
    follower.forget_bodies()
    assert follower.inner is not None and follower.inner.bytes_waiting < 1000


def test_without_a_disk_nothing_is_found_behind() -> None:
    heard, follower = Heard(), Follower(None)
    follower.listeners.append(heard)
    assert not follower.may_have(KEY)
    assert follower.fetch(KEY, NOW) is None
    follower.changed(KEY, (), (), NOW)
    follower.drop_owners([], [], NOW)
    follower.forget_bodies()
    assert heard.changes == [KEY]
    assert heard.removals == [], "nobody was dropped"


def test_what_is_personal_may_not_be_on_that_disk() -> None:
    assert not Follower(WriteBehind(Shelf(()), personal=False)).personal
