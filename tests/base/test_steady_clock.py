"""The time of day that does not jump, on machines whose clock does."""

from dataclasses import dataclass
from typing import Any

import pytest

from retter.base.steady_clock import FOLLOWS_S, SteadyClock, boot_id, since_boot

TODAY = 1_750_000_000.0
DAY_S, YEARS_S = 86_400.0, 56 * 365 * 86_400.0


@dataclass
class Machine:
    """A machine that is switched on: what its clocks say."""

    wall: float = TODAY
    counted: float = 10.0
    boot: str = "first"

    def runs(self, seconds: float) -> None:
        self.wall += seconds
        self.counted += seconds

    def process(self, noted: Any = None) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.counted, self.boot, noted)


def noted_by(machine: Machine, noted: Any = None) -> Any:
    """Return the note of a process that has run for an hour."""
    clock = machine.process(noted)
    machine.runs(FOLLOWS_S)
    return clock.note()


def test_it_is_the_time_of_day() -> None:
    assert (clock := SteadyClock(lambda: TODAY)).now() == pytest.approx(TODAY, abs=60)
    assert clock.now() <= clock.now()
    assert since_boot() <= since_boot()
    assert boot_id() == boot_id()


@pytest.mark.parametrize("jump_s", [YEARS_S, -3600.0, -TODAY])
def test_after_an_hour_no_jump_changes_it(jump_s: float) -> None:
    machine = Machine()
    clock = machine.process()
    machine.runs(FOLLOWS_S)
    assert clock.now() == TODAY + FOLLOWS_S
    machine.wall += jump_s
    machine.runs(5.0)
    assert clock.now() == TODAY + FOLLOWS_S + 5.0


def test_in_the_first_hour_it_follows_what_the_machine_learns() -> None:
    machine = Machine(wall=0.0)
    clock = machine.process()
    machine.wall = TODAY
    assert clock.now() == TODAY
    machine.wall -= YEARS_S / 56
    assert clock.now() == TODAY - YEARS_S / 56
    assert clock.note() is None, "it is not sure yet"


def test_a_machine_that_never_learns_the_time_has_its_own() -> None:
    machine = Machine(wall=0.0)
    assert noted_by(machine) is None
    clock = machine.process()
    machine.runs(DAY_S)
    assert clock.now() == machine.wall


@pytest.mark.parametrize("begins_at", [0.0, TODAY - 90 * DAY_S], ids=["1970", "image"])
def test_a_machine_without_a_battery_goes_on_from_the_process_before(begins_at: float) -> None:
    """It begins in 1970, or at the date of its image. Then it learns how long it was off."""
    noted = noted_by(Machine())
    machine = Machine(wall=begins_at, counted=5.0, boot="second")
    clock = machine.process(noted)
    machine.runs(40.0)
    assert clock.now() == TODAY + FOLLOWS_S + 40.0
    machine.wall = TODAY + 3 * DAY_S
    assert clock.now() == TODAY + 3 * DAY_S


def test_a_machine_that_learns_the_time_after_hours_loses_nothing() -> None:
    noted = noted_by(Machine())
    machine = Machine(wall=0.0, counted=5.0, boot="second")
    clock = machine.process(noted)
    machine.runs(5 * FOLLOWS_S)
    assert clock.now() == TODAY + 6 * FOLLOWS_S
    assert clock.note() is None
    machine.wall = TODAY + 3 * DAY_S
    assert clock.now() == TODAY + 3 * DAY_S
    machine.wall += YEARS_S
    assert clock.now() == TODAY + 3 * DAY_S, "more than an hour after its start it follows no more"


def test_a_restart_counts_on_whatever_the_clock_says() -> None:
    machine = Machine()
    noted = noted_by(machine)
    machine.wall += YEARS_S
    machine.runs(7.0)
    clock = machine.process(noted)
    assert clock.now() == TODAY + FOLLOWS_S + 7.0
    machine.runs(1.0)
    again = machine.process(clock.note())
    assert again.now() == TODAY + FOLLOWS_S + 8.0


def test_a_clock_that_was_ahead_and_is_right_again_still_tells_how_long_it_was_off() -> None:
    machine = Machine(wall=TODAY + YEARS_S)
    clock = machine.process()
    machine.runs(FOLLOWS_S)
    before = clock.now()
    machine.wall = TODAY
    noted = clock.note()
    later = Machine(wall=TODAY + DAY_S, counted=3.0, boot="second").process(noted)
    assert later.now() == pytest.approx(before + DAY_S)


def test_a_clock_that_was_set_ahead_and_back_while_it_was_off() -> None:
    machine = Machine()
    clock = machine.process()
    machine.runs(FOLLOWS_S)
    clock.now()
    machine.wall += YEARS_S
    noted = clock.note()
    later = Machine(wall=TODAY + 2 * DAY_S, counted=3.0, boot="second").process(noted)
    assert later.now() == TODAY + 2 * DAY_S


@pytest.mark.parametrize("noted", [None, [], 7, "text", [1, 2, 3], ["a", 1, 2, "b"], {},
                                   [float("nan"), 0.0, 0.0, "first"],
                                   [float("inf"), 0.0, 0.0, "first"]])  # fmt: skip
def test_a_note_that_is_none_is_none(noted: Any) -> None:
    assert Machine().process(noted).now() == TODAY
