"""A store on disk on a machine whose clock jumps: nothing that is fresh goes, and all grows old."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from retter.base.steady_clock import FOLLOWS_S
from retter.disk.shelf import SWEEP_EVERY_S
from retter.store.record import STORED_AT
from retter.store.write_behind import Found
from tests.disk.pages import batch
from tests.support.disk import Clock, open_at

DAY_S, YEARS_S = 86_400.0, 52 * 365 * 86_400.0


class Machine:
    """A machine with a store, whose processes may run for hours."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.clock = Clock()
        self.boot = "first"
        monkeypatch.setattr("retter.disk.shelf.since_boot", lambda: self.clock.monotonic())
        monkeypatch.setattr("retter.disk.shelf.boot_id", lambda: self.boot)
        self.shelf = open_at(path, self.clock)

    def restarts(self) -> None:
        self.shelf.close()
        self.shelf = open_at(self.path, self.clock)

    def boots(self, wall: float) -> None:
        """Start anew, with a clock that shows something else."""
        self.shelf.close()
        self.boot = str(random.random())
        self.clock = Clock(5.0)
        self.clock.wall_offset = wall - self.clock.now
        self.shelf = open_at(self.path, self.clock)

    def runs(self, seconds: float) -> None:
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now = min(until, self.clock.now + SWEEP_EVERY_S)
            self.shelf.tick(self.clock.now)

    def stores(self, page: str) -> None:
        for key, waits in batch({page: page.encode()}).slots.items():
            (one,) = waits.slot
            stored = (*one[:STORED_AT], self.clock.now, *one[STORED_AT + 1 :])
            self.shelf.behind.changed(key, (stored,), (), self.clock.now)
        self.shelf.flush()

    def age_s(self, page: str) -> float | None:
        """Return the age of a page; None if it is not there, or too old."""
        found: list[dict[bytes, Found]] = []
        if not self.shelf.load([b"*a.b" + page.encode()], found.append):
            raise AssertionError("it reads at once")
        for one in found[0].values():
            return float(round(self.clock.now - one.slot[0][STORED_AT], 3))
        return None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path, monkeypatch)
    made.runs(2 * FOLLOWS_S)
    yield made
    made.shelf.close()


@pytest.mark.parametrize("jump_s", [YEARS_S, -3600.0, -YEARS_S])
def test_a_jump_changes_no_age(machine: Machine, jump_s: float) -> None:
    """Before, all was too old after a jump ahead, and without an age for an hour after one back."""
    machine.stores("/before")
    machine.runs(60.0)
    machine.clock.wall_offset += jump_s
    machine.runs(60.0)
    machine.stores("/after")
    assert (machine.age_s("/before"), machine.age_s("/after")) == (120.0, 0.0)
    machine.runs(3 * SWEEP_EVERY_S)
    assert machine.age_s("/before") == 120.0 + 3 * SWEEP_EVERY_S
    machine.restarts()
    assert machine.age_s("/before") == 120.0 + 3 * SWEEP_EVERY_S
    assert machine.age_s("/after") == 3 * SWEEP_EVERY_S
    machine.runs(DAY_S - 3 * SWEEP_EVERY_S - 60.0)
    assert (machine.age_s("/before"), machine.age_s("/after")) == (None, DAY_S - 60.0)
    machine.runs(2 * SWEEP_EVERY_S)
    assert machine.shelf.stats()["entries"] == 0, "they are removed from the disk too"


def test_a_machine_that_begins_in_1970_keeps_what_it_has_and_what_it_gets(machine: Machine) -> None:
    """Before, all was lost if it learnt the time after more than an hour, as when a whole site
    was without power.
    """
    machine.stores("/before")
    wall = machine.clock.wall()
    machine.boots(20.0)
    machine.runs(40.0)
    assert machine.age_s("/before") == 40.0, "as if no time had passed, until it is known"
    machine.stores("/meanwhile")
    machine.runs(2 * SWEEP_EVERY_S)
    assert machine.age_s("/before") == 40.0 + 2 * SWEEP_EVERY_S
    assert machine.age_s("/meanwhile") == 2 * SWEEP_EVERY_S
    machine.clock.wall_offset += wall + 4 * 3600.0 - machine.clock.wall()
    assert machine.age_s("/before") == 4 * 3600.0
    assert machine.shelf.stats()["entries"] == 2


def test_what_is_used_in_1970_is_not_evicted_first(machine: Machine) -> None:
    machine.stores("/old")
    machine.runs(3600.0)
    machine.stores("/used")
    machine.boots(20.0)
    machine.stores("/new")
    database = machine.shelf._database
    database._evict(database.bytes_used - 1, set())
    has = [database.has(database.slot_key(b"*a.b" + one)) for one in (b"/old", b"/used", b"/new")]
    assert has == [False, True, True]


def test_a_night_of_sleep_is_a_part_of_the_age(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the clock of the event loop stands still."""
    machine.stores("/page")
    machine.clock.wall_offset += 8 * 3600.0
    monkeypatch.setattr(
        "retter.disk.shelf.since_boot", lambda: machine.clock.monotonic() + 8 * 3600.0
    )
    machine.restarts()
    assert machine.age_s("/page") == 8 * 3600.0


def test_a_removal_that_finds_nothing_still_writes_nothing(machine: Machine) -> None:
    machine.stores("/page")
    noted = machine.shelf.note_of("clock")
    machine.runs(60.0)
    machine.shelf.behind.changed(b"*a.b/other", (), (), machine.clock.now)
    machine.shelf.flush()
    assert machine.shelf.note_of("clock") == noted
