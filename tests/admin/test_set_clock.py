"""What operators are told on a machine whose clock is set while RETTER runs."""

import re
import time
from dataclasses import dataclass

import pytest

from retter.admin.set_clock import SetClock
from retter.control import words
from tests.support.admin import FakeAdmin, admin_of
from tests.support.harness import get

YEARS_S = 56 * 365 * 86_400.0


@dataclass
class SystemClock:
    """The system's clock, and by how much it was set."""

    by_s: float = 0.0


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> SystemClock:
    clock, real = SystemClock(), time.time
    monkeypatch.setattr("time.time", lambda: real() + clock.by_s)
    return clock


def troubled(admin: FakeAdmin) -> None:
    """Have an incident begin, and the circuit change its state."""
    admin.proxy.auto_accept = False
    admin.proxy.client(get())
    admin.proxy.refuse()
    admin.proxy.advance(1.0)
    admin.post("/api/circuit", "mode=open&seconds=600")
    admin.proxy.advance(1.0)


@pytest.mark.parametrize("jump_s", [YEARS_S, -3600.0, -YEARS_S])
def test_all_that_happened_before_gets_the_right_time(system: SystemClock, jump_s: float) -> None:
    """Before, a box that begins in 1970 said that all is well since 56 years."""
    system.by_s = -jump_s
    with admin_of(connect_hold_s=0) as admin:
        troubled(admin)
        system.by_s = 0.0
        admin.proxy.advance(1.0)
        now, state = time.time(), admin.state()
        assert state["situation"]["since"] == pytest.approx(now, abs=20)
        assert [one["began"] for one in state["incidents"]] == pytest.approx([now], abs=20)
        assert state["events"]
        for event in state["events"]:
            assert (event["at"], event["first_at"]) == pytest.approx((now, now), abs=20)
        assert re.search(r", for \d s; ", words.headline(state, now))
        assert 0.0 <= state["situation"]["lasted_s"] < 20.0
        found = admin.ask("/api/incidents?number=1").json
        assert found["changes"] == admin.ask("/api/trips").json["trips"]
        assert found["history"]["until"] == pytest.approx(now, abs=20)
        assert len(found["history"]["state"]) == 3
        (began,) = [one["at"] for one in found["incident"]["course"] if one["row"] == "held open"]
        assert began == pytest.approx(now, abs=20)


def test_what_happens_between_the_jump_and_the_next_second_is_moved_too(
    system: SystemClock,
) -> None:
    with admin_of() as admin:
        admin.proxy.advance(1.0)
        system.by_s = YEARS_S
        admin.post("/api/circuit", "mode=open&seconds=600")
        admin.proxy.advance(1.0)
        (event,) = admin.state()["events"]
        assert event["at"] == pytest.approx(time.time(), abs=20)


def test_a_clock_that_is_hurried_and_a_night_of_sleep_move_nothing(
    system: SystemClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = [1000.0]
    monkeypatch.setattr("retter.admin.set_clock.since_boot", lambda: counted[0])
    monkeypatch.setattr("time.time", lambda: counted[0] + 1_750_000_000.0 + system.by_s)
    clock = SetClock()
    moved: list[float] = []
    clock.on_set.append(moved.append)
    counted[0] += 8 * 3600.0
    system.by_s = 0.4
    clock.look()
    assert moved == []
    system.by_s = 2.0
    clock.look()
    clock.look()
    assert moved == [2.0]
    assert clock.now() == time.time()
